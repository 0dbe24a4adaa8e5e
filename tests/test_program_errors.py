"""Bad programs: each is refused with the exact place, the value and what is allowed."""

# ruff: noqa: E501 - a table reads best with a case on each line

from __future__ import annotations

import copy
import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spfemu
from spfemu.errors import ProgramError
from spfemu.program import OP_DTYPE, OPS, Program, ProgramBuilder
from spfemu.program.files import loads
from spfemu.program.model import Task

ANON = {"op": "mmap", "length": "64K", "id": "p"}


def good() -> dict[str, Any]:
    return {
        "format": "spfemu-program/1",
        "tasks": [
            {"name": "a", "ops": [copy.deepcopy(ANON), {"op": "write", "addr": "p", "value": 1}]}
        ],
    }


def with_op(op: Any) -> dict[str, Any]:
    program = good()
    program["tasks"][0]["ops"].append(op)
    return program


OPERATIONS: list[tuple[Any, str]] = [
    (7, "value 7 (allowed: an object)"),
    ({}, "key 'op': value null (allowed: mmap, munmap,"),
    ({"op": "frob"}, "key 'op': value \"frob\" (allowed: mmap, munmap,"),
    ({"op": "end"}, "key 'op': value \"end\""),
    ({"op": "mremap", "addr": "p", "old_length": 1, "new_length": 1, "flags": ["grow"]}, "key 'flags': value \"grow\" (allowed: maymove, fixed, dontunmap)"),
    ({"op": "mremap", "addr": "p", "old_length": 1, "new_length": 1, "new_addr": "q"}, "key 'new_addr': id \"q\" is never defined (allowed: p)"),
    ({"op": "ksm_scan", "addr": "p"}, "key 'length': missing"),
    ({"op": "truncate", "file": "g", "length": 1}, "key 'file': value \"g\" (allowed: none; \"files\" is empty)"),
    ({"op": "truncate", "length": 1}, "key 'file': missing"),
    ({"op": "clear_refs"}, "key 'what': missing"),
    ({"op": "rebind"}, "key 'nodes': missing"),
    ({"op": "rebind", "nodes": 1}, "key 'nodes': value 1"),
    ({"op": "rebind", "nodes": [64]}, "key 'nodes': value"),
    ({"op": "exit", "x": 1}, "key 'x': unknown for exit (allowed: none)"),
    ({**ANON, "x\n": 1}, "key 'x\\n': unknown for mmap (allowed: length, prot, flags,"),
    ({"op": "munmap", "addr": "p"}, "key 'length': missing"),
    ({"op": "read", "addr": "q"}, "key 'addr': id \"q\" is never defined (allowed: p)"),
    ({"op": "read", "addr": -4096}, "key 'addr': value -4096 (allowed: an address from 0 to 2^64-1)"),
    ({"op": "read", "addr": "-4096"}, "key 'addr': value \"-4096\" (allowed: an address"),
    ({"op": "read", "addr": 2**64}, "key 'addr': value 18446744073709551616 (allowed: an address"),
    ({"op": "read", "addr": 1.5}, "key 'addr': value 1.5 (allowed: an address from 0 to 2^64-1, or"),
    ({"op": "read", "addr": "p*2"}, "key 'addr': value \"p*2\""),
    ({"op": "read", "addr": "p", "mode": "root"}, "key 'mode': value \"root\" (allowed: user, kernel)"),
    ({"op": "touch", "addr": "p", "length": 0}, "key 'length': value 0 (allowed: 1 to 2^64-1)"),
    ({"op": "touch", "addr": "p", "length": 1, "stride": 0}, "key 'stride': value 0"),
    ({"op": "touch", "addr": "p", "length": 2**64 - 1, "stride": 1}, "key 'length': value 18446744073709551615 (allowed: 1 to 2^32-1 accesses)"),
    ({"op": "touch", "addr": "p", "length": 2**32, "stride": 1}, "key 'length': value 4294967296 (allowed: 1 to 2^32-1 accesses)"),
    ({"op": "touch", "addr": "p", "length": "16T"}, "key 'length': value 17592186044416 (allowed: 1 to 2^32-1 accesses)"),
    ({"op": "touch", "addr": "p", "length": 1, "order": "up"}, "key 'order': value \"up\""),
    ({"op": "touch", "addr": "p", "length": 1, "access": "rw"}, "(allowed: read, write, execute)"),
    ({"op": "mmap", "length": -1}, "key 'length': value -1 (allowed: 0 to 2^64-1)"),
    ({"op": "mmap", "length": "4X"}, "key 'length': value \"4X\" (allowed: a whole number"),
    ({"op": "mmap", "length": True}, "key 'length': value true"),
    ({"op": "mmap", "length": 1, "prot": "rq"}, "key 'prot': value \"rq\" (allowed: letters of"),
    ({"op": "mmap", "length": 1, "prot": ""}, "key 'prot': value \"\""),
    ({"op": "mmap", "length": 1, "flags": "private"}, "key 'flags': value \"private\" (allowed: a list"),
    ({"op": "mmap", "length": 1, "flags": ["public"]}, "key 'flags': value \"public\""),
    ({"op": "mmap", "length": 1, "flags": ["private"]}, "key 'file': missing (allowed: a file, or"),
    ({"op": "mmap", "length": 1, "file": "f"}, "key 'file': value \"f\" (allowed: none; \"files\" is empty)"),
    ({"op": "mmap", "length": 1, "id": "0x1"}, "key 'id': value \"0x1\" (allowed: a name"),
    ({"op": "madvise", "addr": "p", "length": 1, "advice": "nap"}, "key 'advice': value \"nap\""),
    ({"op": "fork", "child": "z"}, "key 'child': value \"z\" (allowed: a task with \"start\": \"fork\": there is none)"),
    ({"op": "wait", "child": "z"}, "key 'child': value \"z\" (allowed: a)"),
    ({"op": "fork", "child": "a"}, "key 'child': value \"a\" (allowed: a task with \"start\": \"fork\": there is none)"),
    ({"op": "wait", "child": 1}, "key 'child': value 1"),
    ({"op": "barrier", "name": ""}, "key 'name': value \"\" (allowed: a name)"),
    ({"op": "sysctl", "name": "vm.swappiness", "value": 1}, "key 'name': value \"vm.swappiness\" (allowed: vm.speculative_page_fault,"),
    ({"op": "note", "text": 5}, "key 'text': value 5 (allowed: a text)"),
    ({"op": "repeat", "count": 1}, "key 'ops': missing"),
    ({"op": "repeat", "count": 1, "ops": []}, "key 'ops': value [] (allowed: at least one operation)"),
    ({"op": "repeat", "count": 0, "ops": [{"op": "exit"}]}, "key 'count': value 0"),
    ({"op": "repeat", "ops": [{"op": "exit"}]}, "key 'count': allowed: exactly one of count and for_ns"),
    ({"op": "repeat", "count": 1, "for_ns": 1, "ops": [{"op": "exit"}]}, "exactly one of count and for_ns"),
    ({"op": "repeat", "count": 1, "max_count": 1, "ops": [{"op": "exit"}]}, "key 'max_count': only together with for_ns"),
    ({"op": "exit", "expect": 1}, "expect: value 1 (allowed: an object)"),
    ({"op": "exit", "expect": {"y": 1}}, "expect: key 'y': unknown (allowed: ret, errno,"),
    ({"op": "exit", "expect": {"errno": "EWOULD"}}, "expect: key 'errno': value \"EWOULD\" (allowed: EPERM,"),
    ({"op": "exit", "expect": {"signal": "SIGHUP"}}, "expect: key 'signal': value \"SIGHUP\""),
    ({"op": "exit", "expect": {"counters": {"flt": 1}}}, "expect: key 'counters': unknown event \"flt\""),
    ({"op": "exit", "expect": {"counters": {"faults": "x"}}}, "expect: key 'faults': value \"x\""),
    ({"op": "exit", "expect": {"maps_lines": []}}, "expect: key 'maps_lines': only a note has it"),
    ({"op": "exit", "expect": {"livelock": 1}}, "expect: key 'livelock': value 1 (allowed: true, false)"),
    ({"op": "touch", "addr": "p", "length": 1, "expect": {"handled": "spf"}}, "expect: key 'handled': not for touch"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "message"), OPERATIONS, ids=lambda value: None)
