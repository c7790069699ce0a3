"""Where messages wait: queues with one reader, and the batches that arrived too early."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import Any

import simpy

from dlsim.engine.clock import Steps, settle


class Mailbox:
    """A queue with one reader; an index queue, or the result queue all workers share.

    Messages that arrive at one moment are read in the order of their senders' numbers.
    """

    def __init__(self, env: simpy.Environment) -> None:
        self.env = env
        self._messages: list[tuple[float, int, int, Any]] = []
        self._number = count()
        self._bell: simpy.Event | None = None

    def put(self, message: Any, sender: int = 0) -> None:
        """Leave `message` for the reader, at this moment."""
        heappush(self._messages, (self.env.now, sender, next(self._number), message))
        if self._bell is not None:
            self._bell.succeed()
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
        yield from settle(self.env)
        while not self._messages:
            if deadline is not None and deadline.processed:
                self._bell = None
                return None
            self._bell = self.env.event()
            yield self._bell if deadline is None else self._bell | deadline
            yield from settle(self.env)
        self._bell = None
        return heappop(self._messages)[-1]


class ReorderBuffer:
    """What has been sent and not yet returned: whose it is, and its outcome once received.

    Torch's `_task_info`. In order, an outcome received early waits here for its turn.
    """

    def __init__(self) -> None:
        self._owner: dict[int, int] = {}
        self._early: dict[int, Any] = {}

    def sent(self, number: int, worker: int) -> None:
        """Batch `number` is now with `worker`."""
        self._owner[number] = worker

    def owner(self, number: int) -> int | None:
        """The worker of a batch that was neither returned nor skipped, else None."""
        return self._owner.get(number)

    def hold(self, number: int, outcome: Any) -> None:
        """Keep the outcome of a batch that is not wanted yet."""
        self._early[number] = outcome

    def holds(self, number: int) -> bool:
        """Whether the outcome of batch `number` waits here."""
        return number in self._early

    def release(self, number: int) -> Any:
        """Forget batch `number`, and return its outcome if it was held."""
        del self._owner[number]
        return self._early.pop(number, None)
