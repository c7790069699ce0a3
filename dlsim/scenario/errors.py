"""The errors a person is meant to read: one line, naming what was expected and what was given."""

from __future__ import annotations


class DlsimError(Exception):
    """Anything dlsim refuses to do, said in one line."""


class ScenarioError(DlsimError, ValueError):
    """A scenario that cannot be: the message names key, what was expected, what was given."""


def require(condition: bool, key: str, expected: str, given: object) -> None:
    """Raise `ScenarioError` about `key` unless `condition` holds."""
    if not condition:
        raise ScenarioError(f"{key}: expected {expected}, got {shown(given)}")


def shown(value: object) -> str:
    """`value` as an error message shows it: its repr, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def lacking(what: str, library: str, extra: str) -> str:
    """That `what` cannot be without a library, and how to install it."""
    cure = f"in a clone of dlsim: pip install '.[{extra}]'"
    return f"{what} needs {library}, which is not installed ({cure})"


def is_integer(value: object) -> bool:
    """Whether `value` is an int and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether `value` is a finite int or float and not a bool."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and float("-inf") < value < float("inf")
    )
