"""What is written down of a sample, and at what cost."""

from __future__ import annotations

import os
from collections import Counter
from itertools import chain, cycle
from resource import RUSAGE_THREAD, getrusage

import numpy as np
import psutil
import pytest
from torch.utils.data import DataLoader

from dlsim.validation.observing import cpu_time, machine, probe
from dlsim.validation.observing.records import read
from dlsim.validation.observing.run import observe
from dlsim.validation.observing.siblings import pairs, siblings
from dlsim.validation.observing.wrapped_dataset import WatchedMap


class Thread:
    """The clocks of a thread in virtual time, and how often it asks the system."""

    def __init__(self, monkeypatch):
        self.time, self.cpu, self.queued, self.asked = 100.0, 7.0, 3.0, Counter()
        self.turns, self.blocked = 5, 2
        monkeypatch.setattr(cpu_time, "monotonic", lambda: self.time)
        monkeypatch.setattr(cpu_time, "thread_time", lambda: self.ask("cpu"))
        monkeypatch.setattr(cpu_time, "blockings", lambda: self.ask("blocked"))
        monkeypatch.setattr(
            cpu_time.QueueClock, "turns", lambda _: cpu_time.Turns(self.ask("queued"), self.turns)
        )

    def ask(self, what):
        """What the system says."""
        self.asked[what] += 1
        return getattr(self, what)

    def computes(self, seconds):
        """It is on a core."""
        self.time, self.cpu = self.time + seconds, self.cpu + seconds

    def waits(self, seconds):
        """It waits for a core."""
        self.time, self.queued = self.time + seconds, self.queued + seconds
        self.turns += 1

    def sleeps(self, seconds):
        """It wants no core."""
        self.time += seconds
        self.turns, self.blocked = self.turns + 1, self.blocked + 1


@pytest.fixture
def thread(monkeypatch):
    """The thread that is watched."""
    return Thread(monkeypatch)


def since(clock, before):
    """Time, CPU and waiting since a reading."""
    return tuple(now - then for now, then in zip(clock(), before, strict=True))


def test_what_a_thread_used_is_told(thread):
    """Computing, waiting for a core and sleeping are told apart, whatever comes first."""
    clock = cpu_time.ThreadClock()
    before = clock()
    thread.computes(0.001)
    assert since(clock, before) == pytest.approx((0.001, 0.001, 0))
    thread.waits(0.004)
    assert since(clock, before) == pytest.approx((0.005, 0.001, 0.004))
    thread.sleeps(0.1)
    thread.computes(0.002)
    assert since(clock, before) == pytest.approx((0.107, 0.003, 0.004))


def test_who_loses_its_core_while_it_is_asked_has_not_computed_less(thread, monkeypatch):
    """The wait for a core comes between looking at the clock and what the system says of it."""
    clock = cpu_time.ThreadClock()
    before = clock()
    thread.computes(0.001)
    said, waits = thread.ask, iter((0.004, 0.0))

    def late(what):
        if what == "queued":
            thread.waits(next(waits))
        return said(what)

    monkeypatch.setattr(thread, "ask", late)
    assert since(clock, before) == pytest.approx((0.005, 0.001, 0.004))


def test_short_waits_are_not_lost(thread):
    """Waits too short to be looked for are told as soon as they add up to what is not."""
    clock = cpu_time.ThreadClock()
    before = clock()
    for _ in range(100):
        thread.computes(30e-6)
        thread.waits(1e-6)
        told = since(clock, before)
        assert told[2] == pytest.approx(thread.queued - 3.0, abs=1.01 * cpu_time.JUST)
    assert told[2] > 0


def test_a_thread_that_is_not_blocked_is_not_asked_what_it_used(thread):
    """Linux looks then whether it has had its share of the core; all else follows from the rest."""
    clock = cpu_time.ThreadClock()
    thread.computes(0.001)
    clock()
    thread.asked.clear()
    for _ in range(50):
        thread.computes(1e-6)  # from the end of a sample to the next
        before = clock()
        thread.computes(50e-6)
        assert since(clock, before) == pytest.approx((50e-6, 50e-6, 0))
    assert thread.asked == {"queued": 50}
    thread.waits(0.004)
    assert since(clock, before) == pytest.approx((0.00405, 50e-6, 0.004))
    assert (thread.asked["blocked"], thread.asked["cpu"]) == (1, 0)
    thread.sleeps(0.01)
    assert since(clock, before) == pytest.approx((0.01405, 50e-6, 0.004))
    assert thread.asked["cpu"] == 1


