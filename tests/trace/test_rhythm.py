from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

import dlsim
from dlsim.report import run_text
from dlsim.trace import Trace, metrics
from dlsim.trace.rhythm import EPOCH, FETCH, ROUNDS, STEP, WINDOW, Rhythm, rhythm
from dlsim.trace.telling import ordinal, regular
from dlsim.whatif import explain


def scenario(
    read: Any = 1.0,
    step: Any = 0.01,
    length: int = 96,
    epochs: int = 1,
    latency: float = 0.0,
    **of: Any,
) -> dlsim.Scenario:
    """Batches of one sample; `of`: keyword arguments of the loader."""
    read, step = (
        dlsim.Constant(each) if isinstance(each, float) else each for each in (read, step)
    )
    return dlsim.Scenario(
        loader=dlsim.Loader(**{"batch_size": 1, "num_workers": 8, **of}),
        dataset=dlsim.MapDataset(length, fetch=[dlsim.Stage("read", wait=read)]),
        consumer=dlsim.Consumer(step=step),
        costs=dlsim.Costs(index_latency=latency),
        epochs=epochs,
    )


def every(period: int, slow: float, fast: float, length: int) -> dlsim.Recorded:
    """A record in which every so many values one is slow."""
    return dlsim.Recorded([fast if at % period else slow for at in range(length)])


CASES = {
    "Every 8th batch is waited for, usually 920 ms, the others 0 s: 8 workers (num_workers) fetch "
    "at the same time, so that batches come 8 at a time.": scenario(),
    "Every 2nd batch is waited for, usually 9 s, the others 0 s: these come from worker 0 and take "
    "10 s to fetch, the others 1 s.": scenario(every(2, 10.0, 1.0, 96), 0.5, num_workers=2),
    "Every 5th batch is waited for, usually 4 s, the others 0 s: these take 10 s to fetch, the "
    "others 1 s.": scenario(every(5, 10.0, 1.0, 200), 1.5, 200, num_workers=2),
    "Every 4th batch is waited for, usually 8 s, the others 1 s: no more than 4 (num_workers * "
    "prefetch_factor) are on their way at a time, and the worker of the next one is idle for 7 s."
    "": scenario(step=0.0, latency=10.0, num_workers=1, prefetch_factor=4),
    "Every 12th batch is waited for, usually 1 s, the others 0 s: it is the first of an epoch, for "
    "which nothing is sent before the epoch begins.": scenario(step=2.0, length=12, epochs=20),
    "Every 3rd batch is waited for, usually 1 s, the others 0 s: the loop takes 0 s before it asks "
    "for these, 2 s before the others.": scenario(
        step=every(3, 0.0, 2.0, 96), num_workers=1, prefetch_factor=1
    ),
    "": scenario(dlsim.Exponential(1.0), 0.1, 800),
}  # fmt: skip


@pytest.mark.parametrize("said", CASES)
def test_what_is_said_of_a_rhythm(said: str) -> None:
    """Period, usual waits and cause of each kind of rhythm are told; of none, nothing is."""
    assert regular(rhythm(dlsim.simulate(CASES[said]))) == said


def test_one_voice() -> None:
    """What run says of a rhythm, explain says too, in the same words."""
    given = scenario(every(5, 10.0, 1.0, 200), 1.5, 200, num_workers=2)
    trace = dlsim.simulate(given)
    said = regular(rhythm(trace))
    assert said in run_text(trace).splitlines()[0]
    assert said in str(explain(given, 2)).splitlines()[0]


def test_numbers_as_one_counts() -> None:
    """Ordinals are those of English."""
    counted = [ordinal(number) for number in (2, 3, 4, 11, 12, 13, 21, 22, 111)]
    assert counted == ["2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "111th"]


def drawn(rng: random.Random) -> dlsim.Scenario:
    """A scenario whose waits may have a rhythm, or none."""
    workers, length = rng.randint(0, 9), rng.choice([40, 120, 300])
    epochs = rng.choice([1, 1, 2, 12])
    period = rng.randint(2, 9)

    def times(most: float) -> Any:
        mean = rng.uniform(0.1, most)
        return rng.choice(
            [
                mean,
                dlsim.Gamma(mean, rng.choice([0.01, 0.05, 0.5])),
                dlsim.Exponential(mean),
                every(period, rng.choice([0.0, 5 * mean]), mean, length * epochs),
            ]
        )

    more = {"prefetch_factor": rng.randint(1, 4), "in_order": rng.random() < 0.7} if workers else {}
    return scenario(
        times(2.0),
        times(0.5),
        length,
        epochs,
        rng.choice([0.0, 0.0, 3.0]),
        num_workers=workers,
        **more,
    )


def holds(trace: Trace, found: Rhythm) -> None:
    """All that is said of a rhythm is so, counted batch by batch."""
    of_epoch: Counter[int] = Counter()
    place = []
    for batch in trace.order:
        epoch = int(trace.epoch_of(np.array([batch]))[0])
        place.append(of_epoch[epoch] % found.period)
        of_epoch[epoch] += 1
    waits = metrics.waits(trace)
    fits = []
    for at in range(found.period):
        mine = np.array([each == at for each in place])
        if np.median(waits[mine]) == found.wait and np.median(waits[~mine]) == found.others:
            fits.append(mine)
    assert fits
    mine = fits[0]
    assert found.wait > 4 * found.others
    middle = (found.wait + found.others) / 2
    assert mine.sum() >= 8
    assert (waits[mine] > middle).mean() >= 0.9
    assert (waits[~mine] <= middle).mean() >= 0.9
    order = trace.order
    if found.cause == EPOCH:
        assert set(of_epoch.values()) == {found.period}
        assert mine[0]
    if found.cause == FETCH:
        took = (trace.fetched - trace.started)[order]
        assert found.lengths == (np.median(took[mine]), np.median(took[~mine]))
        assert found.lengths[0] > found.lengths[1]
        if found.worker >= 0:
            assert set(trace.worker[order][mine]) == {found.worker}
            assert found.worker not in trace.worker[order][~mine]
    if found.cause == STEP:
        assert found.lengths[0] < found.lengths[1]
    if found.cause == WINDOW:
        assert found.period == trace.meta.scenario.loader.window
        assert found.lengths[0] >= found.wait / 2
    if found.cause == ROUNDS:
        assert found.period == trace.meta.scenario.loader.num_workers
        first = np.flatnonzero(mine)
        rounds = [order[at : at + found.period] for at in first if at + found.period <= len(order)]
        whole = [len(set(trace.worker[each])) == found.period for each in rounds]
        begun = [(trace.started[each] < trace.returned[each[0]]).all() for each in rounds]
        assert np.mean(np.logical_and(whole, begun)) >= 0.9


def test_nothing_false_is_said() -> None:
    """On 200 random scenarios, all that is said of periods, waits and causes is so."""
    rng = random.Random(14)
    causes: Counter[str] = Counter()
    for _ in range(200):
        trace = dlsim.simulate(drawn(rng))
        found = rhythm(trace)
        causes[found.cause if found else "none"] += 1
        if found is not None:
            holds(trace, found)
    assert causes.keys() >= {FETCH, ROUNDS, "none"}
    assert causes["none"] >= 50
