"""Merging, splitting and sharing an anon_vma.

Pictures: letters are VMAs, `.` is a hole, `*` marks a VMA that has been written to; `->` is the
operation.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from spfemu.program import FileSpec, TaskBuilder
from tests.reference.play import A, P, Played, play

FIXED = ("private", "anonymous", "fixed")


def at(page: int) -> int:
    return A + page * P


def map_pages(t: TaskBuilder, first: int, end: int, prot: str = "rw") -> None:
    t.mmap((end - first) * P, prot=prot, addr=at(first), flags=FIXED)


def handled(played: Played) -> list[str]:
    return [o["handled"] for o in played.outcomes if o["op"] == "write"]


class TestTheEightCases:
    """vma_merge()'s cases, by the numbers in its comment."""

    def test_case_1_fills_a_gap(self) -> None:
        # AA..CC -> AABBCC = one
        def ops(t: TaskBuilder) -> None:
            map_pages(t, 0, 2)
            map_pages(t, 4, 6)
            map_pages(t, 2, 4)

        assert play(ops).areas() == ["0-6 rw-p"]

    def test_case_2_extends_the_one_below(self) -> None:
        # AA.. -> AABB = one
        def ops(t: TaskBuilder) -> None:
            map_pages(t, 0, 2)
            map_pages(t, 2, 4)

        assert play(ops).areas() == ["0-4 rw-p"]

    def test_case_3_extends_the_one_above(self) -> None:
        # ..AA -> BBAA = one
        def ops(t: TaskBuilder) -> None:
            map_pages(t, 2, 4)
            map_pages(t, 0, 2)

        assert play(ops).areas() == ["0-4 rw-p"]

    def test_case_4_moves_the_boundary_down(self) -> None:
        # rrrrww -> rrwwww: the tail of the lower becomes like the upper
        def ops(t: TaskBuilder) -> None:
            map_pages(t, 0, 6)
            t.mprotect(at(0), 4 * P, "r")
            t.mprotect(at(2), 2 * P, "rw")

        assert play(ops).areas() == ["0-2 r--p", "2-6 rw-p"]

    def test_case_5_moves_the_boundary_up(self) -> None:
        # rrwwww -> rrrrww
        def ops(t: TaskBuilder) -> None:
            map_pages(t, 0, 6)
            t.mprotect(at(0), 2 * P, "r")
            t.mprotect(at(2), 2 * P, "r")

        assert play(ops).areas() == ["0-4 r--p", "4-6 rw-p"]

    def test_case_6_joins_three(self) -> None:
        # wwrrww -> wwwwww
        def ops(t: TaskBuilder) -> None:
            map_pages(t, 0, 6)
            t.mprotect(at(2), 2 * P, "r")
            t.mprotect(at(2), 2 * P, "rw")

        assert play(ops).areas() == ["0-6 rw-p"]

    def test_case_7_joins_the_one_below(self) -> None:
        # wwrrnn -> wwwwnn
        def ops(t: TaskBuilder) -> None:
            map_pages(t, 0, 6)
            t.mprotect(at(2), 2 * P, "r")
            t.mprotect(at(4), 2 * P, "none")
            t.mprotect(at(2), 2 * P, "rw")

        assert play(ops).areas() == ["0-4 rw-p", "4-6 ---p"]

    def test_case_8_joins_the_one_above(self) -> None:
        # nnrrww -> nnwwww
        def ops(t: TaskBuilder) -> None:
            map_pages(t, 0, 6)
            t.mprotect(at(0), 2 * P, "none")
            t.mprotect(at(2), 2 * P, "r")
            t.mprotect(at(2), 2 * P, "rw")

        assert play(ops).areas() == ["0-2 ---p", "2-6 rw-p"]


class TestAnonVma:
    def test_an_untouched_mapping_takes_over_a_touched_neighbours(self) -> None:
        # AA*.. -> AABB: the first write in B is speculative
        def ops(t: TaskBuilder) -> None:
            map_pages(t, 0, 2)
            t.write(at(0))
            map_pages(t, 2, 4)
            t.write(at(2))

        assert handled(play(ops)) == ["classic", "spf"]

    def test_a_gap_between_untouched_and_touched_takes_over_the_touched_ones(self) -> None:
        # AA..CC* -> AABBCC*: A imports C's anon_vma
        def ops(t: TaskBuilder) -> None:
            map_pages(t, 0, 2)
            map_pages(t, 4, 6)
            t.write(at(4))
            map_pages(t, 2, 4)
            t.write(at(0))

        played = play(ops)
        assert played.areas() == ["0-6 rw-p"]
        assert handled(played) == ["classic", "spf"]

    def test_a_touched_range_does_not_merge_into_an_untouched_neighbour(self) -> None:
        # wwrr* -> the right half made rw stays apart: the left one has no anon_vma chain
        def ops(t: TaskBuilder) -> None:
            map_pages(t, 0, 4)
            t.mprotect(at(2), 2 * P, "rw")
            t.mprotect(at(0), 2 * P, "r")
            t.write(at(2))
            t.mprotect(at(2), 2 * P, "r")

        assert play(ops).areas() == ["0-2 r--p", "2-4 r--p"]

    def test_two_that_were_touched_apart_do_not_merge(self) -> None:
        # AA*..CC* -> AABB CC: B goes with A, C has an anon_vma of its own
        def ops(t: TaskBuilder) -> None:
            map_pages(t, 0, 2)
            t.write(at(0))
            map_pages(t, 4, 6)
            t.write(at(4))
            map_pages(t, 2, 4)

        assert play(ops).areas() == ["0-4 rw-p", "4-6 rw-p"]

    def test_neighbours_that_differ_in_protection_share_one(self) -> None:
        # wwrr: both touched, the second finds the first's; so they can merge later
        def ops(t: TaskBuilder) -> None:
            map_pages(t, 0, 4)
            t.mprotect(at(2), 2 * P, "rwx")
            t.write(at(0))
            t.write(at(2))
            t.mprotect(at(2), 2 * P, "rw")

        assert play(ops).areas() == ["0-4 rw-p"]

    def test_a_read_makes_none(self) -> None:
        def ops(t: TaskBuilder) -> None:
            map_pages(t, 0, 2)
            t.read(at(0))
            t.write(at(1))
            t.write(at(0))

        assert handled(play(ops)) == ["classic", "spf"]

    def test_what_came_through_a_fork_grows_no_more(self) -> None:
        # child: AA* has a chain of two, so a new neighbour stays apart
        from spfemu.program import ProgramBuilder
        from spfemu.reference import run
        from tests.reference.arches import X86

        builder = ProgramBuilder()
        t = builder.task()
        map_pages(t, 0, 2)
        t.write(at(0))
        t.fork("c", wait=True)
        map_pages(t, 2, 4)
        map_pages(builder.task("c", start="fork"), 2, 4)
        result = run(builder.build(), arch=X86)
        assert len(result.maps["t0"]) == 1
        assert len(result.maps["c"]) == 2


