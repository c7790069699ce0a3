"""A scenario whose durations are other ones: loaders that take no time, inputs that were wrong."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from dlsim.engine.ranks import slower_dataset, slower_validation
from dlsim.scenario import Costs, Dataset, Machine, Scenario

# How wrong the inputs may be in the question of the margin: so many times as long.
WRONG = {
    "loading 20 % slower": {"loading": 1.2},
    "loading 20 % faster": {"loading": 0.8},
    "steps 20 % shorter": {"step": 0.8},
    "steps 20 % longer": {"step": 1.2},
}


def perfect_loader(scenario: Scenario) -> Scenario:
    """`scenario` with loaders that have every batch ready at once, at no cost."""
    machine, own = scenario.machine, scenario.validation
    if own is not None:
        own = structs.replace(own, dataset=_at_once(own.dataset), failures=())
    return structs.replace(
        scenario,
        dataset=_at_once(scenario.dataset),
        validation=own,
        costs=Costs(copy_byte=scenario.costs.copy_byte),
        machine=Machine(cores=machine.cores, background=machine.background),
        failures=(),
    )


def _at_once(dataset: Dataset) -> Dataset:
    return structs.replace(dataset, fetch=(), collate=None)


def slower(scenario: Scenario, *, loading: float = 1.0, step: float = 1.0) -> Scenario:
    """`scenario` in which loading and steps take so many times as long.

    Loading: all stages, reading, collating and what the machinery costs.
    """
    costs, storage = scenario.costs, scenario.machine.storage
    own = slower_validation(scenario.validation, loading, step)
    part: dict[str, Any] = {name: loading * getattr(costs, name) for name in _SECONDS}
    part["worker_waits"] = tuple(loading * wait for wait in costs.worker_waits)
    starts = tuple(
        structs.replace(one, worker_ready=loading * one.worker_ready) for one in costs.starts
    )
    handling = {
        name: getattr(costs, name).times(loading)
        for name in ("share", "serialise", "hand_over", "receive", "pin")
    }
    return structs.replace(
        scenario,
        dataset=slower_dataset(scenario.dataset, loading),
        validation=own,
        costs=structs.replace(costs, **part, **handling, starts=starts),
        machine=structs.replace(
            scenario.machine,
            storage=storage.times(loading),
        ),
        consumer=scenario.consumer.times(step),
    )


_SECONDS = (
    "worker_ready",
    "worker_wait",
    "first_sample",
    "first_cpu",
    "first_serialise",
    "first_next",
    "first_receive",
    "index_put",
    "index_latency",
    "take",
)
