"""Traces of jobs: files, profiles of ranks, metrics, memory, and who kept whom waiting."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlsim
from dlsim.cli import main
from dlsim.report.job_plots import job_picture, ranks_gantt
from dlsim.report.job_text import job_text
from dlsim.trace import (
    JobTrace,
    TraceError,
    job_overflow,
    lateness,
    load_job,
    load_trace,
    meetings,
    metrics,
    overflow,
    read_csv,
    read_job_chrome,
    read_profiles,
    save_job,
    summarize,
    write_chrome,
    write_job_chrome,
    write_job_csv,
    write_profiles,
)
from dlsim.trace.difference import job_difference
from dlsim.trace.job_metrics import job_account
from dlsim.trace.job_summary import at_barrier
from tests.strategies import ideal, jobs


def job(**changes: object) -> JobTrace:
    """Three ranks with a barrier, the second of which has a loader that is four times slower."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=2),
        dataset=dlsim.MapDataset(
            60,
            fetch=[dlsim.Stage("read", wait=dlsim.Constant(0.5))],
            sample_bytes=dlsim.Constant(1000.0),
        ),
        consumer=dlsim.Consumer(step=dlsim.Constant(1.0)),
        job=dlsim.Job(
            ranks=3, sync_time=dlsim.Constant(0.25), differs=[dlsim.Differs(rank=1, loader=4.0)]
        ),
    )
    return dlsim.simulate_job(dlsim.replace(scenario, changes), 7, samples=True)


def test_a_file_keeps_all_of_a_job(tmp_path: Path) -> None:
    """What was saved is loaded: every moment of every rank, samples, barrier, what it tells."""
    found = job()
    save_job(found, tmp_path / "job.npz")
    again = load_job(tmp_path / "job.npz")
    assert job_difference(found, again, rtol=0.0) is None
    assert again.meta == found.meta
    assert [trace.meta for trace in again.ranks] == [trace.meta for trace in found.ranks]
    assert all(trace.stepped is not None for trace in again.ranks)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    """A job is no trace, a trace no job, and ranks of different jobs make none: in one line."""
    save_job(job(), tmp_path / "job.npz")
    with pytest.raises(TraceError, match="expected a single trace, got those of a job"):
        load_trace(tmp_path / "job.npz")
    dlsim.save(job().ranks[0], tmp_path / "rank.npz")
    with pytest.raises(TraceError, match="expected the traces of a job, got a single trace"):
        load_job(tmp_path / "rank.npz")
    one, other = job(), dlsim.simulate_job(job().meta.scenario, 8)
    mixed = JobTrace(ranks=(*one.ranks[:2], other.ranks[2]), meta=one.meta)
    save_job(mixed, tmp_path / "mixed.npz")
    with pytest.raises(TraceError, match="expected the trace of rank 2 under seed 7"):
        load_job(tmp_path / "mixed.npz")


def test_a_table_has_a_row_for_each_batch_of_each_rank(tmp_path: Path) -> None:
    """The CSV file has the rank in front, and when it came to the barrier at the end."""
    found = job()
    write_job_csv(found, tmp_path / "job.csv")
    with open(tmp_path / "job.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(map(len, found.ranks)) == 30
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(3) for _ in range(10)]
    assert float(rows[0]["finished"]) - float(rows[0]["stepped"]) == pytest.approx(3.25)


