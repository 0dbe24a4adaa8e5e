"""The model agrees with what a real kernel did in every scenario whose operations exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from spfemu.comparing import check
from spfemu.errors import ProgramError
from spfemu.program import Program
from spfemu.reference import run
from tests.reference.arches import X86

SCENARIOS = sorted(Path(__file__).parent.parent.glob("scenarios/*.json"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    try:
        program = Program.load(path)
    except ProgramError as error:
        assert "is not available yet" in str(error)  # noqa: PT017 - one of two proper ends
        return
    result = run(program, arch=X86)
    assert check(result) == []
    assert result.stuck == ()


def test_most_scenarios_run() -> None:
    def runs(path: Path) -> bool:
        try:
            Program.load(path)
        except ProgramError:
            return False
        return True

    assert sum(runs(path) for path in SCENARIOS) >= 38
