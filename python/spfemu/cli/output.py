"""How the command line writes: tables on a terminal, plain text when piped, JSON for machines."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from spfemu.errors import ProgramError

__all__ = ["check_output", "error_line", "print_json", "print_table", "progress_bar"]

Progress = Callable[[float], object]


def print_json(obj: Any, file: TextIO | None = None) -> None:
    """Writes one JSON value and a newline. Source: the command line's ``--json``."""
    json.dump(obj, file or sys.stdout, indent=2)
    print(file=file or sys.stdout)


def print_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[int] = (),
    min_width: int = 0,
    wrap: bool = True,
    file: TextIO | None = None,
) -> None:
    """Writes a table: with lines on a terminal, aligned plain text otherwise.

    Source: ours. ``right`` are the columns aligned to the right, ``min_width`` their least width;
    ``wrap`` says whether cells may take several lines on a narrow terminal.
    """
    out = file or sys.stdout
    if out.isatty():
        _rich_table(headers, rows, right, wrap, out)
        return
    least = [min_width if number in right else 0 for number in range(len(headers))]
    columns = zip(headers, *rows, strict=True)
    widths = [max(low, *map(len, column)) for low, column in zip(least, columns, strict=True)]
    for row in (headers, *rows):
        cells = [
            text.rjust(width) if number in right else text.ljust(width)
            for number, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip(), file=out)


def _rich_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[int],
    wrap: bool,
    out: TextIO,
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, header in enumerate(headers):
        justify: Any = "right" if number in right else "left"
        table.add_column(header, justify=justify, overflow="fold", no_wrap=not wrap)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(file=out).print(table)


@contextmanager
def progress_bar(what: str, *, quiet: bool) -> Iterator[Progress | None]:
    """Gives a function that takes 0 to 1 and shows it on standard error, or None.

    None when ``quiet`` (with --json), and when standard error or standard output is no terminal.
    Source: ours.
    """
    if quiet or not sys.stderr.isatty() or not sys.stdout.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def check_output(path: str | Path | None) -> None:
    """Refuses a file that cannot be there, before anything long begins.

    Source: ours. Raises ProgramError; None and ``"-"`` are no files.
    """
    if path is not None and str(path) != "-" and not Path(path).parent.is_dir():
        raise ProgramError(f"{path}: cannot be written: {os.strerror(errno.ENOENT)}")


def error_line(message: str) -> None:
    """Writes one line on standard error. Source: ours."""
    print(f"spfemu: {' '.join(message.split())}", file=sys.stderr)