@settings(max_examples=6)
@given(jobs(ideal), st.integers(0, 2**32))
def test_tables_and_chrome_traces_are_read_back(
    tmp_path: Path, scenario: dlsim.Scenario, seed: int
) -> None:
    """Of any job a table has every number, a Chrome trace waits, steps and barriers to the ns."""
    found = dlsim.simulate_job(scenario, seed)
    write_job_csv(found, tmp_path / "job.csv")
    table = read_csv(tmp_path / "job.csv")
    assert isinstance(table, JobTrace)
    without = [replace(trace, meta=table.meta) for trace in found.ranks]
    assert job_difference(JobTrace(ranks=tuple(without), meta=table.meta), table, rtol=0) is None
    write_job_csv(table, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "job.csv").read_bytes()
    write_job_chrome(found, tmp_path / "job.json.gz")
    for trace, read in zip(
        found.ranks, read_job_chrome(tmp_path / "job.json.gz").ranks, strict=True
    ):
        for name in ("requested", "returned", "finished"):
            moments = getattr(trace, name)[trace.order]
            np.testing.assert_allclose(getattr(read, name), moments, atol=1e-9)
        assert (read.stepped is None) == (trace.stepped is None)
        if read.stepped is not None and trace.stepped is not None:
            known = ~np.isnan(read.finished)
            stepped = trace.stepped[trace.order]
            np.testing.assert_allclose(read.stepped[known], stepped[known], atol=1e-9)
        np.testing.assert_allclose(read.epochs.started, trace.epochs.started, atol=1e-9)


def test_reports_on_files_of_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a table and from a Chrome trace it is told who waited for whom, as from the job."""
    found = job()
    write_job_csv(found, tmp_path / "job.csv")
    write_job_chrome(found, tmp_path / "job.json")
    for name in ("job.csv", "job.json"):
        assert main(["report", str(tmp_path / name)]) == 0
        out = capsys.readouterr().out
        assert (
            "Rank 1 is waited for the longest (100.0 % of that; it came last 5 of 10 times)" in out
        )
    late, read = lateness(found), lateness(read_job_chrome(tmp_path / "job.json"))
    assert read.kept == pytest.approx(late.kept)
    never = job(**{"job.sync": "never"})
    write_job_csv(never, tmp_path / "never.csv")
    apart = read_csv(tmp_path / "never.csv")
    assert isinstance(apart, JobTrace)
    assert len(meetings(apart)) == 0


def test_files_of_other_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A Chrome trace of a job is none of a run, and the reverse; all ranks have to be there."""
    path = tmp_path / "job.json"
    write_chrome(job().ranks[0], path)
    with pytest.raises(TraceError, match="expected the Chrome trace of a job, got another one"):
        read_job_chrome(path)
    write_job_chrome(job(), path)
    assert main(["explain", str(path)]) == 2
    assert "job.json: expected a single run, got a job of 3 ranks" in capsys.readouterr().err
    path.write_text(path.read_text().replace('"pid":2,', '"pid":9,'))
    with pytest.raises(TraceError, match="expected 3 ranks, got no epoch of rank 1"):
        read_job_chrome(path)
    write_job_csv(job(), tmp_path / "job.csv")
    rows = (tmp_path / "job.csv").read_text().splitlines(keepends=True)
    (tmp_path / "job.csv").write_text("".join(row for row in rows if row[:2] != "1,"))
    with pytest.raises(TraceError, match=r"rank: expected 0, 1, \.\.\., each once, got 2"):
        read_csv(tmp_path / "job.csv")


