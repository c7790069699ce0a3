#!/usr/bin/env bash
# CPython 3.11.7: what a call costs depends on how deep it lies.
#
# Guess: a call of a Python function costs the same at every depth; only recursion that is thousands
#        deep costs more.
# Seen:  frames lie one above another in pieces of 16 KiB. The call that needs another piece maps it,
#        and gives it back to the system when it returns. A loop that is just there does so in each
#        turn: at one or two of 900 depths each call is some three hundred times as dear, with a page
#        fault in each. One frame more or less above it (a wrapper, a profiler, another worker function) and
#        it is gone, or there.
# So:    a worker's samples, or its first imports, may take half as long again than in another process
#        that runs the same code; what is timed below a decorator says little of what is not.
# Source: _PyThreadState_BumpFramePointerSlow and _PyThreadState_PopFrame, Python/pystate.c.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > seen.py <<'EOP'
import sys
from resource import RUSAGE_SELF, getrusage
from statistics import median
from time import process_time

CALLS = 2000


def nothing():
    pass


def loop():
    """What a call takes, in ns, and how many pages were new."""
    faults, began = getrusage(RUSAGE_SELF).ru_minflt, process_time()
    for _ in range(CALLS):
        nothing()
    took = process_time() - began
    return took / CALLS * 1e9, getrusage(RUSAGE_SELF).ru_minflt - faults


def deeper(depth):
    return deeper(depth - 1) if depth else loop()


if __name__ == "__main__":
    seen = [deeper(depth) for depth in range(900)]
    dear = [depth for depth, (_, faults) in enumerate(seen) if faults >= CALLS]
    usual = median(cost for cost, _ in seen)
    assert 1 <= len(dear) <= 9
    most = median(seen[depth][0] for depth in dear)
    print(f"Python {sys.version.split()[0]}: a call takes {usual:.0f} ns at most depths,")
    print(f"{most:.0f} ns at depths {dear}, where each has a page fault")
    assert most > 50 * usual
EOP
python3 seen.py
