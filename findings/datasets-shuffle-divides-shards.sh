#!/usr/bin/env bash
# Hugging Face datasets 5.0.1: shuffling a streamed data set takes most of its shards away.
#
# Guess: `shuffle()` of a data set with 40 shards has 40 shards, so that up to 40 workers share
#        it.
# Seen:  it has 4: since the buffer is filled from up to `max_buffer_input_shards` (10 by default)
#        shards at a time, those count as one. With 4 shards one worker of four gets everything,
#        the others end at once.
# So:    more workers change nothing after a shuffle, until `max_buffer_input_shards=1` is said, or
#        datasets 5.2.0 is there, which keeps all shards; count `num_shards` of the data set that the
#        loader gets, not of the one that was opened.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 datasets==5.0.1
cd "$folder"
cat > seen.py <<'EOP'
from collections import Counter

import datasets
from datasets import IterableDataset
from torch.utils.data import DataLoader, get_worker_info


def rows(shards):
    for shard in shards:
        for row in range(10):
            info = get_worker_info()
            yield {"x": 100 * shard + row, "worker": info.id if info else -1}


def made(shards):
    return IterableDataset.from_generator(rows, gen_kwargs={"shards": list(range(shards))})


def shares(data):
    seen = Counter(int(row["worker"]) for row in DataLoader(data, None, num_workers=4))
    return dict(sorted(seen.items()))


if __name__ == "__main__":
    print("datasets", datasets.__version__)
    counts = {n: made(n).shuffle(seed=0).num_shards for n in (4, 25, 40, 100)}
    print("shards before and after shuffle():", counts)
    plain, shuffled = shares(made(4)), shares(made(4).shuffle(seed=0))
    one = shares(made(4).shuffle(seed=0, max_buffer_input_shards=1))
    print("rows by worker, 4 workers, 4 shards:", plain, "shuffled:", shuffled, "one at a time:", one)
    assert counts == {4: 1, 25: 2, 40: 4, 100: 10}
    assert plain == one == {0: 10, 1: 10, 2: 10, 3: 10} and shuffled == {0: 40}
EOP
"$folder/venv/bin/python" -W ignore seen.py
