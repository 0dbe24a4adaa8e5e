"""``spfemu explore``: interleavings of a program, and what they break."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from spfemu.cli.by_name import AS_POSTED, with_scenario
from spfemu.cli.choices import mutant_choices, program_choices, variant_choices
from spfemu.cli.exploration import print_exploration, summary
from spfemu.cli.minimising import check_target, exit_status, minimise_first, print_minimised
from spfemu.cli.options import (
    ArchOption,
    HazardsOption,
    JsonOption,
    SeedOption,
    TreeOption,
)
from spfemu.cli.output import check_is_file, check_output, print_json, progress_bar
from spfemu.cli.stepping import page
from spfemu.engines import VARIANT_VALUES, Progress, one_of
from spfemu.errors import EngineError
from spfemu.exploring import (
    DEPTH,
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

__all__ = ["register"]


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
        "(default: as the arch's do; without PROGRAM as the catalogue has it).",
        autocompletion=lambda: list(MEMORY_MODELS),
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
    hazard: HazardsOption = None,
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
    shown = _Shown(program, html, minimise, full, as_json)
    shown.check()
    with progress_bar(loaded.source, quiet=as_json) as progress:
        exploration, interrupt = _explored(loaded, settings, progress)
    if interrupt is not None:
        replace(shown, minimise=None).show(loaded, settings, exploration)
        raise interrupt
    shown.show(loaded, settings, exploration)
    raise typer.Exit(exit_status(exploration))


@dataclass(frozen=True, slots=True)
class _Shown:
    """What becomes of an exploration: where it is written, and how."""

    program: str
    html: Path | None
    minimise: Path | None
    full: bool
    as_json: bool

    def check(self) -> None:
        """Refuses files that cannot be written, before anything long begins."""
        check_is_file("--html", self.html)
        check_output(self.html, self.program)
        check_target(self.minimise, self.program, self.html)

    def show(
        self, loaded: Program, settings: Mapping[str, Any], exploration: dict[str, Any]
    ) -> None:
        options = _replay_options(settings)
        command = ["spfemu", "explore", self.program, *options]
        names = [*(task.name for task in loaded.tasks), "softirq"]
        _write_page(self.html, exploration, command, names)
        if not self.as_json:
            print_exploration(exploration, command, names, full=self.full)
        minimise_first(self.minimise, loaded, exploration, settings, quiet=self.as_json)
        if self.as_json:
            print_json(exploration)
        elif self.minimise is not None:
            print_minimised(self.minimise, exploration, options)


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


def register(app: typer.Typer) -> None:
    """Adds ``explore`` to the command line. Source: the command line's page."""
    app.command(
        "explore",
        epilog="Example: spfemu explore --mutant A7",
    )(explore_command)
