"""What an address space has mapped at a moment, from the calls that it has seen."""

from __future__ import annotations

from collections.abc import Iterable

from spfemu.oracle.history import Call
from spfemu.program.ops import MREMAP_FLAGS

__all__ = ["Ranges", "mapped", "page_up"]


class Ranges:
    """A set of addresses.

    Source: ours. It keeps disjoint half-open ranges in order.
    """

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []

    def add(self, start: int, end: int) -> None:
        """Puts the addresses from ``start`` to below ``end`` in. Source: ours."""
        self.remove(start, end)
        if start < end:
            self._ranges = sorted([*self._ranges, (start, end)])

    def remove(self, start: int, end: int) -> None:
        """Takes the addresses from ``start`` to below ``end`` out. Source: ours."""
        parts = []
        for low, high in self._ranges:
            parts += [(low, min(high, start)), (max(low, end), high)]
        self._ranges = [(low, high) for low, high in parts if low < high]

    def meets(self, start: int, end: int) -> bool:
        """Whether it has any address from ``start`` to below ``end``. Source: ours."""
        return any(low < end and start < high for low, high in self._ranges)


def mapped(calls: Iterable[Call]) -> Ranges:
    """Returns what is mapped after these calls, in the order in which they were made.

    Source: ours. What fork leaves out (MADV_DONTFORK) counts as mapped.
    """
    found = Ranges()
    for call in calls:
        if call.errno:
            continue
        if call.op == "mmap":
            found.add(call.ret, call.ret + call.length)
        elif call.op == "munmap":
            found.remove(call.address, call.address + call.length)
        elif call.op == "mremap":
            _remap(found, call)
        elif call.op == "brk":
            before, now = page_up(call.ret - int(call.record["addr"])), page_up(call.ret)
            found.remove(now, before)
            found.add(before, now)
    return found


def page_up(address: int) -> int:
    """Returns the address, or the next one that begins a page. Source: ours."""
    return (address + 4095) & ~4095


def _remap(found: Ranges, call: Call) -> None:
    if call.ret == call.address and call.new_length <= call.length:
        # What stays need not be whole.
        found.remove(call.ret + call.new_length, call.ret + call.length)
        return
    if not int(call.record["flags"]) & MREMAP_FLAGS["dontunmap"]:
        found.remove(call.address, call.address + call.length)
    found.add(call.ret, call.ret + call.new_length)
