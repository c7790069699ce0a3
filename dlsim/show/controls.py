"""What can be changed on the page: for each key a label, what it means, and values to choose from.

Sliders run over lists of values, as texts that a scenario file could hold: the page counts through
them and computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, get_args

import numpy as np
from msgspec import Struct

from dlsim.scenario import Constant, Scenario, get
from dlsim.scenario.consumer import Loop
from dlsim.scenario.keys import described
from dlsim.scenario.loader import Dispatch, Refill, WorkerKind
from dlsim.scenario.presets import LIKE, PRESETS, named
from dlsim.scenario.units import duration, size

AROUND = np.concatenate((np.geomspace(0.1, 1, 20)[:-1], np.geomspace(1, 10, 20)))
LOOPS = get_args(Loop)
# One name for each combination of rules, and what is none of them.
NAMES = [*{str(keys): name for name, keys in reversed(PRESETS.items())}.values()][::-1]
OWN = "none of these"
RELEASES = ("2.0", "2.5", "2.6", "2.7", "2.15")


class Control(Struct, frozen=True):
    """A control: the dotted `key`, its `label`, what it means, the `value` now as text.

    `stops`: the values of a slider or of a list; none for a switch. `kind`: slider, list, switch.
    """

    group: str
    key: str
    label: str
    meaning: str
    kind: str
    value: str
    stops: tuple[str, ...] = ()


def controls(scenario: Scenario) -> list[Control]:
    """The controls of a scenario, in groups, in the order in which they are shown."""
    meaning = {key.name: key.meaning for key in described()}

    def control(
        group: str, key: str, label: str, kind: str, stops: Sequence[str], value: str = ""
    ) -> Control:
        value = value or text(get(scenario, key))
        found = [*stops] if value in stops or not stops else _with(stops, value)
        named = ".".join("N" if part.isdecimal() else part for part in key.split("."))
        said = meaning.get(named) or meaning.get(named.rpartition(".")[0], "")
        return Control(group, key, label, said, kind, value, tuple(found))

    return [control(*each) for each in _wanted(scenario)]


# group, key, label, kind, stops; and the value, where it has a unit
_Wanted: TypeAlias = (
    tuple[str, str, str, str, Sequence[str]] | tuple[str, str, str, str, Sequence[str], str]
)


def _wanted(scenario: Scenario) -> Iterator[_Wanted]:
    loader = scenario.loader
    workers = max(32, 2 * loader.num_workers)
    yield "Loader", "loader.num_workers", "num_workers", "slider", _counts(0, workers)
    yield "Loader", "loader.prefetch_factor", "prefetch_factor", "slider", ["none", *_counts(1, 16)]
    if loader.batch_sampler is None and loader.batch_size is not None:
        sizes = sorted({2**k for k in range(13)} | {loader.batch_size})
        yield "Loader", "loader.batch_size", "batch_size", "slider", [str(n) for n in sizes]
    for key in ("in_order", "pin_memory", "persistent_workers", "endless"):
        yield "Loader", f"loader.{key}", key, "switch", ()
    yield "Loader", "torch", "torch", "list", RELEASES
    if loader.num_workers:
        alike = named(lambda key: get(scenario, key)) or OWN
        yield "Loader", LIKE, "the rules of", "list", [*NAMES, *[OWN][: alike == OWN]], alike
        yield "Loader", "loader.workers", "workers are", "list", get_args(WorkerKind)
        yield "Loader", "loader.dispatch", "who gets the next batch", "list", get_args(Dispatch)
        yield "Loader", "loader.refill", "more is sent for on", "list", get_args(Refill)
    yield from _times(scenario)
    yield "Training", "consumer.loop", "loop around next()", "list", LOOPS
    yield "Training", "consumer.run_ahead", "steps the host runs ahead", "slider", _counts(0, 8)
    yield "Training", "epochs", "epochs", "slider", _counts(1, 10)
    cores = ["none", *map(str, (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128))]
    yield "Machine", "machine.cores", "cores", "slider", cores
    rates = ["none"] + [
        f"{n}{unit}" for unit in ("0 MB", "00 MB", " GB", "0 GB") for n in (1, 2, 5)
    ]
    yield "Machine", "machine.storage.bandwidth", "storage, bytes a second", "slider", rates
    if scenario.is_job:
        yield "Job", "job.ranks", "ranks on a node", "slider", _counts(1, 8)


def _times(scenario: Scenario) -> Iterator[_Wanted]:
    """Sliders for the training step and for the stages, whatever distributions these have."""
    key, mean = _scale("consumer.step", scenario.consumer.step)
    if key:
        yield "Training", key, "step", "slider", _around(mean, duration), duration(mean)
    each = scenario.consumer.step_per_sample
    if each:
        key, label = "consumer.step_per_sample", "step, for each sample"
        yield "Training", key, label, "slider", _around(each, duration), duration(each)
    for number, stage in enumerate(scenario.dataset.fetch):
        for part, show in (("wait", duration), ("cpu", duration), ("read_bytes", size)):
            found = getattr(stage, part)
            if found is None:
                continue
            key, mean = _scale(f"dataset.fetch.{number}.{part}", found)
            if key:
                label = f"{stage.name}: {part.replace('_', ' ')}, mean"
                yield "Each sample", key, label, "slider", _around(mean, show), show(mean)


def _scale(key: str, distribution: object) -> tuple[str, float]:
    """The key that makes a distribution longer or shorter, and its value; or none."""
    if isinstance(distribution, Constant):
        return key, distribution.value
    mean = "mean" in getattr(distribution, "__struct_fields__", ())
    return (f"{key}.mean", float(distribution.mean)) if mean else ("", 0.0)  # type: ignore[attr-defined]


def _around(value: float, show: Callable[[float], str]) -> list[str]:
    """Texts of values around one, from a tenth to ten times as much."""
    found = AROUND * value if value > 0 else np.concatenate(([0.0], np.geomspace(1e-4, 1, 25)))
    return list(dict.fromkeys(show(float(each)) for each in found))


def _counts(least: int, most: int) -> list[str]:
    return [str(number) for number in range(least, most + 1)]


def _with(stops: Sequence[str], value: str) -> list[str]:
    """The stops and the value, in its place among those that are numbers."""
    try:
        numbers = [(float(stop) if stop != "none" else -1.0, stop) for stop in stops]
        return [stop for _, stop in sorted([*numbers, (float(value), value)])]
    except ValueError:
        middle = len(stops) // 2
        return [*stops[:middle], value, *stops[middle:]]


def text(value: object) -> str:
    """A value as a scenario file has it."""
    if isinstance(value, Constant):
        value = value.value
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
