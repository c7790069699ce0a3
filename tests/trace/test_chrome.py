from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import dlsim
from dlsim.cli import main
from dlsim.scenario import Scenario
from dlsim.trace import Trace, TraceError, metrics, read_profiler, stays, write_chrome
from dlsim.trace.chrome import ITER, WITH_WORKERS, WITHOUT_WORKERS
from tests.cli.test_cli import SMALL
from tests.strategies import scenarios


def small(workers: int = 2, **changes: Any) -> Scenario:
    """Four batches of two samples, 1 s each; steps of 0.5 s; two epochs."""
    return dlsim.Scenario(
        loader=dlsim.Loader(batch_size=2, num_workers=workers),
        dataset=dlsim.MapDataset(8, fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.5)),
        epochs=2,
        **changes,
    )


def written(trace: Trace, path: Path) -> list[dict[str, Any]]:
    """The events that `write_chrome` writes."""
    write_chrome(trace, path)
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    events: list[dict[str, Any]] = json.loads(content)["traceEvents"]
    return events


def overlaps(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Pairs of slices of one lane that overlap, neither holding the other; in nanoseconds."""
    lanes = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            begin, lasted = round(event["ts"] * 1000), round(event["dur"] * 1000)
            lanes[event["pid"], event["tid"]].append((begin, -lasted, event["name"]))
    found: list[tuple[Any, ...]] = []
    for lane in lanes.values():
        around: list[tuple[int, int, str]] = []
        for begin, lasted, name in sorted(lane):
            while around and around[-1][1] <= begin:
                around.pop()
            if around and begin - lasted > around[-1][1]:
                found.append((around[-1], (begin, begin - lasted, name)))
            around.append((begin, begin - lasted, name))
    return found


@settings(max_examples=50)
@given(scenarios(torch_only=False))
def test_any_trace_is_valid_and_read_back(tmp_path: Path, scenario: Scenario) -> None:
    """Of any scenario, slices nest or follow one another, and reading gives the same waits."""
    trace = dlsim.simulate(scenario, samples=True)
    events = written(trace, tmp_path / "run.json")
    assert overlaps(events) == []
    assert all(event["dur"] >= 0 and event["cat"] for event in events if event["ph"] == "X")
    assert all(event["ts"] >= 0 for event in events if event["ph"] != "M")
    if not len(trace.order):
        return
    again = read_profiler(tmp_path / "run.json")
    np.testing.assert_allclose(metrics.waits(again), metrics.waits(trace), atol=2e-9)
    gaps = np.diff(trace.requested[trace.order])
    np.testing.assert_allclose(np.diff(again.requested), gaps, atol=2e-9)


def test_two_sets_of_workers_that_have_nothing(tmp_path: Path) -> None:
    """Of a rebound iterator over no data every index list is answered, by either set of workers."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(num_workers=1),
        dataset=dlsim.IterableDataset(0),
        consumer=dlsim.Consumer(loop="rebind"),
        epochs=2,
    )
    events = written(dlsim.simulate(scenario), tmp_path / "run.json")
    assert [event["id"] for event in events if event["ph"] == "b" and event["cat"] == "batch"]
    assert overlaps(events) == []


def test_lanes_and_slices(tmp_path: Path) -> None:
    """A lane for the main process and each worker, with all that they do, in microseconds."""
    events = written(dlsim.simulate(small(), samples=True), tmp_path / "run.json")
    names = [e["args"]["name"] for e in events if e["name"] == "process_name"]
    assert names == ["main process", "worker 0", "worker 1"]
    lanes = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            lanes[event["pid"]].append((event["ts"], event["dur"], event["name"]))
    assert sorted(lanes[1])[:6] == [
        (0, 0, ITER),
        (0, 2_000_000, WITH_WORKERS),
        (2_000_000, 500_000, "step"),
        (2_500_000, 0, WITH_WORKERS),
        (2_500_000, 500_000, "step"),
        (3_000_000, 1_000_000, WITH_WORKERS),
    ]
    assert sorted(lanes[10])[:3] == [
        (0, 1_000_000, "sample"),
        (0, 2_000_000, "fetch"),
        (1_000_000, 1_000_000, "sample"),
    ]
    assert sum(name == WITH_WORKERS for _, _, name in lanes[1]) == 8 + 2  # two find an end


