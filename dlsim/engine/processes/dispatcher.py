"""The dispatcher: who gets the next batch, and when it is sent for.

Torch keeps at most `num_workers * prefetch_factor` batches sent and not returned, the credit
window. At the start of an epoch the whole window is sent; afterwards exactly one batch is sent
for each batch returned, before user code runs. Which worker gets it is the rule of this file:
the next one in turn that still has data, and, out of order since torch 2.7, has room.

Other loaders go by other rules, which stand at the end: when a batch gives its credit back, to
whom one is sent, and what a free worker may take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from dlsim.engine.facts import MAIN, Raised, capacity_aware, snapshots
from dlsim.engine.processes.buffer import IndexQueues, ReorderBuffer, Take
from dlsim.engine.processes.clock import Steps
from dlsim.engine.processes.messages import Answer
from dlsim.engine.processes.run import Run
from dlsim.engine.processes.sampler import Job, Jobs
from dlsim.scenario import Scenario


class Dispatcher:
    """The state of torch's `_MultiProcessingDataLoaderIter` that decides about sending."""

    def __init__(self, run: Run, queues: IndexQueues) -> None:
        self.run, self.queues = run, queues
        self.window = run.scenario.loader.window
        self.choose = rule(run.scenario)
        self.on_arrival = run.scenario.loader.refill == "arrival"
        # Row by row, the latency is paid for every row, by the worker (see fetch.py).
        self.latency = run.costs.index_latency - run.round_trip

    def start_epoch(self, jobs: Jobs) -> None:
        """Forget the last epoch: everyone is active, holds nothing, and worker 0 is next."""
        self.jobs = jobs
        self.sent = self.wanted = len(self.run.recorder)
        self.tasks = ReorderBuffer()
        self.active = [True] * len(self.queues.jobs)
        self.active_count = len(self.active)
        self.held = [0] * len(self.active)
        self.turn = 0
        self.drawn = self.given = 0  # index lists from the sampler; batches returned

    def skip(self, batches: int) -> None:
        """So many batches of the epoch were returned before, in order."""
        for _ in range(batches):
            self.jobs.next_indices()
        self.drawn = self.given = batches
        self.turn = batches % len(self.active)

    def prime(self) -> Steps:
        """Send the whole credit window."""
        for _ in range(self.window):
            yield from self.send_next(beginning=True)

    def send_next(self, *, beginning: bool = False) -> Steps:
        """Send the next batch, if the sampler has one and a worker can take it.

        The first ones of an epoch are sent one after another, whoever is woken (docs/model.md).
        """
        indices = self.jobs.next_indices()
        if indices is None:
            return
        self.drawn += 1
        worker = self.choose(self)
        if worker is None:
            return  # as in torch, the indices drawn are lost; they are all alike (iterables)
        yield from self.run.compute(MAIN, self.run.costs.index_put)
        job = self.jobs.job(self.sent, indices)
        job.snapshot = snapshots(self.run.scenario, self.drawn, self.given)
        self.run.recorder.sent_to(worker, len(indices), self.run.env.now)
        wakes = self.queues.idle(worker)
        self.deliver(worker, job)
        self.tasks.sent(worker, job)
        self.held[worker] += 1
        self.sent += 1
        if wakes and not beginning:
            yield from self.run.make_room(worker, self.latency)

    def deliver(self, worker: int, message: Job | str) -> None:
        """Put `message` on the worker's index queue, where it can be read after the latency."""
        if self.latency == 0:
            self.queues.put(worker, message)
        else:
            self.queues.coming[worker] += 1
            arrival = self.run.env.timeout(self.latency)
            arrival.callbacks.append(lambda _: self._arrive(worker, message))

    def _arrive(self, worker: int, message: Job | str) -> None:
        self.queues.coming[worker] -= 1
        self.queues.put(worker, message)

    def received(self, answer: Answer) -> Steps:
        """A batch was received, which need not be the one that `next()` waits for."""
        if self._credited_on_arrival(answer):
            yield from self._credit(answer.worker)

    def returned(self, worker: int, answer: Answer) -> Steps:
        """A batch of `worker` is about to be returned."""
        if not self._credited_on_arrival(answer):
            yield from self._credit(worker)

    def _credited_on_arrival(self, answer: Answer) -> bool:
        """Errors never are: workers that fail in no time would be sent batches for ever."""
        return self.on_arrival and not isinstance(answer.outcome, Raised)

    def _credit(self, worker: int) -> Steps:
        """A batch of `worker` gives its credit back, which sends the next one."""
        self.held[worker] -= 1
        yield from self.send_next()

    def ended(self, worker: int) -> Steps:
        """The iterator of `worker` has ended: it leaves the cycle; another one may fill in."""
        self.active[worker] = False
        self.active_count -= 1
        yield from self.send_next()


# ---- to whom a batch is sent ----

Rule: TypeAlias = Callable[[Dispatcher], int | None]


def rule(scenario: Scenario) -> Rule:
    """The rule that chooses workers in `scenario`: where another policy would be put in."""
    return next_with_room if capacity_aware(scenario) else next_active


def next_active(dispatcher: Dispatcher) -> int | None:
    """The next worker in turn that has not ended, or None."""
    workers = len(dispatcher.active)
    for _ in range(workers):
        worker = dispatcher.turn
        dispatcher.turn = (worker + 1) % workers
        if dispatcher.active[worker]:
            return worker
    return None


def next_with_room(dispatcher: Dispatcher) -> int | None:
    """The next active worker in turn that holds less than an equal share of the window, or None.

    Torch 2.7 and later with `in_order=False`. A worker holds what was sent to it and not
    returned; the share is the window divided by the number of active workers, rounded down.
    """
    workers = len(dispatcher.active)
    for _ in range(workers):
        worker = dispatcher.turn
        dispatcher.turn = (worker + 1) % workers
        if (
            dispatcher.active[worker]
            and dispatcher.held[worker] < dispatcher.window // dispatcher.active_count
        ):
            return worker
    return None


# ---- from whose queue a free worker takes the next batch ----


def index_queues(run: Run) -> IndexQueues:
    """The index queues, and what their readers may take."""
    loader = run.scenario.loader
    rules: dict[str, Take] = {"stealing": own_or_stolen, "shared": anyones}
    others = loader.dispatch in rules
    take = rules.get(loader.dispatch, own)
    return IndexQueues(run.env, loader.num_workers, take, run.turns, others=others)


def own(queues: IndexQueues, worker: int) -> int | None:
    """Its own queue, if there is a batch in it: torch's rule."""
    return worker if queues.jobs[worker] else None


def own_or_stolen(queues: IndexQueues, worker: int) -> int | None:
    """Its own queue, else that of a busy worker in which the oldest batch lies."""
    if queues.jobs[worker]:
        return worker
    everyone = range(len(queues.jobs))
    return _oldest(queues, (other for other in everyone if other not in queues.free))


def anyones(queues: IndexQueues, worker: int) -> int | None:
    """Whichever queue has the oldest batch, as if there were one for all."""
    return _oldest(queues, range(len(queues.jobs)))


def _oldest(queues: IndexQueues, among: Iterable[int]) -> int | None:
    lying = (worker for worker in among if queues.jobs[worker])
    return min(lying, key=lambda worker: queues.jobs[worker][0].number, default=None)