def test_a_bad_operation_is_named_with_its_place(op: Any, message: str) -> None:
    with pytest.raises(ProgramError) as raised:
        Program.from_dict(with_op(op), "p.json")
    text = str(raised.value)
    assert text.startswith("p.json: tasks[0].ops[2]: ")
    assert message in text
    assert "\n" not in text


def test_a_touch_has_as_many_accesses_as_can_be_numbered() -> None:
    # Without a stride the smallest page there is counts.
    for length, stride in ((2**32 - 1, 1), ((2**32 - 1) * 4096, None), (2**64 - 1, 2**33)):
        touch = {"op": "touch", "addr": "p", "length": length}
        Program.from_dict(with_op(touch | ({"stride": stride} if stride else {})))


def test_places_inside_repeats() -> None:
    inner = {"op": "repeat", "count": 2, "ops": [{"op": "exit"}, {"op": "nap"}]}
    op = {"op": "repeat", "count": 2, "ops": [{"op": "exit"}, inner]}
    with pytest.raises(
        ProgramError, match=r"^<program>: tasks\[0\]\.ops\[2\]\.ops\[1\]\.ops\[1\]: "
    ):
        Program.from_dict(with_op(op))


def test_a_file_of_huge_pages_is_not_truncated() -> None:
    program = with_op({"op": "truncate", "file": "h", "length": 0})
    program["files"] = {"f": {"length": 0}, "h": {"length": 0, "kind": "hugetlb"}}
    message = r"key 'file': value \"h\" \(allowed: a file of another kind than hugetlb\)"
    with pytest.raises(ProgramError, match=message):
        Program.from_dict(program)


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    program = good()
    change(program)
    return program


