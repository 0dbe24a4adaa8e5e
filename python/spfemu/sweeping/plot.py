"""The plot of a sweep: a rate over CPUs, and how the faults of the speculative handler ended."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from spfemu.data import Row
from spfemu.sweeping.beside import beside
from spfemu.sweeping.cells import PLACEHOLDER
from spfemu.sweeping.overview import SHARES, chosen_metric, shares
from spfemu.sweeping.table import library

if TYPE_CHECKING:
    from spfemu.sweeping.table import Sweep

__all__ = ["draw", "svg"]

# Okabe and Ito's colours, which tell apart for everybody.
_COLOURS: Final = {"classic": "#D55E00", "spf": "#0072B2"}
_OTHER_COLOUR: Final = "#666666"
"""Of kernels with neither handler."""
_SHARE_COLOURS: Final = dict(
    zip(SHARES, ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"), strict=True)
)
_STYLES: Final = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "v"))
"""Of the machines: how lines and points are drawn."""
_HANDLERS: Final = {"classic": "classic (mmap_sem)", "spf": "speculative"}
_WORDS: Final = {"elapsed": "elapsed time (s)", "faults/s": "page faults (faults/s)"}
_MAX_TICKS: Final = 12
_LEGEND_WIDTH: Final = 36
"""Characters of a line."""


def draw(table: Sweep, metric: str | None = None) -> Any:
    """Returns the figure of ``Sweep.figure``. Source: ours."""
    figures = library("matplotlib.figure")
    metric = chosen_metric(table.rows, metric)
    numbers = {row.ncpus for row in table.rows}
    # Farther out they would leave our own no room.
    others = [row for row in beside(table.rows) if min(numbers) <= row.ncpus <= max(numbers)]
    parts = shares(table.rows)
    # A figure of its own, not pyplot's: it needs no display, and nobody has to close it.
    figure = figures.Figure(figsize=(10, 8 if parts else 5), layout="constrained")
    axes = figure.subplots(2 if parts else 1, 1, squeeze=False, sharex=True)[:, 0]
    machines = list(dict.fromkeys(row.machine for row in table.rows))
    _draw_metric(axes[0], [row for row in table.rows if row.metric == metric], others, metric)
    if parts:
        _draw_shares(axes[1], parts, shares(others), machines)
    _cpu_axis(axes[-1], sorted(numbers))
    seeds = table.rows[-1].note.partition(";")[0]
    figure.suptitle(table.label.replace(PLACEHOLDER, "N"), fontsize=12, fontweight="bold")
    axes[0].set_title(f"{', '.join(machines)} · virtual time, {seeds}", fontsize=9, color="#444")
    return figure


def _draw_metric(axes: Any, rows: Sequence[Row], others: Sequence[Row], metric: str) -> None:
    machines = list(dict.fromkeys(row.machine for row in rows))
    for machine, style in zip(machines, _styles(len(machines)), strict=True):
        name = f"{machine}, " if len(machines) > 1 else ""
        for handler, colour in _COLOURS.items():
            points = [row for row in rows if (row.machine, row.variant) == (machine, handler)]
            if points:
                label = name + _HANDLERS[handler]
                _draw_line(axes, points, label, style, colour)
    for row in _grouped([row for row in others if row.metric == metric]):
        variant = row[0].variant
        who = _HANDLERS[variant].split()[0] if variant in _HANDLERS else variant
        label = f"{who}, measured: {_where(row[0])}"
        _draw_points(axes, row, label, _COLOURS.get(variant, _OTHER_COLOUR))
    axes.set_ylabel(_WORDS.get(metric, _unit_label(metric, rows)))
    top = max(row.value for row in (*rows, *others) if row.metric == metric)
    axes.set_ylim(0, 1.08 * top or 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    _finish(axes)


def _draw_shares(
    axes: Any, parts: dict[str, list[Row]], others: dict[str, list[Row]], machines: Sequence[str]
) -> None:
    for event, rows in parts.items():
        colour = _SHARE_COLOURS[event]
        for machine, style in zip(machines, _styles(len(machines)), strict=True):
            points = [row for row in rows if row.machine == machine]
            label = SHARES[event] + (f", {machine}" if len(machines) > 1 else "")
            if points:
                _draw_line(axes, points, label, style, colour)
        for group in _grouped(others.get(event, [])):
            _draw_points(axes, group, "", colour)
    measured = [row for event in parts for row in others.get(event, [])]
    for where in dict.fromkeys(_where(row) for row in measured):
        axes.plot([], [], "D", label=f"measured: {where}", **_hollow("#444"))
    axes.set_ylabel("share of all faults, spf run (%)")
    # Aborts are a few in a hundred, or in a thousand.
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_yticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
    axes.set_ylim(-0.02, 160)
    _finish(axes)


def _styles(number: int) -> list[tuple[str, str]]:
    return [_STYLES[place % len(_STYLES)] for place in range(number)]


def _draw_line(
    axes: Any, points: Sequence[Row], label: str, style: tuple[str, str], colour: str
) -> None:
    spread = [row.value * (row.stddev_pct or 0) / 100 for row in points]
    axes.errorbar(
        [row.ncpus for row in points],
        [row.value for row in points],
        yerr=spread if any(spread) else None,
        linestyle=style[0],
        marker=style[1],
        color=colour,
        markersize=4.5,
        linewidth=1.6,
        capsize=3,
        label=label,
    )


def _draw_points(axes: Any, points: Sequence[Row], label: str, colour: str) -> None:
    numbers = [row.ncpus for row in points]
    axes.plot(numbers, [row.value for row in points], "D", label=label, **_hollow(colour))


def _hollow(colour: str) -> dict[str, Any]:
    return {
        "markersize": 8,
        "markerfacecolor": "none",
        "markeredgecolor": colour,
        "markeredgewidth": 1.8,
        "color": colour,
    }


def _grouped(rows: Iterable[Row]) -> list[list[Row]]:
    """Returns the published rows by who measured what on which computers."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.variant, _where(row)), []).append(row)
    return list(groups.values())


