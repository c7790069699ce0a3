"""Another loader? The same data, step and machine under the rules of others: `loaders`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from msgspec import structs

from dlsim.engine.effort import cost, deciding, seconds_of
from dlsim.scenario import Scenario, ScenarioError
from dlsim.scenario.units import size
from dlsim.trace.summary import aligned, number, percent
from dlsim.trace.work import in_an_epoch, told, unit
from dlsim.whatif.controls import gained
from dlsim.whatif.endings import ended_by
from dlsim.whatif.errors import WhatIfError
from dlsim.whatif.extent import replicated, shortened
from dlsim.whatif.parallel import check_counts, check_jobs
from dlsim.whatif.replicate import Replications
from dlsim.whatif.space import space
from dlsim.whatif.statistics import Interval

LEAST, MOST, EFFORT = 3, 10, 40_000  # replications of each, and what they may take in all
LOCKS = (0.0, 0.3, 1.0)  # shares of a stage's processor time for which a thread holds the lock
WORTH = 0.01  # a gain that is worth a word
LOCK = "lock: the share of what samples compute for which a thread holds Python's lock."
ANY_ORDER = "torch, any order"
QUEUE = 2  # batches between a stage and the sink of SPDL 0.8; the sink has one more in its hands


@dataclass(frozen=True, eq=False)
class Row:
    """A loader, what its rules give in simulations, and the gain over torch's, in pairs."""

    name: str
    runs: Replications
    gain: Interval

    @property
    def samples_per_s(self) -> float:
        """Distinct samples a second, on average."""
        return self.runs.interval("distinct_per_s").mean


@dataclass(frozen=True, eq=False)
class Loaders:
    """Loaders beside each other; `rows[0]` is torch's, in order. `not_for`: names and reasons."""

    rows: list[Row]
    not_for: dict[str, str]

    @property
    def better(self) -> list[Row]:
        """Those that fit and surely gain `WORTH` or more, the best first; of the alike, torch's."""
        sure = [row for row in self.rows[1:] if row.gain.mean >= WORTH and not row.gain.low <= 0]
        fit = [row for row in sure if space(row.runs.scenario).fits is not False]
        most = max((row.gain.mean for row in fit), default=0.0)

        def behind(row: Row) -> float:
            less = 1 - (1 + row.gain.mean) / (1 + most)
            return less if less > WORTH else 0.0

        return sorted(fit, key=behind)

    def _answer(self) -> str:
        if not self.better:
            return f"No other loader surely gains {100 * WORTH:.0f} % here."
        best, *others = self.better
        said = f"Most is gained by {best.name}: {_told(best.gain)}."
        if best.name == ANY_ORDER:
            return f"{said} That is in_order=False; no other loader gains {100 * WORTH:.0f} % more."
        ours = "".join(_told(row.gain) for row in others if row.name == ANY_ORDER)
        return f"{said} Torch itself gains {ours} with in_order=False." if ours else said

    def __str__(self) -> str:
        """First who gains most; then a table, a row for each loader."""
        what = unit(*(in_an_epoch(row.runs.scenario) for row in self.rows))
        said = [("", what, "gain", "idle", "on their way")]
        for row in self.rows:
            gain = f"{100 * row.gain.mean:+z.1f} %" if row.gain.count else "-"
            room = space(row.runs.scenario)
            outgrown = " !" if room.fits is False else ""
            said.append(
                (
                    row.name,
                    number(row.samples_per_s),
                    "" if row is self.rows[0] else gain,
                    percent(row.runs.interval("stall").mean),
                    (size(room.needed) if room.needed else "-") + outgrown,
                )
            )
        reasons = dict.fromkeys(self.not_for.values())
        left_out = [
            f"Not for this scenario ({reason}): "
            f"{'; '.join(name for name, why in self.not_for.items() if why == reason)}."
            for reason in reasons
        ]
        return "\n".join([self._answer(), "", aligned(said), LOCK, *self._missing(), *left_out])

    def _missing(self) -> Iterator[str]:
        """What does not fit, what ends runs, and what comes of the samples: torch's first."""
        rooms = (space(row.runs.scenario) for row in self.rows)
        yield from [str(room) for room in rooms if room.fits is False][:1]
        ended = {ended_by(r.runs.scenario) for r in self.rows if r.runs["failed"].all()}
        yield from (f"Runs end early: {why}." for why in sorted(ended) if why)
        first = self.rows[0].runs.scenario
        yield from filter(None, [told(first, in_an_epoch(first))])


