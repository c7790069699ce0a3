"""Trees as TOML files hold them, some values changed, left out, or put where they do not belong."""

from __future__ import annotations

import contextlib
import copy
import random
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import tomli_w

from dlsim.scenario.keys import EACH, described

Case: TypeAlias = tuple[list[str], Any]
Known: TypeAlias = Mapping[str, Sequence[Any]]  # dotted keys that there are, with sound values

VALUES: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 7, 100, 2**63, 2**64, 10**30, 0.0, -0.0, 0.5, 1e-300, 5e-324, 1e15, 1e16,
    1e308, float("inf"), float("nan"), True, False, "", "x", "5 ms", "1e99999999999999999999 s",
    "-1 s", "2 GB/s", "5%", "ä\u202e", "a\nb", "\x1b[31m", "x" * 10_000, "2." + "9" * 5000, [], [1],
    [0, 0], [[0]], [2**64], {}, {"kind": "constant", "value": -0.0},
    {"kind": "exponential", "mean": 0.0},
    {"kind": "lognormal", "mean": 0.1, "cv": 30}, {"kind": "pareto", "mean": 1, "shape": 1.01},
    {"kind": "empirical", "values": [0, 1]}, {"kind": "recorded", "values": [1.0]},
    {"kind": "mixture", "parts": [], "weights": []},
)  # fmt: skip


@cache
def scenario_keys() -> Known:
    """Every key of scenario files with its example; where a value may be random, all kinds of it.

    Of a list it is those of the first element.
    """
    random_ones = [parsed(key.example) for key in described() if key.of_distribution]
    return {
        key.name.replace(f".{EACH}", ".0"): [parsed(key.example), *found]
        for key in described()
        if not key.of_distribution
        for found in [random_ones if key.takes.startswith("a fixed or random") else []]
    }


def parsed(text: str) -> Any:
    """What a file has behind `=`; datasets have few samples, so that many cases can be had."""
    few = re.sub(r"\b\d+_000\b", "60", text)
    return tomllib.loads(f"value = {few}")["value"]


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values in a tree, also of those that hold others."""
    if path:
        yield path
    if isinstance(tree, (dict, list)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, (*path, key))


def put(tree: dict[str, Any], key: str, value: Any, known: Known) -> None:
    """Set a dotted key, if there is a place for it; tables that lack are made as `known`."""
    *parents, last = key.split(".")
    place: Any = tree
    for depth, name in enumerate(parents, 1):
        if isinstance(place, dict):
            sound = known.get(".".join(parents[:depth])) or [{}]
            place = place.setdefault(name, copy.deepcopy(sound[0]))
        elif isinstance(place, list) and name.isdecimal() and int(name) < len(place):
            place = place[int(name)]
        else:
            return
    if isinstance(place, dict):
        place[last] = copy.deepcopy(value)


def changed(rng: random.Random, sound: Mapping[str, Any], known: Known) -> dict[str, Any]:
    """A copy of `sound`: up to three `known` keys have sound values, up to two values are odd."""
    tree: Any = copy.deepcopy(dict(sound))
    settable = [key for key, values in known.items() if values]
    for key in rng.sample(settable, min(rng.randrange(4), len(settable))):
        put(tree, key, rng.choice(known[key]), known)
    for _ in range(rng.randrange(3)):
        if rng.random() < 0.4:
            put(tree, rng.choice([*known]), rng.choice(VALUES), known)
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
