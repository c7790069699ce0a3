#!/usr/bin/env bash
# zarr 3.1.6: the index of a shard is read anew for every access, and so is the chunk.
#
# Guess: an array with shards is opened, and the index of a shard, 16 bytes for each of its chunks, is
#        read once and kept, as Parquet's footer is by whoever opens a file; a row then costs one
#        read of its chunk, or none, if the row before was in the same one.
# Seen:  each access reads the index, from the end of the shard, and then the chunk: 50 rows from five
#        chunks of ten are 50 reads of the index and 50 of chunks. One slice of the same 50 rows is one
#        and five; a slice that is all of the shard is a single read.
# So:    a data set whose `__getitem__` takes a row makes two round trips to the storage for each sample,
#        one after the other, and reads each chunk as often as it has rows; `__getitems__` with slices,
#        or rows in batches that are read as one, do not. Shards spare files, not reads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check zarr==3.1.6 numpy==2.4.6
cd "$folder"
cat > seen.py <<'EOP'
from collections import Counter

import numpy as np
import zarr
from zarr.storage import MemoryStore

reads = Counter()


class Counting(MemoryStore):
    async def get(self, key, prototype, byte_range=None):
        kinds = {"SuffixByteRequest": "index", "RangeByteRequest": "chunk", "NoneType": "shard"}
        reads[kinds[type(byte_range).__name__]] += 1
        return await super().get(key, prototype, byte_range)


def counted(what):
    reads.clear()
    what()
    return dict(reads)


if __name__ == "__main__":
    print("zarr", zarr.__version__)
    store = Counting()
    made = zarr.create_array(
        store, shape=(1000, 64), chunks=(10, 64), shards=(1000, 64), dtype="f4"
    )
    made[:] = np.random.default_rng(0).random((1000, 64))
    rows = zarr.open_array(store, mode="r")
    by_row = counted(lambda: [rows[index] for index in range(50)])
    by_slice = counted(lambda: rows[0:50])
    whole = counted(lambda: rows[:])
    print("50 rows, one by one:", by_row)
    print("the same as a slice:", by_slice)
    print("the whole shard:    ", whole)
    assert by_row == {"index": 50, "chunk": 50}
    assert by_slice == {"index": 1, "chunk": 5} and whole == {"shard": 1}
EOP
"$folder/venv/bin/python" -W ignore seen.py
