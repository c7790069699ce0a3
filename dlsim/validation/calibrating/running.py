"""A run and a job alike: simulated, and what both are asked for."""

from __future__ import annotations

from dlsim.engine import simulate
from dlsim.engine.job import simulate_job
from dlsim.scenario import Scenario
from dlsim.trace.job import JobTrace
from dlsim.trace.job_metrics import job_epoch_times
from dlsim.trace.job_summary import job_samples_per_second
from dlsim.trace.metrics import epoch_times, mean, samples_per_second
from dlsim.trace.trace import Trace


def simulated(scenario: Scenario, seed: int) -> Trace | JobTrace:
    """A run of the scenario, or of all ranks of its job."""
    return simulate_job(scenario, seed) if scenario.is_job else simulate(scenario, seed)


def rate(run: Trace | JobTrace) -> float:
    """Samples a second; of a job those of all ranks."""
    if isinstance(run, JobTrace):
        return job_samples_per_second(run)
    return samples_per_second(run)


def epoch(run: Trace | JobTrace) -> float:
    """The mean seconds of an epoch; of a job, until all ranks have left it."""
    return mean(job_epoch_times(run) if isinstance(run, JobTrace) else epoch_times(run))
