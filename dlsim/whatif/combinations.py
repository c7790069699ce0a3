"""Other loaders and loops as changes of a scenario, where it says enough about them to tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dlsim.scenario import Scenario, replace
from dlsim.scenario.presets import TORCH

LOOPS = {
    "accelerate": "without accelerate's look-ahead",
    "lightning": "without Lightning's fetcher",
    "thread": "without the thread that reads ahead",
}


def combinations(scenario: Scenario) -> Iterator[tuple[str, Scenario]]:
    """Names of other combinations of dispatch, workers and loop, and what they make of `scenario`.

    A loop around `next()`, or what a loader does otherwise than torch's, is left out. Threads
    stand in for processes only where some stage says for how long it holds Python's lock: of
    others it is not known what threads would do.
    """
    for name, changes in _changes(scenario):
        yield name, replace(scenario, changes)


def _changes(scenario: Scenario) -> Iterator[tuple[str, Mapping[str, Any]]]:
    loader, consumer = scenario.loader, scenario.consumer
    if consumer.loop in LOOPS and not scenario.job.dispatches:  # which is that loop's
        yield LOOPS[consumer.loop], {"consumer.loop": "plain", "consumer.queue": 1}
    if loader.stateful:
        keys = ("stateful", "snapshot_every_n_steps", "resume")
        yield "a loader without states", {f"loader.{key}": TORCH[f"loader.{key}"] for key in keys}
    if loader.dispatch != "turns" or loader.refill != "return":
        keys = ("dispatch", "refill", "slots")
        yield "torch's dispatch", {f"loader.{key}": TORCH[f"loader.{key}"] for key in keys}
    stated = any(stage.lock > 0 and stage.cpu is not None for stage in scenario.dataset.fetch)
    if loader.threads:
        yield "processes in place of threads", {"loader.workers": "processes"}
    elif loader.num_workers > 0 and stated and not loader.stateful:
        started = {"loader.multiprocessing_context": "none", "loader.start_together": 1}
        yield "threads in place of processes", {"loader.workers": "threads", **started}
