"""Running a pipeline, and returning what happened."""

from __future__ import annotations

import numpy as np

from dlsim.scenario.errors import is_integer, require
from dlsim.scenario.pipeline import SPDL, Pipeline
from dlsim.trace.pipeline import Moments, PipelineTrace


def simulate_pipeline(pipeline: Pipeline, seed: int = 0) -> PipelineTrace:
    """What happens in `pipeline` under `seed`, until nobody has anything left to do.

    So where training leaves early, the trace has what is begun ahead of it, too. Raises
    `ScenarioError` for a bad seed.
    """
    from dlsim.engine.pipelines import nodes, spdl
    from dlsim.engine.pipelines.run import END, Run, Steps

    require(isinstance(pipeline, Pipeline), "pipeline", "a Pipeline", pipeline)
    require(is_integer(seed) and seed >= 0, "seed", "an integer of at least 0", seed)
    run = Run(pipeline, seed)
    rows: list[tuple[int, float, float, float]] = []

    def train() -> Steps:
        sink = spdl.build(run) if pipeline.like == SPDL else None
        last = None if sink is not None else nodes.build(run)
        thread = run.thread()
        while len(rows) != pipeline.stop_after:
            requested = run.env.now
            if sink is not None:
                item = yield sink.get()
            else:
                assert last is not None
                item = yield from last.next(thread)
            if item is END:
                return
            returned = run.env.now
            yield run.env.timeout(run.step.of(len(rows)))
            rows.append((nodes.flat(item)[0], requested, returned, run.env.now))

    run.env.process(train())
    run.env.run()
    columns = np.array(rows, float).reshape(-1, 4).T
    stages = []
    for begun, ended in zip(run.begun, run.ended, strict=True):
        over = {item: moment for moment, item in ended}
        items = np.array([item for _, item in begun], np.int64)
        stages.append(
            Moments(
                item=items,
                began=np.array([moment for moment, _ in begun]),
                ended=np.array([over.get(item, np.nan) for _, item in begun]),
            )
        )
    return PipelineTrace(
        pipeline=pipeline,
        seed=seed,
        item=columns[0].astype(np.int64),
        requested=columns[1],
        returned=columns[2],
        finished=columns[3],
        stages=tuple(stages),
    )
