"""The options and arguments that several subcommands share."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from spfemu.cli.choices import arch_choices, program_choices
from spfemu.engines import HANDLERS, SIDE_BY_SIDE, TREES
from spfemu.exploring import HAZARDS

__all__ = [
    "ArchOption",
    "HandlerOption",
    "HandlersOption",
    "HazardsOption",
    "JsonOption",
    "PaceOption",
    "ProgramArgument",
    "SeedOption",
    "TreeOption",
]

ArchOption: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="ARCH",
        help="Arch profile: x86, powerpc, arm64 and their relatives.",
        autocompletion=arch_choices,
    ),
]
HandlerOption: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="spf|classic",
        help="Who handles faults first.",
        autocompletion=lambda: list(HANDLERS),
    ),
]
HandlersOption: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="both|classic|spf",
        help="Who handles faults: mmap_sem's reader, or the speculative handler first.",
        autocompletion=lambda: list(SIDE_BY_SIDE),
    ),
]
TreeOption: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="rcu|rwlock",
        help="What protects the tree of VMAs from spf's look-up: v12's RCU, or v11's rwlock.",
        autocompletion=lambda: list(TREES),
    ),
]
SeedOption: TypeAlias = Annotated[
    int, typer.Option(min=0, metavar="N", help="Seed of every choice that the engine draws.")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Write JSON.")]
HazardsOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME|all",
        help="What may happen besides interleaving: tlb-eviction, tlb-refill, failed-allocation, "
        "softirq (repeatable).",
        autocompletion=lambda: [*HAZARDS, "all"],
    ),
]
PaceOption: TypeAlias = Annotated[
    bool, typer.Option("--pace", help="Native: spend the time of compute and sleep.")
]
ProgramArgument: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="PROGRAM",
        help="A program file, JSON or .npz, or -, or the name of a scenario of the catalogue.",
        autocompletion=program_choices,
    ),
]
