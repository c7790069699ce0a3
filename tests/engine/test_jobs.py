"""Jobs: many ranks, what they share, and where they meet; against what is known in closed form."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlsim
from dlsim.engine.compiled import installed
from dlsim.engine.facts import lingers, only_processes, uncovered
from dlsim.engine.job import simulate_job
from dlsim.engine.simulation import Engine
from dlsim.scenario import Job, Scenario, ScenarioError
from dlsim.scenario.dealing import (
    batch_ends,
    dealt_in_batches,
    dealt_in_turn,
    ends,
    extent,
    places,
)
from dlsim.testing import assert_fits
from dlsim.trace import metrics
from dlsim.trace.difference import difference, job_difference
from dlsim.trace.job import meetings
from tests.strategies import ideal, jobs, on_machines

SECOND = dlsim.Constant(1.0)
compiled = pytest.param(
    "compiled", marks=pytest.mark.skipif(not installed(), reason="it needs llvmlite")
)
engines = pytest.mark.parametrize("engine", ["simpy", compiled])


def job(
    *, batches: int = 50, step: dlsim.scenario.Distribution = SECOND, **keys: object
) -> Scenario:
    """So many batches of two samples for each rank; samples are there at once."""
    ranks = int(keys.get("ranks", 1)) * int(keys.get("nodes", 1))
    return Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=2),
        dataset=dlsim.MapDataset(2 * batches * ranks),
        consumer=dlsim.Consumer(step=step),
        job=Job(**keys),
    )


def reading(nodes: int, ranks: int, **storage: object) -> Scenario:
    """Every rank has two workers that read 100 bytes a sample from storage, and nothing else."""
    return dlsim.replace(
        job(ranks=ranks, nodes=nodes, sync="never", step=dlsim.Constant(0.0)),
        {
            "dataset.fetch": [{"name": "read", "read_bytes": 100.0}],
            "job.storage": storage,
        },
    )


@settings(max_examples=60)
@given(ideal | on_machines(), st.integers(0, 2**32))
def test_a_job_of_one_rank_is_that_rank(scenario: Scenario, seed: int) -> None:
    """With nobody to wait for, a barrier after every step changes nothing, to the last bit."""
    alone = dlsim.simulate(scenario, seed, engine="simpy", samples=True)
    (rank,) = simulate_job(scenario, seed, engine="simpy", samples=True).ranks
    if alone.meta.problem is None:
        assert difference(alone, rank, rtol=0.0) is None


def test_a_step_without_time_is_over_at_once() -> None:
    """Also where others are met after it: who comes last goes on before anybody else acts."""
    scenario = Scenario(
        loader=dlsim.Loader(
            batch_size=4,
            drop_last=True,
            num_workers=2,
            workers="threads",
            pin_memory=True,
            persistent_workers=True,
        ),
        dataset=dlsim.IterableDataset(39, "litdata"),
        machine=dlsim.Machine(cores=2.0),
        torch="2.0",
    )
    (rank,) = simulate_job(scenario, engine="simpy").ranks
    assert difference(dlsim.simulate(scenario, engine="simpy"), rank, rtol=0.0) is None


@settings(max_examples=500)
@given(jobs(ideal | on_machines()), st.integers(0, 2**32), st.booleans())
def test_compiled_jobs_equal_simpy(scenario: Scenario, seed: int, samples: bool) -> None:
    """Every moment of every rank is the same in the compiled engine, where that covers the job.

    Ranks share the cores of a node, its disk and page cache, and meet after steps, at epochs' ends,
    or never.
    """
    pytest.importorskip("llvmlite", reason="the compiled engine needs it")
    if not uncovered(scenario):
        slow = simulate_job(scenario, seed, engine="simpy", samples=samples)
        fast = simulate_job(scenario, seed, engine="compiled", samples=samples)
        assert job_difference(slow, fast) is None


@pytest.mark.parametrize(
    ("length", "drop_last", "returned"),
    [
        (12, False, [[4, 8, 12], [4, 8, 12]]),
        (10, False, [[4, 8, 10], [4, 8, 10]]),
        (10, True, [[4, 8], [4, 8]]),
    ],
)
def test_ranks_that_read_all_and_keep_their_own(length, drop_last, returned):
    """Each waits for the samples of all, of which it keeps a batch; the last one is filled up."""
    scenario = Scenario(
        loader=dlsim.Loader(batch_size=2, drop_last=drop_last),
        dataset=dlsim.IterableDataset(length, fetch=[dlsim.Stage("read", wait=SECOND)]),
        job=Job(ranks=2, deal="kept"),
    )
    found = simulate_job(scenario)
    assert [one.returned[one.order].tolist() for one in found.ranks] == returned
    for one in found.ranks:
        assert one.size[one.order].tolist() == [2] * len(returned[0])
        assert one.meta.engine == "simpy"
        assert not dlsim.summarize(one).lost
    alone = dlsim.replace(scenario, {"job.ranks": 1})
    assert simulate_job(alone).ranks[0].order.tolist() == [*range(-(-length // 2))]
    with pytest.raises(ScenarioError, match="deal: kept needs an iterable-style dataset and"):
        dlsim.replace(scenario, {"loader.batch_size": None, "loader.drop_last": False})


def of_all_nodes(scenario: Scenario) -> Scenario:
    """The job, whose nodes read from a storage of all of them as they did from their own."""
    own = scenario.machine.storage
    wide = "bandwidth" if scenario.job.nodes == 1 else "node_bandwidth"
    changes = {"latency": own.latency, wide: own.bandwidth}
    return dlsim.replace(
        scenario,
        {
            "machine.storage": dlsim.Storage(cache=own.cache),
            "job.storage": dlsim.scenario.RemoteStorage(**changes),
        },
    )


@settings(max_examples=50)
@given(jobs(on_machines(), remote=False), st.integers(0, 2**32))
def test_a_storage_of_all_nodes_may_be_like_each_ones_own(scenario: Scenario, seed: int) -> None:
    """Where only a node's share of the network limits it; and so the compiled engine has it."""
    pytest.importorskip("llvmlite", reason="the compiled engine needs it")
    own = dlsim.replace(scenario, {"machine.storage.requests_per_second": None})
    remote = of_all_nodes(own)
    slow = simulate_job(remote, seed, engine="simpy")
    assert job_difference(slow, simulate_job(own, seed, engine="simpy")) is None
    assert uncovered(remote) == uncovered(own)
    if not uncovered(remote):
        assert job_difference(slow, simulate_job(remote, seed, engine="compiled")) is None
    alone = dlsim.replace(remote, {"job.rank": 0})
    if remote.job.remote and only_processes(alone) is None and not lingers(alone):
        slow_one = dlsim.simulate(alone, seed, engine="simpy")
        assert difference(slow_one, dlsim.simulate(alone, seed, engine="compiled")) is None


