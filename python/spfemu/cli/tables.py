"""Tables, as wide as there is room for. A cell is never cut.

Piped, a table is aligned plain text. On a terminal it has a line below its head, and where it is
too wide, first texts take several lines, and then a row is folded: its title, and below it what the
other columns say, with their names.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TextIO

__all__ = ["print_folded", "print_rows", "print_table", "terminal_width"]

_GAP: Final = "  "
_ROWS_AT_ONCE: Final = 4096
_TEXT_WIDTH: Final = 18
"""A column of texts does not become narrower than this."""


def terminal_width(out: TextIO) -> int | None:
    """Returns how many columns there are, None where nobody looks. Source: ours."""
    return shutil.get_terminal_size().columns if out.isatty() else None


def print_folded(text: str) -> None:
    """Writes a paragraph, folded to the terminal; in one line when piped. Source: ours."""
    width = terminal_width(sys.stdout)
    print(text if width is None else textwrap.fill(text, width, break_on_hyphens=False))


def print_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[int] = (),
    title: int = 0,
    min_width: int = 0,
    width: int | None = None,
    file: TextIO | None = None,
) -> None:
    """Writes a table.

    Source: ours. ``right`` are the columns of numbers, aligned to the right, ``min_width`` their
    least width where there is room; ``title`` is the column that names a row; ``width`` is how wide
    the table may be where there is no terminal (default: as wide as it is).
    """
    out = file or sys.stdout
    room = terminal_width(out) or width
    least = [min_width if number in right else 0 for number in range(len(headers))]
    columns = list(zip(headers, *rows, strict=True))
    natural = [max(map(len, column)) for column in columns]
    spacious = [max(pair) for pair in zip(least, natural, strict=True)]
    lines: Iterator[str]
    if room is None:
        lines = (_aligned([row], spacious, right) for row in (headers, *rows))
    else:
        lines = _on_terminal(headers, rows, right, title, [spacious, natural], room)
    for line in lines:
        print(line, file=out)


def print_rows(
    headers: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()
) -> None:
    """Writes a table whose rows are too many to hold, as they come: aligned as those so far were.

    Source: ours, for what is piped.
    """
    widths = [len(header) for header in headers]
    lines: list[Sequence[str]] = [headers]
    for row in rows:
        lines.append(row)
        if len(lines) == _ROWS_AT_ONCE:
            _write_rows(lines, widths, right)
            lines = []
    _write_rows(lines, widths, right)


def _write_rows(rows: Sequence[Sequence[str]], widths: list[int], right: Sequence[int]) -> None:
    if not rows:
        return
    for number, column in enumerate(zip(*rows, strict=True)):
        widths[number] = max(widths[number], *map(len, column))
    print(_aligned(rows, widths, right))


def _on_terminal(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[int],
    title: int,
    choices: list[list[int]],
    room: int,
) -> Iterator[str]:
    narrow = _narrowed(headers, rows, choices[-1], right, room)
    for widths in (*choices, narrow):
        if _total(widths) <= room:
            break
    else:
        yield from _folded(headers, rows, title, room)
        return
    yield _aligned([headers], widths, right)
    yield "─" * _total(widths)
    for row in rows:
        cells = [
            textwrap.wrap(cell, width, break_on_hyphens=False) or [""]
            for cell, width in zip(row, widths, strict=True)
        ]
        height = max(map(len, cells))
        lines = [[cell[n] if n < len(cell) else "" for cell in cells] for n in range(height)]
        yield _aligned(lines, widths, right)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _narrowed(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths: Sequence[int],
    right: Sequence[int],
    room: int,
) -> list[int]:
    """Takes from the widest columns of texts what is too much, as far as their words allow."""
    narrow = list(widths)
    least = {}
    for number, column in enumerate(zip(headers, *rows, strict=True)):
        if number not in right:
            words = [len(word) for cell in column for word in cell.split()]
            least[number] = max(_TEXT_WIDTH, *words, 0)
    while _total(narrow) > room:
        free = [number for number in least if narrow[number] > least[number]]
        if not free:
            break
        narrow[max(free, key=lambda number: narrow[number])] -= 1
    return narrow


def _aligned(rows: Sequence[Sequence[str]], widths: Sequence[int], right: Sequence[int]) -> str:
    lines = []
    for row in rows:
        cells = [
            text.rjust(width) if number in right else text.ljust(width)
            for number, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(_GAP.join(cells).rstrip())
    return "\n".join(lines)


def _folded(
    headers: Sequence[str], rows: Sequence[Sequence[str]], title: int, room: int
) -> Iterator[str]:
    """Each row as its title and, below it, as many of its cells a line as there is room for."""
    for row in rows:
        yield row[title]
        line = ""
        for number, (header, cell) in enumerate(zip(headers, row, strict=True)):
            if number == title or not cell:
                continue
            pair = f"{header} {cell}"
            if line and len(f"{line}{_GAP}{pair}") > room - len(_GAP):
                yield f"{_GAP}{line}"
                line = ""
            line = f"{line}{_GAP}{pair}" if line else pair
            if len(line) > room - len(_GAP) and " " in cell:
                yield textwrap.fill(
                    line, room, initial_indent=_GAP, subsequent_indent=2 * _GAP,
                    break_long_words=False, break_on_hyphens=False,
                )  # fmt: skip
                line = ""
        if line:
            yield f"{_GAP}{line}"
