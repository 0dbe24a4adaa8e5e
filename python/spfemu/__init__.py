"""Linux's page-fault path in user space, with the classic and the speculative handler.

``run`` takes a program to an engine and returns a ``Result``; ``explore`` tries its interleavings;
``Program`` and ``ProgramBuilder`` are what they take.
"""

from __future__ import annotations

from typing import Any

# `spfemu.arch` is the function; the module of that name is only its home.
from spfemu.arch import Arch, arch
from spfemu.comparing import Difference, check, compare
from spfemu.engines import run
from spfemu.errors import (
    EngineError,
    InvariantViolation,
    ProfileError,
    ProgramError,
    SpfemuError,
    TraceError,
)
from spfemu.exploring import explore
from spfemu.program import Program, ProgramBuilder
from spfemu.results import EVENTS, OUTCOME_DTYPE, Result

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


def __getattr__(name: str) -> Any:
    if name == "__version__":  # read when asked for: it takes longer than all the rest
        from importlib import metadata

        return metadata.version("spfemu")
    raise AttributeError(f"module 'spfemu' has no attribute {name!r}")
