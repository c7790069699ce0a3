"""What is true about pinning and copying, and how far predictions beside an accelerator are off.

python -m tests.benchmarks.device FOLDER            needs CUDA; about five minutes
python -m tests.benchmarks.device FOLDER --page     writes docs/device.md from what FOLDER has

What FOLDER has is not measured again: an interrupted measurement goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from pathlib import Path

from tests.benchmarks.device import costs, page, runs
from tests.benchmarks.device.measuring import cycles_per_second


def measure(folder: Path, minutes: float) -> bool:
    """Measure what `folder` does not have; whether all is there. What fails leaves the rest be."""
    ends = time.monotonic() + 60 * minutes
    folder.mkdir(parents=True, exist_ok=True)
    whole = True
    for name, make in costs.measurements().items():
        file = folder / f"{name}.json"
        if file.exists():
            continue
        began = time.monotonic()
        try:
            file.write_text(json.dumps(make(), indent=1), encoding="utf-8")
        except Exception:
            traceback.print_exc()
            whole = False
        print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return whole & runs.make_all(
        folder,
        cycles_per_second(),
        seconds=ends - time.monotonic(),
        progress=lambda name: print(name, file=sys.stderr, flush=True),
    )


def main() -> None:
    """Measure, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    options = parser.parse_args()
    if options.page:
        page.write(options.folder)
    elif not measure(options.folder, options.minutes):
        sys.exit("not all was measured; go on with the same command")


if __name__ == "__main__":
    main()
