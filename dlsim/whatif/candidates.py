"""The configurations of a loader that advice chooses from, and what each costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from msgspec import structs

from dlsim.engine.effort import counts
from dlsim.scenario import IterableDataset, Scenario
from dlsim.scenario.errors import is_integer
from dlsim.scenario.loader import WITHOUT_WORKERS
from dlsim.scenario.units import size
from dlsim.whatif.changes import IN_ORDER_SINCE, pasted, quicker_starts
from dlsim.whatif.errors import WhatIfError
from dlsim.whatif.space import space

SAME = 0.01  # throughputs that differ by less are the same to anyone who chooses
Switches: TypeAlias = tuple[tuple[str, bool | str], ...]  # keyword arguments, and their values


@dataclass(frozen=True)
class Candidate:
    """One configuration. `samples_per_s` is NaN until it is known.

    `switches`: the keyword arguments besides workers, window and order that are not those of the
    scenario.
    `size`: its batch size, where that is to be chosen, too; else 0.
    """

    workers: int
    prefetch: int
    in_order: bool
    scenario: Scenario
    switches: Switches = ()
    size: int = 0
    samples_per_s: float = float("nan")

    @property
    def cost(self) -> tuple[int, int, bool, Switches, int]:
        """What is cheaper sorts first: fewer workers, less on its way, torch's order, no change."""
        window = self.workers * self.prefetch * max(self.size, 1)
        return self.workers, window, not self.in_order, self.switches, self.size

    @property
    def kind(self) -> tuple[int, bool, Switches, int]:
        """What those have in common that differ in their window."""
        return self.workers, self.in_order, self.switches, self.size

    @property
    def ordered(self) -> bool:
        """Whether a larger window delays nothing: order is kept, and nothing is shared."""
        return self.in_order and self.scenario.ideal

    @property
    def memory(self) -> float:
        """The most bytes that batches on their way take, 0 if not known."""
        return space(self.scenario).needed

    @property
    def keywords(self) -> str:
        """The keyword arguments of the DataLoader, to paste."""
        loader = self.scenario.loader
        words = [f"batch_size={self.size}"] if self.size else []
        words += [f"num_workers={self.workers}"]
        words += [f"prefetch_factor={self.prefetch}"] if self.workers else []
        words += [] if self.in_order else ["in_order=False"]
        flags = ("pin_memory", "persistent_workers")
        words += [f"{name}=True" for name in flags if self.workers and getattr(loader, name)]
        words += [pasted(*switch) for switch in self.switches if switch[0] not in flags]
        return ", ".join(words)


def candidates(
    scenario: Scenario,
    workers: Iterable[int],
    prefetch: Iterable[int],
    max_memory: float | None = None,
    batch_sizes: Iterable[int] = (),
) -> list[Candidate]:
    """All configurations of `workers`, `prefetch`, order and useful flags, the cheapest first.

    `batch_sizes`: those to choose from; by default that of the scenario.

    Left out are those with which no batch is returned, and those that take more than `max_memory`
    bytes, or than the machine has. Where it is not known what other workers would get (an
    iterable-style dataset with a list of shares), only the scenario's own number of workers counts.

    Raises `WhatIfError` where nothing is left.
    """
    dataset = scenario.dataset
    if isinstance(dataset, IterableDataset) and dataset.given:
        workers = [scenario.loader.num_workers]
    numbers, factors = _whole("workers", workers, 0), _whole("prefetch", prefetch, 1)
    sizes = _whole("batch_sizes", batch_sizes or (1,), 1)
    sized = [(size, scenario_of(scenario, size)) for size in sizes] if batch_sizes else []
    free = scenario.torch_release >= IN_ORDER_SINCE
    found = [
        _candidate(case, number, factor, in_order, switches, size)
        for size, case in sized or [(0, scenario)]
        for number in numbers
        if _returns(case, number)
        for factor in (factors if number else (1,))
        for in_order in ((True, False) if free and number > 1 else (True,))
        for switches in (_switches(case) if number else ((),))
    ]
    if not found:
        raise WhatIfError("dataset: expected one of which a batch is returned, got none")
    most = float("inf") if max_memory is None else max_memory
    fitting = [one for one in found if space(one.scenario).fits_within(most)]
    if not fitting:
        least = min(found, key=lambda one: one.memory)
        room = space(least.scenario)
        if room.fits is False:
            raise WhatIfError(f"machine: expected one that any of the settings fits. {room}")
        raise WhatIfError(
            f"memory: expected at least {size(least.memory)} for batches on their way, "
            f"got {size(most)}"
        )
    return sorted(fitting, key=lambda candidate: candidate.cost)


