"""Shared cores, storage, transport and accelerator: by hand, by theory, by conservation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

import dlsim
from dlsim.engine.facts import left_to_chance
from dlsim.engine.processes.cores import Sharing
from dlsim.engine.processes.ticking import Ticking
from dlsim.scenario import Scenario
from dlsim.trace.account import account
from dlsim.trace.causes import CORE
from dlsim.trace.trace import MOMENTS
from dlsim.whatif.demand import variation

ENGINES = ["simpy", "compiled"]


def served(
    capacity: float = 1,
    jobs: Sequence[tuple[float, float, int]] = (),
    most: float = 1.0,
    background: float = 0,
    by: Callable[[simpy.Environment], Ticking] | None = None,
) -> list[float]:
    """When jobs (arrival, amount, customer) are done, in the order given; `by` equal shares."""
    env = simpy.Environment()
    sharing = by(env) if by else Sharing(env, lambda n: min(most, capacity / n), background)
    done = [float("nan")] * len(jobs)

    def job(i: int, arrival: float, amount: float, customer: int) -> object:
        yield env.timeout(arrival)
        yield sharing.serve(amount, customer, 2)
        done[i] = env.now

    for i, (arrival, amount, customer) in enumerate(jobs):
        env.process(job(i, arrival, amount, customer))
    env.run()
    return done


def test_equal_shares() -> None:
    """Three processes on two cores get two thirds each, until one has all it wanted."""
    # All run at 2/3 until 3 (2 done each); then the other two have a core each.
    assert served(2, [(0, 2, 0), (0, 3, 1), (0, 3, 2)]) == pytest.approx([3, 4, 4])


def test_a_core_is_all_one_process_can_use() -> None:
    """A process alone on eight cores is no faster than on one."""
    assert served(8, [(0, 2, 0)]) == [2]


def test_late_arrival_slows_the_others() -> None:
    """Who arrives later takes its share from then on."""
    # Alone until 1; then both at 1/2: the first needs 1 more (until 3), the second finishes alone.
    assert served(1, [(0, 2, 0), (1, 2, 1)]) == pytest.approx([3, 4])


def test_threads_share_what_their_process_gets() -> None:
    """Two threads of a process run at half its rate each, other processes keep theirs."""
    # Two cores, process 0 with two threads, process 1 with one: a core for each process.
    assert served(2, [(0, 1, 0), (0, 1, 0), (0, 1, 1)]) == pytest.approx([2, 2, 1])


def test_background_takes_its_share() -> None:
    """One process that always runs halves the only core."""
    assert served(1, [(0, 1, 0)], background=1) == pytest.approx([2])


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.floats(0, 10), st.floats(0.01, 5), st.integers(0, 3)),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([0.5, 1.0, 2.0, 3.5]),
)
def test_sharing_equals_small_steps(jobs: list[tuple[float, float, int]], capacity: float) -> None:
    """Service in virtual time is what sharing the cores moment by moment gives."""
    exact = served(capacity, jobs)
    assert exact == pytest.approx(_fluid(capacity, jobs), rel=1e-6)


def _fluid(capacity: float, jobs: list[tuple[float, float, int]]) -> list[float]:
    """The same by following every rate from one change to the next."""
    left = {i: amount for i, (_, amount, _) in enumerate(jobs)}
    done = [0.0] * len(jobs)
    now = 0.0
    while left:
        present = [i for i in left if jobs[i][0] <= now]
        later = [jobs[i][0] for i in left if jobs[i][0] > now]
        customers = {jobs[i][2] for i in present}
        rate = min(1.0, capacity / len(customers)) if customers else 0.0
        speed = {i: rate / sum(jobs[j][2] == jobs[i][2] for j in present) for i in present}
        ends = [now + left[i] / speed[i] for i in present]
        then = min(ends + later)
        for i in present:
            left[i] -= (then - now) * speed[i]
            if left[i] <= 1e-12 * jobs[i][1] + 1e-13:
                done[i] = then
                del left[i]
        now = then
    return done


def test_mean_stay_of_a_shared_core() -> None:
    """Poisson arrivals at one shared core stay E[S] / (1 - load), whatever the distribution.

    M/G/1 processor sharing: Kleinrock, Queueing Systems, volume 2, section 4.4.
    """
    rng = np.random.default_rng(1)
    count, load = 40_000, 0.6
    arrivals = np.cumsum(rng.exponential(1 / load, count))
    amounts = rng.gamma(0.5, 2.0, count)  # mean 1, cv sqrt(2)
    jobs = [(float(a), float(s), i) for i, (a, s) in enumerate(zip(arrivals, amounts, strict=True))]
    stay = np.array(served(1, jobs)) - arrivals
    assert stay.mean() == pytest.approx(1 / (1 - load), rel=0.05)


def loading(**changes: object) -> Scenario:
    """Eight batches of two samples, 1 s of processor time each, by two workers."""
    scenario = Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=2, prefetch_factor=2),
        dataset=dlsim.MapDataset(16, fetch=[dlsim.Stage("decode", cpu=dlsim.Constant(1.0))]),
    )
    return dlsim.replace(scenario, changes)


def test_workers_beyond_the_cores_add_nothing() -> None:
    """Four workers on two cores decode as fast as two, each half as fast as alone."""
    two = dlsim.simulate(loading(**{"machine.cores": 2}))
    four = dlsim.simulate(loading(**{"machine.cores": 2, "loader.num_workers": 4}))
    assert two.end == pytest.approx(8) == four.end
    assert four.fetched[0] - four.started[0] == pytest.approx(4)


def test_blocked_time_is_not_shared() -> None:
    """Workers that sleep do not slow each other down, however few the cores."""
    changes = {"dataset.fetch.0.cpu": "none", "dataset.fetch.0.wait": 1.0}
    trace = dlsim.simulate(loading(**{"machine.cores": 1, "loader.num_workers": 4, **changes}))
    assert trace.end == pytest.approx(4)


def test_plenty_of_cores_is_the_ideal_machine() -> None:
    """With a core for every process the trace is that of the ideal machine."""
    ideal = dlsim.simulate(loading(), samples=True)
    roomy = dlsim.simulate(loading(**{"machine.cores": 64}), samples=True)
    assert dlsim.trace.difference(ideal, roomy, rtol=1e-12) is None


WITH_A_CORE_EACH = {
    "workers": ({"loader.num_workers": 3}, 3),
    "no workers": ({"loader.num_workers": 0, "consumer.device": "cpu"}, 2),
    "a step": ({"consumer.device": "cpu", "consumer.threads": 2}, 4),
    "threads of libraries": ({"dataset.fetch.0.threads": 2}, 4),
    "a host that spins": ({"consumer.spin": True}, 3),
    "others": ({"machine.background": 1.5}, 3.5),
    "two sets of workers": ({"consumer.loop": "rebind", "consumer.stop_after": 5}, 4),
    "ranks": ({"job.ranks": 2}, 4),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", WITH_A_CORE_EACH)
def test_with_a_core_for_each_nothing_is_shared(name: str, engine: str) -> None:
    """Where all who can compute have a core each, a run is what it is if they share them."""
    changes, cores = WITH_A_CORE_EACH[name]
    plan = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=2),
        dataset=dlsim.MapDataset(40, fetch=[dlsim.Stage("decode", cpu=dlsim.Gamma(1.0, 0.5))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.9)),
        epochs=2,
    )
    plan = dlsim.replace(plan, {**changes, "machine.cores": cores})
    shared = dlsim.replace(plan, {"machine.contention": 1e-13})
    assert plan.ideal
    assert not shared.ideal
    assert not dlsim.replace(plan, {"machine.cores": cores - 0.5}).ideal
    run = dlsim.simulate_job if plan.is_job else dlsim.simulate
    runs = run(plan, 3, engine=engine), run(shared, 3, engine="simpy")
    for one, other in zip(*(getattr(each, "ranks", [each]) for each in runs), strict=True):
        for moment in MOMENTS:
            expected = pytest.approx(getattr(other, moment), rel=1e-9, nan_ok=True)
            assert getattr(one, moment) == expected, moment


def test_step_on_the_cpu_competes() -> None:
    """A training step on the only core slows the worker, and is slowed by it."""
    scenario = loading(
        **{
            "machine.cores": 1,
            "loader.num_workers": 1,
            "dataset.length": 4,
            "consumer.step": 2.0,
            "consumer.device": "cpu",
        }
    )
    trace = dlsim.simulate(scenario)
    # Batch 0 arrives at 2; its step (2 s) and batch 1 (2 s) share the core until 6.
    assert trace.finished.tolist() == pytest.approx([6, 8])
    assert trace.fetched.tolist() == pytest.approx([2, 6])


def test_serialising_overlaps_the_next_fetch() -> None:
    """The feeder thread works while the worker fetches, and takes half of it meanwhile."""
    scenario = loading(
        **{"loader.num_workers": 1, "dataset.length": 4, "costs.serialise.message": 1.0}
    )
    trace = dlsim.simulate(scenario)
    # Serialising batch 0 (2 to 4, at half speed) delays batch 1, which then needs 1 s more.
    assert trace.arrived.tolist() == pytest.approx([4, 6])
    assert trace.fetched.tolist() == pytest.approx([2, 5])


def test_receiving_happens_inside_next() -> None:
    """Without a pin-memory thread a batch that arrived is received when it is asked for."""
    changes = {"consumer.step": 10.0, "costs.receive.message": 0.5}
    trace = dlsim.simulate(loading(**changes))
    assert trace.received[1] == trace.requested[1] + 0.5
    assert trace.arrived[1] == 2


def test_pin_memory_thread_receives_beside_the_step() -> None:
    """With one, batches are received and pinned while the step runs; next() finds them ready."""
    changes = {
        "consumer.step": 10.0,
        "costs.receive.message": 0.5,
        "costs.pin.message": 0.25,
        "loader.pin_memory": True,
    }
    trace = dlsim.simulate(loading(**changes))
    # The two share the main process's time, but nobody else uses it.
    assert trace.received[:2].tolist() == pytest.approx([2.5, 3.25])
    assert trace.returned[1] == trace.requested[1]


def test_large_messages_go_through_the_pipe_while_it_is_read() -> None:
    """A writer with more than 64 KiB writes while it is read, and holds up the other writers."""
    changes = {
        "dataset.path": "pipe",
        "dataset.sample_bytes": 1e6,
        "costs.hand_over.byte": 0.5e-6,
        "costs.receive.byte": 0.75e-6,
        "consumer.step": 10.0,
    }
    trace = dlsim.simulate(loading(**changes))
    assert trace.arrived[0] == pytest.approx(2 + 1)
    assert trace.received[0] == pytest.approx(2 + 1.5)  # half a second longer to rebuild it
    # Batch 1 was fetched at 2 as well; it is read, and so arrives, when next() asks for it.
    assert trace.arrived[1] == pytest.approx(trace.requested[1] + 1)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("pinned", [False, True])
def test_writer_and_reader_of_a_large_message_take_turns(engine: str, pinned: bool) -> None:
    """It is written for 1 s and read for 0.75 s, one after the other; the rest is rebuilding."""
    changes = {
        "dataset.path": "pipe",
        "dataset.sample_bytes": 1e6,
        "costs.hand_over.byte": 0.5e-6,
        "costs.receive.byte": 0.75e-6,
        "costs.reading": 0.5,
        "consumer.step": 10.0,
        "loader.pin_memory": pinned,
    }
    trace = dlsim.simulate(loading(**changes), engine=engine)
    assert trace.arrived[0] == pytest.approx(2 + 1.75)
    assert trace.received[0] == pytest.approx(2 + 2.5)
    begun = trace.received[0] if pinned else trace.requested[1]
    assert trace.arrived[1] == pytest.approx(begun + 1.75)
    small = dlsim.simulate(loading(**changes | {"dataset.sample_bytes": 3e4}), engine=engine)
    assert small.arrived[0] == pytest.approx(2 + 0.03)  # written into the pipe, read when asked for
    assert small.received[0] == pytest.approx(2 + 0.03 + 0.045)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("tick", "fetched"),
    [
        (0.75, [1.75, 1, 1.25]),
        (0.9994, [1.9994, 1, 1.0006]),
        (0.9996, [2, 1, 1.9996]),  # the third has computed 0.4 ms before
        (0.2499, [1.9996, 1, 1.7497]),  # so has the first; at 1.2495 s and 1.4994 s who made room
    ],
)
def test_who_has_just_computed_stays_with_its_core(
    engine: str, tick: float, fetched: list[float]
) -> None:
    """Three workers compute for 1 s on two cores, the third and the first in turns on one of them.

    The second one's core is free at 1 s, and takes who waits then only if that has not computed for
    0.5 ms; at each tick who waits has just made room, and is taken at the third.
    """
    changes = {"loader.num_workers": 3, "loader.batch_size": 1, "loader.prefetch_factor": 1}
    changes |= {"dataset.length": 3, "machine.cores": 2, "machine.slice": tick}
    trace = dlsim.simulate(loading(**changes), engine=engine)
    assert trace.fetched.tolist() == pytest.approx(fetched)


def test_descriptors_are_handed_over_while_the_main_process_waits() -> None:
    """A thread of the worker, which may be fetching, hands over what the main process receives."""
    changes = {
        "loader.num_workers": 1,
        "dataset.length": 4,
        "costs.hand_over.tensor": 1.0,
        "costs.receive.tensor": 0.5,
    }
    trace = dlsim.simulate(loading(**changes))
    # From 2 to 4 at half speed, beside the fetching of batch 1, which goes on alone from 4 to 5.
    assert trace.received.tolist() == pytest.approx([4.5, 6.5])
    assert trace.fetched.tolist() == pytest.approx([2, 5])


UNEVEN = dlsim.Recorded((0.5, 1.5))


@pytest.mark.parametrize("engine", ENGINES)
def test_batches_take_unevenly_long_to_be_received(engine: str) -> None:
    """One takes half as long as on average, the next one half as long again, handing over too."""
    changes = {
        "loader.num_workers": 1,
        "dataset.length": 4,
        "costs.hand_over.tensor": 1.0,
        "costs.receive.tensor": 0.5,
        "costs.jitter": UNEVEN,
    }
    trace = dlsim.simulate(loading(**changes), engine=engine)
    # Half a second is handed over from 2 to 3, at half speed beside the fetching of batch 1, which
    # goes on alone until 4.5; then 1.5 s are handed over, and it is rebuilt for 0.75 s.
    assert trace.received.tolist() == pytest.approx([3.25, 6.75])
    assert trace.fetched.tolist() == pytest.approx([2, 4.5])


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_read_from_the_pipe_is_read_unevenly_fast(engine: str) -> None:
    """Writing a large message is part of receiving it, and takes as much longer."""
    changes = {
        "loader.num_workers": 1,
        "dataset.length": 4,
        "dataset.path": "pipe",
        "dataset.sample_bytes": 1e6,
        "costs.hand_over.byte": 0.5e-6,
        "costs.receive.byte": 0.75e-6,
        "costs.jitter": UNEVEN,
    }
    trace = dlsim.simulate(loading(**changes), engine=engine)
    assert trace.arrived.tolist() == pytest.approx([2.5, 4 + 1.5])
    assert trace.received.tolist() == pytest.approx([2.75, 4 + 2.25])


def test_jitter_is_chance_where_batches_are_received() -> None:
    """Without workers there is nothing of it, nor where receiving takes no time."""
    jitter = {"costs.jitter": dlsim.Gamma(1.0, 0.5)}
    received = loading(**jitter, **{"costs.receive.message": 0.5})
    none = {"loader.num_workers": 0, "loader.prefetch_factor": "none"}
    assert left_to_chance(received)
    assert variation(received) == 0.5
    assert not left_to_chance(loading(**jitter))
    assert not left_to_chance(dlsim.replace(received, none))
    one, other = dlsim.simulate(received, seed=1), dlsim.simulate(received, seed=2)
    assert one.received.tolist() != other.received.tolist()


def test_receiving_is_on_average_what_it_is_said_to_be() -> None:
    """So a jitter of another mean than 1 is refused, but for what four digits leave out."""
    loading(**{"costs.jitter": dlsim.Empirical((0.5717, 1.429))})
    with pytest.raises(dlsim.ScenarioError, match=r"jitter: expected a distribution whose mean is"):
        loading(**{"costs.jitter": dlsim.Gamma(1.1, 0.5)})
    with pytest.raises(dlsim.ScenarioError, match=r"costs\.jitter: expected a record of at least"):
        dlsim.simulate(loading(**{"costs.jitter": UNEVEN, "costs.receive.message": 0.5}))


def test_sharing_a_batch_costs_workers_only() -> None:
    """Collating into shared memory takes longer, and without workers nothing is shared."""
    changes = {"dataset.length": 4, "costs.share.message": 0.25}
    one = dlsim.simulate(loading(**{"loader.num_workers": 1, **changes}))
    alone = {"loader.num_workers": 0, "loader.prefetch_factor": "none"}
    none = dlsim.simulate(loading(**alone, **changes))
    assert one.fetched.tolist() == pytest.approx([2.25, 4.5])
    assert none.fetched.tolist() == pytest.approx([2, 4])


def test_busy_cores_slow_each_other_down() -> None:
    """With a contention of a half, two busy cores take half as long again as one."""
    changes = {"machine.cores": 2, "machine.contention": 0.5}
    two = dlsim.simulate(loading(**changes))
    one = dlsim.simulate(loading(**{"loader.num_workers": 1, **changes}))
    assert two.fetched[:2].tolist() == pytest.approx([3, 3])
    assert one.fetched[:2].tolist() == pytest.approx([2, 4])


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
@pytest.mark.parametrize(("workers", "second"), [(2, 2), (3, 6 / 2.2), (4, 2 / 0.6), (8, 4 / 0.6)])
def test_siblings_share_what_a_physical_core_does(engine: str, workers: int, second: float) -> None:
    """Two physical cores of two threads do what two cores do, and a fifth more for each third one.

    Of three processes, two share a physical core, each at 60 % of its pace, in turns: 2.2 cores.
    """
    changes = {"machine.cores": 4, "machine.siblings": 0.6, "loader.num_workers": workers}
    trace = dlsim.simulate(loading(**changes, **{"dataset.length": 2 * workers}), engine=engine)
    assert trace.fetched[:workers].tolist() == pytest.approx([second] * workers)


def test_one_worker_more_may_make_it_slower() -> None:
    """With a crosstalk of one half, two workers take 1.5 times as long, three 3 times as long."""
    ends = []
    for workers in (1, 2, 3):
        changes = {"machine.crosstalk": 0.5, "dataset.length": 12, "loader.num_workers": workers}
        trace = dlsim.simulate(loading(**changes))
        ends.append(trace.end)
        first = 2 * (1 + 0.5 * (workers - 1) ** 2)
        assert trace.fetched[:workers].tolist() == pytest.approx([first] * workers)
    assert ends == pytest.approx([12, 9, 12])


def test_crosstalk_grows_by_its_power() -> None:
    """Four workers at a power of 3 take 1 + 0.1 * 27 times as long."""
    changes = {"machine.crosstalk": 0.1, "machine.crosstalk_power": 3.0, "loader.num_workers": 4}
    trace = dlsim.simulate(loading(**{"dataset.length": 8, **changes}))
    assert trace.fetched.tolist() == pytest.approx([2 * 3.7] * 4)


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
@pytest.mark.parametrize(
    ("interval", "fetched", "arrived"),
    [("none", [2, 5], 4), (0.75, [2, 5], 4.5), (5.0, [2, 4, 8], 5), (2.0, [2, 4, 8], 5)],
)
def test_threads_of_a_process_take_turns_at_its_lock(
    engine: str, interval: float | str, fetched: list[float], arrived: float
) -> None:
    """A feeder that pickles for 1 s waits for the worker, but for no more than the interval.

    The worker computes the second batch from 2 s on, and the feeder has the first one. It waits
    until 2.75 s, works until the worker has waited as long, at 3.5 s, and ends from 4.25 s on; or
    until the worker is done, at 4 s. The index list of the third batch then comes at 5 s, when the
    feeder has the second one. Without an interval both share what the process gets.
    """
    changes = {"loader.num_workers": 1, "machine.cores": 2, "dataset.length": 8}
    changes |= {"costs.serialise.message": 1.0, "machine.switch_interval": interval}
    trace = dlsim.simulate(loading(**changes), engine=engine)
    assert trace.fetched[: len(fetched)].tolist() == pytest.approx(fetched)
    assert trace.arrived[0] == pytest.approx(arrived)


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
@pytest.mark.parametrize(
    ("changes", "returned"),
    [
        ({}, [2, 4.25, 6.5]),
        ({"machine.slice": 0.75}, [2.25, 5.25, 8.25]),  # from 2 s to 2.25 s, from 4.5 s to 5.25 s
        ({"machine.slice": 8.0}, [3, 6.25, 9.5]),  # the worker is done before that
        ({"machine.slice": 0.75, "costs.index_latency": 0.25}, [3, 6, 9]),  # from 2.5 s to 3 s
        ({"machine.slice": 0.75, "machine.cores": 2}, [1, 3.25, 5.5]),  # a core is left
        (
            {"machine.slice": 0.75, "machine.cores": 2, "machine.background": 1.0},
            [2.25, 5.25, 8.25],
        ),
        # it is there at 2.5 s, and worker 0 at its second one: nobody is woken
        ({"machine.slice": 0.75, "loader.prefetch_factor": 2}, [2.5, 5.25, 8.25]),
    ],
)
def test_who_wakes_a_worker_makes_room_for_it(
    engine: str, changes: dict[str, object], returned: list[float]
) -> None:
    """Two workers compute a second a batch on one core; steps of 2.25 s are on an accelerator.

    Both have their first one at 2 s. The main process sends worker 0 a batch, which takes the core:
    so it returns the first at the next multiple of the slice, and begins to wait for the second one
    2.25 s later.
    """
    alone = {"dataset.length": 8, "loader.batch_size": 1, "loader.prefetch_factor": 1}
    scenario = loading(**{"machine.cores": 1, "consumer.step": 2.25, **alone, **changes})
    trace = dlsim.simulate(scenario, engine=engine)
    assert trace.returned[:3].tolist() == pytest.approx(returned)
    given = 2 * scenario.loader.prefetch_factor  # the first one sent for a return
    aside = trace.returned[:-given] - trace.sent[given:]  # with the first batch an epoch begins
    assert account(trace).path.get(CORE, 0.0) == pytest.approx(aside[1:].sum())


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
@pytest.mark.parametrize(("prefetch", "batch", "returned"), [(1, 0, 2.25), (2, 1, 6.0)])
def test_who_wakes_a_worker_makes_room_on_its_own_core_only(
    engine: str, prefetch: int, batch: int, returned: float
) -> None:
    """Of two cores somebody else always wants one, so that a worker that computes leaves none.

    With one batch on its way, the worker takes core 0 when the main process has sent it; sent the
    next one at 1.5 s, it takes it from the main process until 2.25 s. With two, the main process
    sends the second one while the worker takes core 1; so it keeps core 0 when it sends the fourth
    at 6 s, 0.25 s after a step that began at 1.75 s.
    """
    changes = {"machine.cores": 2, "machine.background": 1.0, "machine.slice": 0.75}
    changes |= {"costs.index_put": 0.25, "consumer.step": 4.0, "loader.num_workers": 1}
    changes |= {"loader.batch_size": 1, "loader.prefetch_factor": prefetch}
    trace = dlsim.simulate(loading(**changes), engine=engine)
    assert trace.returned[batch] == pytest.approx(returned)


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
def test_the_first_ones_of_an_epoch_are_sent_one_after_another(engine: str) -> None:
    """Each takes the main process 0.25 s, on the only core, and then wakes a worker in 0.25 s."""
    changes = {"machine.cores": 1, "machine.slice": 8.0, "costs.index_put": 0.25}
    changes |= {"costs.index_latency": 0.25, "loader.prefetch_factor": 1, "dataset.length": 8}
    trace = dlsim.simulate(loading(**changes), engine=engine)
    assert trace.sent[:2].tolist() == pytest.approx([0.25, 0.5])


def test_ranks_make_room_on_the_cores_they_share() -> None:
    """Four workers on two cores take turns: the ranks have their first batches at 4.25 s and 3.5 s.

    At 13.75 s both send one. The first rank's main process comes before the second one sends, and
    finds a core free. That of the second one finds both taken, and goes on when turns are taken.
    """
    changes = {"job.ranks": 2, "machine.cores": 2, "machine.slice": 0.75, "consumer.step": 9.25}
    changes |= {"loader.prefetch_factor": 1, "dataset.length": 32}
    engines = ("simpy", "compiled")
    both = [dlsim.simulate_job(loading(**changes), engine=engine) for engine in engines]
    for one, other in zip(*(job.ranks for job in both), strict=True):
        assert one.returned.tolist() == pytest.approx(other.returned.tolist())
        assert one.sent.tolist() == pytest.approx(other.sent.tolist())
    first, second = both[0].ranks
    assert first.sent[2:4].tolist() == pytest.approx([4.25, 13.75])
    assert first.returned[:2].tolist() == pytest.approx([4.5, 13.75])
    assert second.sent[2:4].tolist() == pytest.approx([3.5, 13.75])
    assert second.returned[:2].tolist() == pytest.approx([3.75, 14.25])


def test_a_main_process_that_fetches_keeps_its_core() -> None:
    """Three ranks without workers fetch for 1 s on two cores, and compute steps of 1 s.

    The third one takes the core of the first, which waits until a step is over: who goes on with a
    step at once keeps its core.
    """
    alone = {"loader.num_workers": 0, "loader.prefetch_factor": "none", "loader.batch_size": 1}
    changes = {"job.ranks": 3, "job.deal": "same", "dataset.length": 1, "machine.cores": 2}
    changes |= {"machine.slice": 10.0, "consumer.step": 1.0, "consumer.device": "cpu"}
    for engine in ("simpy", "compiled"):
        found = dlsim.simulate_job(loading(**alone, **changes), engine=engine)
        assert [rank.fetched[0] for rank in found.ranks] == pytest.approx([3, 1, 1])


def test_slices_of_no_time_are_refused() -> None:
    """So are negative ones: at each multiple of the slice others compute."""
    for each in (0.0, -1.0, 1e-7):
        with pytest.raises(dlsim.ScenarioError, match=r"machine\.slice: expected"):
            loading(**{"machine.slice": each})


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
@pytest.mark.parametrize("interval", ["none", 5.0])
@pytest.mark.parametrize("cost", ["serialise.message", "hand_over.tensor"])
@pytest.mark.parametrize(
    ("lock", "cores", "fetched", "received"),
    [(0.0, 2, [2, 4, 6], 3), (0.5, 2, [2, 4.5, 7], 3.5), (0.0, 1, [2, 5, 8], 4)],
)
def test_a_worker_that_gives_back_the_lock_is_held_up_by_a_share(
    engine: str,
    cost: str,
    interval: object,
    lock: float,
    cores: int,
    fetched: list[float],
    received: float,
) -> None:
    """Pickling, or handing over, for 1 s from 2 s on, holds the worker up for half of it, or not.

    In the half in which it does, both share what the worker gets of the cores, until 3 s; the rest
    it does beside the worker, for which it needs a core: of a single one each has half. Nobody
    waits for an interval to end.
    """
    changes = {"loader.num_workers": 1, "dataset.length": 6, "machine.cores": cores}
    changes |= {"machine.switch_interval": interval, "costs.lock": lock, f"costs.{cost}": 1.0}
    trace = dlsim.simulate(loading(**changes), engine=engine)
    assert trace.fetched.tolist() == pytest.approx(fetched)
    assert trace.received[0] == pytest.approx(received)


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
def test_turns_are_few_however_short(engine: str) -> None:
    """Both threads of a worker compute for as long as they want, in turns of a part of it each."""
    changes = {"loader.num_workers": 1, "machine.cores": 2, "dataset.length": 4}
    changes |= {"costs.serialise.message": 1.0, "machine.switch_interval": 1e-12}
    trace = dlsim.simulate(loading(**changes), engine=engine)
    assert trace.fetched.tolist() == pytest.approx([2, 5])
    assert trace.arrived[0] == pytest.approx(4, abs=0.01)


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
def test_workers_that_wait_to_begin_with_wait_together(engine: str) -> None:
    """Each of two workers is blocked for 5 s, at the same time, however few the cores; once."""
    changes = {"costs.worker_wait": 5.0, "costs.worker_ready": 1.0, "machine.cores": 1}
    trace = dlsim.simulate(loading(**changes), engine=engine)
    assert trace.started[:2].tolist() == pytest.approx([7, 7])
    assert trace.started[2:4].tolist() == trace.fetched[:2].tolist()


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cost", ["first_sample", "first_cpu"])
def test_first_samples_take_longer_once_in_each_process(
    engine: str, workers: int, cost: str
) -> None:
    """The first batch of each worker, or of the main process, comes 5 s later; no other one."""
    settings = {"loader.num_workers": workers}
    if not workers:
        settings["loader.prefetch_factor"] = None
    plain = dlsim.simulate(loading(**settings), engine=engine)
    late = dlsim.simulate(loading(**settings, **{f"costs.{cost}": 5.0}), engine=engine)
    assert (late.fetched - plain.fetched).tolist() == pytest.approx([5.0] * len(plain))
    assert late.sent[0] == plain.sent[0]


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
def test_what_first_samples_compute_shares_the_cores(engine: str) -> None:
    """On one core, what two workers import with their first samples, 5 s each, takes both 10 s."""
    changes = {"costs.first_cpu": 5.0, "machine.cores": 1}
    trace = dlsim.simulate(loading(**changes), engine=engine)
    assert trace.started[:2].tolist() == pytest.approx([10, 10])


@pytest.mark.parametrize(
    ("cores", "background", "jobs", "expected"),
    [
        # The second one takes the core as it wakes; from then on they take turns of a second.
        (1, 0, [(0, 2, 0), (0, 2, 1)], [4, 3]),
        # Who wakes is done without a wait, and who computed goes on.
        (1, 0, [(0, 3, 0), (0.5, 0.25, 1)], [3.25, 0.75]),
        # The third one takes core 0 until 1. At 2, core 1 is free, and the third goes on there.
        (2, 0, [(0, 2, 0), (0, 2, 1), (0, 2, 2)], [3, 2, 3]),
        # As the third one comes, the first makes room, for 0.6 ms, and goes on on core 1.
        (2, 0, [(0, 3, 0), (0, 0.5006, 1), (0.5, 1, 2)], [3.0006, 0.5006, 1.5]),
        # After 0.4 ms it stays: they take turns on core 0, and core 1 rests.
        (2, 0, [(0, 3, 0), (0, 0.5004, 1), (0.5, 1, 2)], [4, 0.5004, 2.5]),
        # But for two ticks only: at 3 the third goes on on core 1.
        (2, 0, [(0, 3, 0), (0, 0.5004, 1), (0.5, 3, 2)], [4.5, 0.5004, 4.5]),
        # While two are there, both have 2/3 of the core, whoever computes; then the last has 1/2.
        (1, 1, [(0, 1, 0), (0, 1, 1)], [2.5 + 2 / 3, 2.5]),
        # Threads of a process share its turns.
        (1, 0, [(0, 1, 0), (0, 1, 0), (0, 1, 1)], [3, 3, 1]),
    ],
)
def test_processes_take_turns_at_ticks(
    cores: int,
    background: int,
    jobs: list[tuple[float, float, int]],
    expected: list[float],
) -> None:
    """A core computes for one at a time: for who woke last, and at each second for the next."""
    machine = dlsim.Machine(cores=cores, slice=1.0, background=background)
    assert served(jobs=jobs, by=lambda env: Ticking(env, machine)) == pytest.approx(expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_workers_take_turns_at_ticks(engine: str) -> None:
    """On one core the second worker computes until 1 s and from 2 to 3, the first between.

    The second goes on with its next batch as it would if nobody waited: nothing has blocked it.
    """
    trace = dlsim.simulate(loading(**{"machine.cores": 1, "machine.slice": 1.0}), engine=engine)
    assert trace.fetched[:2].tolist() == pytest.approx([5, 3])
    assert trace.end == pytest.approx(16)


WAITING = {"dataset.fetch.0.cpu": "none", "dataset.fetch.0.wait": 1.0, "epochs": 2}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("cost", "sent", "arrived", "returned"),
    [
        # Two workers have two batches each, of which the first takes until 2 s, the other until 4.
        ("first_start", (5.0, 0.0), ([7, 7, 9, 9], [2, 2, 4, 4]), ([7, 7, 9, 9], [2, 2, 4, 4])),
        ("first_put", (5.0, 5.0), ([7, 7, 9, 9],) * 2, ([7, 7, 9, 9],) * 2),
        ("first_next", (0.0, 0.0), ([2, 2, 4, 4],) * 2, ([5, 5, 5, 5], [2, 2, 4, 4])),
        ("first_receive", (0.0, 0.0), ([2, 2, 4, 4],) * 2, ([7, 7, 7, 7], [2, 2, 4, 4])),
        # What a feeder thread has still to do of the first batch, the second one waits for.
        ("first_serialise", (0.0, 0.0), ([7, 7, 7, 7],) * 2, ([7, 7, 7, 7],) * 2),
    ],
)
def test_what_is_done_first_takes_longer_once(
    engine: str, cost: str, sent: object, arrived: object, returned: object
) -> None:
    """Of each run, or of each start of workers, the first of its kind takes 5 s longer."""
    trace = dlsim.simulate(loading(**WAITING, **{f"costs.{cost}": 5.0}), engine=engine)
    for epoch, first in enumerate(trace.epochs.first):
        began, batches = trace.epochs.started[epoch], slice(first, first + 4)
        assert trace.sent[first] - began == pytest.approx(sent[epoch])
        assert (trace.arrived[batches] - began).tolist() == pytest.approx(arrived[epoch])
        assert (trace.returned[batches] - began).tolist() == pytest.approx(returned[epoch])


@pytest.mark.parametrize("engine", ENGINES)
def test_without_workers_only_next_has_a_first_one(engine: str) -> None:
    """There is no worker to be started, to be sent anything, or to pickle."""
    settings = {"loader.num_workers": 0, "loader.prefetch_factor": None}
    firsts = {f"costs.first_{name}": 5.0 for name in ("start", "put", "serialise", "next")}
    trace = dlsim.simulate(loading(**settings, **firsts), engine=engine)
    assert trace.returned.tolist() == pytest.approx([7 + 2 * batch for batch in range(8)])


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
@pytest.mark.parametrize(
    ("workers", "cores", "second"), [(1, 2, 2), (2, 2, 4), (2, 4, 2), (2, 1, 8)]
)
def test_threads_of_libraries_take_cores(engine: str, workers: int, cores: int, second: int):
    """Two threads of 2 s each for a batch: a worker keeps two cores busy, two workers four."""
    changes = {"loader.num_workers": workers, "machine.cores": cores, "dataset.fetch.0.threads": 2}
    trace = dlsim.simulate(loading(**changes), engine=engine)
    assert trace.fetched[:workers].tolist() == pytest.approx([second] * workers)


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
def test_a_host_that_spins_takes_a_core(engine: str) -> None:
    """On one core, the host's wait for a step of 2 s leaves a worker half of the core meanwhile.

    Of the second batch, which takes 2 s, it has done 1 s by the end of that step, at 4 s.
    """
    changes = {
        "loader.num_workers": 1,
        "dataset.length": 4,
        "machine.cores": 1,
        "consumer.step": 2.0,
    }
    ends = {}
    for spin in (False, True):
        scenario = loading(**changes, **{"consumer.spin": spin})
        ends[spin] = dlsim.simulate(scenario, engine=engine).fetched.tolist()
    assert ends == {False: pytest.approx([2, 4]), True: pytest.approx([2, 5])}


def test_storage_bandwidth_is_shared() -> None:
    """Two workers that read together get half the bandwidth each."""
    changes = {
        "dataset.fetch.0.cpu": "none",
        "dataset.fetch.0.read_bytes": 100.0,
        "machine.storage.bandwidth": 100.0,
    }
    trace = dlsim.simulate(loading(**changes))
    assert trace.fetched[:2].tolist() == pytest.approx([4, 4])
    assert trace.end == pytest.approx(16)


def test_storage_request_rate_is_capped() -> None:
    """Reads begin no faster than the storage takes requests."""
    changes = {
        "dataset.fetch.0.cpu": "none",
        "dataset.fetch.0.read_bytes": 1.0,
        "machine.storage.requests_per_second": 2.0,
    }
    assert dlsim.simulate(loading(**changes)).end == pytest.approx(7.5)


def test_page_cache_warms_up() -> None:
    """The first epoch reads everything; later ones only what did not fit into the cache."""
    changes = {
        "dataset.fetch.0.cpu": "none",
        "dataset.fetch.0.read_bytes": 100.0,
        "machine.storage.bandwidth": 100.0,
        "machine.storage.cache": 1200.0,
        "epochs": 2,
        "loader.num_workers": 1,
    }
    trace = dlsim.simulate(loading(**changes))
    epochs = trace.epochs.ended - trace.epochs.started
    assert epochs.tolist() == pytest.approx([16, 4])


def test_page_cache_keeps_stages_apart() -> None:
    """What one stage has read of a sample is not what another stage reads of it."""
    stage = dlsim.Stage("part", read_bytes=dlsim.Constant(100.0))
    changes = {
        "dataset.fetch": [stage, stage],
        "machine.storage.bandwidth": 100.0,
        "machine.storage.cache": 1e6,
        "epochs": 2,
        "loader.num_workers": 1,
    }
    for engine in ENGINES:
        trace = dlsim.simulate(loading(**changes), engine=engine)
        epochs = trace.epochs.ended - trace.epochs.started
        assert epochs.tolist() == pytest.approx([2 * 16, 0])


def test_page_cache_of_calls_for_whole_batches() -> None:
    """A call of `__getitems__` finds its data in the cache if all its samples are there."""
    changes = {
        "dataset.fetch": [dlsim.Stage("read", read_bytes=dlsim.Constant(100.0))],
        "dataset.batched": True,
        "loader.batch_size": 1,
        "loader.batch_sampler": [[0, 1], [2], [1, 0], [1, 2], [1, 3]],
        "machine.storage.bandwidth": 100.0,
        "machine.storage.cache": 1e6,
        "loader.num_workers": 1,
    }
    for engine in ENGINES:
        trace = dlsim.simulate(loading(**changes), engine=engine)
        assert (trace.fetched - trace.started).tolist() == pytest.approx([1, 1, 0, 0, 1])


@pytest.mark.parametrize("cache", [0.0, 1e6])
def test_reads_of_nothing_are_not_cached(cache: float) -> None:
    """A read of zero bytes leaves nothing in the page cache: it takes its latency every time."""
    changes = {
        "dataset.fetch": [dlsim.Stage("look", read_bytes=dlsim.Constant(0.0))],
        "machine.storage.latency": 1.0,
        "machine.storage.cache": cache,
        "epochs": 2,
        "loader.num_workers": 1,
    }
    for engine in ENGINES:
        trace = dlsim.simulate(loading(**changes), engine=engine)
        epochs = trace.epochs.ended - trace.epochs.started
        assert epochs.tolist() == pytest.approx([16, 16])


def test_host_runs_ahead_of_the_accelerator() -> None:
    """With run_ahead = 1 the host asks for the next batch while the step is under way."""
    changes = {"consumer.step": 3.0, "consumer.run_ahead": 1}
    trace = dlsim.simulate(loading(**changes))
    assert trace.requested[1] == trace.returned[0]
    assert np.all(np.diff(trace.finished) >= 3.0 - 1e-12)
    assert trace.end == trace.finished[-1]


def test_copies_overlap_with_steps() -> None:
    """An overlapped copy hides behind the step; one that is not adds to it."""
    changes = {
        "consumer.step": 3.0,
        "consumer.run_ahead": 1,
        "costs.copy_byte": 1e-6,
        "dataset.sample_bytes": 5e5,
        "dataset.length": 8,
        "dataset.fetch.0.cpu": 0.0,
    }
    hidden = dlsim.simulate(loading(**changes, **{"consumer.overlap_copy": True}))
    serial = dlsim.simulate(loading(**{**changes, "consumer.run_ahead": 0}))
    assert hidden.end == pytest.approx(4 * 3 + 1)
    assert serial.end == pytest.approx(4 * (3 + 1))


@pytest.mark.parametrize(
    ("pinned", "overlap", "requested", "finished"),
    [
        # In turn with the steps, and the host does not wait for it: 1 + 3 s a batch.
        (True, False, [0, 0, 0, 0], [4, 8, 12, 16]),
        # Beside the steps: the first copy alone is waited for.
        (True, True, [0, 0, 0, 0], [4, 7, 10, 13]),
        # The host copies, and waits for the step before.
        (False, False, [0, 1, 5, 9], [4, 8, 12, 16]),
        (False, True, [0, 0, 0, 0], [4, 7, 10, 13]),
    ],
)
def test_copies_of_a_host_that_runs_ahead(pinned, overlap, requested, finished) -> None:
    """A pinned batch the accelerator copies by itself, another one the host."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(pin_memory=pinned),
        dataset=dlsim.MapDataset(4, sample_bytes=dlsim.Constant(2e6)),
        consumer=dlsim.Consumer(step=dlsim.Constant(3.0), run_ahead=9, overlap_copy=overlap),
        costs=dlsim.Costs(copy_byte=0.5e-6),
    )
    for engine in ENGINES:
        trace = dlsim.simulate(scenario, engine=engine)
        assert trace.requested.tolist() == requested
        assert trace.finished.tolist() == finished
        small = dlsim.replace(scenario, {"dataset.sample_bytes": 1e6})
        assert not dlsim.simulate(small, engine=engine).requested.any()


