"""Which private memory has an anon_vma: what was written to, or brought in for writing."""

from __future__ import annotations

from typing import Final

from spfemu.oracle.history import Call, History
from spfemu.program.ops import ADVICES, MMAP_FLAGS

__all__ = ["is_touched"]

_ONFAULT: Final = 1
_POPULATING: Final = MMAP_FLAGS["populate"] | MMAP_FLAGS["locked"]
_POPULATE_WRITE: Final = ADVICES.index("populate_write")


def is_touched(
    history: History,
    position: int,
    space: int,
    start: int = 0,
    end: int = 1 << 64,
    *,
    even_refused: bool = True,
) -> bool:
    """Whether an address space had a page in [start, end) touched before a position.

    Source: ours. What a call may have brought in counts, whatever came of it, and so does a write
    that was refused, unless ``even_refused`` is False.
    """
    written = history.written(position, space, even_refused=even_refused)
    if any(start <= page < end for page in written):
        return True
    calls = (call for call in history.before(position, space) if _populates(call))
    return any(_start(call) < end and start < _start(call) + call.length for call in calls)


def _populates(call: Call) -> bool:
    if call.op == "mmap":
        return bool(int(call.record["flags"]) & _POPULATING) and not call.errno
    if call.op == "mlock":
        return not int(call.record["flags"]) & _ONFAULT
    return call.op == "madvise" and int(call.record["advice"]) == _POPULATE_WRITE


def _start(call: Call) -> int:
    return call.ret if call.op == "mmap" else call.address
