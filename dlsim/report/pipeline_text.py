"""A run of a pipeline in words."""

from __future__ import annotations

from dlsim.scenario.units import duration
from dlsim.trace.metrics import known, mean
from dlsim.trace.pipeline import PipelineTrace
from dlsim.trace.summary import number, percent


def pipeline_text(trace: PipelineTrace) -> str:
    """How fast it was, how long training waited, and how busy each stage was."""
    pipeline = trace.pipeline
    if not len(trace.item):
        return "No item came to training."
    lines = [
        f"{pipeline.name or 'A pipeline'} ({pipeline.like}, seed {trace.seed})",
        "",
        f"throughput  {number(trace.rate)} items/s once it is filled; "
        f"{len(trace.item):,} items in {duration(trace.elapsed)}, {number(trace.items_per_s)} "
        "items/s in all",
        f"training    waits {percent(trace.stall)} of the time; "
        f"the first item after {duration(float(trace.returned[0]))}",
    ]
    source, *stages = pipeline.stages
    named = ["" if source is None else "source", *(stage.name if stage else "" for stage in stages)]
    width = max(map(len, named))
    for name, moments in zip(named, trace.stages, strict=True):
        if not name:
            continue
        took = known(moments.ended - moments.began)
        at_a_time = float(took.sum()) / trace.elapsed if trace.elapsed else 0.0
        lines.append(
            f"{name:<{width}}  {number(at_a_time)} at a time on average, "
            f"{duration(mean(took))} each"
        )
    return "\n".join(lines)
