"""Why something happened just then, in a sentence, and the rule that made it so."""

from __future__ import annotations

import numpy as np

from dlsim.engine.facts import capacity_aware
from dlsim.show.order import (
    ARRIVED,
    EPOCH_BEGINS,
    EPOCH_ENDS,
    FETCHED,
    FINISHED,
    RAISED,
    RECEIVED,
    REQUESTED,
    SAMPLE,
    SENT,
    STARTED,
    STEPPED,
    Event,
    Turns,
)
from dlsim.trace.trace import DISCARDED, ENDED, FAILED, Trace


class Why:
    """Answers for the events of one run."""

    def __init__(self, trace: Trace, known: Turns) -> None:
        scenario = trace.meta.scenario
        assert scenario is not None
        self.trace, self.known, self.loader = trace, known, scenario.loader
        self.epochs, self.by_row = scenario.epochs, scenario.policy == "row"
        self.room = self.loader.num_workers > 0 and capacity_aware(scenario)

    def of(self, event: Event) -> tuple[str, str]:
        """A sentence, and the name of a rule in `dlsim.show.quotes`."""
        if event.kind == EPOCH_BEGINS:
            return self._begins(event.row)
        if event.kind == EPOCH_ENDS:
            return self._ends(event.row)
        if event.kind == RAISED:
            return "The exception was sent in the place of the batch.", "error"
        if self.loader.num_workers == 0:
            return self._alone(event)
        if event.kind == SENT:
            return self._sent(event.batch)
        if event.kind == RECEIVED:
            return self._received(event.batch)
        if event.kind == REQUESTED:
            return self._requested(event.batch)
        if event.kind == ARRIVED and self.trace.status[event.batch] == ENDED:
            return "Its iterator has ended; it says so in the place of a batch.", "ended"
        if event.kind == SAMPLE and self.by_row:
            return "Row by row: it was sent for when the row before was back.", "work"
        return _SAID.get(event.kind, self._returned(event.batch))

    def _begins(self, epoch: int) -> tuple[str, str]:
        if self.loader.num_workers == 0:
            return "There are no workers: nothing is sent, and nothing is loaded yet.", "alone"
        if epoch and self.loader.endless:
            return "Its first batches are on their way already.", "endless"
        if epoch and self.loader.persistent_workers:
            return "The workers are still there; each is told, and says that it heard.", "edge"
        count = self.loader.num_workers
        started = "A worker is" if count == 1 else f"{count} workers are"
        return f"{started} started, one after another; then the window is sent.", "window"

    def _ends(self, epoch: int) -> tuple[str, str]:
        if self.loader.num_workers == 0:
            return "There are no workers to be stopped.", "alone"
        if self.loader.endless:
            return "The workers know nothing of it: they go on into the next epoch.", "endless"
        if self.loader.persistent_workers:
            return "The workers stay, for the next epoch.", "edge"
        if epoch + 1 == self.epochs:
            return "The workers are stopped.", "edge"
        return "The workers are stopped; the next epoch starts new ones.", "edge"

    def _alone(self, event: Event) -> tuple[str, str]:
        if event.kind == FINISHED:
            return "Nothing was loaded meanwhile: there is nobody else to do it.", "alone"
        return "Without workers the main process does everything itself, in next().", "alone"

    def _sent(self, batch: int) -> tuple[str, str]:
        trace, trigger = self.trace, int(self.known.trigger[batch])
        worker = trace.worker[batch]
        if trigger < 0:
            window = self.loader.window
            number = batch - int(trace.epochs.first[max(int(trace.epoch_of(np.array(batch))), 0)])
            return (
                f"Number {number + 1} of the window of {window}: "
                f"{self.loader.num_workers} x {window // self.loader.num_workers}. "
                f"It is the turn of worker {worker}.",
                "window",
            )
        if trace.status[trigger] == ENDED:
            return (
                f"Worker {trace.worker[trigger]} has nothing more; its credit goes to another one.",
                "ended",
            )
        room = "the next in turn that has room" if self.room else "the next in turn"
        return (
            f"next() is about to return batch {trigger}, and sends one more in its place, "
            f"to worker {worker}, {room}.",
            "credit",
        )

    def _received(self, batch: int) -> tuple[str, str]:
        trace, status = self.trace, self.trace.status[batch]
        if status == DISCARDED:
            return "It was of the epoch before, which was left early.", "edge"
        if status == ENDED:
            return (
                f"Worker {trace.worker[batch]} leaves the cycle; what else was sent to it is "
                "skipped.",
                "ended",
            )
        if status == FAILED:
            return "It is an exception, which the next() that wants this batch will raise.", "error"
        if self.loader.pin_memory:
            return "The pin-memory thread takes it off the queue, whoever wants it.", "next"
        wanted = self.known.receives[batch]
        if wanted != self.known.returns[batch]:
            kept = "It is not wanted yet, and is kept until it is"
            if wanted < len(self.known.line):
                kept += f": next() waits for batch {self.known.line[wanted]}"
            return f"{kept}.", "next"
        if not self.loader.in_order:
            return "In any order, the first that comes is returned.", "next"
        return "It is the one that next() wants.", "next"

    def _requested(self, batch: int) -> tuple[str, str]:
        trace = self.trace
        if trace.received[batch] < trace.requested[batch]:
            return "It is there already, kept for this moment.", "next"
        if trace.arrived[batch] <= trace.requested[batch]:
            return "It lies on the result queue already.", "next"
        return "It is not there yet: the training loop waits.", "next"

    def _returned(self, batch: int) -> tuple[str, str]:
        waited = self.trace.returned[batch] - self.trace.requested[batch]
        begins = "The loop has its batch, and trains on it"
        return (f"{begins}, having waited." if waited else f"{begins} at once."), "next"


_SAID = {
    STEPPED: (
        "Gradients are exchanged when every rank has come. Nothing is sent meanwhile: only next() "
        "sends.",
        "credit",
    ),
    STARTED: ("It is the next one in the worker's own index queue.", "work"),
    SAMPLE: ("One message held all rows of the batch; the worker goes through them alone.", "work"),
    FETCHED: ("All its rows are there, and put together.", "work"),
    ARRIVED: (
        "It is put on the queue that all workers share. Nothing is sent because of that.",
        "work",
    ),
    FINISHED: ("Nothing is sent because of that: only next() sends.", "credit"),
}