def child(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "start": "fork", "ops": [], **keys}


FORK_C = {"op": "fork", "child": "c"}
TABLES: list[tuple[Any, str]] = [
    ([], "value [] (allowed: an object)"),
    ({}, "key 'format': value null (allowed: \"spfemu-program/1\")"),
    (changed(lambda p: p.update(format="x")), "key 'format': value \"x\""),
    (changed(lambda p: p.update(taks=[])), "key 'taks': unknown (allowed: format, page_size,"),
    (changed(lambda p: p.update(tasks=[])), "key 'tasks': value [] (allowed: at least one task)"),
    (changed(lambda p: p.pop("tasks")), "key 'tasks': value null (allowed: at least one task)"),
    (changed(lambda p: p.update(page_size=5000)), "key 'page_size': value 5000 (allowed: 4096, 8192,"),
    (changed(lambda p: p.update(page_size=0)), "key 'page_size': value 0"),
    (changed(lambda p: p.update(scale_pages=1)), "key 'scale_pages': value 1 (allowed: true, false)"),
    (changed(lambda p: p["tasks"].append(3)), "tasks[1]: value 3 (allowed: an object)"),
    (changed(lambda p: p["tasks"].append({"name": "b"})), "tasks[1]: key 'ops': value null"),
    (changed(lambda p: p["tasks"].append({"nam": "b", "ops": []})), "tasks[1]: key 'nam': unknown (allowed: name, start, ops)"),
    (changed(lambda p: p["tasks"].append({"name": "a", "ops": []})), "tasks[1]: key 'name': value \"a\" (allowed: a name that tasks[0] does not have)"),
    (changed(lambda p: p["tasks"].append({"name": "", "ops": []})), "tasks[1]: key 'name': value \"\""),
    (changed(lambda p: p["tasks"].append(child("c", start="spawn"))), "tasks[1]: key 'start': value \"spawn\" (allowed: fork, vfork, clone)"),
    (changed(lambda p: p["tasks"].append(child("c"))), "tasks[1]: key 'start': value \"fork\" (allowed: a fork that names c, in a task that starts)"),
    (changed(lambda p: p["tasks"][0].update(start="fork")), "key 'tasks': every task waits to be started"),
    (changed(lambda p: (p["tasks"].append(child("c")), p["tasks"][0]["ops"].extend([FORK_C, FORK_C]))), "tasks[0].ops[3]: key 'child': task \"c\" is started by tasks[0].ops[2] (allowed: once)"),
    (changed(lambda p: (p["tasks"].append(child("c")), p["tasks"][0]["ops"].append({"op": "repeat", "count": 2, "ops": [FORK_C]}))), "tasks[0].ops[2].ops[0]: key 'child': task \"c\" would start in each round (allowed: once)"),
    (changed(lambda p: (p["tasks"].append(child("c")), p["tasks"][0]["ops"].append({"op": "fork", "child": "z"}))), "key 'child': value \"z\" (allowed: a task with \"start\": \"fork\": c)"),
    (changed(lambda p: (p["tasks"].append(child("c")), p["tasks"][0]["ops"].append({"op": "clone", "child": "c"}))), "key 'child': value \"c\" (allowed: a task with \"start\": \"clone\": there is none)"),
    (changed(lambda p: p.update(files=[])), "files: value [] (allowed: an object of names)"),
    (changed(lambda p: p.update(files={"f": {}})), "files[\"f\"]: key 'length': missing"),
    (changed(lambda p: p.update(files={"f": {"length": -1}})), "files[\"f\"]: key 'length': value -1"),
    (changed(lambda p: p.update(files={"f": {"length": 1, "kind": "pipe"}})), "files[\"f\"]: key 'kind': value \"pipe\" (allowed: regular,"),
    (changed(lambda p: p.update(system={"hugetlb_pages": -1})), "key 'hugetlb_pages': value -1 (allowed: 0 to 1099511627776)"),
    (changed(lambda p: p.update(system={"memmory": 1})), "system: key 'memmory': unknown (allowed: memory,"),
    (changed(lambda p: p.update(system={"memory": 1})), "system: key 'memory': value 1"),
    (changed(lambda p: p.update(system={"thp": "sometimes"})), "system: key 'thp': value \"sometimes\" (allowed: madvise, never, always)"),
    (changed(lambda p: p.update(system={"config": {"NUMA": 2}})), "system.config: key 'NUMA': value 2 (allowed: true, false)"),
    (changed(lambda p: p.update(system={"nodes": 65})), "system: key 'nodes': value 65 (allowed: 1 to 64)"),
    (changed(lambda p: p["tasks"][0]["ops"].append({"op": "set_mempolicy", "nodes": [0]})), "tasks[0].ops[2]: key 'nodes': mode \"default\" has none (allowed: with bind, interleave, preferred)"),
    (changed(lambda p: p["tasks"][0]["ops"].append({"op": "set_mempolicy", "mode": "local", "nodes": []})), "tasks[0].ops[2]: key 'nodes': mode \"local\" has none (allowed: with bind"),
    (changed(lambda p: p.update(system={"config": {"THP": 1}})), "system.config: key 'THP': value 1 (allowed: true, false)"),
    (changed(lambda p: p.update(system={"memcg": -1})), "system: key 'memcg': value -1 (allowed: 0 to 2^63-1)"),
    (changed(lambda p: p.update(system={"swap": 1})), "system.swap: value 1 (allowed: an object)"),
    (changed(lambda p: p.update(system={"swap": {"sise": 1}})), "system.swap: key 'sise': unknown (allowed: size,"),
    (changed(lambda p: p.update(system={"swap": {"size": -1}})), "system.swap: key 'size': value -1 (allowed: 0 to"),
    (changed(lambda p: p.update(system={"swap": {"kind": "fast"}})), "(allowed: normal, synchronous)"),
    (changed(lambda p: p.update(system={"swap": {"readahead": 0}})), "key 'readahead': value 0 (allowed: 1 to"),
    (changed(lambda p: p.update(system={"swap": {"vma_ra_enabled": 1}})), "(allowed: true, false)"),
    (changed(lambda p: p.update(system={"overcommit": 2})), "key 'overcommit': value 2 is not available yet"),
    (changed(lambda p: p.update(system={"sysctl": {"vm.x": 1}})), "system.sysctl: key 'vm.x': unknown"),
    (changed(lambda p: p.update(system={"sysctl": {"vm.speculative_page_fault": 2}})), "value 2 (allowed: 0 to 1)"),
    (changed(lambda p: p.update(system={"config": {"SMP": True}})), "system.config: key 'SMP': unknown (allowed: THP, NUMA, PPC_MEM_KEYS, HAVE_MOVE_PMD, X86_INTEL_MEMORY_PROTECTION_KEYS)"),
    (changed(lambda p: p.update(system={"config": {"HAVE_MOVE_PMD": 1}})), "system.config: key 'HAVE_MOVE_PMD': value 1 (allowed: true, false)"),
    (changed(lambda p: p.update(expect_for={"cpu": "x86"})), "expect_for: key 'cpu': unknown (allowed: handler, arch)"),
]  # fmt: skip