def test_what_a_thread_used_is_asked_where_the_system_tells_no_turns(thread, monkeypatch):
    """Elsewhere than in Linux."""
    monkeypatch.setattr(cpu_time.QueueClock, "turns", lambda clock: cpu_time.UNTOLD)
    clock = cpu_time.ThreadClock()
    before = clock()
    thread.computes(0.001)
    thread.sleeps(0.1)
    assert since(clock, before) == pytest.approx((0.101, 0.001, 0))


def test_a_sample_is_written_without_a_system_call(tmp_path, monkeypatch):
    """Samples are in the file at once, in order, however many; the file grows by whole pages."""
    writes, put = [], os.write
    monkeypatch.setattr(os, "write", lambda file, data: writes.append(len(data)) or put(file, data))
    watching = probe.Probe(tmp_path, samples=True)
    watching.open(0)
    batches = range(probe.ROOM - 1), range(3), range(probe.ROOM + 2)
    count = sum(map(len, batches))
    watched = WatchedMap(range(count), watching)
    for batch in batches:
        assert watched.__getitems__((5, batch)) == [*batch]
    watching.settle()
    page = probe.ROOM * probe.FETCHED.size
    assert writes == [*[probe.ROOM * probe.RECORD.size] * 2, page, page, 2 * page]
    rows = read(tmp_path)
    watching.close()
    taken = rows["kind"] == probe.TAKEN
    assert taken.sum() == len(batches)
    assert set(rows["kind"][~taken]) == {probe.SAMPLE}
    assert rows["what"][~taken].tolist() == [*chain(*batches)]
    assert set(rows["batch"]) == {5}
    assert set(rows["worker"]) == {0}
    assert set(rows["process"]) == {os.getpid()}
    assert (rows["cpu"] >= 0).all()
    assert (np.diff(rows["began"]) >= 0).all()
    assert (rows["ended"] >= rows["began"]).all()


@pytest.mark.parametrize(
    ("told", "usable", "pair"),
    [
        ({0: "0,8", 8: "0,8"}, range(16), (0, [8])),
        ({1: "1", 2: "2-3", 3: "2-3"}, [1, 2, 3], (2, [3])),
        ({0: "0,8", 8: "0,8"}, [0, 1, 2, 3], (0, [1, 2])),
        ({0: "0", 1: "1"}, [0, 1], (0, [1])),
        ({}, [5], (5, [])),
    ],
)
def test_cores_that_may_be_siblings_are_tried(tmp_path, told, usable, pair):
    """Those that the system names, if this process may use both, else a few that may well be."""
    for core, names in told.items():
        folder = tmp_path / f"cpu{core}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(names + "\n")
    core, others = pairs(list(usable), tmp_path)
    assert (core, list(others)) == pair


def test_asking_for_siblings_leaves_no_trace():
    """A share comes of it, no process goes on spinning, and this one may use the cores it might."""
    usable, children = os.sched_getaffinity(0), set(psutil.Process().children())
    siblings.cache_clear()
    assert 0 < siblings() <= 1
    assert os.sched_getaffinity(0) == usable
    assert set(psutil.Process().children()) <= children


def test_samples_have_the_time_and_the_cpu_that_they_took(tmp_path, thread, monkeypatch):
    """Short ones are asked for together; a sample that waits, or sleeps, has that for itself."""
    monkeypatch.setattr(probe, "monotonic", lambda: thread.time)

    class Rows:
        def __getitem__(self, index):
            thread.computes(30e-6)
            if index == 20:
                thread.waits(0.004)
            if index == 30:
                thread.sleeps(0.01)
            return index

    watching = probe.Probe(tmp_path, samples=True)
    watching.open(0)
    watched = WatchedMap(Rows(), watching)
    thread.asked.clear()
    watched.__getitems__((0, range(40)))
    watching.settle()
    assert thread.asked["cpu"] < 15
    rows = read(tmp_path)
    watching.close()
    samples = rows[rows["kind"] == probe.SAMPLE]
    took = samples["ended"] - samples["began"]
    assert took == pytest.approx([30e-6] * 20 + [4.03e-3] + [30e-6] * 9 + [0.01003] + [30e-6] * 9)
    slept = took - samples["cpu"] - samples["queued"]
    assert samples["queued"][20] == pytest.approx(0.004)
    assert slept[30] == pytest.approx(0.01)
    assert samples["cpu"] == pytest.approx(30e-6, rel=1e-6)
    assert samples["cpu"].sum() == pytest.approx(40 * 30e-6)
    assert samples["queued"].sum() == pytest.approx(0.004)


