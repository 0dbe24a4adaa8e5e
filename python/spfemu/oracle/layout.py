"""Addresses that kernels chose: what lies where on the one corresponds to what on the other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from spfemu.comparing import joined_maps, maps_line, parsed_maps_line
from spfemu.oracle.history import ACCESS_CODES, Call, History
from spfemu.oracle.mapped import Ranges, grows_down, mapped, page_up
from spfemu.program.ops import GIVEN, MMAP_FLAGS, MREMAP_FLAGS, OPS
from spfemu.results import Result

__all__ = ["Layout"]

_FIXED: Final = MMAP_FLAGS["fixed"] | MMAP_FLAGS["fixed_noreplace"]
_MREMAP_FIXED: Final = MREMAP_FLAGS["fixed"]
_MAYMOVE: Final = MREMAP_FLAGS["maymove"]
_MMAP: Final = OPS["mmap"].code
_MREMAP: Final = OPS["mremap"].code
_GUARD_GAP: Final = 256
"""Pages that a stack keeps from what lies below it. Source: stack_guard_gap, mm/mmap.c@5.1."""
_STACK: Final = 8 << 20
"""How far a stack grows, bytes. Source: RLIMIT_STACK, the default."""
_BRK: Final = OPS["brk"].code
_WITH_ADDRESS: Final = [
    op.code
    for op in OPS.values()
    for key in op.keys
    if key.name == "addr" and key.kind == "address"
] + [_BRK]


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A range that a call got, where it is with either kernel."""

    position: int
    space: int
    emulated: int
    host: int
    length: int
    grows_down: bool


def _cleared_by(call: Call) -> tuple[int, int] | None:
    """What a call has unmapped: bytes from its address to its beginning, and how many."""
    if call.errno:
        return None
    if call.op == "munmap" or (call.op == "mmap" and int(call.record["flags"]) & _FIXED):
        return 0, call.length
    if call.op == "mremap" and call.ret == call.address:
        return call.new_length, call.length - call.new_length
    return (0, call.length) if call.op == "mremap" else None


def _overlap(start: int, length: int, at: int, size: int) -> tuple[int, int] | None:
    """What a range has of [at, at + size), as bytes from its start."""
    low, high = max(start, at), min(start + length, at + size)
    return (low - at, high - at) if low < high else None


