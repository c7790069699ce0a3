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
from dlsim.engine.compiled.clock import main_process, next_one
from dlsim.engine.compiled.cores import ring, serve
from dlsim.engine.compiled.jit import event_loop, inlined
from dlsim.engine.compiled.settings import NONE
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


@inlined
def go_on(s: State) -> int:
    """It is the turn of the main process; returns WAIT, or why the loop ends."""
    what: int = s.main[0].doing
    while what >= 0:
        what = do(s, what)
    return what


@inlined
def do(s: State, doing: int) -> int:
    """What the main process does up to the next place at which it might have to wait."""
    if doing == messages.START_EPOCH:
        return epochs.start_epoch(s)
    if doing == messages.WORKER_STARTED:
        return epochs.worker_started(s)
    if doing == messages.PRIME:
        return epochs.prime(s)
    if doing == messages.RESUME_WORKERS:
        return epochs.resume_workers(s)
    if doing == messages.SEND:
        return dispatcher.send(s)
    if doing == messages.INDICES_PUT:
        return dispatcher.indices_put(s)
    if doing == messages.MAKE_ROOM:
        return dispatcher.make_room(s)
    if doing == messages.STAND_ASIDE:
        return dispatcher.stand_aside(s)
    if doing == messages.NEXT:
        return c.next_batch(s)
    if doing == messages.LOOK:
        return c.look(s)
    if doing == messages.HANDED:
        return c.handed(s)
    if doing == messages.READ:
        return c.read_done(s)
    if doing == messages.REBUILT:
        return c.rebuilt(s)
    if doing == messages.RETURN:
        return training.give_back(s)
    if doing == messages.COPYING:
        return training.copying(s)
    if doing == messages.COPIED:
        return training.copied(s)
    if doing == messages.STEPPED:
        return training.stepped(s)
    if doing == messages.RUN_AHEAD:
        return training.run_ahead(s)
    if doing == messages.END_STEP:
        return c.end_step(s)
    if doing == messages.CLOSE:
        return epochs.close(s)
    if doing == messages.END_PINNING:
        return epochs.end_pinning(s)
    if doing == messages.PINNING_ENDED:
        return epochs.pinning_ended(s)
    if doing == messages.JOIN:
        return epochs.join(s)
    if doing == messages.LEAVE:
        return epochs.leave_job(s)
    if doing == messages.FETCH_ALONE:
        return c.fetch_alone(s)
    if doing == messages.FETCHED_ALONE:
        return c.fetched_alone(s)
    if doing == messages.PINNED_ALONE:
        return c.pinned_alone(s)
    return messages.EPOCH_OVER


@event_loop
def run(table: Table) -> int:
    """Simulate until the epoch is over, an exception ends it, or something is missing.

    `table` is that of the state's arrays (see `arrays.table`).
    """
    s: State = read(table)
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
