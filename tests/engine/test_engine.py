"""The schedule, by hand on small scenarios, by theory on large ones, and by torch's rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlsim
from dlsim.engine import simulate
from dlsim.trace import MOMENTS, STATUSES, Trace, credit

NAN = float("nan")


def scenario(
    batches: int,
    service: Any = 1.0,
    step: Any = 0.0,
    *,
    latency: float = 0.0,
    **changes: Any,
) -> dlsim.Scenario:
    """So many batches of one sample; `service` and `step`: seconds, or a distribution of them."""
    loader = {
        key: changes.pop(key) for key in list(changes) if key in dlsim.Loader.__struct_fields__
    }
    dataset = changes.pop("dataset", None) or dlsim.MapDataset(
        batches, fetch=[dlsim.Stage("read", wait=distribution(service))]
    )
    return dlsim.Scenario(
        loader=dlsim.Loader(**loader),
        dataset=dataset,
        consumer=dlsim.Consumer(
            step=distribution(step), stop_after=changes.pop("stop_after", None)
        ),
        costs=dlsim.Costs(index_latency=latency, **changes.pop("costs", {})),
        **changes,
    )


def distribution(value: Any) -> Any:
    """A constant for a number, a record for a list, and a distribution as it is."""
    if isinstance(value, (int, float)):
        return dlsim.Constant(float(value))
    return dlsim.Recorded(value) if isinstance(value, list) else value


def moments(trace: Trace) -> dict[str, list[float]]:
    """All moments of a trace as lists."""
    return {name: getattr(trace, name).tolist() for name in MOMENTS}


def statuses(trace: Trace) -> list[str]:
    """What became of each batch."""
    return [STATUSES[status] for status in trace.status]


def test_no_workers() -> None:
    """Without workers, fetching and training take turns in the main process."""
    trace = simulate(scenario(2, service=1, step=0.5))
    assert moments(trace) == {
        "sent": [0.0, 1.5],
        "started": [0.0, 1.5],
        "fetched": [1.0, 2.5],
        "arrived": [1.0, 2.5],
        "received": [1.0, 2.5],
        "requested": [0.0, 1.5],
        "returned": [1.0, 2.5],
        "finished": [1.5, 3.0],
    }
    assert trace.worker.tolist() == [-1, -1]
    assert trace.end == 3.0


def test_one_worker() -> None:
    """One worker fetches during the step; each batch returned sends for one more."""
    trace = simulate(scenario(4, service=1, step=3, num_workers=1))
    assert moments(trace) == {
        "sent": [0.0, 0.0, 1.0, 4.0],
        "started": [0.0, 1.0, 2.0, 4.0],
        "fetched": [1.0, 2.0, 3.0, 5.0],
        "arrived": [1.0, 2.0, 3.0, 5.0],
        "received": [1.0, 4.0, 7.0, 10.0],
        "requested": [0.0, 4.0, 7.0, 10.0],
        "returned": [1.0, 4.0, 7.0, 10.0],
        "finished": [4.0, 7.0, 10.0, 13.0],
    }


def test_reordering() -> None:
    """A batch that is early waits in the main process for the slow one before it."""
    trace = simulate(scenario(4, service=[5, 1, 1, 1], num_workers=2))
    assert trace.order.tolist() == [0, 1, 2, 3]
    assert trace.fetched.tolist() == [5.0, 1.0, 6.0, 2.0]
    assert trace.received.tolist() == [5.0, 1.0, 6.0, 2.0]
    assert trace.returned.tolist() == [5.0, 5.0, 6.0, 6.0]


def test_head_of_line_blocking() -> None:
    """One slow batch uses up the credit: the other worker idles until it is returned."""
    trace = simulate(scenario(8, service=[9, 1, 1, 1, 1, 1, 1, 1], num_workers=2))
    # until 9 worker 1 has only batches 1 and 3; all that came early is then returned at once
    assert trace.sent.tolist() == [0, 0, 0, 0, 9, 9, 10, 10]
    assert trace.started[trace.worker == 1].tolist() == [0, 1, 9, 10]


def test_out_of_order() -> None:
    """With in_order=False, batches are returned as they arrive."""
    trace = simulate(scenario(4, service=[5, 1, 1, 1], num_workers=2, in_order=False))
    assert trace.order.tolist() == [1, 3, 0, 2]
    assert trace.returned[trace.order].tolist() == [1, 2, 5, 6]


def test_ties() -> None:
    """Of batches that arrive at one moment, those of lower-numbered workers are read first."""
    trace = simulate(scenario(6, service=1, num_workers=3, in_order=False))
    assert trace.order.tolist() == [0, 1, 2, 3, 4, 5]
    assert trace.returned.tolist() == [1, 1, 1, 2, 2, 2]


def test_workers_start_one_after_another() -> None:
    """Starting workers is serial, and nothing is sent before all have started."""
    trace = simulate(scenario(2, num_workers=2, costs={"worker_start": 0.25}))
    assert trace.sent.tolist() == [0.5, 0.5]
    assert trace.epochs.primed.tolist() == [0.5]
    assert trace.returned.tolist() == [1.5, 1.5]


def test_workers_start_several_at_a_time() -> None:
    """So many are started in the time of one; still nothing is sent before all have started."""
    costs = {"worker_start": 0.25}
    trace = simulate(scenario(4, num_workers=4, start_together=3, costs=costs))
    assert trace.epochs.primed.tolist() == [0.5]
    assert trace.returned[:4].tolist() == [1.5] * 4
    with pytest.raises(dlsim.ScenarioError, match="start_together: needs num_workers above 0"):
        dlsim.Loader(start_together=2)


def test_index_latency() -> None:
    """Indices take their time to the worker; an idle worker waits for them."""
    trace = simulate(scenario(3, num_workers=1, prefetch_factor=1, latency=0.5))
    assert trace.sent.tolist() == [0.0, 1.5, 3.0]
    assert trace.started.tolist() == [0.5, 2.0, 3.5]


def test_iterables_end() -> None:
    """A worker whose iterator ends leaves the cycle; what was sent to it besides is skipped."""
    stream = dlsim.IterableDataset(
        4, sharding=[1, 3], fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))]
    )
    trace = simulate(scenario(0, dataset=stream, num_workers=2))
    assert trace.worker.tolist() == [0, 1, 0, 1, 0, 1, 1, 1, 1]
    assert statuses(trace) == [
        *["returned", "returned", "ended", "returned"],
        *["skipped", "returned", "ended", "skipped", "skipped"],
    ]
    assert trace.size.sum() == 4


def test_partial_batches_for_each_worker() -> None:
    """Each worker of a stream ends with a partial batch of its own, unless those are dropped."""
    stream = dlsim.IterableDataset(10, sharding=[5, 5])
    kept = simulate(scenario(0, dataset=stream, num_workers=2, batch_size=2))
    assert kept.size[kept.order].tolist() == [2, 2, 2, 2, 1, 1]
    dropped = simulate(scenario(0, dataset=stream, num_workers=2, batch_size=2, drop_last=True))
    assert dropped.size[dropped.order].tolist() == [2, 2, 2, 2]


def test_persistent_workers() -> None:
    """Persistent workers are started once; each epoch begins with worker 0 and a new window."""
    settings = {"num_workers": 2, "epochs": 2, "costs": {"worker_start": 1.0}}
    fresh = simulate(scenario(3, **settings))
    kept = simulate(scenario(3, persistent_workers=True, **settings))
    assert fresh.worker.tolist() == kept.worker.tolist() == [0, 1, 0] * 2
    assert (np.diff(fresh.epochs.started), np.diff(kept.epochs.started)) == (4.0, 4.0)
    assert (fresh.end, kept.end) == (8.0, 6.0)


def test_loop_left_early() -> None:
    """A loop that is left has no further batches; those on their way stay pending."""
    trace = simulate(scenario(9, num_workers=2, stop_after=2))
    assert len(trace.order) == 2
    assert statuses(trace) == ["returned"] * 2 + ["pending"] * 4


@pytest.mark.parametrize("where", ["fetch", "collate"])
def test_exception_in_a_worker(where: Any) -> None:
    """An exception is raised by the next() that would return the batch, after its refill."""
    failing = scenario(8, num_workers=2, step=5, failures=[dlsim.Failure(where, 2)])
    trace = simulate(failing)
    problem = trace.meta.problem
    assert problem is not None
    assert (problem.kind, problem.batch, problem.time) == (where, 2, 11.0)
    assert trace.order.tolist() == [0, 1]
    assert len(trace) == 4 + 3
    assert statuses(trace)[2] == "failed"


def test_exception_in_worker_init_fn() -> None:
    """What worker_init_fn raises comes with that worker's first batch."""
    trace = simulate(scenario(8, num_workers=2, failures=[dlsim.Failure("worker_init_fn", 1)]))
    problem = trace.meta.problem
    assert problem is not None
    assert (problem.kind, problem.batch) == ("worker_init_fn", 1)


