"""Will it fit: what batches on their way take, beside what the machine has for them.

Every command asks here. What is taken is found by simulating, with the order of events that torch
has (`dlsim.trace.memory`); of a long run by its beginning, as far as that decides it. Of
what fits in any case, and takes long, it is what closed forms leave it to take at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from msgspec import structs

from dlsim.engine import simulate
from dlsim.engine.effort import counts, takes
from dlsim.engine.facts import lingers
from dlsim.engine.ranks import fair_share
from dlsim.scenario import IterableDataset, Scenario
from dlsim.scenario.units import size
from dlsim.trace.memory import DESCRIPTORS, MEMORY, SHM, Use, own_descriptors, uses
from dlsim.trace.overflow import largest_window
from dlsim.trace.trace import Trace
from dlsim.whatif.extent import RUN

UNSTATED = 1.0  # bytes of a sample, at most: only costs that grow with batches need them
SMALL = 64 * 2**20  # bytes of /dev/shm that Docker gives a container unless it is told otherwise
BATCHES, SAMPLES = 3_000, 300_000  # that are simulated of a run where they decide whether it fits

LARGER_SHM = "a larger /dev/shm (docker run --shm-size)"
MORE_FILES = "more open files (ulimit -n)"


@dataclass(frozen=True, kw_only=True)
class Space:
    """What a run of `scenario` takes of each resource at most, and what the machine has of it.

    `ranks`: how many of a node share it, of which this is one. `trace`: the run; where there is
    none, that of `scenario` under seed 0.
    """

    scenario: Scenario
    ranks: int = 1
    trace: Trace | None = None

    @cached_property
    def uses(self) -> tuple[Use, ...]:
        """What is taken of /dev/shm, of memory, and of file descriptors."""
        return _simulated(self.scenario) if self.trace is None else tuple(uses(self.trace))

    @property
    def stated(self) -> bool:
        """Whether the scenario says how large a sample is: more than nothing, or one byte."""
        own = self.scenario.validation
        beside = 0.0 if own is None else own.dataset.sample_bytes.mean
        return max(self.scenario.dataset.sample_bytes.mean, beside) > UNSTATED

    @property
    def shared(self) -> bool:
        """Whether batches wait in /dev/shm."""
        beside = self.scenario.validation is not None and self.scenario.validating.through_shm
        return self.scenario.through_shm or beside

    @property
    def most(self) -> float:
        """The most bytes that they can take, however slow the training step is."""
        own = self.scenario.own_memory if self.where == MEMORY else 0.0
        return bytes_at_most(self.scenario, self.where) + own if self.stated else 0.0

    @property
    def needed(self) -> float:
        """The most bytes that batches on their way take; 0 where their size is not stated."""
        return self.tightest.needed if self.stated else 0.0

    @property
    def tightest(self) -> Use:
        """The use of /dev/shm, or of memory, for which there is least room as far as is stated."""
        shm, whole = (
            next(use for use in self.uses if use.resource == place) for place in (SHM, MEMORY)
        )
        places = [shm, whole] if self.shared else [whole]
        known = [use for use in places if use.limit is not None]
        return max(known, key=lambda use: use.needed / (use.limit or 1.0), default=places[0])

    @property
    def outgrown(self) -> Use | None:
        """What does not fit: bytes before file descriptors."""
        if self.trace is None and _surely_fits(self.scenario):
            return None
        over = [
            use
            for use in self.uses
            if use.outgrown and (use.resource == DESCRIPTORS or self.stated)
        ]
        return over[0] if over else None

    def fits_within(self, most: float) -> bool:
        """Whether nothing is known to be outgrown, nor `most` bytes in all."""
        bound = bytes_at_most(self.scenario) + self.scenario.own_memory
        return self.fits is not False and (bound <= most or self.needed <= most)

    @property
    def limit(self) -> float:
        """The most bytes that batches may take; infinite where nothing is stated."""
        limit = self.tightest.limit
        return math.inf if limit is None else limit

    @property
    def where(self) -> str:
        """What has the least room for them, as far as it is stated."""
        return self.tightest.resource

    @property
    def fits(self) -> bool | None:
        """Whether all fits; None where that cannot be told."""
        if self.outgrown is not None:
            return False
        machine = self.scenario.machine
        known = machine.memory is not None or (self.shared and machine.shm is not None)
        return True if self.stated and known else None

    @property
    def largest_window(self) -> int:
        """The largest window that surely fits into what is outgrown, 0 if none does."""
        use = self.outgrown or self.tightest
        if use.limit is None:
            return self.scenario.loader.window
        samples = a_batch(self.scenario) / max(self.scenario.dataset.sample_bytes.mean, UNSTATED)
        return largest_window(self.scenario, use.resource, use.limit, samples)

    def __str__(self) -> str:
        """One line: whether it fits; or what is taken, and what must be stated to tell."""
        over = self.outgrown
        if over is not None:
            return _does_not_fit(self, over)
        if not self.stated:
            return "Does it fit? How large a sample is, is not stated (dataset.sample_bytes)."
        taken = f"{_who(self.scenario, self.where)} take up to {size(self.needed)}"
        if self.fits is None:
            return self._unstated()
        also = ""
        if self.most > self.limit:
            also = f", and were the step slower, up to {size(self.most)}"
            if math.isinf(self.most):
                also = "; a longer run may take any amount"
        if self.shared and self.scenario.machine.shm is None:
            also += "; what /dev/shm has is not stated (machine.shm)"
        return f"It fits: {taken} of the {size(self.limit)} of {self.where}{also}."

    def _unstated(self) -> str:
        needed = self.ranks * self.needed
        whose = f" of all {self.ranks} ranks of a node" if self.ranks > 1 else ""
        taken = f"{_who(self.scenario, self.where)}{whose} take up to {size(needed)}"
        told = taken[0].upper() + taken[1:]
        if not self.shared:
            return f"Does it fit? {told} of memory; what it has is not stated (machine.memory)."
        if needed <= SMALL:
            return (
                f"It fits nearly everywhere: {taken} of /dev/shm, "
                f"and even containers have {size(SMALL)}."
            )
        return (
            f"Does it fit? {told} of /dev/shm; what it has is not stated "
            f"(machine.shm; containers often have {size(SMALL)})."
        )


def space(scenario: Scenario, trace: Trace | None = None) -> Space:
    """The room that `scenario` needs, and has; of a run of it, that `trace` is.

    Nothing is simulated before it is asked for. Of a job it is the room of a rank, which has its
    share of the node.
    """
    if scenario.job.rank is not None:
        return Space(scenario=scenario, trace=trace)
    return Space(scenario=fair_share(scenario), ranks=scenario.job.ranks, trace=trace)


def _who(scenario: Scenario, resource: str) -> str:
    """Who takes what is taken of a resource."""
    own = resource == MEMORY and scenario.own_memory > 0
    return f"{'processes and ' if own else ''}batches on their way"


def at_most(scenario: Scenario, resource: str = MEMORY) -> float:
    """How many batches can take of a resource at a time, however long a step takes.

    As many as the window has, or as the epoch has, and the one that the loop keeps: from the
    epoch before, where there is one. Without workers, one is made while one is kept. In /dev/shm
    none is kept if they are pinned. Where an iterator is rebound, there are two windows. Where
    what arrives sends for more, only the epoch has an end; infinite if it has none.
    """
    loader, batches = scenario.loader, _batches(scenario)
    window: float = max(loader.window, 1)
    if loader.refill == "arrival":
        window = math.inf if batches else 0
    under_way = window if loader.endless else min(window, batches)
    if lingers(scenario):
        under_way *= 2
    under_way += min(scenario.taken_ahead, max(batches - under_way, 0))
    if resource == SHM and scenario.pins:
        return under_way
    several = scenario.epochs > 1 or loader.endless
    return under_way + 1 if several else min(under_way + 1, batches)


def bytes_at_most(scenario: Scenario, resource: str = MEMORY) -> float:
    """The bytes of so many, and those of validation's."""
    beside = 0.0 if scenario.validation is None else bytes_at_most(scenario.validating, resource)
    return at_most(scenario, resource) * a_batch(scenario) + beside