def test_start_and_end_cost() -> None:
    """Workers start one after another, and get ready and exit beside each other."""
    changes = {
        "costs.worker_start": 1.0,
        "costs.worker_ready": 5.0,
        "costs.worker_stop": 0.5,
        "dataset.length": 2,
    }
    trace = dlsim.simulate(loading(**changes))
    assert trace.epochs.primed[0] == 2
    assert trace.started[0] == 6
    assert trace.end == pytest.approx(8 + 0.5)


@pytest.mark.parametrize("where", ["worker_ready", "read"])
def test_workers_that_do_not_stop_are_terminated(where: str) -> None:
    """After five seconds a worker is gone, whatever it does, and its share with it."""
    changes = {
        "dataset.fetch": [dlsim.Stage("read", read_bytes=dlsim.Constant(100.0))],
        "machine.storage.bandwidth": 200.0,
        "consumer.stop_after": 1,
        "loader.num_workers": 1,
        "epochs": 2,
    }
    if where == "worker_ready":
        changes |= {"costs.worker_ready": 100.0, "loader.num_workers": 2, "dataset.length": 0}
        ends = [10.0, 20.0]
    else:
        changes |= {"machine.storage.bandwidth": 20.0}
        ends = [10.0 + 5.0, 30.0]
    for engine in ENGINES:
        trace = dlsim.simulate(loading(**changes), engine=engine)
        assert trace.epochs.ended.tolist() == pytest.approx(ends)


def test_pin_memory_thread_ends_with_the_epoch() -> None:
    """At the end of an epoch the thread finishes the batch it is at, and takes no other."""
    changes = {
        "costs.pin.message": 3.0,
        "dataset.fetch.0.cpu": 0.5,
        "consumer.stop_after": 1,
        "loader.pin_memory": True,
    }
    for engine in ENGINES:
        trace = dlsim.simulate(loading(**changes), engine=engine)
        # Batch 0 is pinned at 4; by then the thread is at batch 1, which it finishes at 7.
        assert trace.end == pytest.approx(7)
        assert np.isnan(trace.received[2:]).all()
