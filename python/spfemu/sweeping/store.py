"""Finished cells in a small file, so that a sweep that was interrupted goes on where it was."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from spfemu.errors import ProgramError
from spfemu.sweeping.cells import Outcome

__all__ = ["Store"]

_HEAD: Final = {"format": "spfemu-cells/1"}


class Store:
    """A file of finished cells: a line of JSON for each, written as soon as the cell is done.

    Source: ours. The first line names the format; each other holds a cell's key and outcome. A
    line that a crash has cut short is dropped, and a cell that nobody asks for stays. Raises
    ProgramError for a file that cannot be written, holds something else, or belongs to a sweep
    that is still running.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.cells: dict[str, Outcome] = {}

    def __enter__(self) -> Self:
        try:
            self._file = self.path.open("a+", encoding="utf-8")
        except OSError as error:
            self._fail(f"cannot be written: {error.strerror} (finished runs are kept there)")
        try:
            self._lock()
            self.read()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, key: str, outcome: Outcome) -> None:
        """Writes a finished cell. Source: ours. Raises ProgramError where there is no room."""
        try:
            self._write([key, outcome])
        except OSError as error:
            self._fail(f"cannot be written: {error.strerror}")
        self.cells[key] = outcome

    def read(self) -> None:
        """Takes from the file what it holds: an interrupt may have come between the two.

        Source: ours. Raises ProgramError for a file that holds something else.
        """
        self._file.seek(0)
        self.cells.clear()
        try:
            text = self._file.read()
        except UnicodeDecodeError:
            text = "?\n"
        lines = text.splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        if whole and _value(whole[0]) != _HEAD:
            self._fail("holds no cells of a sweep (allowed: remove it, or another output)")
        for line in whole[1:]:
            match _value(line):
                case [str(key), dict(outcome)]:
                    self.cells[key] = outcome
        if not whole:
            os.ftruncate(self._file.fileno(), 0)
            self._write(_HEAD)
        elif len(whole) < len(lines):  # what a crash has cut short
            os.ftruncate(self._file.fileno(), len("".join(whole).encode()))

    def remove(self) -> None:
        """Takes the file away: what it kept stands in the output now. Source: ours."""
        self.path.unlink(missing_ok=True)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return  # a file system without locks
            self._fail("another sweep is writing it (allowed: another output)")

    def _write(self, value: Any) -> None:
        self._file.write(json.dumps(value) + "\n")
        self._file.flush()

    def _fail(self, message: str) -> None:
        raise ProgramError(f"{self.path}: {message}")


def _value(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
