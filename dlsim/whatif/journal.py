"""The journal of a sweep: every finished row, on disk at once, so that nothing is computed twice.

A file of JSON lines that is only ever appended to. The first line says which sweep it belongs to;
each other line is a row with its checksum; of two with one number, the later counts. A line that
was cut short by a crash, or damaged otherwise, does not check and is as good as not there: its row
is computed again.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from io import BufferedRandom
from pathlib import Path
from typing import Any

from dlsim.whatif.errors import WhatIfError

FORMAT = 1


class Journal:
    """The journal of the sweep `identity` at `path`, begun or gone on with; a context manager.

    `identity` is what the rows depend on, as JSON can say it; `of`: what else than a sweep it is
    of, in words. `rows`: the finished rows by their number (or name). While open, no other process
    can open it.

    Raises `WhatIfError` for the journal of another sweep, for a file that is none, for one in
    use, and when it cannot be read or written.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], of: str = "sweep") -> None:
        self.path, self.of = path, of
        self.rows: dict[Any, Any] = {}
        with _explained(path):
            path.touch()
            self._file: BufferedRandom = open(path, "r+b")  # noqa: SIM115 (it is one itself)
        try:
            with _explained(path):
                _lock(self._file, path, of)
                text = self._file.read()
            self._read(text, {"format": FORMAT, **identity})
        except BaseException:
            self.__exit__()
            raise

    def _read(self, text: bytes, identity: dict[str, Any]) -> None:
        first, complete, rest = text.partition(b"\n")
        if not complete:  # new, or cut short within the first line
            with _explained(self.path):
                self._file.truncate(0)
                self._file.seek(0)
            self._append(json.dumps(identity))
            return
        _check_identity(self.path, first, json.loads(json.dumps(identity)), self.of)
        lines = rest.split(b"\n")
        if lines[-1]:
            with _explained(self.path):
                self._file.write(b"\n")  # end the line that was cut short
        for line in lines:
            if line:
                self._take(line)

    def _take(self, line: bytes) -> None:
        entry = sound(line)
        if entry is not None:
            self.rows[entry[0]] = entry[1]

    def write(self, number: int | str, row: Mapping[str, Any]) -> None:
        """Keep the finished `row`: it is on disk when this returns."""
        self.write_all({number: row})

    def write_all(self, rows: Mapping[Any, Mapping[str, Any]]) -> None:
        """Keep some finished rows, as `write` does, which takes as long for many as for one."""
        if rows:
            entries = (
                {"number": number, "row": row, "crc": _checksum(number, row)}
                for number, row in rows.items()
            )
            self._append("\n".join(map(json.dumps, entries)))
            self.rows.update(rows)

    def _append(self, line: str) -> None:
        with _explained(self.path):
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # what could not be written has been said
            self._file.close()


def sound(line: bytes) -> tuple[Any, Any] | None:
    """The number and the row that a line of a journal holds; None if it is damaged."""
    try:
        entry = json.loads(line)
        number, row, crc = entry["number"], entry["row"], entry["crc"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    whole = isinstance(number, (int, str)) and isinstance(row, dict)
    return (number, row) if whole and crc == _checksum(number, row) else None


class _explained:
    """Turns an error of the operating system into one line about `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise WhatIfError(f"{self.path}: cannot be written: {reason}") from None


def _checksum(number: int | str, row: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps([number, row]).encode())


def _check_identity(path: Path, line: bytes, identity: dict[str, Any], of: str) -> None:
    try:
        found = json.loads(line)
        if not isinstance(found, dict) or "format" not in found:
            raise ValueError
    except (ValueError, RecursionError):
        raise WhatIfError(f"{path}: expected the journal of a {of}, got another file") from None
    for key, ours in identity.items():
        if found.get(key) != ours:
            raise WhatIfError(
                f"{path}: belongs to another {of} (not the same {key}); "
                "move it away, or write to another file"
            )


def _lock(file: BufferedRandom, path: Path, of: str) -> None:
    """Keep other processes out, where the system can."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WhatIfError(f"{path}: another {of} is writing to it now") from None
