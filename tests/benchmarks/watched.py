"""What watching costs: an epoch of short samples, watched by `observe` and by torch.profiler.

Processor time of the main process and of its workers, beside that of an epoch nobody watches, which
is the second one: the first finds nothing loaded.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from statistics import median

from tests.benchmarks.timing import spread

SAMPLES, SECONDS = 100_000, 20e-6  # of pure Python
EPOCH = """
import json, os, sys, time
from contextlib import nullcontext
import torch
from torch.utils.data import DataLoader, Dataset
from dlsim.validation import observe

class Rows(Dataset):
    turns = 100
    def __len__(self):
        return {samples}
    def __getitem__(self, index):
        for _ in range(self.turns):
            pass
        return index

def timed(rows, times):
    began = time.process_time()
    for index in range(times):
        rows[index]
    return (time.process_time() - began) / times

def used():
    found = os.times()
    return found.user + found.system + found.children_user + found.children_system

rows = Rows()
rows.turns = int(rows.turns * {seconds} / min(timed(rows, 1000) for _ in range(20)))
loader = DataLoader(rows, batch_size=100, num_workers=2)
taken = {{}}
for by in ("nobody for the first time", "nobody", "observe", "torch.profiler"):
    profile = torch.profiler.ProfilerActivity.CPU
    began = used()
    if by == "observe":
        observe(loader)
    else:
        watching = torch.profiler.profile(activities=[profile])
        with watching if by == "torch.profiler" else nullcontext():
            for batch in loader:
                pass
    taken[by] = used() - began
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
        cost = median(run[by] - run["nobody"] for run in runs) / SAMPLES
        ratios = [run[by] / run["nobody"] for run in runs]
        yield f"| {by} | {spread(ratios)} | {goal} | {cost * 1e6:.2f} µs |"