@pytest.mark.parametrize(("obj", "message"), TABLES, ids=lambda value: None)
def test_a_bad_table_is_named(obj: Any, message: str) -> None:
    with pytest.raises(ProgramError) as raised:
        Program.from_dict(obj, "p.json")
    assert str(raised.value).startswith("p.json: ")
    assert message in str(raised.value)


class TestFiles:
    def load(self, tmp_path: Path, content: bytes, name: str = "p.json") -> str:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ProgramError) as raised:
            Program.load(path)
        message = str(raised.value)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        return message.removeprefix(f"{path}: ")

    def test_empty(self, tmp_path: Path) -> None:
        assert self.load(tmp_path, b"").startswith("the file is empty")
        assert self.load(tmp_path, b" \n").startswith("the file is empty")

    def test_binary(self, tmp_path: Path) -> None:
        assert self.load(tmp_path, bytes(range(256))).startswith("not a program")
        assert self.load(tmp_path, b"\x7fELF\x02\x01").startswith("not a program")

    def test_text_of_something_else(self, tmp_path: Path) -> None:
        message = self.load(tmp_path, b"memcached 1/1 [000] 1.0: exceptions:page_fault_user:")
        assert "it does not begin with {" in message

    def test_broken_json(self, tmp_path: Path) -> None:
        message = self.load(tmp_path, b'{"format":\n "spfemu-program/1",,}')
        assert message.startswith("line 2 column 21: not JSON: ")

    def test_a_key_twice(self, tmp_path: Path) -> None:
        assert (
            self.load(tmp_path, b'{"a": 1, "a": 2}')
            == 'line 1 column 10: key "a" twice in one object'
        )

    def test_nested_without_end(self, tmp_path: Path) -> None:
        message = self.load(tmp_path, b'{"a": ' + b"[" * 100_000)
        assert "nested too deeply" in message or "not JSON" in message

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ProgramError, match="cannot be read: No such file"):
            Program.load(tmp_path / "none.json")

    def test_directory(self, tmp_path: Path) -> None:
        with pytest.raises(ProgramError, match="cannot be read: Is a directory"):
            Program.load(tmp_path)

    def test_unknown_suffix_to_write(self, tmp_path: Path) -> None:
        with pytest.raises(ProgramError, match=r'suffix ".txt" \(allowed: .json, .npz\)'):
            Program.from_dict(good()).save(tmp_path / "p.txt")

    def test_cut_archive(self, tmp_path: Path) -> None:
        Program.from_dict(good()).save(tmp_path / "whole.npz")
        whole = (tmp_path / "whole.npz").read_bytes()
        message = self.load(tmp_path, whole[: len(whole) // 2], "cut.npz")
        assert message.startswith("not an .npz archive of a program: ")

    def test_any_bit_of_an_archive_flipped(self) -> None:
        program = Program.from_dict(
            {"format": "spfemu-program/1", "tasks": [{"ops": [{"op": "note", "text": "x"}]}]}
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "whole.npz"
            program.save(path)
            whole = path.read_bytes()
        messages = []
        for bit in range(8 * len(whole)):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            try:
                loads(bytes(damaged), "damaged.npz")
            except ProgramError as error:
                messages.append(str(error))
        assert len(messages) > 4 * len(whole)
        for message in messages:
            assert message.startswith("damaged.npz: ")
            assert "\n" not in message

    def test_other_archive(self, tmp_path: Path) -> None:
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            archive.writestr("readme.txt", "hello")
        assert "array 'meta' is missing" in self.load(tmp_path, data.getvalue(), "z.npz")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format": "x"}, "key 'format': value \"x\""),
            ({"colour": 1}, "meta: key 'colour': unknown"),
            ({"tasks": 5}, "meta: key 'tasks': value 5 (allowed: a list)"),
            ({"tasks": [5]}, "meta: tasks[0]: value 5 (allowed: an object with a name)"),
            ({"tasks": []}, 'array "ops0" belongs to no task'),
            ({"tasks": [{"name": "a"}, {"name": "b"}]}, "array 'ops1' is missing"),
            ({"ids": [1]}, "meta: key 'ids': value 1 (allowed: texts)"),
            ({"ids": []}, "tasks[0].ops[0]: key 'id': value 0 (allowed: the number of one of 0)"),
            ({"files": [{}]}, "meta: files[0]: value {} (allowed: name, length, kind, cached)"),
            ({"expect": [{"task": 0}]}, 'meta: expect[0]: value {"task": 0}'),
            (
                {"expect": [{"task": 0, "index": 9, "expect": {}}]},
                "expect: no operation has task 0, index 9",
            ),
            ({"expect_for": {}}, "meta: key 'expect_for': value {}"),
            ({"page_size": "4K"}, "meta: key 'page_size'"),
            ({"page_size": 100}, "key 'page_size': value 100"),
            ({"system": {"memcg": "x"}}, "meta: system: key 'memcg': value \"x\""),
        ],
    )
    def test_bad_meta(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        program = Program.from_dict(good())
        meta = {**program.meta(), **change}
        data = io.BytesIO()
        text = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
        np.savez(data, meta=text, ops0=program.tasks[0].ops)
        assert message in self.load(tmp_path, data.getvalue(), "bad.npz")


class TestArrays:
    """The array form is checked as closely as the JSON form."""

    def refused(self, change: Callable[[Any], None], *, size: int = 4, **tables: Any) -> str:
        builder = ProgramBuilder()
        task = builder.task("a")
        task.mmap(65536, id="p")
        with task.repeat(count=1):
            task.touch("p", 65536)
        ops = builder.build().tasks[0].ops.copy()
        change(ops)
        with pytest.raises(ProgramError) as raised:
            Program((Task("a", None, ops),), ids=("p", "q"), **tables).checked()
        return str(raised.value).removeprefix("<program>: tasks[0]")

    @pytest.mark.parametrize(
        ("index", "field", "value", "message"),
        [
            (0, "op", 0, ".ops[0]: key 'op': value 0 (allowed: 1 to 41)"),
            (0, "op", 65535, ".ops[0]: key 'op': value 65535"),
            (0, "flags", 1 << 20 | 5, ".ops[0]: key 'flags': value 1048581 (allowed: bits "),
            (0, "flags", 1, ".ops[0]: key 'file': missing"),
            (0, "prot", 8, ".ops[0]: key 'prot': value 8 (allowed: bits 1 (r), 2 (w), 4 (x))"),
            (0, "base2", 2, ".ops[0]: key 'id': value 2 (allowed: the number of one of 2)"),
            (0, "aux", 1, ".ops[0]: key 'file': value 1 (allowed: the number of one of 0)"),
            (0, "addr", 4096, ".ops[0]: key 'addr': value 4096 (allowed: 0 unless bit 31"),
            (0, "mode", 1, ".ops[0]: key 'mode': value 1 (allowed: 0; mmap does not use it)"),
            (1, "value", 0, ".ops[1]: key 'count': value 0 (allowed: 1 and more rounds)"),
            (1, "flags", 1, ".ops[1]: key 'for_ns': value 0"),
            (1, "flags", 2, ".ops[1]: key 'flags': value 2 (allowed: bits 0x1)"),
            (1, "op", 21, ".ops[3]: key 'op': 'end' closes no repeat"),
            (2, "op", 27, ".ops[1]"),
            (2, "length", 0, ".ops[1].ops[0]: key 'length': value 0 (allowed: 1 and more)"),
            (
                2,
                "access",
                3,
                ".ops[1].ops[0]: key 'access': value 3 (allowed: read, write, execute)",
            ),
            (2, "flags", 3, ".ops[1].ops[0]: key 'order': value 3"),
            (
                2,
                "base",
                2,
                ".ops[1].ops[0]: key 'addr': value 2 (allowed: -1 or the number of an id)",
            ),
            (2, "base", -2, ".ops[1].ops[0]: key 'addr': value -2"),
            (2, "base", 1, ".ops[1].ops[0]: key 'addr': id \"q\" is never defined (allowed: p)"),
            (3, "op", 16, ".ops[1]: this repeat has no 'end'"),
        ],
    )
    def test_bad_record(self, index: int, field: str, value: int, message: str) -> None:
        def change(ops: Any) -> None:
            ops[field][index] = value

        assert self.refused(change).startswith(message)

    def test_the_first_bad_record_is_named(self) -> None:
        def change(ops: Any) -> None:
            ops["length"][2] = 0
            ops["prot"][0] = 9

        assert self.refused(change).startswith(".ops[0]: key 'prot'")

    def test_another_dtype(self) -> None:
        task = Task("a", None, np.zeros(3, dtype=np.uint64))
        with pytest.raises(ProgramError, match=r"tasks\[0\]: an array of 8-byte records"):
            Program((task,)).checked()

    def test_too_deep(self) -> None:
        builder = ProgramBuilder()
        task = builder.task()
        for _ in range(33):
            task.record(OPS["repeat"].code, value=1)
        task.compute(1)
        for _ in range(33):
            task.record(OPS["end"].code)
        with pytest.raises(ProgramError, match="nested deeper than 32"):
            builder.build()

    def test_sysctl_names_are_checked(self) -> None:
        builder = ProgramBuilder()
        builder.task().sysctl("vm.x", 1)
        with pytest.raises(ProgramError, match=r"key 'name': value \"vm\.x\""):
            builder.build()

    def test_an_empty_task_is_fine(self) -> None:
        assert Program((Task("a", None, np.zeros(0, dtype=OP_DTYPE)),)).checked().nr_ops == 0


class TestPython:
    """What is no program, no arch, no text: an error that says what is allowed."""

    @pytest.mark.parametrize("call", [spfemu.run, spfemu.explore])
    def test_no_program(self, call: Any) -> None:
        with pytest.raises(ProgramError, match=r"^program: value \{\} \(allowed: a Program, from"):
            call({})

    @pytest.mark.parametrize("call", [spfemu.run, spfemu.explore])
    def test_no_arch(self, call: Any) -> None:
        builder = spfemu.ProgramBuilder()
        builder.task().compute(1)
        with pytest.raises(spfemu.ProfileError, match=r"^arch 3 \(allowed: x86, "):
            call(builder.build(), arch=3)

    def test_no_text(self) -> None:
        loads: Any = Program.loads
        with pytest.raises(
            ProgramError, match=r"^<program>: value 3 \(allowed: a text, or the byt"
        ):
            loads(3)
