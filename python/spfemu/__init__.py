"""Linux's page-fault path in user space, with the classic and the speculative handler.

``run`` takes a program to an engine and returns a ``Result``; ``explore`` tries its interleavings;
``Program`` and ``ProgramBuilder`` are what they take.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spfemu.catalogue import Scenario, scenario
    from spfemu.comparing import Difference, check, compare
    from spfemu.data import Row, published
    from spfemu.engines import run
    from spfemu.errors import (
        EngineError,
        InvariantViolation,
        ProfileError,
        ProgramError,
        SpfemuError,
        TraceError,
    )
    from spfemu.explaining import explain
    from spfemu.exploring import explore
    from spfemu.machines import Machine, machine
    from spfemu.minimising import Minimised, minimise
    from spfemu.perfetto import write_perfetto
    from spfemu.profiles import Arch, arch
    from spfemu.program import Program, ProgramBuilder
    from spfemu.reproducing import Compared, reproduce
    from spfemu.results import EVENTS, OUTCOME_DTYPE, Result
    from spfemu.sweeping import Sweep, sweep
    from spfemu.tracing import trace_lines

# Each where it is defined: found when first asked for, so that the command line is there at once,
# and ends at once when it is interrupted.
_HOMES = {
    "catalogue": ("Scenario", "scenario"),
    "comparing": ("Difference", "check", "compare"),
    "data": ("Row", "published"),
    "engines": ("run",),
    "errors": (
        "EngineError", "InvariantViolation", "ProfileError", "ProgramError", "SpfemuError",
        "TraceError",
    ),
    "explaining": ("explain",),
    "exploring": ("explore",),
    "machines": ("Machine", "machine"),
    "minimising": ("Minimised", "minimise"),
    "perfetto": ("write_perfetto",),
    "profiles": ("Arch", "arch"),
    "program": ("Program", "ProgramBuilder"),
    "reproducing": ("Compared", "reproduce"),
    "results": ("EVENTS", "OUTCOME_DTYPE", "Result"),
    "sweeping": ("Sweep", "sweep"),
    "tracing": ("trace_lines",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "EVENTS",
    "OUTCOME_DTYPE",
    "Arch",
    "Compared",
    "Difference",
    "EngineError",
    "InvariantViolation",
    "Machine",
    "Minimised",
    "ProfileError",
    "Program",
    "ProgramBuilder",
    "ProgramError",
    "Result",
    "Row",
    "Scenario",
    "SpfemuError",
    "Sweep",
    "TraceError",
    "__version__",
    "arch",
    "check",
    "compare",
    "explain",
    "explore",
    "machine",
    "minimise",
    "published",
    "reproduce",
    "run",
    "scenario",
    "sweep",
    "trace_lines",
    "write_perfetto",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        # Each run writes it into its result, and it takes longer to find than many a run: once.
        globals()[name] = metadata.version("spfemu")
        return globals()[name]
    if name in _HOME_OF:
        value = getattr(importlib.import_module(f"spfemu.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'spfemu' has no attribute {name!r}")


def __dir__() -> list[str]:
    # Not the helpers above, nor which modules happen to have been imported.
    return sorted(__all__)
