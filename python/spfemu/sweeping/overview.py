"""What a sweep comes to at a glance: both handlers, their ratio, and how faults ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from spfemu.data import Row
from spfemu.engines import one_of

__all__ = ["SHARES", "chosen_metric", "number_text", "overview", "shares"]

SHARES: Final = {
    "count:spf": "handled speculatively",
    "count:spf_vma_changed": "aborted: VMA changed",
    "count:spf_vma_notsup": "aborted: VMA not supported",
    "count:spf_vma_access": "access not allowed",
    "count:spf_pmd_changed": "aborted: PMD changed",
}
"""The events whose shares of all faults are told, in words."""


def chosen_metric(rows: Iterable[Row], metric: str | None = None) -> str:
    """Returns the metric to show: the one asked for, else the workload's rate, else ``faults/s``.

    Source: ours. Raises EngineError for one that there is not.
    """
    metrics = list(dict.fromkeys(row.metric for row in rows))
    if metric is not None:
        return one_of("metric", metric, metrics)
    return next(name for name in metrics if name.endswith("/s"))


def shares(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Returns what share of all faults each of the spf handler's events has, in percent, by event.

    Source: the founding document, which gives its counters so. Events that are nowhere are left
    out; so are rows without a count of faults.
    """
    counted = [row for row in rows if row.variant == "spf" and row.metric.startswith("count:")]
    faults = {_cell(row): row.value for row in counted if row.metric == "count:faults"}
    found: dict[str, list[Row]] = {}
    for event in SHARES:
        points = [
            row._replace(value=100 * row.value / faults[_cell(row)], unit="%", stddev_pct=None)
            for row in counted
            if row.metric == event and faults.get(_cell(row))
        ]
        if any(row.value for row in points):
            found[event] = points
    return found


def _cell(row: Row) -> tuple[str, str, int, str]:
    return row.machine, row.note, row.ncpus, row.source


def overview(rows: Sequence[Row], metric: str) -> tuple[list[str], list[list[str]]]:
    """Returns the head and the lines of a table: a line for each machine and number of CPUs.

    Source: ours. The columns: machine where there are several, CPUs, the metric with each handler,
    their ratio, and the shares of the spf run.
    """
    several = len({row.machine for row in rows}) > 1
    values = {
        (row.machine, row.ncpus, row.variant): row.value for row in rows if row.metric == metric
    }
    handlers = list(dict.fromkeys(variant for _, _, variant in values))
    both = {"classic", "spf"} <= set(handlers)
    events = shares(rows)
    heads = ["machine"] if several else []
    heads += ["CPUs", *(f"{metric}, {handler}" for handler in handlers)]
    heads += ["spf/classic"] if both else []
    heads += [f"{event.removeprefix('count:')} %" for event in events]
    percent = {
        (row.machine, row.ncpus, event): row.value for event in events for row in events[event]
    }
    lines = []
    for place in dict.fromkeys(place[:2] for place in values):
        line = [str(part) for part in place] if several else [str(place[1])]
        line += [number_text(values[*place, handler]) for handler in handlers]
        if both:
            classic = values[*place, "classic"]
            line.append(f"{values[*place, 'spf'] / classic:.3f}" if classic else "")
        told = (percent.get((*place, event)) for event in events)
        line += ["" if share is None else f"{share:.2f}" for share in told]
        lines.append(line)
    return heads, lines


def number_text(value: float) -> str:
    """Returns a figure with as many digits as it deserves. Source: ours.

    >>> from spfemu.sweeping.overview import number_text
    >>> number_text(9383.07), number_text(0.20142)
    ('9,383', '0.2014')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"