def a_batch(scenario: Scenario) -> float:
    """Bytes of the largest batch."""
    return _samples(scenario) * scenario.dataset.sample_bytes.mean


def _batches(scenario: Scenario) -> int:
    """Batches of an epoch that are sent, if the loop is left early, too."""
    consumer, batches = scenario.consumer, int(counts(_to_the_end(scenario))[0])
    if consumer.stop_after is None or scenario.loader.refill == "arrival":
        return batches
    return min(batches, consumer.stop_after + scenario.loader.window)


def _to_the_end(scenario: Scenario) -> Scenario:
    """The same scenario with all that is fetched: no loop is left early, no last batch dropped.

    A worker fetches what a stream has left before it drops it.
    """
    consumer = structs.replace(scenario.consumer, stop_after=None)
    kept = structs.replace(scenario, consumer=consumer)
    if isinstance(scenario.dataset, IterableDataset):
        kept = structs.replace(kept, loader=structs.replace(scenario.loader, drop_last=False))
    return kept


def _samples(scenario: Scenario) -> int:
    """Samples of the largest batch."""
    loader = scenario.loader
    if loader.batch_sampler is not None:
        return max(map(len, loader.batch_sampler), default=0)
    _, samples, _ = counts(_to_the_end(scenario))
    return min(loader.batch_size or 1, int(samples))


