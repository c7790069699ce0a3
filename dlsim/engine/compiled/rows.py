"""What there is to know of each process, message, customer and so on: the fields of their rows."""

from __future__ import annotations

from typing import Any

import numpy as np


def row(*fields: tuple[str, str]) -> np.dtype[Any]:
    """Fields that the processor reads at once, in as many bytes as a power of two.

    So no field lies in two places, and a row is found by a shift.
    """
    names, formats = [name for name, _ in fields], [kind for _, kind in fields]
    made = np.dtype({"names": names, "formats": formats}, align=True)
    offsets = [made.fields[name][1] for name in names] if made.fields else []
    size = 1 << (made.itemsize - 1).bit_length()
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})


# The main process: torch's `_MultiProcessingDataLoaderIter`, and the loop around it.
MAIN_PROCESS = row(
    ("now", "f8"),  # the clock of all
    # When it goes on; infinity: when someone tells it; minus infinity: now, before all others.
    ("wake", "f8"),
    ("doing", "i8"),
    ("at", "i8"),  # the worker it is at, where it takes one after another
    ("deadline", "f8"),
    ("begun", "?"),  # next() was called
    ("rebuilt", "?"),  # a batch was
    ("listening", "?"),  # waits for an answer
    ("resuming", "i8"),  # workers that have not said that they know of the new epoch
    ("sent", "i8"),
    ("wanted", "i8"),
    ("turn", "i8"),
    ("to", "i8"),  # the worker that gets the next batch
    ("active", "i8"),  # workers that have not ended
    ("owed", "i8"),  # batches to be sent before anything else
    ("primed", "f8"),
    ("gone", "f8"),  # when workers that linger are gone
    ("last", "?"),  # it is the last epoch
    ("spinning", "i8"),  # whether it keeps a core busy while it waits for the accelerator
    # Of a rank that meets others:
    ("given", "i8"),  # steps given to the accelerator
    ("resolved", "i8"),  # steps of which it is known when they are over
    ("blocked", "?"),  # the one after these has come to a meeting
    ("held", "?"),  # the host waits for a step of which that is not known
    ("returning", "i8"),  # the batch that the current next() is about to return
    ("requested", "f8"),
    ("count", "i8"),  # batches returned in this epoch
    ("returned", "i8"),  # and in all
    ("trained", "i8"),  # steps that the host no longer waits for
    ("accelerator", "f8"),  # when it has done all steps given to it
    ("copied", "f8"),  # and has all batches given to it
    ("ahead", "i8"),  # steps that may be under way
    ("then", "i8"),  # what the main process does after waiting for the accelerator
    ("closed", "i8"),  # and after closing
    ("closing", "?"),
    ("answer", "i8"),  # what was taken off a queue: a batch number, or NONE for RESUME's answer
    ("owner", "i8"),  # the worker that it came from,
    ("moved", "?"),  # and whether that worker's feeder thread waits until it is read
    # The pin-memory thread, likewise:
    ("pinning", "i8"),
    ("pin_answer", "i8"),
    ("pin_owner", "i8"),
    ("pin_moved", "?"),
    # Queues, as places in rings:
    ("head", "i8"),  # of the result queue
    ("tail", "i8"),
    ("pinned_head", "i8"),
    ("pinned_tail", "i8"),
    ("line_head", "i8"),  # of the line before the pipe, or the lock
    ("line_tail", "i8"),
    ("taken", "?"),  # someone has it
    ("opening", "f8"),  # when it goes on that has made room for a worker
    ("soon", "f8"),  # when the first of the others acts,
    ("alarm", "f8"),  # and when something is due at cores or storage
    ("ready", "i8"),  # who besides those in the tournament can act now
    ("acting", "i8"),  # who acts, and is first in the tournament all the same
    # What the one who acts asks for: so much of cores or storage, as so many customers
    ("amount", "f8"),
    ("who", "i8"),
    ("what", "i8"),
    ("customer", "i8"),
    ("customers", "i8"),
    ("gang", "i8"),  # of these, so many are threads that meet,
    ("by_chance", "?"),  # now and then, or again and again,
    ("slept", "?"),  # whose first has slept,
    ("linger", "f8"),  # and keep a core busy for so long, once they have
    ("free", "i8"),  # first of the unused messages
    ("job", "i8"),  # first unused row of the jobs drawn
    ("rows", "i8"),  # rows of samples written
    ("more", "?"),  # the sampler has more than the jobs drawn
    ("hungry", "i8"),  # the shard that needs more numbers
    ("short_number", "i8"),  # the batch number for which something was not recorded, or
    ("short_index", "i8"),  # the place of the first sample of such a batch
    ("short_count", "i8"),
)

WORKER = row(
    ("doing", "i8"),
    ("head", "i8"),  # of its index queue, a list linked through the messages
    ("tail", "i8"),
    ("job", "i8"),  # the message it is at
    ("alive", "?"),
    ("idle", "?"),  # waits for a message
    ("ended", "?"),  # its iterator has ended
    ("broken", "i8"),  # the failure of its worker_init_fn,
    ("told", "?"),  # whether a job was answered by it,
    ("equipped", "?"),  # and whether there is something to fetch with all the same
    ("active", "?"),  # as far as the dispatcher knows
    ("held", "i8"),  # sent to it and not returned
    # Where it is in fetching:
    ("call", "i8"),
    ("demand", "i8"),
    ("owed", "f8"),  # processor time not asked for yet
    ("slept", "?"),  # since its threads have computed together
    # Its feeder thread:
    ("feeding", "i8"),
    ("beginning", "f8"),  # what its first answer takes longer
    ("outbox", "i8"),
    ("last", "i8"),  # of the outbox
    ("sending", "i8"),  # the message it is at
)

