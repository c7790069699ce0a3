"""What is drawn for batches: in one sum, where nobody asks for more, and sample by sample."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlsim
from dlsim.engine.kept import Kept
from dlsim.engine.samples import SampleDraws
from tests.strategies import distributions, sizes


@settings(max_examples=50)
@given(
    st.lists(distributions(200), min_size=1, max_size=3),
    sizes,
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
)
def test_what_batches_compute_is_the_sum_of_what_samples_do(
    times: list[dlsim.scenario.Distribution], size: dlsim.scenario.Distribution, counts: list[int]
) -> None:
    """To the last bit, whatever is drawn for them, and however many there are in a batch."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(),
        dataset=dlsim.MapDataset(
            200, fetch=[dlsim.Stage("decode", cpu=time) for time in times], sample_bytes=size
        ),
        machine=dlsim.Machine(cores=2),
    )
    each, at_once = (
        SampleDraws(scenario, 1, 0, at_once=whether, ideal=False) for whether in (False, True)
    )
    end = 0
    for count in counts:
        indices = range(end, end := end + count)
        one_by_one, together = each.work(indices), at_once.work(indices)
        amounts = [seconds for demands in one_by_one.demands for _, _, (seconds,) in demands]
        assert together.computing == reduce(add, amounts, 0.0)
        assert together.size == one_by_one.size
        assert not together.demands


@pytest.mark.parametrize("cv", [0.999, 0.5, 0.3, 0.001, 1.0, 1.5])
def test_gammas_in_machine_code_are_numpys(cv: float) -> None:
    """To the last bit, and what is drawn after them, too."""
    pytest.importorskip("llvmlite")
    from dlsim.engine.compiled import gammas

    assert gammas.agrees()
    ours, theirs = (np.random.Generator(np.random.PCG64(7)) for _ in range(2))
    times = dlsim.Gamma(2.0, cv)
    for count in (300_000, 10, gammas.MANY):
        assert np.array_equal(gammas.sample(times, ours, count), times.sample(theirs, count))
    assert ours.random() == theirs.random()


def test_a_record_that_is_too_short_is_named_where_batches_are_one_sum() -> None:
    """The error is that of the sample that has no record."""
    with pytest.raises(dlsim.ScenarioError, match=r"dataset.fetch.0.cpu: expected a record of"):
        dlsim.simulate(
            dlsim.Scenario(
                loader=dlsim.Loader(batch_size=None),
                dataset=dlsim.MapDataset(
                    4,
                    fetch=[dlsim.Stage("decode", cpu=dlsim.Recorded([1.0, 1.0]))],
                    batched=True,
                ),
                machine=dlsim.Machine(cores=2),
            ),
            engine="simpy",
        )


def test_numbers_kept_first_stay_until_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more numbers than there is room for, asked for in turn, those that fit are found again."""
    monkeypatch.setattr("dlsim.engine.kept.MOST", 20)
    monkeypatch.setattr("dlsim.engine.kept.UNUSED", 80)
    kept, numbers = Kept(), np.zeros(10)

    def asked_for() -> list[int]:
        """Which of three were found; the others are drawn."""
        found = [one for one in range(3) if kept.get((one,)) is not None]
        for one in {0, 1, 2}.difference(found):
            kept.keep((one,), numbers)
        return found

    assert [asked_for() for _ in range(10)] == [[], *[[0, 1]] * 9]
    for other in range(100, 109):
        kept.keep((other,), numbers)
    assert kept.get((0,)) is None
    assert kept.get((108,)) is not None
