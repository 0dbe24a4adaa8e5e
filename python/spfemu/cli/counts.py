"""How ``stat`` writes what it counted: as ``perf stat``, as separated fields, as JSON."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TextIO

from spfemu.cli.course import print_lock_stat, separated_lock_stat
from spfemu.cli.output import counted
from spfemu.cli.sites import Group, no_event
from spfemu.cli.tables import print_table, terminal_width
from spfemu.results import RESULT_FORMAT, Result

__all__ = ["Series", "print_separated", "print_text", "to_json"]

_TOP_GROUPS: Final = 20
_WIDTH: Final = 80
"""Text does not become wider than this."""
_NO_EVENT: Final = (
    "they were not tried (the kernel faulted on the program's behalf, or the address space had no "
    "other user, or the sysctl was off), or given up where v12 says nothing (no mapping there; "
    "rare races)."
)
_NS: Final = 1_000_000_000


@dataclass(slots=True)
class Series:
    """The runs of one handler, one for each repetition, and the workload's figures of each."""

    handler: str
    results: list[Result] = field(default_factory=list)
    figures: list[dict[str, int | float]] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)

    def counts(self, event: str) -> list[float]:
        """Returns an event's count in each run. Source: ours."""
        return [float(result.counters[event]) for result in self.results]

    def seconds(self) -> list[float]:
        """Returns how long each run took. Source: ours."""
        return [result.elapsed_ns / _NS for result in self.results]

    def figure(self, name: str) -> list[float]:
        """Returns a figure of the workload in each run. Source: ours."""
        return [float(figures[name]) for figures in self.figures]


def to_json(series: Sequence[Series], by: str | None) -> dict[str, Any]:
    """Returns all runs as JSON values. Source: the command line's page."""
    runs = []
    for one in series:
        for result, figures in zip(one.results, one.figures, strict=True):
            entry: dict[str, Any] = {
                "handler": one.handler,
                "seed": result.seed,
                "counters": dict(result.counters),
                "elapsed_ns": result.elapsed_ns,
                "result": figures or None,
                "stuck": list(result.stuck),
            }
            if one.handler == "spf":
                entry["no_event"] = no_event(result)
            if result.lock_stat is not None:
                entry["lock_stat"] = result.lock_stat.to_json()
            runs.append(entry)
        if one.groups:
            runs[-len(one.results)]["by"] = {by: [group.to_json() for group in one.groups]}
    last = series[-1].results[0]
    return {
        "format": RESULT_FORMAT,
        "version": last.version,
        "engine": last.engine,
        "handler": "both" if len(series) > 1 else last.handler,
        "arch": last.arch,
        "machine": last.machine,
        "seed": last.seed,
        "elapsed_ns": last.elapsed_ns,
        "counters": dict(last.counters),
        "settings": dict(last.settings),
        "runs": runs,
    }


def _deviation(values: Sequence[float]) -> float:
    """Returns the standard error of the mean in percent of the mean, as perf's ``+-``."""
    mean = statistics.fmean(values)
    if len(values) < 2 or not mean:
        return 0.0
    return 100 * statistics.stdev(values) / math.sqrt(len(values)) / mean


def print_separated(
    series: Sequence[Series], events: Sequence[str], separator: str, out: TextIO
) -> None:
    """Writes value, unit, name, handler and, with -r, the deviation; a line for each.

    Source: perf-stat(1), ``-x``.
    """
    for one in series:
        lines = [(f"{statistics.fmean(one.counts(e)):.0f}", "", e, one.counts(e)) for e in events]
        seconds = one.seconds()
        mean_ns = statistics.fmean(seconds) * _NS
        lines.append((f"{mean_ns:.0f}", "ns", "elapsed", seconds))
        for name in one.figures[0]:
            values = one.figure(name)
            lines.append((f"{statistics.fmean(values):.10g}", "", name, values))
        for value, unit, name, values in lines:
            fields = [value, unit, name, one.handler]
            if len(values) > 1:
                fields.append(f"{_deviation(values):.2f}%")
            print(separator.join(fields), file=out)
    separated_lock_stat(series, separator, out)


