#!/usr/bin/env bash
# grain 0.2.18: a MapDataset has no last index.
#
# Guess: `data[len(data)]` raises IndexError, as of any sequence, so that a sampler made for a
#        longer data set fails at once.
# Seen:  the index is taken modulo the length: of four elements `data[5]` is the second, and a
#        torch loader whose sampler runs to 8 repeats them silently. A filter leaves the length as
#        it was, with None where something was left out.
# So:    a length from a stale file list, or a sampler of another split, costs repeated samples
#        instead of an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 grain==0.2.18
cd "$folder"
cat > seen.py <<'EOP'
from importlib.metadata import version

import grain
from torch.utils.data import DataLoader

if __name__ == "__main__":
    print("grain", version("grain"))
    data = grain.MapDataset.source([10, 11, 12, 13])
    print("length", len(data), "data[5] =", data[5])
    batches = [batch.tolist() for batch in DataLoader(data, batch_size=4, sampler=range(8))]
    print("a torch loader with a sampler of 8:", batches)
    even = data.filter(lambda x: x % 2 == 0)
    print("filtered: length", len(even), [even[i] for i in range(4)])
    assert data[5] == 11 and batches == [[10, 11, 12, 13], [10, 11, 12, 13]]
    assert [even[i] for i in range(len(even))] == [10, None, 12, None]
EOP
"$folder/venv/bin/python" -W ignore seen.py