def _told(gain: Interval) -> str:
    half = f" ± {100 * gain.half_width:.1f}" if gain.half_width == gain.half_width else ""
    return f"{100 * gain.mean:+z.1f}{half} %"


def loaders(
    scenario: Scenario, replications: int | None = None, seed: int = 0, *, jobs: int = 1
) -> Loaders:
    """What loaders with other rules would give `scenario`, under the same random numbers.

    Workers, window, costs and the loop around `next()` stay as they are. Raises `WhatIfError`
    without workers, of whom all rules speak. `replications`: by default 3 to 10, fewer of long
    runs. `jobs`: see `replicate`.
    """
    check_jobs(jobs)
    if scenario.loader.num_workers == 0:
        raise WhatIfError("loader.num_workers: expected workers, whom loaders differ by, got 0")
    cases, not_for = {}, {}
    for name, case in _cases(scenario):
        if isinstance(case, Scenario):
            cases[name] = case
        else:
            not_for[name] = case
    if replications is None:
        replications = min(max(int(EFFORT / cost(shortened(scenario))), LEAST), MOST)
    check_counts(replications=replications)
    made = replications * len(cases)
    with deciding(seconds_of(shortened(scenario)) * made, scenario, jobs=jobs, runs=made):
        runs = {n: replicated(case, replications, seed, jobs=jobs) for n, case in cases.items()}
    first = next(iter(runs.values()))
    return Loaders([Row(name, each, gained(first, each)) for name, each in runs.items()], not_for)


def _cases(scenario: Scenario) -> Iterator[tuple[str, Scenario | str]]:
    """Each loader by name: the scenario with it, or why there is none."""
    torchs: dict[str, object] = {"dispatch": "turns", "refill": "return", "slots": None}
    torchs |= {"stateful": False, "snapshot_every_n_steps": 1, "resume": 0}
    loader = structs.replace(scenario.loader, **torchs)
    workers, window = loader.num_workers, loader.window
    consumer = scenario.consumer
    if loader.workers == "threads":
        loader = structs.replace(loader, workers="processes")

    def case(name: str, **settings: object) -> tuple[str, Scenario | str]:
        parts = {"consumer": settings.pop("consumer", consumer)}
        parts["dataset"] = settings.pop("dataset", scenario.dataset)
        if "slots" in settings:
            settings["prefetch_factor"] = None
        try:
            rules = structs.replace(loader, **{"in_order": True, **settings})
            return name, structs.replace(scenario, loader=rules, **parts)
        except ScenarioError as error:
            return name, str(error).partition(", got ")[0]

    yield case("torch, in order")
    if workers > 1:
        yield case(ANY_ORDER, in_order=False)
    yield case("refill on arrival", refill="arrival")
    yield case("stealing", dispatch="stealing")
    yield case("one shared queue (torchdata.nodes)", dispatch="shared")
    yield case("one shared queue, any order", dispatch="shared", in_order=False)
    if consumer.loop == "plain":
        sink = structs.replace(consumer, loop="thread", queue=window + QUEUE)
        spdl = {"dispatch": "shared", "consumer": sink}
        yield case("SPDL, any order", **spdl, slots=workers, in_order=False)
        yield case("SPDL, in order", **spdl, slots=workers + 2)
    context = {"multiprocessing_context": None, "workers": "threads"}
    for lock in LOCKS:
        fetch = tuple(structs.replace(stage, lock=lock) for stage in scenario.dataset.fetch)
        dataset = structs.replace(scenario.dataset, fetch=fetch)
        yield case(f"threads, lock {lock:g}", dataset=dataset, **context)