def print_text(
    label: str, series: Sequence[Series], events: Sequence[str], by: str | None, out: TextIO
) -> None:
    """Writes a head, the counts of one handler or of both side by side, and what there is to say.

    Source: perf-stat(1). ``label`` is the workload's; ``by`` what the groups are of.
    """
    result = series[0].results[0]
    where = ", ".join(
        [result.engine, *([] if len(series) > 1 else [series[0].handler]), result.arch]
    )
    # On native each task is a thread, also one that only starts the others, and has a CPU.
    what = "thread" if result.engine == "native" else "CPU"
    cpus = counted(result.settings["cpus"], what)
    repeats = len(series[0].results)
    times = f" ({repeats} runs)" if repeats > 1 else ""
    print(f"\n Performance counter stats for '{label}' [{where}, {cpus}]{times}:\n", file=out)
    if len(series) == 1:
        _print_one(series[0], events, out)
    else:
        _print_both(series[0], series[1], events, out)
    for one in series:
        if one.handler == "spf":
            _print_no_event(one.results, out)
            if by is not None:
                _print_groups(by, one.groups, out)
    for one in series:
        if (found := one.results[0].lock_stat) is not None:
            print_lock_stat(one.handler, found, out)


def _print_no_event(results: Sequence[Result], out: TextIO) -> None:
    """Says how many faults no event accounts for: perf cannot, for nothing was counted."""
    count = statistics.fmean(no_event(result) for result in results)
    faults = statistics.fmean(result.counters["faults"] for result in results)
    if count:
        text = f"{count:,.0f} of the {faults:,.0f} faults with spf have no event: {_NO_EVENT}"
        width = min(terminal_width(out) or _WIDTH, _WIDTH)
        print(textwrap.fill(text, width, initial_indent=" ", subsequent_indent=" "), file=out)
        print(file=out)


def _print_one(one: Series, events: Sequence[str], out: TextIO) -> None:
    def line(text: str, name: str, values: Sequence[float]) -> None:
        spread = f"  ( +- {_deviation(values):5.2f}% )" if len(values) > 1 else ""
        print(f"{text:>18}      {name:<28}{spread}".rstrip(), file=out)

    for event in events:
        counts = one.counts(event)
        line(f"{statistics.fmean(counts):,.0f}", event, counts)
    print(file=out)
    for name in one.figures[0]:
        values = one.figure(name)
        line(_figure_text(name, statistics.fmean(values)), _figure_name(name), values)
    seconds = one.seconds()
    line(f"{statistics.fmean(seconds):.9f}", "seconds time elapsed", seconds)
    print(file=out)


def _print_both(classic: Series, spf: Series, events: Sequence[str], out: TextIO) -> None:
    rows = []

    def row(name: str, left: list[float], right: list[float], text: Any) -> None:
        means = statistics.fmean(left), statistics.fmean(right)
        ratio = f"{means[1] / means[0]:.3f}" if means[0] else ""
        cells = [text(means[0]), text(means[1]), ratio, name]
        if len(left) > 1:
            cells += [f"{_deviation(left):.2f}%", f"{_deviation(right):.2f}%"]
        rows.append(cells)

    for event in events:
        row(event, classic.counts(event), spf.counts(event), lambda mean: f"{mean:,.0f}")
    for name in classic.figures[0]:
        row(
            _figure_name(name),
            classic.figure(name),
            spf.figure(name),
            lambda mean, name=name: _figure_text(name, mean),
        )
    row("seconds time elapsed", classic.seconds(), spf.seconds(), lambda mean: f"{mean:.9f}")
    headers = ["classic", "spf", "spf/classic", "event"]
    if len(classic.results) > 1:
        headers += ["classic +-", "spf +-"]
    print_table(headers, rows, right=(0, 1, 2, 4, 5), title=3, min_width=14, file=out)
    print(file=out)


def _figure_name(name: str) -> str:
    return name.replace("_per_", "/")


def _figure_text(name: str, value: float) -> str:
    if "_per_" in name:
        return f"{value:,.2f}"
    return f"{value:,.3f}" if name.endswith("_s") else f"{value:,.0f}"


def _print_groups(by: str, groups: Sequence[Group], out: TextIO) -> None:
    aborting = [group for group in groups if group.aborts]
    if not aborting:
        print(" No attempt of the spf run was aborted.\n", file=out)
        return
    shown = aborting[:_TOP_GROUPS]
    print(f" Aborts of the spf run by {by}:\n", file=out)
    headers = ["aborts", "faults", "spf", *Group.REASONS, by]
    rows = [
        [
            f"{group.aborts:,}",
            f"{group.faults:,}",
            f"{group.spf:,}",
            *(f"{group.reasons[reason]:,}" for reason in Group.REASONS),
            group.name,
        ]
        for group in shown
    ]
    last = len(headers) - 1
    print_table(headers, rows, right=range(last), title=last, file=out)
    if len(aborting) > len(shown):
        print(f" … and {len(aborting) - len(shown):,} more (all with --json)", file=out)
    print(file=out)
