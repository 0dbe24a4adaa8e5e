"""docs/findings.md is true: each command finds what its section says, in the steps it quotes."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from spfemu.cli import main
from spfemu.engines import core_list

ROOT: Final = Path(__file__).parent.parent
TEXT: Final = (ROOT / "docs/findings.md").read_text()
SHOWN: Final = re.compile(r"```sh\n(spfemu [^\n]*)\n```\n(?:```text\n(.*?)```\n)?", re.DOTALL)
STEP: Final = re.compile(r" *(\d+)  (\w+)  (.*)")


@dataclass(frozen=True)
class Finding:
    """A command, and the steps of its timeline that the page quotes: number, task, what."""

    command: str
    steps: tuple[tuple[int, str, str], ...]

    @property
    def entry(self) -> str:
        found = re.search(r"--variant (\w+)=v12", self.command)
        assert found is not None
        return found[1]


def findings() -> list[Finding]:
    found = []
    for command, quoted in SHOWN.findall(TEXT):
        matches = [STEP.fullmatch(line) for line in quoted.splitlines()]
        steps = [(int(match[1]), match[2], match[3]) for match in matches if match is not None]
        assert len(steps) == len(matches)
        found.append(Finding(command, tuple(steps)))
    return found


@pytest.mark.parametrize("finding", findings(), ids=lambda finding: finding.entry)
def test_a_finding_is_as_it_is_quoted(
    finding: Finding, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(shlex.split(finding.command)[1:]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(f"(known as {finding.entry})" in line for line in lines)
    (head,) = (line for line in lines if line.startswith("step "))
    columns = {task: head.index(f"({task})") for task in re.findall(r"\((\w+)\)", head)}
    begins = sorted(head.index("CPU", number - 6) for number in columns.values())
    for number, task, what in finding.steps:
        (line,) = (line for line in lines if re.match(rf" *{number}  ", line))
        assert line.rstrip().endswith(what), line
        at = line.index(what)
        assert [begin for begin in begins if begin <= at][-1] == head.rindex(
            "CPU", 0, columns[task]
        )
    assert all(one[0] < other[0] for one, other in pairwise(finding.steps))


def test_every_suspicion_has_its_verdict() -> None:
    table = TEXT.partition("\n## ")[0]
    rows = re.findall(r"^\| ([CN]\d(?:, C\d)*) \|", table, re.MULTILINE)
    told = {entry for row in rows for entry in row.split(", ")}
    known = {entry["entry"] for entry in core_list("variants")}
    assert told == {entry for entry in known if entry[0] in "CN"}
