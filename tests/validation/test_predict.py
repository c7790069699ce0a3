from __future__ import annotations

import numpy as np
import pytest

import dlsim
from dlsim.scenario import Constant, Gamma, ScenarioError
from dlsim.trace import epoch_times
from dlsim.trace.summary import percent
from dlsim.validation import predict
from dlsim.validation.calibrating.cost_errors import UNEXPLAINED
from dlsim.validation.calibrating.parts import REACH
from dlsim.validation.calibrating.predict import errors_after, shares, with_changes
from dlsim.validation.calibrating.scenario import Calibration
from dlsim.whatif.errors import WhatIfError

COSTS = ("take", "serialise", "hand_over", "receive", "pin", "worker_start", "step")
SURE = dict.fromkeys(("pace", "placing", "begin", "wait", "cpu", *COSTS), 0.0)

STEADY = Constant(0.01)
LOADER = dlsim.Loader(batch_size=4, num_workers=2)


def calibration(wait=STEADY, errors=SURE, **parts: object) -> Calibration:
    """One of a loader whose samples wait."""
    dataset = dlsim.MapDataset(length=40, fetch=(dlsim.Stage("fetch", wait=wait),))
    scenario = dlsim.Scenario(loader=LOADER, dataset=dataset, **parts)
    return Calibration(scenario=scenario, fits={}, errors=dict(errors))


def test_other_settings_are_simulated():
    """The values are those of the changed scenario: five batches of 40 ms on one worker each."""
    found = predict(calibration(), {"loader.num_workers": 5})
    assert found.epoch.value == pytest.approx(0.08)
    assert found.throughput.value == pytest.approx(500)
    assert found.scenario.loader.num_workers == 5
    assert found.wait_p95.value == pytest.approx(np.percentile([0.04, 0, 0, 0, 0] * 2, 95))


def test_what_is_sure_has_the_interval_of_what_is_unexplained():
    """Without randomness or uncertainty, an interval allows for real runs' own differences."""
    epoch = predict(calibration(), {}).epoch
    assert epoch.high / epoch.value == pytest.approx(epoch.value / epoch.low)
    assert epoch.high / epoch.value == pytest.approx(np.exp(REACH * UNEXPLAINED))


def test_uncertainty_and_randomness_widen_the_interval():
    """Costs that few batches told, and costs that vary, make predictions less sure."""
    sure = predict(calibration(), {}).epoch
    unsure = predict(calibration(errors={**SURE, "wait": 0.1}), {}).epoch
    random = predict(calibration(wait=Gamma(0.01, 2.0)), {}).epoch
    assert unsure.high > 1.05 * sure.high
    assert random.high - random.low > 1.5 * (sure.high - sure.low)


def test_an_interval_reaches_as_far_as_the_cost_that_is_not_sure():
    """Below and above it ends where the epoch would, were the cost at that end of its own."""
    unsure = calibration(errors={**SURE, "wait": 0.3})
    epoch, sure = predict(unsure, {}).epoch, predict(calibration(), {}).epoch
    for end, known, by in ((epoch.low, sure.low, -1), (epoch.high, sure.high, 1)):
        there = dlsim.simulate(unsure.with_factors({"wait": np.exp(by * REACH * 0.3)}))
        reached = np.log(epoch_times(there)[0] / epoch.value)
        assert np.log(end / epoch.value) == pytest.approx(
            by * np.hypot(reached, np.log(known / sure.value)), rel=1e-6
        )


def test_what_the_step_hides_makes_an_epoch_longer_only():
    """Workers that are just as fast as the step: slower ones are waited for, faster ones wait."""
    just = calibration(errors={**SURE, "wait": 0.1}, consumer=dlsim.Consumer(Constant(0.02)))
    epoch, sure = predict(just, {}).epoch, predict(calibration(), {}).epoch
    assert epoch.high / epoch.value > 1.1
    assert sure.value / sure.low < epoch.value / epoch.low < 1.1


def test_first_samples_that_take_long_are_not_as_sure_as_others():
    """Of 0.3 s each worker waits 0.1 s with its first sample, which differs from run to run."""
    beginning = {"costs": dlsim.Costs(first_sample=0.1)}
    unsure = calibration(errors={**SURE, "begin": 0.2}, **beginning)
    epoch, sure = predict(unsure, {}).epoch, predict(calibration(**beginning), {}).epoch
    assert epoch.value == pytest.approx(0.3)
    by = np.array([-1, 1]) * REACH * 0.2
    reached = np.log((0.2 + 0.1 * np.exp(by)) / 0.3)
    assert np.log(np.array([epoch.low, epoch.high]) / 0.3) == pytest.approx(
        np.sign(by) * np.hypot(reached, np.log(sure.high / sure.value)), rel=1e-6
    )
    unlike = predict(calibration(errors={**SURE, "begin": 0.2}), {}).epoch
    assert unlike == predict(calibration(), {}).epoch


