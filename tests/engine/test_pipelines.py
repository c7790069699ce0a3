"""Pipelines of stages: SPDL's and torchdata.nodes', as they were seen, published, and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dlsim
from dlsim import Constant, Pipeline, Recorded, ScenarioError, Stage
from dlsim.cli import main
from dlsim.engine.progress import watched
from dlsim.report.pipeline_text import pipeline_text
from dlsim.scenario.pipeline import (
    GRAIN,
    NODES,
    SPDL,
    Aggregate,
    Batcher,
    Link,
    Mapper,
    ParallelMapper,
    Pipe,
    Prefetcher,
    Read,
    Region,
    Unbatcher,
    Workers,
)
from dlsim.trace.pipeline import PipelineTrace


def wait(seconds: float) -> Stage:
    """A stage that takes so long, and no core."""
    return Stage("work", wait=Constant(seconds))


def run(like: str, *links: Link, length: int = 100, **more: Any) -> PipelineTrace:
    """What happens in a pipeline."""
    return dlsim.simulate_pipeline(Pipeline(like=like, length=length, links=links, **more))


@pytest.mark.parametrize(
    ("stages", "concurrency", "published"),
    [((25,), 1, 32.9), ((35,), 1, 27.9), ((10, 25, 40), 1, 24.6), ((10, 25, 40), 2, 32.75)],
)
def test_spdl_s_published_figures(
    stages: tuple[int, ...], concurrency: int, published: float
) -> None:
    """Items a second beside a step of 30 ms, of stages of so many ms, come out within 3 %."""
    pipes = [Pipe(wait(ms / 1000), concurrency=concurrency) for ms in stages]
    found = run(SPDL, *pipes, length=1000, step=Constant(0.03), num_threads=8)
    assert found.items_per_s == pytest.approx(published, rel=0.03)


def test_what_spdl_has_begun_while_training_idles() -> None:
    """One item taken: 3 at the sink, 1 in hand, 2 in the queue, 4 tasks; the source 3 more."""
    found = run(SPDL, Pipe(wait(0.01), concurrency=4), stop_after=1)
    assert [len(stage.began) for stage in found.stages] == [14, 11]
    # before a later stage, as many as that holds besides
    more = run(SPDL, Pipe(wait(0.01), concurrency=3), Pipe(wait(0.01)), stop_after=1)
    assert len(more.stages[2].began) == 1 + 3 + 1 + 2 + 1
    assert len(more.stages[1].began) == len(more.stages[2].began) + 2 + 3


@pytest.mark.parametrize(("threads", "seen"), [(4, 0.45), (8, 0.50)])
def test_spdl_in_order_of_input(threads: int, seen: float) -> None:
    """Of ten items one that takes ten times as long halves the rate of four tasks at a time.

    What was seen of 200 items: with four threads less, as one that is done lies in one's place.
    """
    slow = Stage("work", wait=Recorded([1.0 if item % 10 == 3 else 0.1 for item in range(200)]))

    def rate(order: str) -> float:
        pipe = Pipe(slow, concurrency=4, output_order=order)
        return run(SPDL, pipe, length=200, num_threads=threads).items_per_s

    assert rate("input") / rate("completion") == pytest.approx(seen, rel=0.03)
    in_order = run(SPDL, Pipe(slow, concurrency=4, output_order="input"), length=40)
    assert in_order.item.tolist() == [*range(40)]
    assert run(SPDL, Pipe(slow, concurrency=4), length=40).item.tolist() != [*range(40)]


def test_threads_that_stages_share() -> None:
    """Two stages of four tasks on four threads do half of what they do on eight."""
    pipes = [Pipe(wait(0.1), concurrency=4)] * 2
    shared, enough = (run(SPDL, *pipes, length=400, num_threads=n).rate for n in (4, 8))
    assert shared == pytest.approx(20, rel=0.03)
    assert enough == pytest.approx(40, rel=0.03)


def test_aggregate() -> None:
    """Four items become one; what is left over comes last, or not at all."""
    found = run(SPDL, Pipe(wait(0.1)), Aggregate(4), length=10)
    assert found.returned == pytest.approx([0.4, 0.8, 1.0])
    assert len(run(SPDL, Aggregate(4, drop_last=True), length=10).item) == 2


def test_a_region_deals_items_to_its_processes_in_turn() -> None:
    """Item i goes to process i mod n, however busy that is; in one all share, who is free has it.

    Of two processes one ten times slower was seen to give what two of the slower ones would.
    """
    times = [0.2 if item % 2 else 0.02 for item in range(200)]
    stage = Stage("work", wait=Recorded(times))
    region = run(SPDL, Region((Pipe(stage),), workers=2), length=200)
    assert region.rate == pytest.approx(2 / 0.2, rel=0.03)
    began = region.stages[1].began[np.argsort(region.stages[1].item)]
    assert np.diff(began[1::2]) == pytest.approx(0.2)
    shared = run(SPDL, Pipe(stage, concurrency=2), length=200)
    assert shared.rate == pytest.approx(2 / 0.11, rel=0.03)


def test_what_a_region_has_begun_while_training_idles() -> None:
    """One item taken: each process has one in hand, three at its sink, two queued, one at work.

    The stage has the items that came back, too: in the queue of results, and behind it.
    """
    pipe = Pipe(wait(0.01))
    found = run(SPDL, Region((pipe, pipe), workers=2), stop_after=1)
    back, behind = 4, 1 + 3 + 1 + 2 + 1  # results; taken, at the sink, in hand, queued, in hand
    assert len(found.stages[2].began) == back + behind + 2 * (1 + 3 + 1 + 2 + 1)
    assert len(found.stages[1].began) == len(found.stages[2].began) + 2 * (2 + 1)
    inboxes = 2 * (4 + 1 + 2)  # and one in the source's hand for each, and two queued
    assert len(found.stages[0].began) == len(found.stages[1].began) + inboxes + 1 + 2 + 1


@pytest.mark.parametrize(("lock", "rate"), [(0.0, 20.0), (0.5, 20.0), (1.0, 10.0)])
def test_processes_have_a_lock_each(lock: float, rate: float) -> None:
    """Of two processes with two threads each, one thread of each can hold its process's lock."""
    stage = Stage("work", cpu=Constant(0.2), lock=lock)
    region = Region((Pipe(stage, concurrency=2),), workers=2)
    assert run(SPDL, region, length=400).rate == pytest.approx(rate, rel=0.03)
    read = Read(stage, num_threads=2, prefetch_buffer_size=8)
    assert run(GRAIN, read, Workers(2), length=400).rate == pytest.approx(rate, rel=0.03)
    assert run(GRAIN, read, length=400).rate == pytest.approx(rate / 2, rel=0.03)


