"""How much narrower common random numbers make the interval of a difference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

import dlsim
from dlsim.whatif import paired, replicate
from dlsim.whatif.extent import measured
from dlsim.whatif.parallel import measure
from dlsim.whatif.statistics import t_quantile

SCENARIO = Path(__file__).parent.parent.parent / "scenarios" / "imagenet_a100.toml"
CHANGES = {
    "transform 8 % faster": {"dataset.fetch.1.cpu.mean": "3 ms"},
    "decode 10 % faster": {"dataset.fetch.0.cpu.mean": "1.674 ms"},
    "decode twice as fast": {"dataset.fetch.0.cpu.mean": "0.93 ms"},
    "step 8 % faster": {"consumer.step": "400 ms"},
    "twice the prefetch": {"loader.prefetch_factor": 4},
    "any order": {"loader.in_order": False},
    "one worker less": {"loader.num_workers": 3},
    "one more worker": {"loader.num_workers": 5},
}
WHOLE, STEADY = "samples_per_s", "steady_samples_per_s"


def narrowing(replications: int, changes: dict[str, object]) -> dict[str, float]:
    """Half-width with independent random numbers over that with common ones, by figure."""
    base = dlsim.load(SCENARIO)
    other = dlsim.replace(base, changes)
    found = {}
    for metric, kinds in (
        (WHOLE, [measured(base), measured(other)]),
        (STEADY, [measure, measure]),
    ):
        one, two = (
            replicate(scenario, replications, measured=kind)
            for scenario, kind in zip((base, other), kinds, strict=True)
        )
        apart = replicate(other, replications, seed=1, measured=kinds[1])
        variance = one[metric].var(ddof=1) + apart[metric].var(ddof=1)
        independent = t_quantile(0.95, replications) * float(np.sqrt(variance / replications))
        common = paired(one, two, metric).half_width
        found[metric] = independent / common if common > 0 else float("inf")
    return found


def lines(replications: int) -> Iterator[str]:
    """A table of changes of the image scenario."""
    yield (
        f"`scenarios/imagenet_a100.toml` beside itself with one change, {replications} "
        "replications: the half-width of the interval of the difference in samples a second with "
        "independent random numbers, over that with common ones. Goal: at least 3 where durations "
        "change. Where the number of workers or the order changes, other batches meet each other: "
        "what varies is then not the same on both sides, and where the step comes to limit, as "
        "with one more worker, one side does not vary at all, so that there is nothing to share.\n"
    )
    yield "| change | whole run | steady state | |\n|---|---|---|---|"
    for name, changes in CHANGES.items():
        found = narrowing(replications, changes)
        shown = [f"{ratio:.3g}" if ratio < 1e6 else "no difference" for ratio in found.values()]
        durations = any("cpu" in key or "step" in key for key in changes)
        good = not durations or min(found.values()) >= 3
        yield f"| {name} | {' | '.join(shown)} | {'' if good else '**missed**'} |"
