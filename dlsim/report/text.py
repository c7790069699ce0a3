"""A run in words: what was configured, what came out, what limits it, and what to make of it."""

from __future__ import annotations

import math

from msgspec import structs

from dlsim.scenario import IterableDataset, Scenario
from dlsim.scenario.units import duration
from dlsim.trace import Problem, Trace, account, metrics, new_memory, own_loop, summarize
from dlsim.trace.account import Account
from dlsim.trace.causes import LAST_ROUND, STEP
from dlsim.trace.libraries import cores_busy, worth_limiting
from dlsim.trace.observation import Observation
from dlsim.trace.rhythm import rhythm
from dlsim.trace.summary import aligned, number, percent
from dlsim.trace.telling import beside, limit, regular, sentence, table
from dlsim.trace.work import DISTINCT, last_round, told, unit, work

# Workers busier than this have no slack: what they do not fetch is the start and the end.
BUSY = 0.8


def run_text(trace: Trace) -> str:
    """Text on a single run: an error if one ended it, verdict, configuration, summary."""
    from dlsim.whatif.space import space

    found = account(trace)
    parts = [verdict(trace, found), configuration(trace), str(summarize(trace))]
    if isinstance(trace, Observation) and own_loop.told(trace):
        parts[0] += f"\n{own_loop.told(trace)}"
    if isinstance(trace, Observation) and new_memory.told(trace):
        parts[0] += f"\n{new_memory.told(trace)}"
    if isinstance(trace, Observation) and worth_limiting(trace):
        parts.insert(
            0,
            f"Each sample keeps {cores_busy(trace):.2g} cores busy, by threads that libraries "
            "start in each process: dlsim diagnose tries what one thread in each worker gains.",
        )
    if trace.meta.scenario is not None:
        from dlsim.whatif.leaving import left_early

        part = left_early(trace.meta.scenario, metrics.mean(metrics.epoch_times(trace)))
        parts += [part] if part else []
    if len(trace.order):
        busy = 1 - found.stall - found.apart
        parts.append(table(found.shares, busy, found.hung, found.apart))
    if trace.meta.scenario is not None:
        room = space(trace.meta.scenario, trace)
        if room.fits is False:
            parts.insert(0, str(room))
        elif len(trace.order) and _sized(trace):
            parts[0] += f"\n{room}"
    if trace.meta.problem is not None:
        parts.insert(0, ended_early(trace.meta.problem))
    return "\n\n".join(parts)


def _sized(trace: Trace) -> bool:
    """Whether it is known how large samples are, or could be stated: of a watched run it cannot."""
    scenario = trace.meta.scenario
    return trace.meta.engine != "observed" or (
        scenario is not None and scenario.dataset.sample_bytes.mean > 0
    )


def configuration(trace: Trace) -> str:
    """One or two lines: the scenario's name, and how the loader was set up."""
    scenario, meta = trace.meta.scenario, trace.meta
    ran = f"engine {meta.engine}" + (f", seed {meta.seed}" if meta.seed is not None else "")
    if scenario is None:
        workers = metrics.worker_count(trace)
        if "workers" in meta.notes:
            return f"workers: {meta.notes['workers']} ({ran})"
        return f"{workers or 'no'} worker{'s' if workers != 1 else ''} seen ({ran})"
    title = f"{scenario.name} ({ran})" if scenario.name else f"One run ({ran})"
    return f"{title}\n{setup(scenario)}"


def setup(scenario: Scenario) -> str:
    """The loader's settings in one line."""
    loader, dataset, consumer = scenario.loader, scenario.dataset, scenario.consumer
    who = "thread" if loader.threads else "worker"
    words = [f"{loader.num_workers} {who}{'' if loader.num_workers == 1 else 's'}"]
    if loader.num_workers:
        factor = f"prefetch {loader.window // loader.num_workers} (window {loader.window})"
        words.append(factor if loader.slots is None else f"{loader.slots} slots")
    if loader.batch_sampler is not None:
        words.append("batches as sampled")
    elif loader.batch_size is None:
        words.append("no batching (each item counts as a sample)")
    else:
        words.append(f"batch size {loader.batch_size}")
    if loader.num_workers:
        words.append("in order" if loader.in_order else "out of order")
        words += [] if loader.dispatch == "turns" else [f"dispatch {loader.dispatch}"]
        words += [] if loader.refill == "return" else [f"refill on {loader.refill}"]
    words.append("iterable" if isinstance(dataset, IterableDataset) else "map-style")
    words += [key for key in ("endless", "stateful") if getattr(loader, key)]
    beside = loader.start_together
    words += [f"{beside} workers started at a time"] if beside > 1 else []
    words += [] if consumer.loop == "plain" else [f"loop {consumer.loop}"]
    if scenario.epochs > 1:
        words.append(f"{scenario.epochs} epochs")
    if scenario.policy != "torch":
        words.append(f"policy {scenario.policy}")
    own = scenario.validation
    if own is None:
        return ", ".join(words)
    when = f"every {own.every} batches" if own.every else "at each epoch's end"
    inner = structs.replace(scenario.validating, epochs=1)
    return f"{', '.join(words)}; validation {when}: {setup(inner)}"


