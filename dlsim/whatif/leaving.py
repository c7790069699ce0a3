"""What part of an epoch a scenario is about, in words."""

from __future__ import annotations

from msgspec import structs

from dlsim.engine.effort import counts
from dlsim.scenario import Scenario
from dlsim.scenario.units import duration


def left_early(scenario: Scenario, seconds: float) -> str:
    """A line on an epoch of `seconds` that is left before its end, and on all of it; "" if not.

    The batches that are left out are taken to go by like those that are not.
    """
    whole = structs.replace(scenario.consumer, stop_after=None)
    of = counts(structs.replace(scenario, consumer=whole))[0]
    done = counts(scenario)[0]
    if not 0 < done < of:
        return ""
    said = f"An epoch here is {done:,.0f} of {of:,.0f} batches (consumer.stop_after)"
    if seconds != seconds:
        return f"{said}."
    return f"{said}; all of them take about {duration(seconds * of / done)}."
