"""The JSON form: an object to a program, with the exact place in every message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from spfemu.program.builder import ProgramBuilder, TaskBuilder
from spfemu.program.expect import check_expect, normal_expect
from spfemu.program.fields import Fields, quoted
from spfemu.program.messages import listed, no_nodes, out_of_range, to_be_started
from spfemu.program.model import DEFAULT_EXPECT_FOR, Program, Swap, System
from spfemu.program.ops import (
    CONFIGS,
    FILE_KINDS,
    FORMAT,
    MAX_CPUS,
    MAX_DEPTH,
    OPS,
    POLICIES,
    POLICIES_WITHOUT_NODES,
    RECORD_DEFAULTS,
    STARTS,
    SWAP_KINDS,
    SYSCTLS,
    Key,
    Op,
)
from spfemu.program.values import ID_PATTERN, parse_address, parse_prot, shown, to_i64

__all__ = ["read_program", "read_system"]

_TOP_KEYS: Final = (
    "format", "page_size", "scale_pages", "cpus", "files", "system", "tasks", "expect_for",
)  # fmt: skip
_TASK_KEYS: Final = ("name", "start", "ops")
_FILE_KEYS: Final = ("length", "kind", "cached")
_SYSTEM_KEYS: Final = (
    "memory", "thp", "swap", "nodes", "stack_limit", "mmap_min_addr", "overcommit",
    "sysctl", "config", "hugetlb_pages", "memcg",
)  # fmt: skip
_SWAP_KEYS: Final = ("size", "kind", "readahead", "vma_ra_enabled")
_THP: Final = ("madvise", "never", "always")
_MMAP_PRIVATE: Final = 1


class _Reader(Fields):
    """Reads one program object; ``place`` in the methods is where we are, for messages.

    Source: ours.
    """

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.builder = ProgramBuilder(source=source)
        self.task_numbers: dict[str, int] = {}
        self.starts: dict[str, str | None] = {}

    # The tables of a program

    def program(self, obj: Any) -> Program:
        top = self.object("", obj, _TOP_KEYS)
        if top.get("format") != FORMAT:
            self.fail("", out_of_range("format", top.get("format"), f'"{FORMAT}"'))
        builder = self.builder
        if "page_size" in top:
            builder.page_size = self.integer("", "page_size", top["page_size"], 4096, 65536)
        builder.scale_pages = self.boolean("", "scale_pages", top.get("scale_pages", False))
        if "cpus" in top:
            builder.cpus = self.integer("", "cpus", top["cpus"], 1, MAX_CPUS)
        builder.system = self.system(top.get("system", {}))
        self.files(top.get("files", {}))
        self.expect_for(top.get("expect_for", {}))
        tasks = top.get("tasks")
        if not isinstance(tasks, list) or not tasks:
            self.fail("", out_of_range("tasks", tasks, "at least one task"))
        lists = [self.task_head(number, task) for number, task in enumerate(tasks)]
        for number, (task, ops) in enumerate(lists):
            self.operations(task, f"tasks[{number}].ops", ops, 0)
        return builder.build()

    def system(self, value: Any) -> System:
        place = "system"
        system = self.object(place, value, _SYSTEM_KEYS)
        default = System()
        thp = self.choice(place, "thp", system.get("thp", default.thp), _THP)
        overcommit = self.integer(place, "overcommit", system.get("overcommit", 1), 0, 2)
        if overcommit != 1:
            self.fail(
                place, f"key 'overcommit': value {overcommit} is not available yet (allowed: 1)"
            )
        sysctl = self.object("system.sysctl", system.get("sysctl", {}), tuple(SYSCTLS))
        return System(
            memory=self.integer(
                place, "memory", system.get("memory", default.memory), 1 << 16, 1 << 44
            ),
            thp=thp,
            swap=self.swap(system.get("swap", {})),
            stack_limit=self.integer(
                place,
                "stack_limit",
                system.get("stack_limit", default.stack_limit),
                0,
                (1 << 63) - 1,
            ),
            nodes=self.integer(place, "nodes", system.get("nodes", default.nodes), 1, 64),
            mmap_min_addr=self.integer(
                place,
                "mmap_min_addr",
                system.get("mmap_min_addr", default.mmap_min_addr),
                0,
                1 << 40,
            ),
            overcommit=overcommit,
            sysctl={
                name: self.integer("system.sysctl", name, number, *SYSCTLS[name])
                for name, number in sysctl.items()
            },
            config=self.config(system.get("config", {})),
            hugetlb_pages=self.limit(place, "hugetlb_pages", system, 1 << 40),
            memcg=self.limit(place, "memcg", system, (1 << 63) - 1),
        )

    def limit(self, place: str, key: str, obj: Mapping[str, Any], most: int) -> int | None:
        value = obj.get(key)
        return None if value is None else self.integer(place, key, value, 0, most)

    def config(self, value: Any) -> dict[str, bool]:
        config = self.object("system.config", value, CONFIGS)
        return {name: self.boolean("system.config", name, config[name]) for name in config}

    def swap(self, value: Any) -> Swap:
        place = "system.swap"
        swap = self.object(place, value, _SWAP_KEYS)
        default = Swap()
        readahead = swap.get("readahead")
        return Swap(
            size=self.integer(place, "size", swap.get("size", default.size), 0, 1 << 43),
            kind=self.choice(place, "kind", swap.get("kind", default.kind), SWAP_KINDS),
            readahead=None
            if readahead is None
            else self.integer(place, "readahead", readahead, 1, 1 << 31),
            vma_ra_enabled=self.boolean(
                place, "vma_ra_enabled", swap.get("vma_ra_enabled", default.vma_ra_enabled)
            ),
        )

    def files(self, value: Any) -> None:
        if not isinstance(value, dict):
            self.fail("files", f"value {shown(value)} (allowed: an object of names)")
        for name, given in value.items():
            place = f"files[{shown(name)}]"
            file = self.object(place, given, _FILE_KEYS)
            if "length" not in file:
                self.fail(place, "key 'length': missing (allowed: the length in bytes)")
            length = self.integer(place, "length", file["length"], 0, (1 << 63) - 1)
            kind = self.choice(place, "kind", file.get("kind", "regular"), FILE_KINDS)
            cached = self.boolean(place, "cached", file.get("cached", True))
            self.builder.file(name, length, kind=kind, cached=cached)

    def expect_for(self, value: Any) -> None:
        given = self.object("expect_for", value, tuple(DEFAULT_EXPECT_FOR))
        for key, name in given.items():
            if not isinstance(name, str):
                self.fail("expect_for", out_of_range(key, name, "a name"))
            self.builder.expect_for[key] = name

    def task_head(self, number: int, value: Any) -> tuple[TaskBuilder, Any]:
        place = f"tasks[{number}]"
        task = self.object(place, value, _TASK_KEYS)
        name = task.get("name", f"t{number}")
        if not isinstance(name, str) or not name or not name.isprintable():
            self.fail(place, out_of_range("name", name, "a printable name"))
        if name in self.task_numbers:
            other = self.task_numbers[name]
            self.fail(
                place, out_of_range("name", name, f"a name that tasks[{other}] does not have")
            )
        start = task.get("start")
        if start is not None:
            self.choice(place, "start", start, STARTS)
        ops = task.get("ops")
        if not isinstance(ops, list):
            self.fail(place, out_of_range("ops", ops, "a list of operations"))
        self.task_numbers[name] = number
        self.starts[name] = start
        return self.builder.task(name, start), ops

    # Operations

    def operations(self, task: TaskBuilder, path: str, ops: Any, depth: int) -> None:
        for number, value in enumerate(ops):
            place = f"{path}[{number}]"
            if not isinstance(value, dict):
                self.fail(place, f"value {shown(value)} (allowed: an object)")
            name = value.get("op")
            op = OPS.get(name) if isinstance(name, str) else None
            if op is None or op.name == "end":
                allowed = ", ".join(o.name for o in OPS.values() if o.name != "end")
                self.fail(place, out_of_range("op", name, allowed))
            self.operation(task, place, op, value)
            if op.name == "repeat":
                self.repeat_body(task, place, value, depth)

    def repeat_body(self, task: TaskBuilder, place: str, value: dict[str, Any], depth: int) -> None:
        ops = value["ops"]
        if not isinstance(ops, list) or not ops:
            self.fail(place, out_of_range("ops", ops, "at least one operation"))
        if depth >= MAX_DEPTH:
            self.fail(place, f"repeats are nested deeper than {MAX_DEPTH}")
        if ("count" in value) == ("for_ns" in value):
            self.fail(place, "key 'count': allowed: exactly one of count and for_ns")
        if "max_count" in value and "for_ns" not in value:
            self.fail(place, "key 'max_count': only together with for_ns")
        self.operations(task, f"{place}.ops", ops, depth + 1)
        task.record(OPS["end"].code)

    def operation(self, task: TaskBuilder, place: str, op: Op, value: dict[str, Any]) -> None:
        fields = dict(RECORD_DEFAULTS)
        fields["op"] = op.code
        for name in value:
            if name not in ("op", "expect") and op.key(name) is None:
                allowed = ", ".join(key.name for key in op.keys) or "none"
                self.fail(place, f"key {quoted(name)}: unknown for {op.name} (allowed: {allowed})")
        for key in op.keys:
            if key.name in value:
                reader = _KINDS[key.kind]
                reader(self, place, op, key, value[key.name], fields)
            elif key.required:
                self.fail(place, f"key '{key.name}': missing")
            elif key.field and key.default:
                fields[key.field] = key.default
        if op.name == "mmap" and "file" in value and "flags" not in value:
            fields["flags"] = _MMAP_PRIVATE | (fields["flags"] & ~5)
        if op.name == "repeat" and "for_ns" in value:
            fields["flags"] = 1
        task.record(**fields)
        if "expect" in value:
            try:
                expect = normal_expect(value["expect"])
                check_expect(expect, op.name)
            except ValueError as error:
                self.fail(place, f"expect: {error}")
            task.expect(expect)

    # One method for each kind of key

    def _address(self, place: str, op: Op, key: Key, value: Any, fields: dict[str, int]) -> None:
        try:
            name, offset = parse_address(value)
        except ValueError as error:
            self.fail(place, out_of_range(key.name, value, str(error)))
        fields["base" if key.field == "addr" else "base2"] = (
            -1 if name is None else self.builder.ids.number(name)
        )
        fields[key.field] = to_i64(offset)
        fields["flags"] |= key.given

    def _int(self, place: str, op: Op, key: Key, value: Any, fields: dict[str, int]) -> None:
        number = self.integer(place, key.name, value, key.low, key.high)
        fields[key.field] = to_i64(number) if key.field in ("addr", "addr2") else number
        fields["flags"] |= key.given

    def _prot(self, place: str, op: Op, key: Key, value: Any, fields: dict[str, int]) -> None:
        try:
            fields[key.field] = parse_prot(value)
        except ValueError as error:
            self.fail(place, out_of_range(key.name, value, str(error)))

    def _flags(self, place: str, op: Op, key: Key, value: Any, fields: dict[str, int]) -> None:
        names: Mapping[str, int] = key.names or {}
        if not isinstance(value, list):
            self.fail(place, out_of_range(key.name, value, f"a list of {', '.join(names)}"))
        for flag in value:
            if not isinstance(flag, str) or flag not in names:
                self.fail(place, out_of_range(key.name, flag, ", ".join(names)))
            fields["flags"] |= names[flag]

    def _bool(self, place: str, op: Op, key: Key, value: Any, fields: dict[str, int]) -> None:
        if self.boolean(place, key.name, value):
            fields["flags"] |= 1

    def _choice(self, place: str, op: Op, key: Key, value: Any, fields: dict[str, int]) -> None:
        name = self.choice(place, key.name, value, key.choices)
        fields[key.field] = key.choices.index(name)

    def _define(self, place: str, op: Op, key: Key, value: Any, fields: dict[str, int]) -> None:
        if not isinstance(value, str) or not ID_PATTERN.match(value):
            allowed = "a name of letters, digits, _ and ., not beginning with a digit"
            self.fail(place, out_of_range(key.name, value, allowed))
        fields[key.field] = self.builder.ids.number(value) + key.plus

    def _file(self, place: str, op: Op, key: Key, value: Any, fields: dict[str, int]) -> None:
        if not isinstance(value, str) or value not in self.builder.files:
            allowed = ", ".join(self.builder.files) or 'none; "files" is empty'
            self.fail(place, out_of_range(key.name, value, allowed))
        fields[key.field] = self.builder.file_number(value) + key.plus

    def _task(self, place: str, op: Op, key: Key, value: Any, fields: dict[str, int]) -> None:
        if not isinstance(value, str) or value not in self.task_numbers:
            allowed = listed(self.starts)
            if op.name in STARTS:
                allowed = to_be_started(op.name, self.starts.items())
            self.fail(place, out_of_range(key.name, value, allowed))
        fields[key.field] = self.task_numbers[value]

    def _name(self, place: str, op: Op, key: Key, value: Any, fields: dict[str, int]) -> None:
        if not isinstance(value, str) or not value:
            self.fail(place, out_of_range(key.name, value, "a name"))
        fields[key.field] = self.builder.names.number(value)

    def _text(self, place: str, op: Op, key: Key, value: Any, fields: dict[str, int]) -> None:
        if not isinstance(value, str):
            self.fail(place, out_of_range(key.name, value, "a text"))
        fields[key.field] = self.builder.texts.number(value)

    def _sysctl(self, place: str, op: Op, key: Key, value: Any, fields: dict[str, int]) -> None:
        self.choice(place, key.name, value, tuple(SYSCTLS))
        fields[key.field] = self.builder.texts.number(value)

    def _nodes(self, place: str, op: Op, key: Key, value: Any, fields: dict[str, int]) -> None:
        if not isinstance(value, list):
            self.fail(place, out_of_range(key.name, value, "a list of node numbers"))
        mode = op.key("mode")
        if mode is not None and POLICIES[fields[mode.field]] in POLICIES_WITHOUT_NODES:
            self.fail(place, no_nodes(POLICIES[fields[mode.field]]))
        mask = 0
        for node in value:
            mask |= 1 << self.integer(place, key.name, node, 0, 63)
        fields[key.field] = mask

    def _ops(self, place: str, op: Op, key: Key, value: Any, fields: dict[str, int]) -> None:
        """The body of a repeat is read after its opening record."""


_Kind = Callable[[_Reader, str, Op, Key, Any, dict[str, int]], None]
_KINDS: Final[Mapping[str, _Kind]] = {
    "address": _Reader._address,
    "int": _Reader._int,
    "prot": _Reader._prot,
    "flags": _Reader._flags,
    "bool": _Reader._bool,
    "choice": _Reader._choice,
    "define": _Reader._define,
    "file": _Reader._file,
    "task": _Reader._task,
    "name": _Reader._name,
    "text": _Reader._text,
    "sysctl": _Reader._sysctl,
    "nodes": _Reader._nodes,
    "ops": _Reader._ops,
}


def read_program(obj: Any, source: str) -> Program:
    """Makes a program from its JSON object. Source: the program format.

    Raises ProgramError with the exact place.
    """
    return _Reader(source).program(obj)


def read_system(value: Any, source: str) -> System:
    """Makes the settings of a ``system`` object. Source: the program format.

    Raises ProgramError with the key.
    """
    return _Reader(source).system(value)
