"""How fast the page answers: from a slider's move to the new picture, in a real browser.

python -m tests.benchmarks.sliders [--moves 60] [--batches 10000]

Times are compared with what `dlsim run --plot` takes for the same, in the same session; and the
time until the page is served with that of `import matplotlib.pyplot`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import dlsim
from dlsim.scenario.shipped import shipped
from tests.show.browsing import MISSING, browser
from tests.show.serving import serving

GOAL, RATIO, START = 0.2, 0.2, 2.0


def seconds(*call: str) -> float:
    """How long a command takes."""
    began = time.perf_counter()
    subprocess.run(call, check=True, capture_output=True)
    return time.perf_counter() - began


def started() -> float:
    """How long it takes until the page can be opened."""
    began = time.perf_counter()
    with serving() as served:
        assert served.get(f"/?token={served.token}")[0] == 200
        return time.perf_counter() - began


def main() -> None:
    """Measure, and say what is to be reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moves", type=int, default=60)
    parser.add_argument("--batches", type=int, default=10_000)
    options = parser.parse_args()
    if MISSING:
        sys.exit(MISSING)
    changes = {"consumer.stop_after": options.batches, "dataset.length": options.batches * 16}
    changes["loader.batch_size"] = 16
    scenario = dlsim.replace(dlsim.load(shipped()["imagenet_a100"]), changes)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "long.toml"
        dlsim.dump(scenario, file)
        dlsim.simulate(scenario, engine="compiled")  # compiled once
        moves = moved(file, Path(folder) / "profile", options.moves)
        plot = ("run", str(file), "--engine", "compiled", "--plot", f"{folder}/run.png")
        drawn = min(seconds(sys.executable, "-m", "dlsim", *plot) for _ in range(3))
    loaded = min(seconds(sys.executable, "-c", "import matplotlib.pyplot") for _ in range(3))
    began = min(started() for _ in range(3))
    most = float(np.percentile(moves, 95))
    print(f"{options.batches:,} batches, {len(moves)} moves")
    print(
        f"from the move to the picture  median {np.median(moves):.3f} s, 95 % within {most:.3f} s"
    )
    print(f"                              wanted: {GOAL} s")
    print(f"dlsim run --plot              {drawn:.2f} s; ratio {most / drawn:.2f}, wanted: {RATIO}")
    print(
        f"until the page is served      {began:.2f} s; import matplotlib.pyplot {loaded:.2f} s; "
        f"ratio {began / loaded:.2f}, wanted: {START}"
    )


def moved(file: Path, profile: Path, moves: int) -> list[float]:
    """Seconds from each move of a slider until the browser has drawn the answer."""
    found: list[float] = []
    with serving(str(file)) as served, browser(profile) as page:
        page.size(1280)
        page.open(served.link)
        page.until("document.documentElement.dataset.ready")
        time.sleep(5)  # what is computed at leisure, once nothing moves, is done
        for move in range(moves + 5):
            page.run(
                """dlsim.timing.length = 0;
                const slider = document.getElementById("control-loader.num_workers")
                  .querySelector("input");
                slider.value = arguments[0];
                slider.dispatchEvent(new Event("input", {bubbles: true}));""",
                2 + move % 10,
            )
            page.until("dlsim.timing.length")
            if move >= 5:
                found.append(page.run("return dlsim.timing[0]") / 1e3)
    return found


if __name__ == "__main__":
    main()
