"""The answer to "what is wrong with my loader?", in values; `words` says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dlsim.scenario import Scenario
from dlsim.trace.metrics import samples_per_second
from dlsim.trace.observation import Observation
from dlsim.validation.diagnosing.memory import Room
from dlsim.validation.diagnosing.present import facts, settings_of
from dlsim.validation.diagnosing.starts import LASTING
from dlsim.validation.diagnosing.words import told
from dlsim.whatif import Advice, Explanation, Interval
from dlsim.whatif.explanation import WORTH

LIKELY = 0.6  # of the half-width: nine of ten runs gain if the gain is so large
SLOWER = 1.2  # times as long for the same work, and two runs cannot be compared


@dataclass(frozen=True, eq=False, kw_only=True)
class Diagnosis:
    """What limits a loader, what to set, what that gains, and whether it fits.

    `seen`: the run that was watched; `scenario`: what stands for it, and `simulated` the samples
    a second that it makes of the same run. `max_stall`: the share of the time that training may
    wait, None where there was no training step. `settings`: keyword arguments of the DataLoader,
    which may be the present ones. `gain`: how many times as many samples a second less one, in an
    epoch, with an interval for one real run of each; `gain_as_watched`: over as many batches as
    were watched; `lasting`: from the second epoch on, with workers that persist, too. `tried`: a
    real run with the settings, None if there was none. `crowded`: the run as it was, in whose
    workers libraries had several threads; all else is said of one with a single one. None where
    there were none, or one is not faster: then `alone` is the run that tried it.
    """

    seen: Observation
    scenario: Scenario
    explanation: Explanation
    advice: Advice
    max_stall: float | None
    settings: Mapping[str, Any]
    gain: Interval
    gain_as_watched: Interval
    lasting: float
    simulated: float
    room: Room
    tried: Observation | None = None
    crowded: Observation | None = None
    alone: Observation | None = None

    @property
    def helps(self) -> bool:
        """Whether the settings gain noticeably, and most likely, and were not tried in vain."""
        return self._gains and not self.refuted

    @property
    def spares(self) -> bool:
        """Whether the settings take fewer workers, or prefetch less, and cost no speed."""
        now = settings_of(self.scenario)
        less = self.settings["num_workers"] <= now["num_workers"] and self.settings != now
        return less and not self._gains and self.gain.mean > -WORTH and not self.refuted

    @property
    def refuted(self) -> bool:
        """Whether a real run with the settings failed, or lost what was to be gained or kept."""
        if self.tried is None:
            return False
        problem = self.tried.meta.problem
        if problem is not None and problem.kind != "interrupt":
            return True
        if not len(self.tried.order):
            return False  # of settings that tells nothing
        if not self.comparable:
            return False  # the runs cannot be compared
        if self._lasts:  # later epochs gain; the first may lose as much as was said
            return self.tried_gain < self.gain_as_watched.low
        return self.tried_gain < (0.0 if self._gains else -WORTH)

    @property
    def _gains(self) -> bool:
        now, gain = settings_of(self.scenario), self.gain
        likely = gain.mean >= LIKELY * gain.half_width
        return gain.mean >= WORTH and likely and self.settings != now

    @property
    def _lasts(self) -> bool:
        return self.lasting >= max(LASTING, (1 + LASTING) * (1 + self.gain.mean) - 1)

    @property
    def changes(self) -> bool:
        """Whether other settings than the present ones are advised."""
        return self.helps or self.spares or self.persists

    @property
    def advised(self) -> Mapping[str, Any]:
        """The settings, if they help or spare something, else the present ones.

        With workers that persist, if that gains something.
        """
        if self.persists:
            return {**self.settings, "persistent_workers": True}
        return self.settings if self.changes else settings_of(self.scenario)

    @property
    def persists(self) -> bool:
        """Whether workers that persist are advised: later epochs are faster with them."""
        return self._lasts and not self.refuted

    @property
    def tried_gain(self) -> float:
        """How many times as many samples a second less one the real run with the settings made."""
        if self.tried is None:
            return float("nan")
        return samples_per_second(self.tried) / samples_per_second(self.seen) - 1

    @property
    def slowed(self) -> float:
        """How many times as slow the machine was when the settings were tried; NaN if not known."""
        if self.tried is None:
            return float("nan")
        paces = [facts(run).get("pace", float("nan")) for run in (self.seen, self.tried)]
        return paces[1] / paces[0]

    @property
    def comparable(self) -> bool:
        """Whether the two runs can be compared: the machine was as fast, as far as is known."""
        return 1 / SLOWER <= self.slowed <= SLOWER or self.slowed != self.slowed

    @property
    def off(self) -> float:
        """By how much the simulation misses the throughput that was watched, relative."""
        return self.simulated / samples_per_second(self.seen) - 1

    def __str__(self) -> str:
        """What limits and what to do, a line each; then why and how sure; last, what to paste."""
        return told(self)
