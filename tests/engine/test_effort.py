from __future__ import annotations

import subprocess
import sys

import pytest

import dlsim
from dlsim.engine.effort import (
    LOOKING,
    SECONDS,
    announcing,
    decided,
    deciding,
    decision,
    effort,
    fast_effort,
    seconds_of,
)
from dlsim.engine.progress import watched

pytest.importorskip("llvmlite", reason="there is nothing to choose from without llvmlite")

PROGRAM = """
import sys, dlsim
from dlsim.engine.effort import deciding
scenario = dlsim.Scenario(
    loader=dlsim.Loader(num_workers=2), dataset=dlsim.MapDataset({length}),
)
with deciding({seconds}, scenario):
    trace = dlsim.simulate(scenario)
print(trace.meta.engine, "llvmlite" in sys.modules, trace.meta.notes.get("engine"))
"""


@pytest.mark.parametrize(
    ("length", "seconds", "printed"),
    [
        (10, 0, "simpy False simpy, as it is done before the compiled engine would be loaded"),
        (10, 1000, "compiled True None"),
    ],
    ids=["short", "one of many"],
)
def test_what_is_sooner_is_taken(length: int, seconds: float, printed: str) -> None:
    """A short question loads no llvmlite, and says so; a long one takes the compiled engine."""
    code = PROGRAM.format(length=length, seconds=seconds)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == printed


def test_many_short_questions_are_a_long_one() -> None:
    """Whoever asks one by one gets compiled code once as much was simulated without it."""
    code = """
import dlsim
from dlsim.engine import effort
scenario = dlsim.Scenario(loader=dlsim.Loader(num_workers=2), dataset=dlsim.MapDataset(200))
for _ in range(3):
    dlsim.simulate(scenario)
assert round(effort._spent / effort.seconds_of(scenario), 9) == 3
effort.spend(effort.COMPILING)
print(dlsim.simulate(scenario).meta.engine)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "compiled"


def test_what_is_decided_holds_inside() -> None:
    """What is decided for a question holds for all that is simulated for it, and ends with it."""
    scenario = dlsim.Scenario(loader=dlsim.Loader(num_workers=1), dataset=dlsim.MapDataset(10))
    assert decision() is None
    with decided(False), deciding(1e9, scenario):
        assert decision() is False
        assert dlsim.simulate(scenario).meta.engine == "simpy"
        assert dlsim.simulate(scenario, engine="compiled").meta.engine == "compiled"
    assert decision() is None


def test_longer_runs_are_more_effort() -> None:
    """Effort grows with the number of batches, and with all that is limited."""
    scenario = dlsim.Scenario(loader=dlsim.Loader(num_workers=1), dataset=dlsim.MapDataset(1000))
    assert effort(dlsim.replace(scenario, {"dataset.length": 2000})) == 2 * effort(scenario)
    assert effort(dlsim.replace(scenario, {"machine.cores": 0.5})) > effort(scenario)


def test_what_is_shuffled_costs_where_it_is() -> None:
    """Indices are shuffled only where something depends on them, and count only there."""
    alike = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=1, shuffle=True),
        dataset=dlsim.MapDataset(10_000, fetch=[dlsim.Stage("read", read_bytes=dlsim.Constant(1))]),
    )
    plain = dlsim.replace(alike, {"loader.shuffle": False})
    assert effort(alike) == effort(plain)
    cached = {"machine.storage.cache": 1e6}
    assert effort(dlsim.replace(alike, cached)) > effort(dlsim.replace(plain, cached))


def test_how_long_it_takes_is_told_by_what_is_asked_for() -> None:
    """Processor time is asked for a whole batch at once, waits by each sample; all ranks count."""
    time = dlsim.Lognormal(0.01, 0.5)
    computing, waiting = (
        dlsim.Scenario(
            loader=dlsim.Loader(batch_size=100, num_workers=2),
            dataset=dlsim.MapDataset(10_000, fetch=[stage]),
            machine=dlsim.Machine(cores=1),
        )
        for stage in (dlsim.Stage("decode", cpu=time), dlsim.Stage("fetch", wait=time, cpu=time))
    )
    assert seconds_of(computing) == pytest.approx(0.0043)  # 100 batches and 10,000 numbers
    assert seconds_of(waiting) == pytest.approx(0.1043)
    assert effort(waiting) == effort(computing)  # how much is simulated does not go by it
    job = dlsim.replace(computing, {"job.ranks": 8, "dataset.length": 80_000})
    assert seconds_of(job) == pytest.approx(8 * seconds_of(computing))


LINGERING = {"consumer.loop": "rebind", "epochs": 2, "consumer.stop_after": 3}


@pytest.mark.parametrize(
    ("changes", "covered"),
    [
        ({"job.ranks": 2}, True),
        ({"job.ranks": 2, "loader.timeout": 5.0, **LINGERING}, False),
        ({"loader.timeout": 5.0}, True),
    ],
    ids=["compiled", "by the processes", "no job"],
)
def test_what_is_announced_is_of_what_simulates(
    changes: dict[str, object], covered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what the compiled engine has, jobs too, it is said how long that takes."""
    monkeypatch.setattr("dlsim.engine.effort.compiles_first", lambda *_: False)
    monkeypatch.setattr("dlsim.engine.effort._loaded", lambda *_: True)
    scenario = dlsim.Scenario(loader=dlsim.Loader(num_workers=1), dataset=dlsim.MapDataset(100))
    with watched() as known, decided(True), announcing(100.0, dlsim.replace(scenario, changes)):
        assert known.prior < 10.0 if covered else known.prior == pytest.approx(100.0)


