"""The simulation against released loaders and loops, their own code, under a virtual clock."""

from __future__ import annotations

import logging
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

import dlsim
from dlsim import Scenario
from dlsim.engine.job import simulate_job
from dlsim.scenario.pipeline import GRAIN, NODES, SPDL, Pipeline
from dlsim.trace.difference import difference, job_difference
from dlsim.trace.pipeline import PipelineTrace
from tests.strategies import (
    dispatched,
    grain_pipelines,
    jobs,
    nodes_pipelines,
    scenarios,
    spdl_pipelines,
    validated,
)

virtual = pytest.importorskip("dlsim.validation.virtual.loader", reason="needs torch")
virtual_jobs = pytest.importorskip("dlsim.validation.virtual.job", reason="needs torch")
pipelines = pytest.importorskip("dlsim.validation.virtual.pipeline", reason="needs torch")
pytestmark = pytest.mark.oracles


def needs(package: str) -> pytest.MarkDecorator:
    """Skip where the package is not installed."""
    return pytest.mark.skipif(find_spec(package) is None, reason=f"needs {package}")


def assert_equal(scenario: Scenario, seed: int) -> None:
    """Every moment of every batch and sample is the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other packages warn of is theirs
        logging.disable()
        theirs = virtual.run_virtual(scenario, seed, samples=True)
    logging.disable(logging.NOTSET)
    ours = dlsim.simulate(scenario, seed, engine="simpy", samples=True)
    assert difference(ours, theirs) is None


@pytest.mark.parametrize(
    "loop", [pytest.param(p, marks=needs(p)) for p in ("accelerate", "lightning")]
)
@settings(max_examples=300)
@given(scenarios(), st.integers(0, 2**32))
def test_loop_equals_the_package(loop: str, scenario: Scenario, seed: int) -> None:
    """accelerate's and Lightning's own code around torch's loader has the moments simulated."""
    changes = {"consumer.loop": loop, "consumer.on_error": "stop", "loader.endless": False}
    assert_equal(dlsim.replace(scenario, changes), seed)


@pytest.mark.parametrize(
    "loop", [pytest.param(p, marks=needs(p)) for p in ("accelerate", "lightning")]
)
@settings(max_examples=150)
@given(validated(scenarios()), st.integers(0, 2**32))
def test_loop_with_validation_equals_the_package(loop: str, scenario: Scenario, seed: int) -> None:
    """The same with a second loader and the same loop around it, for which training stops."""
    changes = {"loader.endless": False, "validation.loader.endless": False}
    assert_equal(dlsim.replace(scenario, {**changes, "consumer.loop": loop}), seed)


stateful = st.fixed_dictionaries(
    {
        "loader.snapshot_every_n_steps": st.sampled_from([None, 1, 1, 2, 5, 100]),
        "costs.snapshot": st.sampled_from([0.0, 0.0, 0.25, 0.3]),
        "loader.resume": st.integers(0, 12),
        "consumer.loop": st.sampled_from(["plain", "rebind"]),
    }
)


@needs("torchdata")
@settings(max_examples=300)
@given(scenarios(), stateful, st.integers(0, 2**32))
def test_stateful_loader_equals_torchdata(
    scenario: Scenario, changes: dict[str, object], seed: int
) -> None:
    """torchdata's own code, resumed or not, has the moments simulated."""
    always = {"loader.stateful": True, "consumer.on_error": "stop", "loader.endless": False}
    iterable = isinstance(scenario.dataset, dlsim.IterableDataset)
    any_order = scenario.loader.num_workers > 0 and not scenario.loader.in_order
    alone = iterable and scenario.loader.num_workers == 0  # makes them before it can be watched
    if any_order or alone or (iterable and changes["costs.snapshot"]):
        changes = {**changes, "loader.resume": 0}
    if not scenario.loader.in_order and changes["loader.snapshot_every_n_steps"] is not None:
        changes = {**changes, "loader.snapshot_every_n_steps": 1}
    try:
        scenario = dlsim.replace(scenario, {**changes, **always})
    except dlsim.ScenarioError:  # beyond the epoch
        reject()
    assert_equal(scenario, seed)


