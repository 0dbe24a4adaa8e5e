"""A sweep as a page: the plot and the numbers, in one file that needs nothing else."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from spfemu.data import Row
from spfemu.sweeping.beside import beside
from spfemu.sweeping.cells import PLACEHOLDER
from spfemu.sweeping.overview import chosen_metric, number_text, overview, shares
from spfemu.sweeping.plot import svg

if TYPE_CHECKING:
    from spfemu.sweeping.table import Sweep

__all__ = ["page"]

_ADDRESS: Final = re.compile(r"(https?://\S+) \((.+)\)")
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
svg { width: 100%; height: auto; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.2rem 0.8rem; text-align: right; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #888; } td.text, th.text { text-align: left; }
"""


def page(table: Sweep) -> str:
    """Returns the page of ``Sweep.save``. Source: ours. Needs matplotlib."""
    metric = chosen_metric(table.rows)
    title = f"spfemu sweep: {table.label.replace(PLACEHOLDER, 'N')}"
    first = table.rows[0]
    machines = dict.fromkeys(html.escape(row.machine) for row in table.rows)
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{', '.join(machines)}; {html.escape(first.source)}; {html.escape(first.note)}. "
        "Rates depend on costs of which some are assumed: read ratios and shares.</p>",
        svg(table.figure()),
    ]
    heads, lines = overview(table.rows, metric)
    parts.append(_table(heads, lines, range(heads.index("CPUs"))))
    if told := _measured(beside(table.rows), metric):
        parts += ["<h2>Measured by others</h2>", told]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def _measured(rows: Sequence[Row], metric: str) -> str:
    """Returns a table of the published points that the plot shows, "" for none."""
    lines = [
        [row.note, str(row.ncpus), row.variant, row.metric, number_text(row.value), row.source]
        for row in rows
        if row.metric == metric
    ]
    for event, points in shares(rows).items():
        name = event.removeprefix("count:") + " %"
        lines += [
            [row.note, str(row.ncpus), row.variant, name, f"{row.value:.2f}", row.source]
            for row in points
        ]
    heads = ["computer", "CPUs", "handler", "metric", "value", "source"]
    return _table(heads, lines, (0, 2, 3, 5)) if lines else ""


def _cell(text: str) -> str:
    """Returns a cell's text; of an address with words behind it, the words as a link."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        return html.escape(text)
    return f'<a href="{html.escape(found[1])}">{html.escape(found[2])}</a>'


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]], texts: Collection[int]) -> str:
    def cells(tag: str, line: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=text' if place in texts else ''}>{_cell(cell)}</{tag}>"
            for place, cell in enumerate(line)
        )

    body = "\n".join(f"<tr>{cells('td', line)}</tr>" for line in lines)
    head = f"<thead><tr>{cells('th', heads)}</tr></thead>"
    return f"<div class=wide><table>{head}\n<tbody>{body}</tbody></table></div>"
