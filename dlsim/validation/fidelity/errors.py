"""Predictions beside the real runs of a campaign, and how far off they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dlsim.engine import simulate
from dlsim.scenario import Constant, DlsimError, Empirical
from dlsim.trace import epoch_times, load_trace
from dlsim.trace.observation import Observation
from dlsim.validation.calibrating.costs import accounts
from dlsim.validation.calibrating.predict import Prediction, predict
from dlsim.validation.calibrating.replay import replay
from dlsim.validation.calibrating.scenario import Calibration, calibration
from dlsim.validation.comparison import timelines
from dlsim.validation.fidelity.campaign import (
    JOURNAL,
    RUNS,
    disturbed,
    exchange_of,
    transport,
    typical_paces,
)
from dlsim.validation.fidelity.grid import OBSERVED, Configuration
from dlsim.validation.fidelity.trials import Trial
from dlsim.whatif.journal import sound
from dlsim.whatif.parallel import run_all

Rows = dict[str, dict[str, Any]]
NEAR, SPREADS = 0.08, 1.5  # an error within 8 %, or 1.5 times the spread of real runs, is none
MISSED = 0.05  # how many real runs a 95 % interval may not hold
LEAST_WAIT = 0.001  # seconds; of shorter waits nobody asks how much shorter


@dataclass(frozen=True, kw_only=True)
class Case:
    """One configuration: its `prediction`, and what real runs of it `measured`.

    Those are the undisturbed ones; if there are none (not `clean`), the others, from which no
    more than a look should follow. `disturbed`: how many were left out. `seen`: runs of this
    very configuration were calibrated on, so that there was nothing to foresee.
    """

    configuration: Configuration
    prediction: Prediction
    measured: tuple[Trial, ...]
    disturbed: int = 0
    clean: bool = True
    seen: bool = False

    @property
    def epoch(self) -> float:
        """The median of the measured epochs, in seconds."""
        return float(np.median([trial.epoch for trial in self.measured]))

    @property
    def wait_p95(self) -> float:
        """The median of the measured 95th percentiles of waits, in seconds."""
        return float(np.median([trial.wait_p95 for trial in self.measured]))

    @property
    def error(self) -> float:
        """The predicted epoch, relative to the measured one, less 1."""
        return self.prediction.epoch.value / self.epoch - 1

    @property
    def wait_error(self) -> float:
        """Likewise of the 95th percentile of waits; NaN where hardly anything is waited for."""
        if self.wait_p95 < LEAST_WAIT:
            return float("nan")
        return self.prediction.wait_p95.value / self.wait_p95 - 1

    @property
    def spread(self) -> float:
        """The range of the measured epochs, relative to their median; NaN for a single run."""
        epochs = [trial.epoch for trial in self.measured]
        return (max(epochs) - min(epochs)) / self.epoch if len(epochs) > 1 else float("nan")

    @property
    def held(self) -> int:
        """How many of the real runs' epochs lie in the predicted interval."""
        return sum(trial.epoch in self.prediction.epoch for trial in self.measured)

    @property
    def beyond(self) -> bool:
        """Whether the epoch is off by more than `NEAR` and `SPREADS` times the spread of runs.

        An error that real runs differ by among themselves cannot be told from none.
        """
        return abs(self.error) > max(NEAR, SPREADS * float(np.nan_to_num(self.spread)))

    @property
    def half_width(self) -> float:
        """Half the width of the predicted interval, relative to the prediction."""
        epoch = self.prediction.epoch
        return (epoch.high - epoch.low) / 2 / epoch.value

    @property
    def interval_score(self) -> float:
        """The mean interval score of the real runs' epochs, relative to their median.

        The width of the interval, and 40 times by how far a run lies outside of it: least, on
        average, for the true 95 % interval (Gneiting and Raftery, Journal of the American
        Statistical Association 102, 2007, section 6.2).
        """
        low, high = self.prediction.epoch.low, self.prediction.epoch.high
        epochs = [trial.epoch for trial in self.measured]
        outside = [max(low - epoch, epoch - high, 0.0) for epoch in epochs]
        return float(high - low + 2 / MISSED * np.mean(outside)) / self.epoch


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """An observed run, simulated with its own costs: relative `error` of the epoch, and `drift`.

    `drift`: the largest distance of the two times of a return, as a share of the epoch.
    """

    configuration: Configuration
    error: float
    drift: float


def cases(
    folder: Path,
    *,
    observed: Sequence[int] = OBSERVED,
    replications: int = 20,
    jobs: int = 1,
    only: Callable[[Configuration], bool] = lambda configuration: True,
) -> Iterator[Case]:
    """The configurations measured in `folder`, each predicted, as they come.

    Each is predicted from the undisturbed observed runs of its workload at the numbers of workers
    `observed` (of its own batch size, if there are any).
    """
    rows = read(folder)
    groups: dict[tuple[str, ...], list[Configuration]] = {}
    for configuration in measured(rows):
        names = calibrated_on(rows, configuration, observed)
        if names and only(configuration):
            groups.setdefault(tuple(names), []).append(configuration)
    tasks = ((folder, names, group, replications) for names, group in groups.items())
    for found in run_all(predicted, tasks, jobs):
        yield from found


