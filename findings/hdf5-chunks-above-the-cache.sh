#!/usr/bin/env bash
# h5py 3.16.0 with HDF5 2.0.0: a compressed chunk larger than the cache is read anew for every row.
#
# Guess: rows of one chunk cost one read of that chunk, as it is decompressed once and then in the
#        cache; the cache holds 1 MiB, as ever.
# Seen:  the cache is 8 MiB since HDF5 2.0, so chunks of up to that are read once; one of 16 MiB
#        is not cached at all: 20 rows of 4 KiB read 320 MiB from the file, and decompress it 20
#        times. Not compressed, such a chunk is no burden: only the rows asked for are read.
# So:    a sample may cost some thousand times its size; the same code becomes fast with chunks
#        below `rdcc_nbytes`, or with a larger cache, and behaves otherwise with h5py built on
#        HDF5 1.14.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check h5py==3.16.0 numpy==2.4.6
cd "$folder"
cat > seen.py <<'EOP'
import h5py
import numpy as np


def read_so_far():
    return int(open("/proc/self/io").read().split("rchar: ")[1].split()[0])


def cost(rows, compression):
    values = np.random.default_rng(0).integers(0, 255, (rows, 64, 64)).astype("u1")
    with h5py.File("x.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=values.shape, compression=compression)
    with h5py.File("x.h5") as file:
        data = file["x"]
        before = read_so_far()
        for row in range(20):
            data[row]
        return (read_so_far() - before) / 2**20, data.id.get_access_plist().get_chunk_cache()[1]


if __name__ == "__main__":
    print("h5py", h5py.__version__, "HDF5", h5py.version.hdf5_version)
    seen = {(rows // 256, how): cost(rows, how) for rows in (512, 4096) for how in ("gzip", None)}
    for (mib, how), (read, cache) in seen.items():
        print(f"chunk of {mib} MiB, {how}: 20 rows of 4 KiB read {read:.1f} MiB (cache {cache / 2**20:.0f} MiB)")
    assert seen[2, "gzip"][1] == 8 * 2**20
    assert seen[2, "gzip"][0] < 3 and seen[16, "gzip"][0] > 300 and seen[16, None][0] < 1
EOP
"$folder/venv/bin/python" -W ignore seen.py
