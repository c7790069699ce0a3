#!/usr/bin/env bash
# torch 2.13.0: a worker that returns a row of a tensor puts the whole tensor into /dev/shm.
#
# Guess: a batch takes its own size of /dev/shm; a row of 1 MB out of a tensor of 64 MB takes 1 MB.
# Seen:  each worker's first such row takes 64 MB, its later ones nothing more; and that stays as
#        long as the worker lives, whatever becomes of the batches. Whoever clones the row, or lets
#        the default collate stack it, takes what the rows take.
# So:    the usual rules (batches on their way times their size) are off by orders of magnitude,
#        either way; it grows with workers and with the data set, not with prefetching; and a
#        container with 64 MiB of /dev/shm kills the first worker.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > seen.py <<'EOP'
import os
import time

import torch
from torch.utils.data import DataLoader, Dataset


def used():
    found = os.statvfs("/dev/shm")
    return (found.f_blocks - found.f_bfree) * found.f_frsize / 1e6


class Rows(Dataset):
    def __init__(self, clone):
        self.rows, self.clone = torch.zeros(64, 250_000), clone  # 64 rows of 1 MB

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index].clone() if self.clone else self.rows[index]


def grown(clone, workers):
    before = used()
    batches = iter(DataLoader(Rows(clone), batch_size=None, num_workers=workers, prefetch_factor=1))
    levels = []
    for _ in range(8):
        next(batches)
        time.sleep(0.25)
        levels.append(round(used() - before))
    return levels


if __name__ == "__main__":
    print("torch", torch.__version__)
    for clone in (False, True):
        for workers in (1, 2):
            levels = grown(clone, workers)
            print(f"{'cloned' if clone else 'as it is'}, {workers} workers: MB in /dev/shm {levels}")
            if clone:
                assert max(levels) <= 2 * workers + 2
            else:
                assert 64 * workers <= min(levels[-4:]) and max(levels) <= 64 * workers + 2
EOP
"$folder/venv/bin/python" -W ignore seen.py
