"""Is one configuration better than another? `compare`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from dlsim.engine.effort import deciding, seconds_of
from dlsim.engine.facts import batches_to_simulate, left_to_chance
from dlsim.scenario import Scenario
from dlsim.scenario.units import duration, size
from dlsim.trace.summary import aligned, give_or_take, number, percent
from dlsim.trace.telling import beside, sentence
from dlsim.trace.work import DISTINCT, in_an_epoch, told, unit
from dlsim.whatif.bounds import alike
from dlsim.whatif.controls import gained, paired
from dlsim.whatif.endings import ended_by
from dlsim.whatif.limits import limited
from dlsim.whatif.parallel import check_jobs
from dlsim.whatif.replicate import Replications
from dlsim.whatif.space import space
from dlsim.whatif.statistics import Interval

DUST = 1e-9  # relative; differences below it come of rounding
LEAST, MOST, BATCHES = 5, 30, 6000  # replications, and batches to simulate of each
SHOWN: dict[str, tuple[str, Callable[[float], str]]] = {
    "samples_per_s": ("samples/s", number),
    "distinct_per_s": ("distinct samples/s", number),
    "stall": ("idle", percent),
    "wait_mean": ("wait, mean", duration),
    "wait_p95": ("wait, 95 %", duration),
    "epoch_time": ("epoch", duration),
    "validation": ("in validation", percent),
    "worker_utilisation": ("workers busy", percent),
}


@dataclass(frozen=True, eq=False)
class Versus:
    """Two scenarios beside each other, under common random numbers.

    `a`, `b`: their replications. `gain`: how many times as many samples a second `b` makes, less
    one, with an interval from the pairs of runs that saw the same random numbers. `idle`: of each,
    the share of the time for which each cause keeps training idle, the greatest first.
    """

    a: Replications
    b: Replications
    gain: Interval
    idle: tuple[dict[str, float], dict[str, float]]

    @property
    def better(self) -> str:
        """Which is surely faster: "a", "b", or neither, ""."""
        if self.gain.low > 0:
            return "b"
        return "a" if self.gain.high < 0 else ""

    def difference(self, metric: str) -> Interval:
        """The paired interval of `b - a` in a metric."""
        return paired(self.a, self.b, metric)

    def __str__(self) -> str:
        """Which is better and by how much; what each takes; then metrics and differences."""
        if not self.gain.count:
            return "\n".join([_answer(self), *_data(self)])
        lines = [_answer(self), *_data(self), _price(self), _fitting(self), "", _table(self)]
        return "\n".join(lines)


def compare(
    a: Scenario, b: Scenario, replications: int | None = None, seed: int = 0, *, jobs: int = 1
) -> Versus:
    """Whether `b` is better than `a`, by how much, and how sure that is.

    Both are simulated under the same random numbers, `replications` times (by default 5 to 30,
    fewer of long runs), so that what chance does to both alike cancels. `jobs`: see `replicate`.
    """
    check_jobs(jobs)
    if replications is None:
        longer = max(batches_to_simulate(a), batches_to_simulate(b))
        replications = min(max(BATCHES // longer, LEAST), MOST)
    times = [replications if left_to_chance(each) else 1 for each in (a, b)]
    seconds = seconds_of(a) * times[0] + seconds_of(b) * times[1]
    with deciding(seconds, a, jobs=jobs, runs=sum(times)):
        one, its = limited(a, replications, seed, jobs)
        other, others = limited(b, replications, seed, jobs)
        return Versus(one, other, gained(one, other), (its, others))


def _answer(found: Versus) -> str:
    gain, pairs = found.gain, len(found.a)
    sure = f"{pairs} pairs of simulated runs that saw the same random numbers"
    if not gain.count:
        why = ended_by(found.a.scenario, found.a.seeds[0])
        return f"Neither returns anything: {why or 'there is nothing to compare'}."
    if not found.better:
        near = f", as far as {sure} can tell: B makes {_more(found)}"
        near = near if _by_chance(found) else ": nothing is random"
        return f"A and B are as fast as each other{near}."
    faster, slower = ("B", "A") if found.better == "b" else ("A", "B")
    runs = found.b if found.better == "b" else found.a
    but = ", but it does not fit" if space(runs.scenario).fits is False else ""
    sure = sure if _by_chance(found) else "nothing is random: one run of each"
    return f"{faster} is faster than {slower}{but}: B makes {_more(found)} ({sure})."


def _more(found: Versus) -> str:
    gain = found.gain
    unsure = gain.half_width == gain.half_width and _by_chance(found)
    half = f" (± {100 * gain.half_width:.1f} %)" if unsure else ""
    word = "more" if gain.mean >= 0 else "fewer"
    return f"{100 * abs(gain.mean):.1f} % {word} {_unit(found)}{half}"


def _by_chance(found: Versus) -> bool:
    """Whether anything in either is random."""
    return any(left_to_chance(runs.scenario) for runs in (found.a, found.b))


def _unit(found: Versus) -> str:
    """What both are compared by."""
    return unit(*(in_an_epoch(runs.scenario) for runs in (found.a, found.b)))


def _data(found: Versus) -> Iterator[str]:
    """What comes of the samples of each, where that is not as one expects."""
    for name, runs in (("A", found.a), ("B", found.b)):
        said = told(runs.scenario, in_an_epoch(runs.scenario))
        if said:
            yield f"{name}: {said}"


def _price(found: Versus) -> str:
    """How long training is idle with each, and for what; and what each takes."""
    parts = []
    for name, runs, causes in (("A", found.a, found.idle[0]), ("B", found.b, found.idle[1])):
        loader = runs.scenario.loader
        needed = space(runs.scenario).needed
        memory = f" and {size(needed)} for batches on their way" if needed else ""
        parts.append(
            f"{name}: {sentence(causes, runs.interval('stall').mean)}. "
            f"It takes {loader.num_workers} worker{'s' * (loader.num_workers != 1)}{memory}."
            f" {_validation(runs)}{_alike(runs)}".rstrip()
        )
    return "\n".join(parts)


def _validation(runs: Replications) -> str:
    """How much time validation takes, where there is any."""
    share, idle = (runs.interval(name).mean for name in ("validation", "validation_stall"))
    return f"{beside(share, idle)} " if share > 0 else ""


def _alike(runs: Replications) -> str:
    """That workers and cores limit alike, where no error ends a run."""
    if runs["failed"].any():
        return ""
    return alike(runs.scenario, float(runs["elapsed"].mean() / runs["batches"].mean()))


def _fitting(found: Versus) -> str:
    """Whether both fit."""
    a, b = (space(runs.scenario) for runs in (found.a, found.b))
    if a.fits == b.fits:
        return str(max(a, b, key=lambda each: (each.needed / each.limit, each.needed)))
    return f"A: {a} B: {b}"


def _table(found: Versus) -> str:
    rows = [("", "A", "B", "B - A")]
    for metric, (name, show) in SHOWN.items():
        a, b = (runs.interval(metric).mean for runs in (found.a, found.b))
        if a == a and b == b and (metric != "distinct_per_s" or _unit(found) == DISTINCT):
            difference = found.difference(metric)
            dust = DUST * max(abs(a), abs(b))
            if abs(difference.mean) < dust and not difference.half_width >= dust:
                difference = replace(difference, mean=0.0, half_width=0 * difference.half_width)
            rows.append((name, show(a), show(b), _difference(difference, show)))
    return aligned(rows)


def _difference(found: Interval, show: Callable[[float], str]) -> str:
    """A difference and its half-width, to as many digits as that has where they are numbers."""
    if show is number:
        return give_or_take(found.mean, found.half_width)
    if found.half_width != found.half_width:
        return show(found.mean)
    return f"{show(found.mean)} ± {show(found.half_width)}"
