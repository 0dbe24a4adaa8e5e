"""``spfemu explore``: interleavings of a program, and what they break."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from spfemu.cli.choices import (
    mutant_choices,
    variant_choices,
)
from spfemu.cli.options import ArchOption, JsonOption, ProgramArgument, SeedOption
from spfemu.cli.output import print_json, progress_bar
from spfemu.cli.sources import load_program
from spfemu.cli.tables import print_table
from spfemu.engines import VARIANT_VALUES, one_of
from spfemu.errors import EngineError
from spfemu.exploring import explore
from spfemu.profiles import arch as arch_by_name
from spfemu.program.values import shown

__all__ = ["print_exploration", "register"]

STRATEGIES: Final = ("dfs", "random", "pct")
MEMORY_MODELS: Final = ("sc",)
_MEMORY_MODELS_LATER: Final = ("tso", "armv8", "power")


_Strategy = Annotated[
    str, typer.Option(metavar="dfs|random|pct", autocompletion=lambda: list(STRATEGIES))
]
_Mutants = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Remove a check (repeatable).", autocompletion=mutant_choices
    ),
]
_Variant = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=v12|fixed",
        help="Set one variant (repeatable).",
        autocompletion=variant_choices,
    ),
]
_Variants = Annotated[
    str,
    typer.Option(
        metavar="v12|fixed",
        help="All other variants.",
        autocompletion=lambda: list(VARIANT_VALUES),
    ),
]
_MemoryModel = Annotated[
    str, typer.Option(metavar="sc", autocompletion=lambda: list(MEMORY_MODELS))
]
_Schedules = Annotated[int | None, typer.Option(min=1, help="At most so many schedules.")]
_Preemptions = Annotated[
    int | None, typer.Option(min=0, help="At most so many preemptions a schedule.")
]
_Replay = Annotated[
    str | None, typer.Option(metavar="TOKEN", help="Run the one schedule of a finding.")
]


def explore_command(
    program: ProgramArgument,
    strategy: _Strategy = "dfs",
    mutant: _Mutants = None,
    variant: _Variant = None,
    variants: _Variants = "v12",
    memory_model: _MemoryModel = "sc",
    schedules: _Schedules = None,
    preemptions: _Preemptions = None,
    seed: SeedOption = 0,
    arch: ArchOption = "x86",
    replay: _Replay = None,
    as_json: JsonOption = False,
) -> None:
    """Explore the interleavings of a program and report the invariants that break."""
    one_of("strategy", strategy, STRATEGIES)
    one_of("memory model", memory_model, MEMORY_MODELS, _MEMORY_MODELS_LATER)
    one_of("variants", variants, VARIANT_VALUES)
    profile = arch_by_name(arch)
    loaded = load_program(program)
    with progress_bar(loaded.source, quiet=as_json) as progress:
        exploration = explore(
            loaded,
            arch=profile,
            strategy=strategy,
            mutants=mutant or (),
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


def _variant(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise EngineError(f"variant {shown(text)} (allowed: NAME=v12 or NAME=fixed)")
    return name, value


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
    violations = exploration["violations"]
    parts = [
        f"{exploration['schedules']:,} schedules",
        f"{exploration['steps']:,} steps",
        "complete within its bounds" if exploration["complete"] else "not complete",
        f"{len(violations)} {'violation' if len(violations) == 1 else 'violations'}",
    ]
    if exploration.get("too_long"):
        parts.insert(2, f"{exploration['too_long']:,} cut short")
    print(", ".join(parts))
    for violation in violations:
        entry = f" (known as {violation['entry']})" if violation["entry"] else ""
        print(f"\n{violation['invariant']}{entry}: {violation['what']}")
        _print_timeline(violation["timeline"])
        print(f"token   {violation['token']}")
        print(f"replay  {shlex.join([*command, '--replay', violation['token']])}")


def _print_timeline(timeline: Sequence[dict[str, Any]]) -> None:
    """Writes the steps of a schedule, a column for each CPU."""
    cpus = sorted({step["cpu"] for step in timeline})
    if not cpus:
        return
    rows = []
    function: dict[int, str] = {}
    for number, step in enumerate(timeline):
        cpu = step["cpu"]
        cells = [""] * len(cpus)
        if function.get(cpu) != step["function"]:
            function[cpu] = step["function"]
            cells[cpus.index(cpu)] = f"{step['function']}:"
            rows.append(["", *cells])
        cells = [""] * len(cpus)
        cells[cpus.index(cpu)] = f"  {_step_text(step)}"
        rows.append([str(number), *cells])
    print_table(["step", *(f"CPU {cpu}" for cpu in cpus)], rows, right=(0,))


def _step_text(step: dict[str, Any]) -> str:
    if "value" not in step:
        return str(step["what"])
    text = f"{step['access']} {step['what']}"
    if "new" in step:
        return f"{text} {step['value']} -> {step['new']}"
    return f"{text} = {step['value']}"


def register(app: typer.Typer) -> None:
    """Adds ``explore`` to the command line. Source: the command line's page."""
    app.command(
        "explore",
        epilog="Example: spfemu explore program.json --variants fixed --mutant A7",
    )(explore_command)
