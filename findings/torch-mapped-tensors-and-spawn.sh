#!/usr/bin/env bash
# torch 2.13.0: tensors that are mapped from a file do not stay so in spawned workers.
#
# Guess: both ways to map a file, `torch.load(mmap=True)` and `torch.from_file`, give spawned workers
#        a mapping of the same file, or a copy of their own each.
# Seen:  what `torch.load(mmap=True)` mapped is copied into /dev/shm once for all workers, whole:
#        50 MB for a file of 50 MB; from then on the data set of the main process lies there, too.
#        What `torch.from_file` mapped, shared or not, cannot be given to a spawned worker: OSError,
#        a bad file descriptor. Forked workers go on with the mapping in both cases.
# So:    a data set larger than /dev/shm that works under fork does not start under spawn, and one
#        that fits leaves that much less to batches.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > seen.py <<'EOP'
import os

import torch
from torch.utils.data import DataLoader, Dataset

SIZE = 50_000_000


def used():
    found = os.statvfs("/dev/shm")
    return (found.f_blocks - found.f_bfree) * found.f_frsize / 1e6


class Bytes(Dataset):
    def __init__(self, tensor):
        self.tensor = tensor

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return int(self.tensor[index])


def tried(tensor, method):
    before = used()
    try:
        batches = iter(DataLoader(Bytes(tensor), num_workers=2, multiprocessing_context=method))
        next(batches)
    except OSError as error:
        return f"OSError: {error}"
    return round(used() - before)


if __name__ == "__main__":
    print("torch", torch.__version__)
    torch.zeros(SIZE, dtype=torch.uint8).numpy().tofile("raw.bin")
    torch.save(torch.zeros(SIZE, dtype=torch.uint8), "saved.pt")
    seen = {}
    for how, make in {
        "torch.load(mmap=True)": lambda: torch.load("saved.pt", mmap=True),
        "torch.from_file": lambda: torch.from_file("raw.bin", size=SIZE, dtype=torch.uint8),
        "torch.from_file(shared=True)": lambda: torch.from_file(
            "raw.bin", shared=True, size=SIZE, dtype=torch.uint8
        ),
    }.items():
        for method in ("fork", "spawn"):
            seen[how, method] = tried(make(), method)
            print(f"{how}, {method}: {seen[how, method]} (MB in /dev/shm)")
    assert all(seen[how, "fork"] == 0 for how, _ in seen)
    assert 50 <= seen["torch.load(mmap=True)", "spawn"] <= 52
    for how in ("torch.from_file", "torch.from_file(shared=True)"):
        assert "Bad file descriptor" in seen[how, "spawn"]
EOP
"$folder/venv/bin/python" -W ignore seen.py
