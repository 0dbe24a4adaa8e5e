"""The table that `make bench` ends with: one row for each bar, whoever measured it.

Benchmarks append their rows to the file that SPFEMU_BENCH_TABLE names; without it they only print.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HEADER = ("what", "measured", "bar", "")


def against_bar(what: str, measured: str, bar: str, *, met: bool) -> None:
    """Prints a figure that has a bar, and keeps it for the table."""
    verdict = "met" if met else "missed"
    print(f"\n  {what}: {measured} (bar: {bar}): {verdict}")
    if path := os.environ.get("SPFEMU_BENCH_TABLE"):
        with Path(path).open("a") as table:
            table.write("\t".join((what, measured, bar, verdict)) + "\n")


def formatted(rows: list[tuple[str, ...]]) -> str:
    """Returns the rows under their header, in columns."""
    lines = [HEADER, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    cells = [
        [cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines
    ]
    return "\n".join("  ".join(row).rstrip() for row in cells)


def main(path: str) -> None:
    rows = [tuple(line.split("\t")) for line in Path(path).read_text().splitlines()]
    print(
        f"\n{formatted(rows)}\n\n{sum(row[-1] == 'missed' for row in rows)} of {len(rows)} missed"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
