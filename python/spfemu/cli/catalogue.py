"""``spfemu mutants`` and ``variants``: the catalogue, in a table or one entry in full."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import typer

from spfemu.catalogue import entries, scenarios
from spfemu.cli.by_name import scenario_text
from spfemu.cli.choices import mutant_choices, variant_choices
from spfemu.cli.options import JsonOption
from spfemu.cli.output import print_json
from spfemu.cli.tables import print_table, terminal_width
from spfemu.engines import one_of

__all__ = ["register"]

_PIPED_WIDTH: Final = 100
_HEADERS: Final = ("entry", "name", "scenario", "cpus", "oracle")
_KEY_WIDTH: Final = 11
_TEXTS: Final = ("removed", "race", "what", "source", "cpus", "oracle", "models", "run_default")

_Mutant = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]",
        help="Show this one in full: an entry, such as A7 or A1, or a name.",
        autocompletion=mutant_choices,
    ),
]
_Variant = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]",
        help="Show this one in full: an entry, such as B1, or a name.",
        autocompletion=lambda: [choice.removesuffix("=v12") for choice in variant_choices()[::2]],
    ),
]


def mutants(name: _Mutant = None, as_json: JsonOption = False) -> None:
    """List the checks that explore can remove.

    With the program that shows each, and the invariants that explore reports as broken: on every
    arch, or where its memory model is said, only with that one.
    """
    _show("mutants", name, as_json)


def variants(name: _Variant = None, as_json: JsonOption = False) -> None:
    """List the known bugs of v12 and their cures.

    With the program that shows each, and the invariants that explore reports as broken.
    """
    _show("variants", name, as_json)


def _show(what: str, name: str | None, as_json: bool) -> None:
    found = entries(what)
    if name is not None:
        names = {key: None for entry in found for key in _names(entry)}
        one_of(what.removesuffix("s"), name, names)
        found = [entry for entry in found if name in _names(entry)]
    if as_json:
        print_json(found)
    elif name is None:
        rows = [_row(entry) for entry in found]
        print_table(_HEADERS, rows, right=[3], title=1, width=_PIPED_WIDTH)
    else:
        print("\n\n".join("\n".join(_in_full(what, entry)) for entry in found))


def _names(entry: Mapping[str, Any]) -> list[str]:
    """What an entry can be called: A1a is one of A1."""
    names = [entry["entry"].rstrip("abcd"), entry["entry"], entry["name"]]
    return [name for name in names if name is not None]


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    if entry["name"] is None:
        return (entry["entry"], "", "", "", "nothing to switch")
    oracle = entry["oracle"]
    if entry.get("models", "all") not in ("all", "none"):
        oracle += f" on {entry['models']}"
    program = entry["scenarios"][0]["program"]
    return (entry["entry"], entry["name"], program, str(entry["cpus"]), oracle)


def _in_full(what: str, entry: Mapping[str, Any]) -> Iterator[str]:
    name = entry["entry"]
    yield name if entry["name"] is None else f"{name}: {entry['name']}"
    for key in _TEXTS:
        if entry.get(key) is not None:
            yield _line(key.replace("_", " "), str(entry[key]))
    for one in scenarios(name):
        yield _line("scenario", scenario_text(one.name, one.settings))
        yield _line("breaks", ", ".join(one.breaks) or "nothing")
    if entry["verdict"] is not None:
        yield _line("verdict", entry["verdict"])
    if entry["scenarios"]:
        option = f"--mutant {name}" if what == "mutants" else f"--variant {name}=v12"
        yield _line("find", f"spfemu explore {option}")


def _line(key: str, text: str) -> str:
    width = terminal_width(sys.stdout) or _PIPED_WIDTH
    return textwrap.fill(
        text,
        width,
        initial_indent=f"  {key.ljust(_KEY_WIDTH)}  ",
        subsequent_indent=" " * (_KEY_WIDTH + 4),
        break_long_words=False,
        break_on_hyphens=False,
    )


def register(app: typer.Typer) -> None:
    """Adds the two to the command line. Source: the command line's page."""
    app.command(epilog="Example: spfemu mutants A7")(mutants)
    app.command(epilog="Example: spfemu variants C1")(variants)
