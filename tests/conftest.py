"""How the properties are tested: on the same examples every time, however slow they are to draw.

`python -m tests.benchmarks.equality` draws others, and far more of them.
"""

import math

import pytest
from hypothesis import HealthCheck, settings

from dlsim.cli import progress

settings.register_profile(
    "plain",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)
settings.load_profile("plain")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """However slow the machine is, commands do not say how far they are unless asked to."""
    if request.path.name != "test_progress.py":
        monkeypatch.setattr(progress, "PATIENCE", math.inf)
