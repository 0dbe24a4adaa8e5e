"""The checks of one task's records, vectorised: a million take a fraction of a second.

Each check reports the first record that breaks it; of all that break, the first in program order
is the one that the error names, in the words of the JSON form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spfemu.program.messages import (
    listed,
    no_nodes,
    out_of_range,
)
from spfemu.program.model import Program
from spfemu.program.ops import (
    FIELDS,
    MAX_DEPTH,
    MMAP_FLAGS,
    OPS,
    OPS_BY_CODE,
    POLICIES,
    POLICIES_WITHOUT_NODES,
    RECORD_DEFAULTS,
    SYSCTLS,
    U64,
    Key,
    Op,
)
from spfemu.program.values import shown

__all__ = ["Found", "check_brackets", "check_ids", "check_records", "mark_defined"]

_Records = npt.NDArray[np.void]
_Indices = npt.NDArray[np.intp]
_Bools = npt.NDArray[np.bool_]

_REPEAT: Final = OPS["repeat"].code
_END: Final = OPS["end"].code
_MMAP: Final = OPS["mmap"].code
_TRUNCATE: Final = OPS["truncate"].code
_TOUCH: Final = OPS["touch"].code
_SMALLEST_PAGE: Final = 4096


@dataclass(slots=True)
class Found:
    """The earliest record that breaks a check so far, with its message. Source: ours."""

    index: int = -1
    message: str = ""

    def note(self, index: int, message: str) -> None:
        """Keeps a finding if it is earlier than the one before. Source: ours."""
        if self.index < 0 or index < self.index:
            self.index = index
            self.message = message


@dataclass(frozen=True, slots=True)
class _Group:
    """All records of one operation in one task, and their places in it."""

    program: Program
    op: Op
    records: _Records
    indices: _Indices
    found: Found

    def first(self, bad: _Bools) -> int | None:
        """Returns the number of the first bad record in the group."""
        return int(np.argmax(bad)) if bad.any() else None

    def refuse(self, bad: _Bools, message: str) -> None:
        """Reports the first bad record."""
        first = self.first(bad)
        if first is not None:
            self.found.note(int(self.indices[first]), message)

    def refuse_value(self, bad: _Bools, key: str, values: npt.NDArray[Any], allowed: str) -> None:
        """Reports the value of the first bad record."""
        first = self.first(bad)
        if first is not None:
            message = out_of_range(key, int(values[first]), allowed)
            self.found.note(int(self.indices[first]), message)

    def flag(self, bits: int) -> _Bools:
        """Says of each record whether any of these flag bits is set."""
        flags: _Bools = (self.records["flags"] & np.uint32(bits)) != 0
        return flags


def check_records(program: Program, ops: _Records, found: Found) -> None:
    """Checks every record of a task by itself. Source: the program format, "The array form"."""
    codes = ops["op"]
    for code in np.unique(codes).tolist():
        indices = np.flatnonzero(codes == code)
        op = OPS_BY_CODE.get(code)
        if op is None:
            found.note(int(indices[0]), out_of_range("op", code, f"1 to {max(OPS_BY_CODE)}"))
        else:
            records = ops if len(indices) == len(ops) else ops[indices]
            _check_group(_Group(program, op, records, indices, found))


def _check_group(group: _Group) -> None:
    op, records = group.op, group.records
    for key in op.keys:
        if key.kind != "ops":
            _CHECKS[key.kind](group, key)
    if op.code == _REPEAT:
        _check_repeat(group)
    if op.code == _MMAP:
        _check_mmap_file(group)
    if op.code == _TRUNCATE:
        _check_truncated(group)
    if op.code == _TOUCH:
        _check_nr_accesses(group)
    bits = _flag_bits(op)
    group.refuse_value(group.flag(~bits & 0xFFFFFFFF), "flags", records["flags"], f"bits {bits:#x}")
    used = _used_fields(op)
    for name in FIELDS:
        if name not in used:
            default = RECORD_DEFAULTS[name]
            allowed = f"{default}; {op.name} does not use it"
            group.refuse_value(records[name] != default, name, records[name], allowed)


def _flag_bits(op: Op) -> int:
    bits = 1 if op.code == _REPEAT else 0
    for key in op.keys:
        bits |= key.given
        if key.kind == "flags":
            bits |= sum((key.names or {}).values())
        elif key.kind == "bool":
            bits |= 1
        elif key.field == "flags":
            bits |= (1 << (len(key.choices) - 1).bit_length()) - 1
    return bits


def _used_fields(op: Op) -> set[str]:
    used = {"op", "flags"} | {key.field for key in op.keys}
    for key in op.keys:
        if key.kind == "address":
            used.add("base" if key.field == "addr" else "base2")
    return used


def _check_given(group: _Group, key: Key, values: npt.NDArray[Any], default: int) -> None:
    """An optional value that is not given has its default."""
    if key.given:
        bad = ~group.flag(key.given) & (values != default)
        group.refuse_value(bad, key.name, values, f"{default} unless bit 31 of flags is set")


def _check_address(group: _Group, key: Key) -> None:
    bases = group.records["base" if key.field == "addr" else "base2"]
    bad = (bases < -1) | (bases >= len(group.program.ids))
    group.refuse_value(bad, key.name, bases, "-1 or the number of an id")
    _check_given(group, key, bases, -1)
    _check_given(group, key, group.records[key.field], 0)


def _check_int(group: _Group, key: Key) -> None:
    values = group.records[key.field]
    _check_given(group, key, values, 0)
    if (values.dtype.kind == "i" and key.high < 1 << 63) or (key.low > 0 and key.required):
        group.refuse_value(values < key.low, key.name, values, f"{key.low} and more")
    if values.dtype.kind == "u" and key.high < U64:
        group.refuse_value(values > key.high, key.name, values, f"{key.low} to {key.high}")


def _check_prot(group: _Group, key: Key) -> None:
    values = group.records[key.field]
    group.refuse_value(values > 7, key.name, values, "bits 1 (r), 2 (w), 4 (x)")


def _check_bits(group: _Group, key: Key) -> None:
    """Any of the key's own bits may be set; others are refused with the flags."""


