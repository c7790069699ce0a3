"""Files that describe something: scenarios, pipelines, catalogues of machines."""

from __future__ import annotations

import copy
import random
from datetime import date
from pathlib import Path
from typing import Any

from dlsim.scenario.catalogue import Catalogue, Instance
from dlsim.scenario.pipeline import Pipeline
from dlsim.scenario.tree import keys
from tests.benchmarks.mutants.trees import Case, changed, write

BASE: dict[str, Any] = {
    "loader": {"batch_size": 4, "num_workers": 2},
    "dataset": {
        "kind": "map",
        "length": 40,
        "fetch": [{"name": "read", "wait": {"kind": "gamma", "mean": "5 ms", "cv": 0.5}}],
        "sample_bytes": "100 KiB",
    },
    "consumer": {"step": "10 ms"},
}
MORE: tuple[tuple[str, Any], ...] = (
    ("epochs", 2),
    ("machine", {"cores": 2, "shm": "64 MiB", "storage": {"bandwidth": "1 GB"}}),
    ("costs", {"worker_start": "10 ms", "receive": {"message": "1 ms"}}),
    ("loader", {"batch_size": 4, "num_workers": 2, "persistent_workers": True}),
    ("loader", {"batch_size": 4, "num_workers": 2, "timeout": 0.004}),
    ("loader", {"batch_size": 4}),
    ("failures", [{"where": "fetch", "at": 11}]),
    ("dataset", {"kind": "iterable", "length": 40, "sharding": "none"}),
    ("dataset", {"kind": "iterable", "length": 40, "sharding": [10, 30]}),
    ("dataset", {"kind": "iterable", "length": 40, "sharding": "litdata"}),
    ("torch", "2.6"),
    ("job", {"ranks": 2}),
    ("job", {"ranks": 2, "nodes": 2, "sync": "epoch", "differs": [{"rank": 1, "loader": 2}]}),
    ("job", {"ranks": 2, "nodes": 2, "storage": {"bandwidth": "1 GB"}}),
    ("loader", {"batch_size": 4, "num_workers": 2, "endless": True}),
    ("loader", {"batch_size": 4, "num_workers": 2, "stateful": True}),
    ("loader", {"batch_size": 4, "num_workers": 2, "workers": "threads"}),
    ("loader", {"batch_size": 4, "num_workers": 2, "in_order": False}),
    ("consumer", {"step": "10 ms", "loop": "lightning"}),
    ("consumer", {"step": "10 ms", "stop_after": 3, "on_error": "continue"}),
    ("consumer", {"step": "1 ms", "on": [{"accelerator": "A100", "step": "5 ms"}]}),
)
COMMANDS = (
    ["run"],
    ["run", "--plot", "{folder}/run.png"],
    ["run", "-v", "--trace", "{folder}/r.json", "-o", "{folder}/r.npz", "--csv", "{folder}/r.csv"],
    ["explain"],
    ["sweep", "--vary", "loader.num_workers=1:3", "--jobs", "1"],
    ["compare", "--loader.num-workers", "3"],
    ["advise", "--max-stall", "5%"],
    ["advise"],
    ["loaders", "--replications", "2"],
    ["report", "--html", "{folder}/report.html"],
    ["compare", "{scenario}", "{folder}/sound.toml"],
    ["explain", "--plot", "{folder}/explain.png"],
    ["new", "{folder}/made.toml", "--from", "{scenario}", "--epochs", "2"],
    ["rent", "--only", "p4d*"],
    ["run", "--profiles", "{folder}/profiles", "--trace", "{folder}/r.json.gz"],
    ["sweep", "--vary", "loader.prefetch_factor=1,2", "--plot", "{folder}/s.png", "--jobs", "1"],
    ["teach"],
    ["teach", "--html", "{folder}/lesson.html"],
)  # fmt: skip
STAGE = {"name": "decode", "wait": "2 ms", "cpu": {"kind": "exponential", "mean": "3 ms"}}
SPDL: dict[str, Any] = {
    "like": "spdl-0.8",
    "length": 30,
    "num_threads": 3,
    "buffer_size": 2,
    "step": "10 ms",
    "links": [
        {"kind": "pipe", "stage": STAGE, "concurrency": 2, "output_order": "input", "threads": 2},
        {"kind": "aggregate", "size": 4, "drop_last": True},
    ],
}
NODES: dict[str, Any] = {
    "like": "torchdata.nodes-0.11",
    "length": 30,
    "source": {"name": "read", "wait": "1 ms"},
    "stop_after": 5,
    "links": [
        {"kind": "map", "stage": {**STAGE, "lock": 0.5}, "num_workers": 2, "prebatch": 2},
        {"kind": "batch", "batch_size": 4},
        {"kind": "prefetch", "prefetch_factor": 2},
        {"kind": "unbatch"},
    ],
    "machine": {"cores": 2},
}
MACHINES: dict[str, Any] = {
    "currency": "USD",
    "machine": [
        {
            "name": "mine",
            "accelerator": "A100-40GB",
            "accelerators": 2,
            "vcpus": 8,
            "memory": "64 GiB",
            "shm": "1 GiB",
            "disk": "1 TB",
            "disk_bandwidth": "2 GB/s",
            "network": "10 Gbit/s",
            "price_per_hour": 3.5,
            "source": "page",
        },
        {"name": "mine, too", "cores": 4, "price_per_hour": 1, "step": "5 ms", "loading": 1.5},
    ],
    "sources": {"page": {"page": "https://example.org", "date": date(2026, 1, 1)}},
}
RENTED = (
    ["--price", "mine=2"],
    ["--max-epoch", "1 s"],
    ["--max-stall", "5%"],
    ["--plot", "{folder}/rent.png"],
    ["--job.nodes", "2"],
    ["--check"],
    ["--dataset.length", "0"],
    ["--loader.timeout", "0.001"],
    ["--failures", '[{ where = "fetch", at = 3 }]'],
    ["--consumer.step", "0"],
)


