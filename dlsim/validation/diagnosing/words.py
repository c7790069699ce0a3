"""A diagnosis in words: what limits, what to do, why and how sure, and what to paste."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsim.scenario import IterableDataset
from dlsim.scenario.units import duration
from dlsim.trace import new_memory, own_loop
from dlsim.trace.causes import DRAINING, FIRST_BATCH, JOINING, START, grouped
from dlsim.trace.libraries import cores_busy, worth_limiting
from dlsim.trace.metrics import samples_per_second
from dlsim.trace.rhythm import rhythm
from dlsim.trace.summary import number, percent
from dlsim.trace.telling import regular, sentence
from dlsim.validation.calibrating.checks import CLOSE
from dlsim.validation.diagnosing.present import facts, keywords, settings_of
from dlsim.validation.diagnosing.starts import without_data
from dlsim.whatif import Interval
from dlsim.whatif.limits import means

if TYPE_CHECKING:
    from dlsim.validation.diagnosing.answer import Diagnosis

NOISE = 0.2  # cores that others use and that matter
NAMED = 0.05  # seconds of a start
ONE_THREAD = """\
def one_thread(worker):  # pip install threadpoolctl; OpenCV has cv2.setNumThreads(0)
    from threadpoolctl import threadpool_limits
    threadpool_limits(1)  # or OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 in the environment

