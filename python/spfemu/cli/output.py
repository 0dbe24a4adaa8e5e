"""How the command line writes: JSON, progress, errors. Tables are in ``spfemu.cli.tables``."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TextIO

from spfemu.errors import ProgramError

__all__ = [
    "check_is_file",
    "check_output",
    "counted",
    "error_line",
    "print_json",
    "print_json_list",
    "progress_bar",
]

Progress = Callable[[float], object]

_NUMBERS: Final = len(" 100% left: 0:00:00")
"""Columns that the share and the time left need."""

_WITH_BAR: Final = 70
"""Columns of a terminal that has room for a bar; a narrower one shows the share alone."""


def print_json(obj: Any, file: TextIO | None = None) -> None:
    """Writes one JSON value and a newline. Source: the command line's ``--json``."""
    json.dump(obj, file or sys.stdout, indent=2)
    print(file=file or sys.stdout)


def print_json_list(
    before: dict[str, Any], name: str, items: Iterable[Any], after: dict[str, Any]
) -> None:
    """Writes one JSON object of which one member is a long list, an item a line, as they come.

    Source: the command line's ``--json``. ``before`` and ``after`` are the other members, at least
    one each.
    """
    out = sys.stdout
    out.write(json.dumps(before, indent=2).removesuffix("\n}"))
    out.write(f',\n  "{name}": [')
    separator = "\n    "
    for item in items:
        out.write(separator + json.dumps(item))
        separator = ",\n    "
    out.write("\n  ]," + json.dumps(after, indent=2).removeprefix("{") + "\n")


@contextmanager
def progress_bar(what: str, *, quiet: bool, left: bool = False) -> Iterator[Progress | None]:
    """Gives a function that takes 0 to 1 and shows it on standard error, or None.

    None when ``quiet`` (with --json), and when standard error or standard output is no terminal.
    ``left``: show the time left, too. Source: ours.
    """
    if quiet or not sys.stderr.isatty() or not sys.stdout.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    console = Console(file=sys.stderr)
    described = TextColumn(
        "{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")
    )
    columns: list[ProgressColumn] = [described]
    if console.width >= _WITH_BAR:
        columns += [BarColumn(), TimeElapsedColumn()]
    else:
        columns.append(TaskProgressColumn())
        if len(what) > (room := max(1, console.width - _NUMBERS)):
            what = f"{what[: room - 1]}…"
    if left:
        columns += [TextColumn("left:"), TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def counted(number: int, what: str) -> str:
    """Returns a number and what it counts, one or several. Source: ours.

    >>> from spfemu.cli.output import counted
    >>> counted(1, "schedule"), counted(2392, "schedule")
    ('1 schedule', '2,392 schedules')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def check_output(path: str | Path | None, *others: str | Path | None) -> None:
    """Refuses a file that cannot be there, or is one of the others, before anything long begins.

    Source: ours. Raises ProgramError; None and ``"-"`` are no files.
    """
    if path is None or str(path) == "-":
        return
    file, folder = Path(path), Path(path).parent
    wrong = None
    if not folder.is_dir():
        wrong = errno.ENOENT
    elif file.is_dir():
        wrong = errno.EISDIR
    elif not os.access(file if file.exists() else folder, os.W_OK):
        wrong = errno.EACCES
    if wrong is not None:
        raise ProgramError(f"{path}: cannot be written: {os.strerror(wrong)}")
    if any(other is not None and Path(other).resolve() == Path(path).resolve() for other in others):
        raise ProgramError(f"{path}: is read, or written twice (allowed: another file)")


def check_is_file(option: str, path: str | Path | None) -> None:
    """Refuses what names no file where only one will do. Source: ours. Raises ProgramError."""
    if str(path) == "-":
        raise ProgramError(f"{option} - (allowed: a file)")
    if path is not None and Path(path) == Path():  # what an empty name becomes
        raise ProgramError(f"{option}: names no file (allowed: a file)")


def error_line(message: str) -> None:
    """Writes one line on standard error, if there is one. Source: ours."""
    if sys.stderr is not None:
        print(f"spfemu: {' '.join(message.split())}", file=sys.stderr)
