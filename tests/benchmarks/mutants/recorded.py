"""Files that record something: traces, journals of sweeps, profiles of torch.profiler."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.mutants.trees import Case

TRACES = ("sound.npz", "job.npz", "validated.npz", "observed.npz")
ODD = (None, -1, 1e300, "x", [], {}, 0, 5e-324, "enumerate(DataLoader)")


def trace_case(rng: random.Random, folder: Path) -> Case:
    """A trace: arrays of another length, type, or with values that cannot be."""
    path = folder / "case.npz"
    with np.load(folder / rng.choice(TRACES)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    name = rng.choice(list(arrays))
    array = arrays[name]
    how = rng.choice(["short", "long", "type", "value", "gone", "bytes"])
    if how == "gone":
        del arrays[name]
    elif how == "short":
        arrays[name] = array[: len(array) // 2] if array.ndim else array
    elif how == "long":
        arrays[name] = np.concatenate([array, array]) if array.ndim else array
    elif how == "type":
        with np.errstate(invalid="ignore"):  # of NaN there is no integer
            arrays[name] = array.astype(rng.choice(["f4", "i1", "U3", "c16", "?"]))
    elif array.ndim and len(array):
        if array.dtype.kind == "f":
            worst = [np.inf, -np.inf, np.nan, 1e300, -1.0]
        else:
            limits = np.iinfo(array.dtype)
            worst = [limits.max, limits.min, min(200, limits.max)]
        arrays[name] = array = array.copy()
        array[rng.randrange(len(array))] = rng.choice(worst)
    np.savez(path, **arrays)
    if how == "bytes":
        content = bytearray(path.read_bytes())
        for _ in range(rng.randrange(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(bytes(content)[: rng.randrange(1, len(content))])
    command = rng.choice(
        [
            ["compare", str(path), str(folder / "sound.npz")],
            ["compare", str(folder / "sound.npz"), str(path)],
            ["report", str(path), "--html", str(folder / "report.html")],
            ["calibrate", str(path), "-o", str(folder / "made.toml")],
            ["diagnose", str(path)],
        ]
    )
    return command, {"array": name, "how": how}


def journal_case(rng: random.Random, folder: Path) -> Case:
    """A journal: rows, with their checksums, that no sweep has written."""
    sound = (folder / "sound.csv.journal").read_text().splitlines()
    entry = json.loads(rng.choice(sound[1:]))
    row = dict(entry["row"])
    how = rng.choice(["lacks", "text", "list", "number", "nested", "null", "identity"])
    if how == "lacks":
        del row[rng.choice(list(row))]
    elif how in ("text", "null"):
        row[rng.choice(list(row))] = "x" if how == "text" else None
    number, kept = entry["number"], row
    if how == "list":
        kept = rng.choice([[], [1], "x", 3, None])
    elif how == "number":
        number = rng.choice([-1, 10**6, "x", [], {}, 1.5, None, True])
    crc = zlib.crc32(json.dumps([number, kept]).encode())
    line = json.dumps({"number": number, "row": kept, "crc": crc})
    if how == "nested":
        line = '{"number": 0, "crc": 1, "row": ' + "[" * 5000 + "]" * 5000 + "}"
    lines = [*sound, line]
    if how == "identity":
        lines[0] = rng.choice(["{}", "[]", "[" * 5000, '{"format": [1]}', "\x00"])
    (folder / "case.csv.journal").write_text("\n".join(lines) + "\n")
    return [
        "sweep", str(folder / "sound.toml"), "--vary", "loader.num_workers=1:3", "--jobs", "1",
        "--replications", "3", "--out", str(folder / "case.csv"),
    ], {"how": how}  # fmt: skip


def profile_case(rng: random.Random, folder: Path) -> Case:
    """A Chrome trace with other values, or no JSON; or one in a folder of a job's."""
    how = rng.choice(["value", "value", "value", "nested", "cut", "gone"])
    if rng.random() < 0.3:
        ranks, first = folder / "case", folder / "ranks/rank0.json.gz"
        ranks.mkdir(exist_ok=True)
        (ranks / first.name).write_bytes(first.read_bytes())
        sound = gzip.decompress((folder / "ranks/rank1.json.gz").read_bytes())
        (ranks / "rank1.json").write_text(damaged(rng, json.loads(sound), how))
        return ["report", str(ranks), "--html", str(folder / "report.html")], {"how": how}
    path = folder / "case.json"
    path.write_text(damaged(rng, json.loads((folder / "sound.json").read_text()), how))
    command = rng.choice(
        [
            ["compare", str(path), str(folder / "sound.npz")],
            ["report", str(path), "--html", str(folder / "report.html")],
            ["calibrate", str(path), "-o", str(folder / "made.toml")],
            ["calibrate", str(path), "-o", str(folder / "made.toml"), "--num-workers", "2"],
            ["explain", str(path)],
            ["diagnose", str(path)],
            ["new", str(folder / "made.toml"), "--from", str(path)],
        ]
    )
    return command, {"how": how}


def damaged(rng: random.Random, content: dict[str, Any], how: str) -> str:
    """The text of a profile, damaged in the way that `how` names."""
    events = content["traceEvents"]
    for _ in range(rng.randrange(1, 30)):
        event = rng.choice(events)
        if how == "gone":
            event.pop(rng.choice(list(event)), None)
        elif how == "value":
            event[rng.choice(list(event) or ["ts"])] = rng.choice(ODD)
    text = json.dumps(content)
    if how == "nested":
        return '{"traceEvents": ' + "[" * 100_000
    return text[: rng.randrange(len(text))] if how == "cut" else text
