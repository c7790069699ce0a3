"""Simulated ranks in HolisticTraceAnalysis, which reads profiles of torch.profiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dlsim.trace import metrics, write_profiles
from dlsim.trace.account import account
from tests.trace.test_jobs import job

analysis: Any = pytest.importorskip("hta.trace_analysis", reason="needs the extra oracles")
pytestmark = [
    pytest.mark.oracles,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.mark.parametrize("changes", [{}, {"job.sync": 2, "dataset.fetch.0.wait": 0.25}])
def test_breakdowns_are_those_of_the_account(changes: dict[str, object], tmp_path: Path) -> None:
    """Busy time and idle time of each rank, in and out of the barrier, are what the account says.

    HolisticTraceAnalysis counts from the first kernel to the end of the last one, in microseconds:
    what comes before, and after, is left out.
    """
    found = job(**changes)
    write_profiles(found, tmp_path)
    read = analysis.TraceAnalysis(trace_dir=str(tmp_path), include_last_profiler_step=True)
    temporal = read.get_temporal_breakdown(visualize=False).set_index("rank")
    idle = read.get_idle_time_breakdown(ranks=[0, 1, 2], visualize=False)[0]
    for rank, trace in enumerate(found.ranks):
        ours, row = account(trace), temporal.loc[rank]
        before = float(trace.returned[trace.order[0]])
        after = trace.end - float(trace.finished[trace.order[-1]])
        barrier = float(metrics.barrier_waits(trace).sum())
        waiting = sum(ours.idle.values()) - barrier - before - after
        assert row["compute_time(us)"] == pytest.approx(1e6 * ours.busy)
        assert row["non_compute_time(us)"] == pytest.approx(1e6 * barrier)
        assert row["idle_time(us)"] == pytest.approx(1e6 * waiting, abs=1)
        mine = idle[idle["rank"] == rank]
        assert mine["idle_time"].sum() == pytest.approx(1e6 * waiting, abs=1)
        waits = mine[mine["idle_category"] == "host_wait"]["idle_time"].sum()
        assert waits == pytest.approx(1e6 * waiting, abs=1)
