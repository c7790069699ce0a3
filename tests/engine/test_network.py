"""A bandwidth that nodes share: against a simulation by the definition of max-min fairness."""

from __future__ import annotations

from math import inf

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

import dlsim
from dlsim.engine.job import simulate_job
from dlsim.engine.processes.clock import sleep
from dlsim.engine.processes.network import Network
from dlsim.scenario import RemoteStorage, Scenario
from dlsim.trace.difference import job_difference

Read = tuple[float, int, float]  # when it begins, on which node, how many bytes


def fair_rates(nodes: list[int], capacity: float, most: float) -> list[float]:
    """Bytes a second of reads on these nodes: all grow alike, until a node or all is taken."""
    rates, growing = [0.0] * len(nodes), set(range(len(nodes)))
    while growing:
        left = (capacity - sum(rates)) / len(growing)
        room = {
            node: (most - sum(r for r, n in zip(rates, nodes, strict=True) if n == node))
            / sum(nodes[i] == node for i in growing)
            for node in {nodes[i] for i in growing}
        }
        by = min(left, *room.values())
        for i in growing:
            rates[i] += by
        full = {node for node, more in room.items() if more <= by}
        growing = set() if left <= by else {i for i in growing if nodes[i] not in full}
    return rates


def ends_of(reads: list[Read], capacity: float, most: float) -> list[float]:
    """When each read is done, step by step from one change to the next."""
    now, ends = 0.0, [inf] * len(reads)
    left = [size for _, _, size in reads]
    while inf in ends:
        under_way = [i for i, (at, _, _) in enumerate(reads) if at <= now and ends[i] == inf]
        rates = fair_rates([reads[i][1] for i in under_way], capacity, most)
        done = [left[i] / rate for i, rate in zip(under_way, rates, strict=True)]
        begin = [at - now for at, _, _ in reads if at > now]
        passed = min(done + begin)
        now = min(
            [at for at, _, _ in reads if at > now and at - now <= passed], default=now + passed
        )
        for i, rate, takes in zip(under_way, rates, done, strict=True):
            left[i] -= rate * passed
            if takes <= passed * (1 + 1e-12):
                ends[i] = now
    return ends


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 1.0, 2.5, 3.0]) | st.floats(0, 9),
            st.integers(0, 3),
            st.sampled_from([1.0, 2.0, 4.0]) | st.floats(0.1, 9),
        ),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    st.sampled_from([0.5, 0.75, 1.0, 5.0, inf]),
)
def test_all_reads_are_as_fast_as_each_other_as_far_as_nodes_allow(
    reads: list[Read], capacity: float, most: float
) -> None:
    """Nobody gets more while another could, and all that nodes can take is used."""
    env, found = simpy.Environment(), [inf] * len(reads)
    network = Network(env, capacity, most, ranks=1, nodes=4)

    def one(i: int, at: float, node: int, size: float):
        yield sleep(env, at, 2)
        yield network.serve(size, (node, i), 2)
        found[i] = env.now

    for i, read in enumerate(reads):
        env.process(one(i, *read))
    env.run()
    assert found == pytest.approx(ends_of(reads, capacity, most), rel=1e-9)


def test_reads_that_are_given_up_leave_theirs_to_others() -> None:
    """Whoever goes takes nothing more, and a node that is full no longer shares with the others."""
    env, ends = simpy.Environment(), {}
    network = Network(env, 4.0, 3.0, ranks=1, nodes=2)

    def one(who: tuple[int, int], size: float):
        yield network.serve(size, who, 2)
        ends[who] = env.now

    for who, size in (((0, 0), 6.0), ((0, 1), 6.0), ((1, 0), 8.0)):
        env.process(one(who, size))
    env.run(until=3.0)  # each has 4 bytes
    network.leave([(0, 1)])
    env.run()
    assert ends == {(0, 0): 4.0, (1, 0): 5.0 - 1 / 3}


@st.composite
def reading_jobs(draw: st.DrawFn) -> Scenario:
    """Jobs of several nodes that read from one storage; at one moment, as often as by chance."""
    ranks, nodes = draw(st.sampled_from([(1, 2), (2, 2), (1, 4), (3, 3)]))
    size = draw(st.sampled_from([dlsim.Constant(100.0), dlsim.Exponential(100.0)]))
    rest = st.sampled_from([dlsim.Constant(0.25), dlsim.Exponential(0.3)])
    stages = [dlsim.Stage("read", read_bytes=size)]
    if draw(st.booleans()):
        stages.append(dlsim.Stage("parse", wait=draw(rest), cpu=draw(rest)))
    workers = draw(st.integers(0, 3))
    return Scenario(
        loader=dlsim.Loader(
            batch_size=2,
            num_workers=workers,
            shuffle=draw(st.booleans()),
            persistent_workers=workers > 0 and draw(st.booleans()),
        ),
        dataset=dlsim.MapDataset(8 * ranks * nodes, fetch=stages),
        consumer=dlsim.Consumer(
            step=draw(rest | st.just(dlsim.Constant(0.0))),
            stop_after=draw(st.sampled_from([None, 2])),
        ),
        machine=dlsim.Machine(
            cores=draw(st.sampled_from([None, 2.0])),
            storage=dlsim.Storage(cache=draw(st.sampled_from([0.0, 500.0]))),
        ),
        epochs=draw(st.sampled_from([1, 2])),
        job=dlsim.Job(
            ranks=ranks,
            nodes=nodes,
            sync=draw(st.sampled_from([1, 2, "epoch", "never"])),
            storage=RemoteStorage(
                bandwidth=draw(st.sampled_from([100.0, 300.0, 1000.0])),
                node_bandwidth=draw(st.sampled_from([None, 73.0, 100.0, 200.0])),
                requests_per_second=draw(st.sampled_from([None, 20.0])),
                latency=draw(st.none() | rest),
            ),
        ),
    )


@settings(max_examples=150)
@given(reading_jobs(), st.integers(0, 2**32))
def test_compiled_nodes_that_read_from_one_storage(scenario: Scenario, seed: int) -> None:
    """Every moment is the same in the compiled engine, whichever of them are full."""
    pytest.importorskip("llvmlite", reason="the compiled engine needs it")
    slow, fast = (simulate_job(scenario, seed, engine=engine) for engine in ("simpy", "compiled"))
    assert job_difference(slow, fast) is None
