"""Which page tables there are: H12-H16 tell a program, at the price of a classic fault."""

from __future__ import annotations

import pytest

from spfemu.program import ProgramBuilder, TaskBuilder
from spfemu.reference import run
from spfemu.reference.model import ZERO_PAGE, Frames, Protection, Pte
from spfemu.reference.page_tables import PageTables
from tests.reference.arches import X86
from tests.reference.play import A, P, play

FIXED = ("private", "anonymous", "fixed")
TABLE = 1 << 21
GIB = 1 << 30


def test_a_table_stays_for_a_neighbour_in_it() -> None:
    # [keep][p]: p's table is keep's too, so the write after the new mmap needs no other
    def ops(t: TaskBuilder) -> None:
        t.mmap(P, addr=A, flags=FIXED)
        t.write(A)
        t.mmap(P, addr=A + 2 * P, flags=FIXED)
        t.write(A + 2 * P)
        t.munmap(A + 2 * P, P)
        t.mmap(P, addr=A + P, flags=FIXED)
        t.write(A + P)

    assert play(ops).last["handled"] == "spf"


def test_a_table_goes_with_its_last_mapping() -> None:
    # The mapping keeps its anon_vma through a piece in another table.
    def ops(t: TaskBuilder) -> None:
        t.mmap(TABLE + P, addr=A, flags=FIXED)
        t.touch(A, TABLE + P, stride=TABLE)
        t.munmap(A + TABLE, P)
        t.mmap(P, addr=A + TABLE, flags=FIXED)
        t.write(A + TABLE)

    assert play(ops).last["counters"]["pagefault:spf_vma_notsup"] == 1


def test_dontneed_keeps_tables() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(4 * TABLE, addr=A, flags=FIXED)
        t.touch(A, 4 * TABLE, stride=TABLE)
        t.madvise(A, 4 * TABLE, "dontneed")
        t.touch(A, 4 * TABLE, stride=TABLE)

    assert [o["handled"] for o in play(ops).outcomes[-4:]] == ["spf"] * 4


def test_a_file_fault_beyond_the_end_makes_no_table() -> None:
    # The read dies before its table is put in place; the upper ones are there, unseen.
    def ops(t: TaskBuilder) -> None:
        t.mmap(P, addr=A + TABLE, flags=("private", "fixed"), file="f", offset=1 << 20)
        t.mmap(TABLE, addr=A, flags=FIXED)
        t.write(A)
        t.read(A + TABLE)
        t.munmap(A + TABLE, P)
        t.mmap(P, addr=A + TABLE, flags=FIXED)
        t.write(A + TABLE)

    from spfemu.program import FileSpec

    played = play(ops, files=(FileSpec("f", 4096),))
    assert played[3]["signal"] == "SIGBUS"
    assert played.last["handled"] == "classic"


def test_a_child_has_a_table_where_the_parent_has_one_even_if_empty() -> None:
    builder = ProgramBuilder()
    t = builder.task()
    t.mmap(2 * TABLE, addr=A, flags=FIXED)
    t.touch(A, 2 * TABLE, stride=TABLE)
    t.madvise(A, 2 * TABLE, "dontneed")
    t.fork("c", wait=True)
    c = builder.task("c", start="fork")
    c.clone("d")
    c.write(A)
    c.write(A + TABLE)
    c.post("done")
    builder.task("d", start="clone").await_("done")
    result = run(builder.build(), arch=X86)
    writes = [result.outcome(record) for record in result.task_ops("c")[1:3]]
    assert [write["handled"] for write in writes] == ["spf", "spf"]


def test_a_child_has_nothing_of_a_mapping_without_anon_vma() -> None:
    builder = ProgramBuilder()
    t = builder.task()
    t.mmap(2 * P, addr=A, flags=FIXED)
    t.read(A)
    t.fork("c", wait=True)
    builder.task("c", start="fork").read(A)
    result = run(builder.build(), arch=X86)
    assert result.outcome(result.task_ops("c")[0])["counters"]["faults"] == 1


@pytest.mark.parametrize(
    ("start", "end", "floor", "ceiling", "left"),
    [
        # one table, nobody near: everything below the top goes
        (A, A + P, 0, 0, (0, 0, 0)),
        # a neighbour in the same table: all stay
        (A + P, A + 2 * P, A + P, 0, (1, 1, 1)),
        (A, A + P, 0, A + P, (1, 1, 1)),
        # a neighbour in the next table of the same PMD table: only the PTE table goes
        (A, A + P, 0, A + TABLE, (1, 1, 0)),
        (A + TABLE, A + TABLE + P, A + P, 0, (1, 1, 0)),
        # a neighbour in the next PMD table
        (A, A + P, 0, A + GIB, (1, 0, 0)),
        # a range over two tables, the second shared with the one above
        (A, A + TABLE + P, 0, A + TABLE + P, (1, 1, 1)),
    ],
)
def test_what_goes_of_a_range(
    start: int, end: int, floor: int, ceiling: int, left: tuple[int, ...]
) -> None:
    frames = Frames(100)
    tables = PageTables(X86, frames)
    for address in range(start & -TABLE, end, TABLE):
        tables.allocate_upper(address)
        tables.allocate(address)
    tables.free_range(start, end, floor, ceiling)
    assert tuple(len(level) for level in tables.levels) == left
    assert frames.used == 1 + sum(left)


def test_finds_what_is_mapped_in_order() -> None:
    tables = PageTables(X86, Frames(100))
    pte = Pte(ZERO_PAGE, Protection(read=True, write=False, execute=False))
    pages = [A + GIB, A + 5 * P, A + P, A + TABLE]
    for address in pages:
        tables.allocate(address)
        tables.store(address, pte)
    assert [address for address, _ in tables.present(A, A + 2 * GIB)] == sorted(pages)
    assert [address for address, _ in tables.present(A + 2 * P, A + TABLE)] == [A + 5 * P]
    tables.clear(A + P)
    assert tables.pte(A + P) is None
    assert tables.table(A) is not None
