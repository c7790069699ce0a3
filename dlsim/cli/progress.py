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
SURE = 0.3  # seconds for which the pace that was expected counts, beside the one that is seen


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
        self.pieces: list[tuple[float, float]] = []  # when the first was seen, and the last; done

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
            left = known.prior - passed
            words = f"; about {span(left)} left" if left > 0 else ""
            return f"compiling first, once for each installation{words}"
        if not known.announced:
            return f"{span(passed)} so far"
        if (left := self.left()) <= 0:
            return f"{span(passed)} so far{', longer than expected' * self.told}"
        more = known.done - self.done
        share = more / max(known.expected - self.done, more, 1e-9)
        return f"{100 * share:.0f} % done, about {span(left)} left"

    def left(self) -> float:
        """Seconds that are left, by what was known beforehand and the pace that is seen since.

        What goes by before the first piece is done is none of the pace: code is compiled then, and
        processes start. Nor is the time since the last one: it counts when the next is done.
        """
        known, now, done = self.progress, time.monotonic(), self.progress.done
        if done <= self.done:
            return known.prior - (now - self.first)
        if not self.pieces or done > self.pieces[-1][1]:
            self.pieces[1:] = [(now, done)]
        (began, before), (ended, by_then) = self.pieces[0], self.pieces[-1]
        pace = (known.expected - self.done) / max(known.prior - known.loading, 1e-9)
        pace = (by_then - before + SURE * pace) / (ended - began + SURE)
        return (known.expected - by_then) / max(pace, 1e-9) - (now - ended)


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
