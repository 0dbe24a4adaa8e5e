"""``spfemu sweep``: a workload on growing numbers of CPUs, as a table, a page or a plot."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from spfemu.cli.choices import machine_choices
from spfemu.cli.options import HandlersOption, JsonOption, SeedOption, TreeOption
from spfemu.cli.output import check_output, counted, print_json, progress_bar
from spfemu.cli.tables import print_table
from spfemu.errors import ProgramError
from spfemu.machines import is_machine_file
from spfemu.sources import workload_usage
from spfemu.sweeping.plan import Plan, make_plan, run_plan, split_command
from spfemu.sweeping.store import Store
from spfemu.sweeping.table import SUFFIXES, Sweep, check_suffix
from spfemu.workloads import WORKLOADS

__all__ = ["register"]

_EXAMPLE: Final = "Example: spfemu sweep --workload ebizzy --cpus 1,2,4..8 -o ebizzy.csv"

_Arguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[-- WORKLOAD [ARGS]]",
        help="A workload with its options, in which {cpus} stands for the CPUs, or files.",
        autocompletion=lambda: list(WORKLOADS),
    ),
]
_Workload = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="A built-in workload with its usual options, a thread for each CPU.",
        autocompletion=lambda: list(WORKLOADS),
    ),
]
_Cpus = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="CPUs: 1,2,4..64 doubles, 1..8 is each (default: doubling, up to the machine's).",
    ),
]
_Machine = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MACHINE",
        help="Machine, of 'spfemu machines' or a .toml file; may be given several times.",
        autocompletion=machine_choices,
    ),
]
_Repeat = Annotated[
    int,
    typer.Option("-r", "--repeat", min=1, metavar="N", help="Repeat each with N seeds."),
]
_Jobs = Annotated[
    int | None,
    typer.Option("-j", "--jobs", min=1, metavar="N", help="Processes (default: all local CPUs)."),
]
_Output = Annotated[
    list[Path] | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help=f"Write {', '.join(SUFFIXES)}, as the suffix says; may be given several times.",
    ),
]


def sweep(
    arguments: _Arguments = None,
    workload: _Workload = None,
    cpus: _Cpus = None,
    handler: HandlersOption = "both",
    tree: TreeOption = "rcu",
    machine: _Machine = None,
    repeat: _Repeat = 1,
    output: _Output = None,
    jobs: _Jobs = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Run a workload on growing numbers of CPUs.

    Writes one row for each figure and counter, a page or a plot. Finished runs are kept beside the
    output until it is written: after an interrupt the same command goes on from there.
    """
    command = _command(arguments, workload)
    if (usage := workload_usage(command)) is not None:
        print(usage)
        return
    outputs = output or []
    _check_outputs(outputs, [*command, *filter(is_machine_file, machine or [])])
    plan = make_plan(command, cpus, handler, machine or None, repeat, seed, tree)
    if not outputs:
        _print(_run(plan, None, jobs, quiet=as_json), as_json=as_json)
        return
    with Store(f"{outputs[0]}.cells") as store:
        table = _kept(plan, store, jobs, quiet=as_json)
        for path in outputs:
            table.save(path)
        store.remove()
    if as_json:
        print_json(table.to_dicts())
    _end(table)


def _command(arguments: list[str] | None, workload: str | None) -> list[str]:
    if workload is not None and arguments:
        told = shlex.join(arguments)
        raise ProgramError(f"--workload {workload} and -- {told} (allowed: one of them)")
    command = list(split_command(workload)) if workload is not None else arguments
    if not command:
        raise ProgramError("no workload; name one, as in: spfemu sweep --workload ebizzy")
    return command


def _check_outputs(outputs: Sequence[Path], read: Sequence[str]) -> None:
    """Refuses what could not be written, before anything long begins."""
    for number, path in enumerate(outputs):
        check_suffix(path)
        check_output(path, *read, *outputs[:number])
        reason = errno.EISDIR if path.is_dir() else errno.EACCES
        if path.exists() and (path.is_dir() or not os.access(path, os.W_OK)):
            raise ProgramError(f"{path}: cannot be written: {os.strerror(reason)}")


def _run(plan: Plan, store: Store | None, jobs: int | None, *, quiet: bool) -> Sweep:
    what = f"{plan.workload.label}: {counted(len(plan.cells()), 'run')}"
    with progress_bar(what, quiet=quiet, left=True) as progress:
        return run_plan(plan, store, jobs=jobs, progress=progress)


def _kept(plan: Plan, store: Store, jobs: int | None, *, quiet: bool) -> Sweep:
    """Runs a plan and says on standard error what is kept, before and after an interrupt."""
    before = plan.nr_finished(store)
    if before:
        _say(f"{counted(before, 'run')} of {len(plan.cells())} are in {store.path}")
    try:
        return _run(plan, store, jobs, quiet=quiet)
    except KeyboardInterrupt:
        store.read()
        finished = plan.nr_finished(store)
        if finished:
            told = f"{counted(finished, 'run')} of {len(plan.cells())} are kept in {store.path}"
            _say(f"{told}; the same command goes on from there")
        else:
            store.remove()
        raise


def _say(text: str) -> None:
    print(f"spfemu: {text}", file=sys.stderr)


def _print(table: Sweep, *, as_json: bool) -> None:
    if as_json:
        print_json(table.to_dicts())
    else:
        heads, lines = table.overview()
        title = heads.index("CPUs")
        print_table(heads, lines, right=range(title, len(heads)), title=title)
    _end(table)


def _end(table: Sweep) -> None:
    if stuck := table.stuck():
        _say("; ".join(stuck))
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Adds ``sweep`` to the command line. Source: the command line's page."""
    settings = {"allow_interspersed_args": False}
    app.command(epilog=_EXAMPLE, context_settings=settings)(sweep)