@pytest.mark.parametrize("buffer", [1, 3])
def test_what_grain_has_ready_while_training_idles(buffer: int) -> None:
    """Each process has 2 b + 2 elements ahead, and its threads as many reads as were asked for."""
    read = Read(wait(0.01), num_threads=2, prefetch_buffer_size=5)
    found = run(GRAIN, read, Workers(2, buffer), stop_after=1)
    ahead = 2 * (2 * buffer + 2)
    assert len(found.stages[1].began) == 1 + ahead + 2 * 5
    batched = run(GRAIN, read, Batcher(3), Workers(2, buffer), stop_after=1)
    assert len(batched.stages[1].began) == 3 * (1 + ahead) + 2 * 5


def test_grain_takes_one_of_each_process_in_strict_turns() -> None:
    """A slow process holds up all; one that has ended is passed over; batches are made in each."""
    slow = Stage("work", wait=Recorded([0.1 if item % 2 else 0.001 for item in range(41)]))
    read = Read(slow, num_threads=1, prefetch_buffer_size=1)
    found = run(GRAIN, read, Workers(2), length=41)
    assert found.item.tolist() == [*range(41)]
    assert found.rate == pytest.approx(20, rel=0.03)
    parts = run(GRAIN, Read(wait(0.01)), Batcher(4, drop_last=False), Workers(3), length=14)
    # 0 3 6 9 | 12, 1 4 7 10 | 13, and 2 5 8 11
    assert parts.item.tolist() == [0, 1, 2, 12, 13]
    whole = run(GRAIN, Batcher(4, drop_last=False), Read(wait(0.01)), Workers(3), length=14)
    assert whole.item.tolist() == [0, 4, 8, 12]