def test_what_makes_an_interval_wide_is_named():
    """Samples' waits are the whole epoch: unsure by 10 %, it is, too, and no other cost matters.

    Observing four times as long would halve that; where runs differ, another run tells more.
    """
    found = predict(calibration(errors={**SURE, "wait": 0.1, "pin": 0.3}), {}).doubts
    assert next(iter(found.alone)) == "wait"
    assert found.alone["pin"] == pytest.approx(0.0, abs=1e-9)
    alone = found.alone["wait"]
    assert alone == pytest.approx(np.sinh(REACH * 0.1), rel=0.01)
    assert alone < found.half_width < 1.2 * alone
    assert found.half_width / 2 < found.longer < found.again < found.half_width
    assert "mostly of how long samples are waited for" in str(found)
    assert str(found).endswith(
        f"; observing 4 times as many batches would make it ± {percent(found.longer)}"
    )
    computes = dlsim.replace(
        calibration().scenario, {"dataset.fetch": (dlsim.Stage("fetch", cpu=STEADY),)}
    )
    paced = Calibration(scenario=computes, fits={}, errors={**SURE, "pace": 0.2}, runs=1)
    found = predict(paced, {}).doubts
    # one more run: its own difference and that of the mean, of two runs and not of one
    assert found.again / found.half_width == pytest.approx((1.5 / 2) ** 0.5, rel=0.05)
    assert "one more observed run like these would make it" in str(found)


def test_of_a_narrow_interval_nothing_is_said():
    """What is sure enough needs no reason and no more runs."""
    found = predict(calibration(), {})
    assert str(found.doubts) == ""
    assert len(str(found).splitlines()) == 3


def test_a_prediction_is_decided_by_its_seed():
    """The same seed gives the same numbers, another one gives others."""
    found = calibration(wait=Gamma(0.01, 1.0), errors={**SURE, "wait": 0.1})
    one, same, other = (predict(found, {}, seed=seed) for seed in (1, 1, 2))
    assert one.epoch == same.epoch != other.epoch


def test_what_is_given_is_sure():
    """How uncertain the step was does not matter where another step is asked for."""
    errors = {**SURE, "step": 0.5, "wait": 0.2}
    assert errors_after(errors, {"consumer.step": Constant(1.0)})["step"] == 0
    assert errors_after(errors, {"loader.num_workers": 4}) == errors


def test_without_workers_goes_what_needs_them():
    """Prefetching, persistence and the like are dropped with the workers, and nothing else."""
    scenario = calibration().scenario
    scenario = dlsim.replace(
        scenario,
        {"loader.prefetch_factor": 4, "loader.persistent_workers": True, "loader.timeout": 5},
    )
    assert with_changes(scenario, {"loader.num_workers": 0}).loader == dlsim.Loader(batch_size=4)
    with pytest.raises(ScenarioError, match="prefetch_factor: needs num_workers above 0"):
        with_changes(scenario, {"loader.num_workers": 0, "loader.prefetch_factor": 3})


@pytest.mark.parametrize(
    ("length", "workers", "expected"),
    [(10, 0, (10,)), (10, 3, (4, 4, 2)), (3, 4, (1, 1, 1, 0)), (9, 8, (2, 2, 2, 2, 1, 0, 0, 0))],
)
def test_shards(length, workers, expected):
    """A stream is shared out as torch's documentation does it, to the last sample."""
    assert shares(length, workers) == expected


def test_streams_are_shared_out_anew():
    """Seen as counts for two workers, a stream is split among four, unless counts are given."""
    dataset = dlsim.IterableDataset(length=20, sharding=(10, 10))
    scenario = dlsim.Scenario(loader=LOADER, dataset=dataset)
    changed = with_changes(scenario, {"loader.num_workers": 4})
    assert changed.dataset.sharding == (5, 5, 5, 5)
    given = {"loader.num_workers": 4, "dataset.sharding": (8, 4, 4, 4)}
    assert with_changes(scenario, given).dataset.sharding == (8, 4, 4, 4)


def test_nothing_waited_for_is_an_estimate_too():
    """A value of zero has an interval from zero to what is waited for if a cost is as it may be."""
    keeps_up = {"consumer": dlsim.Consumer(Constant(0.0205)), "epochs": 1}
    sure = predict(calibration(**keeps_up), {"dataset.length": 4000}).wait_p95
    assert (sure.value, sure.low, sure.high) == (0.0, 0.0, 0.0)
    unsure = calibration(errors={**SURE, "wait": 0.1}, **keeps_up)
    found = predict(unsure, {"dataset.length": 4000}).wait_p95
    assert (found.value, found.low) == (0.0, 0.0)
    assert 0.001 < found.high < 0.04


def test_bad_replications_are_refused():
    """Nothing can be said from no simulation."""
    with pytest.raises(WhatIfError, match="replications: expected an integer of at least 1"):
        predict(calibration(), {}, replications=0)


def test_a_prediction_in_words():
    """Three lines say the values and their intervals, with units."""
    lines = str(predict(calibration(), {})).splitlines()
    assert [line.split()[0] for line in lines] == ["epoch", "samples/s", "wait"]
    assert "200 ms" in lines[0]