MESSAGE = row(
    ("number", "i8"),
    ("at", "f8"),  # when the worker can read it
    ("next", "i8"),
    ("calls", "i8"),
    ("taken", "i8"),  # samples
    ("collate", "f8"),
    ("outcome", "i8"),
    ("first", "i8"),  # place of the first sample of an iterable
    ("short", "?"),  # something of it was not recorded
    ("row", "i8"),  # of its first sample among those written down
    ("rows", "i8"),
)

ANSWER = row(("time", "f8"), ("worker", "i8"), ("number", "i8"), ("moved", "?"))

# What is shared, and who shares it; see cores.py.
SHARING = row(
    ("present", "i8"),  # customers
    ("spinning", "i8"),  # those besides that want all they can get
    ("level", "f8"),
    ("since", "f8"),
    ("next", "f8"),  # the level at which the next one is due
    ("alarm", "f8"),
    ("room", "f8"),  # in the page cache
    ("full", "?"),  # the node has all it can take; else as much as others leave of a bandwidth,
    ("seen", "f8"),  # and this was their level when its own was brought up to date
    # Of cores that are had in turns:
    ("computing", "i8"),  # customers,
    ("front", "i8"),  # the first and the last place that was given in a line
    ("back", "i8"),
    ("ticks", "i8"),  # that have come, and the one that comes next
    ("coming", "i8"),
    ("ticking", "?"),  # which is what the alarm is for
    ("apart", "?"),  # it has to be found out how far threads that meet may go
)
# Who computes there, how many stand in line, and at how many ticks it looked for work in vain.
CORE = row(("who", "i8"), ("waiting", "i8"), ("in_vain", "i8"))
# Where bytes are read from.
SOURCE = row(("next_request", "f8"))

# A bandwidth that nodes share; see network.py.
NETWORK = row(
    ("capacity", "f8"),
    ("most", "f8"),  # of it that a node can take
    ("enough", "i8"),  # reads that make a node full
    ("full", "i8"),  # nodes that are
    ("waiting", "i8"),  # reads on the others,
    ("level", "f8"),  # what each of them would have had,
    ("rate", "f8"),  # and gets in a second
    ("since", "f8"),
    ("alarm", "f8"),
)
CUSTOMER = row(
    ("threads", "i8"),  # that compute
    ("level", "f8"),
    ("seen", "f8"),
    # Where they take turns:
    ("waiting", "i8"),
    ("handing", "f8"),  # its own level at which the one that computes makes room
    ("line", "i8"),  # threads that have come to wait
    # Where customers have cores in turns:
    ("core", "i8"),  # that it has, waits for, or had last
    ("computing", "?"),
    ("place", "i8"),  # in the line
    ("left", "f8"),  # when it had to leave its core
    # Of threads that meet (gang.py):
    ("together", "i8"),  # how many they are, if this is the first of them
    ("member", "i8"),  # which of its threads has not done its part, if any
    ("limit", "f8"),  # its own level at which it waits for others, on its core
    ("lead", "f8"),
    ("linger", "f8"),
    ("lingers", "?"),  # it computes nothing, until the next step
)
# Its own level when a thread is done (infinity: it does not compute), and who waits for that. Or
# what it wants, if it waits for its turn, and its place in the line.
THREAD = row(("done", "f8"), ("who", "i8"), ("wants", "f8"), ("place", "i8"))

# The iterator over one shard of an iterable-style dataset, and the numbers drawn for it.
SHARD = row(("index", "i8"), ("rest", "i8"), ("ended", "?"), ("used", "i8"), ("have", "i8"))

# A step given to the accelerator, of a rank that meets others.
STEP_GIVEN = row(
    ("number", "i8"),
    ("given", "f8"),
    ("copy", "f8"),
    ("ready", "f8"),  # when the batch is copied, beside the steps
    ("seconds", "f8"),
    ("meets", "?"),
)

# What all ranks of a job have in common.
JOB = row(
    ("now", "f8"),
    ("current", "i8"),  # the rank that goes on first
    ("world", "i8"),
    ("ranks", "i8"),  # of a node
    ("here", "i8"),  # ranks that have come to the meeting,
    ("latest", "f8"),  # and when the last of them has
    ("joined", "i8"),  # ranks that have no more steps, and take part all the same
    ("joined_at", "f8"),
    ("met", "i8"),  # meetings that are over
    ("gone", "i8"),  # ranks that have no more steps, and come no more
    ("until", "f8"),  # when the job ends, if not with its last rank
    ("changed", "i8"),  # ranks that are to be looked at anew
)

# What is known of a batch besides its row of the trace.
BATCH = row(
    ("step", "f8"),
    ("bytes", "f8"),
    ("jitter", "f8"),  # receiving it takes so many times as long as on average
    ("outcome", "i4"),
    ("early", "?"),
)
