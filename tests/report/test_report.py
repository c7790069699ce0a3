from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dlsim
from dlsim.engine import simulate
from dlsim.report import gantt, occupancy, run_picture, run_text, side_by_side, verdict
from dlsim.report.columns import envelope, shares
from dlsim.report.html import svg
from dlsim.report.job_plots import job_picture
from dlsim.report.job_text import job_text
from dlsim.report.prediction_plots import predicted_against_measured
from dlsim.report.text import setup
from dlsim.report.why_plots import account_bars
from dlsim.trace import Trace, metrics, stays
from dlsim.trace.levels import levels


def run(
    length: int = 24,
    read: dlsim.scenario.Distribution = dlsim.Constant(1.0),  # noqa: B008 (a frozen value)
    step: float = 0.5,
    loader: dict[str, Any] | None = None,
    **changes: Any,
) -> Trace:
    """By default two workers, batches of 3 samples of 1 s, steps of 0.5 s."""
    return simulate(
        dlsim.Scenario(
            loader=dlsim.Loader(**{"batch_size": 3, "num_workers": 2} | (loader or {})),
            dataset=dlsim.MapDataset(length, fetch=[dlsim.Stage("read", wait=read)]),
            consumer=dlsim.Consumer(step=dlsim.Constant(step)),
            **changes,
        ),
        engine="simpy",
    )


def drawn(figure: Any) -> bytes:
    """The picture as PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    return file.getvalue()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "2 workers, prefetch 2 (window 4), batch size 3, in order, map-style"),
        ({"loader.workers": "threads", "loader.num_workers": 1}, "1 thread, prefetch 2 (window 2)"),
        ({"loader.like": "accelerate-1.15"}, "map-style, loop accelerate"),
        ({"loader.like": "monai.ThreadDataLoader-1.6"}, "map-style, loop thread"),
        ({"loader.endless": True, "consumer.stop_after": 2}, "map-style, endless"),
        ({"loader.stateful": True}, "map-style, stateful"),
    ],
)
def test_the_line_about_the_loader(changes: dict[str, object], said: str) -> None:
    """It names what is not torch's own: threads, the loop around `next()`, an endless sampler."""
    scenario = run().meta.scenario
    assert scenario is not None
    assert said in setup(dlsim.replace(scenario, changes))


def test_run_text() -> None:
    """The text on a run has its setup, its metrics and a verdict."""
    assert (
        run_text(run(name="notes"))
        == """\
Training is idle 69.2 % of the time: 46.2 % for fetching samples, 23.1 % for the empty pipeline \
at the beginning of an epoch.
Does it fit? How large a sample is, is not stated (dataset.sample_bytes).

notes (engine simpy, seed 0)
2 workers, prefetch 2 (window 4), batch size 3, in order, map-style

throughput    1.85 samples/s, 0.615 batches/s (24 samples in 8 batches)
time          13 s; an epoch 13 s, the first batch after 3 s
wait          mean 1.12 s, p50 1 s, p95 2.65 s, p99 2.93 s, first 3 s
training      busy 30.8 % of the time, idle 69.2 %
workers       busy 92.3 % of the time
buffer        0.154 batches ready on average, at most 1; sent and not returned at most 4
out of order  0 batches early, at most 0 at a time; 0 s waited while a later one was ready

where the time goes      idle    path
  busy               (30.8 %)   7.7 %
  fetch: read          46.2 %  69.2 %
  first batch          23.1 %  23.1 %
Idle is what training waited for; the path is what each second hung on, busy ones too:
what would have ended the run sooner, had it been faster."""
    )


def test_step_bound_verdict() -> None:
    """Where the step hardly waits, it is the bottleneck, and idle workers are mentioned."""
    found = verdict(run(length=300, step=6.0))
    assert ": the training step limits. Workers are idle" in found
    assert "fewer may do" in found


def test_no_workers_verdict() -> None:
    """Without workers, all fetching is idle time."""
    assert verdict(run(loader={"num_workers": 0})) == (
        "Training is idle 85.7 % of the time: 85.7 % for fetching samples. "
        "Without workers, loading and training take turns."
    )


