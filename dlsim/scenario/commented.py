"""Scenarios as TOML in units people write; those to begin with say above each key what it means."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import tomli_w

from dlsim.scenario.keys import EACH, Key, described
from dlsim.scenario.model import Scenario
from dlsim.scenario.tree import from_tree, to_tree
from dlsim.scenario.units import written

WIDTH = 98
PARTS = 20


def commented(scenario: Scenario, head: Sequence[str] = ()) -> str:
    """`scenario` as TOML that explains itself, below the lines of `head`; equal when it is loaded.

    Keys that have their defaults are named, not set.
    """
    known = {key.name: key for key in described()}
    lines = [*_remarks(head), *_table((), to_tree(scenario), known, set())]
    return "\n".join(lines).strip() + "\n"


def plain(scenario: Scenario) -> str:
    """`scenario` as TOML without remarks, defaults left out; equal when it is loaded."""
    known = {key.name: key for key in described()}
    return "\n".join(_table((), to_tree(scenario), known, None)).strip() + "\n"


def condensed(scenario: Scenario) -> Scenario:
    """`scenario` in numbers of four digits, its long records as the distributions they have.

    Of these, `PARTS` values are kept, the means of as many equal parts of the sorted ones.
    """
    return from_tree(_condensed(to_tree(scenario)))


def _condensed(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, list):
        return [_condensed(each) for each in value]
    if not isinstance(value, dict):
        return value
    if len(value.get("values", ())) > PARTS:
        parts = np.array_split(np.sort(value["values"]), PARTS)
        value = {"kind": "empirical", "values": [float(part.mean()) for part in parts]}
    return {key: _condensed(each) for key, each in value.items()}


def _table(
    path: tuple[str, ...], table: Mapping[str, Any], known: Mapping[str, Key], said: set[str] | None
) -> Iterator[str]:
    """The lines of a table: its own keys first, then the tables in it.

    `said`: the keys of which it has been said what they mean; None where nothing is to be said.
    """
    inner = {key: value for key, value in table.items() if _is_table(path, key, value)}
    for key, value in table.items():
        about = known[_name((*path, key))]
        # what equals its default may have been given
        if key not in inner and _inline(value, about.quantity) != about.default:
            yield from _meaning(about, said)
            yield f"{key} = {_inline(value, about.quantity)}"
    if said is not None:
        yield from _others(path, table, known, said)
    for key, value in inner.items():
        # only parts of the whole have to be there, and of what is a loop by itself
        if path and path != ("validation",) and not value:
            continue
        below = (*path, key)
        about = known[_name(below)]
        for element in value if isinstance(value, list) else [value]:
            yield ""
            yield from _meaning(about, said)
            if isinstance(value, list):
                yield f"[[{'.'.join(below)}]]"
                yield from _table((*below, EACH), element, known, said)
            else:
                yield f"[{'.'.join(below)}]"
                yield from _table(below, element, known, said)


def _meaning(about: Key, said: set[str] | None) -> Iterator[str]:
    """What a key means, where it has not been said."""
    if said is not None and about.name not in said:
        said.add(about.name)
        yield from _remarks([about.meaning])


def _others(
    path: tuple[str, ...], table: Mapping[str, Any], known: Mapping[str, Key], said: set[str]
) -> Iterator[str]:
    """A remark that names the keys of a table that are not set, once."""
    place = _name(path)
    inside = f"{place}." if place else ""
    rest = [
        key.last
        for key in known.values()
        if key.name == f"{inside}{key.last}" and key.last not in table and not key.of_distribution
    ]
    if rest and f"{place}?" not in said:
        yield from _remarks(
            [f"More keys here: {', '.join(rest)} (dlsim keys{f' {inside}' if inside else ''})"]
        )
    said.add(f"{place}?")


def _is_table(path: tuple[str, ...], key: str, value: Any) -> bool:
    """Whether a value is written as a table of its own: distributions stand in a line."""
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], dict)
    return isinstance(value, dict) and ("kind" not in value or key == "dataset")


def _name(path: Sequence[str]) -> str:
    return ".".join(path)


def _inline(value: Any, quantity: str) -> str:
    """A value in one line, with units; a constant as its number."""
    if isinstance(value, dict) and value.get("kind") == "constant":
        return _inline(value["value"], quantity)
    if isinstance(value, dict):
        parts = [
            f"{key} = {_inline(each, quantity if key in _counted() else '')}"
            for key, each in value.items()
        ]
        return f"{{ {', '.join(parts)} }}"
    if isinstance(value, list):
        if len(value) > PARTS and all(type(each) in (int, float) for each in value):
            return str(value)  # of many numbers nobody reads one
        return f"[{', '.join(_inline(each, quantity) for each in value)}]"
    if isinstance(value, float) and value < float("inf"):
        value = written(value, quantity)
    if isinstance(value, float):
        return repr(value)
    return tomli_w.dumps({"value": value}).removeprefix("value = ").rstrip("\n")


@cache
def _counted() -> set[str]:
    """What distributions hold that has the unit of what is distributed."""
    return {"parts", *(key.last for key in described() if key.quantity == "inherited")}


def _remarks(texts: Sequence[str]) -> Iterator[str]:
    """The texts as comments."""
    for text in texts:
        yield from textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")
