"""Trees as TOML files hold them, some values changed, left out, or put where they do not belong."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

Case = tuple[list[str], Any]

VALUES: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 7, 100, 2**63, 2**64, 10**30, 0.0, -0.0, 0.5, 1e-300, 5e-324, 1e15, 1e16,
    1e308, float("inf"), float("nan"), True, False, "", "x", "5 ms", "1e99999999999999999999 s",
    "-1 s", "2 GB/s", "5%", "ä\u202e", "a\nb", "\x1b[31m", "x" * 10_000, [], [1], [0, 0], [[0]],
    [2**64], {}, {"kind": "constant", "value": -0.0}, {"kind": "exponential", "mean": 0.0},
    {"kind": "lognormal", "mean": 0.1, "cv": 30}, {"kind": "pareto", "mean": 1, "shape": 1.01},
    {"kind": "empirical", "values": [0, 1]}, {"kind": "recorded", "values": [1.0]},
    {"kind": "mixture", "parts": [], "weights": []},
)  # fmt: skip


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values in a tree, also of those that hold others."""
    if path:
        yield path
    if isinstance(tree, (dict, list)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, (*path, key))


def changed(rng: random.Random, sound: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """A copy of the `sound` tree with one or two changes; `known`: dotted keys that it may have."""
    tree: Any = copy.deepcopy(dict(sound))
    for _ in range(rng.randrange(1, 3)):
        if rng.random() < 0.4:
            *parents, last = rng.choice(known).split(".")
            place = tree
            for name in parents:
                place = place.setdefault(name, {}) if isinstance(place, dict) else {}
            if isinstance(place, dict):
                place[last] = copy.deepcopy(rng.choice(VALUES))
            continue
        *parents, last = rng.choice(list(leaves(tree)))
        place = tree
        for name in parents:
            place = place[name]
        if rng.random() < 0.1:
            del place[last]
        else:
            place[last] = copy.deepcopy(rng.choice(VALUES))
    return tree


def write(tree: Mapping[str, Any], path: Path) -> None:
    """Write the tree as TOML, or nothing where TOML cannot hold it."""
    with contextlib.suppress(ValueError, TypeError):
        path.write_text(tomli_w.dumps(tree), encoding="utf-8", errors="replace")


def inline(value: Any) -> str:
    """A value as an option gives it; text stands for itself."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {quoted(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(quoted, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def quoted(value: Any) -> str:
    """The same inside of a list or a table."""
    return f'"{value}"' if isinstance(value, str) else inline(value)
