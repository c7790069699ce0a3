"""Where ranks meet: steps that lead up to it, and who goes on when all have come.

When a step on the accelerator is over is known as soon as it is given, unless one before it waits
for others to come. So those are kept until that is known.
"""

from __future__ import annotations

from dlsim.engine.compiled.clock import main_process
from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.messages import FINISHED, RUN_AHEAD
from dlsim.engine.compiled.settings import NONE
from dlsim.engine.compiled.state import State, read
from dlsim.engine.compiled.tournament import play, play_in_turn


@inlined
def give(s: State, number: int, copy: float, ready: float, seconds: float) -> int:
    """Give a step to the accelerator; it is told when it is over as soon as that is known."""
    m = s.main[0]
    step = s.pending[m.given & (len(s.pending) - 1)]
    step.number, step.given, step.copy, step.ready = number, m.now, copy, ready
    step.seconds = seconds
    step.meets = m.count % s.rules[0].sync == 0
    m.given += 1
    go_through(s)
    meet(s)
    return RUN_AHEAD


@inlined
def go_through(s: State) -> None:
    """Find out when steps are over, up to one that waits for others."""
    m, j = s.main[0], s.job[0]
    while m.resolved < m.given and not m.blocked:
        step = s.pending[m.resolved & (len(s.pending) - 1)]
        begin = max(step.given, m.accelerator)
        over = max(begin + step.copy, step.ready) + step.seconds
        s.stepped[0, step.number] = over
        if step.meets:
            m.blocked = True
            j.here += 1
            j.latest = max(j.latest, over)
        else:
            let_go(s, over)


@inlined
def let_go(s: State, moment: float) -> None:
    """The first step that is not yet over is at this moment."""
    m = s.main[0]
    number = s.pending[m.resolved & (len(s.pending) - 1)].number
    s.moments[FINISHED, number] = m.accelerator = moment
    m.resolved += 1


@inlined
def meet(s: State) -> None:
    """Let all go on who have come, if all have; nobody ever does if the others are gone."""
    j = s.job[0]
    while j.here > 0 and j.here + j.joined == j.world:
        moment = max(j.latest, j.joined_at) + s.meeting_times[j.met]
        j.met += 1
        j.here, j.latest = 0, 0.0
        for rank in range(j.world):
            t = read(s.ranks[rank])
            if t.main[0].blocked:
                t.main[0].blocked = False
                let_go(t, moment)
                go_through(t)
                wake_host(t)
                look_at(t, rank)
    if j.here > 0 and j.here + j.gone == j.world:
        j.until = min(j.until, max(j.latest, j.now))


@inlined
def wake_host(s: State) -> None:
    """Tell a host that waits for a step when that is over."""
    m = s.main[0]
    if m.held:
        end = s.moments[FINISHED, s.order[m.trained]]
        if end == end:
            m.held, m.wake = False, end


@inlined
def look_at(s: State, rank: int) -> None:
    """Find out who of a rank acts next, and when."""
    m = s.main[0]
    time, turn = m.soon, 0
    if m.soon <= m.wake:
        first, other = m.ready, s.first[1]
        turn = other
        if first != NONE and (s.wake[other] > m.soon or other > first):
            turn = first
    else:
        time = max(m.wake, s.job[0].now)
    if m.soon > m.wake or s.rules[0].workers == 0:  # whose hands fetch then
        turn = main_process(s)
    play_in_turn(s.rank_times, s.rank_turns, s.rank_first, rank, time, turn)


@inlined
def look_at_node(s: State, node: int) -> None:
    """Find out when something is due next at what the ranks of a node share."""
    alarm = min(s.sharing[0].alarm, s.sharing[1].alarm)
    if alarm != s.node_times[node]:
        play(s.node_times, s.node_first, node, alarm, True)
