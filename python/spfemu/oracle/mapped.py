"""What an address space has mapped at a moment, from the calls that it has seen."""

from __future__ import annotations

from typing import Final

from spfemu.oracle.history import Call, History
from spfemu.program.ops import ADVICES, MREMAP_FLAGS

__all__ = ["Ranges", "mapped", "page_up"]

_DONTFORK: Final = ADVICES.index("dontfork")
_DOFORK: Final = ADVICES.index("dofork")


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

    def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """What it has from ``start`` to below ``end``. Source: ours."""
        parts = [(max(low, start), min(high, end)) for low, high in self._ranges]
        return [(low, high) for low, high in parts if low < high]

    def meets(self, start: int, end: int) -> bool:
        """Whether it has any address from ``start`` to below ``end``. Source: ours."""
        return bool(self.within(start, end))


def mapped(history: History, position: int, space: int) -> Ranges:
    """Returns what an address space has mapped at a position. Source: ours."""
    account = _Account()
    current = None
    for call in reversed(history.before(position, space)):
        mine = history.spaces.of_task(call.task, call.position)
        if current not in (None, mine):
            account.fork()
        current = mine
        account.see(call)
    if current not in (None, space):
        account.fork()
    return account.found


def page_up(address: int) -> int:
    """Returns the address, or the next one that begins a page. Source: ours."""
    return (address + 4095) & ~4095


class _Account:
    def __init__(self) -> None:
        self.found = Ranges()
        self.not_for_children = Ranges()

    def fork(self) -> None:
        for start, end in self.not_for_children.within(0, 1 << 64):
            self.found.remove(start, end)
        self.not_for_children = Ranges()

    def see(self, call: Call) -> None:
        if call.op == "madvise":
            self._advise(call)  # what lies before a hole is advised even so
        elif call.errno:
            return
        elif call.op == "mmap":
            self._replace(call.ret, call.ret + call.length, is_mapped=True)
        elif call.op == "munmap":
            self._replace(call.address, call.address + call.length)
        elif call.op == "mremap":
            self._remap(call)
        elif call.op == "brk":
            before, now = page_up(call.ret - int(call.record["addr"])), page_up(call.ret)
            self._replace(now, before)
            self._replace(before, now, is_mapped=True)

    def _replace(self, start: int, end: int, *, is_mapped: bool = False) -> None:
        self.not_for_children.remove(start, end)
        (self.found.add if is_mapped else self.found.remove)(start, end)

    def _advise(self, call: Call) -> None:
        start, end = call.address, call.address + call.length
        if int(call.record["advice"]) == _DONTFORK:
            for low, high in self.found.within(start, end):
                self.not_for_children.add(low, high)
        elif int(call.record["advice"]) == _DOFORK:
            self.not_for_children.remove(start, end)

    def _remap(self, call: Call) -> None:
        old, length, new, new_length = call.address, call.length, call.ret, call.new_length
        if new == old and new_length <= length:
            # What stays need not be whole.
            self._replace(new + new_length, new + length)
            return
        # It is one VMA.
        is_advised = self.not_for_children.meets(old, old + 4096)
        if not int(call.record["flags"]) & MREMAP_FLAGS["dontunmap"]:
            self._replace(old, old + length)
        self._replace(new, new + new_length, is_mapped=True)
        if is_advised:
            self.not_for_children.add(new, new + new_length)
