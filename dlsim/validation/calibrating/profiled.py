"""A scenario from what torch.profiler saw of a loop: the waits of each `next()`, and the steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, isnan, log10

import msgspec
import numpy as np

from dlsim.engine import simulate
from dlsim.scenario import Constant, Consumer, Costs, Gamma, Loader, MapDataset, Scenario, Stage
from dlsim.scenario.distributions import Distribution, Floats, scaled
from dlsim.scenario.units import duration
from dlsim.trace.metrics import span
from dlsim.trace.profiler import ENGINE
from dlsim.trace.summary import percent
from dlsim.trace.trace import Integers, Trace
from dlsim.validation.calibrating.accounts import CalibrateError
from dlsim.validation.calibrating.fitting import fit

MOST_WORKERS = 64
CYCLES = 3  # of all workers that have to be there, for a period to be seen
SURE = 1e-3  # a period that chance makes more often is none
APART = 0.5  # of the usual wait; where all are longer, no two batches come together
NEARLY = 0.8  # of what a period explains, and a part of it is the period
WAITED = 0.05  # of the time; who waits less waits for nothing that is worth a number
ROUNDS = 4
STEADY = 0.02  # a coefficient of variation that is none
SAYING = "--num-workers of dlsim diagnose and calibrate"


@dataclass(frozen=True, kw_only=True)
class ProfileFit:
    """The `scenario` of a profile, and where its numbers come from.

    A sample of it is a batch: how large batches are is not recorded. `workers`: how many there are;
    `chance`: how often waits have a period as clear as theirs by chance, NaN where it was said how
    many there are. `explained`: the share of the variance of the waits' ranks that the period
    explains. `batch`:
    seconds of a batch in a worker, `error` its standard error. `seen`, `simulated`: seconds of the
    profile, and of a simulation of the scenario.
    """

    scenario: Scenario
    workers: int
    chance: float
    explained: float
    batch: float
    error: float
    seen: float
    simulated: float

    def __str__(self) -> str:
        return self.told(self.scenario)

    def told(self, asked: Scenario) -> str:
        """What was read off, and what is assumed as `asked` has it: the scenario with options."""
        step = self.scenario.consumer.step.mean
        more = 2 * self.error
        where = "in a worker" if self.workers else "inside next()"
        lines = [
            f"workers   {self._workers()}",
            f"fetching  {duration(self.batch)} ± {duration(more)} a batch, {where}",
            f"step      {duration(step)} a batch, from next() to next()",
            f"check     {duration(self.seen)} were profiled, simulated {duration(self.simulated)} "
            f"({self.simulated / self.seen - 1:+z.1%})",
            f"assumed   {'; '.join(self._assumed(asked))}",
        ]
        return "\n".join(lines)

    def _assumed(self, asked: Scenario) -> Iterator[str]:
        length = self.scenario.dataset.length
        yield "a sample is a batch"
        if asked.dataset.length == length:
            yield f"an epoch has the {length:,} batches profiled (else --dataset.length)"
        if asked.machine.cores is None:
            yield "there are cores enough (else --machine.cores)"

    def _workers(self) -> str:
        if not self.workers:
            return "none: batches are fetched inside next()"
        if isnan(self.chance):
            if self.explained:
                return f"{self.workers}, as said"
            return "1, as no two batches come together (or several, if they began apart)"
        odds = -log10(max(self.chance, 1e-99))
        return (
            f"{self.workers}, read off the period of the waits, which explains "
            f"{percent(self.explained)} of how they differ (by chance: once in 10^{odds:.0f})"
        )


def fit_profile(profile: Trace, *, num_workers: int | None = None) -> ProfileFit:
    """The scenario that stands for a profile of torch.profiler, as `read_profiler` reads it.

    Without workers, every wait is the fetching of a batch. With workers in step their batches come
    together, once for each round of all of them: the waits have a period, which is their number,
    and a round lasts as long as a worker takes for a batch. `num_workers`: how many there are, if
    that is known; the waits need have no period then.

    Raises `CalibrateError` for another trace, and for one from which that cannot be told.
    """
    if profile.meta.engine != ENGINE:
        raise CalibrateError("profile: expected one of torch.profiler, got another trace")
    there = "workers" in profile.meta.notes
    if num_workers is not None and (num_workers > 0) != there:
        expected = "at least 1" if there else "0, as batches are fetched inside next()"
        raise CalibrateError(f"num_workers: expected {expected}, got {num_workers}")
    rows = profile.order
    waits = (profile.returned - profile.requested)[rows]
    steps = (profile.finished - profile.returned)[rows]
    steps = steps[~np.isnan(steps)]
    if len(rows) < CYCLES + 2 or not len(steps):
        raise CalibrateError(
            f"profile: expected at least 5 batches and their steps, got {len(rows)}"
        )
    places = rows - profile.epochs.first[profile.epoch_of(rows)]
    workers, chance, explained = num_workers or 0, float("nan"), 1.0
    if there and num_workers is None:
        workers, chance, explained = counted(waits, places, span(profile))
    if workers:
        batch, error, service = in_workers(profile, workers)
    else:
        fetched = waits[places > 0] if (places > 0).sum() > 1 else waits
        service = fit(fetched).distribution
        batch, error = float(fetched.mean()), float(fetched.std() / len(fetched) ** 0.5)
    scenario = Scenario(
        loader=Loader(batch_size=1, num_workers=workers),
        dataset=MapDataset(
            max(round(len(rows) / len(profile.epochs.first)), 1),
            fetch=(Stage("fetch", cpu=service),),
        ),
        consumer=Consumer(fit(steps).distribution),
        costs=starting(profile, workers, batch),
        epochs=len(profile.epochs.first),
    )
    began, ended = span(profile)
    if workers:
        scenario = met(scenario, service, profile)
    return ProfileFit(
        scenario=scenario,
        workers=workers,
        chance=chance,
        explained=explained,
        batch=batch,
        error=error,
        seen=ended - began,
        simulated=simulate(scenario).end,
    )


def counted(waits: Floats, places: Integers, over: tuple[float, float]) -> tuple[int, float, float]:
    """How many workers there are, how often chance makes such a period, and what it explains.

    The period of `waits`, whose batches have these `places` in their epochs: the one whose places
    differ most surely, by the analysis of variance; of all that were tried. One, where no two
    batches come together: several workers begin together.
    """
    from scipy.stats import f, rankdata

    steady = places > 0
    share = float(waits[steady].sum() / (over[1] - over[0]))
    if share < WAITED:
        raise CalibrateError(
            f"profile: the loop waits {percent(share)} of the time: the step limits, and nothing "
            "tells how many workers there are or what they take; keep it so, or say how many "
            f"({SAYING})"
        )
    seconds, places = waits[steady], places[steady]
    waits = rankdata(seconds)  # one long wait may outweigh all others
    whole = float(((waits - waits.mean()) ** 2).sum())
    found: dict[int, tuple[float, float]] = {}
    tried = range(2, min(MOST_WORKERS, len(waits) // CYCLES) + 1)
    for period in tried:
        group = places % period
        count = np.bincount(group, minlength=period)
        means = np.bincount(group, waits, period) / np.maximum(count, 1)
        within = float(((waits - means[group]) ** 2).sum())
        free = len(waits) - period
        ratio = ((whole - within) / (period - 1)) / max(within / free, 1e-30)
        chance = float(f.sf(ratio, period - 1, free)) * len(tried)
        found[period] = chance, 1 - within / (whole or 1.0)
    surest = min(found, key=lambda period: found[period][0], default=0)
    if not surest or found[surest][0] > SURE:
        if np.quantile(seconds, 0.05) > APART * np.median(seconds) and share > 2 * WAITED:
            return 1, float("nan"), 0.0
        raise CalibrateError(
            f"profile: its {len(waits)} waits have no period that chance does not make, so that "
            f"nothing tells how many workers there are: say how many ({SAYING})"
        )
    # Its multiples are periods, too.
    enough = NEARLY * found[surest][1]
    least = next(p for p in tried if surest % p == 0 and found[p][1] >= enough)
    return least, *found[least]


def in_workers(profile: Trace, workers: int) -> tuple[float, float, Distribution]:
    """Seconds of a batch in a worker, the standard error, and how they are distributed.

    So long lasts a round of all workers, while the loop waits for them.
    """
    rounds = []
    epoch = profile.epoch_of(profile.order)
    for number in range(len(profile.epochs.first)):
        returned = profile.returned[profile.order[epoch == number]]
        rounds += (
            returned[workers::workers] - returned[: len(returned) - workers : workers]
        ).tolist()
    if not rounds:
        raise CalibrateError(f"profile: expected more batches than {workers} workers make at once")
    mean, spread = float(np.mean(rounds)), float(np.std(rounds))
    steady = spread < STEADY * mean
    service = Constant(mean) if steady else Gamma(mean, spread / mean)
    return mean, spread / len(rounds) ** 0.5, service


def starting(profile: Trace, workers: int, batch: float) -> Costs:
    """What an epoch takes to begin, until the first batch has come, and to end."""
    first = profile.order[np.isin(profile.order, profile.epochs.first)]
    later = float(np.mean(profile.returned[first] - profile.requested[first])) - batch
    if not workers:
        return Costs(first_sample=max(later, 0.0))
    last = np.append(first[1:] - 1, profile.order[-1:])
    begin = profile.requested[first] - profile.epochs.started
    end = profile.epochs.ended - profile.finished[last]
    return Costs(
        worker_start=max(float(np.mean(begin)), 0.0) / workers,
        worker_wait=max(later, 0.0),
        worker_stop=max(float(np.nan_to_num(np.mean(end))), 0.0),
    )


def met(scenario: Scenario, service: Distribution, profile: Trace) -> Scenario:
    """`scenario` with fetching such that a simulation returns batches as fast as the profile.

    `service`: how long a batch takes in a worker, about.
    """
    wanted = rate(profile)
    for _ in range(ROUNDS):
        service = scaled(service, rate(simulate(scenario)) / wanted)
        fetch = (Stage("fetch", cpu=service),)
        dataset = msgspec.structs.replace(scenario.dataset, fetch=fetch)
        scenario = msgspec.structs.replace(scenario, dataset=dataset)
    return scenario


def rate(trace: Trace) -> float:
    """Batches a second from the first one returned to the last, in all epochs together."""
    epoch = trace.epoch_of(trace.order)
    time, count = 0.0, 0
    for number in range(len(trace.epochs.first)):
        returned = trace.returned[trace.order[epoch == number]]
        if len(returned) > 1:
            time, count = time + float(returned[-1] - returned[0]), count + len(returned) - 1
    return count / time if time > 0 else inf
