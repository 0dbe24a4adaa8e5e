"""Programs made for another page size: lengths in pages, neighbours and gaps are kept."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spfemu import reference
from spfemu.engines import prepare
from spfemu.errors import ProgramError
from spfemu.program import Program
from tests.reference.arches import POWERPC, X86


def program_of(*ops: dict[str, Any], page_size: int = 4096, **top: Any) -> Program:
    obj = {
        "format": "spfemu-program/1", "page_size": page_size, "scale_pages": True, **top,
        "tasks": [{"ops": list(ops)}],
    }  # fmt: skip
    return Program.from_dict(obj)


def fixed(addr: int, length: int) -> dict[str, Any]:
    flags = ["private", "anonymous", "fixed"]
    return {"op": "mmap", "addr": addr, "length": length, "flags": flags}


def spans(program: Program) -> list[tuple[int, int]]:
    result = reference.run(program, arch=POWERPC if program.page_size == 65536 else X86)
    assert (result.ops["errno"] == 0).all()
    pages = []
    for line in result.maps["t0"]:
        start, end = (int(text, 16) for text in line.split()[0].split("-"))
        pages.append((start // program.page_size, end // program.page_size))
    return pages


def test_the_same_page_size_changes_nothing() -> None:
    program = program_of(fixed(0x10000000, 8192))
    assert prepare(program, X86) is program


def test_without_leave_another_page_size_is_an_error() -> None:
    program = Program.loads('{"format": "spfemu-program/1", "tasks": [{"ops": []}]}')
    with pytest.raises(
        ProgramError, match=r"key 'page_size': value 4096 \(allowed on arch powerpc"
    ):
        prepare(program, POWERPC)


def test_lengths_keep_their_pages_and_gaps_stay_gaps() -> None:
    far = 0x7FFF00000000
    program = prepare(
        program_of(fixed(far, 8192), fixed(far + 3 * 4096, 4096), fixed(0x555500000000, 4096)),
        POWERPC,
    )
    low, first, second = spans(program)
    assert low[1] - low[0] == 1
    assert first[1] - first[0] == 2
    assert second == (first[1] + 1, first[1] + 2)
    assert low[1] < first[0]


def test_faults_hit_the_same_pages() -> None:
    base = 0x7F0000000000
    program = program_of(
        fixed(base, 65536),
        {"op": "write", "addr": base + 0x3008, "value": 5},
        {"op": "read", "addr": base + 0x3010},
        {"op": "read", "addr": base - 4096},
        {"op": "touch", "addr": base, "length": 65536},
    )
    here = reference.run(program, arch=X86)
    there = reference.run(prepare(program, POWERPC), arch=POWERPC)
    assert here.counters == there.counters
    assert here.ops["value"].tolist() == there.ops["value"].tolist()


def test_ids_files_and_the_heap() -> None:
    program = program_of(
        {"op": "brk", "start": "0x20000000", "delta": 8192, "id": "heap"},
        {"op": "write", "addr": "heap-4096", "value": 1},
        {
            "op": "mmap", "length": 8192, "file": "f", "offset": 4096, "flags": ["shared"],
            "id": "m",
        },
        {"op": "read", "addr": "m+0x1008"},
        files={"f": {"length": 12288}},
    )  # fmt: skip
    scaled = prepare(program, POWERPC)
    assert scaled.files[0].length == 3 * 65536
    ops = scaled.tasks[0].ops
    assert ops["addr"].tolist()[1] == -65536
    assert (int(ops["length"][2]), int(ops["value"][2])) == (2 * 65536, 65536)
    result = reference.run(scaled, arch=POWERPC)
    assert (result.ops["signal"] == 0).all()
    assert (result.ops["errno"] == 0).all()


def test_down_to_smaller_pages() -> None:
    program = program_of(fixed(0x10000000, 3 * 65536), page_size=65536)
    assert [end - start for start, end in spans(prepare(program, X86))] == [3]


def test_what_cannot_fit() -> None:
    with pytest.raises(ProgramError, match=r"the mappings have \d+ pages in all"):
        prepare(program_of(fixed(0x10000000, 1 << 46)), POWERPC)


@given(st.lists(st.tuples(st.integers(16, 4000), st.integers(1, 40)), min_size=1, max_size=12))
def test_order_and_neighbours_survive(mappings: list[tuple[int, int]]) -> None:
    program = program_of(*(fixed(page * 4096, length * 4096) for page, length in mappings))
    before, after = spans(program), spans(prepare(program, POWERPC))
    assert [end - start for start, end in before] == [end - start for start, end in after]

    def gaps(found: list[tuple[int, int]]) -> list[bool]:
        return [right[0] > left[1] for left, right in itertools.pairwise(found)]

    assert gaps(before) == gaps(after)
