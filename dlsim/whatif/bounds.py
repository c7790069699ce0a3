"""How fast a loader can be at best: closed forms, one for each thing that can run out.

In the steady state a batch comes every so many seconds, and each resource sets a least period:

=========  ===========================================================================
step       `T`: the training step
main       `T + g`: the same, copying to the device and the main process's own work
process
workers    `S / W`: a batch's time in its worker, over the workers
lock       what holds the lock that threads share, if workers are threads
window     `(S + g) / K`: the round trip of a credit, over the credits
receive    what the main process computes for a batch, its pin-memory thread included, and
           what it waits for the worker to hand over
cores      all processor time of a batch, over the cores
storage    bytes over bandwidth, requests over their rate
serial     without workers: `T + S`, one after the other
=========  ===========================================================================

The greatest binds. Utilisation laws (Denning and Buzen, The operational analysis of queueing
network models, ACM Computing Surveys 10(3), 1978) hold whatever the distributions, so that no
simulation may be faster but by chance; variation makes it slower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from msgspec import structs

from dlsim.engine.ranks import fair_share
from dlsim.scenario import IterableDataset, Scenario
from dlsim.scenario.units import duration
from dlsim.trace.summary import number
from dlsim.whatif.demand import Demand, demand, variation
from dlsim.whatif.replicate import Replications

ROUNDING = 1e-9
LITTLE = 0.1  # of the step; what the main process does besides goes without saying
WORTH, NOTICED = 0.02, 0.1  # gains that are none, and that are some
SURE = 4.0  # standard errors that chance does not explain: one case in 30,000


@dataclass(frozen=True)
class Bounds:
    """The least seconds a batch, by what sets them; `samples_per_batch` on average.

    `at_most` is the period if nothing overlapped and everyone shared with all others. Of a job,
    periods are those of each of its `ranks`, on its share of the node and of the storage; rates
    those of all.
    """

    periods: dict[str, float]
    samples_per_batch: float
    at_most: float
    ranks: int = 1

    @property
    def binds(self) -> str:
        """What sets the greatest of the least periods."""
        return max(self.periods, key=lambda name: self.periods[name])

    @property
    def period(self) -> float:
        """Seconds a batch, at best."""
        return self.periods[self.binds]

    @property
    def batches_per_s(self) -> float:
        """Batches a second, at best."""
        return self.ranks / self.period if self.period > 0 else float("inf")

    @property
    def samples_per_s(self) -> float:
        """Samples a second, at best."""
        return self.samples_per_batch * self.batches_per_s

    def __str__(self) -> str:
        """What binds, and each bound."""
        return self.told()

    def told(self, share: float = 1.0, unit: str = "samples/s") -> str:
        """The same, with a share of the samples counted, in their unit."""
        if not self.samples_per_batch:
            return "no batch is returned"
        each = ", ".join(f"{name} {duration(value)}" for name, value in self.periods.items())
        if not self.period > 0:
            return "nothing takes any time"
        return (
            f"at best {number(share * self.samples_per_s)} {unit}, bound by: {self.binds} "
            f"(seconds a batch: {each})"
        )


def bounds(scenario: Scenario) -> Bounds:
    """The closed-form bounds of `scenario`: those that apply to it."""
    ranks = scenario.job.world if scenario.is_job and scenario.job.rank is None else 1
    scenario = fair_share(scenario)
    need = demand(scenario)
    per_batch = need.samples / need.batches if need.batches else 0.0
    periods = _with_workers(scenario, need) if scenario.loader.num_workers else _alone(need)
    if scenario.consumer.run_ahead:
        overlap = scenario.consumer.overlap_copy
        there = max(need.step, need.copies) if overlap else need.step + need.copies
        host = {"serial", "main process", "step"} & set(periods)
        for name in host:  # the accelerator works beside the host
            periods[name] -= need.step + need.copies
        periods = {"step": max(there, periods.pop("step", 0.0)), **periods}
    if scenario.machine.cores is not None or scenario.machine.crosstalk:
        periods["cores"] = _computed(scenario, need) / _capacity(scenario)
    storage = scenario.machine.storage
    if need.requests and (storage.bandwidth or storage.requests_per_second):
        periods["storage"] = max(
            need.bytes / storage.bandwidth if storage.bandwidth else 0.0,
            need.requests / storage.requests_per_second if storage.requests_per_second else 0.0,
        )
    return Bounds(periods, per_batch, _one_after_the_other(scenario, need), ranks)


def together(scenario: Scenario, period: float) -> float:
    """How many times as fast more workers and cores may make a run, where neither can alone.

    `period`: seconds a batch took. 0 where one alone may help, or both do not: by bounds, twice of
    each.
    """
    loader, machine = scenario.loader, scenario.machine
    if not loader.num_workers or machine.cores is None or scenario.is_job:
        return 0.0
    if scenario.validation is not None:  # the period has its time, too
        return 0.0
    if loader.slots is not None or isinstance(scenario.dataset, IterableDataset):
        return 0.0
    workers = structs.replace(loader, num_workers=2 * loader.num_workers)
    cores = structs.replace(machine, cores=2 * machine.cores)
    staffed = structs.replace(scenario, loader=workers)
    alone = (staffed, structs.replace(scenario, machine=cores))
    if any(period > (1 + WORTH) * bounds(case).period for case in alone):
        return 0.0
    least = bounds(structs.replace(staffed, machine=cores)).period
    return period / least if period > (1 + NOTICED) * least else 0.0


def alike(scenario: Scenario, period: float) -> str:
    """That workers and cores limit alike, and what more of both may bring; "" elsewhere.

    `period`: seconds a batch took.
    """
    times = together(scenario, period)
    if not times:
        return ""
    return (
        "Workers and cores limit alike: more of one alone gain nothing, "
        f"of both together up to {times:.2g} times as many samples/s."
    )


def disagrees(limits: Bounds, found: Replications) -> str | None:
    """One line if simulations were faster than they can be, or slower than queueing explains.

    Faster: a batch takes less than the greatest bound. Slower: an epoch takes longer than if
    nothing overlapped, its start and end aside. Either by more than chance explains: the mean of
    n draws is within `SURE * cv / sqrt(n)` of its expectation, where cv is that of the most
    variable time there is. None if all is well, or nothing can be said: an error ended a run.
    """
    batches = float(found["batches"].mean())
    if found["failed"].any() or not batches:
        return None
    scenario = found.scenario
    if scenario.job.differs:
        return None  # what the others leave, a rank may use
    batches /= limits.ranks
    drawn = found.metrics.get("basis", found["batches"])  # of long runs, a part stands for the rest
    chance = ROUNDING + SURE * variation(fair_share(scenario)) / math.sqrt(float(drawn.sum()))
    took, least = float(found["elapsed"].mean()), batches * limits.period
    if took < (1 - chance) * least:
        return (
            f"simulated runs of {duration(took)} are shorter than is possible, "
            f"{duration(least)} ({limits.binds}-bound): one of the two is wrong"
        )
    left = scenario.consumer.stop_after is not None
    if left or scenario.is_job or scenario.validation is not None:
        return None  # how long leaving early, the slowest, or validation takes is not bounded here
    returned = demand(scenario).batches
    costs, workers = scenario.charged, scenario.loader.num_workers
    edges = workers * (costs.worker_start + costs.worker_ready + costs.worker_stop)
    edges += max(costs.blocked(worker) for worker in range(max(workers, 1)))
    edges += max(workers, 1) * costs.first_cpu + workers * costs.first_serialise
    edges += costs.first_start + costs.first_put + costs.first_next + costs.first_receive
    longest = edges + (returned + 2 * workers + 1) * limits.at_most
    epoch = float(found["epoch_time"].mean())
    if epoch > (1 + chance) * longest:
        return (
            f"simulated epochs of {duration(epoch)} are longer than if nothing overlapped, "
            f"{duration(longest)}: more than queueing explains"
        )
    return None


def _alone(need: Demand) -> dict[str, float]:
    """Without workers everything is done in turn."""
    return {"serial": need.copies + need.step + need.fetches + need.pins}


def _with_workers(scenario: Scenario, need: Demand) -> dict[str, float]:
    loader = scenario.loader
    share = need.longest / need.batches if need.batches else 0.0
    receives = need.receives + need.hands_over
    main = need.dispatches + (0.0 if scenario.pins else receives)
    # the feeder thread serialises while the next batch is fetched, but not while one is computed,
    # as far as both want Python's lock
    busy = max(need.fetches, need.computes + scenario.charged.lock * need.serialises)
    trip = need.latency + need.fetches + need.serialises + need.writes + receives + need.dispatches
    beside = need.copies + main
    periods = {
        "main process" if beside > LITTLE * need.step else "step": need.step + beside,
        "workers": busy * share,
        "window": (trip + need.pins) / loader.window,
    }
    if need.locks > 0:
        periods["lock"] = need.locks
    # all threads of the main process share its time; the one that receives also waits
    own = need.dispatches + need.receives + need.pins + (need.step if need.threads else 0.0)
    if receives + need.dispatches + need.pins > 0:
        periods["receive"] = max(own, receives + need.pins)
    return periods


def _computed(scenario: Scenario, need: Demand) -> float:
    """All processor seconds of a batch."""
    in_main = need.dispatches + need.receives + need.pins + need.step * need.threads
    return need.computes_in_workers + in_main


def _capacity(scenario: Scenario) -> float:
    """The most that the cores give to the processes of the run at a time."""
    machine, most = scenario.machine, _processes(scenario)
    return max(count * machine.rate(count + machine.background) for count in range(1, most + 1))


def _processes(scenario: Scenario) -> int:
    """The most that compute at a time: workers, one that writes, the main process; threads."""
    workers, consumer = scenario.loader.num_workers, scenario.consumer
    gang = max((stage.threads for stage in scenario.dataset.fetch), default=1)
    beside = scenario.charged.lock < 1
    fetching = workers * (gang + beside) if workers else gang - 1
    return fetching + min(workers, 1) + max(consumer.threads, 1) + consumer.spin


def _one_after_the_other(scenario: Scenario, need: Demand) -> float:
    """Seconds for a batch if nothing overlapped, and all others wanted their share all the time."""
    machine, workers = scenario.machine, max(scenario.loader.num_workers, 1)
    slowed = 1 / machine.rate(_processes(scenario) + machine.background)
    threads = 2.0 if scenario.loader.num_workers else 1.0  # of one process, sharing its core
    computed = need.computes_in_workers + need.dispatches + need.receives + need.pins
    computed += need.step if need.threads else 0.0
    rate = machine.storage.requests_per_second
    queued = workers * need.requests / rate if rate else 0.0
    other = need.latency + need.waits + need.copies + (0.0 if need.threads else need.step)
    return slowed * threads * computed + workers * (need.reads + need.downloads) + queued + other
