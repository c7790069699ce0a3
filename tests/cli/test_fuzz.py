from __future__ import annotations

import pytest

from tests.benchmarks.fuzz import CASES, fuzz


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.usefixtures("capsys")
def test_bad_input_is_answered_or_refused_in_one_line(kind: str) -> None:
    """No changed scenario, damaged file or odd option gives a traceback, a warning, or no answer.

    `python -m tests.benchmarks.fuzz` tries more.
    """
    assert not fuzz(kind, 12, seed=1)
