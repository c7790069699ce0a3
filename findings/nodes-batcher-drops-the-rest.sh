#!/usr/bin/env bash
# torchdata 0.11.0: a Batcher drops what is left over, a DataLoader keeps it.
#
# Guess: `torchdata.nodes.Batcher(source, 4)` makes 4, 4 and 2 of ten items, as
#        `DataLoader(batch_size=4)` does.
# Seen:  it makes 4 and 4: `drop_last` is True there by default, and False in the DataLoader that
#        it replaces.
# So:    a pipeline moved from DataLoader to nodes loses the last samples of every epoch, and an
#        evaluation with them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 torchdata==0.11.0
cd "$folder"
cat > seen.py <<'EOP'
from importlib.metadata import version

import torchdata.nodes as nodes
from torch.utils.data import DataLoader

if __name__ == "__main__":
    print("torchdata", version("torchdata"))
    ours = [len(batch) for batch in nodes.Loader(nodes.Batcher(nodes.IterableWrapper(range(10)), 4))]
    theirs = [len(batch) for batch in DataLoader(range(10), batch_size=4)]
    print("nodes.Batcher:", ours, " DataLoader:", theirs)
    assert ours == [4, 4] and theirs == [4, 4, 2]
EOP
"$folder/venv/bin/python" -W ignore seen.py