@pytest.mark.parametrize("shards", [(3, 2), (3, 0)])
def test_whoever_joins_late_lets_the_others_go(shards: tuple[int, int]) -> None:
    """A rank without more steps that leaves its epoch last ends the wait of those who have come."""
    pytest.importorskip("llvmlite", reason="the compiled engine needs it")
    scenario = Scenario(
        loader=dlsim.Loader(num_workers=1),
        dataset=dlsim.IterableDataset(
            sum(shards), fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))], shards=shards
        ),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.5)),
        costs=dlsim.Costs(worker_stop=5.0),
        job=dlsim.Job(ranks=2, uneven="join"),
    )
    assert not uncovered(scenario)
    slow, fast = (simulate_job(scenario, engine=engine) for engine in ("simpy", "compiled"))
    assert job_difference(slow, fast) is None
    assert np.isfinite(fast.ranks[0].finished[:3]).all()


@pytest.mark.parametrize("sync_time", [0.0, 0.125])
def test_workers_of_a_rank_that_stops_with_others_live_on(sync_time: float) -> None:
    """Where the iterator is rebound, they finish what they are at until the next epoch has its own.

    The rank had not been told to leave: it does so as another one has no more.
    """
    pytest.importorskip("llvmlite", reason="the compiled engine needs it")
    scenario = Scenario(
        loader=dlsim.Loader(batch_size=None, num_workers=1, in_order=False),
        dataset=dlsim.IterableDataset(2, shards=(2,), collate=dlsim.Constant(1 / 64)),
        consumer=dlsim.Consumer(loop="rebind"),
        job=dlsim.Job(ranks=2, sync="epoch", sync_time=dlsim.Constant(sync_time), uneven="stop"),
        epochs=2,
    )
    slow, fast = (simulate_job(scenario, engine=engine) for engine in ("simpy", "compiled"))
    assert job_difference(slow, fast) is None
    assert fast.ranks[0].order.tolist() == [0, 3]
    assert fast.ranks[0].fetched[:2].tolist() == [1 / 64, 2 / 64]
    shared = dlsim.replace(scenario, {"machine.cores": 1})
    assert uncovered(shared) == "consumer.loop = rebind"


