"""Tables of results, dicts of equally long columns, into files: Parquet, CSV or JSON."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlsim.scenario.errors import lacking
from dlsim.scenario.files import replacing
from dlsim.whatif.errors import WhatIfError

Table: TypeAlias = dict[str, NDArray[Any]]


def check_writable(path: Path) -> None:
    """Raise `WhatIfError` unless a table can be written to `path`: suffix, library, directory."""
    if path.suffix not in WRITERS:
        known = ", ".join(WRITERS)
        raise WhatIfError(f"{path}: expected a name that ends in one of {known}")
    if path.suffix == ".parquet" and find_spec("polars") is None:
        raise WhatIfError(f"{path}: {lacking('Parquet', 'polars', 'frames')}; CSV and JSON do not")
    if not path.absolute().parent.is_dir():
        raise WhatIfError(f"{path}: cannot be written: No such directory")
    if path.is_dir():
        raise WhatIfError(f"{path}: cannot be written: Is a directory")


def write_table(table: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write `table` to `path`, in the format of its suffix; it appears whole or not at all.

    A number that is not known (NaN) is NaN in Parquet, empty in CSV, null in JSON, which is a
    list of rows. Raises `WhatIfError` when it cannot be written.
    """
    check_writable(path)
    with replacing(path, WhatIfError) as unfinished:
        WRITERS[path.suffix](table, unfinished)


def column(values: list[Any]) -> NDArray[Any]:
    """One column: numbers or truth values if all are such, else everything as text."""
    kinds = {type(value) for value in values}
    if kinds <= {int, float} or kinds == {bool}:
        return np.array(values)
    return np.array(["none" if value is None else str(value) for value in values])


def _parquet(table: Mapping[str, NDArray[Any]], path: Path) -> None:
    import polars

    polars.DataFrame(dict(table)).write_parquet(path)


def _csv(table: Mapping[str, NDArray[Any]], path: Path) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        for row in _rows(table):
            writer.writerow("" if value is None else value for value in row)


def _json(table: Mapping[str, NDArray[Any]], path: Path) -> None:
    rows = [dict(zip(table, row, strict=True)) for row in _rows(table)]
    path.write_text(json.dumps(rows, indent=0) + "\n", encoding="utf-8")


def _rows(table: Mapping[str, NDArray[Any]]) -> list[tuple[Any, ...]]:
    """The rows, with None for NaN."""
    lists = [
        [None if isinstance(v, float) and math.isnan(v) else v for v in values.tolist()]
        for values in table.values()
    ]
    return list(zip(*lists, strict=True))


WRITERS: dict[str, Callable[[Mapping[str, NDArray[Any]], Path], None]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".json": _json,
}
