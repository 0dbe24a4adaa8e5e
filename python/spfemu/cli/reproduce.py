"""``spfemu reproduce``: what was published beside ours, and what decides the numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from spfemu.cli.options import JsonOption, SeedOption
from spfemu.cli.output import check_is_file, check_output, print_json, progress_bar
from spfemu.cli.tables import print_table
from spfemu.engines import TREES
from spfemu.errors import EngineError, ProfileError
from spfemu.machines import is_machine_file
from spfemu.program.values import shown
from spfemu.reproducing import CASES, Compared, Moved, ablate, sensitivity
from spfemu.reproducing import reproduce as run_all
from spfemu.reproducing.ebizzy import MEASURED_S
from spfemu.reproducing.moved import MOVED_COLUMNS, moved_rows, still, write_moved
from spfemu.reproducing.report import COLUMNS, cells_of, reasons, write_csv, write_html

__all__ = ["register"]

_EXAMPLE: Final = "Example: spfemu reproduce --group ebizzy -S 0.5 --html ebizzy.html"
_PIPED_WIDTH: Final = 120

_Seconds = Annotated[
    float | None,
    typer.Option(
        "-S",
        "--seconds",
        metavar="S",
        help="Virtual time of each run of ebizzy (10; with --ablate 0.2, --sensitivity 0.1).",
    ),
]
_Repeat = Annotated[
    int, typer.Option("-r", "--repeat", metavar="N", help="Runs to average, a seed each.")
]
_Machine = Annotated[
    list[str] | None,
    typer.Option(
        metavar="OF=MACHINE",
        help="Take a machine, or a .toml file, instead of the package's; several times.",
    ),
]
_Tree = Annotated[
    str | None,
    typer.Option(
        metavar="rcu|rwlock",
        help="One tree for all runs (default: that of the series: v12 rcu, v11 rwlock).",
        autocompletion=lambda: list(TREES),
    ),
]
_Group = Annotated[
    list[str] | None,
    typer.Option(
        metavar="|".join(CASES),
        help="Only these tables; several times (default: all).",
        autocompletion=lambda: list(CASES),
    ),
]
_Ablate = Annotated[
    bool, typer.Option("--ablate", help="Take mechanisms away one at a time: what moves?")
]
_Sensitivity = Annotated[
    bool, typer.Option("--sensitivity", help="Halve and double each cost of the machines.")
]
_Case = Annotated[
    str,
    typer.Option(
        metavar="TEXT", help="With the last two: only cases that have TEXT in their names."
    ),
]
_Html = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The page with plots to write (report.html; --json: none)."),
]
_Csv = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The table to write as CSV (report.csv; --json, --ablate, --sensitivity: none).",
    ),
]


def reproduce(
    seconds: _Seconds = None,
    repeat: _Repeat = 1,
    seed: SeedOption = 0,
    machine: _Machine = None,
    tree: _Tree = None,
    group: _Group = None,
    without: _Ablate = False,
    scaled: _Sensitivity = False,
    case: _Case = "",
    html: _Html = None,
    csv: _Csv = None,
    as_json: JsonOption = False,
) -> None:
    """Compare with the published results of the series: ebizzy and kernbench of v12 and v11.

    Each number beside what virtual time gives, with the error; single mechanisms as others measured
    them. Constants that were fitted, and to which rows, are in 'spfemu machines NAME'; every other
    row is a prediction.
    """
    if without or scaled:
        given = {"--tree": tree, "--html": html, "--machine": machine, "--group": group}
        _check_alone(without, scaled, {**given, "-r": repeat != 1})
        _vary(ablate if without else sensitivity, seconds, seed, case, csv, as_json=as_json)
        return
    if case:
        raise EngineError("--case (allowed: with --ablate and --sensitivity)")
    seconds = MEASURED_S if seconds is None else seconds
    machines = _machines(machine or [])
    if not as_json:
        html, csv = html or Path("report.html"), csv or Path("report.csv")
    check_is_file("--html", html)
    check_is_file("--csv", csv)
    read = [*filter(is_machine_file, machines.values())]
    check_output(html, csv, *read)
    check_output(csv, *read)
    with progress_bar("reproduce", quiet=as_json, left=True) as progress:
        lines = run_all(
            seconds=seconds,
            repeat=repeat,
            seed=seed,
            machines=machines,
            tree=tree,
            groups=group or tuple(CASES),
            progress=progress,
        )
    about = (
        f"Virtual time, ebizzy -mTt CPUS -S {seconds:g}; {repeat} run(s) a number, seed {seed}. "
        "v11 ran before munmap downgraded mmap_sem."
    )
    if seconds != MEASURED_S:
        about += f" What was measured ran for {MEASURED_S:g} seconds, for which the limits are."
    if tree is not None:
        about += f" All on the tree {tree}."
    if machines:
        about += f" Instead of the package's machines: {', '.join(machine or [])}."
    if csv is not None:
        write_csv(lines, csv)
    if html is not None:
        write_html(lines, html, about=about)
    _print(lines, about, as_json=as_json)
    if not as_json:
        print(f"\nWritten: {html}, {csv}")


def _print(lines: Sequence[Compared], about: str, *, as_json: bool) -> None:
    if as_json:
        print_json([{**asdict(line), "error_pct": line.error_pct} for line in lines])
        return
    rows = [cells_of(line) for line in lines]
    print_table(COLUMNS, rows, right=(3, 4, 5), min_width=9, width=_PIPED_WIDTH)
    limited = [line for line in lines if line.within is not None]
    outside = sum(not line.within for line in limited)
    print()
    print(
        f"{about} {outside} of the {len(limited)} numbers that have a limit are farther off than "
        "that."
    )
    if told := reasons(lines):
        print("\nWhy some are far off:")
        print("\n".join(f"* {reason}" for reason in told))


def _check_alone(without: bool, scaled: bool, given: Mapping[str, object]) -> None:
    """Refuses what has no meaning where numbers are compared with ours, not with others'."""
    option = "--ablate" if without else "--sensitivity"
    if without and scaled:
        raise EngineError("--ablate and --sensitivity (allowed: one of them)")
    for name, value in given.items():
        if value:
            raise EngineError(f"{name} (allowed: without {option})")


def _vary(
    study: Callable[..., tuple[Moved, ...]],
    seconds: float | None,
    seed: int,
    case: str,
    csv: Path | None,
    *,
    as_json: bool,
) -> None:
    check_output(csv)
    how = {} if seconds is None else {"seconds": seconds}
    with progress_bar(study.__name__, quiet=as_json, left=True) as progress:
        moved = study(seed=seed, case=case, progress=progress, **how)
    if csv is not None:
        write_moved(moved, csv)
    if as_json:
        print_json([{**asdict(one), "percent": one.percent} for one in moved])
        return
    rows = moved_rows(moved)
    print_table(MOVED_COLUMNS, rows, right=range(2, 6), title=1, width=_PIPED_WIDTH)
    print()
    print(f"By how many percent each number moves.{still(moved)}")


def _machines(given: Sequence[str]) -> dict[str, str]:
    for text in given:
        if "=" not in text:
            told = f"--machine: value {shown(text)}"
            raise ProfileError(f"{told} (allowed: OF=MACHINE, as in x86-48=mine.toml)")
    pairs = [(name, other) for name, _, other in (text.partition("=") for text in given)]
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ProfileError(f"--machine: {shown(name)} twice (allowed: once)")
    return dict(pairs)


def register(app: typer.Typer) -> None:
    """Adds ``reproduce`` to the command line. Source: the command line's page."""
    app.command(epilog=_EXAMPLE)(reproduce)
