"""``spfemu import`` and ``spfemu record``: recordings of real programs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from spfemu.cli.output import check_output, print_json
from spfemu.errors import ProgramError, SpfemuError

__all__ = ["register"]

_SUFFIXES: Final = (".zst", ".gz", ".txt", ".perf", ".strace", ".userperf")


def import_command(
    trace: Annotated[
        list[str],
        typer.Argument(
            metavar="TRACE...",
            help="perf script text, or strace text and a perf script of page-faults:u; "
            "plain, .gz or .zst; or -.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The program, .npz or .json (default: by name, if there is none yet).",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the summary as JSON.")] = False,
) -> None:
    """Make a program of a recording.

    Says what was taken, skipped, guessed and unresolved.
    """
    from spfemu.importers import import_trace

    target = _program_name(trace[0]) if output is None else output
    check_output(target, *trace)
    if output is None and Path(target).exists():
        raise ProgramError(
            f"{target}: exists (allowed: -o {target} to replace it, or another file)"
        )
    program, summary = import_trace(list(trace))
    program.save(target)
    # With the program on standard output, what is said about it goes to the other one.
    out = sys.stderr if target == "-" else sys.stdout
    if as_json:
        print_json({"program": target, **summary.to_dict()}, out)
        return
    for line in summary.lines():
        print(line, file=out)
    if target != "-":
        print(f"wrote {target}: {program.nr_ops:,} operations", file=out)


def _program_name(trace: str) -> str:
    """Returns the program file that a trace's name suggests, in the current directory."""
    if trace == "-":
        return "trace.npz"
    path = Path(trace)
    while path.suffix in _SUFFIXES:
        path = path.with_suffix("")
    return f"{path.name}.npz"


def record_command(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- CMD [ARGS]", help="The program to record, and its arguments."),
    ] = None,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help="The recording.")
    ] = "trace.perf.txt.zst",
) -> None:
    """Record a program with perf.

    Prints the commands that would where perf cannot run.
    """
    from spfemu.importers.record import plan_recording

    check_output(output)
    plan = plan_recording(command or [], output=output)
    if plan.missing:
        for line in plan.lines():
            print(line)
        raise SpfemuError(f"cannot record here: {'; '.join(plan.missing)}; the commands are above")
    if command and shutil.which(command[0]) is None:
        raise SpfemuError(f"{command[0]}: command not found")
    status = plan.run()
    files = " ".join(str(path) for path in plan.outputs)
    print(f"wrote {files} (the program's exit status: {status})")
    print(f"next: spfemu stat -- {files}")


def register(app: typer.Typer) -> None:
    """Adds ``import`` and ``record`` to the command line. Source: the command line's page."""
    app.command("import", epilog="Example: spfemu import trace.perf.txt.zst -o trace.npz")(
        import_command
    )
    app.command(
        "record",
        epilog="Example: spfemu record -o ls.perf.txt.zst -- ls -l",
        context_settings={"allow_interspersed_args": False},
    )(record_command)