def test_timeout() -> None:
    """When nothing arrives within the timeout, next() raises, and the trace up to then is kept."""
    trace = simulate(scenario(8, service=[1, 1, 9, 1] * 2, num_workers=1, timeout=3.0))
    problem = trace.meta.problem
    assert problem is not None
    assert (problem.kind, problem.time) == ("timeout", 5.0)
    assert trace.order.tolist() == [0, 1]


def test_empty_dataset() -> None:
    """An empty dataset gives an epoch without batches."""
    for workers in (0, 3):
        trace = simulate(scenario(0, num_workers=workers))
        assert len(trace) == 0
        assert trace.end == 0.0


def test_more_workers_than_batches() -> None:
    """Workers that get nothing to do are none of anyone's business."""
    trace = simulate(scenario(2, num_workers=1000))
    assert trace.worker.tolist() == [0, 1]
    assert trace.end == 1.0


# Rules of other releases: torch 2.13's own are held against its code in test_torch.py.

# Four workers, of which worker 0 takes 10 s a batch and the others 1 s; 400 batches, no step.
# The released dataloader.py of each version gives 0.400 batches/s in order in all, without order
# 0.400 in 2.6, and 2.857 from 2.7 on. Each worker's share of the batches is the one that the
# version's rule gives it.
ONE_SLOW = [
    ("2.5", True, (100, 100, 100, 100), 0.4),
    ("2.6", True, (100, 100, 100, 100), 0.4),
    ("2.7", True, (100, 100, 100, 100), 0.4),
    ("2.13", True, (100, 100, 100, 100), 0.4),
    ("2.6", False, (100, 100, 100, 100), 0.4),
    ("2.7", False, (14, 129, 129, 128), 400 / 140),
    ("2.13", False, (14, 129, 129, 128), 400 / 140),
]


