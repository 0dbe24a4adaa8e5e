"""The exceptions of spfemu.

Bad input is an exception that names the field, the value and what is allowed, raised before
anything runs. An emulated failure (ENOMEM, SIGSEGV, out of frames) is an outcome of the operation
and never an exception.
"""

from __future__ import annotations

__all__ = [
    "EngineError",
    "InvariantViolation",
    "ProfileError",
    "ProgramError",
    "SpfemuError",
    "TraceError",
]


class SpfemuError(Exception):
    """The base of every exception that spfemu raises on purpose.

    Source: ours (DESIGN section 7).

    >>> from spfemu.errors import ProgramError, SpfemuError
    >>> issubclass(ProgramError, SpfemuError)
    True
    """


class ProgramError(SpfemuError, ValueError):
    """A program, or a setting of a run, that is not valid.

    The message is one line: the file, the place in it, the key, the value and what is allowed.
    Source: ours (DESIGN section 7).

    >>> from spfemu.program import Program
    >>> Program.loads('{"format": "spfemu-program/1", "tasks": []}')
    Traceback (most recent call last):
    ...
    spfemu.errors.ProgramError: <program>: key 'tasks': value [] (allowed: at least one task)
    """


class ProfileError(SpfemuError, ValueError):
    """An arch profile that describes no machine that could exist.

    Source: ours (DESIGN section 7).
    """


class TraceError(SpfemuError):
    """A recorded trace that cannot be read.

    ``file`` and ``line`` (from 1; 0 when the file as a whole is meant) say where; the message
    starts with both. Source: ours (DESIGN section 7).

    >>> str(TraceError("a.txt", 7, "a fault line without an address"))
    'a.txt:7: a fault line without an address'
    """

    def __init__(self, file: str, line: int, message: str) -> None:
        self.file = file
        self.line = line
        self.message = message
        super().__init__(f"{file}:{line}: {message}" if line else f"{file}: {message}")


class InvariantViolation(SpfemuError):  # noqa: N818 - a finding, not a mistake of the user
    """An invariant of DESIGN section 5 that did not hold.

    The message names the invariant, the schedule that broke it and the command that replays it.
    Source: ours (DESIGN section 7).
    """


class EngineError(SpfemuError):
    """An engine that cannot do what was asked: an unknown name, or a setting it does not have.

    Source: ours (DESIGN section 7).
    """
