"""What a real kernel with the speculative handler did, on the engines of the core.

``tests/reference/test_fixtures.py`` holds the reference against the same scenarios.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import spfemu
from spfemu.comparing import check
from tests.scenario_files import SCENARIOS


@pytest.mark.parametrize("engine", ["native", "vtime", "explore"])
@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path, engine: str) -> None:
    result = spfemu.run(spfemu.Program.load(path), engine=engine)
    assert check(result) == []
    assert result.stuck == ()