class Layout:
    """Where two kernels put what they were free to put somewhere.

    Source: ours. As long as both chose the same, nothing is translated.
    """

    def __init__(self, emulated: Result, host: Result, history: History) -> None:
        self._emulated = emulated
        self._host = host
        self._history = history
        self._placed = self._ranges()
        self._chosen = [place for place in self._placed if place.emulated != place.host]

    def is_same_place(self, task: int, row: int) -> bool:
        """Whether an outcome's ``ret`` is an address that means the same on both sides.

        Source: ours. Either both kernels chose it, or it is where the program wanted it, relative
        to something that they chose. An mremap moves with both, or with neither.
        """
        outcome = self._host.task_ops(task)[row]
        record = self._history.program.tasks[task].ops[int(outcome["index"])]
        op, flags = int(record["op"]), int(record["flags"])
        if outcome["errno"] or op not in (_MMAP, _MREMAP):
            return False
        ret = int(self._emulated.task_ops(task)["ret"][row]), int(outcome["ret"])
        position = self._history.position((task, row))
        if op == _MREMAP and flags & _MREMAP_FIXED:
            return ret == self._targets(record, position)
        wanted = self._wanted(record, position)
        if op == _MREMAP:
            grows = page_up(int(record["length2"])) > page_up(int(record["length"]))
            may_move = grows and flags & _MAYMOVE
            stays = [here == there for here, there in zip(ret, wanted, strict=True)]
            return all(stays) or (bool(may_move) and not any(stays))
        if flags & _FIXED or (flags & GIVEN and ret[0] == wanted[0]):
            return ret == wanted
        # A hint that only one of them took is a difference.
        return not flags & GIVEN or ret[1] != wanted[1]

    def moved(self, task: int, row: int) -> int:
        """By how many bytes the emulator's address of an operation is higher. Source: ours."""
        record = self._history.program.tasks[task].ops[int(self._host.task_ops(task)["index"][row])]
        mine, theirs = self._wanted(record, self._history.position((task, row)))
        return mine - theirs

    def is_free(self, task: int, row: int) -> bool:
        """Whether an address that means the same need not be the same.

        Source: ours. It lies relative to something that is not, or was chosen where the two have
        something at different places already.
        """
        outcome = self._host.task_ops(task)[row]
        record = self._history.program.tasks[task].ops[int(outcome["index"])]
        position = self._history.position((task, row))
        mine, theirs = self._wanted(record, position)
        if int(record["op"]) == _MREMAP and int(record["flags"]) & _MREMAP_FIXED:
            mine, theirs = self._targets(record, position)
        ret = int(self._emulated.task_ops(task)["ret"][row]), int(outcome["ret"])
        space = self._history.spaces.of_task(task, position)
        is_relative = ret == (mine, theirs)
        return is_relative or bool(self._seen(self._chosen, position, space))

    def comparable(self, lines: list[str], position: int, space: int, *, host: bool) -> list[str]:
        """Lines of maps of an address space at a position, such that equal ones mean the same.

        Source: ours. They are as they are if both kernels chose the same addresses; else what the
        host has is moved to where the emulator has it. Where such a range begins or ends, on either
        side, it is left out whether it is one VMA with what it happens to lie beside.
        """
        before = self._seen(self._chosen, position, space)
        if not before:
            return lines
        if host:
            lines = [line for old in lines for line in _moved(old, before)]
        ends = {
            end
            for chosen in before
            for start in (chosen.emulated, chosen.host)
            for end in (start, start + chosen.length)
        }
        return joined_maps(lines, ends)

    @cached_property
    def conflict(self) -> tuple[int, int] | None:
        """The first outcome about something that the two kernels put at different places.

        An operation on the whole of it, or a part, is the same for both; one that meets something
        else on the one than on the other is not. Source: ours. None if there is none; from there on
        the two are different programs.
        """
        if not self._chosen:
            return None
        found = []
        for task, given in enumerate(self._history.program.tasks):
            rows = self._host.task_ops(task)
            for row in np.flatnonzero(np.isin(rows["op"], _WITH_ADDRESS)).tolist():
                if self._meets_differently(task, row, given.ops[int(rows["index"][row])]):
                    found.append((task, row))
                    break
        return min(found, key=self._history.position, default=None)

    def _meets_differently(self, task: int, row: int, record: np.void) -> bool:
        op, flags = int(record["op"]), int(record["flags"])
        position = self._history.position((task, row))
        space = self._history.spaces.of_task(task, position)
        before = self._seen(self._placed, position, space)
        if op in ACCESS_CODES and self._is_below_a_stack(record, position, space, before):
            return True
        if op == _BRK:
            ranges = self._of_heap(task, row, int(record["addr"]))
        else:
            ranges = [(*self._wanted(record, position), int(record["length"]))]
        if op == _MMAP and not flags & GIVEN:
            return False
        if op == _MREMAP and flags & _MREMAP_FIXED:
            ranges.append((*self._targets(record, position), int(record["length2"])))
        elif op == _MREMAP:  # it may grow where it is
            ranges.append((*self._wanted(record, position), int(record["length2"])))
        elif op in ACCESS_CODES and self._may_grow(task, row):
            below = _GUARD_GAP * 4096
            mine, theirs = self._wanted(record, position)
            ranges.append((mine - below, theirs - below, below + int(record["length"])))
        return any(
            _overlap(mine, max(length, 1), chosen.emulated, chosen.length)
            != _overlap(theirs, max(length, 1), chosen.host, chosen.length)
            for mine, theirs, length in ranges
            for chosen in before
        )

    def _is_below_a_stack(
        self, record: np.void, position: int, space: int, placed: list[_Chosen]
    ) -> bool:
        """Whether an access lets a stack grow, from elsewhere or to elsewhere: not followed."""
        mine, theirs = self._wanted(record, position)
        is_below = any(
            stack.emulated - _STACK <= mine < stack.emulated
            or stack.host - _STACK <= theirs < stack.host
            for stack in placed
            if stack.grows_down and (stack.emulated, mine) != (stack.host, theirs)
        )
        there = mapped(self._history, position, space) if is_below else Ranges()
        return is_below and not there.meets(theirs, theirs + 4096)

    @cached_property
    def _has_stacks(self) -> bool:
        return any(grows_down(call) for call in self._history.calls)

    def _may_grow(self, task: int, row: int) -> bool:
        """Whether a stack may have grown down to an access on one side only."""
        rows = self._emulated.task_ops(task)
        if row >= len(rows) or not self._has_stacks:
            return False
        mine, theirs = rows[row], self._host.task_ops(task)[row]
        return any(mine[name] != theirs[name] for name in ("errno", "signal", "si_code"))

    def _of_heap(self, task: int, row: int, delta: int) -> list[tuple[int, int, int]]:
        """What a brk lets the heap shrink by, or grow: it keeps a page from what comes next.

        The break is at one place for both.
        """
        for result in (self._host, self._emulated):
            outcome = result.task_ops(task)[row]
            if not outcome["errno"]:
                after = int(outcome["ret"])
                start, end = sorted((page_up(after), page_up(after - delta)))
                return [(start, start, end + 4096 - start)]
        return []

    def _wanted(self, record: np.void, position: int) -> tuple[int, int]:
        """The page that an operation begins at, for the emulator and for the host."""
        mine = self._history.address(record, position, self._emulated)
        return mine & ~4095, self._history.address(record, position) & ~4095

    def _targets(self, record: np.void, position: int) -> tuple[int, int]:
        """Where an mremap is to move to, for the emulator and for the host."""
        mine = self._history.target(record, position, self._emulated)
        return mine, self._history.target(record, position)

    def _seen(self, places: list[_Chosen], position: int, space: int) -> list[_Chosen]:
        sees = self._history.spaces.sees
        return [
            chosen
            for chosen in places
            if sees(space, position, chosen.space, chosen.position)
            and not any(sees(space, position, *when) for when in self._cleared[chosen])
        ]

    @cached_property
    def _cleared(self) -> dict[_Chosen, list[tuple[int, int]]]:
        """In which space, and at which position, each range was unmapped as a whole."""
        of_task = self._history.spaces.of_task
        cleared = [(call, _cleared_by(call)) for call in self._history.calls]
        calls = [(call, which) for call, which in cleared if which is not None]
        return {
            chosen: [
                (of_task(call.task, call.position), call.position)
                for call, which in calls
                if self._is_cleared(chosen, call, *which)
            ]
            for chosen in self._placed
        }

    def _is_cleared(self, chosen: _Chosen, call: Call, offset: int, length: int) -> bool:
        """Whether nothing is left of a range after a call, with either kernel."""
        mine, theirs = (start + offset for start in self._wanted(call.record, call.position))
        return (
            call.position > chosen.position
            and _overlap(mine, length, chosen.emulated, chosen.length) == (0, chosen.length)
            and _overlap(theirs, length, chosen.host, chosen.length) == (0, chosen.length)
        )

    def _ranges(self) -> list[_Chosen]:
        found = []
        for task in range(len(self._history.program.tasks)):
            mine, theirs = self._emulated.task_ops(task), self._host.task_ops(task)
            both = min(len(mine), len(theirs))
            is_place = np.isin(theirs["op"][:both], (_MMAP, _MREMAP))
            good = (mine["errno"][:both] == 0) & (theirs["errno"][:both] == 0)
            for row in np.flatnonzero(is_place & good).tolist():
                if mine["ret"][row] == theirs["ret"][row] or self.is_same_place(task, row):
                    record = self._history.program.tasks[task].ops[int(theirs["index"][row])]
                    is_mmap = theirs["op"][row] == _MMAP
                    length = int(record["length" if is_mmap else "length2"])
                    position = self._history.position((task, row))
                    space = self._history.spaces.of_task(task, position)
                    places = int(mine["ret"][row]), int(theirs["ret"][row])
                    grows = is_mmap and bool(int(record["flags"]) & MMAP_FLAGS["growsdown"])
                    found.append(_Chosen(position, space, *places, page_up(length), grows))
        return sorted(found, key=lambda chosen: chosen.position)


def _moved(line: str, chosen: list[_Chosen]) -> list[str]:
    """A line of the host's maps, cut at the ranges that lie elsewhere, these moved."""
    start, end, perms, offset = parsed_maps_line(line)
    has_file = offset != 0
    for last in reversed(chosen):
        low, high = max(start, last.host), min(end, last.host + last.length)
        if low < high:
            parts = []
            for first, stop, by in (
                (start, low, 0),
                (low, high, last.emulated - last.host),
                (high, end, 0),
            ):
                if first < stop:
                    at = offset + first - start if has_file else 0
                    piece = maps_line(first + by, stop + by, perms, at)
                    rest = [other for other in chosen if other is not last]
                    parts += _moved(piece, rest) if by == 0 else [piece]
            return parts
    return [line]
