"""Rank 0 reads for all ranks of a job, as accelerate's DataLoaderDispatcher has it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dlsim
from dlsim import Scenario, ScenarioError
from dlsim.engine.job import simulate_job
from dlsim.report.job_text import job_text, job_verdict
from dlsim.scenario.dealing import slices
from dlsim.trace import account, lateness, load_job, save_job, worker_utilisation
from dlsim.trace.critical_path import critical_path
from dlsim.trace.difference import job_difference
from dlsim.trace.metrics import span
from dlsim.whatif.bounds import bounds
from dlsim.whatif.changes import changes
from tests.strategies import dispatched, on_machines, scenarios


def job(**changed: object) -> Scenario:
    """Two ranks of two workers; a batch of two samples takes 2 s, a step 0.5, a broadcast 0.1."""
    found = Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=2),
        dataset=dlsim.MapDataset(22, fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.5), loop="accelerate"),
        job=dlsim.scenario.Job(ranks=2, deal="dispatched", broadcast_time=dlsim.Constant(0.1)),
    )
    return dlsim.replace(found, {key.replace("__", "."): value for key, value in changed.items()})


def test_all_wait_for_rank_0_which_is_a_round_ahead() -> None:
    """Two batches, one of each worker, come every 2 s; a slice is given when the next two came."""
    ranks = simulate_job(job()).ranks
    for trace in ranks:
        assert trace.sent.tolist() == pytest.approx([2, 4, 6, 8, 10, 12])
        assert trace.received.tolist() == pytest.approx([2.1, 4.6, 6.6, 8.6, 10.6, 12.6])
        assert trace.requested.tolist() == pytest.approx([0, 4.5, 6.5, 8.5, 10.5, 12.5])
        # of the last one it is known that there is no more
        assert trace.returned.tolist() == pytest.approx([4, 6, 8, 10, 12, 12.6])
        assert trace.end == pytest.approx(13.1)
        assert trace.size.tolist() == [2, 2, 2, 2, 2, 1]


def test_workers_of_others_fetch_a_window_that_nobody_takes() -> None:
    """Rank 0 takes all eleven batches; of rank 1 four are fetched, in the first 4 s."""
    first, second = (trace.reading for trace in simulate_job(job()).ranks)
    assert first is not None
    assert second is not None
    assert first.order.tolist() == [*range(11)]
    assert len(second.order) == 0
    assert second.fetched.tolist() == [2, 2, 4, 4]
    assert np.isnan(second.returned).all()


def test_persistent_workers_of_others_do_it_in_each_epoch() -> None:
    """What they fetched before is thrown away when an epoch begins, and a window is sent anew."""
    second = simulate_job(job(epochs=3, loader__persistent_workers=True)).ranks[1].reading
    assert second is not None
    assert [dlsim.trace.STATUSES[s] for s in second.status] == ["discarded"] * 8 + ["pending"] * 4
    assert not np.isnan(second.fetched).any()


@pytest.mark.parametrize(
    ("sizes", "world", "first", "drop_last", "shares"),
    [
        ([4, 4], 2, 0, False, [4, 4]),
        ([3, 2], 2, 0, False, [2, 2]),  # in mid-epoch one is lost
        ([3, 2], 2, 6, False, [3, 3]),  # in the end one comes again
        ([3, 2], 2, 6, True, [2, 2]),
        ([1], 4, 1, False, [1, 1, 0, 0]),  # its first round, too: there is one to fill up with
        ([1], 4, 16, False, [1, 1, 1, 1]),
    ],
)
def test_slices(
    sizes: list[int], world: int, first: int, drop_last: bool, shares: list[int]
) -> None:
    """Equal slices of what was joined; only the last round is filled up."""
    assert slices(sizes, world, first, drop_last=drop_last) == shares


def test_what_is_left_over_in_mid_epoch_is_dropped() -> None:
    """Workers yield 8 and 12: of their third batches, of 2 and 3 samples, each rank has 2.

    So it is on real ranks (findings/accelerate-dispatcher-drops-in-mid-epoch.sh): one sample of
    the 20 is lost, and one comes again in the last round, of 3 samples.
    """
    data = dlsim.IterableDataset(20, sharding=[8, 12])
    found = simulate_job(job(dataset=data, loader__batch_size=3))
    assert [trace.size.tolist() for trace in found.ranks] == [[3, 3, 2, 2]] * 2
    assert dlsim.summarize(found).samples == 20


def test_a_batch_is_split() -> None:
    """With `split_batches` each batch of two is one of a sample for each rank."""
    found = simulate_job(job(job__split_batches=True, dataset__length=6))
    for trace in found.ranks:
        assert trace.size.tolist() == [1, 1, 1]
        assert trace.returned.tolist() == pytest.approx([2.1, 4, 4.6])


def test_an_error_of_rank_0_ends_all_and_of_others_is_not_heard_of() -> None:
    """Sample 3 fails in both: rank 0 raises that, and in the window of rank 1 nobody asks."""
    found = simulate_job(job(failures=[dlsim.Failure("fetch", 3)]))
    first, second = found.ranks
    assert first.meta.problem is not None
    assert second.meta.problem is not None
    assert first.reading is not None
    assert first.reading.meta.problem is not None
    assert (first.meta.problem.kind, first.meta.problem.batch) == ("fetch", -1)
    assert first.reading.meta.problem.batch == 1
    assert second.meta.problem.kind == "job"


def test_who_waits_for_what() -> None:
    """Rank 0 for its workers, the others for rank 0, and all for broadcasts."""
    found = simulate_job(job(dataset__length=202))
    first, second = (account(trace) for trace in found.ranks)
    assert first.cause == "fetch"
    assert second.cause == "rank 0"
    assert second.idle["barrier"] == pytest.approx(51 * 0.1)
    said = job_verdict(found, lateness(found))
    assert "Rank 0 reads for all 2 ranks, and waits most for fetching samples (" in said
    assert "The workers of the others fetch 4 batches that nobody takes." in said
    assert worker_utilisation(found.ranks[1]) == pytest.approx(4 / found.end)
    assert "rank 0, which reads for all ranks" in job_text(found)


@settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much])
@given(dispatched(scenarios() | on_machines()), st.integers(0, 99))
def test_every_second_has_one_place(scenario: Scenario, seed: int) -> None:
    """On any machine the account of each rank adds up, and its path has no gaps."""
    for trace in simulate_job(scenario, seed).ranks:
        found, path = account(trace), critical_path(trace)
        if found.busy == found.busy:
            whole = found.busy + sum(found.idle.values())
            assert whole == pytest.approx(found.elapsed, rel=1e-9, abs=1e-9)
        for one, other in pairwise(path):
            assert one.end == other.begin
        if path:
            assert (path[0].begin, path[-1].end) == span(trace)


def test_bounds_and_changes_know_of_it() -> None:
    """A round is all the work of rank 0's workers; ranks that read a part each are a change."""
    slow = job(dataset__length=2000, consumer__step=0.01)
    assert bounds(slow).period == pytest.approx(2.0)  # two batches of 2 s on two workers
    took = simulate_job(slow).end / 500
    assert took == pytest.approx(2.0, rel=0.01)
    found = {change.name: change.scenario for change in changes(slow)}
    assert found["each rank reads its part"].job.deal == "batches"


def test_a_file_keeps_what_was_read(tmp_path: Path) -> None:
    """The traces of loaders come back with those of ranks."""
    found = simulate_job(job(), samples=True)
    save_job(found, tmp_path / "job.npz")
    read = load_job(tmp_path / "job.npz")
    assert job_difference(found, read) is None
    assert read.ranks[1].reading is not None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"consumer__loop": "plain"}, 'job.deal: dispatched needs consumer.loop = "accelerate"'),
        ({"dataset__length": 0}, "job.deal: expected data for at least one round of batches"),
        ({"dataset__length": 3, "loader__drop_last": True}, "job.deal: expected data for at least"),
        (
            {"consumer__device": "accelerator", "consumer__run_ahead": 2},
            "job.deal: dispatched needs consumer.run_ahead = 0",
        ),
        (
            {"job__split_batches": True, "loader__batch_size": 3},
            "job.split_batches: needs a loader.batch_size that 2 ranks can share",
        ),
    ],
)
def test_what_does_not_go_together(changed: dict[str, object], message: str) -> None:
    """The line names the key."""
    with pytest.raises(ScenarioError, match=message):
        job(**changed)
