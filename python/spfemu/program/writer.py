"""A program to its JSON form: the inverse of the reader."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from spfemu.program.model import DEFAULT_EXPECT_FOR, Program, System
from spfemu.program.ops import FORMAT, OPS, OPS_BY_CODE, RECORD_DEFAULTS, Key, Op
from spfemu.program.values import format_address, prot_text

__all__ = ["json_lines", "to_dict"]

_REPEAT: Final = OPS["repeat"].code
_END: Final = OPS["end"].code


def to_dict(program: Program) -> dict[str, Any]:
    """Returns the JSON object of a program. Source: the program format."""
    obj: dict[str, Any] = {"format": FORMAT, "page_size": program.page_size}
    if program.scale_pages:
        obj["scale_pages"] = True
    if program.cpus is not None:
        obj["cpus"] = program.cpus
    if program.files:
        obj["files"] = {
            f.name: {"length": f.length, "kind": f.kind} | ({} if f.cached else {"cached": False})
            for f in program.files
        }
    default = System().to_dict()
    system = {
        key: value for key, value in program.system.to_dict().items() if value != default[key]
    }
    if system:
        obj["system"] = system
    if dict(program.expect_for) != dict(DEFAULT_EXPECT_FOR):
        obj["expect_for"] = dict(program.expect_for)
    obj["tasks"] = [
        {"name": task.name}
        | ({} if task.start is None else {"start": task.start})
        | {"ops": _operations(program, number)}
        for number, task in enumerate(program.tasks)
    ]
    return obj


def _operations(program: Program, task: int) -> list[dict[str, Any]]:
    lists: list[list[dict[str, Any]]] = [[]]
    names = program.tasks[task].ops.dtype.names or ()
    for index, values in enumerate(program.tasks[task].ops.tolist()):
        record = dict(zip(names, values, strict=True))
        if record["op"] == _END:
            lists.pop()
            continue
        op = OPS_BY_CODE[record["op"]]
        obj = _operation(program, op, record)
        expect = program.expect.get((task, index))
        if expect is not None:
            obj["expect"] = dict(expect)
        lists[-1].append(obj)
        if record["op"] == _REPEAT:
            obj["ops"] = []
            lists.append(obj["ops"])
    return lists[0]


def _operation(program: Program, op: Op, record: dict[str, int]) -> dict[str, Any]:
    obj: dict[str, Any] = {"op": op.name}
    for key in op.keys:
        if _left_out(op, key, record):
            continue
        obj[key.name] = _value(program, key, record)
    return obj


def _left_out(op: Op, key: Key, record: dict[str, int]) -> bool:
    """Says whether a key has its default, so that the JSON form needs no word of it."""
    if key.kind == "ops":
        return True
    if op.code == _REPEAT:
        return {"count": record["flags"] & 1 == 1, "for_ns": record["flags"] & 1 == 0}.get(
            key.name, record["length2"] == 0
        )
    if key.given:
        return record["flags"] & key.given == 0
    if key.required:
        return False
    if key.kind == "flags":
        return False
    if key.kind == "bool":
        return record["flags"] & 1 == 0
    if key.kind in ("define", "file"):
        return record[key.field] - key.plus < 0
    return record[key.field] == (key.default or RECORD_DEFAULTS[key.field])


def _value(program: Program, key: Key, record: dict[str, int]) -> Any:
    number = record[key.field]
    if key.kind == "address":
        base = record["base" if key.field == "addr" else "base2"]
        return format_address(None if base < 0 else program.ids[base], number)
    if key.kind == "prot":
        return prot_text(number)
    if key.kind == "flags":
        return [name for name, bit in (key.names or {}).items() if number & bit]
    if key.kind == "bool":
        return bool(number & 1)
    if key.kind == "choice":
        return key.choices[number]
    if key.kind == "nodes":
        return [node for node in range(64) if number >> node & 1]
    tables: dict[str, Any] = {
        "define": program.ids,
        "file": [file.name for file in program.files],
        "task": [task.name for task in program.tasks],
        "name": program.names,
        "text": program.texts,
        "sysctl": program.texts,
    }
    if key.kind in tables:
        return tables[key.kind][number - key.plus]
    if key.field in ("addr", "addr2") and key.low >= 0:
        return number & ((1 << 64) - 1)
    return number


def json_lines(program: Program) -> Iterator[str]:
    """Yields the JSON text of a program in lines, one operation on each. Source: ours."""
    obj = to_dict(program)
    tasks = obj.pop("tasks")
    head = json.dumps(obj, indent=2)[:-2]
    yield head + ',\n  "tasks": [\n'
    for number, task in enumerate(tasks):
        ops = task.pop("ops")
        yield f'    {json.dumps(task)[:-1]}, "ops": [\n'
        for index, op in enumerate(ops):
            yield f"      {json.dumps(op)}{',' if index + 1 < len(ops) else ''}\n"
        yield f"    ]}}{',' if number + 1 < len(tasks) else ''}\n"
    yield "  ]\n}\n"
