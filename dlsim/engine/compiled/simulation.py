"""Running a scenario on the compiled engine, and returning the trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from msgspec import structs

from dlsim.engine.compiled import gammas
from dlsim.engine.compiled.counting import Counting, columns_of
from dlsim.engine.compiled.in_order import named, simulate_in_order
from dlsim.engine.compiled.jobs import (
    FIRST_BLOCK,
    Jobs,
    firsts,
    largest_block,
    places_of,
    without_end,
)
from dlsim.engine.compiled.loop import run, run_plain
from dlsim.engine.compiled.messages import (
    CLOSE,
    END_STEP,
    EPOCH_OVER,
    EXCEPTION,
    FETCH_ALONE,
    MORE_JOBS,
    MORE_ROOM,
    MORE_SAMPLES,
    NEXT,
    NOT_RECORDED,
    OVER,
    RAISED,
    SENT_AT,
    START_EPOCH,
    TIMED_OUT,
)
from dlsim.engine.compiled.record import written_down
from dlsim.engine.compiled.settings import ALONE, NONE, Place, plain
from dlsim.engine.compiled.state import COLUMNS, SAMPLES, State, new_state
from dlsim.engine.facts import MAIN, epoch_batches, failure, shard_of
from dlsim.engine.in_order import all_started, epochs, suits
from dlsim.engine.native.arrays import Table, changed_table
from dlsim.engine.samples import SampleDraws
from dlsim.scenario import IterableDataset, Scenario
from dlsim.trace.columns import moved, new_column, put_away
from dlsim.trace.tally import KEPT, Tally
from dlsim.trace.trace import Meta, Problem, Trace

Progress = Callable[[int], object]


def simulate(
    scenario: Scenario, seed: int, meta: Meta, *, samples: bool, progress: Progress
) -> Trace:
    """The trace of a scenario; `meta` as it is without a problem."""
    if suits(scenario) and not samples:
        return simulate_in_order(scenario, seed, meta, progress)
    simulation = Simulation(scenario, seed, samples=samples)
    simulation.run(progress)
    return simulation.trace(meta)


def tally(
    scenario: Scenario,
    seed: int,
    room: int = KEPT,
    progress: Progress = lambda batches: None,
) -> Tally:
    """The tally of a scenario in which everything that is sent comes to its end.

    Columns have `room` for so many batches, or for as many as are under way, if that is more.
    """
    simulation = Simulation(scenario, seed, samples=False, counting=Counting(scenario), room=room)
    simulation.run(progress)
    assert simulation.counting is not None
    started, _, ended = np.array(simulation.moments).T
    return simulation.counting.tally(started, ended)


class Simulation:
    """The state, and what it asks for: numbers, and room for what comes of them.

    With `counting`, batches that are done are counted and forgotten.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        *,
        samples: bool,
        counting: Counting | None = None,
        room: int = 0,
        place: Place = ALONE,
        before: Sequence[State] = (),
    ) -> None:
        self.counting, self.room = counting, room
        self.gone = dict.fromkeys(State._fields, 0)  # elements forgotten, of each array
        self.scenario, self.seed, self.samples, self.place = scenario, seed, samples, place
        self.state = new_state(scenario, samples=samples, place=place, before=before)
        self.known: dict[str, Any] = {}  # where its arrays are
        self.loop = run_plain if plain(named(self.state.rules)) else run
        self.main = self.state.main[0]
        self.problem: Problem | None = None
        self.caught: list[Problem] = []
        self.first: list[int] = []
        self.moments: list[list[float]] = []  # of each epoch: started, primed, ended

    def run(self, progress: Progress) -> None:
        """All epochs, until an exception ends them."""
        for epoch in range(self.scenario.epochs):
            self.begin_epoch(epoch, float(self.main["now"]))
            self.main["wake"] = -np.inf
            why = self.go_on(progress)
            if why != EPOCH_OVER:
                self.fail(why)
                break
            self.end_epoch()
        # Let happen what happens at the very moment the training loop ends.
        self.main["doing"], self.main["wake"] = OVER, self.main["now"]
        self.go_on(progress)

    def begin_epoch(self, epoch: int, moment: float) -> None:
        """The training loop calls `iter(loader)` at this moment."""
        loader = self.scenario.loader
        self.let_go(moment)
        self.first.append(int(self.main["returned" if loader.endless else "sent"]))
        self.moments.append([moment, np.nan, np.nan])
        self.main["last"] = epoch + 1 == self.scenario.epochs
        self.main["doing"] = START_EPOCH
        if epoch and loader.endless:
            self.main["count"], self.main["doing"] = 0, END_STEP
            self.main["primed"] = moment
        else:
            self.start_drawing(epoch)
            resumes = epoch and loader.persistent_workers
            self.main["resuming"] = loader.num_workers if resumes else 0

    def end_epoch(self) -> None:
        """The training loop has left the epoch."""
        self.moments[-1][1], self.moments[-1][2] = self.main["primed"], self.main["now"]
        if self.counting is not None:
            self.count(int(self.main["sent"]), np.inf)
            self.counting.end_epoch()

    def fail(self, why: int) -> None:
        """An exception has ended the training loop."""
        self.problem = self.what_happened(why)
        self.cut()

    def cut(self) -> None:
        """Nothing happens any more, whether the epoch that has begun is over or not."""
        self.moments[-1][1] = self.main["primed"]

    def let_go(self, moment: float) -> None:
        """Let workers that linger go, after the epoch of this moment has started its own.

        Neither set knows of the other, so one is simulated after the other, and time begins anew.
        """
        main, rules = self.main, self.state.rules[0]
        if not (rules["lingers"] and self.state.workers["alive"].any()):
            return
        now = float(main["now"])
        main["doing"], main["closed"] = CLOSE, OVER
        main["wake"] = all_started(self.scenario, moment)
        self.go_on(lambda batches: None)  # nobody trains on what they still do
        main["now"], main["gone"] = now, main["now"]

    def go_on(self, progress: Progress) -> int:
        """Run the event loop, and give it what it asks for, until it is over; returns why it is."""
        while True:
            before = int(self.main["returned"])
            why: int = self.loop(self.where())
            put_away()
            progress(int(self.main["returned"]) - before)
            if not self.supply(why):
                return why

    def where(self) -> Table:
        """The table of the state's arrays, which holds until one is another."""
        self.table = changed_table(self.state._asdict(), self.gone, self.known)
        return self.table

    # ---- numbers and room ----

    def start_drawing(self, epoch: int) -> None:
        """Begin the streams of random numbers of an epoch; nothing is drawn yet."""
        scenario, state = self.scenario, self.state
        fails = any(failure.where == "fetch" for failure in scenario.failures)
        indices = self.samples or fails or bool(state.rules["caching"][0])
        self.make = partial(Jobs, scenario, self.seed, indices=indices, sample=gammas.sample)
        self.jobs = self.make(epoch, int(self.main["sent"]))
        most, alone = self.most_to_send(), self.place.alone
        largest = largest_block(int(state.rules["most"][0]), self.place.world)
        if scenario.loader.endless:
            self.blocks = without_end(self.make, epoch_batches(scenario), largest, alone=alone)
        else:
            self.jobs.batches = most
            self.blocks = self.jobs.blocks(most or FIRST_BLOCK, largest, alone=alone)
        self.main["job"], self.main["more"] = len(state.steps), self.jobs.more
        if isinstance(scenario.dataset, IterableDataset):
            workers = scenario.loader.num_workers
            mine = [shard_of(scenario, number) for number in range(len(state.shards))]
            self.state = state = state._replace(places=places_of(mine))
            for shard, first, yielded in zip(state.shards, firsts(mine), mine, strict=True):
                shard["index"], shard["rest"], shard["ended"] = first, len(yielded), False
                shard["used"] = shard["have"] = 0
            self.draws = [
                SampleDraws(scenario, self.seed, epoch, worker + 1)
                for worker in (range(workers) if workers else [MAIN])
            ]

    def supply(self, why: int) -> bool:
        """Get what the event loop returned for; False if it is over."""
        if why == NOT_RECORDED:
            self.complain()
        if why == MORE_JOBS:
            self.take_next_jobs()
        elif why == MORE_SAMPLES:
            self.take_samples(int(self.main["hungry"]))
        elif why == MORE_ROOM:
            self.make_room()
        elif why in (EXCEPTION, TIMED_OUT) and self.catches:
            self.catch(why)
        else:
            return False
        return True

    @property
    def catches(self) -> bool:
        """Whether the loop catches what is raised now; what `iter()` raises it does not."""
        return self.scenario.consumer.on_error == "continue" and not self.main["resuming"]

    def catch(self, why: int) -> None:
        """The training loop catches an exception, and calls `next()` again."""
        self.caught.append(self.what_happened(why))
        self.main["doing"] = NEXT if self.scenario.loader.num_workers else FETCH_ALONE
        self.main["requested"] = self.main["now"]

    def take_next_jobs(self) -> None:
        """Draw the next jobs; those before are sent."""
        drawn, more = next(self.blocks)
        drawn = drawn._replace(services=drawn.services.ravel())
        self.state = self.state._replace(**drawn._asdict())
        if self.state.rules["alike"][0] and drawn.services.size:
            self.state.amounts.reshape(-1, drawn.services.size)[:] = drawn.services
        self.main["job"], self.main["more"] = 0, more

    def take_samples(self, worker: int) -> None:
        """Draw more seconds for samples of one shard, twice as many as are left."""
        state, draws = self.state, self.draws[worker]
        shard, sizes = state.shards[worker], state.shard_sizes[worker]
        amounts = state.shard_amounts[worker].reshape(len(sizes), -1)
        left = int(shard["have"] - shard["used"])
        size = int(state.rules["size"][0])
        count = min(max(FIRST_BLOCK, size, shard["have"]), len(sizes) - left, shard["rest"] - left)
        begin = int(shard["index"]) + left
        drawn = self.at_places(begin, count)
        for kept, more in (amounts, draws.amounts(drawn)), (sizes, draws.sizes(drawn)):
            kept[:left] = kept[shard["used"] : shard["have"]]
            kept[left : left + len(more)] = more
        shard["used"], shard["have"] = 0, left + count

    def at_places(self, first: int, count: int) -> Any:
        """The dataset indices at so many places from `first` on."""
        places = range(first, first + count)
        return self.state.places[first : first + count] if len(self.state.places) else places

    def make_room(self) -> None:
        """Make columns longer that are full."""
        state = self.state
        have = len(state.batches)
        if self.counting is not None:
            self.forget()
        elif self.main["sent"] == have:
            count = max(2 * have, self.expected())
            self.state = state._replace(**{n: longer(getattr(state, n), count) for n in COLUMNS})
        have = state.sample_moments.shape[1]
        if self.samples and self.main["rows"] + state.rules["most"][0] > have:
            count = 2 * have + 1024 + int(state.rules["most"][0])
            self.state = self.state._replace(
                **{name: longer(getattr(self.state, name), count) for name in SAMPLES}
            )

    def count(self, oldest: int, until: float) -> None:
        """Take in what is new; batches before `oldest` are done, as is all before `until`."""
        state, counting, main = self.state, self.counting, self.main
        assert counting is not None
        base, before = self.gone["batches"], self.gone["order"]
        columns = columns_of(state, int(main["sent"]) - base)
        new = state.order[counting.counted - before : int(main["returned"]) - before]
        # Of a rank that meets others it may not be known yet when steps are over.
        over = main["resolved" if state.rules["sync"][0] else "returned"] - counting.counted
        counting.take(columns, base, new, int(over), oldest, until)

    def forget(self) -> None:
        """Count the batches that are done, and use their columns again."""
        state, main, gone = self.state, self.main, self.gone
        sent, returned, trained = (int(main[name]) for name in ("sent", "returned", "trained"))
        oldest = int(main["wanted"]) if state.rules["workers"][0] else sent
        if main["returning"] != NONE:
            oldest = min(oldest, int(main["returning"]))
        base, before = gone["batches"], gone["order"]
        if sent > base:
            until = main["now"] if oldest == sent else state.moments[SENT_AT, oldest - base]
            self.count(oldest, float(until))
        # The host may still wait for the ends of some steps.
        ahead = state.order[trained - before : returned - before]
        keep = min([oldest, *ahead.tolist()])
        count = max(self.room, 2 * (sent - keep))
        made = {}
        for name in COLUMNS:
            first, last = (trained, returned) if name == "order" else (keep, sent)
            column = getattr(state, name)
            old = column[..., first - gone[name] : last - gone[name]]
            gone[name] = first
            if column.shape[-1] < count:
                made[name] = longer(old, count)
            else:  # in its place: rooms that come and go leave gaps in memory
                column[..., : last - first] = old
                self.known[name] = None, []
        self.state = state._replace(**made)

    def expected(self) -> int:
        """The number of batches, if it is known to be, else a first guess."""
        return (self.most_to_send() or 1024) * self.scenario.epochs

    def most_to_send(self) -> int | None:
        """The number of batches of an epoch that no exception ends, if it is known to be."""
        batches, stop_after = self.jobs.batches, self.scenario.consumer.stop_after
        # each error that is caught sends one more
        caught = self.scenario.failures and self.scenario.consumer.on_error == "continue"
        piles_up = self.scenario.loader.refill == "arrival"
        if batches is not None and stop_after is not None and not caught and not piles_up:
            return min(batches, stop_after + self.scenario.loader.window)
        return batches

    # ---- what came of it ----

    def complain(self) -> None:
        """Raise `ScenarioError` if something was used that was not recorded."""
        if self.main["short_index"] != NONE:
            first = int(self.main["short_index"])
            self.draws[0].work(self.at_places(first, int(self.main["short_count"])))
        if self.main["short_number"] != NONE:
            number, jobs = int(self.main["short_number"]), self.jobs
            if self.scenario.loader.endless:
                batches = self.scenario.loader.batches(self.scenario.dataset.length)
                jobs = self.make(number // batches, number - number % batches)
            jobs.complain(number)

    def what_happened(self, why: int) -> Problem:
        """The exception that ended the loop."""
        now = float(self.main["now"])
        if why == EXCEPTION:
            number = int(self.main["answer"])
            planned = self.scenario.failures[int(self.state.batches["outcome"][number]) - RAISED]
            raised = failure(self.scenario, planned.where, planned.at)
            assert raised is not None
            return Problem(raised.kind, raised.message, number, now)
        timeout = self.scenario.loader.timeout
        return Problem("timeout", f"DataLoader timed out after {timeout} seconds", MAIN, now)

    def trace(self, meta: Meta, end: float | None = None) -> Trace:
        """What happened until the `end`, by default until now."""
        meta = structs.replace(meta, problem=self.problem, caught=tuple(self.caught))
        end = float(self.main["now"]) if end is None else end
        passed = epochs(self.first, self.moments)
        return written_down(self.scenario, self.state, passed, meta, end, samples=self.samples)


def longer(array: Any, count: int) -> Any:
    """A copy of `array` with room for more at the end of its last axis."""
    return moved(array, new_column((*array.shape[:-1], count), array.dtype))
