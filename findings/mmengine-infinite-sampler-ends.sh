#!/usr/bin/env bash
# mmengine 0.10.7: InfiniteSampler gives nothing to a second iterator.
#
# Guess: a sampler that never ends begins anew with each `iter(loader)`, or goes on where the last
#        iterator was left; either way there are batches.
# Seen:  its indices come from one generator, made with the sampler. A DataLoader's iterator that
#        goes away closes it, and from then on every loop over the loader is over at once, silently.
# So:    a warm-up, a look at the first batch, or a loop that is begun again after an error leaves a
#        training of no steps behind.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 mmengine==0.10.7 numpy
cd "$folder"
cat > seen.py <<'EOP'
from importlib.metadata import version
from itertools import islice

from mmengine.dataset import InfiniteSampler
from torch.utils.data import DataLoader

if __name__ == "__main__":
    data = range(100)
    loader = DataLoader(data, batch_size=4, sampler=InfiniteSampler(data))
    first, second = (len([*islice(loader, 5)]) for _ in range(2))
    print("mmengine", version("mmengine"))
    print("batches of the first loop:", first, " of the second:", second)
    assert (first, second) == (5, 0)
EOP
"$folder/venv/bin/python" -W ignore seen.py