def _check_nodes(group: _Group, key: Key) -> None:
    """Any 64 bits are a mask, but for a policy that has no nodes."""
    mode = group.op.key("mode")
    if mode is None:
        return
    given = group.records[key.field] != key.default
    for name in POLICIES_WITHOUT_NODES:
        bad = given & (group.records[mode.field] == POLICIES.index(name))
        group.refuse(bad, no_nodes(name))


def _check_choice(group: _Group, key: Key) -> None:
    values = group.records[key.field]
    group.refuse_value(values >= len(key.choices), key.name, values, listed(key.choices))


def _check_index(group: _Group, key: Key) -> None:
    program = group.program
    sizes = {
        "define": len(program.ids),
        "file": len(program.files),
        "task": len(program.tasks),
        "name": len(program.names),
    }
    size = sizes.get(key.kind, len(program.texts))
    values = group.records[key.field]
    numbers = values.astype(np.int64) - key.plus
    lowest = -1 if key.kind in ("define", "file") and not key.required else 0
    bad = (numbers < lowest) | (numbers >= size)
    group.refuse_value(bad, key.name, values, f"the number of one of {size}")
    if key.kind == "sysctl" and not bad.any():
        unknown = np.array([name not in SYSCTLS for name in program.texts], dtype=bool)[numbers]
        first = group.first(unknown)
        if first is not None:
            text = program.texts[int(numbers[first])]
            group.refuse(unknown, out_of_range(key.name, text, listed(SYSCTLS)))


_CHECKS: Final = {
    "address": _check_address,
    "int": _check_int,
    "prot": _check_prot,
    "flags": _check_bits,
    "bool": _check_bits,
    "choice": _check_choice,
    "define": _check_index,
    "file": _check_index,
    "task": _check_index,
    "name": _check_index,
    "text": _check_index,
    "sysctl": _check_index,
    "nodes": _check_nodes,
}


