"""Scenarios in TOML files, and how all files are written: whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from dlsim.scenario.errors import DlsimError, ScenarioError
from dlsim.scenario.model import Scenario
from dlsim.scenario.tree import first_lower, from_tree, get, replace

Made = TypeVar("Made")


def load(path: str | Path) -> Scenario:
    """The scenario in the TOML file at `path`.

    Raises `ScenarioError` naming file, key, what was expected and what was given.
    """
    return read_as(_scenario, path)


def _scenario(tree: Mapping[str, Any]) -> Scenario:
    if "links" in tree:
        raise ScenarioError("expected a scenario, got a pipeline, which dlsim pipeline takes")
    return from_tree(tree)


def read_as(made: Callable[[Mapping[str, Any]], Made], path: str | Path) -> Made:
    """What is `made` of the content of the TOML file at `path`.

    Raises `ScenarioError` naming file, key, what was expected and what was given.
    """
    tree = _read_toml(path)
    try:
        return made(tree)
    except ScenarioError as error:
        raise ScenarioError(f"{path}: {error}") from None


def _read_toml(path: str | Path) -> dict[str, Any]:
    """What is in the TOML file at `path`. Raises `ScenarioError` where there is none."""
    try:
        # some editors begin a file with a mark that it is UTF-8, which TOML does not have
        return tomllib.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ScenarioError(f"{path}: expected a TOML file, got bytes that are no text") from None
    except ValueError as error:  # an integer of more digits than Python reads, too
        raise ScenarioError(f"{path}: expected TOML: {first_lower(str(error))}") from None
    except RecursionError:
        raise ScenarioError(f"{path}: expected a scenario, got lists in lists in lists") from None


def dump(scenario: Scenario, path: str | Path) -> None:
    """Write `scenario` to the TOML file `path`, defaults left out; loading it gives an equal value.

    The file appears whole or not at all. Raises `ScenarioError` when it cannot be written.
    """
    with replacing(Path(path), ScenarioError) as unfinished:
        unfinished.write_text(dumps(scenario), encoding="utf-8")


def dumps(scenario: Scenario) -> str:
    """`scenario` as TOML, defaults left out, in units people write: `"1 GB/s"`."""
    from dlsim.scenario.commented import plain

    return plain(scenario)


@contextmanager
def replacing(path: Path, error: type[DlsimError]) -> Iterator[Path]:
    """Where to write a file that takes the place of `path` once it is complete.

    A link stays one: the file that it leads to is replaced. A pipe or a device, as /dev/stdout, is
    written to as it is: nothing can take its place. Raises `error` when it cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            yield path
            return
        whole = Path(os.path.realpath(path))
        unfinished = whole.with_name(f".{whole.name}.{os.getpid()}.tmp")
        try:
            yield unfinished
            os.replace(unfinished, whole)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as reason:
        raise error(f"{path}: cannot be written: {reason.strerror or reason}") from None


def changed(scenario: Scenario, changes: Mapping[str, str]) -> Scenario:
    """The scenario with the values at dotted keys changed, as options give them.

    Raises `ScenarioError` for a change that does not make a scenario.
    """
    values = {key: value_of(text, scenario, key) for key, text in changes.items()}
    return replace(scenario, values) if values else scenario


def value_of(text: str, scenario: Scenario, key: str) -> Any:
    """What `text` stands for as the value at `key`: what TOML makes of it, else itself.

    A number where the scenario has text is text, too: in torch = "2.10" every digit counts.
    """
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # of more digits or lists in lists than Python takes
        return text
    value = parsed["value"]
    if len(parsed) > 1:  # text with line breaks might hold more than a value
        return text
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(ScenarioError):
            if isinstance(get(scenario, key), str):
                return text
    return value
