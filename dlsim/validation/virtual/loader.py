"""Torch's own DataLoader, unmodified, under a virtual clock: what the simulation must equal.

The installed torch decides who gets which batch and when; the dataset, the collate function and
the training step only let virtual time pass, by the same random numbers as the simulation.
"""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Iterator, Sequence
from unittest import mock

import numpy as np
import torch
from torch.utils.data import _utils

from dlsim.engine.facts import CAPACITY_AWARE_SINCE
from dlsim.engine.processes.epochs import Metas
from dlsim.engine.ranks import rank_seed
from dlsim.engine.simulation import versions
from dlsim.scenario import Scenario, ScenarioError
from dlsim.scenario.errors import require
from dlsim.trace.trace import Meta, Problem, Trace
from dlsim.validation.virtual.clock import Clock
from dlsim.validation.virtual.record import Watcher
from dlsim.validation.virtual.training import training_loop


def run_virtual(scenario: Scenario, seed: int = 0, *, samples: bool = False) -> Trace:
    """The trace of the installed torch's DataLoader under a virtual clock.

    It equals `simulate(scenario, seed, samples=samples)`, or one of the two is wrong. Raises
    `ScenarioError` for what the installed torch cannot run: another policy than torch's, or the
    rules of another release.
    """
    check_runnable(scenario)
    if scenario.is_job and scenario.job.rank is None:
        raise ScenarioError("job: expected one rank (run_virtual_job is for jobs)")
    seed = rank_seed(seed, scenario.job.rank or 0)
    clock = Clock()
    watcher = Watcher(scenario, seed, clock, samples=samples)
    with undisturbed(), contextlib.closing(clock):
        end, problem = training_loop(scenario, seed, clock, watcher)
    return watcher.trace(metas(seed), problem, end)


def metas(seed: int) -> Metas:
    """What traces of torch's own code tell about themselves, under `seed`."""

    def meta(scenario: Scenario, problem: Problem | None, caught: Sequence[Problem] = ()) -> Meta:
        return Meta(
            engine="torch",
            scenario=scenario,
            seed=seed,
            versions={**versions(), "torch": torch.__version__},
            problem=problem,
            caught=tuple(caught),
        )

    return meta


def check_runnable(scenario: Scenario) -> None:
    """Raise `ScenarioError` for what the installed torch cannot run in virtual time."""
    installed = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if scenario.policy != "torch":
        raise ScenarioError(f"policy: expected torch, whose code is run, got {scenario.policy!r}")
    for key, torchs in (("dispatch", "turns"), ("refill", "return"), ("start_together", 1)):
        value = getattr(scenario.loader, key)
        require(value == torchs, f"loader.{key}", f"{torchs}, as torch's code has it", value)
    aware = CAPACITY_AWARE_SINCE
    other_rules = installed < (2, 6) or (installed < aware) != (scenario.torch_release < aware)
    if not scenario.loader.in_order and other_rules:
        raise ScenarioError(
            f"torch: expected rules that the installed torch {torch.__version__} follows, "
            f"got those of {scenario.torch}"
        )
    if scenario.loader.threads:
        raise ScenarioError("loader.workers: expected processes, as torch has them, got threads")
    if not scenario.ideal:
        raise ScenarioError(
            "machine, costs, pin_memory: expected an ideal machine, on which time is virtual"
        )
    if scenario.validation is not None:
        check_runnable(scenario.validating)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep what torch's worker loop does to its process from happening to this one."""
    threads = torch.get_num_threads()
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()  # noqa: NPY002
    try:
        with (
            mock.patch.object(_utils.signal_handling, "_set_worker_signal_handlers", _nothing),
            mock.patch.object(torch.multiprocessing, "_set_thread_name", _nothing),
            mock.patch.object(_utils.worker, "_worker_info", None),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            warnings.filterwarnings("ignore", message="'pin_memory' argument is set as true")
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.random.set_rng_state(states[2])


def _nothing(*_: object) -> None:
    """Torch's worker loop installs signal handlers and names its thread; ours must not."""
