"""What a lesson is: scenarios to be watched, and questions with their answers.

What an answer says in numbers is measured on the films' own traces: `{0.end}` is the time that the
first one takes, `{1.wait}` what training waits in the second one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlsim.engine import simulate, simulate_job
from dlsim.scenario import (
    Scenario,
)
from dlsim.scenario.units import duration
from dlsim.trace import Trace, metrics


@dataclass(frozen=True)
class Question:
    """Something to ask of the films; `at`: which film and which batch to look at."""

    ask: str
    answer: str
    at: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Lesson:
    """A lesson: its films by name, what to look for, and questions.

    The films of a job are those of its ranks, in turn.
    """

    name: str
    title: str
    about: str
    films: dict[str, Scenario]
    questions: tuple[Question, ...]

    def traces(self) -> list[Trace]:
        """A trace of each film, with its samples."""
        return [
            simulate_job(scenario, samples=True).ranks[number]
            if scenario.is_job
            else simulate(scenario, samples=True)
            for number, scenario in enumerate(self.films.values())
        ]


@dataclass(frozen=True)
class Facts:
    """What answers may say of a trace; times as people write them.

    `end`: of the run; `last`: the last batch is returned; `wait`: of all batches; `first`: the
    first batch is returned; `edge`: from the last epoch's begin to its first batch; `returned`,
    `rows`: batches and rows that came; `most`: how often a row came; `shares`: batches of each
    worker.
    """

    end: str
    last: str
    wait: str
    first: str
    edge: str
    returned: int
    rows: int
    most: int
    shares: str


def facts(trace: Trace) -> Facts:
    """The facts of a trace: how long it took, what was waited for, what came."""
    assert trace.samples is not None
    kept = np.isin(trace.samples.batch, trace.order)
    times = np.bincount(trace.samples.index[kept], minlength=1)
    epochs = trace.epoch_of(trace.order)
    firsts = np.unique(epochs, return_index=True)[1]
    waits = metrics.waits(trace)
    by_worker = np.bincount(
        trace.worker[trace.order].clip(0), minlength=max(metrics.worker_count(trace), 1)
    )
    return Facts(
        end=duration(metrics.elapsed(trace)),
        last=duration(float(trace.returned[trace.order].max(initial=0.0))),
        wait=duration(float(waits.sum())),
        first=duration(metrics.first_batch(trace)),
        edge=duration(float(waits[firsts[-1:]].sum() + _start(trace))),
        returned=len(trace.order),
        rows=int(kept.sum()),
        most=int(times.max()),
        shares=", ".join(map(str, by_worker)),
    )


def _start(trace: Trace) -> float:
    """Seconds that the last epoch's iter(loader) took."""
    return float(trace.epochs.primed[-1] - trace.epochs.started[-1])


def answered(given: Lesson, traces: list[Trace]) -> list[tuple[str, str]]:
    """The questions of a lesson and their answers, with the facts of its films."""
    known = [facts(trace) for trace in traces]
    return [(each.ask.format(*known), each.answer.format(*known)) for each in given.questions]
