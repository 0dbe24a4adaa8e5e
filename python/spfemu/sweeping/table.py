"""The table that a sweep gives: tidy rows, and the forms that other libraries take."""

from __future__ import annotations

import csv
import importlib
import io
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from spfemu.data import Row
from spfemu.errors import EngineError, ProgramError
from spfemu.profiles import arch
from spfemu.program.values import shown
from spfemu.sweeping.cells import PLACEHOLDER, Cell, Outcome
from spfemu.sweeping.overview import chosen_metric, overview

__all__ = ["SUFFIXES", "Sweep", "check_suffix", "library", "make_rows"]

SUFFIXES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        ".csv": (),
        ".parquet": ("pyarrow", "pandas"),
        ".html": ("matplotlib",),
        ".png": ("matplotlib",),
    }
)
"""What a sweep can be written as, and what each needs beyond the package itself."""

_UNAME: Final = {"x86": "x86_64", "powerpc": "ppc64le", "arm64": "aarch64"}
_NS: Final = 1_000_000_000


def library(name: str) -> Any:
    """Returns a library that the package does not depend on.

    Source: ours. Raises EngineError, saying how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        top = name.partition(".")[0]
        package = "polars" if top == "polars" else "spfemu[sweep]"
        raise EngineError(f"{top} is not installed; pip install {package}") from None


def check_suffix(path: str | Path) -> str:
    """Returns the suffix of an output, which says what is written.

    Source: ours. Raises EngineError for another one, and where a library for it is missing.
    """
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise EngineError(f"{path}: suffix {shown(suffix)} (allowed: {', '.join(SUFFIXES)})")
    for name in SUFFIXES[suffix]:
        library(name)
    return suffix


def make_rows(finished: Iterable[tuple[Cell, Outcome]], version: str) -> tuple[Row, ...]:
    """Returns the rows of finished cells: by machine, CPUs, handler and metric.

    Source: ours. Values are means over seeds, ``stddev_pct`` the sample standard deviation.
    """
    groups: dict[tuple[str, int, str], list[tuple[Cell, Outcome]]] = {}
    for cell, outcome in finished:
        groups.setdefault((cell.machine.name, cell.cpus, cell.handler), []).append((cell, outcome))
    return tuple(row for group in groups.values() for row in _rows_of(group, version))


def _rows_of(group: Sequence[tuple[Cell, Outcome]], version: str) -> Iterator[Row]:
    cell, first = group[0]
    seeds = [one.seed for one, _ in group]
    note = f"seed {seeds[0]}"
    if len(seeds) > 1:
        note = f"mean of {len(seeds)} runs, seeds {seeds[0]} to {seeds[-1]}"
    if cell.tree != "rcu":
        note += f", tree {cell.tree}"
    if stuck := sorted({name for _, outcome in group for name in outcome["stuck"]}):
        note += f"; tasks that wait for ever: {', '.join(stuck)}"
    metrics = [_metrics(outcome) for _, outcome in group]
    for metric, unit in metrics[0]:
        values = [one[metric, unit] for one in metrics]
        mean = statistics.fmean(values)
        spread = None
        if len(values) > 1 and mean:
            spread = 100 * statistics.stdev(values) / mean
        yield Row(
            source=f"spfemu {version}, virtual time",
            machine=cell.machine.name,
            arch=_UNAME[arch(cell.machine.arch).family],
            ncpus=cell.cpus,
            benchmark=cell.workload.label.replace(PLACEHOLDER, "<nrcpus>"),
            variant=cell.handler,
            metric=metric,
            value=mean,
            unit=unit,
            threads=first["threads"],
            stddev_pct=spread,
            note=note,
        )


_UNITS: Final[Mapping[str, str]] = {
    "elapsed_s": "s",
    "user_s": "s",
    "launch_s": "s",
    "faults_per_cpu": "faults/s",
}
"""Of the workloads' figures that are not counts or rates."""


def _metrics(outcome: Outcome) -> dict[tuple[str, str], float]:
    """Returns the figures of a run by (metric, unit), the workload's own first."""
    seconds = outcome["elapsed_ns"] / _NS
    metrics: dict[tuple[str, str], float] = {}
    for name, value in outcome["figures"].items():
        shown_name = name.replace("_per_s", "/s")
        metrics[shown_name, _UNITS.get(shown_name, shown_name)] = float(value)
    metrics["elapsed", "s"] = seconds
    # pft has a rate of its own, of its regions alone.
    every = outcome["counters"]["faults"] / seconds if seconds else 0.0
    metrics.setdefault(("faults/s", "faults/s"), every)
    for event, count in outcome["counters"].items():
        metrics[f"count:{event.removeprefix('pagefault:')}", "events"] = float(count)
    return metrics


