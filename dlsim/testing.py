"""Assertions for the tests of your own project: that a loader keeps up, and fits.

from dlsim.testing import assert_stall_below

def test_training_does_not_wait():
    assert_stall_below("scenarios/training.toml", "5%")

What is asserted of is a `Scenario`, the path of a scenario file, or a torch DataLoader. Scenarios
are simulated, under a fixed seed, so that a test gives the same result each time. A DataLoader is
run and watched (see `dlsim.validation.observe`): that takes as long as it takes, and other work on
the machine shows. A failure says what limits, and what would help.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from dlsim.engine import simulate
from dlsim.scenario import DlsimError, Scenario, ScenarioError, load
from dlsim.scenario.errors import LARGEST, is_number, require
from dlsim.scenario.units import EXAMPLES, parse
from dlsim.trace import summarize
from dlsim.trace.work import DISTINCT, Work, in_an_epoch, unit, work
from dlsim.whatif.advising import advise
from dlsim.whatif.explain import explain
from dlsim.whatif.replicate import replicate
from dlsim.whatif.space import space
from dlsim.whatif.statistics import Interval
from dlsim.whatif.targets import Target, shown

Subject: TypeAlias = Scenario | str | Path | Any  # or a DataLoader
Step: TypeAlias = Callable[[Any], object] | float | str

__all__ = ["assert_fits", "assert_stall_below", "assert_throughput_above"]

REPLICATIONS = 10
SECONDS = 10.0  # a loader is watched


def assert_stall_below(
    subject: Subject,
    limit: float | str,
    *,
    step: Step | None = None,
    batches: int | None = None,
    replications: int = REPLICATIONS,
    seed: int = 0,
) -> None:
    """Assert that training waits for less than the share `limit` of the time: 0.05 or "5%".

    Of a scenario, the mean over `replications` must surely be less: its 95 % interval is. A
    DataLoader is watched for `batches` or 10 seconds, with `step` called for each batch; or with a
    pause of so long, 0.05 or "50 ms".

    Raises `AssertionError` that says what limits and what would help; `DlsimError` for what
    cannot be simulated or watched, and for a limit that is none.
    """
    __tracebackhide__ = True  # pytest shows the test, not what is in here
    target = Target("stall", number("limit", limit, "share"))
    _assert(subject, target, step, batches, replications, seed)


def assert_throughput_above(
    subject: Subject,
    samples_per_s: float | str,
    *,
    step: Step | None = None,
    batches: int | None = None,
    replications: int = REPLICATIONS,
    seed: int = 0,
) -> None:
    """Assert that more than so many samples a second are returned: 500 or "500 samples/s".

    Distinct ones, where samples come several times. All else as in `assert_stall_below`.
    """
    __tracebackhide__ = True
    wanted = number("samples_per_s", samples_per_s, "throughput")
    target = Target("samples_per_s", wanted, at_most=False)
    _assert(subject, target, step, batches, replications, seed)


def number(key: str, value: float | str, quantity: str) -> float:
    """The value, or what it states as text; a share is 1 at most.

    Raises `ScenarioError` for what is no such value: what always holds is no test.
    """
    try:
        found = parse(value, quantity) if isinstance(value, str) else value
    except ValueError as error:
        raise ScenarioError(f"{key}: {error}") from None
    most = 1.0 if quantity == "share" else LARGEST
    expected = f"a {quantity} such as {EXAMPLES[quantity]}"
    require(is_number(found) and 0 <= found <= most, key, expected, value)
    return found


def training_step(step: Step | None) -> Callable[[Any], object] | None:
    """What to call with each batch: the step itself, or a pause of so long."""
    if step is None or callable(step):
        return step
    seconds = number("step", step, "duration")
    return lambda batch: time.sleep(seconds)


def _assert(
    subject: Subject,
    target: Target,
    step: Step | None,
    batches: int | None,
    replications: int,
    seed: int,
) -> None:
    """Raise `AssertionError` unless the target is surely held, by more than nothing."""
    __tracebackhide__ = True
    if not isinstance(subject, (Scenario, str, Path)):
        seen = watched(subject, training_step(step), batches)
        target = counted(target, work(seen))
        value = getattr(summarize(seen), target.metric)
        if not target.excess(value) < 0:
            raise AssertionError(f"{target.result(value)}, {asked(target)}{why(seen)}")
        return
    for key, given in (("step", step), ("batches", batches)):
        require(given is None, key, "none, as a scenario states its own", given)
    scenario = scenario_of(subject)
    target = counted(target, in_an_epoch(scenario))
    found = replicate(scenario, replications, seed).interval(target.metric)
    if not target.excess(found.mean) + margin(found) < 0:
        half = shown(target.metric, margin(found))
        said = f"{target.result(found.mean)} (± {half}), {asked(target)}"
        limit = target.limit if target.at_most else None
        raise AssertionError(f"{said}\n{help_for(scenario, seed, limit)}")


def counted(target: Target, found: Work | None) -> Target:
    """The target, of distinct samples where those that are `found` come several times."""
    again = found is not None and unit(found) == DISTINCT
    repeats = again and target.metric == "samples_per_s"
    return replace(target, metric="distinct_per_s") if repeats else target


def asked(target: Target) -> str:
    """What is expected."""
    how = "less" if target.at_most else "more"
    return f"expected {how} than {shown(target.metric, target.limit)}"


def assert_fits(scenario: Scenario | str | Path, *, seed: int = 0) -> None:
    """Assert that batches fit into the machine of the scenario: its memory, shm, descriptors.

    Raises `AssertionError` that says what is outgrown when, and what would fit; `DlsimError` for a
    scenario that states none of them.
    """
    __tracebackhide__ = True
    chosen = scenario_of(scenario)
    machine = chosen.machine
    if machine.memory is None and machine.shm is None and machine.descriptors is None:
        raise DlsimError(
            "machine: expected memory, shm or descriptors, got none: everything would fit"
        )
    found = space(chosen) if chosen.is_job else space(chosen, simulate(chosen, seed))
    if found.fits is False:
        raise AssertionError(str(found))


def scenario_of(subject: Scenario | str | Path) -> Scenario:
    """The scenario itself, or the one in the file."""
    return subject if isinstance(subject, Scenario) else load(subject)


def margin(found: Interval) -> float:
    """The half-width of the interval; of one value, nothing is known, and nothing is added."""
    return 0.0 if found.half_width != found.half_width else found.half_width


def help_for(scenario: Scenario, seed: int, max_stall: float | None) -> str:
    """What limits and what helps, and what does not fit; with a target, the cheapest settings."""
    first = str(explain(scenario, None, seed)).splitlines()[0]
    room = space(scenario)
    if room.fits is False:
        first += f"\n{room}"
    if not max_stall:
        return first
    try:
        found = advise(scenario, max_stall=max_stall, seed=seed)
    except DlsimError:  # nothing would fit, for one
        return first
    settings = found.chosen.keywords if found.chosen is not None else "no setting"
    return f"{first}\n{settings} would hold it"


def watched(loader: Any, step: Callable[[Any], object] | None, batches: int | None) -> Any:
    """A run of a real loader, which no error ended."""
    from dlsim.validation import observe

    __tracebackhide__ = True
    seen = observe(loader, step=step, batches=batches, seconds=SECONDS)
    if seen.meta.problem is not None:
        raise AssertionError(f"the loader fails: {seen.meta.problem.message}")
    return seen


def why(seen: Any) -> str:
    """The answer of a diagnosis of the run, if it can be diagnosed."""
    from dlsim.validation import diagnose_run

    try:
        answer, reasons, *_ = str(diagnose_run(seen)).split("\n\n")
    except DlsimError as error:
        return f"\n(why is not known: {error})"
    speed = [line for line in reasons.splitlines() if line.startswith("speed ")]
    return "\n".join(["", *speed, answer])
