"""What moved, as the lines of a table, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from spfemu.reproducing.report import write_text
from spfemu.reproducing.varying import FACTORS, NUMBERS, Moved

__all__ = ["MOVED_COLUMNS", "moved_rows", "still", "write_moved"]

MOVED_COLUMNS: Final = ("case", "change", *NUMBERS)
_LITTLE: Final = 1.0
"""A change that moves no number by so many percent is not shown."""


def moved_rows(moved: Sequence[Moved]) -> list[tuple[str, ...]]:
    """Returns a line for each case and change that moves something: percent of each number.

    Source: ours. Of a constant that was halved and doubled both stand in one place, as
    ``half / double``.
    """
    rows = []
    for (case, change), group in _grouped(moved).items():
        if any(abs(one.percent) >= _LITTLE for one in group):
            rows.append((case, change, *(_percents(group, what) for what in NUMBERS)))
    return rows


def still(moved: Sequence[Moved]) -> str:
    """Returns a sentence on the changes that move nothing anywhere, "" if there are none.

    Source: ours.
    """
    moving = {one.change for one in moved if abs(one.percent) >= _LITTLE}
    names = [name for name in dict.fromkeys(one.change for one in moved) if name not in moving]
    return f" None moves by {_LITTLE:g} % with: {', '.join(names)}." if names else ""


def write_moved(moved: Sequence[Moved], path: Path) -> None:
    """Writes a line for each number and change as CSV. Source: ours. Raises ProgramError."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("case", "change", "factor", "what", "usual", "changed", "percent"))
    for one in moved:
        writer.writerow((one.case, one.change, one.factor, one.what, one.usual, one.changed,
                         round(one.percent, 2)))  # fmt: skip
    write_text(path, out.getvalue())


def _grouped(moved: Sequence[Moved]) -> dict[tuple[str, str], list[Moved]]:
    groups: dict[tuple[str, str], list[Moved]] = {}
    for one in moved:
        groups.setdefault((one.case, one.change), []).append(one)
    return groups


def _percents(group: Sequence[Moved], what: str) -> str:
    by_factor = {one.factor: one for one in group if one.what == what}
    factors = [factor for factor in FACTORS if factor in by_factor] or list(by_factor)
    return " / ".join(_percent(by_factor[factor]) for factor in factors)


def _percent(one: Moved) -> str:
    return f"{one.percent:+.0f}" if one.usual or not one.changed else f"0 to {one.changed:.2g}"
