"""From the words of a command line to the call of a command.

Tyro makes the options of a command from its signature. The keys of a scenario are options, too
(`--loader.num-workers 8`); they are taken out before, and become the argument `changes`.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import io
import re
import shutil
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Optional, TypeAlias

import tyro
from tyro.conf import arg

import dlsim
from dlsim.scenario import DlsimError, Scenario
from dlsim.scenario.tree import keys

Command: TypeAlias = Callable[..., None]

# Options that may be left out, by what their values are. For `X | None` tyro loads typeguard, which
# takes longer than many an answer; a typing.Union it looks into itself.
File: TypeAlias = Annotated[Optional[Path], arg(metavar="FILE", help_behavior_hint="")]  # noqa: UP045
OutFile: TypeAlias = Annotated[File, arg(aliases=["-o"])]
Count: TypeAlias = Annotated[Optional[int], arg(metavar="INT", help_behavior_hint="")]  # noqa: UP045
Number: TypeAlias = Annotated[Optional[float], arg(metavar="NUMBER", help_behavior_hint="")]  # noqa: UP045
Text: TypeAlias = Annotated[Optional[str], arg(metavar="TEXT", help_behavior_hint="")]  # noqa: UP045
Flag: TypeAlias = Annotated[bool, arg(help_behavior_hint="")]

Changes: TypeAlias = Mapping[str, Any]
NO_CHANGES: Mapping[str, Any] = MappingProxyType({})

HELP = """usage: dlsim COMMAND ...

dlsim simulates how PyTorch's DataLoader schedules its work: which worker loads which batch when,
how long the training step waits for it, and what would help.

commands:
{commands}