class TestWhatKeepsApart:
    @pytest.mark.parametrize("flags", [(*FIXED, "noreserve"), ("shared", "anonymous", "fixed")])
    def test_flags(self, flags: Sequence[str]) -> None:
        def ops(t: TaskBuilder) -> None:
            map_pages(t, 0, 2)
            t.mmap(2 * P, addr=at(2), flags=flags)

        assert len(play(ops).maps) == 2

    def test_memory_that_was_writable_once(self) -> None:
        # rw made r is charged, r is not
        def ops(t: TaskBuilder) -> None:
            map_pages(t, 0, 2)
            t.mprotect(at(0), 2 * P, "r")
            map_pages(t, 2, 4, "r")

        assert play(ops).areas() == ["0-2 r--p", "2-4 r--p"]

    def test_two_shared_anonymous_mappings_have_two_files(self) -> None:
        def ops(t: TaskBuilder) -> None:
            for first in (0, 2):
                t.mmap(2 * P, addr=at(first), flags=("shared", "anonymous", "fixed"))

        assert len(play(ops).maps) == 2

    @pytest.mark.parametrize(("offset", "count"), [(2, 1), (0, 2), (3, 2)])
    def test_offsets_of_a_file(self, offset: int, count: int) -> None:
        def ops(t: TaskBuilder) -> None:
            for first, pages in ((0, 0), (2, offset)):
                flags = ("private", "fixed")
                t.mmap(2 * P, addr=at(first), flags=flags, file="f", offset=pages * P)

        played = play(ops, files=(FileSpec("f", 1 << 20),))
        assert len(played.maps) == count

    def test_advice_splits_and_its_opposite_joins(self) -> None:
        def ops(t: TaskBuilder) -> None:
            map_pages(t, 0, 6)
            t.madvise(at(2), 2 * P, "sequential")
            t.note("split")
            t.madvise(at(2), 2 * P, "normal")

        assert play(ops).areas() == ["0-6 rw-p"]
        assert play(lambda t: ops_without_last(t, ops)).areas() == [
            "0-2 rw-p",
            "2-4 rw-p",
            "4-6 rw-p",
        ]


def ops_without_last(t: TaskBuilder, ops: object) -> None:
    map_pages(t, 0, 6)
    t.madvise(at(2), 2 * P, "sequential")


class TestAddressChoice:
    def test_goes_down_from_the_base_and_merges(self) -> None:
        def ops(t: TaskBuilder) -> None:
            for _ in range(3):
                t.mmap(2 * P)

        from tests.reference.arches import X86

        played = play(ops)
        assert [o["ret"] for o in played.outcomes] == [
            X86.mmap_base - pages * P for pages in (2, 4, 6)
        ]
        assert len(played.maps) == 1

    def test_takes_the_highest_gap_that_fits(self) -> None:
        # base: [2][1 hole][2][4 holes]…
        def ops(t: TaskBuilder) -> None:
            t.mmap(9 * P, id="p")
            t.munmap("p+0x6000", P)
            t.munmap("p", 4 * P)
            t.mmap(P, id="one")
            t.mmap(2 * P, id="two")

        played = play(ops)
        p = played[0]["ret"]
        assert [o["ret"] for o in played.outcomes[3:]] == [p + 6 * P, p + 2 * P]

    @pytest.mark.parametrize(
        ("hint", "address"),
        [
            (at(5) + 123, at(5)),  # rounded down to its page
            (at(1), None),  # taken: as if it had not been given
            (8192, 65536),  # below vm.mmap_min_addr: raised to it
            ((1 << 47) - 4096 - P, (1 << 47) - 4096 - P),  # the last page that fits
            ((1 << 47) - 4096, None),
        ],
    )
    def test_hints(self, hint: int, address: int | None) -> None:
        from tests.reference.arches import X86

        def ops(t: TaskBuilder) -> None:
            map_pages(t, 0, 2)
            t.mmap(P, addr=hint)

        assert play(ops).last["ret"] == (X86.mmap_base - P if address is None else address)

    def test_goes_up_from_a_third_when_all_below_the_base_is_full(self) -> None:
        from tests.reference.arches import X86

        def ops(t: TaskBuilder) -> None:
            t.mmap(X86.mmap_base - 65536)
            t.mmap(P)

        assert [o["ret"] for o in play(ops).outcomes] == [65536, X86.mmap_base]
