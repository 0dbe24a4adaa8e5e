"""What ``stat`` and ``run`` tell of a run in virtual time beyond its counts: trace and locks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TextIO, TypeAlias

import typer

from spfemu.cli.output import check_is_file, check_output
from spfemu.cli.tables import print_table
from spfemu.errors import EngineError
from spfemu.lock_stat import LockStat
from spfemu.results import Result

if TYPE_CHECKING:
    from spfemu.cli.counts import Series

__all__ = [
    "LockStatOption",
    "PerfettoOption",
    "check_course",
    "print_lock_stat",
    "separated_lock_stat",
    "write_course",
]

_HOTTEST: Final = 10
_NS: Final = 1_000_000_000

PerfettoOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Vtime: write what each CPU did as a trace for ui.perfetto.dev.",
    ),
]
LockStatOption: TypeAlias = Annotated[
    bool,
    typer.Option("--lock-stat", help="Vtime: show the ten hottest locks and cache lines."),
]


def check_course(
    engine: str,
    repeat: int,
    perfetto: Path | None,
    lock_stat: bool,
    *others: str | Path | None,
) -> None:
    """Refuses what cannot be told of a run, and a trace that is another file too.

    Source: ours. Raises EngineError or ProgramError.
    """
    for option, is_given in (("--perfetto", perfetto is not None), ("--lock-stat", lock_stat)):
        if is_given and engine != "vtime":
            raise EngineError(f"{option}: engine {engine} (allowed: vtime)")
        if is_given and repeat > 1:
            raise EngineError(f"{option}: -r {repeat} (allowed: one run)")
    if perfetto is not None:
        from spfemu.perfetto import check_perfetto

        check_perfetto()
        check_is_file("--perfetto", perfetto)
        check_output(perfetto, *others)


def write_course(perfetto: Path | None, results: Sequence[Result]) -> None:
    """Writes the trace of some runs, and says on standard error if one did not fit.

    Source: ours. Raises ProgramError.
    """
    if perfetto is None:
        return
    from spfemu.perfetto import write_perfetto

    write_perfetto(results, perfetto)
    for result in results:
        if result.spans_cut:
            until = int(result.spans["time_ns"].max()) / _NS
            told = f"{until:.6f} of {result.elapsed_ns / _NS:.6f} seconds with {result.handler}"
            print(
                f"spfemu: {perfetto}: the first {told} only: {len(result.spans):,} entries",
                file=sys.stderr,
            )


def print_lock_stat(handler: str, found: LockStat, out: TextIO) -> None:
    """Writes the hottest locks of a run as a table. Source: /proc/lock_stat, for the columns."""
    lost = [lock for lock in found.locks if lock.lost_ns][:_HOTTEST]
    if not lost:
        print(f" Nobody waited in the {handler} run.\n", file=out)
        return
    seconds = found.task_ns / _NS
    print(f" Waits of the {handler} run; its tasks took {seconds:.6f} seconds:\n", file=out)
    headers = ["acquired", "contended", "wait-ms", "fetched", "fetch-ms", "share", "lock or word"]
    rows = [
        [
            f"{lock.acquisitions:,}" if lock.acquisitions else "",
            f"{lock.contended:,}" if lock.acquisitions or lock.contended else "",
            f"{lock.wait_ns / 1e6:,.3f}" if lock.contended else "",
            f"{lock.fetches:,}",
            f"{lock.fetch_ns / 1e6:,.3f}",
            f"{100 * found.share(lock.lost_ns):.2f}%",
            lock.name,
        ]
        for lock in lost
    ]
    last = len(headers) - 1
    print_table(headers, rows, right=range(last), title=last, file=out)
    print(file=out)


def separated_lock_stat(series: Sequence[Series], separator: str, out: TextIO) -> None:
    """Writes value, unit, ``lock:NAME:WHAT`` and handler, as ``-x`` does. Source: perf-stat(1)."""
    for one in series:
        found = one.results[0].lock_stat
        for lock in () if found is None else found.locks[:_HOTTEST]:
            told: dict[str, tuple[Any, str]] = {
                "acquired": (lock.acquisitions, ""),
                "contended": (lock.contended, ""),
                "wait": (lock.wait_ns, "ns"),
                "fetched": (lock.fetches, ""),
                "fetch": (lock.fetch_ns, "ns"),
            }
            for what, (value, unit) in told.items():
                fields = [str(value), unit, f"lock:{lock.name}:{what}", one.handler]
                print(separator.join(fields), file=out)