def test_what_is_drawn_takes_its_time_in_compiled_code_too() -> None:
    """Compiled code makes a batch twenty times as fast to simulate, and its numbers hardly."""
    few = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=1, num_workers=2),
        dataset=dlsim.MapDataset(1000, fetch=[dlsim.Stage("read", wait=dlsim.Gamma(0.01, 0.5))]),
    )
    many = dlsim.replace(few, {"loader.batch_size": 400, "dataset.length": 400_000})
    shares = [SECONDS * fast_effort(each) / seconds_of(each) for each in (few, many)]
    assert shares[0] < 0.07
    assert shares[1] > 1.5 * shares[0]


def test_what_workers_do_ahead_counts() -> None:
    """What is begun and never returned takes its time, too: most of a short pass of a long loop."""
    short = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=16, prefetch_factor=8),
        dataset=dlsim.MapDataset(8),
    )
    endless = dlsim.replace(short, {"loader.endless": True})
    assert seconds_of(endless) == pytest.approx((4 + 128) / 4 * seconds_of(short))
    left = {"dataset.length": 2000, "consumer.stop_after": 4}
    assert seconds_of(dlsim.replace(short, left)) == pytest.approx(seconds_of(endless))


def test_reads_at_the_same_time_hold_each_other_up() -> None:
    """To read what others read, too, takes longer to simulate than to wait as long."""
    reading = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=2),
        dataset=dlsim.MapDataset(100, fetch=[dlsim.Stage("read", read_bytes=dlsim.Constant(1e3))]),
        machine=dlsim.Machine(storage=dlsim.Storage(latency=dlsim.Constant(0.001))),
    )
    shared = dlsim.replace(reading, {"machine.storage.bandwidth": 1e6})
    assert seconds_of(shared) > seconds_of(reading)


def test_stages_of_a_batch_are_simulated_once_for_it() -> None:
    """A batch that is read as a whole takes as long to simulate, however many samples it has."""
    batch = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=400, num_workers=2),
        dataset=dlsim.MapDataset(
            40_000, batched=True, fetch=[dlsim.Stage("read", read_bytes=dlsim.Constant(1e3))]
        ),
        machine=dlsim.Machine(storage=dlsim.Storage(bandwidth=1e6)),
    )
    one = dlsim.replace(batch, {"loader.batch_size": 1, "dataset.length": 100})
    assert seconds_of(batch) == pytest.approx(seconds_of(one))


def test_looking_at_runs_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code makes simulating short, and not what is told of each run of each rank."""
    monkeypatch.setattr("dlsim.engine.effort.compiles_first", lambda *_: False)
    monkeypatch.setattr("dlsim.engine.effort._loaded", lambda *_: True)
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=1),
        dataset=dlsim.MapDataset(100),
        job=dlsim.scenario.Job(ranks=4),
    )
    with watched() as known, deciding(100.0, scenario, runs=50):
        assert 50 * 4 * LOOKING < known.prior < 10.0 + 50 * 4 * LOOKING
