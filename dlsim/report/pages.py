"""Reports as HTML pages: of a scenario, and of a run that was watched or simulated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import structs

from dlsim.engine import simulate
from dlsim.report.html import WIDTH, code, figure, listed, page, paragraphs, table
from dlsim.report.plots import gantt, occupancy, wait_distribution
from dlsim.report.style import axes
from dlsim.report.sweep_plots import sweep_curve
from dlsim.report.text import ended_early, setup, verdict
from dlsim.report.why_plots import account_bars, gains_bar
from dlsim.scenario import Costs, Scenario, dumps
from dlsim.scenario.units import size
from dlsim.trace import JobTrace, Trace, memory, summarize
from dlsim.trace.metrics import worker_count
from dlsim.trace.summary import give_or_take
from dlsim.trace.work import other_workers
from dlsim.whatif import Explanation, bounds, disagrees
from dlsim.whatif.candidates import candidates
from dlsim.whatif.extent import replicated
from dlsim.whatif.limits import means
from dlsim.whatif.rows import HALF_WIDTH
from dlsim.whatif.space import space
from dlsim.whatif.tables import Table

DRAWN = 40  # batches of the picture of who did what when
REPLICATIONS = 10  # of each number of workers, at most
LABEL = 13  # characters that the lines of a summary begin with
LONGEST_LINE = 300  # characters of a line of the configuration; a longer one is cut
EQUAL = (
    "The schedule is that of torch {torch}: tests hold simulated schedules equal to those of "
    "torch's own code, moment for moment."
)
DURATIONS = "Durations are those of the configuration; a prediction is as good as they are."


def scenario_page(
    found: Explanation, trace: Trace, *, name: str, repeat: Sequence[str], jobs: int = 1
) -> str:
    """A page on a scenario: what limits it, what would help, pictures, how far to trust it.

    `found`: why it is as fast as it is; `trace`: one run of it, simulated. `name`: of the scenario,
    if it has none itself; `repeat`: the commands that make the page.
    """
    scenario, seed = found.scenario, found.runs.seed
    first, fitting, *_ = str(found).splitlines()
    sections = [
        ("Why, and what single changes would gain", why(found) + gains(found)),
        ("How many workers?", workers(scenario, len(found.runs), seed, jobs)),
        ("One run", one_run(trace, beginning(scenario, seed))),
        ("Will it fit?", memory_table(trace)),
        ("Configuration", code(cut(scenario))),
        ("How far to trust it", trust(scenario, found)),
        ("How to repeat it", repeated(trace, repeat)),
    ]
    return page(scenario.name or name, setup(scenario), [first, fitting], sections)


def run_page(trace: Trace, *, name: str, repeat: Sequence[str]) -> str:
    """A page on one run, usually a real one that was watched: what limits it, and pictures."""
    scenario, meta = trace.meta.scenario, trace.meta
    answer = [verdict(trace)]
    if meta.problem is not None:
        answer.insert(0, ended_early(meta.problem))
    sections = [("The run", one_run(trace, trace))]
    if scenario is not None:
        sections.append(("Configuration", code(cut(scenario))))
    notes = [f"{key}: {text}" for key, text in meta.notes.items() if key != "machine"]
    watched = "These are times of a real run, as they were. What the watching and others cost:"
    if meta.engine == "observed":
        sections.append(("How far to trust it", paragraphs([watched]) + listed(notes)))
    sections.append(("How to repeat it", repeated(trace, repeat)))
    about = f"engine {meta.engine}" if scenario is None else setup(scenario)
    title = (scenario.name if scenario is not None else "") or name
    return page(title, about, answer, sections)


def why(found: Explanation) -> str:
    """Where the time goes, and what could at best be."""
    if not found.shares:
        return paragraphs(["No time passes."])
    caption = (
        "Where the time goes: for how long training is busy, and idle for each cause; and what "
        "each second hung on, which is the critical path."
    )
    picture = account_bars(means(found.idle), means(found.shares))
    return figure(picture, f"{caption} A{str(found.limits)[1:]}.")


def gains(found: Explanation) -> str:
    """What each change gains."""
    ranked = [*found.gains, found.headspace]
    caption = (
        f"Each change alone, simulated {len(found.runs)} times with the same random numbers as "
        "the scenario as it is; 95 % intervals."
    )
    return figure(gains_bar(ranked), caption)


def workers(scenario: Scenario, replications: int, seed: int, jobs: int) -> str:
    """Throughput and stall over the number of workers, where other numbers are the same data."""
    if why := other_workers(scenario):
        return paragraphs([why])
    swept = workers_table(scenario, min(replications, REPLICATIONS), seed, jobs)
    rows = [
        (str(count), give_or_take(speed, half), f"{100 * stall:.1f} %")
        for count, speed, half, stall in zip(
            swept["loader.num_workers"],
            swept["samples_per_s"],
            swept["samples_per_s" + HALF_WIDTH],
            swept["stall"],
            strict=True,
        )
    ]
    counts = swept["loader.num_workers"].tolist()
    now = scenario.loader.num_workers
    ring = counts.index(now) if now in counts else None
    around = "a ring is around now"
    if ring is None:
        why = "it does not fit" if space(scenario).fits is False else "no batch is returned"
        around = f"as it is, {why}"
    caption = f"Throughput over the number of workers, with 95 % intervals; {around}."
    picture = figure(sweep_curve(swept, "loader.num_workers", taken=ring, word="now"), caption)
    return picture + table(rows, ("num_workers", "samples/s", "idle"))


def workers_table(scenario: Scenario, replications: int, seed: int, jobs: int) -> Table:
    """The scenario with other numbers of workers, as a table of a sweep."""
    now = scenario.loader.num_workers
    counts = {0, 1, 2, 4, 8, max(now - 1, 0), now, now + 1, 2 * now}
    window = scenario.loader.window // now if now else 2
    options = candidates(scenario, {n for n in counts if n <= max(2 * now, 8)}, [window])
    chosen = [option for option in options if option.in_order or option.workers > 1]
    chosen = [o for o in chosen if o.in_order == (scenario.loader.in_order or o.workers <= 1)]
    runs = [replicated(each.scenario, replications, seed, jobs=jobs) for each in chosen]
    found: Table = {"loader.num_workers": np.array([option.workers for option in chosen])}
    for metric in ("samples_per_s", "stall"):
        intervals = [run.interval(metric) for run in runs]
        found[metric] = np.array([each.mean for each in intervals])
        found[metric + HALF_WIDTH] = np.array([each.half_width for each in intervals])
    return found


def beginning(scenario: Scenario, seed: int) -> Trace:
    """The first batches of a run of `scenario`."""
    stop = min(scenario.consumer.stop_after or DRAWN, DRAWN)
    consumer = structs.replace(scenario.consumer, stop_after=stop)
    return simulate(structs.replace(scenario, consumer=consumer, epochs=1), seed)


def one_run(trace: Trace, drawn: Trace) -> str:
    """Pictures of `drawn`, the waits and all metrics of `trace`."""
    part = "" if drawn is trace else f", the first {len(drawn.order)} batches"
    lanes = worker_count(drawn) + 1
    pictures = [
        figure(gantt(drawn, axes(WIDTH, min(1.2 + 0.3 * lanes, 8))), f"Who did what when{part}."),
        figure(
            occupancy(drawn, axes(WIDTH, 2.4)), f"Batches ready, and sent but not returned{part}."
        ),
        figure(wait_distribution(trace), "How long training waited for its batches."),
    ]
    lines = str(summarize(trace)).splitlines()
    rows = [(line[:LABEL].strip(), line[LABEL:].strip()) for line in lines]
    said = "" if drawn is trace else paragraphs([verdict(trace)])
    return said + "".join(pictures) + table(rows, text=True)


def memory_table(trace: Trace) -> str:
    """The most bytes on their way, beside what the machine has."""
    used, machine = memory(trace), trace.meta.scenario.machine  # type: ignore[union-attr]
    rows = [
        ("batches, all together", size(used.total.max), _limit(machine.memory)),
        ("of these in /dev/shm", size(used.shm.max), _limit(machine.shm)),
        ("of these pinned", size(used.pinned.max), ""),
    ]
    said = str(space(trace.meta.scenario, trace))  # type: ignore[arg-type]
    return paragraphs([said]) + table(rows, ("at most", "bytes", "of"))


def _limit(limit: float | None) -> str:
    return "not stated" if limit is None else size(limit)


def cut(scenario: Scenario) -> str:
    """The scenario as TOML, long lists of numbers cut."""
    lines = dumps(scenario).splitlines()
    return "\n".join(
        line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} … ({len(line)} characters)"
        for line in lines
    )


def trust(scenario: Scenario, found: Explanation) -> str:
    """What is exact, what is assumed, and what would have been noticed."""
    said = [EQUAL.format(torch=scenario.torch), DURATIONS]
    if scenario.machine.cores is None:
        said.append("The machine has a core for everything that runs (machine.cores).")
    if scenario.costs == Costs():
        said.append("Moving batches between processes is free (costs).")
    said.append(
        f"Intervals tell how sure means over {len(found.runs)} simulations are, not how true the "
        "configuration is."
    )
    said.append(
        disagrees(bounds(scenario), found.runs)
        or "Simulated figures agree with the closed-form bounds."
    )
    return listed(said)


def repeated(trace: Trace | JobTrace, repeat: Sequence[str]) -> str:
    """The commands, and the versions that the page was made with."""
    versions = ", ".join(f"{name} {version}" for name, version in trace.meta.versions.items())
    return code("\n".join(repeat)) + paragraphs([f"With {versions}."])