@pytest.mark.parametrize(("release", "in_order", "shares", "rate"), ONE_SLOW)
def test_one_slow_worker(
    release: str, in_order: bool, shares: tuple[int, ...], rate: float
) -> None:
    """The release decides by a factor of seven what one slow worker costs without order."""
    seconds = [10.0] * shares[0] + [1.0] * sum(shares[1:])
    stream = dlsim.IterableDataset(
        400, sharding=shares, fetch=[dlsim.Stage("read", wait=dlsim.Recorded(seconds))]
    )
    trace = simulate(scenario(0, dataset=stream, num_workers=4, in_order=in_order, torch=release))
    assert len(trace.order) / trace.end == pytest.approx(rate, rel=1e-12)
    assert np.bincount(trace.worker[trace.order]).tolist() == list(shares)


def one_slow_stream(release: str, in_order: bool) -> Trace:
    """100 batches of four endless streams, of which worker 0's is ten times slower."""
    seconds = [10.0] * 100 + [1.0] * 300
    stream = dlsim.IterableDataset(
        400, sharding="split", fetch=[dlsim.Stage("read", wait=dlsim.Recorded(seconds))]
    )
    return simulate(
        scenario(0, dataset=stream, num_workers=4, in_order=in_order, torch=release, stop_after=100)
    )


