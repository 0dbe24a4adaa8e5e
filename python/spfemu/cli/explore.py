"""``spfemu explore``: interleavings of a program, and what they break."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from spfemu.cli.by_name import AS_POSTED, with_scenario
from spfemu.cli.choices import mutant_choices, program_choices, variant_choices
from spfemu.cli.minimising import check_target, exit_status, minimise_first, print_minimised
from spfemu.cli.options import (
    ArchOption,
    JsonOption,
    SeedOption,
    TreeOption,
)
from spfemu.cli.output import check_is_file, check_output, counted, print_json, progress_bar
from spfemu.cli.stepping import page
from spfemu.cli.tables import print_folded
from spfemu.cli.timeline import print_timeline
from spfemu.engines import VARIANT_VALUES, Progress, one_of
from spfemu.errors import EngineError
from spfemu.exploring import (
    DEPTH,
    HAZARDS,
    MEMORY_MODELS,
    PREEMPTIONS,
    SCHEDULES,
    STEPS,
    STRATEGIES,
    explore,
)
from spfemu.profiles import arch as arch_by_name
from spfemu.program.model import Program
from spfemu.program.values import shown
from spfemu.sources import load_program

__all__ = ["print_exploration", "register", "summary"]


_Program = Annotated[
    str | None,
    typer.Argument(
        metavar="[PROGRAM]",
        help="A scenario's name, a program file, JSON or .npz, or -; by default the scenario of "
        "the mutant or variant.",
        autocompletion=program_choices,
    ),
]
_Strategy = Annotated[
    str,
    typer.Option(
        metavar="dfs|random|pct|coverage|guided",
        help="dfs tries every schedule within the bounds; random, pct and coverage draw some; "
        "guided is one.",
        autocompletion=lambda: list(STRATEGIES),
    ),
]
_Mutants = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Remove a check of 'spfemu mutants' (repeatable).",
        autocompletion=mutant_choices,
    ),
]
_Variant = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=v12|fixed",
        help="Set one bug of 'spfemu variants' (repeatable).",
        autocompletion=variant_choices,
    ),
]
_Variants = Annotated[
    str | None,
    typer.Option(
        metavar="v12|fixed",
        help="All other bugs of v12: as posted, or cured (default: v12; without PROGRAM fixed).",
        autocompletion=lambda: list(VARIANT_VALUES),
    ),
]
_MemoryModel = Annotated[
    str | None,
    typer.Option(
        metavar="sc|tso|armv8|power",
        help="In which order CPUs see stores: sequential consistency, or as x86, arm64 or POWER "
        "(default: as the arch's do).",
        autocompletion=lambda: list(MEMORY_MODELS),
    ),
]
_Hazards = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME|all",
        help="What may happen besides interleaving: tlb-eviction, tlb-refill, failed-allocation, "
        "softirq (repeatable).",
        autocompletion=lambda: [*HAZARDS, "all"],
    ),
]
_Schedules = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help=f"At most so many schedules (default: all for dfs, else {SCHEDULES:,}).",
    ),
]
_Preemptions = Annotated[
    str | None,
    typer.Option(
        metavar="N|all",
        help=f"dfs: at most so many preemptions a schedule (default: {PREEMPTIONS}).",
    ),
]
_Steps = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="At most so many accesses, or operations, a schedule; a longer one is cut.",
    ),
]
_Depth = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help=f"pct: bugs of so many ordering constraints (default: {DEPTH})."
    ),
]
_Schedule = Annotated[
    str | None,
    typer.Option(
        metavar="N,N,...",
        help="guided: who goes on whenever several can; 0 is who ran, k the k-th other.",
    ),
]
_Reduction = Annotated[
    bool,
    typer.Option(
        "--reduction/--no-reduction",
        help="dfs: leave out what differs only in the order of steps that have nothing to do with "
        "each other.",
    ),
]
_Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Threads; the result is the same for any number (default: all local CPUs).",
    ),
]
_Full = Annotated[
    bool, typer.Option("--full", help="Timelines with every access to a word of two CPUs.")
]
_Html = Annotated[
    Path | None,
    typer.Option(
        "--html", metavar="FILE", help="Write the findings as a page that one steps through."
    ),
]
_Minimise = Annotated[
    Path | None,
    typer.Option(
        "--minimise",
        metavar="FILE",
        help="Write the smallest program that breaks the same as the first finding.",
    ),
]
_Replay = Annotated[
    str | None, typer.Option(metavar="TOKEN", help="Run the one schedule of a finding.")
]


def explore_command(
    context: typer.Context,
    program: _Program = None,
    tree: TreeOption = "rcu",
    strategy: _Strategy = "dfs",
    mutant: _Mutants = None,
    variant: _Variant = None,
    variants: _Variants = None,
    memory_model: _MemoryModel = None,
    hazard: _Hazards = None,
    schedules: _Schedules = None,
    preemptions: _Preemptions = None,
    steps: _Steps = STEPS,
    depth: _Depth = None,
    schedule: _Schedule = None,
    reduction: _Reduction = True,
    seed: SeedOption = 0,
    arch: ArchOption = "x86",
    replay: _Replay = None,
    workers: _Workers = None,
    full: _Full = False,
    html: _Html = None,
    minimise: _Minimise = None,
    as_json: JsonOption = False,
) -> None:
    """Look for interleavings that break an invariant.

    Each finding comes with a timeline and a token that replays it. Without PROGRAM it explores the
    scenario that the catalogue has for the one --mutant, or --variant NAME=v12.
    """
    settings: dict[str, Any] = {
        "arch": arch_by_name(arch),
        "tree": tree,
        "strategy": strategy,
        "mutants": mutant or (),
        "variants": dict(_variant(text) for text in variant or ()),
        "variants_default": one_of("variants", variants or AS_POSTED, VARIANT_VALUES),
        "memory_model": memory_model,
        "hazards": hazard or (),
        "schedules": schedules,
        "preemptions": _preemptions(preemptions),
        "steps": steps,
        "depth": depth,
        "schedule": _schedule(schedule),
        "reduction": reduction,
        "seed": seed,
        "replay": replay,
        "workers": workers,
    }
    program, settings = with_scenario(context, program, settings, quiet=as_json)
    loaded = load_program(program)
    check_is_file("--html", html)
    check_output(html, program)
    check_target(minimise, program, html)
    with progress_bar(loaded.source, quiet=as_json) as progress:
        exploration, interrupt = _explored(loaded, settings, progress)
    command = ["spfemu", "explore", program, *(options := _replay_options(settings))]
    names = [*(task.name for task in loaded.tasks), "softirq"]
    _write_page(html, exploration, command, names)
    if not as_json:
        print_exploration(exploration, command, names, full=full)
    if interrupt is None:
        minimise_first(minimise, loaded, exploration, settings, quiet=as_json)
    if as_json:
        print_json(exploration)
    elif minimise is not None and interrupt is None:
        print_minimised(minimise, exploration, options)
    if interrupt is not None:
        raise interrupt
    raise typer.Exit(exit_status(exploration))


def _explored(
    program: Program, settings: Mapping[str, Any], progress: Progress | None
) -> tuple[dict[str, Any], KeyboardInterrupt | None]:
    """Explores until the end, or until Ctrl-C: then with what was found so far."""
    try:
        return explore(program, **settings, progress=progress), None
    except KeyboardInterrupt as interrupt:
        if "so_far" not in vars(interrupt):
            raise
        return vars(interrupt)["so_far"], interrupt


def _write_page(
    path: Path | None,
    exploration: dict[str, Any],
    command: Sequence[str],
    task_names: Sequence[str],
) -> None:
    if path is None:
        return
    findings = [
        {**violation, "replay": [*command, "--replay", violation["token"]]}
        for violation in exploration["violations"]
    ]
    text = page(shlex.join(command), summary(exploration), findings, task_names)
    path.write_text(text, encoding="utf-8")


def _preemptions(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else text


def _schedule(text: str | None) -> list[int] | None:
    if text is None:
        return None
    numbers = [number.strip() for number in text.split(",")] if text.strip() else []
    for number in numbers:
        if not (number.isascii() and number.isdigit()):
            raise EngineError(
                f"schedule: value {shown(number)} (allowed: whole numbers, by commas)"
            )
    return [int(number) for number in numbers]


def _variant(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise EngineError(f"variant {shown(text)} (allowed: NAME=v12 or NAME=fixed)")
    return name, value


# What a token's command need not say.
_DEFAULTS: Final = {
    "--variants": AS_POSTED,
    "--arch": "x86",
    "--tree": "rcu",
}


def _replay_options(settings: Mapping[str, Any]) -> list[str]:
    several = {
        "--mutant": settings["mutants"],
        "--variant": [f"{name}={value}" for name, value in settings["variants"].items()],
        "--hazard": settings["hazards"],
    }
    options = []
    for option, values in several.items():
        for value in values:
            options += [option, value]
    given = {
        "--variants": settings["variants_default"],
        "--memory-model": settings["memory_model"],
        "--arch": settings["arch"].name,
        "--tree": settings["tree"],
    }
    for option, value in given.items():
        if value != _DEFAULTS.get(option):
            options += [option, value]
    return options


def print_exploration(
    exploration: dict[str, Any],
    command: Sequence[str],
    task_names: Sequence[str],
    *,
    full: bool = False,
    timelines: int | None = None,
) -> None:
    """Writes what an exploration found; ``command`` is the one that a token completes.

    Source: ours. ``full`` leaves nothing out of the timelines; only the first ``timelines``
    findings have one (default: all).
    """
    violations = exploration["violations"]
    print(summary(exploration))
    for number, violation in enumerate(violations):
        entry = f" (known as {violation['entry']})" if violation["entry"] else ""
        print(f"\n{violation['invariant']}{entry}: {violation['what']}")
        print_folded(violation["why"])
        if timelines is None or number < timelines:
            print_timeline(violation["timeline"], task_names, full=full)
            if violation["fired"] is None and violation["timeline"]:
                print("(seen once all tasks had ended)")
        print(f"token   {violation['token']}")
        print(f"replay  {shlex.join([*command, '--replay', violation['token']])}")


def summary(exploration: dict[str, Any]) -> str:
    """Returns in one line how far an exploration went, and how much it found. Source: ours."""
    parts = [
        counted(exploration["schedules"], "schedule"),
        counted(exploration["steps"], "step"),
        *_how_far(exploration),
        counted(len(exploration["violations"]), "violation"),
    ]
    return ", ".join(parts)


def _how_far(exploration: dict[str, Any]) -> list[str]:
    """Says within which bounds the search was complete, or why it was not."""
    settings = exploration["settings"]
    said = []
    if exploration["too_long"]:
        said.append(f"{exploration['too_long']:,} cut short after {settings['steps']:,} steps")
    if settings["strategy"] == "replay":
        return said
    if exploration["complete"]:
        bound = settings["preemptions"]
        within = "" if bound == "all" else f" within {counted(bound, 'preemption')}"
        said.append(f"complete{within}")
    elif settings["strategy"] == "guided":
        said.append("as told")
    elif settings["strategy"] != "dfs":
        said.append("drawn at random")
    else:
        said.append("not complete")
    return said


def register(app: typer.Typer) -> None:
    """Adds ``explore`` to the command line. Source: the command line's page."""
    app.command(
        "explore",
        epilog="Example: spfemu explore --mutant A7",
    )(explore_command)
