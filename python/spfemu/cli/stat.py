"""``spfemu stat``: runs a workload and prints counters as ``perf stat`` does."""

from __future__ import annotations

import contextlib
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, TextIO

import typer

from spfemu.cli.choices import event_choices, machine_choices, select_events
from spfemu.cli.options import ArchOption, JsonOption, PaceOption, SeedOption
from spfemu.cli.output import check_output, print_json, progress_bar
from spfemu.cli.sites import GROUPS, Group, group_aborts, not_tried, not_tried_text
from spfemu.cli.sources import Source, find_source
from spfemu.cli.tables import print_table
from spfemu.engines import core_list, one_of, run
from spfemu.errors import EngineError, ProgramError
from spfemu.profiles import Arch
from spfemu.profiles import arch as arch_by_name
from spfemu.results import RESULT_FORMAT, Result
from spfemu.workloads import WORKLOADS

__all__ = ["register"]

ENGINES: Final = ("vtime", "native")
HANDLERS: Final = ("both", "classic", "spf")
_TOP_GROUPS: Final = 20
_NS: Final = 1_000_000_000

_EXAMPLE: Final = "Example: spfemu stat -e 'faults,spf,pagefault:*' -- ebizzy -mTt 8 -S 0.2"


@dataclass(frozen=True, slots=True)
class _Settings:
    """What the options of one ``stat`` come to."""

    engine: str
    handlers: tuple[str, ...]
    profile: Arch
    machine: str | None
    cpus: int | None
    seed: int
    repeat: int
    by: str | None
    pace: bool


@dataclass(slots=True)
class _Series:
    """The runs of one handler, one for each repetition, and the workload's figures of each."""

    handler: str
    results: list[Result] = field(default_factory=list)
    figures: list[dict[str, int | float]] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)

    def counts(self, event: str) -> list[float]:
        return [float(result.counters[event]) for result in self.results]

    def seconds(self) -> list[float]:
        return [result.elapsed_ns / _NS for result in self.results]

    def figure(self, name: str) -> list[float]:
        return [float(figures[name]) for figures in self.figures]


_Workload = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="-- WORKLOAD [ARGS]",
        help="A built-in workload with its options, a program or trace file, or -.",
        autocompletion=lambda: list(WORKLOADS),
    ),
]
_Events = Annotated[
    list[str] | None,
    typer.Option(
        "-e",
        "--event",
        metavar="EVENTS",
        help="Events, separated by commas; perf's globs and aliases.",
        autocompletion=event_choices,
    ),
]
_Repeat = Annotated[
    int, typer.Option("-r", "--repeat", min=1, help="Repeat with other seeds: mean and deviation.")
]
_Separator = Annotated[
    str | None,
    typer.Option("-x", "--field-separator", metavar="SEP", help="Fields separated by SEP."),
]
_Output = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to a file.")
]
_Engine = Annotated[str, typer.Option(metavar="vtime|native", autocompletion=lambda: list(ENGINES))]
_Handler = Annotated[
    str, typer.Option(metavar="both|classic|spf", autocompletion=lambda: list(HANDLERS))
]
_Machine = Annotated[str | None, typer.Option(metavar="MACHINE", autocompletion=machine_choices)]
_Cpus = Annotated[
    int | None, typer.Option(min=1, help="CPUs (default: as many as the workload's threads).")
]
_By = Annotated[
    str | None,
    typer.Option(
        metavar="vma|comm|ip",
        help="Break the aborts down by mapping, thread name or instruction.",
        autocompletion=lambda: list(GROUPS),
    ),
]


