"""Long benchmarks, piece by piece: what is finished is kept, and the same command goes on there."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from dlsim.whatif.journal import Journal
from dlsim.whatif.parallel import run_all

BUILD = Path(__file__).parent.parent.parent / "build"
OFTEN = 20.0  # seconds between two lines of progress

Piece: TypeAlias = dict[str, Any]


def options(about: str, count: int) -> argparse.ArgumentParser:
    """The options that all long benchmarks have; `count`: how many scenarios are usual."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--scenarios", type=int, default=count, help="how many random ones")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first of them")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--anew", action="store_true", help="forget what is there")
    return parser


def rows(name: str, piece: Callable[[int], Piece], asked: argparse.Namespace) -> dict[int, Piece]:
    """What `piece` makes of each seed that is asked for, as far as time allows, by seed.

    `asked`: what was parsed by `options`. Kept in `build/NAME.journal`.
    """
    path = BUILD / f"{name}.journal"
    path.parent.mkdir(exist_ok=True)
    if asked.anew:
        path.unlink(missing_ok=True)
    seeds = range(asked.first, asked.first + asked.scenarios)
    with Journal(path, {"dlsim": version("dlsim")}, of="benchmark") as journal:
        left = [seed for seed in seeds if seed not in journal.rows]
        began = said = time.monotonic()
        tasks: Iterable[tuple[Any, ...]] = ((piece, seed) for seed in left)
        results = run_all(_named, tasks, asked.jobs)
        for done, (seed, row) in enumerate(results, 1):
            journal.write(seed, row)
            now = time.monotonic()
            if now - said > OFTEN:
                said, more = now, (now - began) * (len(left) / done - 1)
                print(f"{done} of {len(left)} left, {more / 60:.0f} minutes to go", flush=True)
            if now - began > asked.seconds:
                results.close()  # type: ignore[attr-defined]
                break
        return {seed: journal.rows[seed] for seed in seeds if seed in journal.rows}


def _named(piece: Callable[[int], Piece], seed: int) -> tuple[int, Piece]:
    return seed, piece(seed)
