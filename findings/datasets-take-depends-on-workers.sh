#!/usr/bin/env bash
# Hugging Face datasets 5.2.0: which rows `take` and `skip` mean depends on num_workers.
#
# Guess: `take(8)` is the first 8 rows, `skip(8)` all others, whoever reads them.
# Seen:  with workers each takes, or skips, its share of 8 from its own shards: with four workers
#        the two first rows of each of four shards. So of a validation set `take(8)`, read without
#        workers, 6 rows are also in `skip(8)`, read by four.
# So:    a split by take and skip leaks between training and validation unless both are read with
#        the same number of workers; split by shards or by a filter.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 datasets==5.2.0
cd "$folder"
cat > seen.py <<'EOP'
import datasets
from datasets import IterableDataset
from torch.utils.data import DataLoader


def rows(shards):
    for shard in shards:
        for row in range(10):
            yield {"x": 100 * shard + row}


def read(data, workers):
    return {int(row["x"]) for row in DataLoader(data, batch_size=None, num_workers=workers)}


if __name__ == "__main__":
    print("datasets", datasets.__version__)
    data = IterableDataset.from_generator(rows, gen_kwargs={"shards": [0, 1, 2, 3]})
    held_out, rest = data.take(8), data.skip(8)
    print("take(8), no workers:", sorted(read(held_out, 0)))
    print("take(8), 4 workers: ", sorted(read(held_out, 4)))
    both = {n: len(read(held_out, 0) & read(rest, n)) for n in (0, 2, 4)}
    print("rows in both, by the workers of skip(8):", both)
    assert read(held_out, 0) == set(range(8))
    assert read(held_out, 4) == {0, 1, 100, 101, 200, 201, 300, 301}
    assert both == {0: 0, 2: 4, 4: 6}
EOP
"$folder/venv/bin/python" -W ignore seen.py
