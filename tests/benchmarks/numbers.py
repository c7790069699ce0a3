"""How much narrower common random numbers make the interval of a difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

import dlsim
from dlsim.whatif import Replications, interval, paired, replicate
from dlsim.whatif.stretching import measured

SCENARIOS = Path(__file__).parent.parent.parent / "scenarios"
IMAGES = "imagenet_a100"
CHANGES: dict[str, dict[str, object]] = {
    "transform 8 % faster": {"dataset.fetch.1.cpu.mean": "3 ms"},
    "decode 10 % faster": {"dataset.fetch.0.cpu.mean": "1.674 ms"},
    "decode twice as fast": {"dataset.fetch.0.cpu.mean": "0.93 ms"},
    "step 8 % faster": {"consumer.step": "400 ms"},
    "two workers less": {"loader.num_workers": 2},
    "one worker less": {"loader.num_workers": 3},
    "one more worker": {"loader.num_workers": 5},
    "twice the workers": {"loader.num_workers": 8},
    "half the prefetch": {"loader.prefetch_factor": 1},
    "twice the prefetch": {"loader.prefetch_factor": 4},
    "any order": {"loader.in_order": False},
    "batches of half the size": {
        "loader.batch_size": 200,
        "consumer.step": "217.5 ms",
        "consumer.stop_after": 400,
    },
}
OTHERS: dict[str, tuple[str, dict[str, object]]] = {
    "a disk four times as fast": ("unet3d_h100", {"machine.storage.bandwidth": "4 GB"}),
    "half the workers": ("unet3d_h100", {"loader.num_workers": 2}),
    "in any order": ("unet3d_h100", {"loader.in_order": False}),
    "two workers less, streamed": ("llm_tokens", {"loader.num_workers": 6}),
    "half the prefetch, streamed": ("llm_tokens", {"loader.prefetch_factor": 1}),
    "half the workers, short steps": ("cosmoflow_a100", {"loader.num_workers": 2}),
}
EXPERIMENTS = 4
METRIC = "samples_per_s"
APART = 1000  # added to the seed of what is to see other random numbers


def narrowing(replications: int, name: str, changes: dict[str, object]) -> dict[str, float]:
    """Half-widths of the difference that `changes` of a scenario make, averaged over experiments.

    With `independent` random numbers, with `common` ones, and with what `paired` makes of these;
    and the least there is, `most` alike: if the fastest run met the fastest, and so on.
    """
    base = dlsim.load(SCENARIOS / f"{name}.toml")
    other = dlsim.replace(base, changes)

    def run(scenario: dlsim.Scenario, seed: int) -> Replications:
        return replicate(scenario, replications, seed, measured=measured(scenario))

    found: dict[str, list[float]] = {"independent": [], "common": [], "paired": [], "most": []}
    for seed in range(EXPERIMENTS):
        one, two, apart = run(base, seed), run(other, seed), run(other, APART + seed)
        before, after = one[METRIC], two[METRIC]
        found["independent"].append(interval(apart[METRIC] - before).half_width)
        found["common"].append(interval(after - before).half_width)
        found["paired"].append(paired(one, two, METRIC).half_width)
        found["most"].append(interval(np.sort(after) - np.sort(before)).half_width)
    return {name: float(np.mean(each)) for name, each in found.items()}


def pieces(replications: int) -> dict[str, Callable[[], dict[str, float]]]:
    """A change each."""
    of_images = {change: (IMAGES, changes) for change, changes in CHANGES.items()}
    return {
        change: partial(narrowing, replications, name, changes)
        for change, (name, changes) in {**of_images, **OTHERS}.items()
    }


def lines(replications: int, rows: dict[str, dict[str, float]]) -> Iterator[str]:
    """A table of changes of the image scenario."""
    yield (
        "`scenarios/imagenet_a100.toml` beside itself with one change: how many times narrower the "
        f"interval of the difference in samples a second is than with independent random numbers, "
        f"{replications} replications, on average over {EXPERIMENTS} experiments. "
        "Goal: at least 3.\n\n"
        "- *Common numbers*: both saw the same, and their differences are taken pair by pair.\n"
        "- *At most*: if the fastest run of one met the fastest of the other, and so on. No way to "
        "share random numbers can do better. Where the step comes to limit, one side hardly "
        "varies, and there is nothing to share: what is left is how the other side varies.\n"
        "- *As dlsim gives it*: `paired`, `compare` and `explain` also allow for what chance gave "
        "each run: what was drawn for it beyond expectation, each batch weighed by how likely it "
        "is that the run will wait for it. On average that is nothing (control variates, "
        "`dlsim/whatif/luck.py`).\n\n"
        "Draws go by sample, whatever the batches and whoever fetches them. But it is the worker "
        "with most to do that a run waits for, and with other workers or batches other samples are "
        "a worker's: durations that change keep the runs alike, numbers of workers do not. What "
        "chance gave each of the two runs can still be told, so that it does not matter. It is "
        "told least well of batches in any order: the weights are those of the same loader in "
        "order.\n"
    )
    yield "| change | common numbers | at most | as dlsim gives it | |\n|---|---|---|---|---|"
    yield from (
        f"| {name} | {_shown(row)} | {'' if _narrower(row)[-1] >= 3 else '**missed**'} |"
        for name, row in rows.items()
        if name in CHANGES
    )
    yield (
        "\nOther scenarios, which the goal is not about. Where luck tells little, as where batches "
        "are very unequal or workers wait for each other at a disk, telling it costs some width:\n"
    )
    yield "| scenario | change | common numbers | at most | as dlsim gives it |"
    yield "|---|---|---|---|---|"
    yield from (
        f"| {OTHERS[name][0]} | {name} | {_shown(row)} |"
        for name, row in rows.items()
        if name in OTHERS
    )


def _narrower(row: dict[str, float]) -> list[float]:
    """How many times as narrow as with independent numbers each interval is."""
    with np.errstate(divide="ignore"):
        half = np.array([row[how] for how in ("common", "most", "paired")])
        return list(row["independent"] / half)


def _shown(row: dict[str, float]) -> str:
    if row["independent"] and not row["common"]:
        return "no difference at all | |"
    return " | ".join(f"{ratio:.1f}" for ratio in _narrower(row))
