"""``spfemu explain``: one fault step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from spfemu.cli.options import (
    ArchOption,
    HandlerOption,
    JsonOption,
    ProgramArgument,
    SeedOption,
    TreeOption,
)
from spfemu.cli.output import counted, print_json, progress_bar
from spfemu.cli.timeline import print_timeline
from spfemu.explaining import explain
from spfemu.profiles import arch as arch_by_name
from spfemu.sources import load_program

__all__ = ["register"]

_Fault = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="The N-th fault of the program, in the order in which they begin (default: the last).",
    ),
]


def explain_command(
    program: ProgramArgument,
    fault: _Fault = None,
    arch: ArchOption = "x86",
    handler: HandlerOption = "spf",
    tree: TreeOption = "rcu",
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Print one fault step by step: each check, what it compared, and how the fault ended."""
    profile = arch_by_name(arch)
    loaded = load_program(program)
    with progress_bar(loaded.source, quiet=as_json) as progress:
        told = explain(
            loaded,
            fault=fault,
            arch=profile,
            handler=handler,
            tree=tree,
            seed=seed,
            progress=progress,
        )
    if as_json:
        print_json(told)
    else:
        _print(told, loaded.source, [task.name for task in loaded.tasks])


def _print(told: dict[str, Any], source: str, task_names: Sequence[str]) -> None:
    outcome = told["outcome"]
    by = "exit" if outcome is None else f"ops[{outcome['index']}] {outcome['op']}"
    print(
        f"fault {told['fault']:,} of {told['faults']:,} in {source}: "
        f"{told['task']}, {by}, at {told['address']}; {told['arch']}, {told['handler']}"
    )
    print_timeline(told["steps"], task_names, full=True)
    failed = [step["what"] for step in told["steps"] if step["access"] == "failed"]
    held = sum(1 for step in told["steps"] if step["access"] == "passed")
    checks = f"{counted(held, 'check')} held"
    if failed:
        checks += f", {len(failed)} did not ({', '.join(what.split(':')[0] for what in failed)})"
    print(f"{checks}; {told['steps'][-1]['what']}")


def register(app: typer.Typer) -> None:
    """Adds ``explain`` to the command line. Source: the command line's page."""
    app.command("explain", epilog="Example: spfemu explain program.json --fault 1")(explain_command)
