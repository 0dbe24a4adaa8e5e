"""Programs: what each task does, in order; read, checked, built and written.

Everything that runs is a program, whatever it came from and whichever engine takes it.
"""

from spfemu.program.builder import ProgramBuilder, TaskBuilder
from spfemu.program.model import FileSpec, Program, System, Task
from spfemu.program.ops import (
    EVENTS,
    FORMAT,
    OP_DTYPE,
    OPS,
    OPS_BY_CODE,
    OUTCOME_DTYPE,
    SITE_DTYPE,
    Key,
    Op,
)

__all__ = [
    "EVENTS",
    "FORMAT",
    "OPS",
    "OPS_BY_CODE",
    "OP_DTYPE",
    "OUTCOME_DTYPE",
    "SITE_DTYPE",
    "FileSpec",
    "Key",
    "Op",
    "Program",
    "ProgramBuilder",
    "System",
    "Task",
    "TaskBuilder",
]
