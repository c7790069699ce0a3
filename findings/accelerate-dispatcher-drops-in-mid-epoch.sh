#!/usr/bin/env bash
# accelerate 1.15.0: samples are dropped in the middle of an epoch, not only filled up at its end.
#
# Guess: on two processes an IterableDataset is read by rank 0, which hands every sample to one of
#        them; where the last batches are short, some of the first samples come again.
# Seen:  rank 0 joins a batch for each rank and gives everyone a slice of `size // ranks`: what is
#        left over of a round in mid-epoch is dropped. Of 20 samples on two workers, 8 of them on
#        one and 12 on the other, in batches of three, one never comes, and one comes twice.
# So:    where workers end at different times, a sample of each odd round is not trained on, without
#        a word, and `drop_last=False` has no part in it; with `dispatch_batches=False` all come.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 accelerate==1.15.0
cd "$folder"
cat > seen.py <<'EOP'
import os
import sys

import accelerate
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from torch.multiprocessing import spawn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info


class Rows(IterableDataset):
    """Two workers: one has the samples 0 to 7, the other 8 to 19."""

    def __iter__(self):
        yield from range(8) if get_worker_info().id == 0 else range(8, 20)


def rank(number, dispatch):
    os.environ.update(RANK=str(number), LOCAL_RANK=str(number), WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29611" if dispatch else "29612")
    config = DataLoaderConfiguration(dispatch_batches=dispatch)
    accelerator = Accelerator(cpu=True, dataloader_config=config)
    loader = accelerator.prepare(DataLoader(Rows(), batch_size=3, num_workers=2))
    mine = torch.cat([*loader]).tolist()
    torch.save(mine, f"{dispatch}-{number}.pt")
    torch.distributed.destroy_process_group()


def seen(dispatch):
    spawn(rank, (dispatch,), nprocs=2)
    return sorted(x for number in range(2) for x in torch.load(f"{dispatch}-{number}.pt"))


if __name__ == "__main__":
    print("accelerate", accelerate.__version__, "torch", torch.__version__)
    by_default, each = seen(None), seen(False)
    lost = sorted(set(range(20)) - set(by_default))
    print("by default:            ", by_default, "lost:", lost)
    print("dispatch_batches=False:", each)
    assert len(by_default) == 20 and lost == [16]
    assert set(each) == set(range(20))
EOP
"$folder/venv/bin/python" -W ignore seen.py