def _where(row: Row) -> str:
    """Returns a word on a published row's origin: which cover letter, or who, and the computer."""
    origin = "v12" if "(v12 cover" in row.source else "v11" if "(v11 cover" in row.source else ""
    computer = row.note.partition(",")[0]
    return f"{origin} cover letter, {computer}" if origin else computer


def _unit_label(metric: str, rows: Sequence[Row]) -> str:
    unit = rows[0].unit if rows else ""
    return metric if unit == metric else f"{metric} ({unit})"


def _cpu_axis(axes: Any, numbers: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    ticks = [number for number in numbers if number & (number - 1) == 0]
    # A number between powers of two is written where it does not run into its neighbours.
    room = max(0.4, math.log2(numbers[-1] / numbers[0]) / 16)
    for number in numbers:
        if all(abs(math.log2(number / tick)) > room for tick in ticks):
            ticks.append(number)
    if not 2 <= len(ticks) <= _MAX_TICKS:
        ticks = list(numbers[:: max(1, len(numbers) // _MAX_TICKS)])
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(numbers[0] / 1.15, numbers[-1] * 1.15)
    axes.set_xlabel("CPUs")


def _finish(axes: Any) -> None:
    axes.grid(visible=True, color="#ddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    # Ours first; matplotlib has lines with error bars after all others.
    order = sorted(range(len(labels)), key=lambda place: "measured: " in labels[place])
    texts = [textwrap.fill(labels[place], _LEGEND_WIDTH) for place in order]
    chosen = [handles[place] for place in order], texts
    # Beside the plot, where it hides nothing.
    axes.legend(*chosen, fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1))


def svg(figure: Any) -> str:
    """Returns a figure as an element of a page, the same bytes each time. Source: ours."""
    out = io.StringIO()
    # Names within the picture are random, and it has a date, unless told otherwise.
    with library("matplotlib").rc_context({"svg.hashsalt": "spfemu"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
