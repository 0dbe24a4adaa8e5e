"""Copies of a program's threads in one process, each on ranges of its own.

Which process: of all address spaces that the program's tasks are in, the one that most of them are
in. A recording begins with a launcher and an exec; only what comes after is copied.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spfemu.errors import ProgramError
from spfemu.program.model import Program, System, Task
from spfemu.program.ops import (
    GIVEN,
    MAX_CPUS,
    MMAP_FLAGS,
    OP_DTYPE,
    OPS,
    OPS_BY_CODE,
    RECORD_DEFAULTS,
    STARTS,
    SYSCTLS,
)
from spfemu.program.scale import Layout, address_fields, grown_pages, named_pages, stretches

__all__ = ["MAX_COPIES", "replicate_program"]

MAX_COPIES: Final = 1024
_MAX_MEMORY: Final = 16 << 40
_MAX_MAP_COUNT: Final = 65530
"""How many mappings a process may have by default. Source: Linux, vm.max_map_count."""

_LOWEST: Final = 1 << 32
_HIGHEST: Final = 1 << 46
"""Where copies go: what is above the heap of a small program, and user space on every arch."""

_GUARD_PAGES: Final = 256
_MAX_GAP_PAGES: Final = 1 << 18

_MMAP: Final = OPS["mmap"].code
_MPROTECT: Final = OPS["mprotect"].code
_BRK: Final = OPS["brk"].code
_EXEC: Final = OPS["exec"].code
_CLONE: Final = OPS["clone"].code
_POST: Final = OPS["post"].code
_AWAIT: Final = OPS["await"].code
_STARTS: Final = tuple(OPS[start].code for start in STARTS)
_BRACKETS: Final = {OPS["repeat"].code: 1, OPS["end"].code: -1}

_Ops = npt.NDArray[np.void]
_Space = tuple[str, int, int]  # "start", "fork" or "exec"; the task; the record of an exec
_FIRST: Final[_Space] = ("start", -1, -1)


@dataclass(slots=True)
class _Family:
    """The address spaces of a program: which each task begins in, and who made a space."""

    begins: dict[int, _Space]
    parents: dict[_Space, _Space]
    children: dict[int, list[tuple[int, int]]]  # of each task: record, child

    def at(self, program: Program, task: int) -> list[tuple[int, _Space]]:
        """Returns the spaces that a task is in: from which record on, and which."""
        execs = np.flatnonzero(program.tasks[task].ops["op"] == _EXEC).tolist()
        return [(0, self.begins[task]), *((e + 1, ("exec", task, e)) for e in execs)]


def replicate_program(program: Program, copies: int) -> Program:
    """Returns a program with so many copies of a process's threads. Source: ``Program.replicate``.

    Raises ProgramError where they do not fit.
    """
    if type(copies) is not int or not 1 <= copies <= MAX_COPIES:
        raise _bad(program, f"value {copies!r} (allowed: 1 to {MAX_COPIES})")
    if copies == 1:
        return program
    original = _Original(program)
    layouts = original.layouts(copies)
    tasks = list(program.tasks)
    ids, names = list(program.ids), list(program.names)
    leaders = []
    for number, layout in enumerate(layouts, start=1):
        leaders += original.copy(number, layout, tasks, ids, names)
    original.start_them(tasks, leaders)
    system = program.system
    limit = system.sysctl.get("vm.max_map_count", _MAX_MAP_COUNT)
    most = min(limit * copies, SYSCTLS["vm.max_map_count"][1])
    return replace(
        program,
        tasks=tuple(tasks),
        ids=tuple(ids),
        names=tuple(names),
        cpus=None if program.cpus is None else min(program.cpus * copies, MAX_CPUS),
        system=replace(
            system,
            memory=_memory(system, copies),
            sysctl={**system.sysctl, "vm.max_map_count": most},
        ),
        expect={},
    ).checked()


def _memory(system: System, copies: int) -> int:
    return max(system.memory, min(system.memory * copies, _MAX_MEMORY))


def _bad(program: Program, message: str) -> ProgramError:
    return ProgramError(f"{program.source}: replicate: {message}")


def _family(program: Program) -> _Family:
    family = _Family({}, {}, {})
    todo = [number for number, task in enumerate(program.tasks) if task.start is None]
    for number in todo:
        family.begins[number] = _FIRST
    while todo:
        task = todo.pop()
        ops = program.tasks[task].ops
        spaces = family.at(program, task)
        started = np.flatnonzero(np.isin(ops["op"], _STARTS)).tolist()
        family.children[task] = [(index, int(ops["aux"][index])) for index in started]
        for index, child in family.children[task]:
            here = next(space for first, space in reversed(spaces) if first <= index)
            begins = here if ops["op"][index] == _CLONE else ("fork", child, -1)
            family.begins[child] = begins
            if begins != here:
                family.parents[begins] = here
            todo.append(child)
    return family


class _Original:
    """What is copied: tasks, from which record on, and which records are in the shared space."""

    def __init__(self, program: Program) -> None:
        self.program = program
        family = _family(program)
        counts: Counter[_Space] = Counter()
        for task in sorted(family.begins):
            counts.update(space for _, space in family.at(program, task))
        self.space = max(counts, key=lambda space: counts[space])
        kind, leader, index = self.space
        self.first = {leader: index + 1}
        if kind == "start":
            self.first = {n: 0 for n, task in enumerate(program.tasks) if task.start is None}
        elif sum(_BRACKETS.get(code, 0) for code in self._codes(leader)[: index + 1]):
            raise self._bad_at(leader, index, "exec in a repeat (allowed: outside of it)")
        todo = list(self.first)
        while todo:
            task = todo.pop()
            for record, child in family.children[task]:
                if record >= self.first[task] and child not in self.first:
                    self.first[child] = 0
                    todo.append(child)
        self.shared = {task: self._shared(family, task) for task in self.first}
        self.heap = self._heap()

    def _codes(self, task: int) -> list[int]:
        codes: list[int] = self.program.tasks[task].ops["op"].tolist()
        return codes

    def _bad_at(self, task: int, index: int, message: str) -> ProgramError:
        return _bad(self.program, f"{self.program.where(task, index)}: {message}")

    def _shared(self, family: _Family, task: int) -> npt.NDArray[np.bool_]:
        """Says of each record whether it is in the space, or in a fork's copy of it."""
        mask = np.zeros(len(self.program.tasks[task].ops), dtype=bool)
        for first, space in family.at(self.program, task):
            origin = space
            while origin != self.space and origin in family.parents:
                origin = family.parents[origin]
            mask[first:] = origin == self.space
            if space == self.space and _EXEC in self._codes(task)[first:]:
                index = first + self._codes(task)[first:].index(_EXEC)
                message = "exec would end the other copies (allowed: in a child that is forked)"
                raise self._bad_at(task, index, message)
        mask[: self.first[task]] = False
        mask[self.program.tasks[task].ops["op"] == _EXEC] = False
        return mask

    def _heap(self) -> tuple[int, int, int, int] | None:
        """Returns begin and length of the heap, and the brk in whose place a copy maps it."""
        brks = [
            (task, index)
            for task in self.first
            for index in np.flatnonzero(
                (self.program.tasks[task].ops["op"] == _BRK) & self.shared[task]
            ).tolist()
        ]
        if not brks:
            return None
        for task, index in brks:
            if self.program.tasks[task].ops["base2"][index] >= 0:
                raise self._bad_at(task, index, "brk with an id (allowed: without)")
        # What says where it begins, and the brk in whose place it is mapped: the first of its task.
        said = self.space[1:] if self.space[0] == "exec" else brks[0]
        place = next((brk for brk in brks if brk[0] == said[0]), None)
        begins = self.program.tasks[said[0]].ops[said[1]]
        field = "addr" if self.space[0] == "exec" else "addr2"
        if place is None or not int(begins["flags"]) & GIVEN:
            allowed = "allowed: after an exec with brk_start, or with start"
            raise self._bad_at(*brks[0], f"nothing says where the heap begins ({allowed})")
        page = self.program.page_size
        begin = int(begins[field]) // page * page
        return begin, grown_pages(self._program()) * page, *place

    def _program(self) -> Program:
        """Returns the records of the space alone, for the functions that look at programs."""
        tasks = tuple(
            replace(task, ops=task.ops[self.shared[number]], sites=None)
            for number, task in enumerate(self.program.tasks)
            if number in self.first
        )
        return replace(self.program, tasks=tasks)

    def layouts(self, copies: int) -> list[Layout]:
        """Returns where the ranges of each copy but the first go.

        Below 64 TiB, in the largest gap that the original leaves; each range as far into its page
        table as it was, with the gaps it had, the long ones shortened.
        """
        page = self.program.page_size
        first, last = named_pages(self._program())
        if self.heap is not None:
            first = np.append(first, self.heap[0] // page)
            last = np.append(last, (self.heap[0] + self.heap[1]) // page)
        if not len(first):
            nowhere = np.array([-1], dtype=np.int64)
            return [Layout(nowhere, nowhere - 1, nowhere)] * (copies - 1)
        starts, ends = stretches(first, last)
        table = page // 8  # how many pages a page table has, at most
        begin, end = _largest_gap(starts, ends, _LOWEST // page, _HIGHEST // page)
        begin = -(-(begin + _GUARD_PAGES) // table) * table
        room = end - _GUARD_PAGES - begin
        longest, span = _MAX_GAP_PAGES, 0
        while longest >= table:
            places, span = _places(starts, ends, longest, table)
            if span * (copies - 1) <= room:
                return [
                    Layout(starts, ends, begin + number * span + places)
                    for number in range(copies - 1)
                ]
            longest //= 2
        raise _bad(
            self.program,
            f"value {copies}: the ranges of a copy need {span * page} bytes, and there are "
            f"{max(room, 0) * page} (allowed: 1 to {1 + max(room, 0) // span})",
        )

    def copy(
        self, number: int, layout: Layout, tasks: list[Task], ids: list[str], names: list[str]
    ) -> list[int]:
        """Appends one copy's tasks, ids and names; returns the tasks that somebody must start."""
        numbers = {task: len(tasks) + place for place, task in enumerate(self.first)}
        defined = self._defined()
        new_ids = np.arange(len(self.program.ids), dtype=np.int64)
        for one in sorted(defined):
            new_ids[one] = len(ids)
            ids.append(f"{self.program.ids[one]}#{number}")
        new_names = np.arange(len(names), len(names) + len(self.program.names), dtype=np.int64)
        names += [f"{name}#{number}" for name in self.program.names]
        leaders = []
        for task in self.first:
            old = self.program.tasks[task]
            ops = self._moved(task, layout)
            ops = self._renamed(ops, numbers, new_ids, new_names)[self.first[task] :]
            start = old.start
            if self.space[1] == task:
                start = "clone"
                leaders.append(len(tasks))
            sites = None if old.sites is None else old.sites[self.first[task] :]
            tasks.append(Task(f"{old.name}#{number}", start, ops, sites))
        return leaders

    def _defined(self) -> set[int]:
        """Returns the ids that the copied records define."""
        found: set[int] = set()
        for task, first in self.first.items():
            ops = self.program.tasks[task].ops[first:]
            for code in np.unique(ops["op"]).tolist():
                for key in OPS_BY_CODE[code].keys:
                    if key.kind == "define":
                        values = ops[key.field][ops["op"] == code].astype(np.int64) - key.plus
                        found.update(values[values >= 0].tolist())
        return found

    def _moved(self, task: int, layout: Layout) -> _Ops:
        """Returns a task's records on a copy's ranges, with a mapping for its heap."""
        ops = self.program.tasks[task].ops.copy()
        page = self.program.page_size
        for code in np.unique(ops["op"]).tolist():
            which = (ops["op"] == code) & self.shared[task]
            records = ops[which]
            for addr, base, _ in address_fields(code):
                old = records[addr]
                new = layout.page(old // page) * page + old % page
                records[addr] = np.where((records[base] == -1) & (old > 0), new, old)
            ops[which] = records
        if self.heap is None:
            return ops
        begin, length, *place = self.heap
        pages = layout.page(np.array([begin // page], dtype=np.int64))
        for index in np.flatnonzero((ops["op"] == _BRK) & self.shared[task]).tolist():
            ops[index] = _record(_MPROTECT, prot=3, addr=int(pages[0]) * page, length=length)
            if [task, index] == place:
                flags = MMAP_FLAGS["private"] | MMAP_FLAGS["anonymous"] | MMAP_FLAGS["fixed"]
                ops[index]["op"] = _MMAP
                ops[index]["flags"] = flags | GIVEN
        return ops

    def _renamed(
        self,
        ops: _Ops,
        numbers: dict[int, int],
        new_ids: npt.NDArray[np.int64],
        new_names: npt.NDArray[np.int64],
    ) -> _Ops:
        """Changes a copy's records to its own ids, names and tasks."""
        posted = {
            int(name)
            for task, first in self.first.items()
            for name in _aux(self.program.tasks[task].ops[first:], _POST)
        }
        for code in np.unique(ops["op"]).tolist():
            which = ops["op"] == code
            records = ops[which]
            for key in OPS_BY_CODE[code].keys:
                field = key.field
                if key.kind == "address":
                    field = "base" if field == "addr" else "base2"
                if key.kind in ("address", "define"):
                    old = records[field].astype(np.int64) - key.plus * (key.kind == "define")
                    if len(new_ids):
                        new = np.where(old >= 0, new_ids[np.maximum(old, 0)], old)
                        records[field] = new + key.plus * (key.kind == "define")
                elif key.kind == "name":
                    old = records[field].astype(np.int64)
                    # Who waits for the launcher goes on waiting for it.
                    ours = np.array([code != _AWAIT or int(name) in posted for name in old])
                    records[field] = np.where(ours, new_names[old], old)
                elif key.kind == "task":
                    records[field] = [
                        numbers.get(child, child) for child in records[field].tolist()
                    ]
            ops[which] = records
        return ops

    def start_them(self, tasks: list[Task], leaders: list[int]) -> None:
        """Lets the original, once its space is there, make the copies' first threads."""
        kind, leader, index = self.space
        if kind == "start":
            return
        old = tasks[leader]
        clones = np.array([_record(_CLONE, aux=number) for number in leaders], dtype=OP_DTYPE)
        ops = np.insert(old.ops, index + 1, clones)
        sites = old.sites
        if sites is not None:
            sites = np.insert(sites, index + 1, np.zeros(len(leaders), sites.dtype))
        tasks[leader] = replace(old, ops=ops, sites=sites)


def _aux(ops: _Ops, code: int) -> npt.NDArray[Any]:
    found: npt.NDArray[Any] = ops["aux"][ops["op"] == code]
    return found


def _record(code: int, **fields: int) -> np.void:
    record: np.void = np.zeros(1, dtype=OP_DTYPE)[0]
    for field, value in {**RECORD_DEFAULTS, "op": code, **fields}.items():
        record[field] = value
    return record


def _largest_gap(
    starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], low: int, high: int
) -> tuple[int, int]:
    """Returns the first page of the largest gap between stretches, and the page behind it."""
    begins = np.clip(np.concatenate(([low], ends + 1)), low, high)
    stops = np.clip(np.concatenate((starts, [high])), low, high)
    best = int(np.argmax(stops - begins))
    return int(begins[best]), int(stops[best])


def _places(
    starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], longest: int, table: int
) -> tuple[npt.NDArray[np.int64], int]:
    """Returns where stretches go, from 0 on, and how many pages all of them need."""
    gaps = starts[1:] - ends[:-1] - 1
    gaps = np.where(gaps > longest, longest + gaps % table, gaps)
    lengths = ends - starts + 1
    places = int(starts[0]) % table + np.concatenate(([0], np.cumsum(lengths[:-1] + gaps)))
    need = int(places[-1] + lengths[-1]) + _GUARD_PAGES
    return places, -(-need // table) * table
