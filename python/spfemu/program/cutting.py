"""Smaller programs: what can be left out of one, and what has to go with it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np

from spfemu.errors import ProgramError
from spfemu.program.model import DEFAULT_EXPECT_FOR, Program, Task
from spfemu.program.ops import FIELDS, OPS, OPS_BY_CODE, STARTS, Op

__all__ = ["Cutter", "nr_operations", "simpler"]

Place = tuple[int, int]
"""A record: its task's number, and its own."""

_Thing = tuple[str, object]
"""What a record gives or needs: an id, a task that starts, a post of a name, an open bracket."""

_END: Final = OPS["end"].code
_REPEAT: Final = OPS["repeat"].code
_OF_TASKS: Final = [op.code for op in OPS.values() if any(key.kind == "task" for key in op.keys)]
_LENGTHS: Final = ("length", "old_length", "new_length")
_COUNTS: Final = ("count", "max_count")


def nr_operations(program: Program) -> int:
    """Returns how many operations a program has; a ``repeat`` is one, beside those in it.

    Source: ours.

    >>> from spfemu.program import ProgramBuilder
    >>> from spfemu.program.cutting import nr_operations
    >>> builder = ProgramBuilder()
    >>> task = builder.task("t0")
    >>> with task.repeat(count=2):
    ...     task.compute(5)
    >>> nr_operations(builder.build())
    2
    """
    return sum(int(np.count_nonzero(task.ops["op"] != _END)) for task in program.tasks)


class Cutter:
    """One program, and what is left of it without some of its records.

    What cannot be without them goes too: what names an id that nothing defines any more, an await
    without a post, a task that nobody starts, who starts or waits for one that has gone, an empty
    ``repeat``. A ``repeat`` that goes leaves what is in it. Expectations, sites and files that are
    not used go in any case. Source: ours. ``places`` are the records that can be left out, in
    order.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._gives: dict[Place, set[_Thing]] = {}
        self._needs: dict[Place, set[_Thing]] = {}
        self._inside: dict[Place, list[Place]] = {}
        self.barriers: dict[str, set[Place]] = {}
        """The barriers of each name."""
        for number, task in enumerate(program.tasks):
            self._look_at(number, task)
        self.places = [place for place, needs in self._needs.items() if not _is_end(needs)]

    def _look_at(self, number: int, task: Task) -> None:
        opened: list[Place] = []
        for index, values in enumerate(task.ops.tolist()):
            place, record = (number, index), dict(zip(FIELDS, values, strict=True))
            op = OPS_BY_CODE[record["op"]]
            gives, needs = _of_record(op, record)
            if op.code == _END:
                needs.add(("bracket", opened.pop()))
            else:
                for bracket in opened:
                    self._inside[bracket].append(place)
            if op.code == _REPEAT:
                gives.add(("bracket", place))
                opened.append(place)
                self._inside[place] = []
            if op.name == "barrier":
                self.barriers.setdefault(self._program.names[record["aux"]], set()).add(place)
            self._gives[place], self._needs[place] = gives, needs | {("task", number)}

    def without(self, places: Collection[Place], tasks: Collection[int] = ()) -> Program | None:
        """Returns the program without these records and tasks; None if that is no program.

        Source: ours.
        """
        roots: set[_Thing] = {
            ("task", number)
            for number, task in enumerate(self._program.tasks)
            if task.start is None and number not in tasks
        }
        gone: set[_Thing] = {("task", number) for number in tasks}
        left = self._needs.keys() - set(places)
        left = {place for place in left if self._gives[place].isdisjoint(gone)}
        while True:
            given = roots.union(*(self._gives[place] for place in left))
            stays = {place for place in left if self._needs[place] <= given}
            stays -= {place for place, body in self._inside.items() if stays.isdisjoint(body)}
            if stays == left:
                break
            left = stays
        kept = [n for n in range(len(self._program.tasks)) if ("task", n) in given]
        return self._made_of(kept, left)

    def _made_of(self, kept: list[int], left: set[Place]) -> Program | None:
        if not kept:
            return None
        numbers = np.zeros(len(self._program.tasks), dtype=np.uint32)
        numbers[kept] = np.arange(len(kept))
        tasks = []
        for number in kept:
            task = self._program.tasks[number]
            ops = task.ops[[(number, index) in left for index in range(len(task.ops))]]
            starts = np.isin(ops["op"], _OF_TASKS)
            ops["aux"][starts] = numbers[ops["aux"][starts]]
            tasks.append(Task(task.name, task.start, ops))
        told = dict(DEFAULT_EXPECT_FOR)
        left_over = replace(self._program, tasks=tuple(tasks), expect={}, expect_for=told)
        return _read(left_over.to_dict(), self._program)


def _of_record(op: Op, record: dict[str, int]) -> tuple[set[_Thing], set[_Thing]]:
    """Returns what a record gives to others, and what it needs of them."""
    gives: set[_Thing] = set()
    needs: set[_Thing] = set()
    for key in op.keys:
        if key.kind == "address":
            base = record["base" if key.field == "addr" else "base2"]
            if base >= 0:
                needs.add(("id", base))
        elif key.kind == "define" and record[key.field] - key.plus >= 0:
            gives.add(("id", record[key.field] - key.plus))
        elif key.kind == "task":
            (gives if op.name in STARTS else needs).add(("task", record[key.field]))
        elif key.kind == "name" and op.name != "barrier":
            (gives if op.name == "post" else needs).add(("post", record[key.field]))
    return gives, needs


def _is_end(needs: set[_Thing]) -> bool:
    return any(what == "bracket" for what, _ in needs)


def _read(obj: dict[str, Any], program: Program) -> Program | None:
    used = {op["file"] for ops in _operations(obj) for op in ops if "file" in op}
    files = {name: file for name, file in obj.pop("files", {}).items() if name in used}
    if files:
        obj["files"] = files
    try:
        return Program.from_dict(obj, program.source)
    except ProgramError:
        return None


def _operations(obj: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Yields each list of operations, the one in a ``repeat`` too."""
    lists = [task["ops"] for task in obj["tasks"]]
    while lists:
        ops = lists.pop()
        yield ops
        lists += [op["ops"] for op in ops if "ops" in op]


def simpler(program: Program) -> Iterator[Program]:
    """Yields programs with the same operations and one thing simpler: a setting of the machine that
    is the default, fewer rounds, or mappings of fewer pages wherever they have one length.

    Source: ours.
    """
    for name in program.to_dict().get("system", {}):
        obj = program.to_dict()
        del obj["system"][name]
        yield from _valid(obj, program)
    for keys, least in ((_COUNTS, 1), (_LENGTHS, program.page_size)):
        for value in sorted(_values(program, keys), reverse=True):
            half = value // 2 // least * least
            for smaller in sorted({least, half} - {0}):
                if smaller < value:
                    yield from _valid(_with(program, keys, value, smaller), program)


def _valid(obj: dict[str, Any], program: Program) -> Iterator[Program]:
    made = _read(obj, program)
    if made is not None:
        yield made


def _values(program: Program, keys: tuple[str, ...]) -> set[int]:
    lists = _operations(program.to_dict())
    return {op[key] for ops in lists for op in ops for key in keys if key in op}


def _with(program: Program, keys: tuple[str, ...], old: int, new: int) -> dict[str, Any]:
    obj = program.to_dict()
    for ops in _operations(obj):
        for op in ops:
            op.update({key: new for key in keys if op.get(key) == old})
    return obj
