#!/usr/bin/env bash
# pytorch-metric-learning 2.9.0: an epoch of MPerClassSampler is 100,000 samples, of any data set.
#
# Guess: `MPerClassSampler(labels, m=4)` goes through the samples that have `labels` once, in another
#        order, so that a loader of 600 samples in batches of 20 has 30 of them.
# Seen:  it has 5,000: the sampler draws `length_before_new_iter` samples, 100,000 unless told
#        otherwise, each of the 600 more than a hundred times.
# So:    what is counted in epochs (a schedule of the learning rate, a validation after each) happens
#        166 times more rarely, and a data set of a million is never gone through.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
    torch==2.13.0 pytorch-metric-learning==2.9.0 numpy
cd "$folder"
cat > seen.py <<'EOP'
from collections import Counter
from importlib.metadata import version

from pytorch_metric_learning.samplers import MPerClassSampler
from torch.utils.data import DataLoader

if __name__ == "__main__":
    print("pytorch-metric-learning", version("pytorch-metric-learning"))
    labels = [sample % 5 for sample in range(600)]
    loader = DataLoader(range(600), batch_size=20, sampler=MPerClassSampler(labels, m=4))
    drawn = Counter(sample for batch in loader for sample in batch.tolist())
    least, most = min(drawn.values()), max(drawn.values())
    print("batches of 600 samples:", len(loader), " each sample:", least, "to", most)
    assert len(loader) == 5000 and sum(drawn.values()) == 100_000 and least > 100
EOP
"$folder/venv/bin/python" -W ignore seen.py
