"""How fast the engines are, as ratios measured in one run; writes `docs/performance.md`.

    python -m tests.benchmarks.speed --repeats 5 --write docs/performance.md

Whatever is compared runs alternately, so that both meet the same machine; a ratio is taken within
each round, and the table shows the median of the rounds and their extremes.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np

import dlsim
from dlsim.engine import outcome
from dlsim.engine.in_order import traces
from dlsim.trace.difference import difference
from dlsim.trace.trace import Meta
from tests.benchmarks.models import (
    CONSTANT,
    PREFETCH,
    SHARED,
    WORKERS,
    busy,
    draw,
    limited,
    on_cores,
    scenario,
)
from tests.benchmarks.parts import of_a_batch, of_a_run
from tests.benchmarks.scale import REPLICATIONS, long_runs, sweeps
from tests.benchmarks.timing import alternate, one_core, ratio, spread
from tests.benchmarks.waiting import commands, first_use, long_commands, questions
from tests.benchmarks.watched import watched_epochs

PACKAGES, PEERS = ("numpy", "llvmlite", "simpy"), ("ciw", "salabim")
# A row of a table: name, ratio, and a goal for it.
GOAL = re.compile(r"^\| (.*?) \| ([\d.,]+) \(.*?\) \| ([≤≥]) ([\d,]+(?:\.\d+)?) \|", re.M)
MISSED = "Goals that are missed"
WHY = """
*Where the time goes*, above, says why. Of what a goal leaves, drawing takes the engine less than
half as long as NumPy where numbers are gamma. With limited cores a batch has five events
(`tests/engine/test_costs.py` counts them), some of which wake the main process, which goes through
all that torch does for a batch. In order, metrics need the moments, and then, for each batch, at
how many returns it was ready, and held. A run in a sweep is counted and measured, which a single
run is not; but its random numbers, which all configurations share, are drawn once. Where it is
varied how long something takes, its numbers are not shared.
"""
AT_LEAST = 0.05  # seconds for which each engine is repeated beside the other
AT_ONCE = f"NumPy, each of {REPLICATIONS} replications at once"


def engines(repeats: int, batches: int) -> Iterator[str]:
    """Rows: the SimPy engine's time over the compiled engine's, for the same trace."""
    plans = {
        "in order, nothing random": (scenario(batches, **CONSTANT), 1000),
        "the same, batches of 32": (scenario(batches, batch_size=32, **CONSTANT), 1000),
        "in order, gamma times, end to end": (scenario(batches), 100),
        "out of order, gamma times, end to end": (scenario(batches, in_order=False), 100),
    }
    for name, plan, bar in (
        ("cores, storage and transport, nothing random", scenario(batches, **CONSTANT), 300),
        ("the same, gamma times, end to end", scenario(batches), 100),
    ):
        plans[name] = dlsim.replace(plan, SHARED), bar
    for name, (plan, bar) in plans.items():
        fast, slow = (dlsim.simulate(plan, engine=e) for e in ("compiled", "simpy"))
        assert difference(slow, fast) is None
        count = len(fast)
        timings = alternate(
            repeats,
            at_least=AT_LEAST,
            simpy=lambda plan=plan: dlsim.simulate(plan, engine="simpy"),
            compiled=lambda plan=plan: dlsim.simulate(plan, engine="compiled"),
        )
        slow_cost, fast_cost = (median(timings[e]) / count for e in ("simpy", "compiled"))
        yield (
            f"| {name} | {spread(ratio(timings, 'simpy', 'compiled'))} | ≥ {bar} "
            f"| {slow_cost * 1e6:.3g} µs, {fast_cost * 1e9:.3g} ns |"
        )


def against_drawing(repeats: int, batches: int) -> Iterator[str]:
    """Rows: the compiled engine's time over that of NumPy drawing the same numbers."""

    def traced(plan: dlsim.Scenario) -> object:
        return dlsim.simulate(plan, engine="compiled")

    for name, made, of, simulated, bar, alone in (
        ("in order", scenario, 1, traced, "≤ 2", ""),
        ("out of order", partial(scenario, in_order=False), 1, traced, "", "≤ 3"),
        ("limited cores", limited, 4, traced, "≤ 4", "≤ 3"),
        ("metrics alone, in order", scenario, 1, outcome, "≤ 2", ""),
    ):
        for batch_size in (1, 8, 32):
            count = batches // batch_size // of
            plan = made(count, batch_size=batch_size)
            cases = {
                "simulated": lambda plan=plan, simulated=simulated: simulated(plan),
                "draws": lambda count=count, size=batch_size: draw(count, size),
            }
            yield drawing_row(f"{name}, batches of {batch_size}", bar, count, repeats, cases)
            if batch_size == 1:
                with one_core():
                    yield drawing_row(
                        f"{name}, batches of 1, on one core", alone, count, repeats, cases
                    )


