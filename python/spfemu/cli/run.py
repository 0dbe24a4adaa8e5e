"""``spfemu run`` and ``spfemu check``: one program, operation by operation."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from spfemu.cli.course import PerfettoOption, check_course, write_course
from spfemu.cli.options import (
    ArchOption,
    HandlerOption,
    JsonOption,
    PaceOption,
    ProgramArgument,
    SeedOption,
    TreeOption,
)
from spfemu.cli.output import counted, print_json, print_json_list, progress_bar
from spfemu.cli.tables import print_rows, print_table, terminal_width
from spfemu.comparing import Difference, check, compare
from spfemu.engines import ENGINES, HANDLERS, one_of, run
from spfemu.errors import EngineError, ProgramError
from spfemu.profiles import arch as arch_by_name
from spfemu.program.model import Program
from spfemu.results import Result
from spfemu.sources import load_program

if TYPE_CHECKING:
    from spfemu import oracle

__all__ = ["register"]

_AGAINST: Final = ("reference", "kernel")
_TERMINAL_ROWS: Final = 1000
_ORDER_MATTERS: Final = """\
Tasks run one after another on {}, and side by side on {}: where they race, the order alone makes a
difference; where they do not, one of the two is wrong."""
_CHECK_EXAMPLES: Final = """\
On the host's Linux: spfemu check program.json --against kernel

Example: spfemu check program.json --against reference"""

_Engine = Annotated[
    str,
    typer.Option(
        metavar="native|reference|vtime|explore|kernel",
        help="Real threads, pure Python, virtual time, one interleaving, or the host's Linux.",
        autocompletion=lambda: list(ENGINES),
    ),
]
_Timeout = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Kernel: kill everything after this time (60)."),
]


def _settings(timeout: float | None, engines: Sequence[str]) -> dict[str, Any]:
    if timeout is None:
        return {}
    if "kernel" not in engines:
        raise EngineError(f"--timeout: value {timeout:g} (allowed: only with engine kernel)")
    if not 0 < timeout <= 1e9:
        raise EngineError(f"--timeout: value {timeout:g} (allowed: above 0, to 1e9 seconds)")
    return {"timeout_s": timeout}


def _not_of_kernel(context: typer.Context, **values: object) -> None:
    """Refuses options, given by name and value, that say nothing to the host's kernel."""
    for name, value in values.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            allowed = "not with engine kernel, which the host decides"
            raise EngineError(f"--{name}: {value} (allowed: {allowed})")


