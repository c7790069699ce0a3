"""Where messages wait: index queues, the result queue, and the batches that arrived too early."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeAlias

import simpy

from dlsim.engine.facts import MAIN
from dlsim.engine.processes.clock import Steps, Turns, happen, settle
from dlsim.engine.processes.messages import Answer
from dlsim.engine.processes.sampler import Job


class Mailbox:
    """A queue with one reader, such as the result queue all workers share.

    Messages that arrive at one moment are read in the order of their senders' numbers, when it is
    the reader's `turn`.
    """

    def __init__(self, env: simpy.Environment, turn: int) -> None:
        self.env, self.turn = env, turn
        self._messages: list[tuple[float, int, int, Any]] = []
        self._number = count()
        self._bell: simpy.Event | None = None

    def put(self, message: Any, sender: int = 0) -> None:
        """Leave `message` for the reader, at this moment."""
        heappush(self._messages, (self.env.now, sender, next(self._number), message))
        if self._bell is not None:
            happen(self._bell, self.turn)
            self._bell = None

    def get(self) -> Steps:
        """Wait for a message and return it."""
        while not self._messages:
            self._bell = self.env.event()
            yield self._bell
        return heappop(self._messages)[-1]

    def get_within(self, timeout: float) -> Steps:
        """Wait at most `timeout` seconds (0: forever), and return a message or None.

        The reader goes last: what arrives at the moment it looks, or at its deadline, is there.
        """
        deadline = self.env.timeout(timeout) if timeout > 0 else None
        yield from settle(self.env, self.turn)
        while not self._messages:
            if deadline is not None and deadline.processed:
                self._bell = None
                return None
            self._bell = self.env.event()
            yield self._bell if deadline is None else self._bell | deadline
            yield from settle(self.env, self.turn)
        self._bell = None
        return heappop(self._messages)[-1]


Take: TypeAlias = "Callable[[IndexQueues, int], int | None]"


class IndexQueues:
    """The index queues of all workers. From which of them a free worker `take`s is a rule.

    `free` are those who look for something to do. Of what `others` may take, too, the one of lowest
    number is told.
    """

    def __init__(
        self, env: simpy.Environment, workers: int, take: Take, turns: Turns, *, others: bool
    ) -> None:
        self.env, self.take, self.turns, self.others = env, take, turns, others
        self.jobs: list[deque[Job]] = [deque() for _ in range(workers)]
        self.coming = [0] * workers  # messages sent to each one and not there yet
        self.free: set[int] = set()
        self._orders: list[deque[str]] = [deque() for _ in range(workers)]
        self._bells: dict[int, simpy.Event] = {}

    def put(self, worker: int, message: Job | str) -> None:
        """Leave `message` for `worker`, at this moment."""
        if isinstance(message, str):
            self._orders[worker].append(message)
            self._ring(worker)
        else:
            self.jobs[worker].append(message)
            self._call(worker)

    def get(self, worker: int) -> Steps:
        """Wait for something to do for `worker`, and return it: batches before other messages."""
        self.free.add(worker)
        while (lying := self.take(self, worker)) is None and not self._orders[worker]:
            self._bells[worker] = self.env.event()
            yield self._bells[worker]
        self.free.remove(worker)
        if lying is None:
            return self._orders[worker].popleft()
        job = self.jobs[lying].popleft()
        self._call(worker)  # what lies in its own queue it is no longer free to do
        return job

    def idle(self, worker: int) -> bool:
        """Whether `worker` waits, and nothing is on its way that wakes it: what is sent to it does.

        What `others` may take, too, wakes all who wait.
        """
        coming = any(self.coming) if self.others else self.coming[worker] > 0
        return worker in self._bells and not coming

    def _call(self, worker: int) -> None:
        """Tell someone that there is something to do, if it is there for someone who waits."""
        for each in sorted(self._bells) if self.others else (worker,):
            if self.take(self, each) is not None:
                self._ring(each)
                return

    def _ring(self, worker: int) -> None:
        if worker in self._bells:
            happen(self._bells.pop(worker), self.turns.worker(worker))


class Turnstile:
    """What one has at a time, while the others wait in a line: the pipe, or Python's lock."""

    def __init__(self, env: simpy.Environment) -> None:
        self.env = env
        self._line: deque[tuple[simpy.Event, int]] = deque()
        self._taken = False

    def enter(self, turn: int) -> Steps:
        """Wait until nobody else has it, and those who came before have had it."""
        if self._taken:
            mine = self.env.event()
            self._line.append((mine, turn))
            yield mine
        self._taken = True

    def leave(self) -> None:
        """Let the next one have it."""
        if self._line:
            happen(*self._line.popleft())
        else:
            self._taken = False


class Pool:
    """The workers of one or more epochs: their queues, their processes, and torch's done event."""

    def __init__(
        self, env: simpy.Environment, workers: int, queues: IndexQueues, *, pin_memory: bool
    ) -> None:
        turns = queues.turns
        self.index_queues = queues
        self.result_queue = Mailbox(env, turns.pinning if pin_memory else turns.last)
        self.processes: list[simpy.Process] = []
        self.at = [MAIN] * workers  # the batch that each one is at, or was last
        self.closing = False
        # Where transport costs something (transport.py):
        self.outboxes = [Mailbox(env, turns.feeder(worker)) for worker in range(workers)]
        self.pipe = Turnstile(env)
        self.pinned = Mailbox(env, turns.last)
        self.pin_memory_thread: simpy.Process | None = None
        self.pinning_over = False


class ReorderBuffer:
    """What has been sent and not yet returned: whose it is, and the answer once received.

    Torch's `_task_info`. In order, an answer received early waits here for its turn.
    """

    def __init__(self) -> None:
        self._sent: dict[int, tuple[int, Job]] = {}
        self._early: dict[int, Answer] = {}

    def sent(self, worker: int, job: Job) -> None:
        """The job is now with `worker`."""
        self._sent[job.number] = worker, job

    def owner(self, number: int) -> int | None:
        """The worker of a batch that was neither returned nor skipped, else None."""
        return self._sent[number][0] if number in self._sent else None

    def hold(self, answer: Answer) -> None:
        """Keep an answer until its batch is wanted."""
        self._early[answer.number] = answer

    def holds(self, number: int) -> bool:
        """Whether the answer to batch `number` waits here."""
        return number in self._early

    def skip(self, number: int) -> None:
        """Forget a batch that will never be answered."""
        del self._sent[number]

    def release(self, number: int) -> tuple[Job, Answer]:
        """Give out a batch that was sent and answered."""
        return self._sent.pop(number)[1], self._early.pop(number)
