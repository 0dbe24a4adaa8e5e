"""The measured scenarios: which can run, and what the others wait for."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ALL: Final = sorted((Path(__file__).parent / "scenarios").glob("*.json"))

NOT_YET: Final = {
    "hugetlb": "flag 'hugetlb' of mmap is not available yet",
}
"""What each scenario that does not load is refused for. One that gets its operations has to go
from here: then every engine has to pass it."""

RUNNABLE: Final = [path for path in ALL if path.stem not in NOT_YET]
"""The scenarios that every engine has to pass."""