def run_command(
    context: typer.Context,
    program: ProgramArgument,
    engine: _Engine = "native",
    handler: HandlerOption = "spf",
    tree: TreeOption = "rcu",
    arch: ArchOption = "x86",
    seed: SeedOption = 0,
    pace: PaceOption = False,
    timeout: _Timeout = None,
    with_check: Annotated[
        bool, typer.Option("--check", help="Compare with the program's expectations.")
    ] = False,
    with_proc: Annotated[
        bool, typer.Option("--proc", help="Also print smaps, status and vmstat, as /proc does.")
    ] = False,
    perfetto: PerfettoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a program and print each outcome."""
    one_of("engine", engine, ENGINES)
    one_of("handler", handler, HANDLERS)
    if pace and engine != "native":
        raise EngineError("--pace (allowed: only with engine native)")
    check_course(engine, 1, perfetto, False, program)
    if engine == "kernel":
        _not_of_kernel(context, handler=handler, seed=seed)
    profile = arch_by_name(arch)
    loaded = load_program(program)
    if with_check and not loaded.expect:
        raise ProgramError(f"{loaded.source}: --check: no operation has 'expect'")
    with progress_bar(loaded.source, quiet=as_json) as progress:
        result = run(
            loaded,
            engine=engine,
            handler=handler,
            tree=tree,
            arch=profile,
            seed=seed,
            pace=pace,
            proc=with_proc,
            spans=perfetto is not None,
            settings=_settings(timeout, (engine,)),
            progress=progress,
        )
    write_course(perfetto, [result])
    found = _checked(result) if with_check else None
    if as_json:
        after = result.tail()
        if found is not None:
            after |= _comparison_json(result, found)
        print_json_list(result.header(), "ops", result.outcomes(), after)
    else:
        _print_result(result)
        if found is not None:
            _print_comparison(found, "expected", "actual")
    _finish(result.stuck, [] if found is None else found.differences)


def _checked(result: Result) -> oracle.Comparison:
    if result.engine != "kernel":
        return _of_equals(check(result))
    from spfemu import oracle

    return oracle.check(result)


def _of_equals(differences: list[Difference]) -> oracle.Comparison:
    """A comparison in which nothing is excused: neither side is the host's kernel."""
    from spfemu import oracle

    return oracle.Comparison(differences=differences)


def _comparison_json(result: Result, found: oracle.Comparison) -> dict[str, Any]:
    obj: dict[str, Any] = {"differences": [entry.to_json() for entry in found.differences]}
    if result.engine == "kernel" or found.excused or found.cut:
        obj["excused"] = [entry.to_json() for entry in found.excused]
        obj["cut"] = found.cut
    return obj


def check_command(
    program: ProgramArgument,
    engine: _Engine = "native",
    against: Annotated[
        str,
        typer.Option(
            metavar="reference|kernel", help="The authority.", autocompletion=lambda: _AGAINST
        ),
    ] = "reference",
    handler: HandlerOption = "spf",
    tree: TreeOption = "rcu",
    arch: ArchOption = "x86",
    seed: SeedOption = 0,
    timeout: _Timeout = None,
    as_json: JsonOption = False,
) -> None:
    """Run a program on two engines and compare."""
    one_of("--against", against, _AGAINST)
    one_of("engine", engine, [name for name in ENGINES if name != against])
    one_of("handler", handler, HANDLERS)
    profile = arch_by_name(arch)
    loaded = load_program(program)
    settings = _settings(timeout, (engine, against))
    how: dict[str, Any] = {"handler": handler, "tree": tree, "arch": profile, "seed": seed}
    if "kernel" in (engine, against):
        result, found = _against_host(loaded, engine, against, settings, how)
    else:
        authority, result = (run(loaded, engine=name, **how) for name in (against, engine))
        found = _of_equals(compare(authority, result))
    if as_json:
        obj = result.header() | {"against": against} | _comparison_json(result, found)
        print_json(obj)
    else:
        _print_comparison(found, against, engine)
        if found.differences and len(loaded.tasks) > 1 and engine not in _AGAINST:
            print(_ORDER_MATTERS.format(against, engine))
    _finish(result.stuck, found.differences)


def _against_host(
    program: Program,
    engine: str,
    against: str,
    settings: dict[str, Any],
    how: dict[str, Any],
) -> tuple[Result, oracle.Comparison]:
    """Runs a program on the host and on another engine; the result is that of ``engine``."""
    from spfemu import oracle

    host = run(program, engine="kernel", settings=settings, **how)
    other = against if engine == "kernel" else engine
    emulated = run(oracle.for_host(program, oracle.host()), engine=other, **how)
    found = oracle.compare(emulated, host)
    return (host, found.swapped()) if engine == "kernel" else (emulated, found)


def _finish(stuck: Sequence[str], differences: Sequence[Difference]) -> None:
    if stuck:
        print(f"spfemu: tasks that wait for ever: {', '.join(stuck)}", file=sys.stderr)
    if stuck or differences:
        raise typer.Exit(1)


def _print_result(result: Result) -> None:
    headers = ["task", "place", "round", "op", "outcome", "handled", "counters"]
    rows = _outcome_rows(result)
    if terminal_width(sys.stdout) is None:
        print_rows(headers, rows, right=(2,))
    else:
        print_table(headers, list(itertools.islice(rows, _TERMINAL_ROWS)), right=(2,), title=3)
        left = len(result.ops) - _TERMINAL_ROWS
        if left > 0:
            print(f"… and {left:,} more outcomes (all of them when piped, or with --json)")
    print()
    for event, count in result.counters.items():
        print(f"{count:>18,}      {event}")
    for process, lines in result.maps.items():
        _print_lines(f"maps of {process}", lines)
        for name, text in result.proc.get(process, {}).items():
            _print_lines(f"{name} of {process}", text)
    if result.proc:
        _print_lines("vmstat", result.vmstat)


def _print_lines(title: str, lines: Sequence[str]) -> None:
    print(f"\n{title}:")
    for line in lines:
        print(f"  {line}")


def _outcome_rows(result: Result) -> Iterator[list[str]]:
    places = _places(result.program)
    for outcome in result.outcomes():
        handled = outcome["handled"]
        yield [
            outcome["task"],
            places[outcome["task"]].get(outcome["index"], ""),
            str(outcome["round"]),
            outcome["op"],
            _outcome_text(outcome),
            handled if handled != "none" else "",
            " ".join(f"{event}={count}" for event, count in outcome["counters"].items()),
        ]


def _places(program: Program) -> dict[str, dict[int, str]]:
    """Returns for each task the place of each record in the JSON form, without ``tasks[n]``."""
    from spfemu.program.ops import OPS

    places: dict[str, dict[int, str]] = {}
    for task in program.tasks:
        mine: dict[int, str] = {}
        path: list[int] = [0]
        for index, code in enumerate(task.ops["op"].tolist()):
            if code == OPS["end"].code:
                path.pop()
                path[-1] += 1
                continue
            mine[index] = ".".join(str(number) for number in path)
            if code == OPS["repeat"].code:
                path.append(0)
            else:
                path[-1] += 1
        places[task.name] = mine
    return places


def _outcome_text(outcome: dict[str, Any]) -> str:
    if outcome["livelock"]:
        return "livelock"
    if outcome["signal"]:
        return f"{outcome['signal']} {outcome['si_code']}"
    if outcome["errno"]:
        return str(outcome["errno"])
    if outcome["value"] is not None:
        return f"= {outcome['value']:#x}"
    if outcome["ret"]:
        return f"{outcome['ret']:#x}"
    return ""


def _print_comparison(found: oracle.Comparison, expected: str, actual: str) -> None:
    from spfemu import oracle

    for name, count in Counter(entry.exception for entry in found.excused).items():
        print(f"\nexcused, {count} of {name}: {oracle.exception(name).what}")
    if found.cut:
        print(f"\nnot compared any further than {found.cut}")
    _print_differences(found.differences, expected, actual)


def _print_differences(differences: Sequence[Difference], expected: str, actual: str) -> None:
    if not differences:
        print("\nno differences")
        return
    rows = [
        [
            difference.place,
            str(difference.round),
            difference.op,
            difference.what,
            str(difference.expected),
            str(difference.actual),
        ]
        for difference in differences
    ]
    print()
    print_table(["place", "round", "op", "what", expected, actual], rows, right=(1,))
    print(f"\n{counted(len(differences), 'difference')}")


def register(app: typer.Typer) -> None:
    """Adds ``run`` and ``check`` to the command line. Source: the command line's page."""
    app.command("run", epilog="Example: spfemu run program.json --engine vtime --check")(
        run_command
    )
    app.command("check", epilog=_CHECK_EXAMPLES)(check_command)