def test_head_of_line_verdict() -> None:
    """Where slow batches hold up ready ones, order is what limits."""
    slow = dlsim.Recorded(tuple(12.0 if i % 8 == 0 else 0.1 for i in range(64)))
    trace = run(64, slow, 0.0, {"batch_size": 1, "num_workers": 4, "prefetch_factor": 1})
    assert " % for order, as slow batches keep back later ones" in verdict(trace)


def test_first_batch_verdict() -> None:
    """Where all waiting is for the first batch, that is said."""
    said = "Training is idle 8.6 % of the time: 8.6 % for the empty pipeline at the beginning"
    assert verdict(run(step=4.0)).startswith(said)


def test_error_comes_first() -> None:
    """A run that an error ended says so in its first line."""
    trace = run(failures=(dlsim.Failure("fetch", 4),))
    assert run_text(trace).splitlines()[0] == (
        "Ended after 3.5 s by an error, for batch 1: fetch raised an exception for sample 4"
    )


def test_a_job_in_which_no_time_passes_between_meetings() -> None:
    """It is not amplified, and nothing that is no number is said of it."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=4, num_workers=2),
        dataset=dlsim.IterableDataset(40, sharding="none"),
        consumer=dlsim.Consumer(step=dlsim.Constant(1e-300)),
        job=dlsim.Job(ranks=2),
    )
    said = job_text(dlsim.simulate_job(scenario))
    assert "nan" not in said
    assert "amplification" not in said


def test_a_job_that_hangs_says_so_first() -> None:
    """Ranks that wait for one that is gone: no error is raised, and none is spoken of."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(),
        dataset=dlsim.MapDataset(3),
        consumer=dlsim.Consumer(step=dlsim.Constant(1.0)),
        job=dlsim.Job(ranks=2, deal="batches", even_batches=False),
    )
    assert job_text(dlsim.simulate_job(scenario)).splitlines()[0] == (
        "Hangs after 2 s: rank 0 waits for rank 1 after its step 2: rank 1 took its last, number 1,"
        " and left at 1 s"
    )


def test_no_batches() -> None:
    """A run without batches has a text and a picture, too."""
    trace = run(length=0)
    assert run_text(trace).startswith("No batch was returned.\n")
    assert drawn(run_picture(trace))


def test_side_by_side() -> None:
    """Two traces stand side by side, metric by metric, with the relative change."""
    lines = side_by_side("two", run(), "four", run(loader={"num_workers": 4})).splitlines()
    assert lines[0].split() == ["two", "four", "change"]
    rows = {line.split()[0]: line for line in lines[1:]}
    metrics = dlsim.trace.summarize(run()).as_dict()
    assert list(rows) == [name for name, value in metrics.items() if value == value]
    assert rows["elapsed"].split() == ["elapsed", "13", "s", "8", "s", "-38.5", "%"]
    assert rows["batches"].split() == ["batches", "8", "8", "="]
    assert len({line.rstrip()[-1] for line in lines[1:]} - {"%", "=", "-"}) == 0


def test_gantt_bars() -> None:
    """A small picture has one collection of bars for each lane and kind, and batch numbers."""
    ax = gantt(run())
    assert len(ax.collections) == 2 + 2
    assert [len(bars.get_paths()) for bars in ax.collections] == [4, 8, 4, 4]
    assert {"0", "7"} <= {text.get_text() for text in ax.texts}
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "main process",
        "worker 0",
        "worker 1",
    ]


def test_draws_where_told() -> None:
    """With `ax` given, that is drawn on and returned."""
    from matplotlib.figure import Figure

    one, other = Figure().subplots(2)
    assert gantt(run(), one) is one
    assert occupancy(run(), other) is other


def test_large_runs_make_small_pictures() -> None:
    """However many batches there are, the number of things drawn is bounded."""
    trace = run(4000, dlsim.Exponential(1.0), loader={"batch_size": 1})
    ax = gantt(trace)
    assert len(ax.collections) == 2 + 2
    assert sum(len(c.get_paths()) for c in ax.collections) == 4
    assert len(ax.texts) == 0
    assert "share" in ax.get_legend().get_title().get_text()
    assert max(len(line.get_xdata()) for line in occupancy(trace).lines) < 1000


