"""How many samples come with each number of workers, where that differs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import structs

from dlsim.scenario import IterableDataset, Scenario
from dlsim.scenario.loader import WITHOUT_WORKERS
from dlsim.trace.work import Work, in_an_epoch


def told_of_samples(scenario: Scenario, workers: Iterable[int]) -> str:
    """How many distinct samples an epoch of `scenario` has with each number of `workers`.

    A sentence, the most first; "" where all of them have as many, or the data of others are not
    known.
    """
    dataset = scenario.dataset
    if not isinstance(dataset, IterableDataset) or not dataset.divisible:
        return ""
    found = {number: _with_workers(scenario, number) for number in sorted(workers)}
    came: dict[float, list[int]] = {}
    for number, work in found.items():
        came.setdefault(work.distinct, []).append(number)
    if len(came) < 2:
        return ""
    there = max(work.there for work in found.values())
    parts = [
        f"{f'{samples:,.0f}' if samples else 'none'} with {_listed(came[samples])}"
        for samples in sorted(came, reverse=True)
    ]
    return f"Of {there:,.0f} samples of an epoch come {', '.join(parts)}."


def _with_workers(scenario: Scenario, number: int) -> Work:
    changes = {} if number else WITHOUT_WORKERS
    loader = structs.replace(scenario.loader, num_workers=number, **changes)
    return in_an_epoch(structs.replace(scenario, loader=loader))


def _listed(numbers: Sequence[int]) -> str:
    """Rising numbers of workers in words, three and more in a row as from the first to the last."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [
        word
        for run in runs
        for word in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))
    ]
    last = f"{words[-1]} worker{'s' * (words[-1] != '1')}"
    return f"{', '.join(words[:-1])} or {last}" if len(words) > 1 else last
