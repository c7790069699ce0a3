"""`dlsim loaders`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from dlsim.cli.files import scenario_from
from dlsim.cli.parsing import NO_CHANGES, Changes, Count
from dlsim.cli.progress import working


def loaders(
    scenario: Annotated[Positional[Path], arg(metavar="SCENARIO")],
    *,
    replications: Count = None,
    seed: int = 0,
    jobs: int = 1,
    changes: Changes = NO_CHANGES,
) -> None:
    """Say what another loader would give: torch's in any order, a shared queue, SPDL's, threads.

    Example: dlsim loaders scenarios/imagenet_a100.toml

    Data, step, machine, workers and window stay as they are; only the rules change.

    Args:
        scenario: A TOML file that describes the dataset, the loader, and the training step.
        replications: How often each is simulated; by default 3 to 10, by their length.
        seed: What all random times follow from.
        jobs: How many processes simulate; -1 for one on each core.
    """
    from dlsim.whatif import loaders as beside

    chosen = scenario_from(scenario, changes)
    with working():
        found = str(beside(chosen, replications, seed, jobs=jobs))
    print(found)
