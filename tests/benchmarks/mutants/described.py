"""Files that describe something: scenarios, pipelines, catalogues of machines."""

from __future__ import annotations

import copy
import random
from datetime import date
from pathlib import Path
from typing import Any

from dlsim.scenario.catalogue import Catalogue, Instance
from dlsim.scenario.pipeline import LINKS, Pipeline
from tests.benchmarks.mutants.trees import Case, Known, changed, scenario_keys, write

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
STREAMED: dict[str, Any] = {
    "kind": "iterable",
    "length": 40,
    "shards": [10, 20, 10],
    "fetch": [{"name": "read", "read_bytes": "10 KiB"}],
}
VALIDATION: dict[str, Any] = {
    "loader": {"batch_size": 4, "num_workers": 1, "persistent_workers": True},
    "dataset": {"kind": "map", "length": 10, "fetch": [{"name": "read", "cpu": "2 ms"}]},
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
    ("dataset", {**STREAMED, "download": {"shards": 2}}),
    ("dataset", {**STREAMED, "download": {"samples": 8, "at_once": 2, "cache": "600 KiB"}}),
    ("machine", {"cores": 1, "siblings": 0.6, "switch_interval": "5 ms", "crosstalk": "2%"}),
    ("costs", {"worker_waits": ["0 s", "20 ms"], "first_cpu": "30 ms", "first_sample": "1 ms"}),
    ("costs", {"pin": {"byte": "1 ns"}, "hand_over": {"tensor": "0.1 ms"}, "snapshot": "1 ms"}),
    ("validation", VALIDATION),
    ("validation", {**VALIDATION, "every": 3, "stop_after": 1, "step": "5 ms"}),
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
    ["run", "--engine", "compiled", "--max-stall", "5%", "--check"],
    ["run", "--engine", "simpy"],
    ["explain", "--max-stall", "5%", "--check"],
    ["compare", "--loader.prefetch-factor", "1", "--plot", "{folder}/c.png", "--max-stall", "5%"],
    ["advise", "--max-wait-p95", "10 ms", "--max-memory", "1 GB", "--plot", "{folder}/a.png"],
    ["advise", "--min-au", "90%", "--batch-sizes", "4,8", "--max-workers", "4"],
    ["advise", "--max-epoch", "1 s", "--check"],
    ["sweep", "--vary", "loader.num_workers=0:4", "--vary", "loader.prefetch_factor=1:3", "--jobs",
     "1", "--design", "sobol", "--samples", "4", "--max-stall", "5%", "--check"],
    ["sweep", "--vary", "loader.like=torch,accelerate-1.15", "--jobs", "1", "--metric", "wait_p95",
     "--plot", "{folder}/s.png"],
    ["sweep", "--vary", "job.ranks=1,2", "--jobs", "1", "--out", "{folder}/s.csv"],
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
REGION: dict[str, Any] = {
    "like": "spdl-0.8",
    "length": 30,
    "step": "5 ms",
    "links": [
        {
            "kind": "region",
            "workers": 2,
            "links": [
                {"kind": "pipe", "stage": STAGE, "concurrency": 2},
                {"kind": "pipe", "stage": {"name": "crop", "cpu": "1 ms", "lock": 1}},
            ],
        },
        {"kind": "aggregate", "size": 4},
    ],
    "machine": {"cores": 2, "siblings": 0.6},
}
GRAIN: dict[str, Any] = {
    "like": "grain-0.2",
    "length": 30,
    "source": {"name": "read", "wait": "1 ms"},
    "step": "10 ms",
    "links": [
        {"kind": "batch", "batch_size": 2, "drop_last": False},
        {"kind": "read", "stage": STAGE, "num_threads": 3, "prefetch_buffer_size": 4},
        {"kind": "apply", "stage": {"name": "crop", "cpu": "1 ms"}},
        {"kind": "workers", "num_workers": 2, "buffer_size": 2},
    ],
    "machine": {"cores": 2, "switch_interval": "5 ms"},
}
PIPELINES = (SPDL, REGION, NODES, GRAIN)
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
    tree, path = changed(rng, sound, scenario_keys()), folder / "case.toml"
    write(tree, path)
    return filled(rng.choice(COMMANDS), path, folder), tree


def pipeline_keys(links: Any, place: str = "links") -> Known:
    """The keys of a pipeline with such links; those that scenarios have, too, with sound values."""
    scenario = scenario_keys()
    known = {key: values for key, values in scenario.items() if key.startswith("machine.")}
    known |= {name: [] for name in Pipeline.__struct_fields__}
    tags = {kind.__struct_config__.tag: kind for kinds in LINKS.values() for kind in kinds}
    stage = {
        key.removeprefix("dataset.fetch.0."): values
        for key, values in scenario.items()
        if key.startswith("dataset.fetch.0.")
    }
    for at, link in enumerate(links):
        names = tags[link["kind"]].__struct_fields__
        known |= {f"{place}.{at}.{name}": [] for name in names}
        known |= {f"{place}.{at}.stage.{name}": stage[name] for name in stage if "stage" in names}
        if "links" in link:
            known |= pipeline_keys(link["links"], f"{place}.{at}.links")
    return known


def pipeline_case(rng: random.Random, folder: Path) -> Case:
    """A changed pipeline of SPDL's, torchdata.nodes' or grain's."""
    sound = rng.choice(PIPELINES)
    tree, path = changed(rng, sound, pipeline_keys(sound["links"])), folder / "case.toml"
    write(tree, path)
    return ["pipeline", str(path)], tree


def machines_case(rng: random.Random, folder: Path) -> Case:
    """A training on machines of one's own, of which something is changed."""
    names = [f"machine.0.{key}" for key in Instance.__struct_fields__]
    tree = changed(rng, MACHINES, dict.fromkeys([*Catalogue.__struct_fields__, *names], ()))
    path = folder / "case.toml"
    write(tree, path)
    more = [word for words in rng.sample(RENTED, rng.randrange(3)) for word in words]
    training = folder / rng.choice(["sound.toml", "training.toml"])
    words = ["--machines", str(path), "--only", "mine*", *more]
    return filled(["rent", *words], training, folder), tree