def stat(
    workload: _Workload = None,
    event: _Events = None,
    repeat: _Repeat = 1,
    separator: _Separator = None,
    output: _Output = None,
    engine: _Engine = "vtime",
    handler: _Handler = "both",
    arch: ArchOption = "x86",
    machine: _Machine = None,
    cpus: _Cpus = None,
    by: _By = None,
    seed: SeedOption = 0,
    pace: PaceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a workload and print its counters, classic and speculative side by side."""
    events = select_events(event or [])
    settings = _settings(engine, handler, arch, machine, cpus, seed, repeat, by, pace)
    if not workload:
        raise ProgramError("no workload; give one after --, as in: spfemu stat -- ebizzy -mTt 8")
    check_output(output)
    source = find_source(workload, _known_cpus(settings))
    series = _run_all(settings, source, quiet=as_json)
    with _opened(output) as out:
        if as_json:
            print_json(_json(settings, series), out)
        elif separator is not None:
            _print_separated(series, events, separator, out)
        else:
            _print_text(settings, source, series, events, out)
    stuck = sorted({name for one in series for result in one.results for name in result.stuck})
    if stuck:
        print(f"spfemu: tasks that wait for ever: {', '.join(stuck)}", file=sys.stderr)
        raise typer.Exit(1)


def _settings(
    engine: str,
    handler: str,
    arch: str,
    machine: str | None,
    cpus: int | None,
    seed: int,
    repeat: int,
    by: str | None,
    pace: bool,
) -> _Settings:
    one_of("engine", engine, ENGINES)
    one_of("handler", handler, HANDLERS)
    if machine is not None:
        one_of("machine", machine, [entry["name"] for entry in core_list("machines")])
    if by is not None:
        one_of("--by", by, GROUPS)
        if handler == "classic":
            raise EngineError("--by: the classic handler aborts nothing (allowed: both, spf)")
    handlers = ("classic", "spf") if handler == "both" else (handler,)
    profile = arch_by_name(arch)
    return _Settings(engine, handlers, profile, machine, cpus, seed, repeat, by, pace)


def _known_cpus(settings: _Settings) -> int | None:
    """Returns the CPUs that the user, or the machine the user named, says there are."""
    if settings.cpus is not None or settings.machine is None:
        return settings.cpus
    machines = {entry["name"]: entry for entry in core_list("machines")}
    return int(machines[settings.machine]["cpus"])


def _run_all(settings: _Settings, source: Source, *, quiet: bool) -> list[_Series]:
    cpus = _known_cpus(settings) or source.cpus
    series = [_Series(handler) for handler in settings.handlers]
    nr_runs = len(series) * settings.repeat
    done = 0
    with progress_bar(source.label, quiet=quiet) as progress:
        for number in range(settings.repeat):
            program = source.program(settings.profile.page_size, settings.seed + number)
            for one in series:
                share = None
                if progress is not None:
                    share = lambda part, done=done: progress((done + part) / nr_runs)  # noqa: E731
                result = run(
                    program,
                    engine=settings.engine,
                    handler=one.handler,
                    arch=settings.profile,
                    machine=settings.machine,
                    seed=settings.seed + number,
                    cpus=cpus,
                    pace=settings.pace,
                    record=settings.by is not None and one.handler == "spf",
                    progress=share,
                )
                one.results.append(result)
                one.figures.append(source.figures(result))
                done += 1
    for one in series:
        if settings.by is not None and one.handler == "spf":
            one.groups = group_aborts(one.results[0], settings.by)
    return series


@contextlib.contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    try:
        with path.open("w", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise ProgramError(f"{path}: cannot be written: {error.strerror}") from None


def _json(settings: _Settings, series: Sequence[_Series]) -> dict[str, Any]:
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
                entry["not_tried"] = not_tried(result)
            runs.append(entry)
        if one.groups:
            runs[-len(one.results)]["by"] = {settings.by: [group.to_json() for group in one.groups]}
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


def _print_separated(
    series: Sequence[_Series], events: Sequence[str], separator: str, out: TextIO
) -> None:
    """Writes value, unit, name, handler and, with -r, the deviation; a line for each."""
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


def _print_text(
    settings: _Settings,
    source: Source,
    series: Sequence[_Series],
    events: Sequence[str],
    out: TextIO,
) -> None:
    result = series[0].results[0]
    where = ", ".join(
        [settings.engine, *([] if len(series) > 1 else [series[0].handler]), result.arch]
    )
    cpus = _known_cpus(settings) or source.cpus
    times = f" ({settings.repeat} runs)" if settings.repeat > 1 else ""
    print(
        f"\n Performance counter stats for '{source.label}' [{where}, {cpus} CPUs]{times}:\n",
        file=out,
    )
    if len(series) == 1:
        _print_one(series[0], events, out)
    else:
        _print_both(series[0], series[1], events, out)
    for one in series:
        if one.handler == "spf":
            out.write(not_tried_text(one.results))
        if one.groups:
            _print_groups(settings.by or "", one.groups, out)


def _print_one(one: _Series, events: Sequence[str], out: TextIO) -> None:
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


def _print_both(classic: _Series, spf: _Series, events: Sequence[str], out: TextIO) -> None:
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
    return name.replace("_per_s", "/s")


def _figure_text(name: str, value: float) -> str:
    return f"{value:,.2f}" if name.endswith("_per_s") else f"{value:,.0f}"


def _print_groups(by: str, groups: Sequence[Group], out: TextIO) -> None:
    shown = groups[:_TOP_GROUPS]
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
    if len(groups) > len(shown):
        print(f" … and {len(groups) - len(shown):,} more (all with --json)", file=out)
    print(file=out)


def register(app: typer.Typer) -> None:
    """Adds ``stat`` to the command line. Source: the command line's page."""
    app.command(epilog=_EXAMPLE, context_settings={"allow_interspersed_args": False})(stat)
