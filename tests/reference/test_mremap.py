"""mremap: where a mapping goes, what comes with it, what is refused, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from spfemu.program import FileSpec, ProgramBuilder, System, TaskBuilder
from spfemu.reference import run
from tests.reference.arches import ARM64, X86
from tests.reference.play import A, P, Played, play

FIXED = ("private", "anonymous", "fixed")
SHARED = ("shared", "anonymous", "fixed")
TO = ("maymove", "fixed")
B = A + 0x4000_0000
"""In another page table than A."""
PMD = 2 << 20
END = X86.task_size
TOP = (1 << 64) - P

Ops = Callable[[TaskBuilder], None]


def mremap(old: int, new: int, *flags: str, addr: int = A, to: int | None = None) -> Ops:
    return lambda t: t.mremap(addr, old, new, flags=flags, new_addr=to)


@pytest.mark.parametrize(
    ("call", "errno"),
    [
        (mremap(P, P, "dontunmap", "maymove"), "EINVAL"),  # since 5.7
        (mremap(P, P, "fixed", to=B), "EINVAL"),
        (mremap(P, P, addr=A + 1), "EINVAL"),
        (mremap(P, 0), "EINVAL"),
        (mremap(P, (1 << 64) - 1), "EINVAL"),  # rounds up to 0
        (mremap(P, P), None),
        (mremap(P, P, addr=A + 100 * P), None),  # equal lengths: nobody looks
        (mremap(P, P, addr=TOP), None),
        (mremap(4 * P, P), None),
        (mremap(200 * P, P, addr=A + 100 * P), None),  # nothing to unmap
        (mremap(2 * P, P, addr=END), "EINVAL"),
        (mremap(P, 2 * P, addr=A + 100 * P), "EFAULT"),
        (mremap(P, 2 * P, addr=A - P), "EFAULT"),
        (mremap(5 * P, 6 * P), "EFAULT"),  # beyond the VMA
        (mremap(0, P, "maymove"), "EINVAL"),  # a second mapping of private memory
        (mremap(P, 2 * P), "ENOMEM"),  # no room behind the first page
        (mremap(4 * P, 5 * P), None),
        (mremap(4 * P, 6 * P), "ENOMEM"),  # the neighbour at 5
        (mremap(4 * P, 6 * P, "maymove"), None),
        (mremap(4 * P, END, "maymove"), "ENOMEM"),
        (mremap(4 * P, END + P, "maymove"), "ENOMEM"),
        (mremap(4 * P, 4 * P, *TO, to=B + 1), "EINVAL"),
        (mremap(4 * P, END + P, *TO, to=B), "EINVAL"),
        (mremap(4 * P, 4 * P, *TO, to=END - P), "EINVAL"),
        (mremap(4 * P, 4 * P, *TO, to=A), "EINVAL"),  # over itself
        (mremap(4 * P, 4 * P, *TO, to=A + 3 * P), "EINVAL"),
        (mremap(2 * P, 2 * P, *TO, to=A + 2 * P), None),  # the second half goes
        (mremap(4 * P, P, *TO, to=A + 2 * P), "EINVAL"),  # the old length counts
        (mremap(P, 4 * P, *TO, to=A - 3 * P), "EINVAL"),
        (mremap(P, P, *TO, addr=A + 100 * P, to=B), "EFAULT"),
        (mremap(4 * P, 4 * P, *TO, to=P), "EPERM"),
        (mremap(4 * P, 4 * P, *TO, to=B), None),
        (mremap(4 * P, 2 * P, *TO, to=B), None),
        (mremap(4 * P, 8 * P, *TO, to=B), None),
    ],
)
def test_errno(call: Ops, errno: str | None) -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(4 * P, addr=A, flags=FIXED)
        t.mmap(P, addr=A + 5 * P, flags=FIXED, prot="r")
        call(t)

    assert play(ops).last["errno"] == errno


def test_growing_in_place_keeps_pages_and_merges_with_nobody() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * P, addr=A, flags=FIXED)
        t.mmap(P, addr=A + 4 * P, flags=FIXED)
        t.write(A + P, 7)
        t.mremap(A, 2 * P, 4 * P)
        t.read(A + P)
        t.write(A + 3 * P, 8)

    played = play(ops)
    assert played[3]["ret"] == A
    assert (played[4]["value"], played[4]["handled"]) == (7, "none")
    assert played.last["handled"] == "spf"  # the anon_vma is there already
    assert played.areas() == ["0-4 rw-p", "4-5 rw-p"]


def test_shrinking_unmaps_the_tail_whoever_owns_it() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(4 * P, addr=A, flags=FIXED)
        t.mmap(2 * P, addr=A + 4 * P, flags=FIXED, prot="r")
        t.mremap(A + P, 4 * P, P)

    assert play(ops).areas() == ["0-2 rw-p", "5-6 r--p"]


def test_moving_takes_the_pages_along_and_leaves_nothing() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(4 * P, addr=A, flags=FIXED)
        t.touch(A + P, 2 * P, value=5)
        t.mremap(A + P, 2 * P, 3 * P, flags=TO, new_addr=B)
        for page in range(3):
            t.read(B + page * P)
        t.write(B + 2 * P, 6)
        t.read(A + P)

    played = play(ops)
    assert [played[n]["value"] for n in (4, 5, 6)] == [5, 5, 0]
    assert [played[n]["handled"] for n in (4, 5, 6)] == ["none", "none", "spf"]
    assert played[7]["handled"] == "spf"
    assert played.last["si_code"] == "SEGV_MAPERR"
    base = (B - A) // P
    assert played.areas() == ["0-1 rw-p", "3-4 rw-p", f"{base}-{base + 3} rw-p"]


def test_the_kernel_chooses_the_place_like_that_of_a_new_mapping() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * P, addr=A, flags=FIXED)
        t.mmap(P, addr=A + 2 * P, flags=FIXED, prot="r")
        t.mremap(A, 2 * P, 3 * P, flags=("maymove",), id="q")
        t.mmap(P, id="r")

    played = play(ops)
    assert played[2]["ret"] == X86.mmap_base - 3 * P
    assert played[3]["ret"] == X86.mmap_base - 4 * P


def test_an_empty_page_table_gets_a_table_at_the_new_place() -> None:
    # The PMD of B is there, so a first write there is speculative.
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * P, addr=A, flags=FIXED)
        t.write(A, 1)
        t.madvise(A, P, "dontneed")
        t.mremap(A, 2 * P, 2 * P, flags=TO, new_addr=B)
        t.write(B, 2)

    assert play(ops).last["handled"] == "spf"


def test_untouched_memory_gets_no_page_table_at_the_new_place() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * P, addr=A, flags=FIXED)
        t.mmap(2 * P, addr=A + PMD, flags=FIXED)
        t.write(A + PMD, 1)
        t.mremap(A + PMD + P, P, P, flags=TO, new_addr=B)  # has an anon_vma, no page
        t.write(B, 2)
        t.mremap(A, 2 * P, 2 * P, flags=TO, new_addr=B + PMD)
        t.write(B + PMD, 3)

    played = play(ops)
    # The source's table exists, so the target's does; the other mapping never had one.
    assert [played[n]["handled"] for n in (4, 6)] == ["spf", "classic"]


class TestMerging:
    def test_untouched_memory_merges_as_if_it_had_been_mapped_there(self) -> None:
        def ops(t: TaskBuilder) -> None:
            t.mmap(P, addr=A, flags=FIXED)
            t.write(A, 1)
            t.mmap(P, addr=B, flags=FIXED)
            t.mremap(B, P, P, flags=TO, new_addr=A + P)

        assert play(ops).areas() == ["0-2 rw-p"]

    def test_touched_memory_keeps_its_offset_and_stays_apart(self) -> None:
        def ops(t: TaskBuilder) -> None:
            t.mmap(P, addr=A, flags=FIXED)
            t.mmap(P, addr=B, flags=FIXED)
            t.write(B, 1)
            t.mremap(B, P, P, flags=TO, new_addr=A + P)

        assert play(ops).areas() == ["0-1 rw-p", "1-2 rw-p"]

    def test_touched_memory_comes_back_to_where_it_was_cut_off(self) -> None:
        def ops(t: TaskBuilder) -> None:
            t.mmap(4 * P, addr=A, flags=FIXED)
            t.touch(A, 4 * P, value=9)
            t.mremap(A + 2 * P, 2 * P, 2 * P, flags=TO, new_addr=B)
            t.mremap(B, 2 * P, 2 * P, flags=TO, new_addr=A + 2 * P)
            t.read(A + 3 * P)

        played = play(ops)
        assert played.areas() == ["0-4 rw-p"]
        assert (played.last["value"], played.last["handled"]) == (9, "none")

    @pytest.mark.parametrize("pages", [1, 2])
    def test_untouched_memory_can_merge_with_itself(self, pages: int) -> None:
        # AAAA    its first page is moved right behind it, where an untouched mapping would merge
        # .AAAa   with it: the one VMA grows at its end, and then loses its beginning
        def ops(t: TaskBuilder) -> None:
            t.mmap(4 * P, addr=A, flags=FIXED)
            t.mremap(A, pages * P, pages * P, flags=TO, new_addr=A + 4 * P)
            t.write(A + 4 * P, 1)

        played = play(ops)
        assert played.last["errno"] is None
        assert played.areas() == [f"{pages}-{4 + pages} rw-p"]

    def test_files_merge_by_offset(self) -> None:
        def ops(t: TaskBuilder) -> None:
            t.mmap(4 * P, addr=A, flags=("shared", "fixed"), file="f")
            t.mremap(A + 2 * P, 2 * P, 2 * P, flags=TO, new_addr=B)
            t.mremap(A, 2 * P, 2 * P, flags=TO, new_addr=B - 2 * P)

        played = play(ops, files=(FileSpec("f", 1 << 16),))
        assert played.maps == [f"{B - 2 * P:08x}-{B + 2 * P:08x} rw-s 00000000"]

    def test_what_is_left_stays_charged(self) -> None:
        # AAAA  the middle goes; were the rest not charged any more, the new page would stay apart
        def ops(t: TaskBuilder) -> None:
            t.mmap(4 * P, addr=A, flags=FIXED)
            t.mremap(A + P, 2 * P, 2 * P, flags=TO, new_addr=B)
            t.mmap(2 * P, addr=A + P, flags=FIXED)

        base = (B - A) // P
        assert play(ops).areas() == ["0-4 rw-p", f"{base}-{base + 2} rw-p"]


def test_a_length_of_0_maps_shared_memory_a_second_time() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * P, addr=A, flags=SHARED)
        t.write(A + P, 3)
        t.mremap(A + P, 0, P, flags=TO, new_addr=B)
        t.read(B)
        t.write(B, 4)
        t.read(A + P)

    played = play(ops)
    assert played[3]["value"] == 3
    assert played.last["value"] == 4
    base = (B - A) // P
    assert played.areas() == ["0-2 rw-s", f"{base}-{base + 1} rw-s"]


def test_a_child_of_fork_moves_its_own_copy() -> None:
    builder = ProgramBuilder()
    parent, child = builder.task("p"), builder.task("c", "fork")
    parent.mmap(2 * P, addr=A, flags=FIXED)
    parent.write(A, 1)
    parent.fork("c", wait=True)
    parent.read(A)
    child.mremap(A, 2 * P, 2 * P, flags=TO, new_addr=B)
    child.read(B)
    child.write(B, 2)
    result = run(builder.build(), arch=X86)
    assert [o["value"] for o in result.outcomes() if o["op"] == "read"] == [1, 1]


class TestLimits:
    def test_moving_needs_room_for_three_more_vmas(self) -> None:
        def errno(limit: int, *flags: str) -> Any:
            def ops(t: TaskBuilder) -> None:
                t.mmap(4 * P, addr=A, flags=FIXED)
                t.mmap(P, addr=A + 4 * P, flags=FIXED, prot="r")
                t.sysctl("vm.max_map_count", limit)
                t.mremap(A, 4 * P, 5 * P, flags=flags, new_addr=B if len(flags) > 1 else None)

            return play(ops).last["errno"]

        assert (errno(5, "maymove"), errno(6, "maymove")) == ("ENOMEM", None)
        assert (errno(7, *TO), errno(8, *TO)) == ("ENOMEM", None)

    def test_what_was_at_the_new_place_is_gone_even_if_nothing_comes(self) -> None:
        def ops(t: TaskBuilder) -> None:
            t.mmap(P, addr=B, flags=FIXED)
            t.mremap(A, P, P, flags=TO, new_addr=B)

        played = play(ops)
        assert played.last["errno"] == "EFAULT"
        assert played.maps == []


class TestOutOfMemory:
    """Three PTE tables have to move; memory ends at the second, so all comes back."""

    @staticmethod
    def play(frames: int, **config: bool) -> Played:
        def ops(t: TaskBuilder) -> None:
            t.mmap(6 * PMD, addr=A, flags=FIXED)
            for table in range(3):
                t.write(A + table * PMD, table + 1)
            t.mremap(A, 6 * PMD, 6 * PMD, flags=TO, new_addr=B)
            for table in range(3):
                t.read(A + table * PMD)
                t.read(B + table * PMD)

        return play(ops, system=System(memory=frames * P, config=config))

    # The zero page, the top table, pud, pmd, three PTE tables, three pages.
    USED = 10

    @pytest.mark.parametrize("spare", [0, 1, 2, 3])
    def test_all_comes_back(self, spare: int) -> None:
        # One frame for the PMD table of B, one for each of the three PTE tables.
        played = self.play(self.USED + spare, HAVE_MOVE_PMD=False)
        assert played[4]["errno"] == "ENOMEM"
        assert [played[n]["value"] for n in (5, 7, 9)] == [1, 2, 3]
        assert [played[n]["signal"] for n in (6, 8, 10)] == ["SIGSEGV"] * 3
        assert len(played.maps) == 1

    def test_whole_tables_move_without_memory_for_new_ones(self) -> None:
        played = self.play(self.USED + 1, HAVE_MOVE_PMD=True)
        assert played[4]["ret"] == B
        assert [played[n]["value"] for n in (6, 8, 10)] == [1, 2, 3]

    def test_only_x86_moves_whole_tables_unless_told(self) -> None:
        for arch, moves in ((X86, True), (ARM64, False)):
            assert System().has("HAVE_MOVE_PMD", arch.family) is moves
            assert System(config={"HAVE_MOVE_PMD": True}).has("HAVE_MOVE_PMD", arch.family)


def test_pages_that_lie_askew_in_their_tables_move_one_by_one() -> None:
    # The tables' edges are met at different pages at both places.
    pages = [0, 1, 300, 511, 512, 700, 1023]

    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * PMD, addr=A + P, flags=FIXED)
        for page in pages:
            t.write(A + (page + 1) * P, page + 1)
        t.mremap(A + P, 2 * PMD, 2 * PMD, flags=TO, new_addr=B + 200 * P)
        for page in pages:
            t.read(B + (page + 200) * P)

    played = play(ops)
    assert [o["value"] for o in played.outcomes if o["op"] == "read"] == [p + 1 for p in pages]
    assert {o["handled"] for o in played.outcomes if o["op"] == "read"} == {"none"}
