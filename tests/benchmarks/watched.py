"""What watching costs: an epoch of short samples, watched by `observe` and by torch.profiler.

Processor time of the main process and of its workers, from the epoch's begin to its end, over the
mean of those of the epochs before and after it that nobody watches. What is done once, before and
after an epoch however long, is told in seconds. The samples make no objects, since what these cost
hangs on what else is in memory; and the first epoch, which finds nothing loaded, does not count.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from statistics import median

from tests.benchmarks.timing import spread, three_digits

SAMPLES, SECONDS = 100_000, 20e-6  # of pure Python
EPOCH = """
import json, resource, time
from itertools import repeat
import torch
from torch.utils.data import DataLoader, Dataset
from dlsim.validation.observing import run

class Rows(Dataset):
    turns = 5000
    def __len__(self):
        return {samples}
    def __getitem__(self, index):
        for _ in repeat(None, self.turns):
            pass
        return index

def timed(rows, times):
    began = time.process_time()
    for index in range(times):
        rows[index]
    return (time.process_time() - began) / times

def used():
    both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(found.ru_utime + found.ru_stime for found in both)

def counted(epoch):
    def call(*given):
        began = used()
        found = epoch(*given)
        took.append(used() - began)
        return found
    return call

rows = Rows()
rows.turns = int(rows.turns * {seconds} / min(timed(rows, 50) for _ in range(20)))
loader = DataLoader(rows, batch_size=100, num_workers=2)
took = []
run.run_epoch = counted(run.run_epoch)

@counted
def alone():
    for batch in loader:
        pass

def profiled():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        alone()

taken = {{}}
alone(), alone()
for by, watched in (("observe", lambda: run.observe(loader)), ("torch.profiler", profiled)):
    before, began = took[-1], used()
    watched()
    all, epoch = used() - began, took[-1]
    alone()
    taken[by] = epoch, (before + took[-1]) / 2, all - epoch
print(json.dumps(taken))
"""


def watched_epochs(repeats: int) -> Iterator[str]:
    """Rows: an epoch watched by each, over one that is not."""
    code = EPOCH.format(samples=SAMPLES, seconds=SECONDS)
    runs = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        runs.append(json.loads(done.stdout))
    for by, goal in (("observe", "≤ 1.03"), ("torch.profiler", "")):
        found = [run[by] for run in runs]
        ratios = [epoch / alone for epoch, alone, _ in found]
        cost = median(epoch - alone for epoch, alone, _ in found) / SAMPLES
        once = three_digits(median(rest for *_, rest in found))
        yield f"| {by} | {spread(ratios)} | {goal} | {cost * 1e6:.2f} µs | {once} s |"
