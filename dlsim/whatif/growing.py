"""How a training step grows with the batch size, in words."""

from __future__ import annotations

from dlsim.scenario import Scenario
from dlsim.scenario.units import duration


def told_of_step(scenario: Scenario) -> str:
    """A line on what answers about several batch sizes rest on: the step of each."""
    consumer = scenario.consumer
    fixed, each = duration(consumer.step.mean), duration(consumer.step_per_sample)
    if not consumer.step_per_sample:
        return (
            f"The step is {fixed} on average whatever the batch size; consumer.step_per_sample "
            "makes it grow."
        )
    besides = f"{fixed} on average and " if consumer.step.mean else ""
    return f"A step takes {besides}{each} for each sample of the batch."