@pytest.mark.parametrize("run_ahead", [0, 1, 3])
@pytest.mark.parametrize("sync", [1, 2])
def test_compiled_hosts_that_run_ahead_of_a_meeting(run_ahead: int, sync: int) -> None:
    """Steps that are given before it is known when the one before is over are begun when it is."""
    pytest.importorskip("llvmlite", reason="the compiled engine needs it")
    scenario = dlsim.replace(
        job(batches=20, ranks=3, nodes=2, sync=sync, step=dlsim.Exponential(1.0)),
        {
            "consumer.run_ahead": run_ahead,
            "consumer.spin": True,
            "dataset.fetch": [{"name": "decode", "cpu": {"kind": "exponential", "mean": 0.4}}],
            "machine.cores": 3,
            "job.sync_time": {"kind": "exponential", "mean": 0.2},
            "job.differs": [{"rank": 1, "step": 2.0}, {"node": 1, "loader": 1.5}],
        },
    )
    slow = simulate_job(scenario, 3, engine="simpy", samples=True)
    fast = simulate_job(scenario, 3, engine="compiled", samples=True)
    assert job_difference(slow, fast) is None


def test_auto_says_which_engine_ran() -> None:
    """The fast engine runs what it has; where it lacks something, the trace says what."""
    pytest.importorskip("llvmlite", reason="the compiled engine needs it")
    shared = dlsim.replace(job(ranks=2), {"machine.cores": 1})
    assert simulate_job(shared, engine="compiled").meta.engine == "compiled"
    ahead = dlsim.replace(job(ranks=2), {"consumer.loop": "accelerate"})
    slow = simulate_job(ahead)
    assert slow.meta.engine == "simpy"
    lacks = "does not have consumer.loop = accelerate"
    assert slow.meta.notes["engine"] == f"simpy, as the compiled engine {lacks}"
    with pytest.raises(ScenarioError, match=r"engine: expected simpy or auto for consumer.loop"):
        simulate_job(ahead, engine="compiled")


@engines
@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_the_slowest_of_many_takes_as_long_as_the_harmonic_number_says(
    ranks: int, engine: Engine
) -> None:
    """The mean time between meetings after exponential steps of mean 1 is 1 + 1/2 + ... + 1/N."""
    scenario = job(batches=1000, step=dlsim.Exponential(1.0), ranks=ranks)
    found = simulate_job(scenario, 1, engine=engine)
    expected = sum(1 / n for n in range(1, ranks + 1))
    spread = np.sqrt(sum(1 / n**2 for n in range(1, ranks + 1)) / 1000)
    assert abs(found.end / 1000 - expected) < 4 * spread


@engines
@pytest.mark.parametrize(("sync", "there"), [(1, 3), (2, 1), ("epoch", 1)])
def test_a_record_of_meetings_that_is_too_short(
    sync: int | str, there: int, engine: Engine
) -> None:
    """Both engines say of how many meetings there should be a record."""
    record = dlsim.Recorded([0.5] * there)
    scenario = dlsim.replace(job(batches=4, ranks=2), {"job.sync": sync, "epochs": 3})
    with pytest.raises(ScenarioError, match=f"job.sync_time: .* at least {there + 1} values"):
        simulate_job(dlsim.replace(scenario, {"job.sync_time": record}), engine=engine)


