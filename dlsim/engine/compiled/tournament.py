"""Who is first: a tournament of players, each with a moment, of which the earliest wins.

When a player's moment changes, only their own games are played again, up to the final: as many as
the logarithm of the number of players.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlsim.engine.compiled.jit import inlined
from dlsim.engine.native.arrays import either


def leaves(players: int) -> int:
    """How many leaves the tree of a tournament of so many has."""
    return 1 << (players - 1).bit_length()


def tournament(players: int) -> NDArray[np.int64]:
    """The winners of a tournament in which all do equally well, so that the lowest number wins.

    Node 1 is the final; node n has the winner of nodes 2 n and 2 n + 1; leaves are the players.
    """
    count = leaves(players)
    tree = np.concatenate((np.zeros(count, np.int64), np.arange(count)))
    while count > 1:
        count //= 2
        tree[count : 2 * count] = tree[2 * count : 4 * count : 2]
    return tree


@inlined
def play_in_turn(
    moments: Any, turns: Any, winners: Any, player: int, moment: float, turn: int
) -> None:
    """One player has another moment and turn now; of equal moments the lower turn wins.

    Of equal turns, too, the lower number does.
    """
    moments[player], turns[player] = moment, turn
    at = (len(moments) + player) >> 1
    while at > 0:
        one, other = winners[2 * at], winners[2 * at + 1]
        winner = one
        if moments[other] < moments[one] or (
            moments[other] == moments[one] and turns[other] < turns[one]
        ):
            winner = other
        winners[at] = winner
        at >>= 1


@inlined
def play(moments: Any, winners: Any, player: int, moment: float, fair: bool) -> float:
    """One player has another moment now; returns that of the winner.

    `fair`: of two who are equal the one with the lower number wins, else the one who plays now.
    As nobody can foresee who wins, there are no branches.
    """
    moments[player] = moment
    at, winner, best = len(moments) + player, player, moment
    while at > 1:
        other = winners[at ^ 1]
        its = moments[other]
        left = fair and at & 1 == 1  # where the lower numbers are
        wins = its <= best if left else its < best
        winner, best = either(wins, other, winner), min(its, best)
        at >>= 1
        winners[at] = winner
    return best
