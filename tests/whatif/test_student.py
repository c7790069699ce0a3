"""Student's t distribution, beside SciPy's."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from dlsim.whatif.student import below, quantile

FREEDOMS = (1, 2, 3, 4, 7, 10, 29, 100, 999)


@pytest.mark.parametrize("freedom", FREEDOMS)
def test_probabilities_are_those_of_scipy(freedom):
    """Near the middle and far out, on either side, where SciPy tells one apart from nothing."""
    for t in (0.0, 0.001, 0.1, 1.0, 1.5, 3.0, 10.0, 1e3):
        assert below(t, freedom) == pytest.approx(stats.t.cdf(t, freedom), rel=1e-12)
        assert below(-t, freedom) == pytest.approx(stats.t.sf(t, freedom), rel=1e-11)
    assert below(math.inf, freedom) == 1
    assert below(-1e200, freedom) == below(-math.inf, freedom) == 0


@pytest.mark.parametrize("freedom", FREEDOMS)
def test_quantiles_are_those_of_scipy(freedom):
    """Of usual confidences, and where a small risk is divided among many questions."""
    for probability in (0.5, 0.75, 0.95, 0.975, 0.995, 1 - 1e-5, 1 - 1e-7):
        expected = stats.t.isf(1 - probability, freedom)
        assert quantile(probability, freedom) == pytest.approx(expected, rel=1e-9, abs=1e-15)
    assert quantile(1.0, freedom) == math.inf
