"""`dlsim serve`."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

import dlsim
from dlsim.cli.parsing import Count, Flag


def serve(
    scenario: Annotated[Positional[str], arg(metavar="SCENARIO", help_behavior_hint="")] = "",
    *,
    port: Count = None,
    no_browser: Flag = False,
) -> None:
    """Open a page with sliders: pull one, and see what the schedule answers. Lessons, too.

    Example: dlsim serve scenarios/imagenet_a100.toml

    It is served on this machine alone, and ends with Ctrl-C or with the terminal.

    Args:
        scenario: What to begin with: a scenario (.toml), or a link that the page has given someone.
        port: Listen on this port; else on 8650, or on any if that is taken.
        no_browser: Only print the link.
    """
    from dlsim.show.server import serve as served

    first, state = "", ""
    if "#" in scenario and "://" in scenario:
        state = scenario.partition("#")[2]
    elif scenario:
        dlsim.load(scenario)  # whether it is one, before a page opens
        first = Path(scenario).read_text(encoding="utf-8-sig")

    def ready(link: str) -> None:
        print(f"{link}\nCtrl-C ends it.", flush=True)
        if not no_browser:
            webbrowser.open(link)

    served(first, state, port, ready)
