"""When many equal things in a row are done: to the last bit what adding one by one comes to."""

from __future__ import annotations

import math

FEW = 6  # that are as soon added one by one


def after_equal_ones(now: float, count: int, round_trip: float, seconds: float) -> float:
    """`now` after `count` times `now = now + round_trip + seconds`, in far fewer additions.

    Between two powers of two, floats are equally far from each other, so that every addition moves
    on by as many of them; but for the first one, after which numbers halfway between two floats are
    always rounded the same way. So all that stay below the next power of two are done at once.

    The compiled engine has this text, too.
    """
    while count > FEW:
        first = now + round_trip + seconds
        second = first + round_trip + seconds
        third = second + round_trip + seconds
        each = third - second
        if not each > 0 or not third < math.inf:
            return third  # nothing passes any more
        (_, power), now, count = math.frexp(first), third, count - 3
        last = third + count * each
        if last < math.inf and math.frexp(last)[1] == power:
            return last
        if math.frexp(third)[1] == power:
            half = math.ldexp(1.0, power - 1)  # of that power of two, which may be no float
            room = (half - third + half) / each
            jump = int(min(float(count), room - 1.0)) if room > 1.0 else 0
            now += jump * each
            count -= jump
    for _ in range(count):
        now = now + round_trip + seconds
    return now
