"""Linux's page-fault path in user space, with the classic and the speculative handler.

``run`` takes a program to an engine and returns a ``Result``; ``Program`` and ``ProgramBuilder``
are what it takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spfemu.errors import (
    EngineError,
    InvariantViolation,
    ProfileError,
    ProgramError,
    SpfemuError,
    TraceError,
)
from spfemu.program import Program, ProgramBuilder
from spfemu.results import EVENTS, OUTCOME_DTYPE, Result

if TYPE_CHECKING:
    from spfemu.arch import Arch, arch
    from spfemu.comparing import Difference, check, compare
    from spfemu.engines import run
    from spfemu.exploring import explore

__all__ = [
    "EVENTS",
    "OUTCOME_DTYPE",
    "Arch",
    "Difference",
    "EngineError",
    "InvariantViolation",
    "ProfileError",
    "Program",
    "ProgramBuilder",
    "ProgramError",
    "Result",
    "SpfemuError",
    "TraceError",
    "__version__",
    "arch",
    "check",
    "compare",
    "explore",
    "run",
]

# Engines and profiles need the compiled core; programs and results do not, so they load without it.
_LATER = {
    "Arch": "spfemu.arch",
    "arch": "spfemu.arch",
    "Difference": "spfemu.comparing",
    "check": "spfemu.comparing",
    "compare": "spfemu.comparing",
    "explore": "spfemu.exploring",
    "run": "spfemu.engines",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module, metadata

    if name == "__version__":
        return metadata.version("spfemu")
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'spfemu' has no attribute {name!r}")