def drawing_row(
    name: str, bar: str, count: int, repeats: int, cases: dict[str, Callable[[], object]]
) -> str:
    """A row of the table of these."""
    timings = alternate(repeats, **cases)
    cost = median(timings["simulated"]) / count
    return (
        f"| {name} | {spread(ratio(timings, 'simulated', 'draws'))} | {bar} | {cost * 1e9:.3g} ns |"
    )


def memory() -> Iterator[str]:
    """Rows: what a batch costs and how much memory a process takes, for metrics alone."""
    for batches, cost, used in long_runs([10**5, 10**6, 10**7, 10**8]):
        yield f"| {batches:,} | {cost * 1e9:.3g} ns | {used:.0f} MiB | < 300 MB |"


def sweeping(repeats: int) -> Iterator[str]:
    """Rows: a sweep's time, times cores, over that of as many single runs."""
    plans = {
        f"{10 * factors:,} configurations, {REPLICATIONS} replications, 1,000 batches": {
            "loader.num_workers": range(1, 11),
            "loader.prefetch_factor": range(1, factors + 1),
        }
        for factors in (1, 10, 100)
    }
    times = [1 + number / 100 for number in range(100)]
    plans["100 that differ in how long samples take"] = {"dataset.fetch.0.wait.mean": times}
    for name, vary in plans.items():
        found = list(sweeps(scenario(1000), repeats, vary))
        ratios, taken, single = (list(column) for column in zip(*found, strict=True))
        bar = "≤ 1.5" if name.startswith("1,000") else ""
        costs = f"{median(taken):.3g} s, {median(single) * 1e3:.3g} ms"
        yield f"| {name} | {spread(ratios)} | {bar} | {costs} |"


def peers(repeats: int, batches: int) -> Iterator[str]:
    """Rows: the SimPy engine's time over that of others for the same loader."""
    # Only this needs the extra `bench`.
    from tests.benchmarks.peers import in_ciw, in_salabim, in_simpy, loop

    plan = scenario(batches, **CONSTANT)
    expected = dlsim.simulate(plan, engine="simpy").returned
    others = {
        "the barest SimPy model": in_simpy,
        "salabim": in_salabim,
        "Ciw, two queues": in_ciw,
        "the recurrence as a plain Python loop": loop,
    }
    assert all(np.allclose(case(plan), expected) for case in others.values() if case is not in_ciw)
    cases = {name: lambda case=case: case(plan) for name, case in others.items()}
    timings = alternate(
        repeats,
        **cases,
        **{AT_ONCE: lambda: at_once(plan)},
        compiled=lambda: dlsim.simulate(plan, engine="compiled"),
        engine=lambda: dlsim.simulate(plan, engine="simpy"),
    )
    timings[AT_ONCE] = [taken / REPLICATIONS for taken in timings[AT_ONCE]]
    for name in (*others, AT_ONCE, "compiled"):
        bar = "≤ 2.5" if name == "the barest SimPy model" else ""
        yield (
            f"| {name} | {spread(ratio(timings, 'engine', name))} | {bar} "
            f"| {median(timings[name]) / batches * 1e6:.3g} µs |"
        )


