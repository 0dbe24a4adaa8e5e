"""``spfemu stat``: runs a workload and prints counters as ``perf stat`` does."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, TextIO

import typer

from spfemu.cli.choices import (
    arch_choices,
    event_choices,
    machine_choices,
    select_events,
)
from spfemu.cli.counts import Series, print_separated, print_text, to_json
from spfemu.cli.course import (
    LockStatOption,
    PerfettoOption,
    check_course,
    write_course,
)
from spfemu.cli.options import HandlersOption, JsonOption, PaceOption, SeedOption, TreeOption
from spfemu.cli.output import check_output, print_json, progress_bar
from spfemu.cli.sites import GROUPS, group_aborts
from spfemu.engines import SIDE_BY_SIDE, check_tree, one_of, run
from spfemu.errors import EngineError, ProgramError
from spfemu.machines import Machine, find_machine, is_machine_file
from spfemu.profiles import Arch
from spfemu.profiles import arch as arch_by_name
from spfemu.sources import Source, find_source, workload_usage
from spfemu.tracing import trace_lines
from spfemu.workloads import WORKLOADS

__all__ = ["register"]

ENGINES: Final = ("vtime", "native")
_EXAMPLE: Final = "Example: spfemu stat -e 'faults,spf' --lock-stat -- ebizzy -mTt 8 -S 0.2"


@dataclass(frozen=True, slots=True)
class _Settings:
    """What the options of one ``stat`` come to."""

    engine: str
    handlers: tuple[str, ...]
    profile: Arch
    machine: Machine | None
    cpus: int | None
    seed: int
    repeat: int
    by: str | None
    pace: bool
    trace: bool = False
    tree: str = "rcu"
    spans: bool = False
    lock_stat: bool = False


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
    int,
    typer.Option(
        "-r", "--repeat", min=1, metavar="N", help="Repeat with other seeds: mean and deviation."
    ),
]
_Separator = Annotated[
    str | None,
    typer.Option("-x", "--field-separator", metavar="SEP", help="Fields separated by SEP."),
]
_Output = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to a file.")
]
_Engine = Annotated[
    str,
    typer.Option(
        metavar="vtime|native",
        help="Virtual time on an emulated machine, or real threads of this host.",
        autocompletion=lambda: list(ENGINES),
    ),
]
_Arch = Annotated[
    str | None,
    typer.Option(
        metavar="ARCH", help="Arch profile (default: the machine's).", autocompletion=arch_choices
    ),
]
_Machine = Annotated[
    str | None,
    typer.Option(
        metavar="MACHINE",
        help="Emulated machine, of 'spfemu machines' or a .toml file (default: the arch's).",
        autocompletion=machine_choices,
    ),
]
_Cpus = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="CPUs (default: what the recording had, or one for each thread)."
    ),
]
_Trace = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write what the tracepoints of the spf run record, as ftrace's text; - is here.",
    ),
]
_Replicate = Annotated[
    int,
    typer.Option(
        min=1, metavar="N", help="N copies of a program's threads, in one process, on N x the CPUs."
    ),
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
    handler: HandlersOption = "both",
    tree: TreeOption = "rcu",
    arch: _Arch = None,
    machine: _Machine = None,
    cpus: _Cpus = None,
    by: _By = None,
    replicate: _Replicate = 1,
    trace: _Trace = None,
    perfetto: PerfettoOption = None,
    lock_stat: LockStatOption = False,
    seed: SeedOption = 0,
    pace: PaceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Count a workload's faults with both handlers.

    Prints the counters of the classic and of the speculative run side by side, elapsed time, and
    the workload's own figures.
    """
    events = select_events(event or [])
    if not workload:
        raise ProgramError("no workload; give one after --, as in: spfemu stat -- ebizzy -mTt 8")
    if (usage := workload_usage(workload)) is not None:
        print(usage)
        return
    if separator is not None:
        _check_separator(separator, by, as_json=as_json)
    settings = _settings(engine, handler, arch, machine, cpus, seed, repeat, by, pace)
    settings = replace(settings, tree=check_tree(tree, settings.handlers))
    if trace is not None:
        _check_trace(trace, settings, as_json=as_json)
    read = [*workload, machine] if machine and is_machine_file(machine) else workload
    check_output(output, *read, trace)
    check_output(trace, *read)
    check_course(engine, repeat, perfetto, lock_stat, *read, output, trace)
    spans = perfetto is not None
    settings = replace(settings, trace=trace is not None, spans=spans, lock_stat=lock_stat)
    source = find_source(workload, _known_cpus(settings)).replicated(replicate)
    series = _run_all(settings, source, quiet=as_json)
    if trace is not None:
        with _opened(None if str(trace) == "-" else trace) as out:
            out.writelines(line + "\n" for line in trace_lines(series[-1].results[0]))
    write_course(perfetto, [one.results[0] for one in series])
    with _opened(output) as out:
        if as_json:
            print_json(to_json(series, by), out)
        elif separator is not None:
            print_separated(series, events, separator, out)
        else:
            print_text(source.label, series, events, by, out)
    stuck = sorted({name for one in series for result in one.results for name in result.stuck})
    if stuck:
        print(f"spfemu: tasks that wait for ever: {', '.join(stuck)}", file=sys.stderr)
        raise typer.Exit(1)