def test_all_wait_for_the_last() -> None:
    """A rank whose steps take three times as long comes last, and everyone goes on when it has."""
    scenario = job(batches=4, ranks=3, sync=2, sync_time=dlsim.Constant(0.5))
    found = simulate_job(dlsim.replace(scenario, {"job.differs": [{"rank": 1, "step": 3.0}]}))
    met = meetings(found)
    assert met.stepped.tolist() == [[2.0, 6.0, 2.0], [8.5, 12.5, 8.5]]
    assert met.released.tolist() == [6.5, 13.0]
    assert met.last.tolist() == [1, 1]
    assert met.waited.tolist() == [[4.0, 0.0, 4.0], [4.0, 0.0, 4.0]]
    assert [trace.end for trace in found.ranks] == [13.0, 13.0, 13.0]


def test_a_host_that_runs_ahead_goes_on_while_accelerators_wait() -> None:
    """The accelerators meet; the host asks for the next batch as soon as the step is given away."""
    scenario = dlsim.replace(job(batches=3, ranks=2), {"consumer.run_ahead": 1})
    found = simulate_job(dlsim.replace(scenario, {"job.differs": [{"rank": 1, "step": 2.0}]}))
    fast = found.ranks[0]
    assert fast.requested.tolist() == [0.0, 0.0, 2.0]
    assert fast.finished.tolist() == [2.0, 4.0, 6.0]
    assert fast.stepped is not None
    assert fast.stepped.tolist() == [1.0, 3.0, 5.0]


def test_batches_may_be_filled_up_beyond_all_samples_there_are() -> None:
    """Whose shares are short take the first samples again, and each is fetched as often."""
    pytest.importorskip("llvmlite", reason="the compiled engine needs it")
    scenario = Scenario(
        loader=dlsim.Loader(batch_size=4, num_workers=2, endless=True),
        dataset=dlsim.MapDataset(2, fetch=[dlsim.Stage("read", wait=dlsim.Exponential(1.0))]),
        job=Job(ranks=2, deal="batches"),
        epochs=3,
    )
    slow, fast = (simulate_job(scenario, engine=engine) for engine in ("simpy", "compiled"))
    assert fast.ranks[0].size.tolist()[:3] == [4, 4, 4]
    assert job_difference(slow, fast) is None


@pytest.mark.parametrize("drop_last", [False, True])
def test_where_batches_of_a_rank_end_is_told_without_its_places(drop_last: bool) -> None:
    """Where a rank's batches end goes by how many places it has, and nobody makes them."""
    for length, world, size in product(range(1, 12), range(1, 5), range(1, 4)):
        loader, dataset = (
            dlsim.Loader(batch_size=size, drop_last=drop_last),
            dlsim.MapDataset(length),
        )
        deal = Job(ranks=world, drop_last=drop_last)
        for rank in range(world):
            mine = places(loader, dataset, deal, rank)
            count = length if mine is None else len(mine)
            found = ends(loader, dataset, deal, rank)
            assert found.tolist() == batch_ends(count, size, drop_last=drop_last).tolist()
            whole = found[-1] if len(found) else 0
            assert extent(loader, dataset, deal, rank) == (whole, len(found))


def test_data_are_dealt_as_torch_and_accelerate_do() -> None:
    """DistributedSampler's padding and cut, and accelerate's batches, as they came out of both."""
    assert [dealt_in_turn(7, r, 3, drop_last=False).tolist() for r in range(3)] == [
        [0, 3, 6],
        [1, 4, 0],
        [2, 5, 1],
    ]
    assert [dealt_in_turn(7, r, 3, drop_last=True).tolist() for r in range(3)] == [
        [0, 3],
        [1, 4],
        [2, 5],
    ]
    assert dealt_in_turn(1, 2, 4, drop_last=False).tolist() == [0]
    last = [2, 4, 6, 7]
    for even, drop_last, expected in (
        (True, False, [[[0, 1], [6, 0]], [[2, 3], [1, 2]], [[4, 5], [3, 4]]]),
        (False, False, [[[0, 1], [6]], [[2, 3]], [[4, 5]]]),
        (True, True, [[[0, 1]], [[2, 3]], [[4, 5]]]),
    ):
        shares_of = [
            dealt_in_batches(
                last[: 3 if drop_last else 4], r, 3, size=2, drop_last=drop_last, even=even
            )
            for r in range(3)
        ]
        assert [[batch.tolist() for batch in mine] for mine in shares_of] == expected


