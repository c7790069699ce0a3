#!/usr/bin/env bash
# MONAI 1.6.1: CacheDataset caches nothing from the first plain function on.
#
# Guess: `CacheDataset(data, transform=Compose([load, ...]))` calls each transform once for each
#        item, at construction.
# Seen:  only up to the first transform that is not one of MONAI's own classes: a plain function
#        counts as random, so it and all after it run at every access, and the items cached are
#        those before it, here the raw ones.
# So:    a cache that was paid for at start-up leaves loading as slow as it was; wrap functions in
#        `monai.transforms.Lambda`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 monai==1.6.1
cd "$folder"
cat > seen.py <<'EOP'
import monai
from monai.data import CacheDataset
from monai.transforms import Compose, Lambda

calls = {"load": 0, "own": 0}


def load(x):
    calls["load"] += 1
    return x + 1


def own(x):
    calls["own"] += 1
    return x + 1


def seen(*transforms):
    calls.update(load=0, own=0)
    data = CacheDataset([1, 2, 3], transform=Compose(list(transforms)), progress=False)
    made = dict(calls)
    for _ in range(2):
        [data[i] for i in range(3)]
    return made, dict(calls)


if __name__ == "__main__":
    print("monai", monai.__version__)
    plain, wrapped = seen(load, Lambda(own)), seen(Lambda(load), Lambda(own))
    print("function, then Lambda: at construction", plain[0], "after two epochs", plain[1])
    print("Lambda, then Lambda:   at construction", wrapped[0], "after two epochs", wrapped[1])
    assert plain == ({"load": 0, "own": 0}, {"load": 6, "own": 6})
    assert wrapped == ({"load": 3, "own": 3}, {"load": 3, "own": 3})
EOP
"$folder/venv/bin/python" -W ignore seen.py
