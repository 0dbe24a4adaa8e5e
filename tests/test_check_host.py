"""`scripts/check_host.py`: what it draws, and how it refuses what it is told wrong."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts/check_host.py"


def test_a_seed_draws_the_same_programs() -> None:
    drawn = runpy.run_path(str(SCRIPT))["drawn"]
    first = drawn(3, 5)
    assert len(set(first)) == 3
    assert drawn(3, 5) == first != drawn(3, 6)


@pytest.mark.parametrize("given", [["foo"], ["0"], ["-3"], ["2", "--seed", "x"]])
def test_bad_usage_is_said_in_words(given: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, *given], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"value '{given[-1]}' (allowed: " in done.stderr
    assert "Traceback" not in done.stderr
