"""The errors a person is meant to read: one line, naming what was expected and what was given."""

from __future__ import annotations

# Thirty million years, a petabyte. What is computed of numbers in between is finite, and any
# beyond are mistakes.
LARGEST, SMALLEST = 1e15, 1e-15


class DlsimError(Exception):
    """Anything dlsim refuses to do, said in one line."""


class ScenarioError(DlsimError, ValueError):
    """A scenario that cannot be: the message names key, what was expected, what was given."""


def require(condition: bool, key: str, expected: str, given: object) -> None:
    """Raise `ScenarioError` about `key` unless `condition` holds."""
    if not condition:
        if isinstance(given, (int, float)) and LARGEST < given < float("inf"):
            expected = f"a number of at most {LARGEST:g}"
        elif isinstance(given, float) and 0 < given < SMALLEST:
            expected = f"a number of at least {SMALLEST:g}"
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
    """Whether `value` is an int or float, not a bool, and no larger than any of ours is."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and -LARGEST <= value <= LARGEST
    )


def is_positive(value: object) -> bool:
    """Whether `value` is such a number above 0."""
    return is_number(value) and value >= SMALLEST  # type: ignore[operator]
