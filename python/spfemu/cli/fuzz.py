"""``spfemu fuzz``: campaigns with generated programs."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from spfemu.cli.choices import mutant_choices
from spfemu.cli.options import HazardsOption, JsonOption
from spfemu.cli.output import counted, print_json
from spfemu.cli.tables import print_folded
from spfemu.engines import VARIANT_VALUES
from spfemu.errors import EngineError
from spfemu.program.values import shown
from spfemu.sweeping.pool import local_jobs

if TYPE_CHECKING:
    from spfemu.fuzzing import Campaign, Found

__all__ = ["register"]

_INTERRUPTED: Final = 130
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")

_Time = Annotated[
    str | None,
    typer.Option(metavar="T", help="End after so long: 90, 90s, 10m, 8h (default: Ctrl-C ends)."),
]
_Workers = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Processes (default: as many as there are CPUs)."),
]
_Mutants = Annotated[
    list[str] | None,
    typer.Option(
        metavar="M",
        help="Explore only, with this check of 'spfemu mutants' removed (repeatable).",
        autocompletion=mutant_choices,
    ),
]
_Variants = Annotated[
    str,
    typer.Option(
        metavar="v12|fixed",
        help="The bugs of v12 in what is explored: cured, or as posted.",
        autocompletion=lambda: list(VARIANT_VALUES),
    ),
]
_Seed = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Draw the same programs again: for each worker, in a new folder (default: others).",
    ),
]
_Db = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|redis://HOST",
        help="Where to keep what is found, or go on from (default: spfemu-fuzz).",
    ),
]


def fuzz_command(
    time: _Time = None,
    workers: _Workers = None,
    mutant: _Mutants = None,
    variants: _Variants = "fixed",
    hazard: HazardsOption = None,
    db: _Db = None,
    seed: _Seed = None,
    as_json: JsonOption = False,
) -> None:
    """Draw programs without end: engines must agree, and no interleaving may break anything.

    Findings are shrunk, saved, and printed as tests.
    """
    time_s = None if time is None else _seconds(time)
    from spfemu.fuzzing.plan import Plan, library

    library("hypothesis", "spfemu[testing]")
    from spfemu.fuzzing import fuzz

    mutants = tuple(mutant or ())
    workers = workers or local_jobs()
    plan = Plan(time_s, workers, mutants, variants, db, seed, tuple(hazard or ()))
    line = _StatusLine(quiet=as_json)
    campaign = fuzz(
        plan,
        progress=line.show,
        on_finding=None if as_json else lambda found, path: _print_found(line, found, path),
    )
    line.clear()
    if as_json:
        from spfemu import __version__
        from spfemu.results import RESULT_FORMAT

        print_json({"format": RESULT_FORMAT, "version": __version__, **campaign.to_json()})
    else:
        print(f"{_statuses(campaign)[0]} in {campaign.plan.folder}")
    if campaign.interrupted:
        raise typer.Exit(_INTERRUPTED)
    if campaign.findings:
        raise typer.Exit(1)


def _seconds(text: str) -> float:
    found = _TIME.fullmatch(text)
    if found is None or not float(found[1]):
        raise EngineError(f"--time: value {shown(text)} (allowed: as 90, 90s, 10m, 8h; above 0)")
    return float(found[1]) * _UNITS[found[2]]


def _statuses(campaign: Campaign) -> list[str]:
    """How it stands: in full, and in ever fewer words."""
    seconds = max(campaign.elapsed_s, 1e-9)
    runs_per_s = f"{campaign.runs / seconds:,.0f}"
    known = f" ({campaign.known:,} more known)" if campaign.known else ""
    findings = f"{counted(len(campaign.findings), 'finding')}{known}"
    coverage = f"{max(campaign.coverage, campaign.before):,}"
    found = f"{len(campaign.findings):,} found"
    forms = (
        (
            f"{seconds:,.0f} s",
            f"{counted(campaign.programs, 'program')} ({campaign.programs / seconds:,.0f}/s)",
            f"{counted(campaign.runs, 'execution')} ({runs_per_s}/s)",
            f"coverage {coverage}",
            findings,
        ),
        (f"{seconds:,.0f} s", f"{runs_per_s} executions/s", f"coverage {coverage}", findings),
        (f"{seconds:,.0f} s", f"{runs_per_s} exec/s", f"cov {coverage}", found),
        (f"{runs_per_s} exec/s", f"cov {coverage}", found),
    )
    return [", ".join(form) for form in forms]


def _print_found(line: _StatusLine, found: Found, path: Path) -> None:
    line.clear()
    for text in found.what.splitlines()[:2]:
        print_folded(text)
    print(f"program {path}")
    if found.token is not None:
        print(f"token   {found.token}")
    print(f"again   {found.command(path)}")
    print(f"test    {path.with_name(f'test_{found.name}.py')}\n")
    print(found.test(), flush=True)


class _StatusLine:
    """One line on the terminal that changes; nothing where nobody looks."""

    def __init__(self, *, quiet: bool) -> None:
        self.is_on = not quiet and sys.stderr is not None and sys.stderr.isatty()
        self.width = 0

    def show(self, campaign: Campaign) -> None:
        if self.is_on:
            # The last column stays free: some terminals go to the next line when it is written.
            room = max(1, os.get_terminal_size(sys.stderr.fileno()).columns - 1)
            texts = _statuses(campaign)
            text = next((text for text in texts if len(text) <= room), texts[-1][:room])
            print(f"\r{text.ljust(min(self.width, room))}", end="", file=sys.stderr, flush=True)
            self.width = len(text)

    def clear(self) -> None:
        if self.is_on and self.width:
            print(f"\r{' ' * self.width}\r", end="", file=sys.stderr, flush=True)
            self.width = 0


def register(app: typer.Typer) -> None:
    """Adds ``fuzz`` to the command line. Source: the command line's page."""
    app.command("fuzz", epilog="Example: spfemu fuzz --time 2 --workers 1 --db found")(fuzz_command)