def verdict(trace: Trace, found: Account | None = None) -> str:
    """A sentence on what limits the run, and what else is to be known of it.

    `found`: the account of `trace`, where it is at hand.
    """
    if not len(trace.order):
        return f"No batch was returned. {_data(trace)}".strip()
    found = account(trace) if found is None else found
    more = ""
    if limit(found.shares, found.stall) == STEP:
        more = f" {_slack(trace)}".rstrip()
    elif metrics.worker_count(trace) == 0 and "workers" not in trace.meta.notes:
        more = " Without workers, loading and training take turns."
    scenario = trace.meta.scenario
    last = last_round(scenario) if scenario is not None and found.cause == LAST_ROUND else ""
    first = f"{sentence(found.shares, found.stall)}.{more}"
    apart = beside(metrics.validation(trace), metrics.validation_stall(trace))
    if trace.validation is not None and not len(trace.validation.epochs.first):
        apart = "Validation never comes: no epoch has so many batches (validation.every)."
    words = (first, apart, _alike(trace), last, regular(rhythm(trace)), _data(trace))
    return " ".join(filter(None, words))


def _alike(trace: Trace) -> str:
    """That workers and cores limit alike, and what more of both may bring; "" elsewhere."""
    from dlsim.whatif.bounds import alike

    scenario = trace.meta.scenario
    if scenario is None or trace.meta.problem is not None or trace.meta.engine == "observed":
        return ""
    return alike(scenario, summarize(trace).elapsed / len(trace.order))


def _data(trace: Trace) -> str:
    """What comes of the samples, where that is not as one expects."""
    scenario, found = trace.meta.scenario, work(trace)
    if scenario is None or found is None:
        return ""
    said = told(scenario, found)
    if found.share < 1:
        said += f" That is {number(summarize(trace).distinct_per_s)} {DISTINCT}."
    return said


def _slack(trace: Trace) -> str:
    """What to make of a run in which the step is the bottleneck."""
    if trace.validation is not None:  # for which workers are idle, or which is what is slow
        return ""
    idle = 1 - metrics.mean(metrics.worker_utilisation(trace))
    if metrics.worker_count(trace) > 1 and idle > 1 - BUSY:
        return f"Workers are idle {percent(idle)} of the time: fewer may do."
    return "Loading faster would gain next to nothing."


def ended_early(problem: Problem) -> str:
    """One line on the error that ended a run, or on who waits there for ever."""
    if problem.kind == "hang":
        return f"Hangs after {duration(problem.time)}: {problem.message}"
    batch = f", for batch {problem.batch}" if problem.batch >= 0 else ""
    return f"Ended after {duration(problem.time)} by an error{batch}: {problem.message}"


def faster(a: Trace, b: Trace) -> str:
    """One line on which of two runs was faster, by samples, or batches where none are known."""
    said = summarize(a), summarize(b)
    one, other = (each.distinct_per_s for each in said)
    what = unit(*filter(None, (work(a), work(b))))
    if math.isnan(one) or math.isnan(other):
        one, other = (each.batches_per_s for each in said)
        what = "batches/s"
    if math.isnan(one) or math.isnan(other):
        return "How fast both were is not known."
    if one == other:
        return f"A and B are as fast as each other: {number(one)} {what}."
    first, second = ("B", "A") if other > one else ("A", "B")
    return (
        f"{first} is faster than {second}: A makes {number(one)} {what}, B {number(other)}, "
        f"{_change(one, other)} (one run of each: chance has a part in it)."
    )


def side_by_side(name_a: str, trace_a: Trace, name_b: str, trace_b: Trace) -> str:
    """A table of what is known of either trace; the last column is `(b - a) / a` in percent."""
    a, b = summarize(trace_a), summarize(trace_b)
    shown_a, shown_b = a.shown(), b.shown()
    values_b = b.as_dict()
    rows = [
        (name, shown_a[name], shown_b[name], _change(value, values_b[name]))
        for name, value in a.as_dict().items()
        if not math.isnan(value) or not math.isnan(values_b[name])
    ]
    return aligned([("", name_a, name_b, "change"), *rows])


def _change(a: float, b: float) -> str:
    if a == b:
        return "="
    change = (b - a) / a if a else float("nan")
    return "-" if change != change else f"{100 * change:+z.1f} %"
