"""The event loop: the same mechanisms as the SimPy processes, under the same names, over arrays.

Everyone who knows when they will act is in a tournament; cores and storage have an alarm each. The
next moment is the first of these, and of the main process's own. At one moment alarms come first,
then the others by their numbers, then the main process, as docs/model.md says.

Who acts goes on until something takes time. If that is service by cores or storage, or in the main
process plain time, they leave in `main.amount` what they ask for, and get it here.

A batch's numbers (amounts of its samples, its fate) are put into its message when it is sent, so
the drawn numbers can come in blocks: the loop returns to its caller, before a batch is sent only,
when it needs more of them, or longer columns, and goes on when it is called again.
"""

from __future__ import annotations

from math import inf

from dlsim.engine.compiled import consumer as c
from dlsim.engine.compiled import dispatcher, epochs, messages, training, transport
from dlsim.engine.compiled.clock import has_acted, main_process, next_one
from dlsim.engine.compiled.cores import ring, serve
from dlsim.engine.compiled.jit import event_loop, event_loop_where, inlined, seldom
from dlsim.engine.compiled.settings import NONE, PLAIN
from dlsim.engine.compiled.state import State, read
from dlsim.engine.compiled.worker import work
from dlsim.engine.native.arrays import Table


@inlined
def act(s: State, who: int) -> None:
    """It is the turn of a worker, a feeder thread or the pin-memory thread."""
    workers = len(s.workers)
    if who < workers:
        work(s, who)
    elif who < 2 * workers:
        transport.feed(s, who - workers)
    else:
        transport.pin_memory(s)
    has_acted(s)


@inlined
def go_on(s: State) -> int:
    """It is the turn of the main process; returns WAIT, or why the loop ends."""
    what: int = s.main[0].doing
    while what >= 0:
        what = do(s, what)
    return what


@inlined
def do(s: State, what: int) -> int:
    """What the main process does up to the next place at which it might have to wait, and after.

    What it does for each batch is here in its order: so what comes next is mostly the next line.
    """
    if what == messages.RUN_AHEAD:
        what = training.run_ahead(s)
    if what == messages.END_STEP:
        what = c.end_step(s)
    if what == messages.NEXT:
        what = c.next_batch(s)
    if what == messages.LOOK:
        what = c.look(s)
    if what == messages.HANDED:
        what = c.handed(s)
    if what == messages.READ:
        what = c.read_done(s)
    if what == messages.REBUILT:
        what = c.rebuilt(s)
    if what == messages.SEND:
        what = dispatcher.send(s)
    if what == messages.INDICES_PUT:
        what = dispatcher.indices_put(s)
    if what == messages.RETURN:
        what = training.give_back(s)
    if what == messages.COPYING:
        return training.copying(s)
    if what == messages.COPIED:
        return training.copied(s)
    if what == messages.STEPPED:
        return training.stepped(s)
    return do_seldom(s, what)


@seldom
def do_seldom(s: State, what: int) -> int:
    """The same at the edges of epochs, without workers, and where no core is left."""
    if what == messages.START_EPOCH:
        return epochs.start_epoch(s)
    if what == messages.WORKER_STARTED:
        return epochs.worker_started(s)
    if what == messages.PRIME:
        return epochs.prime(s)
    if what == messages.RESUME_WORKERS:
        return epochs.resume_workers(s)
    if what == messages.MAKE_ROOM:
        return dispatcher.make_room(s)
    if what == messages.STAND_ASIDE:
        return dispatcher.stand_aside(s)
    if what == messages.CLOSE:
        return epochs.close(s)
    if what == messages.END_PINNING:
        return epochs.end_pinning(s)
    if what == messages.PINNING_ENDED:
        return epochs.pinning_ended(s)
    if what == messages.JOIN:
        return epochs.join(s)
    if what == messages.LEAVE:
        return epochs.leave_job(s)
    if what == messages.FETCH_ALONE:
        return c.fetch_alone(s)
    if what == messages.FETCHED_ALONE:
        return c.fetched_alone(s)
    if what == messages.PINNED_ALONE:
        return c.pinned_alone(s)
    return messages.EPOCH_OVER if what == messages.OVER else what


@event_loop
def run(table: Table) -> int:
    """Simulate until the epoch is over, an exception ends it, or something is missing.

    `table` is that of the state's arrays (see `arrays.table`).
    """
    return unfold(read(table))


@event_loop_where({f"State.rules.{name}": value for name, value in PLAIN.items()})
def run_plain(table: Table) -> int:
    """The same where the rules are `PLAIN`."""
    return unfold(read(table))


@inlined
def unfold(s: State) -> int:
    """What both are."""
    m = s.main[0]
    m.amount = 0.0
    while True:
        if m.amount > 0.0:
            serve(s)
        elif m.alarm <= m.soon and m.alarm <= m.wake:
            m.now = m.alarm
            cores = s.sharing[messages.CORES].alarm == m.now
            ring(s, messages.CORES if cores else messages.STORAGE)
        elif m.soon <= m.wake:
            m.now = m.soon
            m.who = next_one(s)
            act(s, m.who)
            if m.short_index != NONE:
                return messages.NOT_RECORDED
        else:
            m.now, m.wake = max(m.now, m.wake), inf
            m.who = main_process(s)
            why = go_on(s)
            if why != messages.WAIT:
                m.wake = -inf
                return why