def at_once(plan: dlsim.Scenario) -> None:
    """Its replications by NumPy, as where there is no llvmlite."""
    metas = [Meta(engine="numpy", scenario=plan, seed=seed) for seed in range(REPLICATIONS)]
    assert len(list(traces(plan, metas))) == REPLICATIONS


def growth(repeats: int) -> Iterator[str]:
    """Rows: nanoseconds a batch as batches and workers grow."""
    sizes = [10**3, 10**4, 10**5, 10**6, 10**7]
    for in_order in (True, False):
        for what, grown in (
            ("batches", {n: scenario(n, in_order=in_order) for n in sizes}),
            ("workers", {w: busy(w, in_order) for w in (1, 4, 16, 64, 256, 1024)}),
        ):
            costs = []
            for n, plan in grown.items():
                batches = plan.dataset.length
                times = max(1, 100_000 // batches)
                timings = alternate(
                    repeats, compiled=lambda plan=plan, times=times: simulate(plan, times)
                )
                cost = median(timings["compiled"]) / times / batches
                costs.append(f"{n:,}: {cost * 1e9:.3g} ns")
            yield f"| {'in order' if in_order else 'out of order'} | {what} | {'; '.join(costs)} |"
    for what, grown in (
        ("cores", {n: on_cores(n) for n in (1, 4, 16, 64)}),
        ("samples a batch", {n: scenario(10**6 // n, batch_size=n) for n in (1, 10, 100, 1000)}),
    ):
        costs = []
        for n, plan in grown.items():
            timings = alternate(repeats, compiled=lambda plan=plan: simulate(plan, 1))
            cost = median(timings["compiled"]) / plan.dataset.length
            costs.append(f"{n:,}: {cost * 1e9:.3g} ns")
        yield f"| in order, a sample | {what} | {'; '.join(costs)} |"


def simulate(plan: dlsim.Scenario, times: int) -> None:
    """Run it as often as that."""
    for _ in range(times):
        dlsim.simulate(plan, engine="compiled")


def imports(repeats: int) -> Iterator[str]:
    """Rows: the time of a fresh process over that of one that imports NumPy."""
    commands = {
        "numpy": ["-c", "import numpy"],
        "import dlsim": ["-c", "import dlsim"],
        "dlsim --help": ["-m", "dlsim", "--help"],
    }
    timings = alternate(
        repeats,
        **{
            name: lambda command=command: subprocess.run(
                [sys.executable, *command], check=True, stdout=subprocess.DEVNULL
            )
            for name, command in commands.items()
        },
    )
    for name, bar in (("import dlsim", "≤ 1.5"), ("dlsim --help", "≤ 2.5")):
        cost = f"{median(timings[name]):.3g} s"
        yield f"| {name} | {spread(ratio(timings, name, 'numpy'))} | {bar} | {cost} |"


def known(packages: tuple[str, ...]) -> str:
    """Their versions, where they are installed."""
    found = {package: version(package) for package in packages if find_spec(package)}
    return ", ".join(f"{package} {number}" for package, number in found.items())


def heading(repeats: int) -> str:
    """What the page begins with: the machine, the versions, and how to read it."""
    packages = known(PACKAGES)
    return (
        f"# Performance\n\nWritten by `python -m tests.benchmarks.speed`: {processor()}, Python "
        f"{platform.python_version()}, {packages}. A ratio is one of two times measured "
        f"alternately in one run: the median of {repeats} rounds and, in brackets, the extremes. "
        f"{WORKERS} workers, prefetch_factor {PREFETCH}, batches of one sample unless it says "
        "otherwise. A thread draws the numbers of long runs ahead: rows on one core are without "
        "its help. Compilation, once for each installation, is not in it. Costs in seconds are "
        "this machine's, and so is what Python costs beside compiled code.\n"
    )


def sections(
    repeats: int, batches: int, only: str, beside: Path | None
) -> Iterator[tuple[str, str]]:
    """The title and the text of each part of the page whose title contains `only`.

    `beside`: the root of another version of dlsim, with which the first use is compared.
    """
    for title, columns, rows in (
        (
            f"The SimPy engine's time over the compiled engine's, {batches:,} batches, each "
            f"repeated in every round until {1000 * AT_LEAST:g} ms have passed",
            "| scenario | ratio | goal | a batch costs |",
            engines(repeats, batches),
        ),
        (
            "The compiled engine's time over drawing its numbers with NumPy, 1,000,000 samples",
            "| scenario | ratio | goal | a batch costs |",
            against_drawing(repeats, 10**6),
        ),
        (
            f"The SimPy engine's time over others' for the same loader in order ({known(PEERS)})",
            "| other | ratio | goal | with it, a batch costs |",
            peers(repeats, 5_000),
        ),
        (
            "How the cost of a batch grows, compiled engine",
            "| rule | with | a batch costs |",
            growth(repeats),
        ),
        (
            "Metrics alone of long runs, in order, one process each, one run",
            "| batches | a batch costs | memory | goal |",
            memory(),
        ),
        (
            "A sweep's time, times cores, over that of its runs one by one",
            "| sweep | ratio | goal | the sweep, a single run take |",
            sweeping(5),
        ),
        (
            "Where the time goes on one core, in what misses its goal, or nearly does",
            "| what | its parts | drawing with NumPy |",
            itertools.chain(of_a_batch(repeats), of_a_run(repeats)),
        ),
        (
            "Starting, over starting Python and importing NumPy",
            "| process | ratio | goal | takes |",
            imports(max(repeats, 10)),
        ),
        (
            "First use of the compiled engine, nothing kept, processor time"
            + (f", over that of {beside.name}" if beside else ""),
            "| scenario | ratio | goal | takes |",
            first_use(repeats, beside),
        ),
        (
            "Answers, processor time, one run"
            + (f", over that of {beside.name} without numba" if beside else ""),
            "| question | ratio | goal | takes | without llvmlite |",
            questions(beside),
        ),
        (
            "An epoch that is watched, over one that is not, processor time, samples of 20 µs",
            "| by | ratio | goal | a sample costs | before and after it, once |",
            watched_epochs(repeats),
        ),
        (
            "Commands, over the same without llvmlite, processor time",
            "| command | ratio | goal | takes |",
            commands(repeats),
        ),
        (
            "Commands on long runs, one process each, one run",
            "| command | memory | goal | processor time |",
            long_commands(),
        ),
    ):
        if only in title:
            lines = [f"{columns}\n{'|---' * (columns.count('|') - 1)}|", *rows]
            yield title, "\n".join(lines) + "\n"


def missed(page: dict[str, str]) -> str:
    """The goals that the tables on the page miss, as a list."""
    found = []
    for title, text in page.items():
        for name, reached, sign, wanted in GOAL.findall(text):
            ours, goal = (float(text.replace(",", "")) for text in (reached, wanted))
            if ours > goal if sign == "≤" else ours < goal:
                found.append(f"- {title}; {name}: {reached}, where {sign} {wanted} is wanted")
    return "\n".join(found) + f"\n{WHY}" if found else "- none\n"


def processor() -> str:
    """What the benchmark runs on."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return f"{len(names)} cores, {names[0]}" if names else platform.platform()


def main() -> None:
    """Measure, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", type=int, default=100_000)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--beside", type=Path, help="the root of another version of dlsim")
    parser.add_argument("--only", default="", help="measure sections whose titles contain this")
    options = parser.parse_args()
    head, page = heading(options.repeats), {}
    if options.only and options.write:
        before, *parts = options.write.read_text(encoding="utf-8").split("\n## ")
        if before != head:
            parser.error("--only: the rest of the page is of another machine, or other versions")
        page = dict(part.split("\n\n", 1) for part in parts)
    print(head)
    for title, text in sections(options.repeats, options.batches, options.only, options.beside):
        print(f"## {title}\n\n{text}", flush=True)
        page[title] = text
    if options.write:
        page.pop(MISSED, None)
        page[MISSED] = missed(page)
        body = "".join(f"\n## {title}\n\n{text}" for title, text in page.items())
        options.write.write_text(head + body, encoding="utf-8")


if __name__ == "__main__":
    main()