def _does_not_fit(found: Space, over: Use) -> str:
    """One line on what is outgrown when, and what would do."""
    limit, window = over.limit or 0.0, found.largest_window
    if over.resource == DESCRIPTORS:
        taken = f"a process has up to {over.needed:,.0f} files open, and may have {limit:,.0f}"
        more = f"; so would {MORE_FILES}"
    else:
        taken = (
            f"{_who(found.scenario, over.resource)} take up to {size(over.needed)}, "
            f"{over.resource} has {size(limit)}"
        )
        more = f"; so would {LARGER_SHM}" if over.resource == SHM else ""
    first = f", outgrown at batch {over.batch}" if over.batch >= 0 else ""
    if found.scenario.loader.refill == "arrival":
        cure = 'loader.refill = "return" would keep it within the window'
    elif window:
        cure = f"num_workers * prefetch_factor of at most {window} would, however slow the step"
    else:
        cure = f"smaller {'batches' if _samples(found.scenario) > 1 else 'samples'} would"
        if over.resource == SHM:
            least = (1 if found.scenario.pins else 2) * a_batch(found.scenario)
            first += f", and one worker with prefetch_factor=1 may take {size(least)}"
    return f"It does not fit: {taken}{first}; {cure}{more}."


@lru_cache(maxsize=4096)
def _simulated(scenario: Scenario) -> tuple[Use, ...]:
    """What a run of it takes: of its beginning, if that decides whether all of it fits."""
    begin = beginning(scenario)
    if takes(begin) > RUN and _surely_fits(scenario) and math.isfinite(bytes_at_most(scenario)):
        return _at_most(scenario)
    if begin is scenario:
        return tuple(uses(simulate(scenario)))
    found = tuple(uses(_before_it_is_left(simulate(begin))))
    decided = any(use.outgrown for use in found) or _surely_fits(scenario)
    return found if decided else tuple(uses(simulate(scenario)))


def _at_most(scenario: Scenario) -> tuple[Use, ...]:
    """What any run of it takes at most of /dev/shm, and of memory."""
    machine = scenario.machine
    return (
        Use(resource=SHM, needed=bytes_at_most(scenario, SHM), limit=machine.shm),
        Use(
            resource=MEMORY,
            needed=bytes_at_most(scenario) + scenario.own_memory,
            limit=machine.memory,
        ),
    )


def _before_it_is_left(trace: Trace) -> Trace:
    """The trace without what comes while workers are stopped, which the whole run does not."""
    if not len(trace.order):
        return trace
    last = trace.returned[trace.order[-1]]
    return replace(
        trace,
        started=np.where(trace.started <= last, trace.started, np.nan),
        fetched=np.where(trace.fetched <= last, trace.fetched, np.nan),
        received=np.where(trace.received <= last, trace.received, np.nan),
    )


def beginning(scenario: Scenario) -> Scenario:
    """As much of `scenario` as is simulated at first: whole epochs, or the first batches of one."""
    batches, samples, _ = counts(scenario)
    most = min(BATCHES, int(SAMPLES * batches / samples) if samples else BATCHES)
    if batches * scenario.epochs <= most or scenario.validation is not None:
        return scenario  # validation comes when it comes
    if 2 * batches <= most:
        return structs.replace(scenario, epochs=int(most // batches))
    left = structs.replace(scenario.consumer, stop_after=max(most, 1))
    return structs.replace(scenario, consumer=left, epochs=1)


def _surely_fits(scenario: Scenario) -> bool:
    """Whether all fits, however long a step takes."""
    machine, own = scenario.machine, scenario.validation
    needed = [(bytes_at_most(scenario) + scenario.own_memory, machine.memory)]
    if scenario.through_shm or own is not None:
        files = own_descriptors(scenario) + at_most(scenario) * scenario.dataset.tensors
        files += 0 if own is None else at_most(scenario.validating) * own.dataset.tensors
        needed += [(bytes_at_most(scenario, SHM), machine.shm), (files, machine.descriptors)]
    return all(limit is None or need <= limit for need, limit in needed)