@pytest.mark.parametrize("workers", [0, 1, 20])
def test_pictures_of_all_sorts(workers: int) -> None:
    """Pictures can be drawn without a warning for no, one and many workers, over epochs."""
    trace = run(60, dlsim.Exponential(1.0), loader={"num_workers": workers}, epochs=2)
    assert drawn(run_picture(trace)).startswith(b"\x89PNG")


def test_titles_are_as_wide_as_the_picture() -> None:
    """However much there is to say of a run, or of a job, nothing of its title is cut off."""
    scenario = dlsim.replace(run().meta.scenario, {"name": "read from afar " * 20, "job.ranks": 2})
    alone = dlsim.replace(scenario, {"job.ranks": 1})
    for figure in (run_picture(dlsim.simulate(alone)), job_picture(dlsim.simulate_job(scenario))):
        written = figure._suptitle.get_window_extent()
        assert 0 <= written.x0 < written.x1 <= figure.bbox.x1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["W" * 500, "$" * 500, "read it " * 60])
def test_long_names_leave_room_for_the_picture(name: str) -> None:
    """However long the name of a cause is, its bars have room in a report as narrow as a phone."""
    ax = account_bars({f"fetch: {name}": 0.5}, {f"fetch: {name}": 0.7})
    assert svg(ax)
    assert ax.get_position().width > 0.1


def test_picture_of_an_error() -> None:
    """A picture of a run that an error ended says so."""
    figure = run_picture(run(failures=(dlsim.Failure("fetch", 4),)))
    assert any("by an error" in text.get_text() for ax in figure.axes for text in ax.texts)


def test_matplotlib_is_loaded_late() -> None:
    """Importing dlsim and its reports loads no matplotlib; a picture never loads pyplot."""
    code = """
import sys, dlsim, dlsim.report
assert "matplotlib" not in sys.modules
scenario = dlsim.Scenario(loader=dlsim.Loader(), dataset=dlsim.MapDataset(3))
dlsim.report.run_picture(dlsim.simulate(scenario))
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


disjoint = st.lists(st.floats(0, 100), max_size=20, unique=True).map(
    lambda times: np.reshape(sorted(times)[: len(times) // 2 * 2], (-1, 2))
)


@given(disjoint, st.integers(1, 30))
def test_columns_keep_the_time_spent(intervals: np.ndarray[Any, Any], columns: int) -> None:
    """The shares of all columns add up to the length of all intervals, each between 0 and 1."""
    edges = np.linspace(0, 100, columns + 1)
    begins, ends = intervals[::-1].T if len(intervals) else (np.empty(0), np.empty(0))
    found = shares(begins, ends, edges)
    assert np.all((found > -1e-9) & (found < 1 + 1e-9))
    assert float(found @ np.diff(edges)) == pytest.approx(float((ends - begins).sum()), abs=1e-6)


@given(disjoint, st.integers(1, 30))
def test_envelope_keeps_mean_and_extremes(intervals: np.ndarray[Any, Any], columns: int) -> None:
    """The means of all columns have the mean of the whole; no extreme is lost."""
    whole = levels(intervals[:, 0], intervals[:, 1] + 5, 0.0, 100.0)
    edges = np.linspace(0, 100, columns + 1)
    least, mean, most = envelope(whole, edges)
    assert np.all((least <= mean + 1e-9) & (mean <= most + 1e-9))
    assert float(mean.mean()) == pytest.approx(whole.mean, abs=1e-6)
    assert (least.min(), most.max()) == (whole.counts.min(), whole.max)


def test_columns_of_a_run_are_its_utilisation() -> None:
    """What the columns of a worker's lane cover is that worker's utilisation."""
    trace = run(600, dlsim.Exponential(1.0))
    begins, ends = metrics.fetches(trace)
    mine = trace.worker == 1
    found = shares(begins[mine], ends[mine], np.linspace(*metrics.span(trace), 101))
    assert found.mean() == pytest.approx(metrics.worker_utilisation(trace)[1])


@pytest.mark.parametrize(
    ("sharding", "workers", "said"),
    [((8, 8, 0, 0), 4, " 2 of 4 workers have no data"), ("split", 8, " 3 of 8 workers have no")],
)
def test_workers_without_data(sharding: Any, workers: int, said: str) -> None:
    """Workers that get no share of an iterable-style dataset are counted (10 by 8: 5 times 2)."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=workers),
        dataset=dlsim.IterableDataset(10, sharding=sharding),
        consumer=dlsim.Consumer(step=dlsim.Constant(1.0)),
    )
    assert said in verdict(simulate(scenario))
    whole = dlsim.replace(scenario, {"dataset.sharding": "none"})
    assert f" Each sample comes {workers} times" in verdict(simulate(whole))


