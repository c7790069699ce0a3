"""A run of a pipeline in words."""

from __future__ import annotations

import numpy as np

from dlsim.scenario.units import duration
from dlsim.trace.pipeline import PipelineTrace
from dlsim.trace.summary import number


def pipeline_text(trace: PipelineTrace) -> str:
    """How fast it was, how long training waited, and how busy each stage was."""
    pipeline = trace.pipeline
    lines = [
        f"{pipeline.name or 'A pipeline'} ({pipeline.like}, seed {trace.seed})",
        "",
        f"throughput  {number(trace.rate)} items/s once it is filled; "
        f"{len(trace.item):,} items in {duration(trace.elapsed)}, {number(trace.items_per_s)} "
        "items/s in all",
        f"training    waits {100 * trace.stall:.1f} % of the time; "
        f"the first item after {duration(first(trace))}",
    ]
    named = [("source", pipeline.source), *_links(trace)]
    width = max(len(name) for name, _ in named)
    for (name, stage), moments in zip(named, trace.stages, strict=True):
        if stage is None:
            continue
        took = moments.ended - moments.began
        at_a_time = float(np.nansum(took)) / trace.elapsed if trace.elapsed else 0.0
        lines.append(
            f"{name:<{width}}  {number(at_a_time)} at a time on average, "
            f"{duration(float(np.nanmean(took)) if len(took) else 0.0)} each"
        )
    return "\n".join(lines)


def first(trace: PipelineTrace) -> float:
    """When the first item came, in seconds."""
    return float(trace.returned[0]) if len(trace.returned) else float("nan")


def _links(trace: PipelineTrace) -> list[tuple[str, object]]:
    stages = [getattr(link, "stage", None) for link in trace.pipeline.links]
    return [("" if stage is None else stage.name, stage) for stage in stages]