def _settings(
    engine: str,
    handler: str,
    arch: str | None,
    machine: str | None,
    cpus: int | None,
    seed: int,
    repeat: int,
    by: str | None,
    pace: bool,
) -> _Settings:
    one_of("engine", engine, ENGINES)
    one_of("handler", handler, SIDE_BY_SIDE)
    if engine != "vtime":
        for option, value in (("--machine", machine), ("--cpus", cpus)):
            if value is not None:
                raise EngineError(f"{option}: value {value} (allowed: only with engine vtime)")
    elif pace:
        raise EngineError("--pace (allowed: only with engine native)")
    if seed + repeat > 1 << 64:
        raise EngineError(f"--seed: value {seed} (allowed with -r {repeat}: to 2^64-{repeat})")
    emulated = None if machine is None else find_machine(machine)
    if emulated is not None:
        arch = arch or emulated.arch
    if by is not None:
        one_of("--by", by, GROUPS)
        if handler == "classic":
            raise EngineError("--by: the classic handler aborts nothing (allowed: both, spf)")
    handlers = ("classic", "spf") if handler == "both" else (handler,)
    profile = arch_by_name(arch or "x86")
    return _Settings(engine, handlers, profile, emulated, cpus, seed, repeat, by, pace)


def _check_trace(trace: Path, settings: _Settings, *, as_json: bool) -> None:
    if "spf" not in settings.handlers:
        raise EngineError("--trace: the classic handler has no tracepoints (allowed: both, spf)")
    if settings.repeat > 1:
        raise EngineError(f"--trace: -r {settings.repeat} (allowed: one run)")
    if str(trace) == "-" and as_json:
        raise EngineError("--trace -: with --json (allowed: a file)")


def _check_separator(separator: str, by: str | None, *, as_json: bool) -> None:
    if not separator:
        raise EngineError('-x: value "" (allowed: what no number holds, such as ; or a tab)')
    if as_json or by is not None:
        raise EngineError("-x (allowed: without --json and --by)")


def _known_cpus(settings: _Settings) -> int | None:
    """Returns the CPUs that the user, or the machine the user named, says there are."""
    if settings.cpus is not None or settings.machine is None:
        return settings.cpus
    return settings.machine.cpus


def _run_all(settings: _Settings, source: Source, *, quiet: bool) -> list[Series]:
    cpus = _known_cpus(settings) or source.cpus
    series = [Series(handler) for handler in settings.handlers]
    nr_runs = len(series) * settings.repeat
    done = 0
    with progress_bar(source.label, quiet=quiet) as progress:
        program = source.program(settings.profile.page_size)
        for number in range(settings.repeat):
            for one in series:
                share = None
                if progress is not None:
                    share = lambda part, done=done: progress((done + part) / nr_runs)  # noqa: E731
                result = run(
                    program,
                    engine=settings.engine,
                    handler=one.handler,
                    tree=settings.tree if one.handler == "spf" else "rcu",
                    arch=settings.profile,
                    machine=settings.machine,
                    seed=settings.seed + number,
                    cpus=cpus,
                    pace=settings.pace,
                    trace=settings.trace and one.handler == "spf",
                    spans=settings.spans,
                    lock_stat=settings.lock_stat,
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


def register(app: typer.Typer) -> None:
    """Adds ``stat`` to the command line. Source: the command line's page."""
    app.command(epilog=_EXAMPLE, context_settings={"allow_interspersed_args": False})(stat)
