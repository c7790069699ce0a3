#!/usr/bin/env bash
# numpy 2.4.6: a memory-mapped array in a data set is copied whole to each spawned worker.
#
# Guess: `numpy.memmap` knows its file, so a worker that is spawned maps the file again, as joblib's
#        workers do; what arrives is a memmap, after all.
# Seen:  the pickle holds the data: 50 MB for a file of 50 MB. What is unpickled is an instance of
#        `numpy.memmap` whose memory is the process's own; its `filename` is None, and the file is
#        not among its mappings.
# So:    with `multiprocessing_context="spawn"` (the default on macOS and Windows) eight workers hold
#        eight copies, and starting them takes as long as piping the file through eight times. A
#        forked worker shares the mapping.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check numpy==2.4.6
cd "$folder"
cat > seen.py <<'EOP'
import multiprocessing
import pickle

import numpy as np


def look(array, answers):
    mapped = "rows.bin" in open("/proc/self/maps").read()
    answers.put((type(array).__name__, array.filename, mapped))


if __name__ == "__main__":
    np.zeros(50_000_000, np.uint8).tofile("rows.bin")
    array = np.memmap("rows.bin", np.uint8, "r")
    print("numpy", np.__version__)
    print("pickled:", len(pickle.dumps(array, 5)), "bytes")
    assert len(pickle.dumps(array, 5)) > array.nbytes
    seen = {}
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        answers = context.SimpleQueue()
        worker = context.Process(target=look, args=(array, answers))
        worker.start()
        seen[method] = answers.get()
        worker.join()
        print(f"{method}: a {seen[method][0]}, filename {seen[method][1]!s:.20}, file mapped {seen[method][2]}")
    assert seen["fork"][0] == seen["spawn"][0] == "memmap"
    assert seen["fork"][2] and not seen["spawn"][2] and seen["spawn"][1] is None
EOP
"$folder/venv/bin/python" -W ignore seen.py
