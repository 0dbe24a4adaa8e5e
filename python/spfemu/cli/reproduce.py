"""``spfemu reproduce``: the series' published results beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from spfemu.cli.options import JsonOption, SeedOption
from spfemu.cli.output import check_output, print_json, progress_bar
from spfemu.cli.tables import print_table
from spfemu.errors import ProfileError
from spfemu.machines import is_machine_file
from spfemu.program.values import shown
from spfemu.reproducing import reproduce as run_all
from spfemu.reproducing.report import COLUMNS, cells_of, write_csv, write_html

__all__ = ["register"]

_EXAMPLE: Final = "Example: spfemu reproduce -S 0.5 --html report.html"
_PIPED_WIDTH: Final = 120


def reproduce(
    seconds: Annotated[
        float,
        typer.Option(
            "-S", "--seconds", metavar="S", help="Virtual time of each run (authors: 10)."
        ),
    ] = 2.0,
    repeat: Annotated[
        int, typer.Option("-r", "--repeat", metavar="N", help="Runs to average, a seed each.")
    ] = 1,
    seed: SeedOption = 0,
    machine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OF=MACHINE",
            help="Take a machine, or a .toml file, instead of the package's; several times.",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with plots.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the table as CSV.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare with the published results of the series: ebizzy of v12 and v11.

    Each number of the cover letters beside what virtual time gives, with the error. Constants that
    were fitted, and to which rows, are in 'spfemu machines NAME'; every other row is a prediction.
    """
    machines = _machines(machine or [])
    read = [*filter(is_machine_file, machines.values())]
    check_output(html, csv, *read)
    check_output(csv, *read)
    with progress_bar("reproduce", quiet=as_json) as progress:
        lines = run_all(
            seconds=seconds, repeat=repeat, seed=seed, machines=machines, progress=progress
        )
    about = (
        f"ebizzy -mTt CPUS -S {seconds:g} in virtual time, {repeat} run(s) a number, seed {seed}. "
        "v11 ran before munmap downgraded mmap_sem; its rwlock-protected tree is v12's here."
    )
    if machines:
        about += f" Instead of the package's machines: {', '.join(machine or [])}."
    if csv is not None:
        write_csv(lines, csv)
    if html is not None:
        write_html(lines, html, about=about)
    if as_json:
        print_json([{**asdict(line), "error_pct": line.error_pct} for line in lines])
        return
    rows = [cells_of(line) for line in lines]
    print_table(COLUMNS, rows, right=(3, 4, 5), min_width=9, width=_PIPED_WIDTH)
    outside = sum(not line.within for line in lines)
    print()
    print(f"{about} {outside} of {len(lines)} numbers are farther off than their limit.")


def _machines(given: Sequence[str]) -> dict[str, str]:
    for text in given:
        if "=" not in text:
            told = f"--machine: value {shown(text)}"
            raise ProfileError(f"{told} (allowed: OF=MACHINE, as in x86-48=mine.toml)")
    return {name: other for name, _, other in (text.partition("=") for text in given)}


def register(app: typer.Typer) -> None:
    """Adds ``reproduce`` to the command line. Source: the command line's page."""
    app.command(epilog=_EXAMPLE)(reproduce)