def test_shared_storage_is_blamed_before_order() -> None:
    """Where workers wait for a disk in the first epoch of two, the order of batches is no cause."""
    read = dlsim.Stage("read", read_bytes=dlsim.Gamma(1e6, 0.5))
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=4, persistent_workers=True),
        dataset=dlsim.MapDataset(200, fetch=[read]),
        consumer=dlsim.Consumer(step=dlsim.Constant(1.1)),
        machine=dlsim.Machine(storage=dlsim.Storage(bandwidth=1e6, cache=1e9)),
        epochs=2,
    )
    trace = simulate(scenario)
    assert stays.head_of_line(trace) > 0.5 * metrics.waits(trace).sum()
    assert metrics.worker_utilisation(trace).mean() < 0.8
    assert " % of the time: 23.7 % for storage." in verdict(trace)


def test_pinned_batches_pass_through_shm() -> None:
    """With a pin-memory thread, a batch is in /dev/shm for a moment, and takes room there."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=3, num_workers=2, pin_memory=True),
        dataset=dlsim.MapDataset(24, sample_bytes=dlsim.Constant(1000.0)),
        machine=dlsim.Machine(shm=1e6),
    )
    told = run_text(simulate(scenario))
    assert "It fits: batches on their way take up to 11.7 KiB of the 977 KiB of /dev/shm" in told


def test_shared_storage_is_blamed_before_workers() -> None:
    """Busy workers that wait for a disk they share are not told to become more."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=4),
        dataset=dlsim.MapDataset(80, fetch=[dlsim.Stage("read", read_bytes=dlsim.Constant(1e6))]),
        machine=dlsim.Machine(storage=dlsim.Storage(bandwidth=1e6)),
    )
    assert "of the time: 90.0 % for storage." in run_text(simulate(scenario))
    cores = dlsim.replace(
        scenario, {"machine": {"cores": 2}, "dataset.fetch.0": {"name": "decode", "cpu": "1 s"}}
    )
    assert " % for cores, which too many processes want, 45.0 % for fetching samples." in (
        run_text(simulate(cores))
    )


def test_points_have_names() -> None:
    """Of few predictions all have names; of many, those that no real run meets."""
    predicted = np.array([1.0, 2.0, 4.0])
    measured = [np.array([1.0, 1.1]), np.array([2.0, 2.1]), np.array([8.0, 8.2])]
    names = ["jpeg, workers 1", "jpeg, workers 2", "jpeg, workers 4"]
    low, high = 0.9 * predicted, 1.1 * predicted
    axes = predicted_against_measured(predicted, low, high, measured, [""] * 3, names)
    numbers = ["1", "2", "3"]
    listed = "\n".join(f"{number}  {name}" for number, name in zip(numbers, names, strict=True))
    assert [text.get_text() for text in axes.texts] == [*numbers, listed]
    times = 7
    axes = predicted_against_measured(
        *(np.tile(values, times) for values in (predicted, low, high)),
        measured * times,
        [""] * 3 * times,
        [f"{name} ({at})" for at in range(times) for name in names],
    )
    shown = axes.texts[-1].get_text().splitlines()
    assert len(shown) == times
    assert all("workers 4" in line for line in shown)
