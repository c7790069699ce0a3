#!/usr/bin/env bash
# pyarrow 26.0.1: of two ways to read a Parquet file in batches, one cuts them at row groups.
#
# Guess: both `ParquetFile.iter_batches(8)` and `dataset.to_batches(8)` give 8, 8, 8, 6 rows of a
#        file of 30.
# Seen:  the first does, whatever the row groups; the second never crosses one: 8, 2, 8, 2, 8, 2
#        of three row groups of ten.
# So:    as a source of training batches the second one gives short batches all through the epoch,
#        as many as there are row groups; the size asked for should divide theirs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check pyarrow==26.0.1
cd "$folder"
cat > seen.py <<'EOP'
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

if __name__ == "__main__":
    print("pyarrow", pa.__version__)
    pq.write_table(pa.table({"x": list(range(30))}), "x.parquet", row_group_size=10)
    by_file = [b.num_rows for b in pq.ParquetFile("x.parquet").iter_batches(batch_size=8)]
    by_dataset = [b.num_rows for b in pa.dataset.dataset("x.parquet").to_batches(batch_size=8)]
    print("ParquetFile.iter_batches:", by_file)
    print("dataset.to_batches:      ", by_dataset)
    assert by_file == [8, 8, 8, 6] and by_dataset == [8, 2, 8, 2, 8, 2]
EOP
"$folder/venv/bin/python" -W ignore seen.py
