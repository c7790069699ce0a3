"""Running a pipeline, and returning what happened."""

from __future__ import annotations

from math import prod

from dlsim.engine.progress import expecting
from dlsim.scenario.errors import is_integer, require
from dlsim.scenario.pipeline import NODES, SPDL, Pipeline
from dlsim.trace.pipeline import PipelineTrace


def simulate_pipeline(pipeline: Pipeline, seed: int = 0) -> PipelineTrace:
    """What happens in `pipeline` under `seed`, until nobody has anything left to do.

    So where training leaves early, the trace has what is begun ahead of it, too. Raises
    `ScenarioError` for a bad seed.
    """
    from dlsim.engine.pipelines import grain, nodes, spdl
    from dlsim.engine.pipelines.run import EACH, END, Row, Run, Steps, flat

    require(isinstance(pipeline, Pipeline), "pipeline", "a Pipeline", pipeline)
    require(is_integer(seed) and seed >= 0, "seed", "an integer of at least 0", seed)
    run = Run(pipeline, seed)
    rows: list[Row] = []

    def train() -> Steps:
        thread, requested = run.thread(), run.env.now
        last: nodes.Node
        if pipeline.like == NODES:
            last = yield from nodes.build(run)
        else:
            last = (spdl if pipeline.like == SPDL else grain).build(run)
        while len(rows) != pipeline.stop_after:
            item = yield from last.next(thread)
            if item is END:
                return
            returned = run.env.now
            yield run.env.timeout(run.step.of(len(rows)))
            rows.append((flat(item)[0], requested, returned, run.env.now))
            requested = run.env.now

    run.env.process(train())
    seconds = EACH * len(run.stages) * items(pipeline)
    with expecting(seconds, seconds):
        run.env.run()
    return run.trace(rows)


def items(pipeline: Pipeline) -> int:
    """How many items of the source training takes, if none is left out on the way."""
    made_of = prod(
        getattr(link, "size", 1) * getattr(link, "batch_size", 1) for link in pipeline.links
    )
    return min(pipeline.length, (pipeline.stop_after or pipeline.length) * made_of)