@dataclass(frozen=True, slots=True)
class Sweep:
    """The table of a sweep.

    Source: ours. ``rows`` are tidy: one number each, by machine, CPUs, handler and metric. Metrics
    are the workload's own (as ``records/s``), ``elapsed`` in seconds, ``faults/s``, and
    ``count:EVENT`` for each counter, without ``pagefault:``. ``label`` is the workload's command.

    >>> import spfemu
    >>> table = spfemu.sweep("brk1 -t {cpus} -s 1e-4", cpus=[1, 2], jobs=1)
    >>> table.to_dicts()[0]["metric"], table.metrics()[:3]
    ('operations', ['operations', 'operations/s', 'elapsed'])
    """

    rows: tuple[Row, ...]
    label: str

    def to_dicts(self) -> list[dict[str, Any]]:
        """Returns the rows as dictionaries, which any table library takes. Source: ours."""
        return [row._asdict() for row in self.rows]

    def metrics(self) -> list[str]:
        """Returns the metrics there are, in the rows' order. Source: ours."""
        return list(dict.fromkeys(row.metric for row in self.rows))

    def stuck(self) -> list[str]:
        """Returns what the notes say of tasks that wait for ever. Source: ours."""
        notes = (row.note.partition("; ")[2] for row in self.rows)
        return list(dict.fromkeys(note for note in notes if note))

    def overview(self) -> tuple[list[str], list[list[str]]]:
        """Returns the head and the lines of a small table for people.

        Source: ours. A line for each machine and number of CPUs: the workload's rate with each
        handler, the ratio, and how the faults of the spf run ended.
        """
        return overview(self.rows, chosen_metric(self.rows))

    def to_csv(self) -> str:
        """Returns the rows as CSV, a head first; an empty field is a number not there.

        Source: RFC 4180, with newlines.
        """
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(Row._fields)
        for row in self.rows:
            writer.writerow(row._replace(value=_plain(row.value)))
        return out.getvalue()

    def to_pandas(self) -> Any:
        """Returns the rows as a ``pandas.DataFrame``.

        Source: ours. Raises EngineError where pandas is not installed.
        """
        frame = library("pandas").DataFrame(list(self.rows), columns=list(Row._fields))
        return frame.astype({"value": "float64", "stddev_pct": "float64"})

    def to_polars(self) -> Any:
        """Returns the rows as a ``polars.DataFrame``.

        Source: ours. Raises EngineError where polars is not installed.
        """
        polars = library("polars")
        schema = dict.fromkeys(Row._fields, polars.String)
        schema |= {"ncpus": polars.Int64, "threads": polars.Int64}
        schema |= {"value": polars.Float64, "stddev_pct": polars.Float64}
        return polars.DataFrame(self.to_dicts(), schema=schema)

    def to_xarray(self) -> Any:
        """Returns an ``xarray.Dataset`` with a variable for each metric.

        Source: ours. Each is float64, shape (machine, variant, ncpus), with its unit in
        ``attrs["unit"]``; NaN where there is no such cell. ``records/s`` is ``records_per_s``,
        ``count:spf`` is ``count_spf``. ``threads`` is a coordinate of ncpus; with ``repeat`` each
        has a second variable, ``records_per_s_stddev_pct``. Raises EngineError where xarray is not
        installed.
        """
        from spfemu.sweeping.labelled import dataset

        return dataset(self.rows, self.label)

    def figure(self, metric: str | None = None) -> Any:
        """Returns a ``matplotlib`` figure: a metric over CPUs, and how faults ended.

        Source: ours. ``metric`` is one of ``metrics()`` (default: the workload's rate, else
        ``faults/s``). Published points of the same machine and benchmark are drawn beside ours.
        Raises EngineError where matplotlib is not installed, and for an unknown metric.
        """
        from spfemu.sweeping.plot import draw

        return draw(self, metric)

    def save(self, path: str | Path) -> None:
        """Writes the table: .csv, .parquet, .html (a page with the plot) or .png (the plot).

        Source: ours. Raises EngineError for another suffix or a missing library, ProgramError for
        a file that cannot be written.
        """
        write = _WRITERS[check_suffix(path)]
        try:
            Path(path).write_bytes(write(self))
        except OSError as error:
            raise ProgramError(f"{path}: cannot be written: {error.strerror}") from None


def _plain(value: float) -> float | int:
    return int(value) if value.is_integer() else value


def _csv(table: Sweep) -> bytes:
    return table.to_csv().encode()


def _parquet(table: Sweep) -> bytes:
    out = io.BytesIO()
    table.to_pandas().to_parquet(out, engine="pyarrow", index=False)
    return out.getvalue()


def _html(table: Sweep) -> bytes:
    from spfemu.sweeping.page import page

    return page(table).encode()


def _png(table: Sweep) -> bytes:
    out = io.BytesIO()
    table.figure().savefig(out, format="png", dpi=150)
    return out.getvalue()


_WRITERS: Final[Mapping[str, Callable[[Sweep], bytes]]] = MappingProxyType(
    {".csv": _csv, ".parquet": _parquet, ".html": _html, ".png": _png}
)
