"""Programs: both forms, the builder, and what goes from one to the other unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spfemu.errors import ProgramError
from spfemu.program import OP_DTYPE, OPS, OPS_BY_CODE, OUTCOME_DTYPE, Program, ProgramBuilder, Task
from spfemu.program.ops import ADVICES, FIELDS
from spfemu.program.scale import scale_program
from spfemu.program.values import format_address, parse_address, parse_int, parse_prot, prot_text
from tests.scenario_files import SCENARIOS


def program_of(*ops: dict[str, Any], **top: Any) -> Program:
    return Program.from_dict({"format": "spfemu-program/1", **top, "tasks": [{"ops": list(ops)}]})


def record(program: Program, index: int = 0) -> dict[str, int]:
    return dict(zip(FIELDS, program.tasks[0].ops[index].item(), strict=True))


class TestArrayForm:
    def test_records_are_packed_as_the_format_says(self) -> None:
        assert OP_DTYPE.itemsize == 62
        names = "op flags prot access mode advice base addr length base2 addr2 length2 value aux"
        assert " ".join(FIELDS) == names
        assert OUTCOME_DTYPE.itemsize == 98

    def test_codes_are_those_of_the_format(self) -> None:
        assert sorted(OPS_BY_CODE) == list(range(1, 42))
        assert [OPS[name].code for name in ("mmap", "repeat", "end", "note")] == [1, 26, 27, 29]

    def test_every_field_of_mmap(self) -> None:
        program = program_of(
            {"op": "mmap", "length": "8K", "id": "p"},
            {
                "op": "mmap", "length": "64K", "prot": "rx", "flags": ["shared", "fixed"],
                "addr": "p-0x1000", "file": "f", "offset": 4096, "id": "q",
            },
            files={"e": {"length": 1}, "f": {"length": "1M"}},
        )  # fmt: skip
        assert record(program) == {
            "op": 1, "flags": 5, "prot": 3, "access": 0, "mode": 0, "advice": 0, "base": -1,
            "addr": 0, "length": 8192, "base2": 0, "addr2": 0, "length2": 0, "value": 0, "aux": 0,
        }  # fmt: skip
        second = record(program, 1)
        assert second["flags"] == 2 | 8 | 1 << 31
        assert (second["prot"], second["base"], second["addr"]) == (5, 0, -4096)
        assert (second["value"], second["aux"], second["base2"]) == (4096, 2, 1)

    def test_a_file_mapping_without_flags_is_private(self) -> None:
        program = program_of(
            {"op": "mmap", "length": "4K", "file": "f"}, files={"f": {"length": "4K"}}
        )
        assert record(program)["flags"] == 1

    def test_touch_defaults(self) -> None:
        program = program_of({"op": "touch", "addr": 65536, "length": "1M"})
        touch = record(program)
        assert (touch["access"], touch["value"], touch["length2"], touch["flags"]) == (1, 1, 0, 0)

    def test_high_addresses_keep_their_bits(self) -> None:
        program = program_of({"op": "read", "addr": "0xffffffffff600000"})
        assert record(program)["addr"] == 0xFFFFFFFFFF600000 - (1 << 64)
        assert program.to_dict()["tasks"][0]["ops"][0]["addr"] == "0xffffffffff600000"

    def test_repeat_is_a_pair_of_brackets(self) -> None:
        program = program_of(
            {"op": "repeat", "count": 2, "ops": [{"op": "compute", "ns": 1}]},
            {"op": "repeat", "for_ns": 5, "max_count": 3, "ops": [{"op": "sleep", "ns": 1}]},
        )
        assert program.tasks[0].ops["op"].tolist() == [26, 21, 27, 26, 22, 27]
        assert record(program, 0)["value"] == 2
        timed = record(program, 3)
        assert (timed["flags"], timed["length"], timed["length2"]) == (1, 5, 3)

    def test_arrays_are_read_only(self) -> None:
        ops = program_of({"op": "exit"}).tasks[0].ops
        with pytest.raises(ValueError, match="read-only"):
            ops["op"][0] = 1

    def test_places_count_as_the_json_form(self) -> None:
        program = program_of(
            {"op": "compute", "ns": 1},
            {"op": "repeat", "count": 2, "ops": [
                {"op": "repeat", "count": 2, "ops": [{"op": "compute", "ns": 1}]},
                {"op": "sleep", "ns": 1}]},
            {"op": "exit"},
        )  # fmt: skip
        places = {
            program.where(0, index)
            for index, code in enumerate(program.tasks[0].ops["op"].tolist())
            if code != OPS["end"].code
        }
        assert places == {
            f"tasks[0].{place}"
            for place in (
                "ops[0]", "ops[1]", "ops[1].ops[0]", "ops[1].ops[0].ops[0]", "ops[1].ops[1]",
                "ops[2]",
            )
        }  # fmt: skip


class TestValues:
    @pytest.mark.parametrize(
        ("text", "number"),
        [("0x10", 16), ("512K", 512 << 10), ("2M", 2 << 20), ("1G", 1 << 30), (7, 7), ("-4", -4)],
    )
    def test_integers(self, text: Any, number: int) -> None:
        assert parse_int(text) == number

    @pytest.mark.parametrize("value", [1.0, True, None, "", "K", "4 K", "0x", "1e3", "٣", [1]])
    def test_what_is_no_integer(self, value: Any) -> None:
        with pytest.raises(ValueError, match="whole number"):
            parse_int(value)

    @given(
        st.one_of(st.none(), st.from_regex(r"[A-Za-z_][A-Za-z0-9_.]{0,9}", fullmatch=True)),
        st.integers(0, 2**63 - 1),
        st.booleans(),
    )
    def test_addresses_round_trip(self, name: str | None, offset: int, below: bool) -> None:
        offset = -offset if below and name is not None else offset
        assert parse_address(format_address(name, offset)) == (name, offset)

    @pytest.mark.parametrize("prot", range(8))
    def test_protections_round_trip(self, prot: int) -> None:
        assert parse_prot(prot_text(prot)) == prot


class TestRoundTrip:
    @pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
    def test_scenarios_survive_both_forms(self, path: Path, tmp_path: Path) -> None:
        program = Program.load(path)
        assert Program.from_dict(program.to_dict()) == program
        for suffix in (".json", ".npz"):
            target = tmp_path / f"program{suffix}"
            program.save(target)
            assert Program.load(target) == program

    def test_what_a_program_carries_survives_both_forms(self, tmp_path: Path) -> None:
        program = everything()
        for suffix in (".json", ".npz"):
            target = tmp_path / f"program{suffix}"
            program.save(target)
            assert Program.load(target) == program
        assert sorted(path.name for path in tmp_path.iterdir()) == ["program.json", "program.npz"]

    def test_sites_survive_the_array_form(self, tmp_path: Path) -> None:
        builder = ProgramBuilder()
        task = builder.task()
        task.compute(1)
        task.site(ip=0x400000, comm="memcached", vma="[heap]")
        task.read(65536)
        program = builder.build()
        program.save(tmp_path / "p.npz")
        loaded = Program.load(tmp_path / "p.npz")
        assert loaded == program
        assert loaded.tasks[0].sites is not None
        assert loaded.tasks[0].sites.tolist() == [(0, 0, 0), (0x400000, 1, 1)]
        assert (loaded.comms, loaded.vmas) == (("memcached",), ("[heap]",))

    def test_a_million_operations_load_and_are_checked(self, tmp_path: Path) -> None:
        ops = np.zeros(1_000_000, dtype=OP_DTYPE)
        ops["op"] = OPS["write"].code
        ops["base2"] = -1
        ops["addr"] = np.arange(len(ops)) * 4096 % (1 << 30)
        ops[0] = program_of({"op": "mmap", "length": "1G", "id": "p"}).tasks[0].ops[0]
        program = Program((Task("t0", None, ops),), ids=("p",)).checked()
        program.save(tmp_path / "big.npz")
        assert Program.load(tmp_path / "big.npz").nr_ops == 1_000_000


def everything() -> Program:
    """A program with every operation and every kind of key."""
    b = ProgramBuilder()
    b.file("f", 1 << 20, kind="shmem", cached=False)
    t = b.task("main")
    t.brk(4096, start=0x10000000, id="heap")
    t.mmap(65536, id="p")
    t.expect({"errno": None})
    t.mmap(65536, prot="none", flags=("private",), file="f", offset=4096, addr=("p", 65536))
    for advice in sorted({*ADVICES} - {"hugepage"}):
        t.madvise("p", 4096, advice)
    t.mprotect("p+0x1000", 4096, "rwx")
    t.munmap(("p", -4096), 4096)
    t.mremap("p", 4096, 8192, flags=("maymove", "fixed"), new_addr=("heap", 8192), id="q")
    t.mremap("q", 1, 1)
    t.mlock("p", 4096)
    t.mlock("p", 4096, onfault=True)
    t.munlock("p", 8192)
    t.fork("f0", wait=True)
    t.vfork("v0")
    t.clone("c0")
    t.wait("c0")
    with t.repeat(count=3):
        t.read("p", mode="kernel")
        t.write("p", 2**64 - 1)
        with t.repeat(for_ns=100, max_count=4):
            t.execute("p")
    t.touch("p", 65536, stride=8192, access="read", order="random", seed=2**64 - 1, value=5)
    t.compute(1)
    t.sleep(2**64 - 1)
    t.barrier("b")
    t.post("x")
    t.await_("x")
    t.sysctl("vm.max_map_count", -1)
    t.note("any text: é\n")
    t.exec(brk_start=0x20000000)
    t.exit()
    for name, start in (("f0", "fork"), ("v0", "vfork"), ("c0", "clone")):
        b.task(name, start).exit()
    b.expect_for["arch"] = "arm64"
    return b.build()


class TestBuilder:
    def test_everything_is_accepted(self) -> None:
        assert everything().nr_ops > 30

    def test_a_child_may_be_named_before_it_exists(self) -> None:
        b = ProgramBuilder()
        b.task("a").fork("b")
        b.task("b", "fork").exit()
        assert b.build().tasks[0].ops["aux"][0] == 1

    def test_address_forms_are_the_same(self) -> None:
        b = ProgramBuilder()
        t = b.task()
        t.mmap(8192, id="p")
        t.read("p+0x1000")
        t.read(("p", 4096))
        first, second = b.build().tasks[0].ops[1:]
        assert first == second

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda t: t.read(-1), "key 'addr': value -1 (allowed: an address"),
            (lambda t: t.mprotect(0, 1, "q"), "key 'prot': value \"q\""),
            (lambda t: t.madvise(0, 1, "nap"), "key 'advice': value \"nap\""),
            (lambda t: t.mmap(1, flags=("public",)), "key 'flags': value \"public\""),
            (lambda t: t.mmap(1, file="f"), "key 'file': value \"f\" (allowed: none"),
            (lambda t: t.mmap(1, id="9p"), "key 'id': value \"9p\""),
            (lambda t: t.mmap(-1), "a field is out of range"),
            (lambda t: t.repeat(count=1, for_ns=1).__enter__(), "exactly one of count and for_ns"),
        ],
    )
    def test_names_what_is_wrong(self, call: Any, message: str) -> None:
        with pytest.raises(ProgramError, match=r"<builder>: .*record 0|<builder>: key") as raised:
            call(ProgramBuilder().task())
        assert message in str(raised.value)

    def test_a_name_taken_twice(self) -> None:
        b = ProgramBuilder()
        b.task("a")
        with pytest.raises(ProgramError, match=r"task 'a': tasks\[0\] has the name"):
            b.task("a")


def test_json_is_one_operation_on_a_line(tmp_path: Path) -> None:
    everything().save(tmp_path / "p.json")
    text = (tmp_path / "p.json").read_text()
    assert '\n      {"op": "brk", "delta": 4096' in text
    json.loads(text)


def test_the_page_on_programs_names_everything_that_is_there() -> None:
    page = (Path(__file__).parent.parent / "docs" / "program.md").read_text()
    for op in OPS.values():
        if op.name != "end":
            for name in (op.name, *(key.name for key in op.keys)):
                assert f"`{name}`" in page, f"{op.name}: {name}"
    for advice in ADVICES:
        assert advice in page


def test_a_builder_is_held_to_the_same_limits_as_json() -> None:
    builder = ProgramBuilder()
    builder.task().exec(stack=100, stack_shift=1 << 40)
    with pytest.raises(ProgramError, match=r"'stack_shift': value 1099511627776 \(allowed: 0 to 1"):
        builder.build()


def test_what_moves_addresses_refuses_a_stack_of_exec() -> None:
    builder = ProgramBuilder(scale_pages=True)
    builder.task().exec(stack=100)
    program = builder.build()
    with pytest.raises(ProgramError, match=r"key 'stack' \(allowed with replicate: none\)"):
        program.replicate(2)
    with pytest.raises(ProgramError, match=r"key 'stack' \(allowed with scale_pages: none\)"):
        scale_program(program, 65536, 1 << 48)