def test_a_process_for_each_rank(tmp_path: Path) -> None:
    """A Chrome trace of a job has a process for each rank, and numbers that no two share."""
    write_job_chrome(job(), tmp_path / "job.json")
    events = json.loads((tmp_path / "job.json").read_text())["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names == {1: "rank 0", 2: "rank 1", 3: "rank 2"}
    assert {event["pid"] for event in events} == {1, 2, 3}
    batches = [event["id"] for event in events if event["ph"] == "b" and event["cat"] == "batch"]
    assert len(batches) == len(set(batches)) == 30
    assert {e["pid"] for e in events if e["name"] == "barrier"} == {1, 2, 3}


def test_profiles_are_like_those_of_torch(tmp_path: Path) -> None:
    """In each profile are its rank, a ProfilerStep for each batch, and kernels on a stream.

    The kernels of steps are as long as the steps, those of NCCL as long as the rank waited, and
    each has the launch that it is correlated with, inside of its ProfilerStep.
    """
    found = job()
    paths = write_profiles(found, tmp_path)
    assert [path.name for path in paths] == ["rank0.json.gz", "rank1.json.gz", "rank2.json.gz"]
    for rank, path in enumerate(paths):
        text = gzip.decompress(path.read_bytes()).decode()
        assert f'"rank": {rank}' in text
        tree = json.loads(text)
        assert tree["distributedInfo"]["world_size"] == 3
        events = tree["traceEvents"]
        steps = {e["name"]: e for e in events if e["name"].startswith("ProfilerStep#")}
        assert list(steps) == [f"ProfilerStep#{k}" for k in range(10)]
        kernels = [event for event in events if event.get("cat") == "kernel"]
        trace = found.ranks[rank]
        computed = sum(e["dur"] for e in kernels if e["name"] == "training_step_kernel")
        exchanged = sum(e["dur"] for e in kernels if e["name"].startswith("nccl"))
        assert computed == pytest.approx(1e6 * metrics.steps(trace).sum())
        assert exchanged == pytest.approx(1e6 * metrics.barrier_waits(trace).sum())
        launches = {e["args"]["correlation"]: e for e in events if e["name"] == "cudaLaunchKernel"}
        assert sorted(launches) == sorted(e["args"]["correlation"] for e in kernels)
        for launch in launches.values():
            step = steps[f"ProfilerStep#{(launch['args']['correlation'] - 1) // 2}"]
            assert step["ts"] <= launch["ts"] <= step["ts"] + step["dur"]


def test_metrics_of_a_job_are_those_of_its_ranks() -> None:
    """Throughput is that of all ranks; waits are of all batches; utilisation that of the least."""
    found = job()
    total = summarize(found)
    each = [summarize(trace) for trace in found.ranks]
    assert total.samples == 60
    assert total.samples_per_s == pytest.approx(60 / found.end)
    assert total.wait_mean == pytest.approx(np.mean([one.wait_mean for one in each]))
    assert total.au == pytest.approx(10 / found.end)
    assert total.stall + total.au == pytest.approx(1.0)
    counted = job_account(found)
    # some of it a slow loader, too, keeps the run from being over sooner
    spent = at_barrier(found) * counted.elapsed
    assert 0.9 * spent < counted.idle["barrier"] <= spent
    assert counted.stall == pytest.approx(total.stall)


def test_whom_all_waited_for() -> None:
    """The rank with the slow loader is named, what it did, and what it cost."""
    late = lateness(job())
    assert late.worst == 1
    assert late.waited[1] == 0
    assert late.kept[1] == pytest.approx(late.waited.sum())
    assert late.exchanged == pytest.approx(2.5)
    assert late.amplification > 1.2
    assert "Rank 1 is waited for the longest (100.0 % of that" in job_text(job())
    assert "for fetching samples" in job_text(job())


def test_ranks_that_never_meet() -> None:
    """Without a barrier nobody waits for anyone, and the text says nothing of it."""
    found = job(**{"job.sync": "never"})
    assert np.isnan(lateness(found).amplification)
    assert "waited for" not in job_text(found)


def test_memory_of_all_ranks_of_a_node() -> None:
    """What three ranks have on their way has to fit into the node's memory, together."""
    assert job_overflow(job(**{"machine.memory": 1e6})) is None
    over = job_overflow(job(**{"machine.memory": 20e3}))
    assert over is not None
    assert (over.resource, over.limit) == ("memory", 20e3)
    assert 20e3 < over.needed <= 3 * 5 * 2000.0
    assert over.largest_window == 2
    two_nodes = job(**{"machine.memory": 20e3, "job.nodes": 3, "job.ranks": 1})
    assert job_overflow(two_nodes) is None


def test_profiles_of_ranks_are_one_job(tmp_path: Path) -> None:
    """What is written for HolisticTraceAnalysis is read again: who waited for whom, and how long.

    Of the last step a profile has nothing.
    """
    found = job()
    write_profiles(found, tmp_path)
    again = read_profiles(tmp_path)
    assert len(again) == 3
    for trace, read in zip(found.ranks, again.ranks, strict=True):
        for name in ("requested", "returned"):
            moments = getattr(trace, name)[trace.order]
            assert getattr(read, name)[: len(moments)] == pytest.approx(moments, abs=2e-6)
        waited = (trace.finished - trace.stepped)[trace.order][:-1] - 0.25  # the exchange
        assert (read.finished - read.stepped)[: len(waited)] == pytest.approx(waited, abs=4e-6)
    assert lateness(again).worst == lateness(found).worst == 1
    assert "Rank 1 is waited for the longest (100.0 % of that" in job_text(again)


def test_profiles_that_do_not_belong_together(tmp_path: Path) -> None:
    """One line each on what is missing, twice there, or says no rank."""
    with pytest.raises(TraceError, match=r"expected profiles of ranks .* got none"):
        read_profiles(tmp_path)
    with pytest.raises(TraceError, match="expected a folder of profiles, got none"):
        read_profiles(tmp_path / "nowhere")
    write_profiles(job(), tmp_path)
    (tmp_path / "rank1.json.gz").rename(tmp_path / "other")
    with pytest.raises(TraceError, match="expected 3 ranks, got no profile of rank 1"):
        read_profiles(tmp_path)
    shutil.copy(tmp_path / "rank0.json.gz", tmp_path / "rank1.json.gz")
    with pytest.raises(TraceError, match="expected each rank once, got rank 0 twice"):
        read_profiles(tmp_path)
    write_chrome(job().ranks[1], tmp_path / "rank1.json.gz")
    with pytest.raises(TraceError, match=r"rank1.json.gz: expected a profile that says its rank"):
        read_profiles(tmp_path)


def test_profiles_of_machines_have_clocks_of_their_own(tmp_path: Path) -> None:
    """Times count from the base that a file names."""
    write_profiles(job(), tmp_path)
    path = tmp_path / "rank2.json.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    late = text.replace("{", '{"baseTimeNanoseconds": 5000000000, ', 1)
    path.write_bytes(gzip.compress(late.encode()))
    ranks = read_profiles(tmp_path).ranks
    assert ranks[2].epochs.started[0] - ranks[0].epochs.started[0] == pytest.approx(5.0)
    assert ranks[2].returned[0] - ranks[0].returned[0] == pytest.approx(5.0, abs=1e-5)


def test_files_of_each_process_of_a_job() -> None:
    """Each process has its own file descriptors: what one of them has open is what counts."""
    changes = {"dataset.tensors": 10, "machine.memory": 1e9}
    assert job_overflow(job(**changes, **{"machine.descriptors": 1000})) is None
    found = job(**changes, **{"machine.descriptors": 30})
    over = job_overflow(found)
    assert over is not None
    alone = [overflow(trace) for trace in found.ranks]
    assert over == max((one for one in alone if one), key=lambda one: one.needed)
    assert (over.resource, over.limit) == ("file descriptors", 30)
    assert "a process has up to" in job_text(found)
    without = job(**{"dataset.tensors": 10, "machine.descriptors": 30})
    assert job_overflow(without) == over


@pytest.mark.parametrize("ranks", [3, 600])
def test_pictures_of_few_and_many_ranks(ranks: int) -> None:
    """Three and six hundred ranks are drawn alike: a picture, with names that do not overlap."""
    found = job(**{"job.ranks": ranks, "dataset.length": 4 * ranks})
    ax = ranks_gantt(found)
    (image,) = ax.get_images()
    assert image.get_array().shape[0] == min(ranks, 256)
    assert len(ax.get_yticklabels()) == min(ranks, 16)
    assert job_picture(found).get_axes()
