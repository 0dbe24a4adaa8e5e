"""What a real kernel with the speculative handler did, on the engines of the core.

``tests/reference/test_fixtures.py`` holds the reference against the same scenarios.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import spfemu
from spfemu.comparing import check
from spfemu.errors import ProgramError

SCENARIOS = sorted(Path(__file__).parent.glob("scenarios/*.json"))


@pytest.mark.parametrize("engine", ["native", "vtime"])
@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path, engine: str) -> None:
    try:
        program = spfemu.Program.load(path)
    except ProgramError as error:
        # Refused by the name of what is missing, never half run.
        assert "is not available yet" in str(error)  # noqa: PT017
        return
    result = spfemu.run(program, engine=engine)
    assert check(result) == []
    assert result.stuck == ()
