"""The loaders that the benchmarks simulate."""

from __future__ import annotations

from typing import Any

import numpy as np

import dlsim

WORKERS, PREFETCH = 8, 2
SERVICE, STEP = dlsim.Gamma(1.0, 0.5), dlsim.Gamma(0.12, 0.3)
SHARED = {  # two and a half cores, a disk, and messages that cost something
    "machine.cores": 2.5,
    "machine.storage.bandwidth": 1e9,
    "dataset.fetch.0.read_bytes": 1e5,
    "dataset.sample_bytes": 1e5,
    "costs.serialise": dlsim.Cost(message=0.01, byte=1e-7),
    "costs.receive": dlsim.Cost(message=0.005, byte=1e-8),
    "costs.index_put": 0.001,
    "costs.index_latency": 0.001,
}
CONSTANT = {"service": dlsim.Constant(0.9), "step": dlsim.Constant(0.12)}


def scenario(
    batches: int,
    *,
    batch_size: int = 1,
    workers: int = WORKERS,
    in_order: bool = True,
    service: dlsim.scenario.Distribution = SERVICE,
    step: dlsim.scenario.Distribution = STEP,
) -> dlsim.Scenario:
    """A loader and a step that are about equally fast, so that both have to wait at times."""
    stage = dlsim.Stage("read", wait=service)
    return dlsim.Scenario(
        loader=dlsim.Loader(batch_size=batch_size, num_workers=workers, in_order=in_order),
        dataset=dlsim.MapDataset(batches * batch_size, fetch=[stage]),
        consumer=dlsim.Consumer(step=step),
    )


def limited(
    batches: int, *, service: dlsim.scenario.Distribution = SERVICE, **others: Any
) -> dlsim.Scenario:
    """The same where what a sample takes is processor time, on two and a half cores."""
    decode = [dlsim.Stage("decode", cpu=service)]
    changes = {"machine.cores": 2.5, "dataset.fetch": decode}
    return dlsim.replace(scenario(batches, **others), changes)


def draw(batches: int, batch_size: int) -> None:
    """Draw with NumPy what `scenario` needs, and nothing else."""
    rng = np.random.default_rng(0)
    rng.gamma(4.0, 0.25, batches * batch_size)
    rng.gamma(1 / 0.09, 0.12 * 0.09, batches)


def busy(workers: int, in_order: bool) -> dlsim.Scenario:
    """As many batches with any number of workers, and a step that keeps them busy."""
    step = dlsim.Gamma(0.96 / workers, 0.3)
    return scenario(200_000, workers=workers, in_order=in_order, step=step)


def on_cores(cores: int) -> dlsim.Scenario:
    """As many batches on any number of cores, with twice as many workers that compute."""
    decode = [dlsim.Stage("decode", cpu=SERVICE)]
    plan = scenario(50_000, workers=2 * cores, step=dlsim.Gamma(0.96 / cores, 0.3))
    return dlsim.replace(plan, {"machine.cores": cores, "dataset.fetch": decode})
