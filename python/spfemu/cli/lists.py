"""``spfemu workloads``, ``machines`` and ``events``: what there is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

import typer

from spfemu.cli.choices import ALIASES, EVENT_TEXTS, machine_choices
from spfemu.cli.options import JsonOption
from spfemu.cli.output import print_json
from spfemu.cli.tables import print_table
from spfemu.errors import ProfileError
from spfemu.machines import Machine, find_machine, machine, machine_names
from spfemu.program.ops import EVENTS
from spfemu.workloads import WORKLOADS

__all__ = ["register"]

_NUMBERS: Final = ("cpus", "page_size", "value")
_PIPED_WIDTH: Final = 100


def workloads(as_json: JsonOption = False) -> None:
    """List the built-in workloads and their options."""
    entries = [
        {
            "name": workload.name,
            "summary": workload.summary,
            "options": " ".join(
                f"-{option.letter} {option.value}".rstrip() for option in workload.options
            ),
        }
        for workload in WORKLOADS.values()
    ]
    _print(entries, as_json, ("name", "summary", "options"))


_MachineName = Annotated[
    str | None,
    typer.Argument(
        metavar="[MACHINE]",
        help="Show this one, or that of a .toml file: each value, its kind and its source.",
        autocompletion=machine_choices,
    ),
]


def machines(name: _MachineName = None, as_json: JsonOption = False) -> None:
    """List the machines of virtual time, or show what one is made of."""
    if name is None:
        entries = [machine.to_dict() for machine in _machines()]
        _print(entries, as_json, ("name", "arch", "cpus", "page_size", "summary"))
        return
    entry = find_machine(name).to_dict()
    if as_json:
        print_json(entry)
        return
    print(f"{entry['name']}: {entry['summary']}")
    print(f"arch {entry['arch']}, {entry['cpus']} CPUs, pages of {entry['page_size']} bytes\n")
    _print(entry["values"], as_json, ("name", "value", "unit", "kind", "source"))


def _machines() -> Iterator[Machine]:
    for name in machine_names():
        # Not every host says what it is.
        with contextlib.suppress(ProfileError):
            yield machine(name)


def events(as_json: JsonOption = False) -> None:
    """List the events that are counted."""
    names = {event: [alias for alias, of in ALIASES.items() if of == event] for event in EVENTS}
    entries = [
        {"name": event, "aliases": names[event], "text": EVENT_TEXTS[event]} for event in EVENTS
    ]
    _print(entries, as_json, ("name", "aliases", "text"))


def _print(entries: Sequence[dict[str, Any]], as_json: bool, headers: Sequence[str]) -> None:
    if as_json:
        print_json(list(entries))
        return
    rows = [[_cell(entry[header]) for header in headers] for entry in entries]
    right = [number for number, header in enumerate(headers) if header in _NUMBERS]
    print_table(headers, rows, right=right, title=headers.index("name"), width=_PIPED_WIDTH)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)


def register(app: typer.Typer) -> None:
    """Adds the lists to the command line. Source: the command line's page."""
    for command in (workloads, machines, events):
        app.command(epilog=f"Example: spfemu {command.__name__} --json")(command)
