"""Whether a run outgrows its machine, where first, and the largest credit window that would not."""

from __future__ import annotations

from dataclasses import dataclass

from dlsim.scenario import Scenario
from dlsim.trace.memory import DESCRIPTORS, MEMORY, SHM, own_descriptors, scenario_of, uses
from dlsim.trace.trace import Trace


@dataclass(frozen=True)
class Overflow:
    """What does not fit: `resource` needs `needed` and has `limit`, first for `batch`.

    `largest_window` is the largest credit window (num_workers * prefetch_factor) for which it
    would, however slow the training step: 0 if none would.
    """

    resource: str
    batch: int
    needed: float
    limit: float
    largest_window: int


def overflow(trace: Trace) -> Overflow | None:
    """What outgrows the machine (`machine.shm`, `memory`, `descriptors`), and at which batch.

    None if nothing does.
    """
    scenario = scenario_of(trace)
    for use in uses(trace):
        if use.limit is not None and use.outgrown:
            batch = int(trace.size.max(initial=0))
            most = largest_window(scenario, use.resource, use.limit, batch)
            return Overflow(use.resource, max(use.batch, 0), use.needed, use.limit, most)
    return None


def largest_window(scenario: Scenario, resource: str, limit: float, samples: float) -> int:
    """The largest credit window whose batches, of so many samples, fit into `limit`.

    As many batches as the window has can be fetched and not returned, and the training loop
    keeps one more; not in /dev/shm, if they are pinned. Where iterators are rebound, there are
    two windows at a time. None is small enough where what arrives sends for more.
    """
    if scenario.loader.refill == "arrival":
        return 0
    each = samples * scenario.dataset.sample_bytes.mean
    kept = 1 + scenario.taken_ahead
    if resource == DESCRIPTORS:
        each = float(scenario.dataset.tensors)
        limit -= own_descriptors(scenario)
    elif resource == MEMORY:
        limit -= scenario.own_memory
    elif resource == SHM and scenario.pins:
        kept -= 1
    if scenario.validation is not None:
        limit -= _most_beside(scenario.validating, resource)
    sets = 2 if scenario.rebinds and scenario.epochs > 1 else 1  # of workers at a time
    return max(0, int(limit // each) - kept) // sets if each else 0


def _most_beside(validating: Scenario, resource: str) -> float:
    """What full batches of validation can take of a resource, or the files they have open."""
    loader, dataset = validating.loader, validating.dataset
    batch = max(map(len, loader.batch_sampler or ()), default=loader.batch_size or 1)
    samples = min(batch, dataset.length)
    each = dataset.tensors if resource == DESCRIPTORS else samples * dataset.sample_bytes.mean
    sets = 2 if validating.rebinds and validating.epochs > 1 else 1
    return each * (sets * max(loader.window, 1) + validating.taken_ahead + 1)