def test_workers_of_all_ranks_have_shards_of_their_own() -> None:
    """A split iterable-style dataset is divided by rank and worker: nobody repeats anything."""
    scenario = dlsim.replace(
        job(ranks=2, sync="never"),
        {"dataset": dlsim.IterableDataset(16, sharding="split", fetch=[dlsim.Stage("read")])},
    )
    found = simulate_job(scenario, samples=True)
    seen = [set(trace.samples.index.tolist()) for trace in found.ranks if trace.samples]
    assert seen == [set(range(8)), set(range(8, 16))]
    everything = simulate_job(dlsim.replace(scenario, {"job.deal": "same"}), samples=True)
    assert [metrics.samples(trace) for trace in everything.ranks] == [16, 16]


def test_ranks_without_workers_stand_in_one_line() -> None:
    """Main processes that fetch ask for storage in the turn of main processes, in both engines."""
    pytest.importorskip("llvmlite", reason="the compiled engine needs it")
    scenario = Scenario(
        loader=dlsim.Loader(batch_size=2),
        dataset=dlsim.MapDataset(
            24,
            fetch=[
                dlsim.Stage("read", read_bytes=dlsim.Constant(1.0)),
                dlsim.Stage("decode", wait=SECOND),
            ],
        ),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.5)),
        machine=dlsim.Machine(storage=dlsim.Storage(requests_per_second=2.0)),
        job=dlsim.Job(ranks=3, sync="never"),
    )
    slow, fast = (simulate_job(scenario, engine=engine) for engine in ("simpy", "compiled"))
    assert job_difference(slow, fast) is None


def test_main_processes_that_fetch_do_so_at_once() -> None:
    """Who comes last to a meeting asks for storage before those who had come, in both engines."""
    pytest.importorskip("llvmlite", reason="the compiled engine needs it")
    scenario = Scenario(
        loader=dlsim.Loader(batch_size=1),
        dataset=dlsim.MapDataset(4, fetch=[dlsim.Stage("read", read_bytes=SECOND)]),
        machine=dlsim.Machine(storage=dlsim.Storage(requests_per_second=1.0)),
        job=dlsim.Job(ranks=2),
    )
    for engine in ("simpy", "compiled"):
        ranks = simulate_job(scenario, engine=engine, samples=True).ranks
        began = [trace.fetched.tolist() for trace in ranks]
        assert began == [[0.0, 3.0], [1.0, 2.0]]


@pytest.mark.parametrize(("sync_time", "first"), [(0.0, 1), (2.0, 0)])
def test_who_ends_an_epoch_last_begins_the_next_one_first(sync_time: float, first: int) -> None:
    """Of the ranks that meet between epochs: or the lowest, if that takes any time."""
    pytest.importorskip("llvmlite", reason="the compiled engine needs it")
    scenario = Scenario(
        loader=dlsim.Loader(batch_size=1, num_workers=1),
        dataset=dlsim.MapDataset(2, fetch=[dlsim.Stage("read", read_bytes=SECOND)]),
        machine=dlsim.Machine(storage=dlsim.Storage(requests_per_second=1.0)),
        job=dlsim.Job(ranks=2, sync="epoch", sync_time=dlsim.Constant(sync_time)),
        epochs=2,
    )
    for engine in ("simpy", "compiled"):
        ranks = simulate_job(scenario, engine=engine).ranks
        order = np.argsort([trace.fetched[1] for trace in ranks])
        assert order[0] == first