example: dlsim run scenarios/imagenet_a100.toml --loader.num-workers 16
more on a command: dlsim run --help"""

KEYS = "Every key of the scenario is an option, too: --loader.num-workers 8. See dlsim keys."

_OPTION = re.compile(r"--([A-Za-z][\w.-]*)(?:=(.*))?", re.DOTALL)
# What tyro draws boxes with, where the terminal has Unicode and where not.
_SIDES, _RULES = " │", "─-╰╯"

# Some of tyro's messages in our words; the others are left as they are.
_WORDS = (
    (
        re.compile(r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)"),
        r"\1: expected an integer, got \2",
    ),
    (
        re.compile(r"Error parsing (\S+): no type matching \{None\}\|INT .* from \[(.*)\]\."),
        r"\1: expected an integer, got \2",
    ),
    (
        re.compile(r"Error parsing (\S+): no type matching \{None\}\|FLOAT .* from \[(.*)\]\."),
        r"\1: expected a number, got \2",
    ),
    (re.compile(r"Missing from dlsim \w+: (\S+) .*"), r"expected \1, got nothing"),
    (re.compile(r"Unrecognized options: (.*)"), r"no such argument: \1"),
    (
        re.compile(r"Missing value for argument '(\S+)'\. Expected 1 values\."),
        r"\1: expected a value, got nothing",
    ),
)


class UsageError(DlsimError):
    """A command line that asks for nothing that can be done."""


def dispatch(commands: Sequence[Command], args: Sequence[str]) -> None:
    """Call the command that `args` name, with the options they give, or print help.

    Raises `UsageError` for a wrong command or option, and whatever the command raises.
    """
    known = {command.__name__: command for command in commands}
    name, *options = args or ["--help"]
    if name in ("-h", "--help"):
        print(overview(commands))
    elif name == "--version":
        print(f"dlsim {dlsim.__version__}")
    elif name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"command: expected one of {', '.join(known)}, got {name!r}{hint}")
    else:
        call(known[name], options)


def overview(commands: Sequence[Command]) -> str:
    """The help of dlsim: a line for each command."""
    width = max(len(command.__name__) for command in commands)
    lines = [
        f"  {command.__name__:{width}}  {(inspect.getdoc(command) or '').splitlines()[0]}"
        for command in commands
    ]
    return HELP.format(commands="\n".join(lines))


def call(command: Command, options: Sequence[str]) -> None:
    """Call `command` with `options`, or print its help if they ask for it."""
    options, changes = without_changes(options, inspect.signature(command).parameters)
    check_names(command, options)
    bound = parsed(command, options)
    if bound is None:
        return
    if not changes:
        bound()
    elif "changes" in inspect.signature(command).parameters:
        bound(changes=changes)
    else:
        raise UsageError(
            f"{command.__name__}: reads no scenario, and so has no {next(iter(changes))}"
        )


def without_changes(
    options: Sequence[str], own: Collection[str] = ()
) -> tuple[list[str], dict[str, str]]:
    """The options without the keys of a scenario, and these, dotted, with what they shall be.

    A key is what has a dot or is the name of a part of a scenario, but not of the command's `own`
    options.
    """
    names = {name for name in Scenario.__struct_fields__ if name not in own}
    rest: list[str] = []
    changes: dict[str, str] = {}
    words = iter(options)
    for word in words:
        option = _OPTION.fullmatch(word)
        key = option[1].replace("-", "_") if option else ""
        if option is None or not ("." in key or key in names):
            rest.append(word)
            continue
        value = option[2] if option[2] is not None else next(words, None)
        if value is None or (option[2] is None and value.startswith("--")):
            raise UsageError(f"--{option[1]}: expected a value, got {value or 'nothing'}")
        changes[key] = value
    return rest, changes


def check_names(command: Command, options: Sequence[str]) -> None:
    """Raise `UsageError` for an option that `command` does not have, naming a similar one.

    The key of a scenario is similar to what its last part is similar to.
    """
    parameters = inspect.signature(command).parameters
    # from_ is --from, which Python has for itself
    known = [name.rstrip("_") for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY]
    known.append("help")
    homes: dict[str, str] = {}
    if "changes" in known:
        known.remove("changes")
        for key in keys():  # of a name that is in several tables, the first is meant
            homes.setdefault(key.rpartition(".")[2], key)
    for word in options:
        option = _OPTION.fullmatch(word)
        if option and option[1].replace("-", "_") not in known:
            name = option[1].replace("-", "_")
            names = [*known, *homes]
            similar = sorted((each for each in names if name in each), key=len)
            similar += difflib.get_close_matches(name, names, 1)
            found = [homes.get(each, each).replace("_", "-") for each in similar]
            near = " or ".join(f"--{each}" for each in dict.fromkeys(found[:2]))
            hint = f"did you mean {near}?" if found else "see --help"
            raise UsageError(f"{command.__name__}: no such option: --{option[1]}; {hint}")


def parsed(command: Command, options: Sequence[str]) -> Callable[..., None] | None:
    """`command` bound to what `options` say; None if they asked for help, which is printed."""

    @functools.wraps(command)
    def bind(*args: Any, **kwargs: Any) -> Callable[..., None]:
        return functools.partial(command, *args, **kwargs)

    own = inspect.signature(command)
    others = [each for each in own.parameters.values() if each.name != "changes"]
    bind.__signature__ = own.replace(parameters=others)  # type: ignore[attr-defined]
    name, complaint = command.__name__, io.StringIO()
    if {"-h", "--help"} & set(options):
        print(about(command), end="\n\n")
    try:
        with contextlib.redirect_stderr(complaint):
            bound: Callable[..., None] = tyro.cli(
                bind,
                prog=f"dlsim {name}",
                args=options,
                description="",
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as leaving:
        if leaving.code:
            raise UsageError(f"{name}: {one_line(complaint.getvalue())}") from None
        return None
    return bound


def about(command: Command) -> str:
    """What `command` does, as wide as the terminal: tyro breaks lines as it finds them."""
    text, _, _ = (inspect.getdoc(command) or "").partition("\n\nArgs:\n")
    paragraphs = text.split("\n\n")
    if "changes" in inspect.signature(command).parameters and "Every key" not in text:
        paragraphs.append(KEYS)
    width = min(shutil.get_terminal_size().columns, 100)
    return "\n\n".join(
        each if each.startswith("Example: ") else textwrap.fill(each, width) for each in paragraphs
    )


def one_line(box: str) -> str:
    """What tyro says in a box with a title and a footer, in one line and in our words."""
    _, *lines = (line.strip(_SIDES) for line in box.strip().splitlines())
    if not lines[0].strip(_RULES):  # without Unicode, the title is underlined
        del lines[0]
    text = " ".join(takewhile(lambda line: line.strip(_RULES), lines))
    for theirs, ours in _WORDS:
        text = theirs.sub(ours, text)
    return text