def unlike(options: Iterable[Candidate]) -> Iterator[Candidate]:
    """Those of `options`, the cheapest first, of which no cheaper one does just the same.

    With a window of all batches of an epoch they are all sent for at its beginning, and with as
    many workers each has one of them: more do nothing, but take their time to start.
    """
    enough = set[tuple[int, bool, Switches, int]]()
    for option in options:
        dataset, loader = option.scenario.dataset, option.scenario.loader
        further = loader.endless or option.scenario.job.dispatches  # not for these batches alone
        if isinstance(dataset, IterableDataset) or further or not option.workers:
            yield option
            continue
        batches = _sent(option.scenario)
        workers, order, switches, size = option.kind
        alike = min(workers, batches), order, switches, size
        if alike not in enough:
            yield option
        if loader.window >= batches:
            enough.add(alike)


def _sent(scenario: Scenario) -> int:
    """How many batches of an epoch workers are sent for, if nobody leaves it early.

    Of a job, those of its first rank: no other has more.
    """
    whole = structs.replace(scenario.consumer, stop_after=None)
    return int(counts(structs.replace(scenario, consumer=whole))[0])


def pareto(found: Sequence[Candidate], kept: Candidate | None = None) -> list[Candidate]:
    """Those of `found` that no other beats: by throughput, workers and memory, the cheapest first.

    `kept` is among them, too.

    One is beaten by another that has no more workers, no larger window, and a throughput that is
    greater, or less than 1 % smaller and has fewer of either.
    """
    front: list[Candidate] = []
    for candidate in sorted(found, key=lambda each: each.cost):
        cheaper = [
            other
            for other in front
            if other.workers <= candidate.workers and other.cost[1] <= candidate.cost[1]
        ]
        best = max((other.samples_per_s for other in cheaper), default=0.0)
        beyond = candidate.samples_per_s > (1 + SAME) * best
        if beyond or (kept is not None and candidate.cost == kept.cost):
            front.append(candidate)
    return front


def with_throughput(candidate: Candidate, samples_per_s: float) -> Candidate:
    """The candidate, its throughput known."""
    return replace(candidate, samples_per_s=samples_per_s)


def switched(scenario: Scenario) -> list[Candidate]:
    """The scenario's own settings, with each set of switches that may make a difference."""
    loader = scenario.loader
    if not loader.num_workers:
        return []
    prefetch = loader.window // loader.num_workers
    return [
        _candidate(scenario, loader.num_workers, prefetch, loader.in_order, switches, 0)
        for switches in _switches(scenario)
    ]


def _switches(scenario: Scenario) -> list[Switches]:
    """The sets of switches that may make a difference, and are not set; the empty one first."""
    found: list[Switches] = [()]
    loader, costs = scenario.loader, scenario.charged
    receives = costs.receive.of(1, 1.0) + costs.hand_over.of(1, 1.0) > 0
    if receives and not loader.pin_memory and scenario.consumer.device == "accelerator":
        found += [(*switches, ("pin_memory", True)) for switches in found]
    if scenario.epochs > 1 and not loader.workers_stay:
        found += [(*switches, ("persistent_workers", True)) for switches in found]
    methods = [("multiprocessing_context", method) for method in quicker_starts(scenario)]
    return found + [(*switches, method) for method in methods for switches in found]


def _returns(scenario: Scenario, workers: int) -> bool:
    """Whether any batch is returned with so many workers."""
    changed = _candidate(scenario, workers, 1, scenario.loader.in_order, (), 0).scenario
    return counts(changed)[0] > 0


def scenario_of(scenario: Scenario, batch_size: int) -> Scenario:
    """`scenario` with batches of so many samples. Raises `WhatIfError` where it lists them."""
    if scenario.loader.batch_sampler is not None:
        raise WhatIfError("batch_sizes: expected a loader without loader.batch_sampler, got one")
    loader = structs.replace(scenario.loader, batch_size=batch_size)
    return structs.replace(scenario, loader=loader)


def _candidate(
    scenario: Scenario,
    workers: int,
    prefetch: int,
    in_order: bool,
    switches: Switches,
    size: int,
) -> Candidate:
    window = {"prefetch_factor": prefetch, "slots": None} if workers else WITHOUT_WORKERS
    loader = structs.replace(
        scenario.loader,
        num_workers=workers,
        in_order=in_order,
        **dict(switches),
        **window,
    )
    changed = structs.replace(scenario, loader=loader)
    return Candidate(
        workers=workers,
        prefetch=prefetch,
        in_order=in_order,
        scenario=changed,
        switches=switches,
        size=size,
    )


def _whole(name: str, values: Iterable[int], least: int) -> list[int]:
    found = sorted(set(values))
    if not found or not all(is_integer(value) and value >= least for value in found):
        raise WhatIfError(f"{name}: expected integers of at least {least}, got {found}")
    return found