def test_indices_that_are_no_integers_are_none(tmp_path):
    """A sample's index is -1 where it is none of 64 bits."""
    watching = probe.Probe(tmp_path, samples=True)
    watching.open(0)
    indices = ["a", 1 << 70, np.int32(7), 2.5, True]
    WatchedMap(dict.fromkeys(indices), watching).__getitems__((0, indices))
    watching.settle()
    rows = read(tmp_path)
    watching.close()
    assert rows["what"][rows["kind"] == probe.SAMPLE].tolist() == [-1, -1, 7, -1, 1]


def test_the_pace_of_a_core_is_not_that_of_its_best_moment(monkeypatch):
    """One third of the time it is four times as slow: twice as slow on average."""
    times = cycle([1.0, 4.0, 1.0])
    monkeypatch.setattr(machine, "spin", lambda: next(times))
    assert machine.pace(seconds=0) == 2


def test_samples_of_one_call_share_what_it_used(tmp_path, thread, monkeypatch):
    """Each has all its time; what it used is divided among them, in whatever order they follow."""
    monkeypatch.setattr(probe, "monotonic", lambda: thread.time)

    class Rows:
        def __getitem__(self, index):
            thread.computes(30e-6)
            return index

        def __getitems__(self, indices):
            thread.computes(0.001)
            thread.waits(0.002)
            thread.sleeps(0.005)
            return indices

    watching = probe.Probe(tmp_path, samples=True)
    watching.open(0)
    for indices in ([7, "a", 8, 9], [], [3]):
        assert WatchedMap(Rows(), watching).__getitems__((0, indices)) == indices
        assert watching.each(Rows(), [5, 6]) == [5, 6]
    watching.settle()
    rows = read(tmp_path)
    watching.close()
    samples = rows[rows["kind"] == probe.SAMPLE]
    assert samples["what"].tolist() == [7, -1, 8, 9, 5, 6, 5, 6, 3, 5, 6]
    took, shares = samples["ended"] - samples["began"], np.array([4] * 4 + [0] * 4 + [1] + [0] * 2)
    alone = shares == 0
    shares[alone] = 1
    assert took == pytest.approx(np.where(alone, 30e-6, 0.008))
    assert samples["cpu"] == pytest.approx(np.where(alone, 30e-6, 0.001) / shares)
    assert samples["queued"] == pytest.approx(np.where(alone, 0.0, 0.002) / shares, abs=1e-12)


def called() -> None:
    """What a loop calls."""


def new_pages() -> int:
    """So many pages of memory are new in a loop, to the thread that it is in."""
    before = getrusage(RUSAGE_THREAD).ru_minflt
    for _ in range(1000):
        called()
    return getrusage(RUSAGE_THREAD).ru_minflt - before


def most(depth: int) -> int:
    """The most new pages in one loop, of all depths up to this one."""
    return max(new_pages(), most(depth - 1)) if depth else 0


class Deep:
    """A sample is what `most` finds."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        return most(400)


@pytest.mark.parametrize("workers", [0, 1])
def test_samples_have_room_on_the_stack_of_frames(workers) -> None:
    """At no depth of the caller does each call in a sample need a page of its own.

    CPython 3.11 to 3.13 give a piece of that stack back with the frame that needed it
    (Python/pystate.c), so that a loop at the end of a piece maps and unmaps it in each turn.
    """
    found: list[int] = []
    assert most(400) >= 1000
    observe(DataLoader(Deep(), num_workers=workers), step=lambda batch: found.append(int(batch)))
    assert len(found) == 2
    assert max(found) < 500
