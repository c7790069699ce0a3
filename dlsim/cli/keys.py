"""`dlsim keys`."""

from __future__ import annotations

import difflib
import fnmatch
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from typing import Annotated

from tyro.conf import Positional, arg

from dlsim.cli.parsing import UsageError
from dlsim.scenario.keys import Key, described

Pattern = Annotated[str, arg(metavar="[PATTERN]", help_behavior_hint="")]
WIDTH = 100
ALIKE = tuple(f"validation.{part}." for part in ("loader", "dataset", "failures"))


def keys(pattern: Positional[Pattern] = "", /) -> None:
    """Say what the keys of scenario files mean: all in short, or more of those that are named.

    Example: dlsim keys machine.storage

    Args:
        pattern: A part of the keys' names, * for anything, or a word of what they mean.
    """
    width = min(shutil.get_terminal_size().columns, WIDTH)
    chosen = once(matching(pattern))
    print("\n".join(explained(chosen, width) if pattern else overview(chosen, width)))


def matching(pattern: str) -> list[Key]:
    """The keys that `pattern` names; else those of whose meaning or name in torch it is a part.

    Raises `UsageError` if there are none.
    """
    known = described()
    wanted = f"*{pattern.replace('-', '_').lower()}*"
    found = [key for key in known if fnmatch.fnmatchcase(key.name, wanted)]
    words = f"*{pattern.lower()}*"
    found = found or [
        key for key in known if fnmatch.fnmatchcase(f"{key.torch} {key.meaning}".lower(), words)
    ]
    if not found:
        near = difflib.get_close_matches(pattern, [name for key in known for name in names(key)], 1)
        hint = f"did you mean {near[0]}?" if near else "all of them: dlsim keys"
        raise UsageError(f"keys: no key has {pattern!r} in its name or meaning; {hint}")
    return found


def names(key: Key) -> tuple[str, str]:
    """What people may call a key."""
    return key.name, key.last


def once(chosen: Sequence[Key]) -> list[Key]:
    """The keys without those that others hold alike: all costs have the same three.

    Of validation, what training has, too, is shown where nothing else is named.
    """
    own = [key for key in chosen if not key.name.startswith(ALIKE)]
    chosen = own or chosen
    return list({(key.holders, key.last): key for key in reversed(chosen)}.values())[::-1]


def overview(chosen: Sequence[Key], width: int) -> Iterator[str]:
    """A line for each key: its name, its default, the beginning of what it means."""
    shown = {f"{key.name} = {key.default}" if key.default else key.name: key for key in chosen}
    longest = max(map(len, shown))
    for start, key in shown.items():
        left = max(width - longest - 2, 20)
        yield f"{start:{longest}}  {textwrap.shorten(key.meaning, left, placeholder=' …')}"
    yield ""
    yield textwrap.fill(
        "Shown with their defaults. N is a number, from 0 on. Where a duration or a size may be "
        'random, a table such as { kind = "gamma", mean = "5 ms", cv = 0.3 } says how; the last '
        "lines are the keys of these. More on a key: dlsim keys NAME",
        width,
    )


def explained(chosen: Sequence[Key], width: int) -> Iterator[str]:
    """All there is to know of each key."""
    for number, key in enumerate(chosen):
        if number:
            yield ""
        yield key.name
        yield textwrap.fill(key.meaning, width, initial_indent="  ", subsequent_indent="  ")
        facts = [key.takes, f"default {key.default}" if key.default else ""]
        facts.append(f"in torch {key.torch}" if key.torch else "")
        yield textwrap.fill(
            "; ".join(filter(None, facts)), width, initial_indent="  ", subsequent_indent="  "
        )
        yield f"  for example {'' if key.of_distribution else f'{key.last} = '}{key.example}"
