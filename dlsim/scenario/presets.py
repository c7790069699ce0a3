"""Loaders and frameworks by name: each is a combination of dispatch, workers and loop.

`loader.like = "accelerate-1.15"` in a file, `--loader.like accelerate-1.15` on the command line
and `dlsim.replace(scenario, {"loader.like": "accelerate-1.15"})` stand for the keys listed here.
What a combination does not name is as torch has it, unless it is given besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dlsim.scenario.errors import ScenarioError, shown

LIKE = "loader.like"
MEANING = (
    "Another loader or framework by name and version, in place of other keys: workers, dispatch, "
    "refill, slots, in_order, endless, start_together and stateful of the loader, and the loop of "
    "the consumer. A key that is given besides counts."
)
# What is torch's own, and what others change.
TORCH: dict[str, Any] = {
    "loader.workers": "processes",
    "loader.dispatch": "turns",
    "loader.refill": "return",
    "loader.slots": "none",
    "loader.start_together": 1,
    "loader.in_order": True,
    "loader.endless": False,
    "loader.stateful": False,
    "loader.snapshot_every_n_steps": 1,
    "loader.resume": 0,
    "consumer.loop": "plain",
    "consumer.queue": 1,
}
PRESETS: dict[str, dict[str, Any]] = {
    "torch": {},
    "accelerate-1.15": {"consumer.loop": "accelerate"},
    "lightning-2.6": {"consumer.loop": "lightning"},
    "prefetch_generator-1.0": {"consumer.loop": "thread"},
    "monai.ThreadDataLoader-1.6": {"consumer.loop": "thread"},
    "timm.MultiEpochsDataLoader-1.0": {"loader.endless": True},
    "ultralytics.InfiniteDataLoader-8": {"loader.endless": True},
    "torchdata.StatefulDataLoader-0.11": {"loader.stateful": True},
    "torchdata.nodes-0.11": {"loader.workers": "threads", "loader.dispatch": "shared"},
    "spdl.DataLoader-0.8": {
        "loader.workers": "threads",
        "loader.dispatch": "shared",
        "loader.refill": "arrival",
        "loader.in_order": False,
    },
}


def preset(name: object) -> dict[str, Any]:
    """The keys that a name stands for. Raises `ScenarioError` for one that is not known."""
    if not isinstance(name, str) or name not in PRESETS:
        raise ScenarioError(f"{LIKE}: expected one of {', '.join(PRESETS)}, got {shown(name)}")
    return PRESETS[name]


def named(values: Callable[[str], object]) -> str | None:
    """The first name that stands for what `values` says of each key, or None."""
    found = {key: values(key) for key in TORCH}
    for name, keys in PRESETS.items():
        wanted = {**TORCH, **keys}
        if all(found[key] == (None if wanted[key] == "none" else wanted[key]) for key in TORCH):
            return name
    return None


def spelt_out(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """A file's tree with the keys that `loader.like` stands for, where they are not given."""
    loader = tree.get("loader")
    if not isinstance(loader, Mapping) or "like" not in loader:
        return tree
    found = dict(tree) | {"loader": {key: loader[key] for key in loader if key != "like"}}
    for key, value in preset(loader["like"]).items():
        part, _, last = key.partition(".")
        given = found.get(part, {})
        if isinstance(given, Mapping):
            found[part] = {last: value, **given}
    return found


def changes_of(changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Changes of a scenario, with the keys that `loader.like` stands for in its place."""
    if LIKE not in changes:
        return changes
    others = {key: value for key, value in changes.items() if key != LIKE}
    return {**TORCH, **preset(changes[LIKE]), **others}
