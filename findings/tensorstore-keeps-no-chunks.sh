#!/usr/bin/env bash
# tensorstore 0.1.86: chunks are not kept, unless a cache is asked for.
#
# Guess: 50 rows of one chunk read its file once: a library made for chunked arrays keeps the
#        chunk at hand.
# Seen:  51 reads, one for the metadata: the cache pool has 0 bytes by default. With `cache_pool`
#        of 1 MB the file is read once; but every use of a cached chunk then asks the file system
#        whether it has changed, unless `recheck_cached_data` is False.
# So:    each sample costs a whole chunk, and decompressing it, until `context={'cache_pool':
#        {'total_bytes_limit': ...}}` is said, in each worker.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check tensorstore==0.1.86 numpy==2.4.6
cd "$folder"
cat > seen.py <<'EOP'
import os
from importlib.metadata import version

import numpy as np
import tensorstore as ts


def reads():
    (metric,) = ts.experimental_collect_matching_metrics("/tensorstore/kvstore/file/batch_read")
    return metric["values"][0]["value"]


if __name__ == "__main__":
    print("tensorstore", version("tensorstore"))
    path = os.path.abspath("x.zarr")
    spec = {"driver": "zarr", "kvstore": "file://" + path}
    layout = ts.ChunkLayout(read_chunk_shape=[64, 64])
    made = ts.open(spec, create=True, dtype=ts.uint8, shape=[64, 64], chunk_layout=layout)
    made.result()[...] = np.ones((64, 64), "u1")

    def rows(**options):
        data = ts.open(spec, **options).result()
        before = reads()
        for row in range(50):
            data[row].read().result()
        return reads() - before

    plain = rows()
    pool = ts.Context({"cache_pool": {"total_bytes_limit": 1_000_000}})
    kept = rows(context=pool, recheck_cached_data=False)
    print("50 rows of one chunk: reads of its file", plain, "and with a cache", kept)
    assert plain == 50 and kept <= 1
EOP
"$folder/venv/bin/python" -W ignore seen.py
