"""`dlsim pipeline`."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import Positional, arg

from dlsim.cli.progress import working


def pipeline(file: Annotated[Positional[str], arg(metavar="PIPELINE")], /, seed: int = 0) -> None:
    """Simulate a pipeline of stages, as SPDL and torchdata.nodes have them.

    Example: dlsim pipeline scenarios/pipelines/spdl_three_stages.toml

    Args:
        file: A TOML file that describes the pipeline (docs/pipelines.md).
        seed: What all random times follow from.
    """
    from dlsim.engine.pipeline import simulate_pipeline
    from dlsim.report.pipeline_text import pipeline_text
    from dlsim.scenario.pipeline import load_pipeline

    chosen = load_pipeline(file)
    with working():
        trace = simulate_pipeline(chosen, seed)
    print(pipeline_text(trace))