def test_grain_reads_ahead_only_when_asked() -> None:
    """The first item begins as many reads as there are to be ahead, each one more after it."""
    read = Read(wait(0.1), num_threads=2, prefetch_buffer_size=4)
    found = run(GRAIN, read, length=20, step=Constant(1.0))
    began = np.sort(found.stages[1].began)
    assert began[:5] == pytest.approx([0.0, 0.0, 0.1, 0.1, 0.2])
    assert began[5:8] == pytest.approx([1.1, 2.1, 3.1])
    # what comes behind is done one after another, by whoever asks
    mapped = run(GRAIN, read, Mapper(wait(0.3)), length=20)
    assert mapped.rate == pytest.approx(1 / 0.3, rel=0.01)


def test_what_nodes_have_begun_while_training_idles() -> None:
    """A slot is given back when an item is given out: 2 workers have 4, and chains add up."""
    mapper = ParallelMapper(wait(0.01), num_workers=2)
    assert len(run(NODES, mapper, stop_after=1).stages[1].began) == 5
    assert len(run(NODES, mapper, Prefetcher(3), stop_after=1).stages[1].began) == 8
    lists = ParallelMapper(wait(0.01), num_workers=2, prebatch=3)
    assert len(run(NODES, lists, stop_after=1).stages[0].began) == 3 * (1 + 4)
    one = ParallelMapper(wait(0.01), num_workers=2, max_concurrent=1)
    assert len(run(NODES, one, stop_after=1).stages[1].began) == 2


def test_nodes_in_any_order() -> None:
    """In order, a slow item holds back the others, which keep their slots; else they come first."""
    slow = Stage("work", wait=Recorded([1.0, *[0.1] * 19]))
    ordered = run(NODES, ParallelMapper(slow, num_workers=2), length=20)
    assert ordered.item.tolist() == [*range(20)]
    assert (ordered.stages[1].began < 1.0).sum() == 4
    free = run(NODES, ParallelMapper(slow, num_workers=2, in_order=False), length=20)
    assert free.item.tolist()[:3] == [1, 2, 3]
    assert free.elapsed < ordered.elapsed


def test_batches_of_nodes() -> None:
    """A Batcher reads where a batch is asked for, and drops the rest; an Unbatcher undoes it."""
    source = wait(0.1)
    batches = run(NODES, Batcher(4), length=10, source=source)
    assert batches.returned == pytest.approx([0.4, 0.8])
    assert run(NODES, Batcher(4, drop_last=False), length=10).item.tolist() == [0, 4, 8]
    both = run(NODES, Batcher(4), Prefetcher(1), Unbatcher(), length=8, source=source)
    assert both.item.tolist() == [*range(8)]
    assert both.returned == pytest.approx([0.4] * 4 + [0.8] * 4)


def test_a_mapper_of_batches_in_lots() -> None:
    """A mapper may take several batches at a time: it works on all their items."""
    mapper = ParallelMapper(wait(0.1), num_workers=1, prebatch=2)
    found = run(NODES, Batcher(3), mapper, length=12)
    assert found.item.tolist() == [0, 3, 6, 9]
    assert found.returned == pytest.approx([0.6, 0.6, 1.2, 1.2])


def test_mappers_of_nodes_start_one_after_another() -> None:
    """Each sleeps for 10 ms when its threads are started, and only then the next one is begun."""
    mappers = [ParallelMapper(wait(0.002), num_workers=1)] * 3
    found = run(NODES, *mappers, length=5)
    assert [stage.began[0] for stage in found.stages[1:]] == pytest.approx([0.0, 0.01, 0.02])
    assert found.requested[0] == 0.0
    assert found.returned[0] == pytest.approx(0.03)


@pytest.mark.parametrize(("lock", "rate"), [(0.0, 20.0), (0.5, 10.0), (1.0, 5.0)])
def test_threads_share_the_lock(lock: float, rate: float) -> None:
    """Four tasks of 0.2 s of a core: as many as hold it for their share of the time."""
    stage = Stage("work", cpu=Constant(0.2), lock=lock)
    assert run(SPDL, Pipe(stage, concurrency=4), length=400).rate == pytest.approx(rate, rel=0.01)
    mapper = ParallelMapper(stage, num_workers=4)
    assert run(NODES, mapper, length=400).rate == pytest.approx(rate, rel=0.01)


def test_cores_are_shared() -> None:
    """Four tasks on two cores do what two do."""
    stage, machine = Stage("work", cpu=Constant(0.2)), dlsim.Machine(cores=2)
    found = run(SPDL, Pipe(stage, concurrency=4), length=400, machine=machine)
    assert found.rate == pytest.approx(10, rel=0.01)


