"""A scenario from nothing but throughputs at a few worker counts: `calibrate_throughput`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import log

import numpy as np

from dlsim.engine import simulate
from dlsim.scenario import (
    Constant,
    Cost,
    Costs,
    Gamma,
    Loader,
    Machine,
    MapDataset,
    Scenario,
    Stage,
    replace,
)
from dlsim.scenario.errors import is_integer, is_number
from dlsim.trace.metrics import samples_per_second
from dlsim.validation.calibrating.costs import CalibrateError
from dlsim.whatif.space import UNSTATED

# How much the service times of batches vary. Throughputs do not tell; of 0 to 0.5, this predicts
# golden/imread_dataloader.csv best.
IRREGULARITY = 0.3
BATCHES = 300
ROUNDS = 12


def calibrate_throughput(
    throughputs: Mapping[int, float],
    *,
    batch_size: int,
    cores: float | None = None,
    sample_bytes: float = UNSTATED,
) -> Scenario:
    """The scenario whose throughput at each number of workers is nearest to those measured.

    `throughputs`: samples a second by `num_workers`, with at least two different numbers of them
    above 0. Without workers, fetching alone decides; with the fewest, what the workers do beside
    fetching; with the most, what receiving costs, which grows with the bytes of a batch.
    `sample_bytes`: those of a sample; the default of one byte stands for a size that nobody stated.
    Raises `CalibrateError` for too few or bad numbers.
    """
    checked(throughputs, batch_size, sample_bytes)
    counts = sorted(count for count in throughputs if count)
    few, many = counts[0], counts[-1]
    worker = few * batch_size / throughputs[few]  # seconds of a worker for a batch
    alone = batch_size / throughputs[0] if 0 in throughputs else worker
    receive = 0.5 * batch_size / throughputs[many]
    fetch, beside = min(alone, worker), max(worker - alone, 0.0)
    scenario_of = partial(made, batch_size=batch_size, cores=cores, sample_bytes=sample_bytes)
    scenario = scenario_of(fetch, beside, receive)
    for _ in range(ROUNDS):
        ratio_few = simulated(scenario, few) / throughputs[few]
        worker = max(worker * ratio_few, 1e-9)
        fetch, beside = min(alone, worker), max(worker - alone, 0.0)
        scenario = scenario_of(fetch, beside, receive)
        ratio_many = simulated(scenario, many) / throughputs[many]
        receive = max(receive * ratio_many**1.5, 1e-9)
        scenario = scenario_of(fetch, beside, receive)
        if abs(log(ratio_few)) < 0.002 and abs(log(ratio_many)) < 0.002:
            break
    return scenario


def made(
    fetch: float,
    beside: float,
    receive: float,
    batch_size: int,
    cores: float | None,
    sample_bytes: float,
) -> Scenario:
    """The scenario in which a batch takes so many seconds to fetch, hand over and receive."""
    size = batch_size * sample_bytes
    irregular = Gamma(fetch / batch_size, IRREGULARITY * float(np.sqrt(batch_size)))
    return replace(
        Scenario(
            loader=Loader(batch_size=batch_size),
            dataset=MapDataset(BATCHES * batch_size, fetch=(Stage("fetch", cpu=irregular),)),
            machine=Machine(cores=cores),
            costs=Costs(serialise=Cost(byte=beside / size), receive=Cost(byte=receive / size)),
        ),
        {"dataset.sample_bytes": Constant(sample_bytes)},
    )


def simulated(scenario: Scenario, workers: int) -> float:
    """Samples a second with so many workers."""
    return samples_per_second(simulate(replace(scenario, {"loader.num_workers": workers}), seed=0))


def checked(throughputs: Mapping[int, float], batch_size: int, sample_bytes: float) -> None:
    """Raise `CalibrateError` unless the numbers can be calibrated on."""
    for count, rate in throughputs.items():
        if not is_integer(count) or count < 0 or not is_number(rate) or rate <= 0:
            raise CalibrateError(
                f"throughput: expected samples a second by workers, got {count}={rate}"
            )
    if len([count for count in throughputs if count]) < 2:
        given = ", ".join(map(str, sorted(throughputs))) or "none"
        raise CalibrateError(
            f"throughput: expected at least two numbers of workers above 0, got {given}"
        )
    if not is_integer(batch_size) or batch_size < 1:
        raise CalibrateError(f"batch_size: expected an integer of at least 1, got {batch_size!r}")
    if not is_number(sample_bytes) or sample_bytes <= 0:
        raise CalibrateError(f"sample_bytes: expected a number above 0, got {sample_bytes!r}")