def test_life_of_a_batch(tmp_path: Path) -> None:
    """A batch lives from its sending to the end of its step, with arrows between the lanes."""
    events = written(dlsim.simulate(small()), tmp_path / "run.json")
    life = [(e["ph"], e["ts"]) for e in events if e["name"] == "batch 2"]
    assert life == [("b", 0), ("e", 4_500_000)]
    flow = [(e["ph"], e["pid"], e["ts"]) for e in events if e["name"] == "batch" and e["id"] == 2]
    assert flow == [("s", 1, 0), ("t", 10, 2_000_000), ("f", 1, 4_000_000)]


def test_counters(tmp_path: Path) -> None:
    """Two counters follow what is ready, and what is sent and not returned."""
    trace = dlsim.simulate(small())
    events = written(trace, tmp_path / "run.json")
    for name, level in (("ready", stays.buffer(trace)), ("credit", stays.credit(trace))):
        found = [(e["ts"], e["args"]["batches"]) for e in events if e["name"] == name]
        assert found == list(zip(level.times * 1e6, level.counts, strict=True))


def test_without_workers(tmp_path: Path) -> None:
    """Without workers fetching is part of the wait, which bears the other name."""
    events = written(dlsim.simulate(small(workers=0)), tmp_path / "run.json")
    assert {e["pid"] for e in events} == {1}
    slices = [(e["ts"], e["dur"]) for e in events if e["name"] == WITHOUT_WORKERS]
    assert slices[:2] == [(0, 2_000_000), (2_500_000, 2_000_000)]
    assert (0, 2_000_000) in [(e["ts"], e["dur"]) for e in events if e["name"] == "fetch"]


def test_running_ahead_has_a_lane(tmp_path: Path) -> None:
    """Steps that the host does not wait for are drawn on the accelerator's own lane."""
    scenario = dlsim.replace(small(), {"consumer.run_ahead": 2, "consumer.step": 3.0})
    events = written(dlsim.simulate(scenario), tmp_path / "run.json")
    assert {(e["pid"], e["tid"]) for e in events if e["name"] == "step"} == {(1, 2)}
    assert overlaps(events) == []


def test_files_are_equal(tmp_path: Path) -> None:
    """The same trace makes the same file, compressed or not, and nothing else stays behind."""
    trace = dlsim.simulate(small())
    for name in ("a.json", "b.json", "a.json.gz", "b.json.gz"):
        write_chrome(trace, tmp_path / name)
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()
    assert (
        gzip.decompress((tmp_path / "a.json.gz").read_bytes()) == (tmp_path / "b.json").read_bytes()
    )
    assert len(list(tmp_path.iterdir())) == 4


