"""KSM: which pages become one, and what makes them separate."""

from __future__ import annotations

from typing import Any, Final

import pytest

import spfemu
from spfemu.program import Program
from spfemu.reference import run
from tests.reference.arches import X86

PAGE: Final = 4096
BASE: Final = 0x1000_0000


def op(name: str, page: int = 0, pages: int = 1, **keys: Any) -> dict[str, Any]:
    return {"op": name, "addr": BASE + page * PAGE, "length": pages * PAGE, **keys}


def write(page: int, value: int) -> dict[str, Any]:
    return {"op": "write", "addr": BASE + page * PAGE, "value": value}


def read(page: int) -> dict[str, Any]:
    return {"op": "read", "addr": BASE + page * PAGE}


ADVISE: Final = op("madvise", 0, 4, advice="mergeable")
SCAN: Final = op("ksm_scan", 0, 4)
MOVE: Final[dict[str, Any]] = {
    "op": "mremap",
    "addr": BASE,
    "old_length": PAGE,
    "new_length": PAGE,
    "flags": ["maymove", "fixed"],
    "new_addr": BASE + 16 * PAGE,
}


def outcomes(
    *ops: dict[str, Any], flags: tuple[str, ...] = ("private",), **system: Any
) -> list[dict[str, Any]]:
    mmap = op("mmap", 0, 4, flags=[*flags, "anonymous", "fixed"])
    tasks = [{"name": "t0", "ops": [mmap, *ops]}]
    obj = {"format": "spfemu-program/1", "system": system, "tasks": tasks}
    return list(run(Program.from_dict(obj), arch=X86).outcomes())[1:]


def faults(*ops: dict[str, Any], **settings: Any) -> int:
    """The faults of the last operation, which succeeds."""
    last = outcomes(*ops, **settings)[-1]
    assert last["errno"] is None
    assert last["signal"] is None
    return int(last["counters"].get("faults", 0))


def test_a_merged_page_is_copied_and_the_last_one_is_kept() -> None:
    merged = [write(0, 5), write(1, 5), write(2, 6), ADVISE, SCAN]
    assert faults(*merged, write(0, 7)) == 1
    assert faults(*merged, write(2, 7)) == 0
    assert faults(*merged, write(0, 7), write(1, 8)) == 1
    assert faults(*merged, write(0, 7), write(1, 8), write(1, 9)) == 0
    reads = outcomes(*merged, write(0, 7), read(0), read(1), read(2))[-3:]
    assert [found["value"] for found in reads] == [7, 5, 6]


@pytest.mark.parametrize("engine", ["reference", "native", "vtime"])
@pytest.mark.parametrize("prot", ["none", "r"])
@pytest.mark.parametrize("how", ["unmergeable", "mremap"])
def test_what_is_unmerged_is_no_more_writable_than_its_vma(
    engine: str, prot: str, how: str
) -> None:
    # break_ksm() asks for a write whatever the VMA allows; maybe_mkwrite() minds that.
    at = 16 if how == "mremap" else 0
    split = MOVE if how == "mremap" else op("madvise", 0, 4, advice="unmergeable")
    mmap = op("mmap", 0, 4, flags=["private", "anonymous", "fixed"])
    ops = [mmap, write(0, 5), write(1, 5), ADVISE, SCAN,
           op("mprotect", 0, 4, prot=prot), split, write(at, 9)]  # fmt: skip
    given = {"format": "spfemu-program/1", "tasks": [{"name": "t0", "ops": ops}]}
    last = list(spfemu.run(Program.from_dict(given), engine=engine).outcomes())[-1]
    assert (last["op"], last["signal"]) == ("write", "SIGSEGV")


@pytest.mark.parametrize(
    "between",
    [
        [op("madvise", 0, 4, advice="unmergeable"), SCAN],
        [],  # no scan
        [op("ksm_scan", 0, 1)],  # the other one is not in it
        [write(1, 6), SCAN],
    ],
    ids=["unmergeable", "no scan", "short scan", "different"],
)
def test_what_is_not_merged_may_be_written(between: list[dict[str, Any]]) -> None:
    assert faults(write(0, 5), write(1, 5), ADVISE, *between, write(0, 7)) == 0


def test_shared_memory_is_not_merged() -> None:
    ops = (write(0, 5), write(1, 5), ADVISE, SCAN, write(0, 7))
    assert faults(*ops, flags=("shared",)) == 0


def test_unmerging_takes_a_fault_that_nobody_sees_for_each_page() -> None:
    ops = [write(0, 5), write(1, 5), write(2, 5), ADVISE, SCAN]
    undone, *writes = outcomes(
        *ops, op("madvise", 0, 4, advice="unmergeable"), write(0, 7), write(1, 7), write(2, 7)
    )[-4:]
    assert undone["counters"] == {"pgfault": 3}
    assert [found["counters"] for found in writes] == [{}, {}, {}]


def test_without_memory_pages_stay_merged() -> None:
    full = {**op("mmap", 64, 64), "flags": ["private", "anonymous", "fixed"]}
    ops = [write(0, 5), write(1, 5), ADVISE, SCAN, full, op("touch", 64, 64)]
    undo = op("madvise", 0, 4, advice="unmergeable")
    results = outcomes(*ops, undo, MOVE, read(0), memory="256K")[-3:]
    assert [found["errno"] for found in results] == ["EAGAIN", "ENOMEM", None]
    assert results[-1]["value"] == 5


def test_a_page_that_moves_is_its_own() -> None:
    ops = [write(0, 5), write(1, 5), ADVISE, SCAN, MOVE]
    assert faults(*ops, write(16, 7)) == 0
    assert faults(*ops, write(1, 7)) == 1


def test_bad_arguments() -> None:
    results = outcomes(
        {**SCAN, "addr": BASE + 1}, op("ksm_scan", 0, 0), {**SCAN, "length": (1 << 64) - PAGE}
    )
    assert [found["errno"] for found in results] == ["EINVAL", None, None]
