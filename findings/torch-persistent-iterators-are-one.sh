#!/usr/bin/env bash
# torch 2.13.0: with persistent workers a loader has one iterator: a look at a batch begins the epoch anew.
#
# Guess: each `iter(loader)` is an iterator of its own. So `next(iter(loader))` in the middle of an
#        epoch, to log a batch, leaves the loop over the loader as it is, and `zip(loader, loader)`
#        gives each batch beside itself. Without `persistent_workers` both are so.
# Seen:  with `persistent_workers=True` every `iter(loader)` resets the one iterator and returns it. The
#        loop that looks after its second of four batches gets 2, 3, 4 afterwards: five batches,
#        some samples twice; one that looks after every tenth batch never ends. And
#        `zip(loader, loader)` gives batches 1 and 2, then 3 and 4: two turns, not four.
# So:    an argument that is said to save the start of workers changes which samples an epoch has,
#        wherever a callback, a progress bar or a second loop takes a batch of the same loader.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > seen.py <<'EOP'
import torch
from torch.utils.data import DataLoader


def made(persistent):
    return DataLoader(range(8), batch_size=2, num_workers=2, persistent_workers=persistent)


def looking(loader):
    """The batches of an epoch, in which a batch is looked at after the second one."""
    seen = []
    for batch in loader:
        seen.append(batch.tolist())
        if len(seen) == 2:
            next(iter(loader))
    return seen


if __name__ == "__main__":
    print("torch", torch.__version__)
    found = {}
    for persistent in (False, True):
        loader = made(persistent)
        pairs = [(a.tolist(), b.tolist()) for a, b in zip(loader, loader)]
        found[persistent] = looking(made(persistent)), pairs
        print(f"persistent_workers={persistent}: an epoch with a look: {found[persistent][0]}")
        print(f"    zip(loader, loader): {pairs}")
    batches = [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert found[False] == (batches, [(batch, batch) for batch in batches])
    assert found[True] == (batches[:2] + batches[1:], [tuple(batches[:2]), tuple(batches[2:])])
EOP
"$folder/venv/bin/python" -W ignore seen.py
