from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import simpy

import dlsim
from dlsim.engine import simulate
from dlsim.trace import MOMENTS

SECONDS = dlsim.Gamma(0.01, 0.5)


def scenario(batches: int, *, batch_size: int = 8, dataset: str = "map", **loader: Any) -> Any:
    """So many batches of random durations."""
    kinds = {"map": dlsim.MapDataset, "iterable": dlsim.IterableDataset}
    sharding = {} if dataset == "map" else {"sharding": "split"}
    return dlsim.Scenario(
        loader=dlsim.Loader(batch_size=batch_size, **loader),
        dataset=kinds[dataset](
            batches * batch_size,
            fetch=[dlsim.Stage("read", wait=SECONDS), dlsim.Stage("decode", cpu=SECONDS)],
            collate=SECONDS,
            **sharding,
        ),
        consumer=dlsim.Consumer(step=SECONDS),
    )


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many events SimPy has processed, as the one element of a list."""
    counted, step = [0], simpy.Environment.step

    def counting(self: simpy.Environment) -> None:
        counted[0] += 1
        step(self)

    monkeypatch.setattr(simpy.Environment, "step", counting)
    return counted


@pytest.mark.parametrize(
    "settings",
    [
        {"num_workers": 0},
        {"num_workers": 1},
        {"num_workers": 2, "prefetch_factor": 1},
        {"num_workers": 8},
        {"num_workers": 8, "prefetch_factor": 16},
        {"num_workers": 64},
        {"num_workers": 8, "in_order": False},
        {"num_workers": 8, "timeout": 60.0},
        {"num_workers": 8, "dataset": "iterable"},
        {"num_workers": 8, "batch_size": 1},
        {"num_workers": 8, "batch_size": 512},
    ],
    ids=str,
)
def test_events_for_each_batch(count: list[int], settings: dict[str, Any]) -> None:
    """A batch costs at most eight events, however many samples and workers there are."""
    trace = simulate(scenario(500, **settings), engine="simpy")
    assert len(trace.order) >= 500  # workers of a stream may end with partial batches
    assert count[0] <= 8 * len(trace)


def test_events_do_not_grow_with_samples(count: list[int]) -> None:
    """Keeping the times of samples costs no further events."""
    simulate(scenario(200, num_workers=4), engine="simpy")
    without = count[0]
    simulate(scenario(200, num_workers=4), engine="simpy", samples=True)
    assert count[0] == 2 * without


def test_memory_of_a_trace() -> None:
    """A trace without samples takes at most 150 bytes a batch."""
    trace = simulate(scenario(500, num_workers=4))
    columns = [getattr(trace, name) for name in (*MOMENTS, "worker", "size", "status", "order")]
    assert sum(column.nbytes for column in columns) <= 150 * len(trace)


LONG_RUN = """
import resource
import dlsim

def simulate(batches):
    return dlsim.simulate(dlsim.Scenario(
        loader=dlsim.Loader(num_workers=4),
        dataset=dlsim.MapDataset(batches, fetch=[dlsim.Stage("read", wait=dlsim.Gamma(1, 1))]),
    ), engine="simpy")

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

simulate(1000)
before = peak()
trace = simulate(100_000)
print(len(trace.order), peak() - before)
"""


def test_memory_of_a_long_run() -> None:
    """Simulating 100,000 batches takes little more memory than their trace: no past is kept."""
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", LONG_RUN], capture_output=True, check=True)
    batches, grown = map(int, done.stdout.split())
    assert batches == 100_000
    assert grown <= 250 * batches
