"""The measured scenarios: every engine has to pass each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

SCENARIOS: Final = sorted((Path(__file__).parent / "kernel_scenarios").glob("*.json"))
