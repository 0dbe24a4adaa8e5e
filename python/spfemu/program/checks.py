"""The checks of a program in the array form, vectorised: a million records take a fraction of a second.

Each check reports the first record that breaks it; of all that break, the first in program order is the one the error
names, in the words of the JSON form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spfemu.errors import ProgramError
from spfemu.program.expect import check_expect
from spfemu.program.model import Program, Task
from spfemu.program.ops import (
    FIELDS,
    FILE_KINDS,
    FILE_KINDS_AVAILABLE,
    MAX_DEPTH,
    MMAP_FLAGS,
    OP_DTYPE,
    OPS,
    OPS_BY_CODE,
    RECORD_DEFAULTS,
    SITE_DTYPE,
    STARTS,
    SYSCTLS,
    Key,
    Op,
)
from spfemu.program.values import shown

__all__ = ["check_program", "unavailable_choice", "unavailable_op"]

_Records = npt.NDArray[np.void]
_Indices = npt.NDArray[np.intp]
_Message = Callable[[int], str]

_REPEAT: Final = OPS["repeat"].code
_END: Final = OPS["end"].code
_MMAP: Final = OPS["mmap"].code
_START_CODES: Final = {OPS[start].code: start for start in STARTS}
_PAGE_SIZES: Final = tuple(1 << shift for shift in range(12, 17))


def unavailable_op(name: str) -> str:
    """The message for an operation of the format that is not there yet. Source: ours."""
    return f"operation '{name}' is not available yet"


def unavailable_choice(op: str, key: str, name: str) -> str:
    """The message for a flag or another choice that is not there yet. Source: ours."""
    word = {"flags": "flag"}.get(key, key)
    return f"{word} '{name}' of {op} is not available yet"


def out_of_range(key: str, value: object, allowed: str) -> str:
    """The message for a value that is not allowed. Source: ours."""
    return f"key '{key}': value {shown(value)} (allowed: {allowed})"


@dataclass(slots=True)
class _Found:
    """The earliest record that breaks a check so far, with its message."""

    index: int = -1
    message: str = ""

    def note(self, indices: _Indices, message: _Message) -> None:
        if len(indices) and (self.index < 0 or int(indices[0]) < self.index):
            self.index = int(indices[0])
            self.message = message(self.index)


def check_program(program: Program) -> None:
    """Checks a whole program. Source: the program format. Raises ProgramError for the first place that is wrong."""
    _check_tables(program)
    starts: dict[int, list[tuple[int, int]]] = {}
    defined = np.zeros(len(program.ids) + 1, dtype=bool)
    for task in program.tasks:
        _mark_defined(task.ops, defined)
    for number, task in enumerate(program.tasks):
        found = _Found()
        _check_records(program, task.ops, found)
        if found.index < 0:
            _check_brackets(task.ops, found)
        if found.index < 0:
            _check_ids(program, task.ops, defined, found)
        if found.index < 0:
            _check_starts(program, number, task.ops, starts, found)
        if found.index >= 0:
            raise ProgramError(
                f"{program.source}: {program.where(number, found.index)}: {found.message}"
            )
        _check_sites(program, number, task)
    _check_reachable(program, starts)
    for (number, index), expect in program.expect.items():
        _check_expectation(program, number, index, expect)


def _check_tables(program: Program) -> None:
    source = program.source
    if program.page_size not in _PAGE_SIZES:
        raise ProgramError(
            f"{source}: {out_of_range('page_size', program.page_size, _listed(_PAGE_SIZES))}"
        )
    if not program.tasks:
        raise ProgramError(f"{source}: {out_of_range('tasks', [], 'at least one task')}")
    seen: dict[str, int] = {}
    for number, task in enumerate(program.tasks):
        place = f"{source}: tasks[{number}]"
        if not task.name or not task.name.isprintable():
            raise ProgramError(f"{place}: {out_of_range('name', task.name, 'a printable name')}")
        if task.name in seen:
            raise ProgramError(
                f"{place}: {out_of_range('name', task.name, f'a name that tasks[{seen[task.name]}] does not have')}"
            )
        seen[task.name] = number
        if task.start is not None and task.start not in STARTS:
            raise ProgramError(f"{place}: {out_of_range('start', task.start, _listed(STARTS))}")
        if task.ops.dtype != OP_DTYPE or task.ops.ndim != 1:
            raise ProgramError(
                f"{place}: an array of dtype {task.ops.dtype}, shape {task.ops.shape} (allowed: OP_DTYPE, one dimension)"
            )
    if all(task.start is not None for task in program.tasks):
        raise ProgramError(
            f"{source}: key 'tasks': every task waits to be started (allowed: at least one without 'start')"
        )
    for file in program.files:
        place = f"{source}: files[{shown(file.name)}]"
        if file.kind not in FILE_KINDS:
            raise ProgramError(f"{place}: {out_of_range('kind', file.kind, _listed(FILE_KINDS))}")
        if file.kind not in FILE_KINDS_AVAILABLE:
            raise ProgramError(f"{place}: kind '{file.kind}' of a file is not available yet")
        if not 0 <= file.length < 1 << 63:
            raise ProgramError(
                f"{place}: {out_of_range('length', file.length, '0 to 2^63-1 bytes')}"
            )


def _mark_defined(ops: _Records, defined: npt.NDArray[np.bool_]) -> None:
    for op in OPS.values():
        for key in op.keys:
            if key.kind == "define":
                numbers = ops[key.field][ops["op"] == op.code].astype(np.int64) - key.plus
                defined[numbers[(numbers >= 0) & (numbers < len(defined) - 1)]] = True


def _check_records(program: Program, ops: _Records, found: _Found) -> None:
    codes = ops["op"]
    for code in np.unique(codes).tolist():
        indices = np.flatnonzero(codes == code)
        op = OPS_BY_CODE.get(code)
        if op is None:
            found.note(
                indices, lambda _, code=code: out_of_range("op", code, f"1 to {max(OPS_BY_CODE)}")
            )  # type: ignore[misc]
        elif not op.available:
            found.note(indices, lambda _, op=op: unavailable_op(op.name))  # type: ignore[misc]
        else:
            _check_op(
                program, op, ops if len(indices) == len(ops) else ops[indices], indices, found
            )


def _check_op(
    program: Program, op: Op, records: _Records, indices: _Indices, found: _Found
) -> None:
    """Checks all records of one operation. ``indices`` are their places in the task."""
    flag_bits = 0
    used = {"op", "flags"}
    for key in op.keys:
        if key.kind == "ops":
            continue
        used.add(key.field)
        flag_bits |= key.given
        if key.kind == "address":
            used.add("base" if key.field == "addr" else "base2")
        elif key.kind == "flags":
            flag_bits |= sum((key.names or {}).values())
        elif key.kind == "bool":
            flag_bits |= 1
        elif key.field == "flags":
            flag_bits |= 3
        if key.field != "flags":
            _check_key(program, op, key, records, indices, found)
        else:
            _check_flag_key(op, key, records, indices, found)
    if op.code == _REPEAT:
        flag_bits |= 1
        _check_repeat(records, indices, found)
    if op.code == _MMAP:
        _check_mmap_file(records, indices, found)
    bad = (records["flags"] & np.uint32(~flag_bits & 0xFFFFFFFF)) != 0
    _report(found, indices, bad, "flags", records["flags"], f"bits of {flag_bits:#x}")
    for name in FIELDS:
        if name not in used:
            default = RECORD_DEFAULTS[name]
            _report(
                found,
                indices,
                records[name] != default,
                name,
                records[name],
                f"{default}; {op.name} does not use it",
            )


def _report(
    found: _Found,
    indices: _Indices,
    bad: npt.NDArray[np.bool_],
    key: str,
    values: npt.NDArray[Any],
    allowed: str,
) -> None:
    if bad.any():
        first = int(np.argmax(bad))
        found.note(
            indices[first : first + 1], lambda _: out_of_range(key, int(values[first]), allowed)
        )


def _check_key(
    program: Program, op: Op, key: Key, records: _Records, indices: _Indices, found: _Found
) -> None:
    values = records[key.field]
    if key.kind == "address":
        bases = records["base" if key.field == "addr" else "base2"]
        bad = (bases < -1) | (bases >= len(program.ids))
        _report(found, indices, bad, key.name, bases, "-1 or the number of an id")
        if key.given:
            absent = (records["flags"] & np.uint32(key.given)) == 0
            _report(
                found,
                indices,
                absent & ((bases != -1) | (values != 0)),
                key.name,
                values,
                "0 unless the flag bit 31 is set",
            )
    elif key.kind == "int":
        if key.given:
            absent = (records["flags"] & np.uint32(key.given)) == 0
            _report(
                found,
                indices,
                absent & (values != 0),
                key.name,
                values,
                "0 unless the flag bit 31 is set",
            )
        if values.dtype.kind == "i" and key.high < 1 << 63:
            bad = values < max(key.low, -(1 << 63))
            _report(found, indices, bad, key.name, values, f"{key.low} to {key.high}")
        if op.name == "touch" and key.name == "length":
            _report(found, indices, values < key.low, key.name, values, "1 and more bytes")
    elif key.kind == "prot":
        _report(found, indices, values > 7, key.name, values, "bits 1 (r), 2 (w), 4 (x)")
    elif key.kind == "choice":
        _report(found, indices, values >= len(key.choices), key.name, values, _listed(key.choices))
        if key.available is not None:
            missing = [n for n, name in enumerate(key.choices) if name not in key.available]
            bad = np.isin(values, missing)
            if bad.any():
                first = int(np.argmax(bad))
                name = key.choices[int(values[first])]
                found.note(
                    indices[first : first + 1],
                    lambda _: unavailable_choice(op.name, key.name, name),
                )
        if op.name == "madvise" and program.system.thp != "never":
            bad = values == key.choices.index("hugepage")
            found.note(
                indices[bad],
                lambda _: (
                    unavailable_choice(op.name, key.name, "hugepage")
                    + ' (with "system": {"thp": "never"} it only sets the flag)'
                ),
            )
    elif key.kind in ("define", "file", "task", "name", "text", "sysctl"):
        _check_index(program, key, values, indices, found)


def _check_index(
    program: Program, key: Key, values: npt.NDArray[Any], indices: _Indices, found: _Found
) -> None:
    sizes = {
        "define": len(program.ids),
        "file": len(program.files),
        "task": len(program.tasks),
        "name": len(program.names),
    }
    size = sizes.get(key.kind, len(program.texts))
    numbers = values.astype(np.int64) - key.plus
    lowest = -1 if key.kind in ("define", "file") and not key.required else 0
    bad = (numbers < lowest) | (numbers >= size)
    _report(found, indices, bad, key.name, values, f"the number of one of {size}")
    if key.kind == "sysctl" and not bad.any():
        known = np.array([name in SYSCTLS for name in program.texts], dtype=bool)
        unknown = ~known[numbers]
        if unknown.any():
            first = int(np.argmax(unknown))
            text = program.texts[int(numbers[first])]
            found.note(
                indices[first : first + 1], lambda _: out_of_range(key.name, text, _listed(SYSCTLS))
            )


def _check_flag_key(op: Op, key: Key, records: _Records, indices: _Indices, found: _Found) -> None:
    flags = records["flags"]
    if key.kind == "choice":
        _report(found, indices, flags >= len(key.choices), key.name, flags, _listed(key.choices))
    if key.available is not None and key.names is not None:
        for name, bit in key.names.items():
            if name not in key.available:
                bad = (flags & np.uint32(bit)) != 0
                found.note(
                    indices[bad], lambda _, name=name: unavailable_choice(op.name, key.name, name)
                )  # type: ignore[misc]


def _check_repeat(records: _Records, indices: _Indices, found: _Found) -> None:
    timed = (records["flags"] & np.uint32(1)) != 0
    _report(
        found,
        indices,
        ~timed & (records["value"] == 0),
        "count",
        records["value"],
        "1 and more rounds",
    )
    _report(
        found,
        indices,
        timed & (records["length"] == 0),
        "for_ns",
        records["length"],
        "1 and more nanoseconds",
    )
    _report(
        found,
        indices,
        timed & (records["value"] != 0),
        "count",
        records["value"],
        "not together with for_ns",
    )
    alone = ~timed & ((records["length"] != 0) | (records["length2"] != 0))
    _report(found, indices, alone, "for_ns", records["length"], "not together with count")


def _check_mmap_file(records: _Records, indices: _Indices, found: _Found) -> None:
    anonymous = (records["flags"] & np.uint32(MMAP_FLAGS["anonymous"])) != 0
    has_file = records["aux"] != 0
    found.note(
        indices[anonymous & has_file],
        lambda _: "key 'file': not together with the flag 'anonymous'",
    )
    found.note(
        indices[~anonymous & ~has_file],
        lambda _: "key 'file': missing (allowed: a file, or the flag 'anonymous')",
    )


def _check_brackets(ops: _Records, found: _Found) -> None:
    codes = ops["op"]
    opens = codes == _REPEAT
    closes = codes == _END
    if not opens.any() and not closes.any():
        return
    depth = np.cumsum(opens.astype(np.int64) - closes.astype(np.int64))
    found.note(np.flatnonzero(depth < 0), lambda _: "key 'op': 'end' closes no repeat")
    found.note(
        np.flatnonzero(depth > MAX_DEPTH), lambda _: f"repeats are nested deeper than {MAX_DEPTH}"
    )
    found.note(
        np.flatnonzero(opens[:-1] & closes[1:]),
        lambda _: "key 'ops': value [] (allowed: at least one operation)",
    )
    if depth[-1] > 0:
        unclosed = np.flatnonzero(opens & (depth <= int(depth[-1])))
        found.note(unclosed[-1:], lambda _: "this repeat has no 'end'")


def _check_ids(
    program: Program, ops: _Records, defined: npt.NDArray[np.bool_], found: _Found
) -> None:
    codes = ops["op"]
    for field, base in (("addr", "base"), ("addr2", "base2")):
        users = [
            op.code
            for op in OPS.values()
            if any(k.kind == "address" and k.field == field for k in op.keys)
        ]
        if base == "base2" and not np.isin(codes, users).any():
            continue
        numbers = ops[base]
        bad = (numbers >= 0) & ~defined[numbers]
        if base == "base2":
            bad &= np.isin(codes, users)

        def message(index: int, base: str = base) -> str:
            name = program.ids[int(ops[base][index])]
            known = [program.ids[number] for number in np.flatnonzero(defined[:-1]).tolist()]
            return f"key 'addr': id {shown(name)} is never defined (allowed: {_listed(known) or 'none is defined'})"

        found.note(np.flatnonzero(bad), message)


def _check_starts(
    program: Program,
    number: int,
    ops: _Records,
    starts: dict[int, list[tuple[int, int]]],
    found: _Found,
) -> None:
    codes = ops["op"]
    for index in np.flatnonzero(np.isin(codes, list(_START_CODES))).tolist():
        how = _START_CODES[int(codes[index])]
        child = int(ops["aux"][index])
        task = program.tasks[child]
        message = ""
        if task.start != how:
            fit = [t.name for t in program.tasks if t.start == how]
            message = out_of_range(
                "child",
                task.name,
                f'a task with "start": "{how}": {_listed(fit) or "there is none"}',
            )
        elif child in starts:
            message = f"key 'child': task {shown(task.name)} is started by {program.where(*starts[child][0])} already (allowed: once)"
        elif _depth_at(codes, index):
            message = f"key 'child': task {shown(task.name)} would start in every round of a repeat (allowed: once)"
        if message:
            found.note(np.array([index], dtype=np.intp), lambda _, message=message: message)  # type: ignore[misc]
            return
        starts.setdefault(child, []).append((number, index))


def _depth_at(codes: npt.NDArray[Any], index: int) -> int:
    before = codes[:index]
    return int(np.count_nonzero(before == _REPEAT)) - int(np.count_nonzero(before == _END))


def _check_reachable(program: Program, starts: Mapping[int, list[tuple[int, int]]]) -> None:
    started = {number for number, task in enumerate(program.tasks) if task.start is None}
    grew = True
    while grew:
        more = {child for child, places in starts.items() if places[0][0] in started} - started
        started |= more
        grew = bool(more)
    for number, task in enumerate(program.tasks):
        if number not in started:
            raise ProgramError(
                f"{program.source}: tasks[{number}]: {out_of_range('start', task.start, f'a {task.start} operation that names {task.name} in a task that runs')}"
            )


def _check_sites(program: Program, number: int, task: Task) -> None:
    sites = task.sites
    if sites is None:
        return
    place = f"{program.source}: tasks[{number}]"
    if sites.dtype != SITE_DTYPE or sites.shape != task.ops.shape:
        raise ProgramError(
            f"{place}: sites of shape {sites.shape} (allowed: SITE_DTYPE, shape {task.ops.shape})"
        )
    for field, labels in (("comm", program.comms), ("vma", program.vmas)):
        if (sites[field] > len(labels)).any():
            raise ProgramError(
                f"{place}: sites: key '{field}': a number above {len(labels)} (allowed: 0 to {len(labels)})"
            )


def _check_expectation(
    program: Program, number: int, index: int, expect: Mapping[str, Any]
) -> None:
    if not 0 <= number < len(program.tasks) or not 0 <= index < len(program.tasks[number].ops):
        raise ProgramError(
            f"{program.source}: expect: no operation has task {number}, index {index}"
        )
    op = OPS_BY_CODE[int(program.tasks[number].ops["op"][index])]
    try:
        check_expect(expect, op.name)
    except ValueError as error:
        raise ProgramError(
            f"{program.source}: {program.where(number, index)}: expect: {error}"
        ) from None


def _listed(names: Iterable[object]) -> str:
    return ", ".join(str(name) for name in names)
