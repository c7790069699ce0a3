#!/usr/bin/env bash
# SPDL 0.8.0: stages in processes are dealt items in turn, however busy a process is.
#
# Guess: `.to(ProcessPoolExecutorConfig(max_workers=2))` is a pool: who is free takes the next item,
#        as with `concurrency=2` in threads, so that a slow item holds up one of the two.
# Seen:  item i goes to process i mod 2. Where every other item is slow one process has all slow
#        ones, and the other one is idle as soon as the queue to the first is full: the same items,
#        shifted by one now and then, are done in little more than half of the time, as they are in
#        threads.
# So:    data sorted or interleaved by kind (a long clip after a short one) load at the pace of the
#        slowest process, and more processes that divide the pattern do not help.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check spdl==0.8.0 numpy
cd "$folder"
cat > seen.py <<'EOP'
import os
import time
from importlib.metadata import version

from spdl.pipeline import PipelineBuilder
from spdl.pipeline.defs import MAIN_PROCESS, ProcessPoolExecutorConfig


def work(seconds):
    time.sleep(seconds)
    return os.getpid(), time.perf_counter()


def took(items, processes):
    builder = PipelineBuilder().add_source(items)
    if processes:
        builder = builder.to(ProcessPoolExecutorConfig(max_workers=2, mp_context="spawn"))
        builder = builder.pipe(work).to(MAIN_PROCESS)
    else:
        builder = builder.pipe(work, concurrency=2)
    pipeline = builder.add_sink(100).build(num_threads=4)
    with pipeline.auto_stop():
        done = list(pipeline)
    return max(at for _, at in done) - min(at for _, at in done)


if __name__ == "__main__":
    print("spdl", version("spdl"))
    turns = [0.2, 0.01] * 30
    shifted = [s for i in range(15) for s in ((0.2, 0.01, 0.01, 0.2))]
    assert sorted(turns) == sorted(shifted)
    found = {
        "in processes, every other item slow": took(turns, True),
        "in processes, the same items shifted": took(shifted, True),
        "in threads, every other item slow": took(turns, False),
    }
    for name, seconds in found.items():
        print(f"{name}: {seconds:.1f} s")
    one, other, threads = found.values()
    assert one > 1.5 * other and one > 1.5 * threads
EOP
"$folder/venv/bin/python" -W ignore seen.py
