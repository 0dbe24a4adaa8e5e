"""Which address space a task is in, when, and where that came from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from spfemu.program.model import Program
from spfemu.program.ops import OPS, STARTS
from spfemu.results import Result

__all__ = ["Spaces"]

_EXEC: Final = OPS["exec"].code
_WAIT: Final = 1
_START_CODES: Final = [OPS[name].code for name in STARTS]


@dataclass(slots=True)
class _Process:
    """A process: the address spaces that it has had, each from a position on."""

    first: int
    spaces: list[tuple[int, int]] = field(default_factory=list)


class Spaces:
    """The address spaces of a run.

    Source: ours. ``host`` is a result of engine kernel, ``position`` says where in its order an
    outcome of a task is. A space is a number; it has what its parent had when it was forked.
    """

    def __init__(self, host: Result, position: Callable[[tuple[int, int]], int]) -> None:
        self._host = host
        self._position = position
        self._end = len(host.ops)
        self._processes: list[_Process] = []
        self._process_of: dict[int, int] = {}
        self._parents: list[tuple[int, int] | None] = []
        program = host.program
        first = [n for n, task in enumerate(program.tasks) if task.start is None]
        self._processes.append(_Process(first[0], [(-1, self._new_space(None))]))
        self._process_of |= dict.fromkeys(first, 0)
        self._parent_of = self._find_parents(program)
        for at, is_exec, _, task in sorted(self._events(program)):
            if is_exec:
                self._process(task).spaces.append((at, self._new_space(None)))
            else:
                self._start(program, at, task)

    def _find_parents(self, program: Program) -> dict[int, tuple[int, int]]:
        """Who starts each task, and with which record."""
        found = {}
        for task, given in enumerate(program.tasks):
            for index in np.flatnonzero(np.isin(given.ops["op"], _START_CODES)).tolist():
                found[int(given.ops["aux"][index])] = (task, index)
        return found

    def _events(self, program: Program) -> list[tuple[int, bool, int, int]]:
        """(position, whether it is an exec, generation, task) of each exec and start of a task."""
        found = []
        for task in range(len(program.tasks)):
            rows = self._host.task_ops(task)
            good = (rows["op"] == _EXEC) & (rows["errno"] == 0)
            execs = np.flatnonzero(good).tolist()
            found += [(self._position((task, row)), True, 0, task) for row in execs]
        for child, (parent, index) in self._parent_of.items():
            rows = self._host.task_ops(parent)
            hits = np.flatnonzero(rows["index"] == index)
            row = int(hits[0]) if len(hits) else len(rows)
            # Who starts a task and waits for it has its outcome after the task's own.
            at = min(self._position((parent, row)), self._first_sign(child))
            if row and program.tasks[parent].ops["flags"][index] & _WAIT:
                # It began right after what it did before, whenever the child was seen first.
                at = min(at, self._position((parent, row - 1)) + 1)
            found.append((at, False, self._generation(child), child))
        return found

    def _first_sign(self, task: int) -> int:
        """The first position at which a task, or one that it started, had an outcome."""
        children = (c for c, (parent, _) in self._parent_of.items() if parent == task)
        return min(self._position((task, 0)), *map(self._first_sign, children), self._end)

    def _generation(self, task: int) -> int:
        parent = self._parent_of.get(task)
        return 0 if parent is None else 1 + self._generation(parent[0])

    def _start(self, program: Program, at: int, task: int) -> None:
        how, parent = program.tasks[task].start, self._parent_of[task][0]
        if parent not in self._process_of:
            return  # it was never started, either
        if how == "clone":
            self._process_of[task] = self._process_of[parent]
            return
        space = self.of_task(parent, at)
        if how == "fork":
            space = self._new_space((space, at))
        self._process_of[task] = len(self._processes)
        self._processes.append(_Process(task, [(at, space)]))

    def _new_space(self, parent: tuple[int, int] | None) -> int:
        self._parents.append(parent)
        return len(self._parents) - 1

    def _process(self, task: int) -> _Process:
        return self._processes[self._process_of[task]]

    def of_task(self, task: int, position: int) -> int:
        """The space that a task is in at a position. Source: ours."""
        return self._of(self._process(task), position)

    def of_process(self, first: int) -> int:
        """The space that a process, named by its first task, had in the end. Source: ours."""
        process = next(process for process in self._processes if process.first == first)
        return process.spaces[-1][1]

    def _of(self, process: _Process, position: int) -> int:
        spaces = process.spaces
        # An operation that makes a new space is done in the old one.
        number = bisect_right(spaces, position - 1, key=lambda entry: entry[0]) - 1
        return spaces[max(number, 0)][1]

    def is_forked(self, space: int) -> bool:
        """Whether it began as a copy of another one. Source: ours."""
        return self._parents[space] is not None

    def sees(self, space: int, position: int, other: int, when: int) -> bool:
        """Whether a space has at a position what was done in another one at ``when``.

        Source: ours.
        """
        while other != space:
            parent = self._parents[space]
            if parent is None:
                return False
            space, position = parent[0], min(position, parent[1])
        return when < position