def _check_repeat(group: _Group) -> None:
    timed = group.flag(1)
    count, for_ns, rounds = (group.records[name] for name in ("value", "length", "length2"))
    group.refuse_value(~timed & (count == 0), "count", count, "1 and more rounds")
    group.refuse_value(timed & (for_ns == 0), "for_ns", for_ns, "1 and more nanoseconds")
    group.refuse_value(timed & (count != 0), "count", count, "not together with for_ns")
    group.refuse_value(~timed & (for_ns != 0), "for_ns", for_ns, "not together with count")
    group.refuse_value(~timed & (rounds != 0), "max_count", rounds, "only together with for_ns")


def _check_nr_accesses(group: _Group) -> None:
    """A touch numbers its accesses in 32 bits, whatever the page that is its stride by default."""
    length, stride = group.records["length"], group.records["length2"]
    stride = np.where(stride == 0, np.uint64(_SMALLEST_PAGE), stride)
    bad = (length - np.uint64(1)) // stride >= np.uint64(0xFFFFFFFF)
    group.refuse_value(bad & (length > 0), "length", length, "1 to 2^32-1 accesses")


def _check_truncated(group: _Group) -> None:
    for number, file in enumerate(group.program.files):
        if file.kind == "hugetlb":
            allowed = "a file of another kind than hugetlb"
            bad = group.records["aux"] == number
            group.refuse(bad, out_of_range("file", file.name, allowed))


def _check_mmap_file(group: _Group) -> None:
    anonymous = group.flag(MMAP_FLAGS["anonymous"])
    has_file = group.records["aux"] != 0
    group.refuse(anonymous & has_file, "key 'file': not together with the flag 'anonymous'")
    group.refuse(
        ~anonymous & ~has_file, "key 'file': missing (allowed: a file, or the flag 'anonymous')"
    )


def check_brackets(ops: _Records, found: Found) -> None:
    """Checks that every ``repeat`` is closed, not empty and not too deep. Source: the format."""
    codes = ops["op"]
    opens = codes == _REPEAT
    closes = codes == _END
    if not opens.any() and not closes.any():
        return

    def refuse(indices: _Indices, message: str) -> None:
        if len(indices):
            found.note(int(indices[0]), message)

    depth = np.cumsum(opens.astype(np.int64) - closes.astype(np.int64))
    refuse(np.flatnonzero(depth < 0), "key 'op': 'end' closes no repeat")
    refuse(np.flatnonzero(depth > MAX_DEPTH), f"repeats are nested deeper than {MAX_DEPTH}")
    empty = out_of_range("ops", [], "at least one operation")
    refuse(np.flatnonzero(opens[:-1] & closes[1:]), empty)
    if depth[-1] > 0:
        unclosed = np.flatnonzero(opens & (depth <= int(depth[-1])))
        refuse(unclosed[-1:], "this repeat has no 'end'")


def mark_defined(ops: _Records, defined: _Bools) -> None:
    """Marks the numbers of the ids that a task's operations define. Source: the program format."""
    codes = ops["op"]
    for op in OPS.values():
        for key in op.keys:
            if key.kind == "define":
                numbers = ops[key.field][codes == op.code].astype(np.int64) - key.plus
                defined[numbers[(numbers >= 0) & (numbers < len(defined))]] = True


def check_ids(program: Program, ops: _Records, defined: _Bools, found: Found) -> None:
    """Checks that every id in use is defined by some task. Source: the program format."""
    if defined.all():
        return
    codes = ops["op"]
    for field, base in (("addr", "base"), ("addr2", "base2")):
        keys = {
            op.code: key.name
            for op in OPS.values()
            for key in op.keys
            if key.kind == "address" and key.field == field
        }
        numbers = ops[base]
        places = np.flatnonzero(np.isin(codes, list(keys)) & (numbers >= 0))
        bad = places[~defined[numbers[places]]]
        if len(bad):
            index = int(bad[0])
            name = program.ids[int(numbers[index])]
            known = [program.ids[number] for number in np.flatnonzero(defined).tolist()]
            key = keys[int(codes[index])]
            allowed = listed(known) or "none; no operation defines one"
            found.note(
                index, f"key '{key}': id {shown(name)} is never defined (allowed: {allowed})"
            )