"""


def told(found: Diagnosis) -> str:
    """What limits and what to do, a line each; then why and how sure; last, what to paste."""
    paste = f"DataLoader(..., {keywords(found.advised)})"
    if found.crowded is not None:
        paste = f"{ONE_THREAD}\n{paste[:-1]}, worker_init_fn=one_thread)"
    return "\n".join([*_threads(found), *_answer(found), "", *_reasons(found), "", paste])


def _threads(found: Diagnosis) -> list[str]:
    """That libraries have threads of their own in each worker, and what one thread gains."""
    before = found.crowded
    seen = found.seen if before is None else before
    if not worth_limiting(seen) or not found.scenario.loader.num_workers:
        return []
    busy = cores_busy(seen)
    said = f"Each sample keeps {busy:.2g} cores busy, by threads of libraries in each worker"
    if found.alone is not None:
        return [f"{said}: they share out work; with one thread each it was no faster (tried)."]
    if before is None:
        return [f"{said}: limit them in worker_init_fn, and diagnose the loader again."]
    times = samples_per_second(found.seen) / samples_per_second(before)
    return [
        f"{said}: limit threads in worker_init_fn: {times:.2g} times as fast (tried). "
        "All below is said of workers with one thread:"
    ]


def _answer(found: Diagnosis) -> list[str]:
    explained = found.explanation
    first = f"{sentence(means(explained.idle), explained.stall)}. {regular(rhythm(found.seen))}"
    return [first.rstrip(), _action(found)]


def _action(found: Diagnosis) -> str:
    if found.refuted and found.tried is not None:
        failed = found.tried.meta.problem is not None
        came = "failed" if failed else f"came to {100 * found.tried_gain:+z.0f} %"
        return f"Keep your settings: {keywords(found.settings)} was tried, and {came}."
    fits = "it fits in memory" if found.room.fits else "but it does not fit"
    if found.persists:
        return f"Set {keywords(found.advised)}: {_later(found)}; {fits}."
    if found.helps:
        said = (
            f"Set {keywords(found.settings)}: {1 + found.gain.mean:.2g} times as fast "
            f"({_range(found.gain)})"
        )
    elif found.spares:
        said = (
            f"Set {keywords(found.settings)}: as fast as now, with fewer workers or less prefetched"
        )
    else:
        little = f"{keywords(found.settings)} would ({_range(found.gain)})"
        unsure = "" if found.settings == settings_of(found.scenario) else f", as {little}"
        limited = found.advice.tried
        others = f"others, with up to {limited} workers," if limited else "others"
        return f"Keep your settings: {others} gain nothing, or nothing that is sure{unsure}."
    return f"{said}; {fits}."


def _later(found: Diagnosis) -> str:
    return f"{1 + found.lasting:.2g} times as fast from the second epoch on"


def _range(gain: Interval) -> str:
    return f"{100 * gain.low:+z.0f} to {100 * gain.high:+z.0f} %"


def _reasons(found: Diagnosis) -> list[str]:
    seen = found.seen
    rows = [
        ("watched", f"{len(seen.order)} batches in {duration(seen.end)} with {_now(found)}"),
        ("speed", f"{number(samples_per_second(seen))} samples/s; {_simulated(found)}"),
        ("noise", _noise(found)),
        ("loop", own_loop.told(seen)),
        ("pages", new_memory.told(seen)),
        ("target", "" if found.refuted else _target(found)),
        ("tried", _tried(found)),
        ("memory", "" if found.refuted else _memory(found)),
        ("besides", _besides(found)),
        ("workers", _starting(found)),
        ("idle", _idle(found)),
        ("data", _sharing(found)),
    ]
    return [f"{name:<9} {text}" for name, text in rows if text]


def _memory(found: Diagnosis) -> str:
    return f"{'fits' if found.room.fits else 'does not fit'}: {found.room}"


def _now(found: Diagnosis) -> str:
    loader, sizes = found.scenario.loader, found.seen.size[found.seen.order]
    if loader.batch_sampler is not None:
        batch = f"batches of {number(float(sizes.mean()))} samples from its batch_sampler"
    elif loader.batch_size is None:
        batch = "batch_size=None: each item of the dataset is one sample here, whatever is in it"
    else:
        batch = f"batch_size={loader.batch_size}"
    return f"{keywords(settings_of(found.scenario))}, {batch}"


def _simulated(found: Diagnosis) -> str:
    said = f"simulated {number(found.simulated)} ({100 * found.off:+z.1f} %)"
    if abs(found.off) > CLOSE:
        return f"{said}: something is not understood, and gains are less sure by that"
    return said


def _noise(found: Diagnosis) -> str:
    """How much others used of the machine, if that matters."""
    known = facts(found.seen)
    others = known.get("foreign", 0.0) + known.get("stolen", 0.0)
    if others < NOISE:
        return ""
    return (
        f"others used {number(others)} of {number(known['cores'])} cores meanwhile: "
        "do this again when the machine is quiet"
    )


def _target(found: Diagnosis) -> str:
    if found.max_stall is None:
        step = 1 / found.explanation.runs.interval("batches_per_s").mean
        return (
            "no training step was given, so that all time is waiting; "
            f"a step of {duration(step)} a batch or more would not wait long (see --step)"
        )
    if found.advice.chosen is not None:
        return f"held: {found.advice.results}"
    said = f"not reached: {found.advice.results}; the settings are the cheapest of the fastest"
    return f"{said}. {found.advice.untried}" if found.advice.untried else said


def _tried(found: Diagnosis) -> str:
    if found.tried is None:
        return ""
    if found.tried.meta.problem is not None:
        return f"the settings, and failed: {found.tried.meta.problem.message}"
    if not len(found.tried.order):
        return (
            "in vain: no batch came when the loader was run again, with any settings; its sampler, "
            "or its dataset, gives what it has only once"
        )
    promised = found.gain_as_watched
    word = "as" if found.tried_gain in promised else "other than"
    said = (
        f"{len(found.tried.order)} batches with the settings: "
        f"{number(samples_per_second(found.tried))} samples/s, {100 * found.tried_gain:+z.0f} %"
    )
    if not found.comparable:
        times = max(found.slowed, 1 / found.slowed)
        pace = f"{times:.2g} times as {'slow' if found.slowed > 1 else 'fast'}"
        return f"{said}; but the machine was {pace}: try again"
    return f"{said}, {word} promised ({_range(promised)})"


def _besides(found: Diagnosis) -> str:
    """What gains most of that which no keyword argument does; and more workers than were tried."""
    sure = [gain for gain in found.explanation.gains if gain.sure]
    most = max(found.advice.workers)
    code = [gain for gain in sure if not gain.change.loader]
    loaders = [gain for gain in sure if gain.change.loader]
    more = [gain for gain in loaders if gain.change.scenario.loader.num_workers > most]
    parts = []
    if code:
        parts.append(f"{code[0].change.name} would gain {100 * code[0].gain.mean:.0f} % as it is")
    if more:
        parts.append(f"{more[0].change.setting} {100 * more[0].gain.mean:.0f} %")
    if found.max_stall is not None:
        parts.append(f"a perfect loader {100 * found.explanation.headspace.gain.mean:.0f} %")
    return ", ".join(parts)


def _starting(found: Diagnosis) -> str:
    """What starting workers takes, and whether doing so for each epoch matters."""
    idle, costs = grouped(means(found.explanation.idle)), found.scenario.costs
    share = sum(idle.get(cause, 0.0) for cause in (START, FIRST_BATCH, DRAINING, JOINING))
    loader = found.scenario.loader
    if not loader.num_workers or share < 0.05:
        return ""
    said = f"{percent(share)} of the epoch goes into its beginning and end"
    if costs.worker_wait >= NAMED:
        said += f"; each worker is blocked {duration(costs.worker_wait)} before it takes work"
        said += " (worker_init_fn)"
    later = costs.first_sample + costs.first_cpu
    if later >= NAMED:
        said += f"; the first sample of each takes {duration(later)} longer than others"
    if costs.worker_ready >= NAMED:
        said += f"; each computes {duration(costs.worker_ready)} before its first batch"
    if loader.persistent_workers:
        return f"{said}; once, as they persist"
    return f"{said}; persistent_workers=True spares much of that" if found.persists else said


def _idle(found: Diagnosis) -> str:
    """Which workers got no data."""
    idle, workers = without_data(found.seen), settings_of(found.scenario)["num_workers"]
    if not idle:
        return ""
    why = (
        "its shards, or samples, are too few for them"
        if isinstance(found.scenario.dataset, IterableDataset)
        else "there are fewer batches than workers"
    )
    return f"{len(idle)} of {workers} workers got no data: {why}"


def _sharing(found: Diagnosis) -> str:
    dataset = found.scenario.dataset
    if not isinstance(dataset, IterableDataset) or dataset.divisible:
        return ""
    return (
        "iterable-style: only its code knows whether more workers share the samples or repeat "
        "them; if they share them, say --split, and other numbers of workers are considered"
    )