def test_the_same_seed_gives_the_same_run() -> None:
    """Random times belong to items, whatever the order in which they are done."""
    stage = Stage("work", wait=dlsim.Exponential(0.1))
    one, again = (run(SPDL, Pipe(stage, concurrency=4), length=50) for _ in range(2))
    assert np.array_equal(one.finished, again.finished)
    alone = run(SPDL, Pipe(stage), length=50)
    took = {
        moments.item[i]: moments.ended[i] - moments.began[i]
        for moments in one.stages[1:]
        for i in range(50)
    }
    assert [took[item] for item in range(50)] == pytest.approx(
        (alone.stages[1].ended - alone.stages[1].began).tolist()
    )


@pytest.mark.parametrize(
    ("links", "said"),
    [
        (
            '[[links]]\nkind = "map"\nnum_workers = 1\nstage = { name = "a" }',
            "links.0: expected one of Pipe",
        ),
        ('[[links]]\nkind = "pipe"\nconcurrency = 0\nstage = { name = "a" }', "concurrency"),
        ("buffer_size = 0\nlinks = []", "buffer_size"),
        (
            '[[links]]\nkind = "region"\nworkers = 2\n[[links.links]]\nkind = "pipe"\n'
            'output_order = "input"\nstage = { name = "a" }',
            "links.0: expected a pipe in order of completion",
        ),
    ],
)
def test_bad_pipelines_are_refused(links: str, said: str, tmp_path: Path, capsys: Any) -> None:
    """One line, with file and key, and exit status 2."""
    file = tmp_path / "bad.toml"
    file.write_text(f'like = "spdl-0.8"\nlength = 3\n{links}\n')
    assert main(["pipeline", str(file)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_refuses_more_slots_than_workers() -> None:
    """torchdata.nodes refuses `max_concurrent` above `num_workers`; so is it here."""
    with pytest.raises(ScenarioError, match="max_concurrent: expected at most num_workers"):
        ParallelMapper(wait(1), num_workers=2, max_concurrent=3)


@pytest.mark.parametrize(
    ("links", "said"),
    [
        ((Mapper(wait(1)),), "links: expected one read, with nothing but a batch before it"),
        ((Read(wait(1)), Read(wait(1))), "links: expected one read"),
        ((Mapper(wait(1)), Read(wait(1))), "links: expected one read"),
        ((Read(wait(1)), Workers(2), Mapper(wait(1))), "links: expected workers behind all others"),
        (
            (Read(wait(1)), Prefetcher(2)),
            r"links\.1: expected one of Batcher, Read, Mapper, Workers",
        ),
    ],
)
def test_grain_has_its_links_in_order(links: tuple[Link, ...], said: str) -> None:
    """First what reads, then what is done behind, and processes around all of it."""
    with pytest.raises(ScenarioError, match=said):
        run(GRAIN, *links)


def test_the_shipped_pipeline_is_told(capsys: Any) -> None:
    """The command says how fast it is, and how many each stage does at a time."""
    assert main(["pipeline", "scenarios/pipelines/spdl_three_stages.toml"]) == 0
    said = capsys.readouterr().out
    assert "25 items/s once it is filled" in said
    assert "transform" in said


@pytest.mark.parametrize(
    ("length", "wait", "said"), [(0, 0.1, "No item came to training."), (3, 0.0, "waits - of")]
)
def test_a_pipeline_in_which_nothing_happens_is_told(length: int, wait: float, said: str) -> None:
    """Without items, and without time, nothing is told that is no number."""
    links = (Pipe(Stage("read", wait=Constant(wait))),)
    told = pipeline_text(
        dlsim.simulate_pipeline(Pipeline(like="spdl-0.8", length=length, links=links))
    )
    assert said in told
    assert "nan" not in told


def test_a_pipeline_tells_how_far_it_is() -> None:
    """What simulating takes is announced before it begins, and all of it is done in the end."""
    links = (Pipe(Stage("read", wait=Constant(0.1))),)
    told = []
    with watched() as known:
        known.heard = lambda: told.append((known.done, known.expected))
        dlsim.simulate_pipeline(Pipeline(like="spdl-0.8", length=50, links=links))
    assert told == [(0.0, known.done)]
