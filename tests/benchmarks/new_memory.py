"""What memory costs that processes take anew for each batch: large pickled ones, and what keeps it.

`python -m tests.benchmarks.new_memory` prints the table of docs/own-loader.md, in a minute.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from statistics import median

from dlsim.trace.new_memory import SETTING
from tests.benchmarks.timing import three_digits

ROUNDS = 3
CASES = ((1, 8), (2, 8), (8, 8), (2, 16))  # workers, batch size
EPOCH = """
import json, resource, sys, time, warnings
from torch.utils.data import DataLoader
from dlsim.validation.fidelity.workloads import Arrays, as_list

def used():
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(found.ru_utime + found.ru_stime for found in both)
    return cpu, sum(found.ru_minflt for found in both) * resource.getpagesize()

warnings.simplefilter("ignore")
loader = DataLoader(Arrays(), {size}, num_workers={workers}, collate_fn=as_list)
cpu, new = used()
began = time.monotonic()
for batch in loader:
    pass
took, (cpu_after, new_after) = time.monotonic() - began, used()
print(json.dumps([took, (cpu_after - cpu) / len(loader), (new_after - new) / len(loader)]))
"""


def epoch(workers: int, size: int, settings: dict[str, str]) -> list[float]:
    """Seconds of an epoch in a process of its own, CPU seconds and new bytes for each batch."""
    code = EPOCH.format(workers=workers, size=size)
    command, env = [sys.executable, "-c", code], os.environ | settings
    done = subprocess.run(command, check=True, capture_output=True, env=env)
    found: list[float] = json.loads(done.stdout)
    return found


def rows() -> Iterator[str]:
    """The table, medians of some rounds in which all cases take turns."""
    kept = dict(setting.split("=") for setting in SETTING.split())
    runs = {(case, name): [] for case in CASES for name in ("given back", "kept")}  # type: dict[tuple[tuple[int, int], str], list[list[float]]]
    for _ in range(ROUNDS):
        for (case, name), found in runs.items():
            found.append(epoch(*case, kept if name == "kept" else {}))
    yield "| workers | batch | memory | epoch | processor time a batch | new memory a batch |"
    yield "| ---: | ---: | --- | ---: | ---: | ---: |"
    for ((workers, size), name), found in runs.items():
        took, cpu, new = (median(run[at] for run in found) for at in range(3))
        yield (
            f"| {workers} | {size * 0.3072:.1f} MB | {name} | {took:.2f} s | "
            f"{three_digits(cpu * 1e3)} ms | {three_digits(new / 1e6)} MB |"
        )


if __name__ == "__main__":
    print("\n".join(rows()))