def test_round_robin_without_order() -> None:
    """In 2.6 the next worker in turn gets the next batch, and a slow one collects the credit."""
    trace = one_slow_stream("2.6", in_order=False)
    assert trace.worker[:8].tolist() == [0, 1, 2, 3] * 2
    assert (np.diff(trace.worker) % 4 == 1).all()
    assert held(trace, worker=0) == 8


def test_workers_with_room_without_order() -> None:
    """From 2.7 on, a worker that holds window // workers batches is passed over."""
    trace = one_slow_stream("2.7", in_order=False)
    assert all(held(trace, worker) == 2 for worker in range(4))
    assert np.bincount(trace.worker[trace.order]).tolist()[0] < 10


@pytest.mark.parametrize("release", ["2.0", "2.5", "2.6", "2.7", "2.13"])
def test_in_order_is_the_same_in_all_releases(release: str) -> None:
    """In order, every release sends to the workers in turn."""
    trace = one_slow_stream(release, in_order=True)
    assert trace.worker.tolist() == [k % 4 for k in range(len(trace))]
    assert trace.order.tolist() == list(range(100))


def held(trace: Trace, worker: int) -> int:
    """The most batches that a worker holds at a time: sent to it, and not returned."""
    mine = trace.worker == worker
    back = np.nan_to_num(trace.returned[mine], nan=np.inf)
    return max(
        int(((trace.sent[mine] <= now) & (back > now)).sum()) for now in trace.sent[mine].tolist()
    )


# Theory.

seconds = st.integers(0, 64).map(lambda n: n / 16)


@settings(max_examples=200)
@given(
    step=seconds,
    service=seconds,
    latency=seconds,
    workers=st.integers(1, 6),
    prefetch=st.integers(1, 4),
)
def test_period(step: float, service: float, latency: float, workers: int, prefetch: int) -> None:
    """With constant costs, batches come every max(T, S / W, (S + l) / K) seconds in the long run.

    T: step; S: service of a batch; l: latency of indices; W: workers; K: window. The latency is
    that of a message, which costs the main process nothing.
    """
    window = workers * prefetch
    trace = simulate(
        scenario(
            60 * window,
            service=service,
            step=step,
            latency=latency,
            num_workers=workers,
            prefetch_factor=prefetch,
        )
    )
    # over a whole number of windows, once it has settled
    late, early = 55 * window, 30 * window
    period = (trace.returned[late] - trace.returned[early]) / (late - early)
    assert period == pytest.approx(
        max(step, service / workers, (service + latency) / window), rel=1e-9, abs=1e-12
    )


random_times = st.sampled_from(
    [dlsim.Exponential(1.0), dlsim.Gamma(1.0, 0.5), dlsim.Lognormal(1.0, 2.0), dlsim.Uniform(0, 2)]
)


