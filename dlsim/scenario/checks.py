"""Checks that the scenario's values share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, structs

from dlsim.scenario.distributions import KINDS
from dlsim.scenario.errors import (
    LARGEST,
    ScenarioError,
    check_non_negative,
    is_integer,
    is_positive,
    require,
)


def check_conflict(broken: bool, key: str, rule: str) -> None:
    """Raise `ScenarioError` with the `rule` that `key` breaks."""
    if broken:
        raise ScenarioError(f"{key}: {rule}")


def check_integer(struct: object, key: str, least: int) -> None:
    """Raise `ScenarioError` unless the field is an integer of at least `least`."""
    value = getattr(struct, key)
    sound = is_integer(value) and least <= value <= LARGEST
    require(sound, key, f"an integer of at least {least}", value)


def check_flags(struct: object, *keys: str) -> None:
    """Raise `ScenarioError` unless the fields are bools."""
    for key in keys:
        require(isinstance(getattr(struct, key), bool), key, "true or false", getattr(struct, key))


def check_text(struct: object, *keys: str, empty: bool = False) -> None:
    """Raise `ScenarioError` unless the fields are text in one line that a terminal shows as it is.

    They are printed with answers; `empty`: or no text at all.
    """
    for key in keys:
        value = getattr(struct, key)
        sound = isinstance(value, str) and value.isprintable() and (empty or value.strip() != "")
        require(sound, key, "some text in one line", value)


def check_tuples(struct: Any, *keys: str) -> None:
    """Keep sequences as tuples, so that scenarios are hashable values."""
    for key in keys:
        value = getattr(struct, key)
        if value is not None:
            require(isinstance(value, Sequence), key, "a list", value)
            structs.force_setattr(struct, key, tuple(value))


def check_distribution(struct: object, key: str, *, optional: bool = False) -> None:
    """Raise `ScenarioError` unless the field is a distribution (or None, if `optional`)."""
    value = getattr(struct, key)
    require(
        isinstance(value, KINDS) or (optional and value is None),
        key,
        "a distribution such as Constant(0.01)",
        value,
    )


def check_indices(key: str, indices: tuple[int, ...], length: int) -> None:
    """Raise `ScenarioError` unless all `indices` are those of a dataset of `length` samples."""
    for index in indices:
        require(
            is_integer(index) and 0 <= index < length,
            key,
            f"dataset indices from 0 to {length - 1}",
            index,
        )


def check_seconds(struct: Struct, *keys: str, unit: str = "seconds") -> None:
    """Raise `ScenarioError` unless the fields are finite numbers of at least 0."""
    check_non_negative(struct, f"{unit}, at least 0", *keys)


def check_positive(struct: object, *keys: str, optional: bool = False) -> None:
    """Raise `ScenarioError` unless the fields are numbers above 0 (or None, if `optional`)."""
    for key in keys:
        value = getattr(struct, key)
        require(
            (optional and value is None) or is_positive(value),
            key,
            "a number above 0",
            value,
        )


def check_struct(struct: object, key: str, kind: type) -> None:
    """Raise `ScenarioError` unless the field is a `kind`."""
    value = getattr(struct, key)
    require(isinstance(value, kind), key, f"a {kind.__name__}", value)
