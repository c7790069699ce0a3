#!/usr/bin/env bash
# keras 3.15.1 on torch: `fit` starts the workers of a DataLoader twice for each epoch, and once before.
#
# Guess: `model.fit(loader, epochs=2)` calls `iter(loader)` twice, or three times, if the model is built
#        from a first batch: four, or six, starts of two workers.
# Seen:  five times, so ten starts: once for the batch that builds the model, then at the beginning of
#        each epoch, and again at the end of each, for an iterator that is dropped when the next epoch
#        makes its own, or when the training is over. Meanwhile its workers fetch what a window
#        holds, num_workers * prefetch_factor batches, in vain.
# So:    an epoch costs two starts of all workers, and fetches more samples than it has: where workers
#        are spawned, or epochs short, that is most of the time.
# Source: EpochIterator._enumerate_iterator, keras/src/trainers/epoch_iterator.py.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
    keras==3.15.1 torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > seen.py <<'EOP'
import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import torch
from torch.utils.data import DataLoader, Dataset

SAMPLES, EPOCHS = 40, 2


def note(word):
    with open("log", "a") as file:
        file.write(f"{word}\n")


class Rows(Dataset):
    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        note("fetched")
        return torch.ones(2), torch.ones(1)


def started(worker):
    note("started")


if __name__ == "__main__":
    print("keras", keras.__version__, "torch", torch.__version__)
    loader = DataLoader(Rows(), batch_size=2, num_workers=2, worker_init_fn=started)
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    found = []
    for which in ("a new model", "one that is built"):
        open("log", "w").close()
        model.fit(loader, epochs=EPOCHS, verbose=0)
        words = open("log").read().split()
        found.append(words.count("started"))
        print(
            f"{which}, {EPOCHS} epochs of {SAMPLES} samples with 2 workers: {found[-1]} workers"
            f" started, {words.count('fetched')} samples fetched"
        )
        assert words.count("fetched") > EPOCHS * SAMPLES
    assert found == [2 * (2 * EPOCHS + 1), 2 * 2 * EPOCHS]
EOP
"$folder/venv/bin/python" -W ignore seen.py
