"""How the time of fetches is divided: among stages, collating, and waiting for what is shared."""

from __future__ import annotations

import numpy as np

from dlsim.scenario import MapDataset, Scenario
from dlsim.trace.causes import COLLATE, CONTENTION, CORE, FETCH, LOCK, SEND, STORAGE
from dlsim.trace.columns import parts
from dlsim.trace.metrics import fetches, mean_of
from dlsim.trace.trace import Floats, Trace


def fetch_shares(trace: Trace) -> dict[str, float]:
    """How the time of fetches is divided among the stages, collating, storage and cores.

    By the means that the scenario states, reading at its latency and full bandwidth. What
    fetches took on average beyond that, where cores or storage are limited, was spent waiting
    for them: for each in proportion to what was asked of it. Contention has at most its share of
    what was computed.
    """
    trace = trace.of_loader
    scenario = trace.meta.scenario
    if scenario is None:
        return {FETCH: 1.0}
    machine = scenario.machine
    seconds, computed, read = _stated(scenario, mean_size(trace))
    stated = sum(seconds.values())
    took = mean_of(_fetching(trace, part) for part in parts(0, len(trace)))
    limited = machine.storage.bandwidth or machine.storage.requests_per_second
    asked = {CORE: computed if scenario.crowded else 0.0, STORAGE: read if limited else 0.0}
    locks = _locked(scenario, mean_size(trace))
    if locks > 0:
        asked[LOCK] = locks
    total = sum(asked.values())
    if took > stated and total > 0:
        for cause, amount in asked.items():
            seconds[cause] = seconds.get(cause, 0.0) + (took - stated) * amount / total
        seconds[CONTENTION] = min(seconds[CORE], computed * _slowed(scenario))
        seconds[CORE] -= seconds[CONTENTION]
        stated = took
    return {name: value / stated for name, value in seconds.items()} if stated > 0 else {FETCH: 1.0}


def _fetching(trace: Trace, part: slice) -> Floats:
    """Seconds that fetching each batch took."""
    began, ended = fetches(trace, part)
    return ended - began


def mean_size(trace: Trace) -> float:
    """Samples of a batch on average."""
    whole = sum(int(trace.size[part].sum(dtype=np.int64)) for part in parts(0, len(trace)))
    return whole / len(trace) if len(trace) else 0.0


def _locked(scenario: Scenario, size: float) -> float:
    """Seconds for which a fetch of `size` samples may find that others hold Python's lock.

    Those are the other workers, where they are threads, or else the feeder thread of a worker.
    """
    dataset, loader = scenario.dataset, scenario.loader
    if not scenario.locks:
        turns = scenario.machine.switch_interval is not None and loader.num_workers > 0
        costs, bytes_of_batch = scenario.charged, size * dataset.sample_bytes.mean
        return costs.lock * costs.serialise.of(dataset.tensors, bytes_of_batch) if turns else 0.0
    calls = 1.0 if isinstance(dataset, MapDataset) and dataset.batched else size
    held = calls * sum(stage.lock * stage.cpu.mean for stage in dataset.fetch if stage.cpu)
    return held * (loader.num_workers - 1)


def _slowed(scenario: Scenario) -> float:
    """By how much computing takes longer at most, relative, while others compute beside it."""
    machine, workers = scenario.machine, max(scenario.loader.num_workers, 1)
    processes = workers + machine.background
    return min(1.0, (machine.cores or processes) / processes) / machine.rate(processes) - 1


def _stated(scenario: Scenario, size: float) -> tuple[dict[str, float], float, float]:
    """Mean seconds of the parts of a fetch of `size` samples; those computed, and those read."""
    dataset, storage = scenario.dataset, scenario.machine.storage
    calls = 1.0 if isinstance(dataset, MapDataset) and dataset.batched else size
    seconds: dict[str, float] = {}
    computed = read = 0.0
    for stage in dataset.fetch:
        name = f"{FETCH}: {stage.name}"
        spent = calls * sum(time.mean for time in (stage.wait, stage.cpu) if time is not None)
        seconds[name] = seconds.get(name, 0.0) + spent
        computed += calls * stage.cpu.mean if stage.cpu is not None else 0.0
        if stage.read_bytes is not None:
            read += calls * storage.latency.mean if storage.latency is not None else 0.0
            read += calls * stage.read_bytes.mean / storage.bandwidth if storage.bandwidth else 0.0
            # a rate of requests takes no time of its own, but there can be waiting for it
            read = max(read, 1e-12) if storage.requests_per_second else read
    seconds[STORAGE] = 0.0 if scenario.downloads else read  # beside all else, if files come ahead
    if scenario.policy == "row":
        seconds[SEND] = calls * scenario.charged.index_latency
    collated = 0.0 if dataset.collate is None else dataset.collate.mean
    collated += scenario.sharing(size * dataset.sample_bytes.mean)
    if collated > 0:
        seconds[COLLATE] = collated
        computed += collated
    return seconds, computed, read
