"""Writes the tables of docs/cost-model.md: what the compiled core knows of its machines.

Run it after a change of `rust/core/machines/`; `tests/test_machines.py` fails until then.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from spfemu.engines import core_list

PAGE: Final = Path(__file__).parent.parent / "docs/cost-model.md"
BEGIN: Final = "<!-- begin: scripts/cost_model.py -->\n"
END: Final = "<!-- end -->\n"


def tables() -> str:
    """Returns the part of the page that is made of the machines' files. Source: ours."""
    machines = core_list("machines")
    parts = [_fields(machines)]
    parts += [_machine(machine, {other["name"] for other in machines}) for machine in machines]
    return "\n".join(parts)


def with_tables(page: str) -> str:
    """Returns the page with its tables made anew. Source: ours."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{PAGE.name}: the lines {BEGIN!r} and {END!r} are not there")
    return before + BEGIN + "\n" + tables() + "\n" + END + after


def _fields(machines: list[dict[str, Any]]) -> str:
    """What each number is: of the machine that has the most of them."""
    fields: dict[str, dict[str, Any]] = {}
    for machine in sorted(machines, key=lambda machine: -len(machine["values"])):
        for value in machine["values"]:
            fields.setdefault(value["name"], value)
    rows = [f"| `{name}` | {value['unit']} | {value['what']} |" for name, value in fields.items()]
    return "\n".join(["| constant | unit | what |", "|---|---|---|", *rows, ""])


def _machine(machine: dict[str, Any], names: set[str]) -> str:
    """What the machine's file says itself, and whom it is like in all else."""
    rows, like = [], set()
    for value in machine["values"]:
        origin = value["source"].partition(", ")[0].removeprefix("as ")
        if value["source"].startswith("as ") and origin in names:
            like.add(origin)
            continue
        number = str(value["value"]).lower() if value["unit"] == "flag" else f"{value['value']:,}"
        rows.append(f"| `{value['name']}` | {number} | {value['kind']} | {value['source']} |")
    rest = f" All else is assumed, as {' or '.join(sorted(like))} has it." if like else ""
    return "\n".join(
        [
            f"### {machine['name']}",
            "",
            f"{machine['cpus']} CPUs, {machine['arch']}: {machine['summary']}.{rest}",
            "",
            "| constant | value | kind | source |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> int:
    """Writes the page."""
    PAGE.write_text(with_tables(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
