#!/usr/bin/env bash
# grain 0.2.18: what is in a batch depends on the number of processes.
#
# Guess: `mp_prefetch` "uses multiple processes to prefetch elements ahead of time", and grain is
#        deterministic: with any number of processes the same batches come in the same order.
# Seen:  each process has every n-th element, and all that was done to the data set before
#        `mp_prefetch`. Batches made behind `to_iter_dataset()` are of one process's elements: in the
#        main process the first is 0 1 2 3, with three processes 0 3 6 9, and the last one of each
#        process may be left short, or be dropped. Made before `to_iter_dataset()`, they are the same
#        with any number.
# So:    a run that is continued on a machine with other cores trains on other batches, and one
#        `.batch()` a line too low drops up to a batch for each process in every epoch.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check grain==0.2.18
cd "$folder"
cat > seen.py <<'EOP'
from importlib.metadata import version

import grain
from grain.multiprocessing import MultiprocessingOptions


def batches(processes, *, behind):
    data = grain.MapDataset.range(14)
    made = data.to_iter_dataset() if behind else data.batch(4, drop_remainder=True, batch_fn=list)
    made = made.batch(4, drop_remainder=True, batch_fn=list) if behind else made.to_iter_dataset()
    return [list(map(int, batch)) for batch in made.mp_prefetch(MultiprocessingOptions(processes))]


if __name__ == "__main__":
    print("grain", version("grain"))
    found = {(n, behind): batches(n, behind=behind) for n in (0, 3) for behind in (True, False)}
    for (processes, behind), lists in found.items():
        print(processes, "processes, batched", "behind" if behind else "before", lists)
    assert found[0, True] == found[0, False] == found[3, False]
    assert found[3, True] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
EOP
"$folder/venv/bin/python" -W ignore seen.py
