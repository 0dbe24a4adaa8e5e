"""The comparison as CSV, and as one page with its plots inline."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from spfemu.errors import ProgramError
from spfemu.sweeping.plot import svg
from spfemu.sweeping.table import library

if TYPE_CHECKING:
    from spfemu.reproducing import Compared

__all__ = ["COLUMNS", "cells_of", "reasons", "write_csv", "write_html", "write_text"]

COLUMNS: Final = ("case", "what", "unit", "published", "spfemu", "error", "limit", "kind")
_WIDE: Final = 20
"""From this ratio of values on a scale is logarithmic."""
_COLOURS: Final = {"published": "#9aa5b1", "spfemu": "#1f6feb"}
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #ddd; }
td.n, th.n { text-align: right; }
tr.first td { border-top: 2px solid #888; }
tr.off td { background: #fff1e5; }
svg { max-width: 100%; height: auto; }
"""


def cells_of(line: Compared) -> tuple[str, ...]:
    """Returns a line's texts, a column each. Source: ours."""
    error = f"{line.error_pct:+.1f} %"
    if line.within is False:
        error += " !"
    numbers = (_number(value, line.unit) for value in (line.published, line.ours))
    texts = (*numbers, error, line.limit, line.kind)
    return (line.case, line.what, line.unit, *texts)


def _number(value: float, unit: str) -> str:
    if not unit:  # a ratio
        return f"{value:.3f}"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


_WORTH_A_WORD: Final = 25
"""From so many percent on."""


def reasons(lines: Sequence[Compared]) -> list[str]:
    """Returns why numbers are far off, those that are for the same reason together. Source: ours.

    What is far is what is off by 25 % and more.
    """
    of: dict[str, list[str]] = {}
    for line in lines:
        if line.why and abs(line.error_pct) >= _WORTH_A_WORD:
            name = line.case if line.unit == "k/s" else f"{line.case}, {line.what}"
            of.setdefault(line.why, []).append(name)
    return [f"{'; '.join(dict.fromkeys(names))}: {why}." for why, names in of.items()]


def write_csv(lines: Sequence[Compared], path: Path) -> None:
    """Writes the comparison as CSV, numbers in full. Source: ours. Raises ProgramError."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("case", "machine", "cpus", "what", "unit", "published", "spfemu",
                     "error_pct", "limit", "within", "kind", "why"))  # fmt: skip
    for line in lines:
        writer.writerow((line.case, line.machine, line.cpus, line.what, line.unit, line.published,
                         line.ours, round(line.error_pct, 2), line.limit, line.within,
                         line.kind, line.why))  # fmt: skip
    write_text(path, out.getvalue())


def write_html(lines: Sequence[Compared], path: Path, *, about: str) -> None:
    """Writes one page: the table, and the rates and shares as bars.

    Source: ours. ``about`` is a sentence on how the runs were made. Raises EngineError where
    matplotlib is missing, ProgramError for a file that cannot be written.
    """
    rows = "\n".join(_row(line, lines[n - 1] if n else None) for n, line in enumerate(lines))
    numbers = range(3, 6)
    head = "".join(
        f'<th class="n">{name}</th>' if n in numbers else f"<th>{name}</th>"
        for n, name in enumerate(COLUMNS)
    )
    write_text(
        path,
        f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>spfemu beside what was published</title>
<style>{_STYLE}</style></head><body>
<h1>Speculative page faults: published and emulated</h1>
<p>{html.escape(about)}</p>
<p><b>fitted</b>: two constants of the machine were fitted to the rates of this case (the wake-up
latency, and where it says so the cost of unmapping a page). Everything else is <b>predicted</b>.
Shaded: farther off than the limit.</p>
{_plots(lines)}
<table><thead><tr>{head}</tr></thead><tbody>
{rows}
</tbody></table>
<h2>Why some are far off</h2>
<ul>{"".join(f"<li>{html.escape(reason)}</li>" for reason in reasons(lines))}</ul>
</body></html>
""",
    )


def _row(line: Compared, before: Compared | None) -> str:
    classes = []
    if before is None or before.case != line.case:
        classes.append("first")
    if line.within is False:
        classes.append("off")
    cells = "".join(
        f'<td class="n">{html.escape(text)}</td>'
        if n in range(3, 6)
        else f"<td>{html.escape(text)}</td>"
        for n, text in enumerate(cells_of(line))
    )
    return f'<tr class="{" ".join(classes)}">{cells}</tr>'


def _plots(lines: Sequence[Compared]) -> str:
    figure = library("matplotlib.figure").Figure(figsize=(11, 7.8), layout="constrained")
    (ratios, shares), curves = figure.subplots(2, 2, height_ratios=(1.25, 1))
    _bars(ratios, lines, "ratio", "speculative / mmap_sem, records/s", "%.2f")
    _bars(shares, lines, "spf_vma_changed", "spf_vma_changed, % of faults", "%.1f")
    of_threads: dict[str, list[Compared]] = {}
    for line in lines:
        if line.what.endswith(("thread", "threads")):
            of_threads.setdefault(line.case, []).append(line)
    rwsem = {case: rows for case, rows in of_threads.items() if case.startswith("rwsem")}
    others = {case: rows for case, rows in of_threads.items() if case not in rwsem}
    _curves(curves[0], rwsem, "rwsem, thousand locks/s")
    _curves(curves[1], others, "tlb_flush2, thousand pages/s")
    return svg(figure)


def _bars(axes: Any, lines: Sequence[Compared], what: str, label: str, digits: str) -> None:
    chosen = [line for line in lines if line.what == what]
    if not chosen:
        axes.set_axis_off()
        return
    places = range(len(chosen))
    for shift, name in ((-0.2, "published"), (0.2, "spfemu")):
        values = [line.published if name == "published" else line.ours for line in chosen]
        bars = axes.barh(
            [place + shift for place in places], values, 0.38, label=name, color=_COLOURS[name]
        )
        axes.bar_label(bars, fmt=digits, padding=3, fontsize=9)
    axes.set_yticks(list(places), [line.case for line in chosen])
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.margins(x=0.15)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _curves(axes: Any, cases: Mapping[str, Sequence[Compared]], label: str) -> None:
    """Draws rates by the number of threads: what was published once, ours for each case."""
    if not cases:
        axes.set_axis_off()
        return
    threads = [int(line.what.split()[0]) for line in next(iter(cases.values()))]
    for nth, (case, rows) in enumerate(cases.items()):
        if not nth:
            axes.plot(threads, [line.published for line in rows], "o-", label="published",
                      color=_COLOURS["published"])  # fmt: skip
        name = "spfemu" if len(cases) == 1 else f"spfemu: {case}"
        axes.plot(threads, [line.ours for line in rows], ("o-", "s--")[nth % 2], label=name,
                  color=_COLOURS["spfemu"])  # fmt: skip
    axes.set_xscale("log", base=2)
    ticks = [number for number in threads if number & (number - 1) == 0]
    axes.set_xticks(ticks, [str(number) for number in ticks])
    values = [line.ours for rows in cases.values() for line in rows]
    if max(values) > _WIDE * min(values):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.minorticks_off()
    axes.set_xlabel("threads")
    axes.set_ylabel(label)
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def write_text(path: Path, text: str) -> None:
    """Writes a file. Source: ours. Raises ProgramError where that fails."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ProgramError(f"{path}: cannot be written: {error.strerror}") from None