@engines
def test_ranks_of_a_node_share_its_cores(engine: Engine) -> None:
    """Eight workers of two ranks on four cores decode four samples at a time, not eight."""
    scenario = dlsim.replace(
        job(ranks=2, sync="never", step=dlsim.Constant(0.0)),
        {
            "loader.num_workers": 4,
            "dataset.fetch": [{"name": "decode", "cpu": 1.0}],
            "machine.cores": 4,
        },
    )
    one_node = simulate_job(scenario, engine=engine)
    apart = dlsim.replace(scenario, {"job.ranks": 1, "job.nodes": 2})
    two_nodes = simulate_job(apart, engine=engine)
    assert one_node.end == pytest.approx(200 / 4, rel=0.05)
    assert two_nodes.end == pytest.approx(100 / 4, rel=0.05)


def test_ranks_of_a_node_share_its_page_cache() -> None:
    """What one rank has read the other finds in the cache in the next epoch, unless far away."""
    scenario = dlsim.replace(
        job(batches=10, ranks=2, sync="epoch", step=dlsim.Constant(0.0)),
        {
            "loader.shuffle": True,
            "dataset.fetch": [{"name": "read", "read_bytes": 100.0}],
            "machine.storage": {"requests_per_second": 10.0, "cache": 1e6},
            "epochs": 2,
        },
    )
    near = simulate_job(scenario)
    assert [metrics.epoch_times(trace)[1] for trace in near.ranks] == [0.0, 0.0]
    far = simulate_job(dlsim.replace(scenario, {"job.ranks": 1, "job.nodes": 2}))
    assert all(metrics.epoch_times(trace)[1] > 0.3 for trace in far.ranks)


def test_ranks_stand_in_one_line_for_storage() -> None:
    """Of requests at one moment those of all ranks' workers 0 come first, then workers 1's."""
    pytest.importorskip("llvmlite", reason="the compiled engine needs it")
    stages = [{"name": "ask", "wait": 1.0}, {"name": "read", "read_bytes": 100.0}]
    changes = {"dataset.fetch": stages, "machine.storage.requests_per_second": 1.0}
    scenario = dlsim.replace(reading(1, 2), {**changes, "dataset.length": 8})
    for engine in ("simpy", "compiled"):
        ranks = simulate_job(scenario, engine=engine, samples=True).ranks
        first = [trace.samples.fetched[::2].tolist() for trace in ranks if trace.samples]
        assert first == [[1.0, 3.0], [2.0, 4.0]]


@engines
@pytest.mark.parametrize(
    ("nodes", "ranks", "storage", "expected"),
    [
        (4, 2, {"bandwidth": 1000.0}, 80.0),  # 8 * 100 samples of 100 bytes
        (4, 2, {"bandwidth": 1000.0, "node_bandwidth": 200.0}, 100.0),  # 2 * 100 of each node
        (2, 1, {"bandwidth": 1000.0, "node_bandwidth": 1000.0}, 20.0),
        (2, 1, {"requests_per_second": 5.0}, 40.0),
    ],
)
def test_saturated_storage(
    nodes: int, ranks: int, storage: dict[str, float], expected: float, engine: Engine
) -> None:
    """A storage that all nodes wait for gives what it has, and a node what it can take."""
    found = simulate_job(reading(nodes, ranks, **storage), engine=engine)
    assert found.end == pytest.approx(expected, rel=0.01)


@engines
def test_alike_nodes_are_served_alike(engine: Engine) -> None:
    """Seven nodes that read the same at the same time are done at one moment, to the last bit."""
    found = simulate_job(reading(7, 1, bandwidth=1000.0), engine=engine)
    assert len({trace.finished[-1] for trace in found.ranks}) == 1


