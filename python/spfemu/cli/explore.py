"""``spfemu explore``: interleavings of a program, and what they break."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from spfemu.arch import arch as arch_by_name
from spfemu.cli.choices import (
    arch_choices,
    core_list,
    mutant_choices,
    one_of,
    variant_choices,
)
from spfemu.cli.output import print_json, print_table, progress_bar
from spfemu.cli.sources import load_program
from spfemu.engines import VARIANT_VALUES
from spfemu.errors import EngineError
from spfemu.exploring import explore
from spfemu.program.values import shown

__all__ = ["mutant_name", "print_exploration", "register"]

STRATEGIES: Final = ("dfs", "random")
_STRATEGIES_LATER: Final = ("pct",)
MEMORY_MODELS: Final = ("sc",)
_MEMORY_MODELS_LATER: Final = ("tso", "armv8", "power")


def explore_command(
    program: Annotated[
        str, typer.Argument(metavar="PROGRAM", help="A program file, JSON or .npz, or -.")
    ],
    strategy: Annotated[
        str, typer.Option(metavar="dfs|random", autocompletion=lambda: list(STRATEGIES))
    ] = "dfs",
    mutant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Remove a check (repeatable).", autocompletion=mutant_choices
        ),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=v12|fixed",
            help="Set one variant (repeatable).",
            autocompletion=variant_choices,
        ),
    ] = None,
    variants: Annotated[
        str,
        typer.Option(
            metavar="v12|fixed",
            help="All other variants.",
            autocompletion=lambda: list(VARIANT_VALUES),
        ),
    ] = "v12",
    memory_model: Annotated[
        str, typer.Option(metavar="sc", autocompletion=lambda: list(MEMORY_MODELS))
    ] = "sc",
    schedules: Annotated[int | None, typer.Option(min=1, help="At most so many schedules.")] = None,
    preemptions: Annotated[
        int | None, typer.Option(min=0, help="At most so many preemptions a schedule.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random schedules.")] = 0,
    arch: Annotated[
        str, typer.Option(metavar="ARCH", help="Arch profile.", autocompletion=arch_choices)
    ] = "x86",
    replay: Annotated[
        str | None, typer.Option(metavar="TOKEN", help="Run the one schedule of a finding.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Explore the interleavings of a program and report the invariants that break."""
    one_of("strategy", strategy, STRATEGIES, _STRATEGIES_LATER)
    one_of("memory model", memory_model, MEMORY_MODELS, _MEMORY_MODELS_LATER)
    one_of("variants", variants, VARIANT_VALUES)
    profile = arch_by_name(arch)
    loaded = load_program(program)
    with progress_bar(loaded.source, quiet=as_json) as progress:
        exploration = explore(
            loaded,
            arch=profile,
            strategy=strategy,
            mutants=[mutant_name(name) for name in mutant or ()],
            variants=dict(_variant(text) for text in variant or ()),
            variants_default=variants,
            memory_model=memory_model,
            schedules=schedules,
            preemptions=preemptions,
            seed=seed,
            replay=replay,
            progress=progress,
        )
    if as_json:
        print_json(exploration)
    else:
        command = _replay_command(program, mutant or [], variant or [], variants, arch)
        print_exploration(exploration, command)
    if exploration["violations"]:
        raise typer.Exit(1)


def mutant_name(name: str) -> str:
    """Returns a mutant's name from its name or the entry it belongs to, such as A7.

    Source: ours. Raises EngineError, naming what there is, for another.
    """
    mutants = core_list("mutants")
    for entry in mutants:
        if name in (entry["name"], entry["entry"]):
            return str(entry["name"])
    return one_of("mutant", name, [entry["name"] for entry in mutants])


def _variant(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise EngineError(f"variant {shown(text)} (allowed: NAME=v12 or NAME=fixed)")
    one_of("variant", name, [entry["name"] for entry in core_list("variants")])
    return name, one_of(f"variant {name}", value, VARIANT_VALUES)


def _replay_command(
    program: str, mutants: Sequence[str], variants: Sequence[str], default: str, arch: str
) -> list[str]:
    command = ["spfemu", "explore", program]
    for name in mutants:
        command += ["--mutant", name]
    for text in variants:
        command += ["--variant", text]
    if default != "v12":
        command += ["--variants", default]
    if arch != "x86":
        command += ["--arch", arch]
    return command


def print_exploration(exploration: dict[str, Any], command: Sequence[str]) -> None:
    """Writes what an exploration found; ``command`` is the one that a token completes.

    Source: ours.
    """
    how_far = "complete within its bounds" if exploration["complete"] else "not complete"
    violations = exploration["violations"]
    print(
        f"{exploration['schedules']:,} schedules, {exploration['steps']:,} steps, {how_far}, "
        f"{len(violations)} {'violation' if len(violations) == 1 else 'violations'}"
    )
    for violation in violations:
        entry = f" (known as {violation['entry']})" if violation.get("entry") else ""
        print(f"\n{violation['invariant']}{entry}")
        if violation.get("message"):
            print(f"  {violation['message']}")
        _print_timeline(violation["timeline"])
        print(f"token   {violation['token']}")
        print(f"replay  {shlex.join([*command, '--replay', violation['token']])}")


def _print_timeline(timeline: Sequence[dict[str, Any]]) -> None:
    """Writes the steps of a schedule, a column for each CPU."""
    cpus = sorted({int(step["cpu"]) for step in timeline})
    if not cpus:
        return
    rows = []
    for number, step in enumerate(timeline):
        cells = [""] * len(cpus)
        cells[cpus.index(int(step["cpu"]))] = str(step["text"])
        rows.append([str(step.get("step", number)), *cells])
    print_table(["step", *(f"CPU {cpu}" for cpu in cpus)], rows, right=(0,))


def register(app: typer.Typer) -> None:
    """Adds ``explore`` to the command line. Source: the command line's page."""
    app.command(
        "explore",
        epilog="Example: spfemu explore program.json --variants fixed --mutant A7",
    )(explore_command)
