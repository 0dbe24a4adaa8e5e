"""What an address space has mapped at a moment, from the calls that it has seen."""

from __future__ import annotations

import errno
from typing import Final

from spfemu.oracle.history import Call, History, Reach
from spfemu.program.ops import ADVICES, MMAP_FLAGS, MREMAP_FLAGS

__all__ = ["USER_END", "Ranges", "first_behind", "grows_down", "mapped", "mapped_before", "page_up"]

USER_END: Final = (1 << 47) - 4096
"""Where user space ends on x86-64."""

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

    def stretches(self, start: int, end: int) -> list[tuple[int, int]]:
        """The same, with ranges that touch as one. Source: ours."""
        found: list[tuple[int, int]] = []
        for low, high in self.within(start, end):
            if found and found[-1][1] == low:
                low = found.pop()[0]
            found.append((low, high))
        return found

    @property
    def size(self) -> int:
        """How many addresses it has. Source: ours."""
        return sum(high - low for low, high in self._ranges)

    def meets(self, start: int, end: int) -> bool:
        """Whether it has any address from ``start`` to below ``end``. Source: ours."""
        return bool(self.within(start, end))


def mapped(history: History, position: int, space: int) -> Ranges:
    """Returns what an address space has mapped at a position. Source: ours."""
    account = _Account()
    spaces = history.spaces
    current = None
    for event in _events(history, position, space):
        mine = spaces.of_task(event.task, event.position)
        if current not in (None, mine):
            account.fork()
        current = mine
        if isinstance(event, Call):
            account.see(event)
        else:
            account.reach(event.page)
    if current not in (None, space):
        account.fork()
    return account.found


def mapped_before(history: History, call: Call) -> Ranges:
    """Returns what the address space of a call had mapped when it began. Source: ours."""
    space = history.spaces.of_task(call.task, call.position)
    return mapped(history, call.position, space)


def _events(history: History, position: int, space: int) -> list[Call | Reach]:
    calls: list[Call | Reach] = [*reversed(history.before(position, space))]
    if not any(grows_down(event) for event in calls if isinstance(event, Call)):
        return calls
    sees, of_task = history.spaces.sees, history.spaces.of_task
    reached = [
        event
        for event in history.reached
        if event.position < position
        and sees(space, position, of_task(event.task, event.position), event.position)
    ]
    return sorted([*calls, *reached], key=lambda event: event.position)


def first_behind(history: History, page: int) -> Reach | None:
    """Returns the first access that only the engine's own page keeps from a stack above it.

    Source: ours. ``page`` is where that page is. There, the host looks no further for a mapping
    that could grow down to the access.
    """
    if not any(grows_down(call) for call in history.calls):
        return None
    for reach in history.unmapped:
        if reach.page < page:
            space = history.spaces.of_task(reach.task, reach.position)
            if not mapped(history, reach.position, space).meets(reach.page, page):
                return reach
    return None


def grows_down(call: Call) -> bool:
    """Whether a call is to map what grows down. Source: ours."""
    return call.op == "mmap" and bool(int(call.record["flags"]) & MMAP_FLAGS["growsdown"])


def _is_promise_refused(call: Call) -> bool:
    """Shared memory that is not to be had: what was at its fixed place has gone by then."""
    flags = {name for name, bit in MMAP_FLAGS.items() if int(call.record["flags"]) & bit}
    return (
        (call.op, call.errno) == ("mmap", errno.ENOMEM)
        and flags >= {"shared", "anonymous", "fixed"}
        and call.address + call.length <= USER_END
    )


def page_up(address: int) -> int:
    """Returns the address, or the next one that begins a page. Source: ours."""
    return (address + 4095) & ~4095


class _Account:
    def __init__(self) -> None:
        self.found = Ranges()
        self.not_for_children = Ranges()
        self.growing = Ranges()

    def fork(self) -> None:
        for start, end in self.not_for_children.within(0, 1 << 64):
            self.found.remove(start, end)
        self.not_for_children = Ranges()

    def see(self, call: Call) -> None:
        if call.op == "madvise" and call.errno != errno.EINVAL:
            self._advise(call)  # what lies before a hole is advised even so
        elif call.errno:
            if _is_promise_refused(call):
                self._replace(call.address, call.address + call.length)
        elif call.op == "mmap":
            self._replace(call.ret, call.ret + call.length, is_mapped=True)
            if grows_down(call):
                self.growing.add(call.ret, call.ret + call.length)
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
        self.growing.remove(start, end)
        (self.found.add if is_mapped else self.found.remove)(start, end)

    def reach(self, page: int) -> None:
        """What grows down has grown down to a page that nothing else is at. Source: ours."""
        above = self.found.within(page, 1 << 64)
        if not above or not page < above[0][0]:
            return
        start = above[0][0]
        if not self.growing.meets(start, start + 4096):
            return
        for ranges in (self.growing, self.not_for_children):
            if ranges.meets(start, start + 4096):
                ranges.add(page, start)
        self.found.add(page, start)

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
        parts = [(old, old + new_length)]
        if new_length == length:
            # Since 6.17 it may be several VMAs, and the holes between them are not moved.
            parts = self.found.within(old, old + length)
        flags = (self.not_for_children, self.growing)
        kept = [
            [ranges for ranges in flags if ranges.meets(start, start + 4096)] for start, _ in parts
        ]
        if not int(call.record["flags"]) & MREMAP_FLAGS["dontunmap"]:
            self._replace(old, old + length)
        for (start, end), had in zip(parts, kept, strict=True):
            start, end = start - old + new, end - old + new
            self._replace(start, end, is_mapped=True)
            for ranges in had:
                ranges.add(start, end)
