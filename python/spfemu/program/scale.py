"""Programs on another page size: every mapping keeps its length in pages and its neighbours.

A program recorded with one page size runs on an arch with another by moving its mappings. Ranges
that the program names by address are joined where they touch; each such stretch keeps its order
and its length in pages, and two stretches that had a gap keep one of at least a page, while
gaps longer than the new address space allows are shortened. Ranges relative to an id only change
their lengths and offsets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spfemu.errors import ProgramError
from spfemu.program.model import Program, Task
from spfemu.program.ops import GIVEN, OPS, OPS_BY_CODE

__all__ = [
    "Layout",
    "address_fields",
    "grown_pages",
    "named_pages",
    "scale_program",
    "stretches",
]

_I64s = npt.NDArray[np.int64]

_BRK: Final = OPS["brk"].code
_EXEC: Final = OPS["exec"].code
_MAX_GAP_PAGES: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Layout:
    """Old page numbers where stretches begin and end, and the new page number of each start."""

    starts: _I64s
    ends: _I64s
    new_starts: _I64s

    def page(self, pages: _I64s) -> _I64s:
        """Translates old page numbers; one outside every stretch stays as it is."""
        which = np.searchsorted(self.starts, pages, side="right") - 1
        inside = (which >= 0) & (pages <= self.ends[which])
        return np.where(inside, self.new_starts[which] + pages - self.starts[which], pages)


def scale_program(program: Program, page_size: int, task_size: int) -> Program:
    """Returns the program with every mapping re-placed for another page size.

    Source: the program format, ``scale_pages``. ``page_size`` and ``task_size`` are the arch's, in
    bytes. Lengths, file lengths and offsets keep their number of pages. Expected addresses are
    left out, since they belong to the old layout. Raises ProgramError when it does not fit.
    """
    refuse_stacks(program, "scale_pages")
    layout = _layout(program, page_size, task_size)
    tasks = tuple(
        replace(task, ops=_scaled_ops(task, layout, program.page_size, page_size))
        for task in program.tasks
    )
    files = tuple(
        replace(file, length=_scaled(file.length, program.page_size, page_size))
        for file in program.files
    )
    expect = {key: _scaled_expect(value) for key, value in program.expect.items()}
    return replace(
        program, tasks=tasks, files=files, expect=expect, page_size=page_size, scale_pages=False
    ).checked()


def refuse_stacks(program: Program, what: str) -> None:
    """Raises ProgramError for an exec with a stack, whose place is not the program's to say.

    Source: ours. ``what`` is what does not go with it.
    """
    for number, task in enumerate(program.tasks):
        for index in np.flatnonzero((task.ops["op"] == _EXEC) & (task.ops["length"] != 0)).tolist():
            where = f"{program.source}: {program.where(number, index)}"
            raise ProgramError(f"{where}: key 'stack' (allowed with {what}: none)")


def _scaled(number: int, old: int, new: int) -> int:
    """Scales a length: the same number of pages, a part of a page at least a byte."""
    return -(-number * new // old)


def _scaled_expect(expect: Any) -> dict[str, Any]:
    kept = {key: value for key, value in expect.items() if key != "maps_lines"}
    if abs(kept.get("ret", 0)) > 1:
        del kept["ret"]
    return kept


def address_fields(code: int) -> list[tuple[str, str, str]]:
    """Returns (address, base, length) fields of an operation."""
    keys = OPS_BY_CODE[code].keys
    return [
        (key.field, "base" if key.field == "addr" else "base2", length)
        for key in keys
        if key.kind == "address"
        for length in ["length" if key.field == "addr" else "length2"]
    ]


def _layout(program: Program, page_size: int, task_size: int) -> Layout:
    first, last = named_pages(program)
    if not len(first):
        nowhere = np.array([-1], dtype=np.int64)
        return Layout(nowhere, nowhere - 1, nowhere)
    starts, ends = stretches(first, last)
    gaps = starts[1:] - ends[:-1] - 1
    lengths = ends - starts + 1
    limit = task_size // page_size
    longest = _MAX_GAP_PAGES
    while longest >= 1:
        begin = min(int(starts[0]), max(longest, 1 << 20))
        shortened = np.minimum(gaps, longest)
        new_starts = begin + np.concatenate(([0], np.cumsum(lengths[:-1] + shortened)))
        if int(new_starts[-1] + lengths[-1]) <= limit:
            return Layout(starts, ends, new_starts)
        longest //= 2
    raise ProgramError(
        f"{program.source}: the mappings have {int(lengths.sum())} pages in all "
        f"(allowed with pages of {page_size} bytes: {limit})"
    )


def stretches(first: _I64s, last: _I64s) -> tuple[_I64s, _I64s]:
    """Joins ranges of pages that overlap or touch; returns the first and last page of each."""
    order = np.argsort(first, kind="stable")
    first, last = first[order], last[order]
    reach = np.maximum.accumulate(last)
    opens = np.ones(len(first), dtype=bool)
    opens[1:] = first[1:] > reach[:-1] + 1
    return first[opens], reach[np.append(np.flatnonzero(opens)[1:] - 1, len(first) - 1)]


def named_pages(program: Program) -> tuple[_I64s, _I64s]:
    """Returns the first and last page of every range that the program names by its address."""
    firsts: list[_I64s] = []
    lasts: list[_I64s] = []
    shift = program.page_size.bit_length() - 1
    for task in program.tasks:
        codes = task.ops["op"]
        for code in np.unique(codes).tolist():
            records = task.ops[codes == code]
            for addr, base, length in address_fields(code):
                named = records[(records[base] == -1) & (records[addr] > 0)]
                begin = named[addr].astype(np.int64)
                size = np.minimum(named[length], np.uint64(1 << 46)).astype(np.int64)
                firsts.append(begin >> shift)
                lasts.append((begin + np.maximum(size, 1) - 1) >> shift)
            if code in (_BRK, _EXEC):
                field = "addr2" if code == _BRK else "addr"
                given = records[(records["flags"] & np.uint32(GIVEN)) != 0]
                firsts.append(given[field] >> shift)
                lasts.append((given[field] >> shift) + grown_pages(program))
    if not firsts:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    return np.concatenate(firsts), np.concatenate(lasts)


def grown_pages(program: Program) -> int:
    """Returns the pages that all ``brk`` operations together add, an upper bound of any heap."""
    grown = 0
    for task in program.tasks:
        deltas = task.ops["addr"][task.ops["op"] == _BRK]
        grown += int(deltas[deltas > 0].sum())
    return grown // program.page_size + 1


def _scaled_ops(task: Task, layout: Layout, old: int, new: int) -> npt.NDArray[np.void]:
    ops = task.ops.copy()
    codes = task.ops["op"]
    for code in np.unique(codes).tolist():
        which = codes == code
        records = ops[which]
        for addr, base, _ in address_fields(code):
            absolute = records[base] == -1
            moved = _moved(records[addr], layout, old, new)
            relative = records[addr] * new // old
            records[addr] = np.where(absolute, moved, relative)
        for key in OPS_BY_CODE[code].keys:
            if key.kind == "int" and key.name in _SIZE_KEYS:
                records[key.field] = _scaled_sizes(records[key.field], old, new)
        if code == _BRK:
            records["addr"] = records["addr"] * new // old
            records["addr2"] = _moved(records["addr2"], layout, old, new)
        elif code == _EXEC:
            records["addr"] = _moved(records["addr"], layout, old, new)
        ops[which] = records
    return ops


_SIZE_KEYS: Final = ("length", "old_length", "new_length", "stride", "offset")


def _scaled_sizes(sizes: npt.NDArray[np.uint64], old: int, new: int) -> npt.NDArray[np.uint64]:
    if new >= old:
        return sizes * np.uint64(new // old)
    ratio = np.uint64(old // new)
    scaled: npt.NDArray[np.uint64] = sizes // ratio + (sizes % ratio != 0).astype(np.uint64)
    return scaled


def _moved(addresses: _I64s, layout: Layout, old: int, new: int) -> _I64s:
    """Translates addresses; those above user space (negative as signed numbers) stay."""
    pages = layout.page(addresses // old)
    moved = pages * new + (addresses % old) * new // old
    return np.where(addresses > 0, moved, addresses)
