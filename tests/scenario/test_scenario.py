from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlsim
from dlsim.scenario import (
    Distribution,
    Scenario,
    ScenarioError,
    dumps,
    from_tree,
    get,
    to_tree,
    units,
)
from tests.strategies import distributions, scenarios

SMALL = Scenario(
    loader=dlsim.Loader(batch_size=3, num_workers=2),
    dataset=dlsim.MapDataset(24, fetch=[dlsim.Stage("read", wait=dlsim.Constant(1.0))]),
    consumer=dlsim.Consumer(step=dlsim.Gamma(0.5, 0.1)),
)
STREAM = Scenario(loader=dlsim.Loader(num_workers=2), dataset=dlsim.IterableDataset(24))


@given(scenarios(torch_only=False))
def test_dump_and_load(scenario: Scenario) -> None:
    """Every scenario that is dumped is loaded as an equal value."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scenario.toml"
        dlsim.dump(scenario, path)
        assert dlsim.load(path) == scenario


@settings(max_examples=40)
@given(scenarios(torch_only=False))
def test_scenarios_are_values(scenario: Scenario) -> None:
    """Equal scenarios have equal hashes, and changing nothing gives an equal one."""
    same = dlsim.replace(scenario, {})
    assert same == scenario
    assert hash(same) == hash(scenario)


@settings(max_examples=40)
@given(scenarios(torch_only=False))
def test_schema_accepts_what_is_dumped(scenario: Scenario) -> None:
    """The JSON Schema accepts every file that `dump` writes."""
    schema = dlsim.schema()
    assert accepts(schema, schema, to_tree(scenario))


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"loader": {}, "dataset": {"kind": "map"}},
        {"loader": {"batch": 3}, "dataset": {"kind": "map", "length": 1}},
        {"loader": {"num_workers": "two"}, "dataset": {"kind": "map", "length": 1}},
    ],
)
def test_schema_refuses_wrong_files(tree: dict[str, Any]) -> None:
    """The JSON Schema refuses missing keys, unknown keys and wrong types, as loading does."""
    schema = dlsim.schema()
    assert not accepts(schema, schema, tree)
    with pytest.raises(ScenarioError):
        from_tree(tree)


def accepts(schema: dict[str, Any], node: dict[str, Any], value: Any) -> bool:
    """Whether a JSON Schema accepts a value, for the few keywords that ours uses."""
    if "$ref" in node:
        target: Any = schema
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return accepts(schema, target, value)
    if "anyOf" in node:
        return any(accepts(schema, option, value) for option in node["anyOf"])
    if "const" in node:
        return bool(value == node["const"])
    if "enum" in node:
        return value in node["enum"]
    kinds = node.get("type", [])
    if not any(_is(kind, value) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        return not kinds
    if isinstance(value, dict):
        known = node.get("properties", {})
        return (
            set(node.get("required", [])) <= value.keys()
            and (
                node.get("additionalProperties", True) is not False or value.keys() <= known.keys()
            )
            and all(accepts(schema, known[key], item) for key, item in value.items())
        )
    if isinstance(value, list):
        return all(accepts(schema, node["items"], item) for item in value)
    return True


def _is(kind: str, value: Any) -> bool:
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, types.get(kind, (int, float)))


@pytest.mark.parametrize(
    ("key", "given_value", "value"),
    [
        ("loader.num_workers", 16, 16),
        ("loader.prefetch_factor", None, None),
        ("loader.prefetch_factor", "none", None),
        ("loader.sampler", [3, 1], (3, 1)),
        ("loader.timeout", "2 min", 120.0),
        ("consumer.step", dlsim.Constant(2.0), dlsim.Constant(2.0)),
        ("consumer.step", 2, dlsim.Constant(2.0)),
        ("consumer.step", "6.1 ms", dlsim.Constant(0.0061)),
        ("consumer.step.mean", "6.1 ms", 0.0061),
        ("dataset.fetch.0.cpu", {"kind": "gamma", "mean": 1, "cv": 2}, dlsim.Gamma(1, 2)),
        ("dataset.fetch", [dlsim.Stage("x")], (dlsim.Stage("x"),)),
        ("dataset.sample_bytes", "110 KiB", dlsim.Constant(112640.0)),
        ("dataset", dlsim.MapDataset(3), dlsim.MapDataset(3)),
        ("costs.index_latency", "1 us", 1e-6),
        ("torch", "2.6", "2.6"),
        ("name", "x", "x"),
    ],
)
def test_replace(key: str, given_value: object, value: object) -> None:
    """Any key can be changed, by a value of its own type or what a file would say."""
    changed = dlsim.replace(SMALL, {key: given_value})
    assert get(changed, key) == value


def test_changes_are_made_together() -> None:
    """Changes that only make sense together are checked together."""
    with pytest.raises(ScenarioError, match="prefetch_factor: needs num_workers"):
        dlsim.replace(SMALL, {"loader.num_workers": 0, "loader.prefetch_factor": 4})
    alone = dlsim.replace(SMALL, {"loader.num_workers": 0})
    both = dlsim.replace(alone, {"loader.prefetch_factor": 4, "loader.num_workers": 2})
    assert both.loader.window == 8


def test_what_is_not_changed_is_shared() -> None:
    """Long records, which many configurations have in common, are kept once."""
    changed = dlsim.replace(SMALL, {"loader.num_workers": 3})
    assert changed.dataset is SMALL.dataset
    assert changed.consumer is SMALL.consumer


@pytest.mark.parametrize(
    ("text", "quantity", "number"),
    [
        ("6.1 ms", "duration", 0.0061),
        ("6.1ms", "duration", 0.0061),
        (" 250 us ", "duration", 0.00025),
        ("250 µs", "duration", 0.00025),
        ("3 ns", "duration", 3e-9),
        ("1.5", "duration", 1.5),
        (".5 s", "duration", 0.5),
        ("1e-3 s", "duration", 0.001),
        ("2 min", "duration", 120.0),
        ("1 h", "duration", 3600.0),
        ("110 KiB", "size", 112640.0),
        ("146.6 MB", "size", 146_600_000.0),
        ("1.5 GiB", "size", 1.5 * 2**30),
        ("12", "size", 12.0),
        ("1.5h", "duration", 5400.0),
        ("1 d", "duration", 86400.0),
        ("2 GB/s", "bandwidth", 2e9),
        ("2 GB", "bandwidth", 2e9),
        ("10 Gbit/s", "bandwidth", 1.25e9),
        ("5%", "share", 0.05),
        ("12.5 %", "share", 0.125),
        ("0.05", "share", 0.05),
        ("500 samples/s", "throughput", 500.0),
    ],
)
def test_units(text: str, quantity: str, number: float) -> None:
    """Durations and sizes with units are the floats nearest to what they say."""
    assert units.parse(text, quantity) == number


@pytest.mark.parametrize("text", ["", "ms", "-1 s", "1 parsec", "1 MB s", "nan", "1,5 s", "0x1 s"])
def test_no_units(text: str) -> None:
    """What states no duration is refused."""
    with pytest.raises(ValueError, match="expected a duration such as"):
        units.parse(text, "duration")


def test_what_is_not_known_is_a_dash() -> None:
    """Neither of durations nor of sizes is it said that they are no number."""
    assert (units.duration(math.nan), units.size(math.nan)) == ("-", "-")


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (units.size(1010 * 2**20), "1,010 MiB"),
        (units.size(2000 * 2**40), "2,000 TiB"),
        (units.size(999 * 2**10), "999 KiB"),
        (units.size(1023.6 * 2**20), "1 GiB"),
        (units.duration(4.32e6), "1,200 h"),
        (units.duration(7000.4), "7,000 s"),
    ],
)
def test_no_power_of_ten_has_to_be_read(shown: str, text: str) -> None:
    """Sizes and times have all their digits before the point, up to the next larger unit."""
    assert shown == text


@given(st.floats(1e-6, 1e5))
def test_durations_as_people_write_them(seconds: float) -> None:
    """A duration shown is a duration that can be read, the same to three digits."""
    assert units.parse(units.duration(seconds).replace(",", ""), "duration") == pytest.approx(
        seconds, rel=5.1e-3
    )


@pytest.mark.parametrize(
    ("scenario", "changes", "message"),
    [
        (SMALL, {"loader.num_worker": 1}, "loader.num_worker: no such key; did you mean num_work"),
        (
            SMALL,
            {"lodaer.num_workers": 1},
            "lodaer: no such key; did you mean loader? known here: c",
        ),
        (SMALL, {"loader.num_workers": "2"}, "loader.num_workers: expected an integer, got '2'"),
        (SMALL, {"loader.num_workers": 2.5}, "loader.num_workers: expected an integer, got 2.5"),
        (SMALL, {"loader.num_workers": True}, "loader.num_workers: expected an integer, got True"),
        (SMALL, {"loader.num_workers": -1}, "loader.num_workers: expected an integer of at least"),
        (SMALL, {"loader.batch_size": 0}, "loader.batch_size: expected an integer from 1 to 2,147"),
        (SMALL, {"loader.shuffle": 1}, "loader.shuffle: expected true or false, got 1"),
        (SMALL, {"loader.timeout": -1}, "loader.timeout: expected seconds, at least 0, got -1"),
        (SMALL, {"loader.timeout": math.inf}, "loader.timeout: expected seconds, at least 0, got"),
        (SMALL, {"loader.sampler": [24]}, "loader.sampler: expected dataset indices from 0 to 23"),
        (SMALL, {"loader.sampler": [-1]}, "loader.sampler: expected dataset indices from 0 to 23"),
        (SMALL, {"loader.multiprocessing_context": "thread"}, "loader.multiprocessing_context: "),
        (SMALL, {"dataset.length": -1}, "dataset.length: expected an integer of at least 0, got -"),
        (SMALL, {"dataset.kind": "list"}, "dataset.kind: expected one of map, iterable, got 'list"),
        (SMALL, {"dataset.fetch.0.name": ""}, "dataset.fetch.0.name: expected some text in one "),
        (SMALL, {"name": "a\x1b[2J"}, r"name: expected some text in one line, got 'a\x1b[2J'"),
        (SMALL, {"dataset.fetch.0.wait": "1 m"}, "dataset.fetch.0.wait: expected a duration such"),
        (SMALL, {"dataset.fetch.1.wait": 1}, "dataset.fetch.1.wait: expected a number below 1, g"),
        (SMALL, {"dataset.fetch.0.wait": -1}, "expected a number of at least 0, got -1"),
        (SMALL, {"dataset.fetch.0.wait": math.nan}, "expected a number of at least 0, got nan"),
        (SMALL, {"consumer.step.mean": math.inf}, "consumer.step.mean: expected a number of at le"),
        (SMALL, {"consumer.step.cv": 0}, "consumer.step.cv: expected a number above 0, got 0"),
        (SMALL, {"consumer.step.kind": "normal"}, "consumer.step.kind: expected one of constant,"),
        (SMALL, {"consumer.step": {"mean": 1}}, "consumer.step.kind: expected one of constant, "),
        (SMALL, {"consumer.step.mean": 1e300}, "consumer.step.mean: expected a number of at most"),
        (SMALL, {"consumer.step.cv": 1e-200}, "consumer.step.cv: expected a number of at least 1"),
        (SMALL, {"machine.cores": 1e-300}, "machine.cores: expected a number of at least 1e-15,"),
        (SMALL, {"dataset.length": 10**22}, "dataset.length: expected a number of at most 1e+15"),
        (SMALL, {"loader.batch_size": 10**22}, "loader.batch_size: expected a number of at most "),
        (SMALL, {"loader.batch_size": "None"}, "expected an integer or \"none\", got 'None'"),
        (SMALL, {"loader.num_workers": 10**8}, "loader.num_workers: expected a window (num_worke"),
        (SMALL, {"loader.prefetch_factor": 10**9}, "of at most 1,000,000, got 2,000,000,000"),
        (SMALL, {"consumer.stop_after": 0}, "consumer.stop_after: expected an integer of at least"),
        (SMALL, {"dataset.sample_bytes": "3 s"}, "dataset.sample_bytes: expected a size such as 1"),
        (SMALL, {"torch": "two"}, "torch: expected a release such as \"2.15\", got 'two'"),
        (SMALL, {"torch": 2.13}, "torch: expected text, got 2.13"),
        (SMALL, {"torch": "1.11"}, "torch: expected a release from 1.12 to 2.15, whose rules a"),
        (SMALL, {"torch": "1.14"}, "torch: expected a release from 1.12 to 2.15, whose rules a"),
        (SMALL, {"torch": "2.20"}, "are known, got '2.20'"),
        (SMALL, {"torch": "3.0"}, "are known, got '3.0'"),
        (SMALL, {"machine.storage.bandwidth": "2 GB/h"}, "expected a bandwidth such as 2e9 or"),
        (SMALL, {"machine.contention": "5 percent"}, "machine.contention: expected a share such "),
        (SMALL, {"loader.timeout": "1e99999999999999999999 s"}, "expected a duration of a sensib"),
        (SMALL, {"policy": "lifo"}, "policy: "),
        (SMALL, {"epochs": 0}, "epochs: expected an integer of at least 1, got 0"),
        (SMALL, {"torch": "2.5", "loader.in_order": False}, "loader.in_order: torch 2.5 has no su"),
        (STREAM, {"loader.shuffle": True}, "loader.shuffle: expected nothing: an iterable-style d"),
        (STREAM, {"dataset.sharding": [1]}, "dataset.sharding: expected 2 lengths, one for each w"),
        (STREAM, {"dataset.sharding": [1, 2**63]}, "dataset.sharding: expected none, split, litd"),
        (STREAM, {"dataset.shards": [1, 2**63]}, "dataset.shards: expected a list of integers of"),
        (STREAM, {"dataset.sharding": "by id"}, "dataset.sharding: "),
        (
            STREAM,
            {"dataset.sharding": []},
            "dataset.sharding: expected none, split, litdata, str",
        ),
        (
            SMALL,
            {"dataset.fetch.0.wait": dlsim.Recorded([1.0] * 23)},
            "dataset.fetch.0.wait: expected 24 values, one for each dataset index, got",
        ),
        (
            SMALL,
            {"consumer.step": {"kind": "empirical", "values": []}},
            "consumer.step.values: expected a list of at least one number, got",
        ),
        (
            SMALL,
            {"consumer.step": {"kind": "empirical", "values": [1, -2.0]}},
            "consumer.step.values: expected finite numbers of at least 0, got -2.0",
        ),
        (
            SMALL,
            {"consumer.step": {"kind": "mixture", "parts": [1, 2], "weights": [1]}},
            "consumer.step.weights: expected 2 numbers of at least 0, one for each part",
        ),
        (
            SMALL,
            {"consumer.step": {"kind": "pareto", "scale": 1, "shape": 1}},
            "consumer.step.shape: expected a number above 1 (else the mean is infinite), got 1",
        ),
        (
            SMALL,
            {"failures": [{"where": "init", "at": 1}]},
            "failures.0.where: ",
        ),
    ],
)
def test_errors_say_what_is_wrong(
    scenario: Scenario, changes: dict[str, Any], message: str
) -> None:
    """A message names the key, what was expected and what was given, in one line."""
    with pytest.raises(ScenarioError) as caught:
        dlsim.replace(scenario, changes)
    said = str(caught.value)
    assert message in said
    assert "\n" not in said
    assert len(said) < 300


def loaders() -> st.SearchStrategy[dict[str, Any]]:
    """Any combination of DataLoader's arguments, most of which torch refuses."""
    return st.fixed_dictionaries(
        {},
        optional={
            "batch_size": st.sampled_from([None, 0, 1, 3]),
            "shuffle": st.booleans(),
            "sampler": st.sampled_from([None, [2, 0]]),
            "batch_sampler": st.sampled_from([None, [[2, 0], [1]]]),
            "num_workers": st.integers(-1, 2),
            "drop_last": st.booleans(),
            "timeout": st.sampled_from([-1.0, 0.0, 2.0]),
            "multiprocessing_context": st.sampled_from([None, "fork", "spawn", "threads"]),
            "prefetch_factor": st.sampled_from([None, -1, 1, 4]),
            "persistent_workers": st.booleans(),
            "in_order": st.booleans(),
        },
    )


