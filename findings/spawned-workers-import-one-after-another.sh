#!/usr/bin/env bash
# Python 3.11's multiprocessing: spawned workers import in turn only if their data set is large.
#
# Guess: `Process.start()` under spawn returns once the process is there; the new processes import what
#        they need beside each other, whatever they are given. How large a data set is costs its copy.
# Seen:  it returns at once as long as all that is pickled for the worker fits into a pipe, 64 KiB. What
#        is larger is read only when the main module is imported, and start() waits for that: four
#        workers whose imports take 0.5 s are started in 0.03 s with a list of 10 kB, in more than 2 s
#        with one of 1 MB. Under forkserver it is the same.
# So:    a data set of some 100 kB (a list of paths) makes the start of all workers a sum of imports, in
#        each epoch; one that reads its list in the worker does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > seen.py <<'EOP'
import multiprocessing
import time

if __name__ != "__main__":
    time.sleep(0.5)  # what a worker imports


def work(data):
    pass


def started(method, data):
    context = multiprocessing.get_context(method)
    if method == "forkserver":  # which itself starts but once
        first = context.Process(target=work, args=(b"",))
        first.start()
        first.join()
    workers = [context.Process(target=work, args=(data,)) for _ in range(4)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    took = time.perf_counter() - began
    for worker in workers:
        worker.join()
    return took


if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        small, large = (started(method, bytes(size)) for size in (10_000, 1_000_000))
        print(f"{method}: start() of four workers took {small:.2f} s with 10 kB, {large:.2f} s with 1 MB")
        assert small < 0.5 < 2.0 <= large
EOP
python3 seen.py
