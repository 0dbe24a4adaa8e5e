"""The checks of a whole program: its tables, its records, and how its tasks start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from spfemu.errors import ProgramError
from spfemu.program.expect import check_expect
from spfemu.program.messages import listed, out_of_range, to_be_started
from spfemu.program.model import Program, Task
from spfemu.program.ops import (
    FILE_KINDS,
    MAX_CPUS,
    OP_DTYPE,
    OPS,
    OPS_BY_CODE,
    PAGE_SIZES,
    SITE_DTYPE,
    STARTS,
)
from spfemu.program.records import Found, check_brackets, check_ids, check_records, mark_defined
from spfemu.program.values import shown

__all__ = ["check_program"]

_REPEAT: Final = OPS["repeat"].code
_END: Final = OPS["end"].code
_POST: Final = OPS["post"].code
_AWAIT: Final = OPS["await"].code
_START_CODES: Final = {OPS[start].code: start for start in STARTS}

_BATCH: Final = 1 << 16
"""How many records are checked at once."""

_Starts = dict[int, tuple[int, int]]


def check_program(program: Program) -> None:
    """Checks a whole program. Source: the program format.

    Raises ProgramError for the first place that is wrong.
    """
    _check_tables(program)
    _check_all_records(program)
    starts: _Starts = {}
    defined = np.zeros(len(program.ids), dtype=bool)
    for task in program.tasks:
        mark_defined(task.ops, defined)
    for number, task in enumerate(program.tasks):
        found = Found()
        check_brackets(task.ops, found)
        check_ids(program, task.ops, defined, found)
        _check_starts(program, number, task.ops, starts, found)
        if found.index >= 0:
            _fail(program, program.where(number, found.index), found.message)
        _check_sites(program, number, task)
    _check_reachable(program, starts)
    _check_awaits(program)
    for (number, index), expect in program.expect.items():
        _check_expectation(program, number, index, expect)


def _check_all_records(program: Program) -> None:
    """Checks the records of all tasks in batches: small tasks together, for with 1,000 of them that
    is ten times as fast as one by one, and long ones in pieces, for a check needs memory for its
    records once more.
    """
    batch: list[npt.NDArray[Any]] = []
    places: list[tuple[int, int]] = []  # task, index of the piece's first record
    size = 0
    for number, task in enumerate(program.tasks):
        for start in range(0, max(len(task.ops), 1), _BATCH):
            piece = task.ops[start : start + _BATCH]
            if size + len(piece) > _BATCH:
                _check_batch(program, batch, places)
                batch, places, size = [], [], 0
            batch.append(piece)
            places.append((number, start))
            size += len(piece)
    _check_batch(program, batch, places)


def _check_batch(
    program: Program, batch: list[npt.NDArray[Any]], places: list[tuple[int, int]]
) -> None:
    if not batch:
        return
    found = Found()
    check_records(program, batch[0] if len(batch) == 1 else np.concatenate(batch), found)
    if found.index >= 0:
        ends = np.cumsum([len(piece) for piece in batch])
        at = int(np.searchsorted(ends, found.index, side="right"))
        number, start = places[at]
        index = start + found.index - int(ends[at]) + len(batch[at])
        _fail(program, program.where(number, index), found.message)


def _fail(program: Program, place: str, message: str) -> NoReturn:
    raise ProgramError(f"{program.source}: {place}: {message}")


def _check_tables(program: Program) -> None:
    if program.page_size not in PAGE_SIZES:
        message = out_of_range("page_size", program.page_size, listed(PAGE_SIZES))
        raise ProgramError(f"{program.source}: {message}")
    if program.cpus is not None and not (
        type(program.cpus) is int and 1 <= program.cpus <= MAX_CPUS
    ):
        message = out_of_range("cpus", program.cpus, f"1 to {MAX_CPUS}")
        raise ProgramError(f"{program.source}: {message}")
    if not program.tasks:
        message = out_of_range("tasks", [], "at least one task")
        raise ProgramError(f"{program.source}: {message}")
    seen: dict[str, int] = {}
    for number, task in enumerate(program.tasks):
        _check_head(program, number, task, seen)
    if all(task.start is not None for task in program.tasks):
        message = "every task waits to be started (allowed: at least one without 'start')"
        raise ProgramError(f"{program.source}: key 'tasks': {message}")
    for file in program.files:
        place = f"files[{shown(file.name)}]"
        if file.kind not in FILE_KINDS:
            _fail(program, place, out_of_range("kind", file.kind, listed(FILE_KINDS)))
        if not 0 <= file.length < 1 << 63:
            _fail(program, place, out_of_range("length", file.length, "0 to 2^63-1"))


def _check_head(program: Program, number: int, task: Task, seen: dict[str, int]) -> None:
    place = f"tasks[{number}]"
    if not task.name or not task.name.isprintable():
        _fail(program, place, out_of_range("name", task.name, "a printable name"))
    if task.name in seen:
        allowed = f"a name that tasks[{seen[task.name]}] does not have"
        _fail(program, place, out_of_range("name", task.name, allowed))
    seen[task.name] = number
    if task.start is not None and task.start not in STARTS:
        _fail(program, place, out_of_range("start", task.start, listed(STARTS)))
    if task.ops.dtype != OP_DTYPE or task.ops.ndim != 1:
        shape = f"an array of {task.ops.dtype.itemsize}-byte records, {task.ops.ndim} dimensions"
        _fail(program, place, f"{shape} (allowed: OP_DTYPE, one dimension)")


def _check_starts(
    program: Program, number: int, ops: npt.NDArray[np.void], starts: _Starts, found: Found
) -> None:
    """Checks that each task is started once, by the operation that its ``start`` names."""
    codes = ops["op"]
    for index in np.flatnonzero(np.isin(codes, list(_START_CODES))).tolist():
        how = _START_CODES[int(codes[index])]
        child = int(ops["aux"][index])
        name = program.tasks[child].name
        if program.tasks[child].start != how:
            allowed = to_be_started(how, ((task.name, task.start) for task in program.tasks))
            message = out_of_range("child", name, allowed)
        elif child in starts:
            first = program.where(*starts[child])
            message = f"key 'child': task {shown(name)} is started by {first} (allowed: once)"
        elif _depth_at(codes, index):
            message = f"key 'child': task {shown(name)} would start in each round (allowed: once)"
        else:
            starts[child] = (number, index)
            continue
        found.note(index, message)
        return


def _depth_at(codes: npt.NDArray[Any], index: int) -> int:
    before = codes[:index]
    return int(np.count_nonzero(before == _REPEAT)) - int(np.count_nonzero(before == _END))


def _check_reachable(program: Program, starts: _Starts) -> None:
    started = {number for number, task in enumerate(program.tasks) if task.start is None}
    grew = True
    while grew:
        more = {child for child, (parent, _) in starts.items() if parent in started} - started
        started |= more
        grew = bool(more)
    for number, task in enumerate(program.tasks):
        if number not in started:
            allowed = f"a {task.start} that names {task.name}, in a task that starts"
            _fail(program, f"tasks[{number}]", out_of_range("start", task.start, allowed))


def _check_awaits(program: Program) -> None:
    """Refuses an await of a name that no post has: a slip of the pen, for it waits for nothing."""
    posted = np.zeros(len(program.names), dtype=bool)
    for task in program.tasks:
        posted[task.ops["aux"][task.ops["op"] == _POST]] = True
    for number, task in enumerate(program.tasks):
        awaits = np.flatnonzero(task.ops["op"] == _AWAIT)
        lost = awaits[~posted[task.ops["aux"][awaits]]]
        if len(lost):
            index = int(lost[0])
            name = program.names[int(task.ops["aux"][index])]
            names = listed(np.array(program.names)[posted].tolist())
            message = out_of_range("name", name, f"what a post names: {names or 'there is none'}")
            _fail(program, program.where(number, index), message)


def _check_sites(program: Program, number: int, task: Task) -> None:
    sites = task.sites
    if sites is None:
        return
    place = f"tasks[{number}]: sites"
    if sites.dtype != SITE_DTYPE or sites.shape != task.ops.shape:
        _fail(program, place, f"shape {sites.shape} (allowed: SITE_DTYPE, {task.ops.shape})")
    for field, labels in (("comm", program.comms), ("vma", program.vmas)):
        highest = int(sites[field].max(initial=0))
        if highest > len(labels):
            _fail(program, place, out_of_range(field, highest, f"0 to {len(labels)}"))


def _check_expectation(
    program: Program, number: int, index: int, expect: Mapping[str, Any]
) -> None:
    if not 0 <= number < len(program.tasks) or not 0 <= index < len(program.tasks[number].ops):
        _fail(program, "expect", f"no operation has task {number}, index {index}")
    op = OPS_BY_CODE[int(program.tasks[number].ops["op"][index])]
    try:
        check_expect(expect, op.name)
    except ValueError as error:
        _fail(program, program.where(number, index), f"expect: {error}")
