"""How the properties are tested: on the same examples every time, however slow they are to draw.

`python -m tests.benchmarks.equality` draws others, and far more of them.
"""

from hypothesis import HealthCheck, settings

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
