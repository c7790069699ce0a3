"""Scenarios that people who tune loaders came with, each in a few keys."""

from __future__ import annotations

from typing import Any

import dlsim
from dlsim.scenario import Cost, Costs, Machine, Scenario


def case(
    length: int,
    fetch: float,
    step: float,
    *,
    cpu: bool = False,
    consumer: dict[str, Any] | None = None,
    costs: dict[str, Any] | None = None,
    machine: dict[str, Any] | None = None,
    sample_bytes: float = 0.0,
    epochs: int = 1,
    **loader: Any,
) -> Scenario:
    """`length` samples of `fetch` seconds (blocked, or of processor time), and equal steps."""
    time = {"cpu" if cpu else "wait": dlsim.Constant(fetch)}
    return Scenario(
        loader=dlsim.Loader(**{"batch_size": 1} | loader),
        dataset=dlsim.MapDataset(
            length,
            fetch=[dlsim.Stage("decode" if cpu else "read", **time)],
            sample_bytes=dlsim.Constant(sample_bytes),
        ),
        consumer=dlsim.Consumer(step=dlsim.Constant(step), **(consumer or {})),
        costs=Costs(**(costs or {})),
        machine=Machine(**(machine or {})),
        epochs=epochs,
    )


RECEIVING = {"receive": Cost(message=0.03)}
CASES = {
    "workers started for each epoch": case(
        10, 0.01, 0.1, num_workers=4, epochs=5, costs={"worker_start": 1.0}
    ),
    "receiving in next()": case(100, 0.01, 0.1, num_workers=2, costs=RECEIVING),
    "receiving while the host is ahead": case(
        100, 0.01, 0.1, num_workers=2, costs=RECEIVING, consumer={"run_ahead": 2}
    ),
    "as many workers as cores": case(
        800, 1.0, 0.13, cpu=True, batch_size=2, num_workers=8, machine={"cores": 8}
    ),
    "one and a half rounds": case(25, 10.0, 0.0, num_workers=16),
    "short epochs": case(3, 1.6, 0.2, num_workers=8, persistent_workers=True, epochs=10),
    "out of reach": case(300, 120.0, 1.0, num_workers=8),
    "a small /dev/shm": case(
        400,
        0.01,
        0.02,
        batch_size=8,
        num_workers=1,
        prefetch_factor=100,
        sample_bytes=5e6,
        machine={"shm": 64 * 2**20},
    ),
    "sending takes long": case(100, 0.01, 0.1, num_workers=2, costs={"index_put": 2.85}),
    "a timeout that strikes": case(20, 5.0, 0.1, num_workers=2, timeout=2.0),
    "uneven shards": Scenario(
        loader=dlsim.Loader(batch_size=8, num_workers=4),
        dataset=dlsim.IterableDataset(
            1600,
            sharding=(1300, 100, 100, 100),
            fetch=[dlsim.Stage("read", wait=dlsim.Constant(0.01))],
        ),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.02)),
    ),
    "data that every worker yields": Scenario(
        loader=dlsim.Loader(num_workers=4),
        dataset=dlsim.IterableDataset(100, fetch=[dlsim.Stage("read", wait=dlsim.Constant(0.1))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.001)),
    ),
    "no batch for any worker": Scenario(
        loader=dlsim.Loader(batch_size=128, num_workers=10, drop_last=True),
        dataset=dlsim.IterableDataset(
            1000, sharding="split", fetch=[dlsim.Stage("read", wait=dlsim.Constant(0.01))]
        ),
    ),
    "nothing to pin for": case(
        100,
        0.01,
        0.02,
        num_workers=2,
        pin_memory=True,
        sample_bytes=2.0**20,
        consumer={"device": "cpu"},
        costs={"pin": Cost(message=0.03), "receive": Cost(message=0.005)},
    ),
    "an error before any time passes, or after some": Scenario(
        loader=dlsim.Loader(batch_size=1, shuffle=True, num_workers=1, in_order=False),
        dataset=dlsim.MapDataset(4),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.0), step_per_sample=0.125),
        failures=[dlsim.Failure("fetch", at=1)],
        torch="2.6",
    ),
    "the same, and idle": Scenario(
        loader=dlsim.Loader(batch_size=1, shuffle=True, num_workers=1),
        dataset=dlsim.MapDataset(
            4, fetch=[dlsim.Stage("read", wait=dlsim.Recorded([0.25, 0.0, 0.25, 0.25]))]
        ),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.125)),
        failures=[dlsim.Failure("fetch", at=1)],
    ),
    "threads of libraries in each worker": Scenario(
        loader=dlsim.Loader(num_workers=2),
        dataset=dlsim.MapDataset(
            8, fetch=[dlsim.Stage("decode", cpu=dlsim.Constant(0.1), threads=4, spin=0.5)]
        ),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.02)),
        machine=Machine(cores=2),
    ),
    "never idle": Scenario(
        loader=dlsim.Loader(batch_size=None, num_workers=1, in_order=False, endless=True),
        dataset=dlsim.MapDataset(4),
        consumer=dlsim.Consumer(step=dlsim.Uniform(0.0, 2.5)),
        torch="2.6",
        epochs=2,
    ),
}
