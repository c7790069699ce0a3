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


SECOND, BYTES = dlsim.Constant(1.0), dlsim.Constant(1e6)
MILLISECOND = dlsim.Cost(message=0.001)
READS = {"dataset.fetch": [dlsim.Stage("read", read_bytes=BYTES)]}
WIDE = {**READS, "machine.storage.bandwidth": 1e6}

# One worker that is never idle, and a main process that always waits for it.
EVENTS = {
    # The worker's sleep, the bell of the result queue, and the main process's step.
    "ideal": ({}, 3),
    "shared": ({"machine.cores": 0.5}, 3),
    # To be served takes the alarm of all who are: who alone is done then goes on at once.
    "processor time": ({"dataset.fetch": [dlsim.Stage("a", cpu=SECOND)], "machine.cores": 0.5}, 3),
    # With a core for each who computes, it is slept.
    "a core for each": ({"dataset.fetch": [dlsim.Stage("a", cpu=SECOND)], "machine.cores": 1}, 3),
    "bandwidth": (WIDE, 3),
    "latency": ({**WIDE, "machine.storage.latency": dlsim.Constant(0.1)}, 4),  # a sleep more
    "requests": ({**READS, "machine.storage.requests_per_second": 1}, 3),  # a sleep, and no service
    # Each cost is served.
    **{name: ({f"costs.{name}": 0.001}, 4) for name in ("index_put", "take")},
    **{name: ({f"costs.{name}": MILLISECOND}, 4) for name in ("share", "receive", "hand_over")},
    # Where the feeder thread has something to do, there is the bell of its outbox, too.
    "serialise": ({"costs.serialise": MILLISECOND}, 5),
    # Copying to the accelerator is a sleep, if the host waits for it.
    "copy": ({"costs.copy_byte": 1e-9, "dataset.sample_bytes": BYTES}, 3),
    "copy, waited for": ({"costs.copy_byte": 1e-9, "dataset.sample_bytes": 2e6}, 4),
    # The pin-memory thread has a bell of its own; pinning is served.
    "pin": ({"loader.pin_memory": True, "costs.pin": MILLISECOND}, 5),
    # A step on the CPU is slept, where there are cores for all.
    "step": ({"consumer.device": "cpu"}, 3),
    # Where they are limited it is served; an event waits for all of its threads.
    "step on cores": ({"consumer.device": "cpu", "machine.cores": 1}, 4),
    # All of the transport: four are served, one after another.
    "transport": (
        {
            "costs.index_put": 0.001,
            **{f"costs.{name}": MILLISECOND for name in ("serialise", "hand_over", "receive")},
        },
        6,
    ),
    # While the feeder serialises, the worker takes its next job: two are served.
    "at once": ({"costs.take": 0.003, "costs.serialise": MILLISECOND}, 7),
}


@pytest.mark.parametrize("name", EVENTS)
def test_events_of_a_batch(count: list[int], name: str) -> None:
    """A batch costs exactly the events that the processes and resources in its way need."""
    changes, expected = EVENTS[name]

    def events(batches: int) -> int:
        before = count[0]
        plan = dlsim.Scenario(
            loader=dlsim.Loader(num_workers=1),
            dataset=dlsim.MapDataset(batches, fetch=[dlsim.Stage("a", wait=SECOND)]),
            consumer=dlsim.Consumer(step=dlsim.Constant(0.3)),
        )
        simulate(dlsim.replace(plan, changes), engine="simpy")
        return count[0] - before

    assert events(150) - events(50) == 100 * expected


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
