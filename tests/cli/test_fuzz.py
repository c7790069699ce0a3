from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.benchmarks.fuzz import CASES, fuzz
from tests.benchmarks.mutants.described import (
    PIPELINES,
    pipeline_case,
    pipeline_keys,
    scenario_case,
)
from tests.benchmarks.mutants.trees import leaves, scenario_keys


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.usefixtures("capsys")
def test_bad_input_is_answered_or_refused_in_one_line(kind: str) -> None:
    """No changed scenario, damaged file or odd option gives a traceback, a warning, or no answer.

    `python -m tests.benchmarks.fuzz` tries more.
    """
    assert not fuzz(kind, 12, seed=1)


def test_every_key_is_among_what_is_changed(tmp_path: Path) -> None:
    """Two thousand changed scenarios, and as many pipelines, have every key that there is."""
    rng = random.Random(1)
    reached = {
        case: {
            ".".join(map(str, place))
            for _ in range(2000)
            for place in leaves(case(rng, tmp_path)[1])
        }
        for case in (scenario_case, pipeline_case)
    }
    assert not scenario_keys().keys() - reached[scenario_case]
    pipelines = {key for each in PIPELINES for key in pipeline_keys(each["links"])}
    assert not pipelines - reached[pipeline_case]
