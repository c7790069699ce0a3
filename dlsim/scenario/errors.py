"""The errors a person is meant to read: one line, naming what was expected and what was given."""

from __future__ import annotations

import os

from msgspec import Struct, structs

# Thirty million years, a petabyte. What is computed of numbers in between is finite, and any
# beyond are mistakes.
LARGEST, SMALLEST = 1e15, 1e-15
LONGEST, LONGEST_WORD = 500, 200  # characters of a message, and of a word in it


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


def check_non_negative(struct: Struct, expected: str, *keys: str) -> None:
    """Raise `ScenarioError` unless the fields are numbers of at least 0.

    What is too small to tell from 0 is 0, and so is -0.0, with which not every function agrees.
    """
    for key in keys:
        value = getattr(struct, key)
        require(is_number(value) and value >= 0, key, expected, value)
        if value < SMALLEST:
            structs.force_setattr(struct, key, type(value)(0))


def readable(message: str) -> str:
    """`message` in one line that a terminal shows as it is: the rest escaped, what is long cut.

    Names of files and keys, and values, come from outside: they may hold line breaks, and what a
    terminal takes for a command.
    """
    text = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in message
    )
    words = (cut(word, LONGEST_WORD) for word in text.split(" "))
    return cut(" ".join(words), LONGEST)


def cut(text: str, length: int) -> str:
    """`text`, with the middle left out where it is longer than `length`."""
    half = (length - 3) // 2
    return text if len(text) <= length else f"{text[:half]}...{text[-half:]}"


def check_word(word: str) -> None:
    """Raise `DlsimError` for an argument that is no text: no file or key can have such a name."""
    try:
        os.fsencode(word)
        sound = "\0" not in word
    except UnicodeEncodeError:
        sound = False
    if not sound:
        raise DlsimError(f"{shown(word)}: expected text, got characters that no name can have")


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