@given(
    service=random_times,
    step=random_times,
    workers=st.integers(1, 5),
    prefetch=st.integers(1, 4),
    more=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_larger_windows_never_delay(
    service: Any, step: Any, workers: int, prefetch: int, more: int, seed: int
) -> None:
    """With free sending, a larger window never delays a batch, whatever the times are."""
    small, large = (
        simulate(
            scenario(60, service=service, step=step, num_workers=workers, prefetch_factor=factor),
            seed,
        )
        for factor in (prefetch, prefetch + more)
    )
    assert (large.returned <= small.returned).all()


@settings(max_examples=50)
@given(
    service=random_times,
    step=random_times,
    workers=st.integers(1, 5),
    in_order=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_littles_law(service: Any, step: Any, workers: int, in_order: bool, seed: int) -> None:
    """The mean credit in use is the rate of batches times the mean time a batch is under way."""
    trace = simulate(
        scenario(80, service=service, step=step, num_workers=workers, in_order=in_order), seed
    )
    assert trace.end > 0
    under_way = (trace.returned - trace.sent).mean()
    assert credit(trace).mean == pytest.approx(len(trace) / trace.end * under_way)


@settings(max_examples=50)
@given(random_times, random_times, st.integers(1, 4), st.integers(0, 1000))
def test_conservation(service: Any, step: Any, workers: int, seed: int) -> None:
    """Every batch is returned once, its moments follow each other, and none is fetched twice."""
    trace = simulate(scenario(50, service=service, step=step, num_workers=workers), seed)
    assert sorted(trace.order.tolist()) == list(range(50))
    for earlier, later in (
        ("sent", "started"),
        ("started", "fetched"),
        ("fetched", "arrived"),
        ("arrived", "received"),
        ("received", "returned"),
        ("requested", "returned"),
        ("returned", "finished"),
    ):
        assert (getattr(trace, earlier) <= getattr(trace, later)).all(), (earlier, later)
    for worker in range(workers):
        mine = trace.worker == worker
        assert (trace.fetched[mine][:-1] <= trace.started[mine][1:]).all()


def test_seeds() -> None:
    """A seed decides everything; another one gives other numbers."""
    random = scenario(20, service=dlsim.Exponential(1.0), num_workers=2)
    one, same, other = (simulate(random, seed) for seed in (1, 1, 2))
    assert moments(one) == moments(same)
    assert one.returned.tolist() != other.returned.tolist()


def test_common_random_numbers() -> None:
    """Two scenarios share their random numbers: the same batch takes as long in both."""
    times = dlsim.Exponential(1.0)
    one, other = (
        simulate(scenario(20, service=times, step=step, num_workers=workers), 5)
        for step, workers in ((0.0, 1), (2.0, 4))
    )
    assert (one.fetched - one.started).tolist() == pytest.approx(
        (other.fetched - other.started).tolist()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
        ({"seed": 1.5}, "seed: expected an integer of at least 0, got 1.5"),
        ({"engine": "steam"}, "engine: expected "),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    """A bad seed or engine is refused in one line."""
    with pytest.raises(dlsim.ScenarioError, match=message):
        simulate(scenario(1), **arguments)


def test_records_too_short() -> None:
    """A record of steps that turns out too short is refused, naming its key."""
    with pytest.raises(dlsim.ScenarioError, match=r"consumer\.step: expected a record of at least"):
        simulate(scenario(3, step=[1, 1]))


def test_progress() -> None:
    """The callback is told of every batch that is finished."""
    told: list[int] = []
    simulate(scenario(20, num_workers=2), progress=told.append)
    assert sum(told) == 20


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
@pytest.mark.parametrize("kind", ["map-style", "iterable-style"])
def test_a_step_grows_with_the_batch(engine: Any, kind: str) -> None:
    """A step takes `step` and `step_per_sample` for each sample that there is: the last has one."""
    fetch = [dlsim.Stage("read", wait=distribution(0.0))]
    data = dlsim.MapDataset(7, fetch=fetch)
    if kind == "iterable-style":
        data = dlsim.IterableDataset(7, sharding="split", fetch=fetch)
    case = dlsim.replace(
        scenario(0, dataset=data, batch_size=3, num_workers=1, step=0.5),
        {"consumer.step_per_sample": 0.25},
    )
    trace = simulate(case, engine=engine)
    assert (trace.finished - trace.returned)[trace.order].tolist() == [1.25, 1.25, 0.75]