@needs("accelerate")
@settings(max_examples=300, suppress_health_check=[HealthCheck.filter_too_much])
@given(jobs(scenarios()), st.integers(0, 2**32))
def test_ranks_that_keep_their_own_equal_accelerate(scenario: Scenario, seed: int) -> None:
    """accelerate's own data set on every rank, which reads all, has the moments simulated."""
    iterable = isinstance(scenario.dataset, dlsim.IterableDataset)
    if not iterable or scenario.loader.batch_size is None or scenario.job.deal != "same":
        reject()
    scenario = dlsim.replace(scenario, {"job.deal": "kept"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = virtual_jobs.run_virtual_job(scenario, seed, samples=True)
    ours = simulate_job(scenario, seed, engine="simpy", samples=True)
    assert job_difference(ours, theirs) is None


@needs("accelerate")
@settings(max_examples=300, suppress_health_check=[HealthCheck.filter_too_much])
@given(dispatched(scenarios()), st.integers(0, 2**32))
def test_rank_0_that_reads_for_all_equals_accelerate(scenario: Scenario, seed: int) -> None:
    """accelerate's own dispatcher on every rank has the moments simulated, also of what is unused.

    That is its DataLoaderDispatcher, unmodified, with torch's loader in it; its broadcasts are
    virtual.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = virtual_jobs.run_virtual_job(scenario, seed, samples=True)
    ours = simulate_job(scenario, seed, engine="simpy", samples=True)
    assert all(trace.reading is not None for trace in (*ours.ranks, *theirs.ranks))
    assert job_difference(ours, theirs) is None


def assert_same(ours: PipelineTrace, theirs: PipelineTrace) -> None:
    """Every item that training got, and all moments of each item in each stage, are the same."""
    assert ours.item.tolist() == theirs.item.tolist()
    for name in ("requested", "returned", "finished"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=0, atol=1e-9)
    for one, other in zip(ours.stages, theirs.stages, strict=True):
        at, there = (np.argsort(each.item, kind="stable") for each in (one, other))
        assert one.item[at].tolist() == other.item[there].tolist()
        for name in ("began", "ended"):
            mine, its = getattr(one, name)[at], getattr(other, name)[there]
            np.testing.assert_allclose(mine, its, rtol=0, atol=1e-9)


@needs("torchdata")
@settings(max_examples=300)
@given(nodes_pipelines(), st.integers(0, 2**32))
def test_pipelines_equal_torchdata_nodes(pipeline: Pipeline, seed: int) -> None:
    """torchdata.nodes' own threads, queues and semaphores have the moments simulated."""
    assert pipeline.like == NODES
    theirs = pipelines.run_virtual_pipeline(pipeline, seed)
    assert_same(dlsim.simulate_pipeline(pipeline, seed), theirs)


@needs("spdl")
@settings(max_examples=300)
@given(spdl_pipelines(), st.integers(0, 2**32))
def test_pipelines_equal_spdl(pipeline: Pipeline, seed: int) -> None:
    """SPDL's own event loop, tasks and thread pools have the moments simulated."""
    assert pipeline.like == SPDL
    theirs = pipelines.run_virtual_pipeline(pipeline, seed)
    assert_same(dlsim.simulate_pipeline(pipeline, seed), theirs)


@needs("grain")
@settings(max_examples=300)
@given(grain_pipelines(), st.integers(0, 2**32))
def test_pipelines_equal_grain(pipeline: Pipeline, seed: int) -> None:
    """grain's own threads that read ahead, and what comes behind, have the moments simulated."""
    assert pipeline.like == GRAIN
    theirs = pipelines.run_virtual_pipeline(pipeline, seed)
    assert_same(dlsim.simulate_pipeline(pipeline, seed), theirs)
