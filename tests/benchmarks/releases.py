"""The scheduling code of torch's releases, as they were published, against the simulation.

    python -m tests.benchmarks.releases --scenarios 500 --write docs/in-order.md

Of each release, `dataloader.py`, `sampler.py` and `_utils` of `torch/utils/data` are taken from its
wheel on PyPI (that for macOS, the smallest one: some 60 to 130 MB, which are deleted at once), and
take the place of those of the installed torch, in a process of their own. There they run random
scenarios of `tests/strategies.py` under a virtual clock, and the simulation of that release's rules
has to have every moment in common with them.

Exit status 0 if there is no difference, and no release that could not be had.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

RELEASES = tuple(f"2.{minor}" for minor in range(16))
PLACES = ("macosx_11_0_arm64", "macosx_14_0_arm64")
PYTHONS = ("311", "312", "310", "39")  # whichever there is one for: only its sources are read
SCHEDULING = re.compile(r"torch\.utils\.data\.(dataloader|sampler|_utils)\b")
PREFIX = "torch/utils/data/"
HEAD = "| torch | scenarios | batches | differences | in order | `in_order=False` |"
START, END = "<!-- releases -->", "<!-- /releases -->"


def main() -> int:
    """Run all releases, or, inside of one of their processes, one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenarios", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--releases", nargs="*", default=RELEASES)
    parser.add_argument("--write", type=Path, help="the page that the table goes into")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        (release,) = options.releases
        print(json.dumps(inside(options.inside, release, options.scenarios, options.seed)))
        return 0
    rows = [beside(release, options.scenarios, options.seed) for release in options.releases]
    table = "\n".join([HEAD, "|---|---:|---:|---:|---:|---:|", *map(line, rows)])
    print(table)
    if options.write is not None:
        text = options.write.read_text(encoding="utf-8")
        before, _, rest = text.partition(START)
        _, _, after = rest.partition(END)
        page = f"{before}{START}\n{table}\n{END}{after}"
        options.write.write_text(page, encoding="utf-8")
    return 1 if any(row.get("differences", 1) for row in rows) else 0


def beside(release: str, scenarios: int, seed: int) -> dict[str, Any]:
    """What came of one release, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        version = fetch(release, Path(folder))
        if version is None:
            return {"version": release}
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "tests.benchmarks.releases",
            "--inside",
            folder,
        ]
        command += ["--releases", version, "--scenarios", str(scenarios), "--seed", str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr)
        return {"version": version}
    *told, row = done.stdout.splitlines()
    for each in told:
        print(f"torch {version}: {each}", flush=True)
    found: dict[str, Any] = json.loads(row)
    return found


def fetch(release: str, folder: Path) -> str | None:
    """Put the scheduling files of a release's last version there; the version, or None."""
    for python in PYTHONS:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
        command += [word for place in PLACES for word in ("--platform", place)]
        command += ["--python-version", python, "--implementation", "cp"]
        command += ["--abi", f"cp{python}", "--abi", "none", "--only-binary=:all:"]
        subprocess.run([*command, f"torch=={release}.*"], capture_output=True, check=False)
        for wheel in folder.glob("torch-*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                names = archive.namelist()
                wanted = tuple(PREFIX + name for name in ("dataloader.py", "sampler.py", "_utils/"))
                archive.extractall(folder, [name for name in names if name.startswith(wanted)])
            wheel.unlink()
            return wheel.name.split("-")[1]
    return None


def line(row: dict[str, Any]) -> str:
    """The row of a table."""
    if "scenarios" not in row:
        return f"| {row['version']} | could not be had | | | | |"
    rates = [row["in order"], row["any order"]]
    shown = [f"{rate:.3f}" if rate is not None else "-" for rate in rates]
    counts = [f"{row[key]:,}" for key in ("scenarios", "batches", "differences")]
    return f"| {' | '.join([row['version'], *counts, *shown])} |"


class Released(importlib.abc.MetaPathFinder):
    """Finds the modules of torch that schedule in another release's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's place, if it is one of these."""
        if not SCHEDULING.match(fullname):
            return None
        place = self.folder / fullname.replace(".", "/")
        if place.is_dir():
            return importlib.util.spec_from_file_location(
                fullname, place / "__init__.py", submodule_search_locations=[str(place)]
            )
        return importlib.util.spec_from_file_location(fullname, place.with_suffix(".py"))


def take_over(folder: Path) -> None:
    """Load the scheduling files in `folder` in place of those of the installed torch."""
    import torch.utils.data as data

    for name in [name for name in sys.modules if SCHEDULING.match(name)]:
        del sys.modules[name]
    del data.dataloader, data.sampler, data._utils
    sys.meta_path.insert(0, Released(folder))
    for part in ("sampler", "dataloader"):
        released = importlib.import_module(f"torch.utils.data.{part}")
        assert Path(released.__file__ or "").is_relative_to(folder)
        for name in {*vars(released)} & {*data.__all__}:
            setattr(data, name, getattr(released, name))
    assert Path(data._utils.worker.__file__).is_relative_to(folder)


def inside(folder: Path, version: str, scenarios: int, seed: int) -> dict[str, Any]:
    """The comparison, in a process whose torch schedules as that version does."""
    take_over(folder)
    import torch

    torch.__version__ = version
    from tests.benchmarks.released import compared, head_of_line

    release = ".".join(version.split(".")[:2])
    return {
        "version": version,
        **compared(release, scenarios, seed),
        "in order": head_of_line(release, in_order=True),
        "any order": head_of_line(release, in_order=False),
    }


if __name__ == "__main__":
    sys.exit(main())
