"""The command that says which machine to rent."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

from msgspec import structs
from tyro.conf import Positional, arg

from dlsim.cli.checking import Missed
from dlsim.cli.files import check_drawable, scenario_from
from dlsim.cli.parsing import NO_CHANGES, Changes, File, Flag, Text, UsageError
from dlsim.cli.progress import working
from dlsim.cli.whatif import picture, quantity_of, share_of
from dlsim.scenario.catalogue import Catalogue, load_catalogue, together


def rent(
    training: Annotated[Positional[Path], arg(metavar="SCENARIO")],
    *,
    machines: File = None,
    only: Text = None,
    price: Text = None,
    max_epoch: Text = None,
    max_stall: Text = None,
    seed: int = 0,
    jobs: int = 1,
    plot: File = None,
    check: Flag = False,
    changes: Changes = NO_CHANGES,
) -> None:
    """Say which machine to rent for a training: what an epoch costs on each, how long it takes.

    Example: dlsim rent scenarios/resnet50_rent.toml --only "p*,a2-*"

    The scenario says how long a step takes on each accelerator ([[consumer.on]]). There is a rank
    for each accelerator of a machine, on job.nodes machines; --job.ranks 8 leaves out those that
    have not eight. Prices are those of their date.

    Args:
        training: A TOML file that describes the dataset, the loader, and the training step.
        machines: A file of more machines, of the form of dlsim/data/machines.toml.
        only: Machines of these names only: "p4*,a2-*".
        price: Other prices an hour: "p4d.24xlarge=18.5,mine=4".
        max_epoch: How long an epoch may take: "2 h".
        max_stall: The share of the time that training may be idle: 0.05 or 5%.
        seed: What all random times follow from.
        jobs: How many processes; -1 for one on each core.
        plot: Draw here what an epoch costs and takes on each.
        check: End with status 1 where no machine holds the targets.
    """
    from dlsim.whatif import rent as rented

    check_drawable(plot)
    files = [load_catalogue(), *([load_catalogue(machines)] if machines else [])]
    chosen = together(_only(files, only)).priced(prices_of(price))
    scenario = scenario_from(training, changes)
    fixed = scenario.loader.num_workers if "loader.num_workers" in changes else None
    epoch, stall = quantity_of("max-epoch", max_epoch, "duration"), share_of("max-stall", max_stall)
    with working("simulating machines"):
        found = rented(
            scenario,
            chosen,
            max_epoch=epoch,
            max_stall=stall,
            workers=fixed,
            seed=seed,
            jobs=jobs,
        )
    if plot is not None:
        from dlsim.report.sweep_plots import rental_front

        picture(rental_front(found), plot, scenario.name)
    print(found)
    if check and found.best is None:
        raise Missed


def _only(catalogues: list[Catalogue], patterns: str | None) -> list[Catalogue]:
    """The machines whose names fit a pattern. Raises `UsageError` for one that fits none."""
    if patterns is None:
        return catalogues
    wanted = [each.strip() for each in patterns.split(",")]
    for each in wanted:
        if not any(fnmatch(one.name, each) for found in catalogues for one in found.machine):
            raise UsageError(f"--only: no machine is called {each!r}")

    def kept(found: Catalogue) -> Catalogue:
        fitting = (one for one in found.machine if any(fnmatch(one.name, each) for each in wanted))
        return structs.replace(found, machine=tuple(fitting))

    return [kept(found) for found in catalogues]


def prices_of(text: str | None) -> dict[str, float]:
    """The prices that "a=1.5,b=2" states, by name. Raises `UsageError` if it states none."""
    found = {}
    for each in [] if text is None else text.split(","):
        name, _, price = each.partition("=")
        try:
            found[name.strip()] = float(price)
        except ValueError:
            raise UsageError(
                f"--price: expected NAME=PRICE such as p4d.24xlarge=18.5, got {each!r}"
            ) from None
    return found
