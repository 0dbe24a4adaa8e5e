"""What a real kernel with the speculative handler did, on the engines of the core.

``tests/reference/test_fixtures.py`` holds the reference against the same scenarios.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import spfemu
from spfemu.comparing import check
from spfemu.errors import ProgramError
from tests import scenario_files


@pytest.mark.parametrize("engine", ["native", "vtime", "explore"])
@pytest.mark.parametrize("path", scenario_files.RUNNABLE, ids=lambda path: path.stem)
def test_scenario(path: Path, engine: str) -> None:
    result = spfemu.run(spfemu.Program.load(path), engine=engine)
    assert check(result) == []
    assert result.stuck == ()


@pytest.mark.parametrize(("stem", "missing"), scenario_files.NOT_YET.items())
def test_others_are_refused_by_the_name_of_what_is_missing(stem: str, missing: str) -> None:
    (path,) = (path for path in scenario_files.ALL if path.stem == stem)
    with pytest.raises(ProgramError) as refused:
        spfemu.Program.load(path)
    assert str(refused.value).startswith(f"{path}: tasks[")
    assert str(refused.value).endswith(f": {missing}")
