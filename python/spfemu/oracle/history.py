"""What happened in a run of the kernel engine, in order: who, when, and at which addresses."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from spfemu.oracle.spaces import Spaces
from spfemu.program.model import FileSpec
from spfemu.program.ops import OPS, OPS_BY_CODE
from spfemu.results import Result

__all__ = ["ACCESS_CODES", "ACCESS_OPS", "Call", "History", "Mapping", "Reach"]

_WRITE: Final = OPS["write"].code
_TOUCH: Final = OPS["touch"].code
_MASK: Final = (1 << 64) - 1
_MAPERR: Final = 1
ACCESS_OPS: Final = ("read", "write", "execute", "touch")
"""The operations that are accesses, by name, …"""
ACCESS_CODES: Final = tuple(OPS[name].code for name in ACCESS_OPS)
"""… and by code."""
_DEFINES: Final = {op.code: key for op in OPS.values() for key in op.keys if key.kind == "define"}


_Ids = dict[int, list[tuple[int, int]]]
"""For each id: the positions at which it was set, and to what."""


@dataclass(frozen=True, slots=True)
class Call:
    """An operation that is no access, as it was done.

    Source: ours. ``record`` is the program's, number ``index``; ``address`` and ``target`` its
    addresses with the ids as they were, ``ret`` and ``errno`` what came of it on the host.
    """

    position: int
    task: int
    index: int
    op: str
    record: np.void
    address: int
    target: int
    ret: int
    errno: int

    @property
    def length(self) -> int:
        """The length it was given, in whole pages; it may wrap to 0. Source: the program."""
        return (int(self.record["length"]) + 4095) & ~4095 & _MASK

    @property
    def new_length(self) -> int:
        """The length that mremap is to give, in whole pages. Source: the program."""
        return (int(self.record["length2"]) + 4095) & ~4095 & _MASK

    @property
    def range(self) -> tuple[int, int]:
        """Where its range begins and ends. Source: the program."""
        return self.address, self.address + self.length

    def covers(self, page: int) -> bool:
        """Whether its range has the page. Source: ours."""
        return self.address <= page < self.address + self.length


@dataclass(frozen=True, slots=True)
class Mapping:
    """What a page belongs to.

    Source: ours. ``page_of_file`` is which page of the file is there.
    """

    file: FileSpec
    page_of_file: int


@dataclass(frozen=True, slots=True)
class Reach:
    """An access, and the page that it went to.

    Source: ours. ``index`` is its record's, ``is_done`` whether it was allowed.
    """

    position: int
    task: int
    index: int
    page: int
    is_done: bool


class History:
    """The order of a run.

    Source: ours. ``host`` is a result of engine kernel, whose tasks ran one at a time. A
    *position* is the number of an outcome in that order.
    """

    def __init__(self, host: Result) -> None:
        self.program = host.program
        self.host = host
        starts: list[list[int]] = [[] for _ in self.program.tasks]
        position = 0
        for task, count in host.turns:
            starts[task].extend(range(position, position + count))
            position += count
        self._positions = starts
        # With the result, whose number could else become another's.
        self._named: dict[int, tuple[Result, _Ids]] = {}
        self.end = position

    def position(self, place: tuple[int, int]) -> int:
        """The position of a task's outcome, by their numbers; the end if there is none.

        Source: ours.
        """
        task, row = place
        mine = self._positions[task]
        return mine[row] if row < len(mine) else self.end

    def position_of(self, task: int, index: int, number: int) -> int:
        """The position of the outcome of a record in a round. Source: ours."""
        rows = self.host.task_ops(task)
        hits = np.flatnonzero((rows["index"] == index) & (rows["round"] == number))
        return self.position((task, int(hits[0]))) if len(hits) else self.end

    def ordered(self, places: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """These outcomes in the order of the run. Source: ours."""
        return sorted(places, key=self.position)

    def has(self, op: str) -> bool:
        """Whether the program has such an operation. Source: ours."""
        return any((task.ops["op"] == OPS[op].code).any() for task in self.program.tasks)

    @cached_property
    def calls(self) -> list[Call]:
        """Every operation that is no access, in order. Source: ours."""
        return [self._call(task, row) for task, row in self.ordered(self._call_rows())]

    def _call_rows(self) -> Iterator[tuple[int, int]]:
        for task in range(len(self.program.tasks)):
            rows = self.host.task_ops(task)
            for row in np.flatnonzero(~np.isin(rows["op"], ACCESS_CODES)).tolist():
                yield task, row

    def _call(self, task: int, row: int) -> Call:
        outcome = self.host.task_ops(task)[row]
        record = self.program.tasks[task].ops[int(outcome["index"])]
        position = self.position((task, row))
        return Call(
            position,
            task,
            int(outcome["index"]),
            OPS_BY_CODE[int(record["op"])].name,
            record,
            self.address(record, position),
            self.target(record, position),
            int(outcome["ret"]),
            int(outcome["errno"]),
        )

    @cached_property
    def spaces(self) -> Spaces:
        """The address spaces there were. Source: ours."""
        return Spaces(self.host, self.position)

    @cached_property
    def reached(self) -> list[Reach]:
        """Every access to what was mapped, or had what lies above grow down to it, in order.

        Source: ours.
        """
        return [self._reach(task, row) for task, row in self.ordered(self._access_rows(False))]

    def _reach(self, task: int, row: int) -> Reach:
        outcome = self.host.task_ops(task)[row]
        index = int(outcome["index"])
        position = self.position((task, row))
        page = self.access_address(outcome, self.program.tasks[task].ops[index], position)
        is_done = not (outcome["errno"] or outcome["signal"])
        return Reach(position, task, index, page, is_done)

    def _access_rows(self, is_unmapped: bool) -> Iterator[tuple[int, int]]:
        for task in range(len(self.program.tasks)):
            rows = self.host.task_ops(task)
            is_access = np.isin(rows["op"], ACCESS_CODES)
            no_mapping = (rows["errno"] != 0) | (rows["si_code"] == _MAPERR)
            for row in np.flatnonzero(is_access & (no_mapping == is_unmapped)).tolist():
                yield task, row

    @cached_property
    def unmapped(self) -> list[Reach]:
        """Every access to an address without mapping, in order. Source: ours."""
        return [self._reach(task, row) for task, row in self.ordered(self._access_rows(True))]

    def before(self, position: int, space: int) -> list[Call]:
        """The calls that an address space has seen before a position, the last one first.

        Source: ours.
        """
        calls = self.calls
        some = calls[: bisect_left(calls, position, key=lambda call: call.position)]
        of_task, sees = self.spaces.of_task, self.spaces.sees
        return [
            call
            for call in reversed(some)
            if sees(space, position, of_task(call.task, call.position), call.position)
        ]

    def mapping(self, page: int, position: int, space: int) -> Mapping | None:
        """The file that a page is of, if the last mmap there was of a file, moved or not.

        Source: ours.
        """
        pages_beyond = 0
        for call in self.before(position, space):
            if call.op == "mremap" and not call.errno:
                if call.ret <= page < call.ret + call.new_length:
                    # It came from there, or goes on where what came from there ends.
                    beyond = max(0, page - call.ret - call.length + 4096)
                    page += call.address - call.ret - beyond
                    pages_beyond += beyond // 4096
                continue
            if call.op != "mmap" or call.errno or not call.ret <= page < call.ret + call.length:
                continue
            number = int(call.record["aux"]) - 1
            if number < 0:
                return None
            at = int(call.record["value"]) + page - call.ret
            return Mapping(self.program.files[number], at // 4096 + pages_beyond)
        return None

    def address(self, record: np.void, position: int, result: Result | None = None) -> int:
        """The address of an operation at a position, as it was on the host.

        Source: the program format. With ``result``, as it was in another run of the same program.
        """
        return self._resolved(
            int(record["base"]), int(record["addr"]), position, result or self.host
        )

    def target(self, record: np.void, position: int, result: Result | None = None) -> int:
        """The new address of an mremap at a position, as ``address`` has the old one.

        Source: the program format.
        """
        return self._resolved(
            int(record["base2"]), int(record["addr2"]), position, result or self.host
        )

    def _resolved(self, number: int, offset: int, position: int, result: Result) -> int:
        named = self._ids(result).get(number, [])
        before = bisect_left(named, (position,))
        base = named[before - 1][1] if before else 0
        return (base + offset) & _MASK

    def _ids(self, result: Result) -> _Ids:
        if id(result) not in self._named:
            self._named[id(result)] = result, self._ids_of(result)
        return self._named[id(result)][1]

    def _ids_of(self, result: Result) -> _Ids:
        found: _Ids = {}
        for task, row in self.ordered(self._call_rows()):
            rows = result.task_ops(task)
            record = self.program.tasks[task].ops[int(self.host.task_ops(task)["index"][row])]
            key = _DEFINES.get(int(record["op"]))
            number = -1 if key is None else int(record[key.field]) - key.plus
            if number >= 0 and row < len(rows):
                named = _MASK if rows[row]["errno"] else int(rows[row]["ret"]) & _MASK
                found.setdefault(number, []).append((self.position((task, row)), named))
        return found

    def access_address(self, outcome: Any, record: np.void, position: int) -> int:
        """The page that an access went to; for a touch in order of its accesses.

        Source: the program format.
        """
        address = self.address(record, position)
        if int(record["op"]) == _TOUCH:
            from spfemu.reference.order import touch_order

            stride = int(record["length2"]) or 4096
            count = -(-int(record["length"]) // stride)
            order = touch_order(int(record["flags"]), count, int(record["addr2"]))
            for number, place in enumerate(order):
                if number == int(outcome["access"]):
                    address += place * stride
                    break
        return address & _MASK & ~4095
