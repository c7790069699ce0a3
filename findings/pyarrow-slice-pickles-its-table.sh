#!/usr/bin/env bash
# pyarrow 26.0.1: a slice that a worker returns is pickled with the whole table that it is cut from.
#
# Guess: a slice of ten rows, whose `nbytes` is that of ten rows, is pickled as ten rows; views of
#        NumPy arrays are.
# Seen:  the pickle holds all buffers of the table: 15 MiB for `table.slice(5, 10)`, and for a slice
#        of a record batch or of one column as well. `take` copies the rows, and so does `filter`.
# So:    a data set that cuts batches out of a table sends the table through the pipe for each of
#        them, at some gigabyte a second, though each batch says of itself that it is small.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check pyarrow==26.0.1 numpy==2.4.6
cd "$folder"
cat > seen.py <<'EOP'
import pickle

import numpy as np
import pyarrow as pa

table = pa.table({"x": np.arange(1_000_000), "y": np.arange(1_000_000)})
rows = np.arange(1_000_000)[5:15]
parts = {
    "table": table,
    "table.slice": table.slice(5, 10),
    "batch.slice": table.to_batches()[0].slice(5, 10),
    "column.slice": table["x"].combine_chunks().slice(5, 10),
    "table.take": table.take(pa.array(rows)),
    "numpy view": rows,
}
print("pyarrow", pa.__version__)
size = {name: (part.nbytes, len(pickle.dumps(part, 5))) for name, part in parts.items()}
for name, (own, sent) in size.items():
    print(f"{name:12}  nbytes {own:>9}  pickled {sent:>9}")
whole = size["table"][1]
assert all(size[name][0] < 200 for name in parts if name != "table")
assert min(size["table.slice"][1], size["batch.slice"][1]) > 0.99 * whole
assert size["column.slice"][1] > 0.49 * whole
assert size["table.take"][1] < 2000 and size["numpy view"][1] < 2000
EOP
"$folder/venv/bin/python" -W ignore seen.py
