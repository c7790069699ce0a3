"""A bandwidth shared by the reads of several nodes, each of which can take only so much of it.

A full node, which takes all it can, is one with a storage of its own (`cores.py`). The level of
others is brought up to date from the one that they have in common, and they have no alarms but that
of all. So `run_ranks` looks after each step whether a node has as many reads as it was known for.
"""

from __future__ import annotations

from math import inf

from dlsim.engine.compiled.cores import advance, set_alarm
from dlsim.engine.compiled.jit import inlined
from dlsim.engine.compiled.meeting import look_at_node
from dlsim.engine.compiled.messages import STORAGE
from dlsim.engine.compiled.state import State, read
from dlsim.engine.compiled.tournament import play


@inlined
def advance_all(s: State) -> None:
    """Bring the level of those in common up to this moment."""
    n, now = s.network[0], s.job[0].now
    n.level += (now - n.since) * n.rate
    n.since = now


@inlined
def bring_up(s: State, node: int) -> None:
    """Bring the level of the node of `s` up to this moment."""
    x, now = s.sharing[STORAGE], s.job[0].now
    known = s.network_reads[node] == x.present
    s.main[0].now = now
    if s.network_reads[node] > 0:
        if x.full and x.alarm <= now and known:
            x.level = x.next
        elif x.full:
            advance(s, STORAGE)
        elif s.network_due[node] <= s.network[0].level and known:
            x.level = x.next
        else:
            x.level += s.network[0].level - x.seen
    x.since, x.seen = now, s.network[0].level


@inlined
def take_out(s: State, node: int) -> None:
    """Count the node no longer as one with as many reads as it was known for."""
    n, reads = s.network[0], s.network_reads[node]
    if reads > 0:
        s.network_with[reads] -= 1
        if s.sharing[STORAGE].full:
            n.full -= 1
        else:
            n.waiting -= reads


@inlined
def put_in(s: State, node: int) -> None:
    """Count the node as one with as many reads as it has now."""
    n, x = s.network[0], s.sharing[STORAGE]
    reads, due = x.present, inf
    s.network_reads[node] = reads
    set_alarm(s, STORAGE)
    if reads > 0:
        x.full = reads >= n.enough
        s.network_with[reads] += 1
        if x.full:
            n.full += 1
        else:
            n.waiting += reads
            due = n.level + (x.next - x.level)
            x.alarm = inf
    if s.network_due[node] != due:
        play(s.network_due, s.network_first, node, due, True)
    look_at_node(s, node)


@inlined
def share(s: State) -> None:
    """Find out which nodes are full now, share what they leave, and set the alarm."""
    n = s.network[0]
    while True:
        fewer = n.enough > 1 and fill(s, n.enough - 1)
        if not fewer and (n.enough == len(s.network_with) or fill(s, n.enough)):
            break
        n.enough += -1 if fewer else 1
        again(s, n.enough if fewer else n.enough - 1)
    left = n.capacity - n.full * n.most
    n.rate = left / n.waiting if n.waiting > 0 else 0.0
    n.alarm = inf
    if n.waiting > 0:
        n.alarm = n.since + max(0.0, s.network_due[s.network_first[1]] - n.level) / n.rate


@inlined
def fill(s: State, reads: int) -> bool:
    """Whether so many reads fill a node, where more do: their shares were at least `most`."""
    n = s.network[0]
    these = s.network_with[reads] if reads >= n.enough else 0
    left = n.capacity - (n.full - these) * n.most
    return bool((n.waiting + these * reads) * n.most <= reads * left)


@inlined
def again(s: State, reads: int) -> None:
    """Nodes with so many reads are full from now on, or no longer are."""
    if s.network_with[reads] > 0:
        for node in range(len(s.network_reads)):
            if s.network_reads[node] == reads:
                t = read(s.ranks[node * s.job[0].ranks])
                bring_up(t, node)
                take_out(t, node)
                put_in(t, node)


@inlined
def look_at_reads(s: State, node: int) -> None:
    """Share anew if a node has more reads or fewer, as one was begun, done or given up."""
    if s.network_reads[node] != s.sharing[STORAGE].present:
        advance_all(s)
        bring_up(s, node)
        take_out(s, node)
        put_in(s, node)
        share(s)
