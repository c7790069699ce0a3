from __future__ import annotations

import tomllib
from typing import Any

import pytest

import dlsim
from dlsim.scenario import from_tree, schema
from dlsim.scenario.keys import EACH, Key, described, texts
from tests.scenario.test_scenario import accepts

WORKERS = {"batch_size": 4, "num_workers": 2}
MAP = {"kind": "map", "length": 64, "fetch": [{"name": "read"}]}
FILES = {**MAP, "kind": "iterable", "shards": [32, 32]}
# Scenarios that an example may belong to: not every key fits every other.
BASES: list[dict[str, Any]] = [
    {"loader": WORKERS, "dataset": MAP},
    {"loader": {"num_workers": 2}, "dataset": MAP},
    {"loader": {"num_workers": 2, "dispatch": "shared"}, "dataset": MAP},
    {"loader": WORKERS, "dataset": {**MAP, "kind": "iterable"}},
    {"loader": WORKERS, "dataset": FILES},
    {"loader": WORKERS, "dataset": {**FILES, "download": {"shards": 1}}},
    {"loader": {**WORKERS, "stateful": True}, "dataset": MAP},
    {"loader": WORKERS, "dataset": MAP, "consumer": {"device": "cpu"}},
    {"loader": WORKERS, "dataset": MAP, "consumer": {"loop": "thread"}},
    {"loader": WORKERS, "dataset": MAP, "consumer": {"on": [{"accelerator": "H100"}]}},
    {"loader": WORKERS, "dataset": MAP, "failures": [{"where": "fetch", "at": 1}]},
    {"loader": WORKERS, "dataset": MAP, "job": {"ranks": 4, "differs": [{"rank": 0}]}},
    {"loader": WORKERS, "dataset": MAP, "job": {"nodes": 4, "differs": [{"node": 0}]}},
]
BESIDE = [
    {**BASES[0], "validation": {"failures": [{"where": "fetch", "at": 1}], **base}}
    for base in ({key: tree[key] for key in ("loader", "dataset")} for tree in BASES)
    if "download" not in base["dataset"]
]
BASES += BESIDE


def examples(key: Key) -> list[dict[str, Any]]:
    """Scenarios with the example of a key in place."""
    value = tomllib.loads(f"value = {key.example}")["value"]
    path = ["consumer", "step"] if key.of_distribution else key.name.split(".")
    return [placed(base, path, value) for base in BASES]


def placed(tree: Any, path: list[str], value: Any) -> Any:
    """The tree with a value at a path; `EACH` is the first element of a list."""
    if not path:
        return {**tree, **value} if isinstance(tree, dict) and isinstance(value, dict) else value
    first, *rest = path
    if first == EACH:
        return [placed((tree or [{}])[0], rest, value)]
    return {**(tree or {}), first: placed((tree or {}).get(first), rest, value)}


def loads(tree: dict[str, Any]) -> bool:
    """Whether a tree makes a scenario."""
    try:
        from_tree(tree)
    except dlsim.ScenarioError:
        return False
    return True


@pytest.mark.parametrize("key", described(), ids=lambda key: key.name)
def test_every_key_is_explained(key: Key) -> None:
    """Every key says what it means and what it takes, and its example makes a scenario."""
    assert key.meaning.endswith(".")
    assert key.takes
    if key.name.startswith("validation.dataset.download"):
        return  # which is training's alone
    loaded = [tree for tree in examples(key) if loads(tree)]
    assert loaded, key.example
    whole = schema()
    assert all(accepts(whole, whole, tree) for tree in loaded)


@pytest.mark.parametrize(
    "holder",
    sorted(
        {holder for key in described() for holder in key.holders}, key=lambda each: each.__name__
    ),
    ids=lambda each: each.__name__,
)
def test_no_text_is_left_over(holder: type) -> None:
    """What docstrings describe are keys, so that a text does not outlive its key."""
    assert texts(holder).keys() <= {*holder.__struct_fields__}  # type: ignore[attr-defined]


def test_schema_has_the_same_texts() -> None:
    """The JSON Schema describes each key in the words of its class."""
    parts = schema()["$defs"]
    for key in described():
        for holder in key.holders:
            assert parts[holder.__name__]["properties"][key.last]["description"] == key.meaning
    assert "Args" not in str(parts)


def test_defaults_are_the_defaults() -> None:
    """A default that is shown is what a scenario has that does not say."""
    scenario = from_tree(BESIDE[0])
    shown = {key.name: key for key in described() if key.default and EACH not in key.name}
    assert shown["loader.prefetch_factor"].default == "none"
    for name, key in shown.items():
        part = name.removeprefix("validation.")
        if key.of_distribution or part in ("loader.batch_size", "loader.num_workers"):
            continue
        files = ("sharding", "shards", "dealt", "download")
        if part.startswith(("dataset.fetch", *(f"dataset.{key}" for key in files))):
            continue  # the base has stages, and no shards
        if name in ("validation", "validation.failures"):
            continue  # it has these
        value = tomllib.loads(f"value = {key.default}" if key.default != "none" else "value='none'")
        assert dlsim.replace(scenario, {name: value["value"]}) == scenario