def refusal(path: Path) -> str:
    """What `read_profiler` says about a file, in one line that begins with its name."""
    with pytest.raises(TraceError) as caught:
        read_profiler(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def test_bad_files(tmp_path: Path) -> None:
    """What is cut short, of another kind, or without a DataLoader is refused as such."""
    assert refusal(tmp_path / "none.json") == "cannot be read: No such file or directory"
    whole = tmp_path / "run.json.gz"
    write_chrome(dlsim.simulate(small()), whole)
    cut = tmp_path / "cut.json.gz"
    for length in (3, 20, len(whole.read_bytes()) - 9):
        cut.write_bytes(whole.read_bytes()[:length])
        assert refusal(cut) == "damaged or cut short"
    other = tmp_path / "other.json"
    for content, complaint in (
        (gzip.decompress(whole.read_bytes())[:-100], "damaged, cut short, or no JSON"),
        (b"", "damaged, cut short, or no JSON"),
        (b"\x89PNG", "damaged, cut short, or no JSON"),
        (b"{}", "expected a Chrome trace: Object missing required field `traceEvents`"),
        (b'{"traceEvents": 3}', "expected a Chrome trace: Expected `array`"),
        (b"[3]", "expected a Chrome trace: Expected `object`"),
        (b'{"traceEvents": []}', "no DataLoader in it"),
        (b"[]", "no DataLoader in it"),
    ):
        other.write_bytes(content)
        assert refusal(other).startswith(complaint)


def test_unwritable(tmp_path: Path) -> None:
    """A name of another kind, or a folder that is not there, is refused in one line."""
    trace = dlsim.simulate(small())
    with pytest.raises(TraceError, match=r"run\.txt: expected a name ending in \.json or"):
        write_chrome(trace, tmp_path / "run.txt")
    with pytest.raises(TraceError, match="cannot be written: No such file"):
        write_chrome(trace, tmp_path / "no" / "run.json")


def profile(path: Path, nexts: list[tuple[float, float]], *others: dict[str, Any]) -> Path:
    """A profile of `next()` from and to these microseconds, and of other events."""
    thread = {"ph": "X", "pid": 5, "tid": 5}
    events = [
        {**thread, "name": WITH_WORKERS, "ts": begin, "dur": end - begin} for begin, end in nexts
    ]
    path.write_text(json.dumps({"traceEvents": [*({**thread, **e} for e in others), *events]}))
    return path


def test_profile_from_the_middle(tmp_path: Path) -> None:
    """If something was done after the last `next()`, it returned a batch; else it did not."""
    nexts = [(0, 10), (30, 40), (60, 70)]
    step = {"name": "aten::mm", "ts": 75, "dur": 5}
    seen = read_profiler(profile(tmp_path / "a.json", nexts, step))
    assert seen.finished.tolist() == pytest.approx([30e-6, 60e-6, 80e-6])
    seen = read_profiler(profile(tmp_path / "b.json", nexts))
    assert seen.finished.tolist() == pytest.approx([30e-6, 60e-6])
    assert seen.epochs.ended.tolist() == pytest.approx([70e-6])


def test_random_numbers_in_a_step(tmp_path: Path) -> None:
    """Random numbers of a step are not taken for the seed of a new epoch."""
    draws = [
        {"name": name, "ts": 12 + place, "dur": 1}
        for place, name in enumerate(
            ["aten::randint", "aten::empty", "aten::random_", "aten::item"]
        )
    ]
    seen = read_profiler(profile(tmp_path / "a.json", [(0, 10), (30, 40), (60, 70)], *draws))
    assert len(seen.epochs.first) == 1
    assert len(seen) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_real_profile(tmp_path: Path, workers: int) -> None:
    """Of a real profile, each batch has its wait and its step, and each epoch its batches."""
    torch = pytest.importorskip("torch")
    from torch.profiler import ProfilerActivity, profile
    from torch.utils.data import DataLoader

    waits, clock = [], __import__("time").perf_counter
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(2):
            iterator = iter(DataLoader(list(range(12)), batch_size=3, num_workers=workers))
            while True:
                began = clock()
                batch = next(iterator, None)
                if batch is None:
                    break
                waits.append(clock() - began)
                torch.mm(torch.ones(50, 50), torch.ones(50, 50))
            del iterator
    path = tmp_path / "profile.json"
    profiler.export_chrome_trace(str(path))
    seen = read_profiler(path)
    assert len(seen) == len(waits) == 8
    assert seen.epochs.first.tolist() == [0, 4]
    assert np.all(metrics.waits(seen) <= waits)  # ours go around torch's
    assert np.all(metrics.steps(seen) > 0)
    assert np.isnan(seen.sent).all()
    assert seen.meta.engine == "torch.profiler"


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`run --trace` writes a file that `compare` takes; another name is refused before."""
    scenario, path = tmp_path / "a.toml", tmp_path / "run.json.gz"
    scenario.write_text(SMALL)
    assert main(["run", str(scenario), "--trace", str(path)]) == 0
    capsys.readouterr()
    assert main(["compare", str(scenario), str(path)]) == 0
    out = capsys.readouterr().out
    (wait,) = (line.split() for line in out.splitlines() if line.startswith("wait_mean"))
    assert wait[-1] == "="
    assert "A profile tells waits and steps" in out
    assert main(["run", str(scenario), "--trace", str(tmp_path / "run.txt")]) == 2
    assert "expected a name ending in .json" in capsys.readouterr().err
