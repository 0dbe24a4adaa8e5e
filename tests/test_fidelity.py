"""docs/fidelity.md has a row for each step of the handler and each entry of the catalogue."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Final

from spfemu.engines import core_list

TEXT: Final = (Path(__file__).parents[1] / "docs/fidelity.md").read_text()


def rows(title: str) -> dict[str, str]:
    """For each name in the first column of a section's table, what the last column says."""
    section = TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:2] == "| "]
    names = [(name, cells[-1]) for cells in lines[1:] for name in cells[0].split(", ")]
    assert Counter(name for name, _ in names).most_common(1)[0][1] == 1
    return dict(names)


def test_every_step_of_the_handler_has_a_row() -> None:
    wanted = [*(f"W{number}" for number in range(1, 4)), *(f"H{number}" for number in range(1, 24))]
    assert [name for name in rows("The handler's steps") if name[1:].isdigit()] == wanted


def test_every_entry_of_the_catalogue_has_a_row() -> None:
    found = rows("Catalogue")
    numbers = {"A": 32, "B": 12, "C": 9}
    wanted = [f"{kind}{number + 1}" for kind, last in numbers.items() for number in range(last)]
    assert [name for name in found if name[0] in "ABC"] == wanted
    mutants = {re.sub(r"[a-z]$", "", mutant["entry"]) for mutant in core_list("mutants")}
    assert {name for name, here in found.items() if here.startswith("mutant")} == mutants
    variants = {variant["entry"] for variant in core_list("variants")}
    assert {name for name, here in found.items() if here.startswith("variant")} == variants