@engines
def test_ranks_that_wait_for_one_that_is_gone(engine: Engine) -> None:
    """Without join, where torch hangs, the trace says who waits for whom, and since when."""
    scenario = dlsim.replace(
        job(ranks=2, deal="batches", even_batches=False), {"dataset.length": 14}
    )
    found = simulate_job(scenario, engine=engine)
    assert found.meta.problem is not None
    assert found.meta.problem.kind == "hang"
    assert found.meta.problem.message == (
        "rank 0 waits for rank 1 after its step 4: rank 1 took its last, number 3, and left at 3 s"
    )
    assert found.meta.problem.time == 4.0
    for uneven, steps in (("stop", [3, 3]), ("join", [4, 3])):
        other = simulate_job(dlsim.replace(scenario, {"job.uneven": uneven}), engine=engine)
        assert other.meta.problem is None
        assert [len(trace.order) for trace in other.ranks] == steps


@engines
def test_a_job_that_ends_early_ends_for_all_at_one_moment(engine: Engine) -> None:
    """What the accelerators of others would have done later is not there."""
    scenario = dlsim.replace(
        job(batches=3, ranks=2, sync=3),
        {
            "loader.timeout": 1.5,
            "dataset.fetch": [{"name": "read", "wait": dlsim.Recorded([0.0] * 11 + [9.0])}],
            "consumer.run_ahead": 3,
        },
    )
    found = simulate_job(scenario, engine=engine)
    problem, other = found.ranks[1].meta.problem, found.ranks[0].meta.problem
    assert problem is not None
    assert other is not None
    assert (problem.kind, problem.time) == ("timeout", 1.5)
    assert other.message.startswith("rank 1 ended the job: DataLoader timed out")
    for trace in found.ranks:
        assert trace.stepped is not None
        assert np.isfinite(trace.stepped).tolist() == [True, False, False]
        assert np.isfinite(trace.finished).tolist() == [True, False, False]


@engines
def test_one_rank_that_fails_ends_the_job(engine: Engine) -> None:
    """An exception of one rank ends all of them, and each says which rank it was."""
    scenario = dlsim.replace(
        job(ranks=2), {"failures": [{"where": "fetch", "at": 9}], "loader.sampler": [*range(40)]}
    )
    found = simulate_job(scenario, engine=engine)
    assert found.meta.problem is not None
    assert found.meta.problem.kind == "fetch"
    (other,) = (t.meta.problem for t in found.ranks if t.meta.problem != found.meta.problem)
    assert other is not None
    assert other.message.startswith("rank 1 ended the job: fetch raised")
    assert {trace.end for trace in found.ranks} == {2.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"job.ranks": 200, "job.drop_last": True},
            r"job.ranks: expected no more ranks than .* \(50\), got 200",
        ),
        ({"job.sync": 0}, "job.sync: expected a number of steps, epoch or never, got 0"),
        ({"job.sync": "sometimes"}, "job.sync: expected .*epoch or never.*, got 'sometimes'"),
        ({"job.differs": [{"rank": 1}]}, "job.differs.0.rank: expected a number below 1, got 1"),
        ({"job.differs": [{"step": 2.0}]}, "job.differs.0.rank: expected a rank or a node"),
        (
            {"job.deal": "batches", "loader.batch_size": None},
            "job.deal: batches needs loader.batch_size",
        ),
        (
            {"job.storage": {"bandwidth": 1.0}, "machine.storage.bandwidth": 1.0},
            "job.storage: is read in place of machine.storage",
        ),
    ],
)
def test_what_cannot_be(changes: dict[str, object], message: str) -> None:
    """A job that cannot be is refused in one line that names the key."""
    with pytest.raises(ScenarioError, match=message):
        dlsim.replace(
            dlsim.replace(job(), {"job.nodes": 2 if "job.deal" in changes else 1}), changes
        )


def test_a_job_has_no_single_trace() -> None:
    """Who asks for one trace of a job is told what is for jobs."""
    with pytest.raises(ScenarioError, match=r"simulate_job is for jobs\), got 2"):
        dlsim.simulate(job(ranks=2))


def test_room_for_a_rank_is_its_share_of_the_node() -> None:
    """Batches that fit into the memory of a node for two ranks do not for eight."""
    sized = dlsim.replace(job(ranks=2), {"dataset.sample_bytes": 1e6, "machine.memory": 25e6})
    assert_fits(sized)
    with pytest.raises(AssertionError):
        assert_fits(dlsim.replace(sized, {"job.ranks": 8}))
