"""Memory that is taken anew for each batch, as watched runs show it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from msgspec import structs

import dlsim
from dlsim.report import run_text
from dlsim.scenario import Constant, Stage
from dlsim.trace.new_memory import SETTING, differing, returned, told
from dlsim.validation import calibration, predict
from tests.validation.test_replay import watched

LARGE = """
import sys, warnings
import numpy as np
from torch.utils.data import DataLoader
from dlsim.trace.new_memory import returned
from dlsim.validation import observe

class Arrays:
    def __len__(self):
        return 160
    def __getitem__(self, index):
        return np.full(75_000, index, np.float32)

seen = observe(DataLoader(Arrays(), 8, num_workers=1, collate_fn=list))
print(returned(seen) > 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's thresholds")
@pytest.mark.parametrize("settings", ["", SETTING])
def test_memory_given_back_is_seen_and_kept_by_the_setting(settings):
    """A process that pickles 2.4 MB after 2.4 MB takes it anew each time, but with the setting."""
    env = os.environ | dict(setting.split("=") for setting in settings.split())
    done = subprocess.run(
        [sys.executable, "-c", LARGE], check=True, capture_output=True, text=True, env=env
    )
    assert done.stdout.split() == [str(settings == "")]


@cache
def seen_with(new: float, pickled: float, shared: float = 0.0):
    """A run as if watched: on one core, a batch in 10 ms, new bytes of a nanosecond each."""
    dataset = dlsim.MapDataset(40, fetch=[Stage("read", wait=Constant(0.01))])
    loader = dlsim.Loader(batch_size=1, num_workers=1)
    seen = watched(dlsim.simulate(dlsim.Scenario(loader=loader, dataset=dataset), samples=True))
    notes = {"machine": json.dumps({"new_bytes": new, "new_byte": 1e-9, "ours": 1.0})}
    return replace(
        seen,
        meta=structs.replace(seen.meta, notes=notes),
        pickled_bytes=np.full(40, pickled),
        tensor_bytes=np.full(40, shared),
    )


def test_what_is_said_of_new_memory():
    """A pickled batch that takes several times its bytes anew, and how to keep them."""
    seen = seen_with(new=4e6, pickled=1e6)
    assert returned(seen) == pytest.approx(0.004)
    said = told(seen)
    assert said.startswith("Each batch of 977 KiB takes 3.81 MiB of new memory, some 4 ms of 10 ms")
    assert SETTING in said
    assert said in run_text(seen)


@pytest.mark.parametrize(
    "seen",
    [
        {"new": 1.5e6, "pickled": 1e6},
        {"new": 4e6, "pickled": 1e6, "shared": 2e6},
        {"new": 1e6, "pickled": 1e5},
        {"new": 1e9, "pickled": 1e8},
    ],
    ids=["kept", "in shared memory", "little", "larger than glibc keeps"],
)
def test_nothing_is_said_where_nothing_helps(seen):
    """Of memory that is kept, that nobody can keep, or that costs little, there is no word."""
    assert told(seen_with(**seen)) == ""


def test_runs_that_differ_in_their_memory_are_told_of():
    """Where one keeps what it frees, and another gives it back, a further one may do either."""
    kept, back = seen_with(new=1.5e6, pickled=1e6), seen_with(new=4e6, pickled=1e6)
    said = differing([kept, back, back])
    assert said.startswith("Watched runs differ in their memory: in 2 of 3 what is freed goes back")
    assert "a batch takes 3.81 MiB of new memory, not 1.43 MiB" in said
    assert differing([kept, kept]) == differing([back]) == ""
    assert differing([back, seen_with(new=4e6, pickled=1e6, shared=2e6)]) == ""
    found = calibration(kept, back, transport=dlsim.Costs())
    assert found.memory == differing([kept, back])
    assert found.memory in str(predict(found, {}, replications=2))
    assert calibration(kept, transport=dlsim.Costs()).memory == ""
