"""The event loop of a job: all ranks on one clock, what those on a node share, where all meet.

Each rank is what it is alone (`loop.py`). Two tournaments say who is next: of all ranks, by when
someone acts in them, and of all nodes, by when something is due at what their ranks share. Who has
asked for something shared is known by rank and number; so whoever is served is found.
"""

from __future__ import annotations

from math import inf

from dlsim.engine.compiled import messages
from dlsim.engine.compiled.clock import main_process, next_one
from dlsim.engine.compiled.cores import catch_up, next_served, serve, served, set_alarm
from dlsim.engine.compiled.jit import event_loop, inlined
from dlsim.engine.compiled.loop import act, go_on
from dlsim.engine.compiled.meeting import look_at, look_at_node, meet
from dlsim.engine.compiled.settings import NONE, OWNER
from dlsim.engine.compiled.state import State, read


@inlined
def step(s: State) -> int:
    """Whoever is first in a rank goes on; returns WAIT, or what the main process returns for."""
    m = s.main[0]
    m.now, m.amount, why = s.job[0].now, 0.0, messages.WAIT
    if m.soon <= m.wake:
        m.who = next_one(s)
        act(s, m.who)
        if m.short_index != NONE:
            return messages.NOT_RECORDED
    else:
        m.wake = inf
        m.who = main_process(s)
        why = go_on(s)
    while m.amount > 0.0:
        serve(s)
    return why


@inlined
def ring_node(s: State, node: int) -> None:
    """Something is due at what the ranks of a node share: whoever is done goes on."""
    j = s.job[0]
    one = read(s.ranks[node * j.ranks])
    one.main[0].now = j.now
    cores = one.sharing[messages.CORES].alarm == j.now
    what = messages.CORES if cores else messages.STORAGE
    catch_up(one, what)
    who = next_served(one, what)
    while who != NONE:
        rank = who >> OWNER
        t = read(s.ranks[rank])
        t.main[0].now = j.now
        served(t, who & ((1 << OWNER) - 1))
        look_at(t, rank)
        who = next_served(one, what)
    set_alarm(one, what)
    look_at_node(one, node)


@event_loop
def run_ranks(address: int) -> int:
    """As `loop.run` for all ranks of a job; `job.current` is then the one that something is for.

    `address` is that of the table of any rank: all have `job`, and where the others are, in common.
    At one moment alarms come first, then all others by their turns, and of equal turns by ranks.
    """
    s: State = read(address)
    j = s.job[0]
    for i in range(j.changed):
        look_at(read(s.ranks[s.changed[i]]), s.changed[i])
    j.changed = 0
    meet(s)  # whoever has joined since may be the last whom others wait for
    while True:
        rank = j.current
        if rank == NONE:
            rank, node = s.rank_first[1], s.node_first[1]
            alarm = s.node_times[node]
            if alarm <= s.rank_times[rank]:
                if alarm == inf:
                    return messages.NOTHING_LEFT
                j.now = alarm
                ring_node(s, node)
                continue
            j.now = s.rank_times[rank]
        t = read(s.ranks[rank])
        why = step(t)
        look_at_node(t, rank // j.ranks)
        if why != messages.WAIT:
            j.current = rank
            t.main[0].wake = -inf
            return why
        j.current = NONE
        look_at(t, rank)