def filled(command: list[str], path: Path, folder: Path) -> list[str]:
    """The words of a command on the scenario at `path`, by default its first argument."""
    name, *words = command
    words = words if "{scenario}" in words else ["{scenario}", *words]
    named = {"{folder}": str(folder), "{scenario}": str(path)}
    for mark, stands_for in named.items():
        words = [word.replace(mark, stands_for) for word in words]
    return [name, *words]


def scenario_case(rng: random.Random, folder: Path) -> Case:
    """A command on a changed scenario."""
    sound = copy.deepcopy(BASE)
    for key, value in rng.sample(MORE, rng.randrange(3)):
        sound[key] = value
    tree, path = changed(rng, sound, keys()), folder / "case.toml"
    write(tree, path)
    return filled(rng.choice(COMMANDS), path, folder), tree


def pipeline_case(rng: random.Random, folder: Path) -> Case:
    """A changed pipeline of SPDL's or torchdata.nodes'."""
    known = [*Pipeline.__struct_fields__, *(key for key in keys() if key.startswith("machine."))]
    tree, path = changed(rng, rng.choice([SPDL, NODES]), known), folder / "case.toml"
    write(tree, path)
    return ["pipeline", str(path)], tree


def machines_case(rng: random.Random, folder: Path) -> Case:
    """A training on machines of one's own, of which something is changed."""
    known = [f"machine.{key}" for key in Instance.__struct_fields__]
    tree = changed(rng, MACHINES, [*Catalogue.__struct_fields__, *known])
    path = folder / "case.toml"
    write(tree, path)
    more = [word for words in rng.sample(RENTED, rng.randrange(3)) for word in words]
    training = folder / rng.choice(["sound.toml", "training.toml"])
    words = ["--machines", str(path), "--only", "mine*", *more]
    return filled(["rent", *words], training, folder), tree
