"""The model agrees with what a real kernel did in every scenario whose operations exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from spfemu.comparing import check
from spfemu.program import Program
from spfemu.reference import run
from tests.reference.arches import X86
from tests.scenario_files import SCENARIOS


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    result = run(Program.load(path), arch=X86)
    assert check(result) == []
    assert result.stuck == ()