@settings(max_examples=400)
@given(loaders())
def test_loaders_are_refused_as_torch_refuses_them(arguments: dict[str, Any]) -> None:
    """A combination of arguments is an error if, and only if, it is one for torch."""
    data = pytest.importorskip("torch").utils.data
    try:
        loader = data.DataLoader(range(3), **arguments)
        if loader.num_workers == 0:
            iter(loader)  # here torch looks at the timeout
        theirs = None
    except (ValueError, AssertionError) as error:
        theirs = error
    try:
        dlsim.Scenario(loader=dlsim.Loader(**arguments), dataset=dlsim.MapDataset(3))
        ours = None
    except ScenarioError as error:
        ours = error
    assert (ours is None) == (theirs is None), (ours, theirs)


@pytest.mark.parametrize(
    ("distribution", "mean", "cv"),
    [
        (dlsim.Constant(2), 2, 0),
        (dlsim.Uniform(1, 5), 3, 4 / math.sqrt(12) / 3),
        (dlsim.Exponential(2), 2, 1),
        (dlsim.Gamma(2, 0.5), 2, 0.5),
        (dlsim.Gamma(2, 1.5), 2, 1.5),
        (dlsim.Lognormal(2, 0.5), 2, 0.5),
        (dlsim.Lognormal(2, 1.0), 2, 1.0),
        (dlsim.Pareto(1, 6), 1.2, 1 / math.sqrt(6 * 4)),
        (dlsim.Empirical([2, 3, 4]), 3, math.sqrt(2 / 3) / 3),
        (dlsim.Recorded([2, 3, 4]), 3, math.sqrt(2 / 3) / 3),
        (
            dlsim.Mixture((dlsim.Constant(1), dlsim.Constant(4)), (2, 1)),
            2,
            math.sqrt(2) / 2,
        ),
    ],
    ids=repr,
)
def test_distributions(distribution: Distribution, mean: float, cv: float) -> None:
    """Large samples have the mean and the coefficient of variation that the formulas say."""
    sample = distribution.sample(np.random.default_rng(1), 300_000)
    assert distribution.mean == pytest.approx(mean)
    assert sample.mean() == pytest.approx(mean, rel=0.01)
    assert sample.std() / sample.mean() == pytest.approx(cv, rel=0.03, abs=1e-12)


