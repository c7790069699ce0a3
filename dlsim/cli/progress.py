"""What is said on stderr while a command works: that it does, how far it is, how long it will be.

On a terminal one line that is kept up to date, and goes when the work is done; elsewhere a line now
and then. Nothing is said of what is done within two seconds.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlsim.engine.progress import Progress

PATIENCE = 1.2  # seconds before anything is said; loading what a command needs takes some more
LONG = 10.0  # seconds; of what takes longer it is said before it begins
NEXT = 4  # a line is followed by the next one after so many times as long
TICK = 0.2  # seconds between two looks
SURE = 0.3  # seconds after which the pace so far tells what is left


def tell(text: str) -> None:
    """Say what is being done."""
    Shown(text).say(text)


@contextmanager
def working(doing: str = "simulating") -> Iterator[None]:
    """Say how far it is with what is done inside, once that takes its time."""
    from dlsim.engine.progress import watched

    with watched() as progress:
        shown = Shown(doing)
        course = Course(shown, progress)
        progress.heard = course.begin
        with shown.looking(course.state):
            yield


@contextmanager
def counting(doing: str, unit: str, total: int | None = None) -> Iterator[Callable[[int], object]]:
    """A function to call with the number of things done since it was last called.

    No thread looks on, which might disturb what is measured meanwhile.
    """
    shown, done = Shown(doing), 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        passed = time.monotonic() - shown.began
        all_of_it = f" of {total}" if total else ""
        left = f", about {span(passed / done * (total - done))} left" if total and done else ""
        shown.look(f"{done}{all_of_it} {unit}{left}")

    try:
        yield advance
    finally:
        shown.clear()


class Shown:
    """The line in which it is told how far some work is; `doing` names it."""

    def __init__(self, doing: str) -> None:
        self.doing = doing
        self.began = time.monotonic()
        self.live = sys.stderr.isatty()
        self.due = PATIENCE
        self.width = 0  # of what is on the line

    @contextmanager
    def looking(self, state: Callable[[], str]) -> Iterator[None]:
        """Look now and then, from a thread of its own: what works may not come by for long."""
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(TICK):
                if self.passed >= PATIENCE:
                    self.look(state())

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.clear()

    @property
    def passed(self) -> float:
        """Seconds since the work began."""
        return time.monotonic() - self.began

    def look(self, state: str) -> None:
        """Say how far it is, if it is time to."""
        passed = self.passed
        if passed < (PATIENCE if self.live else self.due):
            return
        if self.live:
            line = f"dlsim: {self.doing}: {state}"
            _write(f"\r{line:{self.width}}")
            self.width = len(line)
        else:
            self.say(f"{self.doing}: {state}")

    def say(self, text: str) -> None:
        """Say it in a line that stays; the next one has time."""
        self.clear()
        _write(f"dlsim: {text}\n")
        self.due = NEXT * max(self.passed, PATIENCE)

    def clear(self) -> None:
        """Take away what is only kept on the line until more is known."""
        if self.width:
            _write(f"\r{' ' * self.width}\r")
            self.width = 0


class Course:
    """How far the simulations are that `progress` tells of, and how long they will be."""

    def __init__(self, shown: Shown, progress: Progress) -> None:
        self.shown, self.progress, self.told = shown, progress, False
        self.begin_here()

    def begin_here(self) -> None:
        """What is done from now on is a part of what was announced last."""
        self.first, self.done = time.monotonic(), self.progress.done

    def begin(self) -> None:
        """Say of what will take long that it will, and what would help."""
        self.begin_here()
        prior, spared = self.progress.prior, self.progress.spared
        if prior < LONG or self.told:
            return
        self.told = True
        text = f"{self.shown.doing} takes about {span(prior)}"
        if spared is not None and spared < prior / 2:
            text += f"; with llvmlite {span(spared)} (pip install llvmlite)"
        self.shown.say(text)

    def state(self) -> str:
        """How far it is, and how long it will be."""
        known, passed = self.progress, self.shown.passed
        if known.compiling:
            left = max(known.prior - passed, 1.0)
            return f"compiling first, once for each installation; about {span(left)} left"
        if not known.announced:
            return f"{span(passed)} so far"
        since, more = time.monotonic() - self.first, known.done - self.done
        left = known.prior - since
        if more > 0 and since > SURE:
            left = (known.expected - known.done) / more * since
        if left <= 0:
            return f"{span(passed)} so far{', longer than expected' * self.told}"
        share = more / max(known.expected - self.done, more, 1e-9)
        return f"{100 * share:.0f} % done, about {span(left)} left"


def _write(text: str) -> None:
    """Write to stderr, if anybody is there to read it."""
    with suppress(OSError, ValueError):
        print(text, end="", file=sys.stderr, flush=True)


def span(seconds: float) -> str:
    """About so long, as people say it: "40 s", "6 min", "3 h", "2 days"."""
    for unit, size, least in (("days", 86400, 2), ("h", 3600, 1), ("min", 60, 2)):
        if seconds >= least * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{max(seconds, 1):.0f} s"