def predicted(
    folder: Path, names: tuple[str, ...], group: list[Configuration], replications: int
) -> list[Case]:
    """Configurations predicted from the observed runs of these names."""
    rows = read(folder)
    seen = [load_trace(folder / RUNS / rows[name]["file"]) for name in names]
    found = calibration(*seen, transport=transport(rows, accounts(seen[0]).path))
    watched = [configuration_of(rows[name]) for name in names]
    trials, known = measured(rows), {alike(one) for one in watched}
    return [
        case(
            found,
            changes_to(one, watched, rows),
            one,
            trials[one],
            replications,
            alike(one) in known,
        )
        for one in group
    ]


def alike(configuration: Configuration) -> Configuration:
    """The same for configurations that make the same runs."""
    factor = configuration.prefetch_factor or (2 if configuration.num_workers else None)
    return replace(configuration, prefetch_factor=factor, observed=False)


def changes_to(
    wanted: Configuration, watched: Sequence[Configuration], rows: Rows
) -> dict[str, object]:
    """What a configuration changes of the scenario that is calibrated on those `watched`.

    The first one's steps are the scenario's. Where it slept and the wanted one does not, there are
    none; where neither does, they are what the loop does by itself.
    """
    changes: dict[str, object] = {f"loader.{k}": v for k, v in wanted.settings.items()}
    if wanted.step or watched[0].step:
        slept = rows[f"step {wanted.step}"]["seconds"] if wanted.step else 0.0
        changes["consumer.step"] = Constant(slept)
    if wanted.ranks > 1:
        changes["job.ranks"] = wanted.ranks
        changes["job.sync_time"] = Empirical(rows[exchange_of(wanted)]["seconds"])
    return changes


def case(
    found: Calibration,
    changes: Mapping[str, object],
    configuration: Configuration,
    trials: Sequence[Trial],
    replications: int,
    seen: bool,
) -> Case:
    """One configuration, predicted, and its real runs; `seen`: it was calibrated on."""
    clean = tuple(trial for trial in trials if not trial.spoilt)
    return Case(
        configuration=configuration,
        prediction=predict(found, changes, replications=replications),
        measured=clean or tuple(trials),
        disturbed=len(trials) - len(clean) if clean else 0,
        clean=bool(clean),
        seen=seen,
    )


def replays(folder: Path, *, jobs: int = 1) -> Iterator[Replayed]:
    """All observed runs in `folder` that nobody disturbed, replayed, as they come."""
    rows = read(folder)
    tasks = [
        (folder, name)
        for name, row in rows.items()
        if "file" in row and not row["spoilt"] and "problem" not in row
    ]
    yield from run_all(replayed, tasks, jobs)


def replayed(folder: Path, name: str) -> Replayed:
    """One observed run, replayed."""
    rows = read(folder)
    seen = load_trace(folder / RUNS / rows[name]["file"])
    assert isinstance(seen, Observation)
    again = simulate(replay(seen))
    return Replayed(
        configuration=configuration_of(rows[name]),
        error=float(epoch_times(again)[0] / epoch_times(seen)[0]) - 1,
        drift=timelines(again, seen)[0],
    )


def read(folder: Path) -> Rows:
    """The rows of the campaign's journal in `folder`, by name.

    Which runs were disturbed is judged by all of them. Raises `DlsimError` where there is no
    journal. What was cut short by a crash is as good as not there.
    """
    path = folder / JOURNAL
    try:
        lines = path.read_bytes().splitlines()[1:]
    except OSError as error:
        raise DlsimError(f"{path}: cannot be read: {error.strerror or error}") from None
    rows = dict(filter(None, map(sound, lines)))
    typical = typical_paces(rows)
    return {
        name: row | {"spoilt": disturbed(row, typical)} if "spoilt" in row else row
        for name, row in rows.items()
    }


def target_of(folder: Path) -> str:
    """What was run in `folder`: a loader, as it was named, or a suite."""
    try:
        return str(json.loads((folder / JOURNAL).read_bytes().splitlines()[0])["target"])
    except (OSError, IndexError, ValueError, KeyError, TypeError, RecursionError):
        return "a loader"


def order(configuration: Configuration) -> tuple[object, ...]:
    """Where a configuration stands in a list of many."""
    c = configuration
    return c.workload, c.step, c.num_workers, c.prefetch_factor or 0, c.batch_size or 0


def measured(rows: Rows) -> dict[Configuration, list[Trial]]:
    """All unobserved runs of each configuration, in order of round."""
    found: dict[Configuration, list[Trial]] = {}
    for row in rows.values():
        if "returned" in row:
            found.setdefault(configuration_of(row), []).append(Trial.of(row))
    return found


def configuration_of(row: dict[str, Any]) -> Configuration:
    """The configuration that was run."""
    return Configuration(**row["configuration"])


def calibrated_on(rows: Rows, wanted: Configuration, observed: Sequence[int]) -> list[str]:
    """The names of the observed runs to calibrate on, in the order of `observed`.

    Of each number of workers those that nobody disturbed, if there are any, and of these those that
    resemble the wanted most.
    """
    names = []
    for workers in observed:
        fitting: dict[tuple[bool, ...], list[str]] = {}
        for name, row in rows.items():
            if "file" not in row or "problem" in row:
                continue
            one = configuration_of(row)
            if (one.workload, one.num_workers) == (wanted.workload, workers):
                unlike = (
                    bool(row["spoilt"]),
                    one.batch_size != wanted.batch_size,
                    one.step != wanted.step,
                )
                fitting.setdefault(unlike, []).append(name)
        if fitting:
            names += fitting[min(fitting)]
    return names