@settings(max_examples=100)
@given(distributions(5), st.integers(0, 100))
def test_samples_are_times(distribution: Distribution, size: int) -> None:
    """Samples are as many as asked for, finite and never negative, the same for the same seed."""
    one, other = (distribution.sample(np.random.default_rng(3), size) for _ in range(2))
    assert one.shape == (size,)
    assert np.isfinite(one).all()
    assert (one >= 0).all()
    assert one.tolist() == other.tolist()


def test_a_file_with_a_mark(tmp_path: Path) -> None:
    """The mark that some editors put before UTF-8 is no part of a scenario."""
    path = tmp_path / "marked.toml"
    path.write_text(dumps(SMALL), encoding="utf-8-sig")
    assert dlsim.load(path) == SMALL


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"epochs = {'9' * 5000}", "expected TOML: "),
        (f"epochs = {'[' * 5000}{']' * 5000}", "expected a scenario, got lists in lists"),
    ],
    ids=["digits", "lists"],
)
def test_what_no_parser_takes(tmp_path: Path, text: str, message: str) -> None:
    """More digits, or lists in lists, than Python takes are refused like any other mistake."""
    path = tmp_path / "odd.toml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=message):
        dlsim.load(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dlsim.Loader(batch_sampler=5), "batch_sampler: expected a list, got 5"),
        (lambda: dlsim.Loader(batch_sampler=[[1], 2]), "batch_sampler: expected lists of indices"),
        (lambda: dlsim.Mixture(dlsim.Constant(1.0), [1.0]), "parts: expected a list, got Constant"),
        (lambda: dlsim.Mixture([dlsim.Constant(1.0)], 1.0), "weights: expected a list, got 1.0"),
    ],
)
def test_what_is_no_list(make: Any, message: str) -> None:
    """A single value where a list belongs is refused as any other wrong value is."""
    with pytest.raises(ScenarioError, match=message):
        make()
