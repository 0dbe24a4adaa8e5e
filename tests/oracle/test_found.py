"""What generated programs found, each in as few operations as show it.

Each was a difference that nobody explained.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

import spfemu
from spfemu import Program, oracle
from spfemu.comparing import joined_maps, maps_line
from tests.oracle.play import BASE, PAGE, both, compared, forked, mmap, op, program

FIXED: Final = ["private", "anonymous", "fixed"]
Q: Final = BASE + 16 * PAGE
MOVED: Final[dict[str, Any]] = op(
    "mremap", old_length=2 * PAGE, new_length=PAGE, flags=["maymove", "fixed"], new_addr=hex(Q)
)


def excused(found: oracle.Comparison) -> list[str]:
    """What was excused, but for where newer kernels put what is large."""
    return [e.exception for e in found.excused if e.exception != "large-is-aligned"]


def test_a_failed_move_ends_the_comparison() -> None:
    # 5.1 has unmapped q by then, and newer kernels have not; both say EFAULT.
    move = op(
        "mremap", "q", old_length=PAGE, new_length=PAGE, flags=["maymove", "fixed"], new_addr="p"
    )
    ops = [mmap(), mmap(1, addr=hex(Q), id="q"), op("munmap", "q", length=PAGE), move, op("read")]
    found = compared(program(ops), "classic")
    if oracle.host().version >= (6, 17):
        assert (found.differences, found.excused) == ([], [])
        assert found.cut == "tasks[0].ops[3]"


def test_a_move_of_nothing_onto_itself() -> None:
    # 5.1 unmaps it before it looks for it: EFAULT. Both fail, but are not the same any more.
    move = op("mremap", old_length=0, new_length=2 * PAGE, flags=["maymove", "fixed"], new_addr="p")
    found = compared(program([mmap(1), move, op("read")]), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 17):
        assert [e.exception for e in found.excused] == ["mremap-checks-first"]
        assert found.cut == "tasks[0].ops[1]"


def test_a_failed_move_to_where_nothing_is() -> None:
    # It did nothing on either kernel, so what follows is compared.
    ops = [mmap(3), op("munmap", length=PAGE), MOVED, op("read", "p+0x1000"), op("read")]
    found = compared(program(ops), "classic")
    assert (found.differences, found.cut) == ([], "tasks[0].ops[2]")
    ops = [mmap(3), op("munmap", length=PAGE), {**MOVED, "old_length": PAGE}, op("read")]
    found = compared(program(ops), "classic")
    assert (found.differences, found.cut) == ([], "")


def test_a_move_of_several_that_breaks_off() -> None:
    # The second is not moved with others; newer kernels have moved the first one by then.
    move = op("mremap", old_length=8 * PAGE, new_length=8 * PAGE, flags=["maymove", "fixed"],
              new_addr=hex(Q))  # fmt: skip
    zero = mmap(4, addr=hex(BASE + 4 * PAGE), flags=["private", "fixed"], file="z", id="q")
    given = program(
        [mmap(4), zero, move, op("read")], files={"z": {"length": 0, "kind": "devzero"}}
    )
    found = compared(given, "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 17):
        assert (found.excused, found.cut) == ([], "tasks[0].ops[2]")


def test_a_move_of_several_that_breaks_off_and_leaves_them_mapped() -> None:
    # 5.1 does not know the flag, and does nothing.
    move = op("mremap", old_length=8 * PAGE, new_length=8 * PAGE,
              flags=["maymove", "fixed", "dontunmap"], new_addr=hex(Q))  # fmt: skip
    zero = mmap(4, addr=hex(BASE + 4 * PAGE), flags=["private", "fixed"], file="z", id="q")
    given = program([mmap(4), zero, move], files={"z": {"length": 0, "kind": "devzero"}})
    found = compared(given, "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 17):
        assert found.cut == "tasks[0].ops[2]"


def test_a_move_of_several_is_of_whole_pages() -> None:
    # Lengths are rounded up before they are compared, on the host as in 5.1.
    two = [mmap(), op("mprotect", "p+0x1000", length=PAGE, prot="r")]
    move = {**MOVED, "old_length": PAGE + 1, "new_length": 2 * PAGE}
    found = compared(program([*two, move]), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 17):
        assert {e.exception for e in found.excused} == {"mremap-of-several"}


def test_a_move_of_several_to_where_nobody_may_map() -> None:
    # 5.1 sees that they are several before it sees where to; one alone is EPERM on both.
    two = [mmap(), op("mprotect", "p+0x1000", length=PAGE, prot="r")]
    to_0 = {**MOVED, "new_length": 2 * PAGE, "new_addr": 0}
    for before, excused in (([mmap()], []), (two, ["mremap-of-several"])):
        found = compared(program([*before, to_0, op("write", value=1)]), "classic")
        assert (found.differences, found.cut) == ([], "")
        if oracle.host().version >= (6, 17) and oracle.host().mmap_min_addr > 0:
            assert [e.exception for e in found.excused] == excused


def test_a_length_that_wraps_is_too_much_to_lock() -> None:
    # The limit on locked memory comes before the look at the range; both fail.
    found = compared(program([mmap(), op("mlock", length=(1 << 64) - PAGE), op("read")]), "classic")
    assert (found.differences, found.cut) == ([], "")
    if oracle.host().max_locked < 1 << 63:
        assert {e.exception for e in found.excused} == {"locked-memory-limit"}


def test_what_fork_copies_because_of_a_merge() -> None:
    # The second half was not touched, and has no anon_vma unless it joins the first one.
    private = ["private", "fixed"]
    first = [
        mmap(4, "w", flags=private, file="f"),
        mmap(4, addr=hex(BASE + 4 * PAGE), flags=private, file="f", offset=4 * PAGE, id="q"),
        op("read", "q"), op("write", value=1), op("mprotect", length=4 * PAGE, prot="rw"),
        {"op": "fork", "child": "c", "wait": True},
    ]  # fmt: skip
    child = {"name": "c", "start": "fork", "ops": [op("read", "q+0x1000")]}
    given = Program.from_dict(
        {
            "format": "spfemu-program/1",
            "files": {"f": {"length": 8 * PAGE}},
            "tasks": [{"ops": first}, child],
        }
    )
    found = compared(given, "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 16):
        assert "tasks[1].ops[0]" in {e.difference.place for e in found.excused}
        assert {e.exception for e in found.excused} == {"touched-joins-untouched"}


def test_a_length_that_wraps_is_looked_at_first() -> None:
    # 5.1 has unmapped what was at the new place by the time that it says EINVAL.
    move = {**MOVED, "addr": "p+0x2000", "old_length": (1 << 64) - PAGE, "new_length": 3 * PAGE}
    found = compared(program([mmap(4), mmap(1, addr=hex(Q), id="q"), move, op("read", "q")]), "spf")
    assert found.differences == []
    if oracle.host().version >= (6, 17):
        assert {e.exception for e in found.excused} == {"mremap-checks-first"}
        assert found.cut == "tasks[0].ops[2]"


def test_a_break_over_what_was_moved_away() -> None:
    # Nobody unmapped it, but it is not there.
    ops = [
        {"op": "brk", "delta": 4 * PAGE, "id": "h"},
        op("mremap", "h-0x2000", old_length=2 * PAGE, new_length=2 * PAGE,
           flags=["maymove", "fixed"], new_addr=hex(Q)),
        {"op": "brk", "delta": -PAGE},
    ]  # fmt: skip
    found = compared(program(ops), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 1):
        assert {e.exception for e in found.excused} == {"brk-over-hole"}


def test_a_stack_is_a_range_of_its_own() -> None:
    ops = [mmap(4), mmap(4, addr=hex(BASE + 4 * PAGE), flags=[*FIXED, "stack"], id="q"),
           op("mremap", old_length=8 * PAGE, new_length=16 * PAGE)]  # fmt: skip
    found = compared(program(ops), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 7):
        assert {e.exception for e in found.excused} == {"stack-is-nohugepage"}
        assert found.cut == "tasks[0].ops[2]"


def test_what_a_shrunk_range_had_no_mapping_of() -> None:
    # The first mremap leaves the range as it was: its last page was never mapped.
    ops = [mmap(2), op("mremap", old_length=4 * PAGE, new_length=3 * PAGE),
           op("mremap", "p+0x2000", old_length=PAGE, new_length=PAGE)]  # fmt: skip
    found = compared(program(ops), "classic")
    assert found.differences == []
    if oracle.host().version >= (5, 16):
        assert {e.exception for e in found.excused} == {"mremap-of-nothing"}


def test_what_fork_leaves_out_is_not_mapped_in_the_child() -> None:
    # 5.1 does not even look for it.
    again = op("mremap", "p+0x1000", old_length=PAGE, new_length=PAGE, id="q")
    first = [mmap(2), op("madvise", "p+0x1000", length=8 * PAGE, advice="dontfork"),
             {"op": "fork", "child": "c", "wait": True}, again]  # fmt: skip
    tasks = [{"ops": first}, {"name": "c", "start": "fork", "ops": [again]}]
    given = Program.from_dict({"format": "spfemu-program/1", "tasks": tasks})
    found = compared(given, "classic")
    assert found.differences == []
    if oracle.host().version >= (5, 16):
        assert found.excused[0].difference.place == "tasks[1].ops[0]"
        assert found.excused[0].exception == "mremap-of-nothing"


def test_memory_next_to_a_file_is_memory() -> None:
    # A piece of the file that was moved here lies right below; its offset says nothing of what
    # comes next.
    move = op("mremap", old_length=PAGE, new_length=PAGE, flags=["maymove", "fixed"],
              new_addr="q+0x3000")  # fmt: skip
    ops = [mmap(4, "rw", flags=["private", "fixed"], file="f", offset=PAGE),
           mmap(8, addr=hex(Q), id="q"), op("touch", "q", length=8 * PAGE), move,
           mmap(1, "rwx", addr=hex(Q + 7 * PAGE)),
           op("mprotect", "q+0x2000", length=6 * PAGE, prot="rwx")]  # fmt: skip
    found = compared(program(ops, files={"f": {"length": 8 * PAGE}}), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 16):
        assert {e.exception for e in found.excused} == {"touched-joins-untouched"}


def test_a_move_of_what_had_joined_touched_memory() -> None:
    # 5.1 gives what has no anon_vma the offset of its new place, where it joins its neighbours; on
    # the host it has one, from page 4.
    ops = [mmap(8), op("mprotect", "p+0x3000", length=PAGE, prot="w"),
           op("touch", "p+0x5000", length=3 * PAGE, value=5),
           op("mprotect", "p+0x3000", length=4 * PAGE, prot="w"),
           op("mremap", "p+0x3000", old_length=PAGE, new_length=PAGE, flags=["maymove", "fixed"],
              new_addr="p+0x5000")]  # fmt: skip
    found = compared(program(ops), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 16):
        assert {e.exception for e in found.excused} == {"touched-joins-untouched"}
    # What was touched keeps its offset on both.
    ops[2] = op("touch", "p+0x3000", length=5 * PAGE, value=5)
    found = compared(program(ops), "classic")
    assert (found.differences, found.excused) == ([], [])


def test_what_mlock_has_brought_in_was_touched() -> None:
    # Nobody has written to it, but it has an anon_vma, and what comes next has none.
    ops = [mmap(8), op("mlock", length=2 * PAGE), op("munlock", "p+0x1000", length=PAGE)]
    found = compared(program(ops), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 16):
        assert {e.exception for e in found.excused} == {"touched-joins-untouched"}
    ops[1]["onfault"] = True
    found = compared(program(ops), "classic")
    assert (found.differences, found.excused) == ([], [])


# Pages 5, 6 and 7 get edges at 6 and 7; then page 6 may be written to like page 7 again, and is
# advised like page 5, which is written to.
BETWEEN: Final = [
    mmap(8), op("madvise", "p+0x5000", length=PAGE, advice="random"),
    op("mprotect", "p+0x5000", length=2 * PAGE, prot="none"),
    op("touch", "p+0x7000", length=PAGE),
    op("mprotect", "p+0x1000", length=7 * PAGE, prot="rwx"), op("write", "p+0x5000", value=1),
    op("madvise", "p+0x6000", length=2 * PAGE, advice="random"),
]  # fmt: skip


def test_what_lies_between_touched_neighbours_joins_the_other_one() -> None:
    # On the host page 6 joins page 7, which was touched, at once; in 5.1 page 5, and only later.
    found = compared(program(BETWEEN), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 16):
        assert {e.exception for e in found.excused} == {"touched-joins-untouched"}
    # If it was touched itself before it could join, it is alone on both.
    found = compared(program([*BETWEEN[:2], op("write", "p+0x6000", value=1), *BETWEEN[2:]]), "spf")
    assert (found.differences, found.excused) == ([], [])


def test_an_edge_without_its_mirror_is_a_difference() -> None:
    # As if the emulator had joined page 6 to both sides, not each of the two to another one.
    emulated, host = both(program(BETWEEN), "classic")
    joined = {task: joined_maps(lines) for task, lines in emulated.maps.items()}
    mine = [line for line in emulated.maps["t0"] if int(line.split("-")[0], 16) < BASE + 5 * PAGE]
    rest = maps_line(BASE + 5 * PAGE, BASE + 8 * PAGE, "rwxp", 0)
    maps = {"t0": [*mine, rest]}
    assert {task: joined_maps(lines) for task, lines in maps.items()} == joined
    found = oracle.compare(replace(emulated, maps=maps), host)
    if oracle.host().version >= (6, 16):
        assert [entry.what for entry in found.differences] == ["maps t0"]


def test_what_was_refused_does_not_touch_what_lies_between() -> None:
    ops = [*BETWEEN[:3], op("write", "p+0x6000", value=1), *BETWEEN[3:]]
    ops.append(op("mlock", "p+0x7000", length=PAGE, onfault=True))
    found = compared(program(ops), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 16):
        assert {e.exception for e in found.excused} == {"touched-joins-untouched"}


def test_a_stack_that_was_uncharged_when_it_grew() -> None:
    # Growing, it got an anon_vma; on the host not that of the mapping above, which is charged.
    ops = [mmap(8, flags=[*FIXED, "growsdown"]), op("mprotect", "p+0x4000", length=PAGE, prot="r"),
           op("munmap", "p+0x2000", length=2 * PAGE), op("write", "p+0x2000", value=1),
           op("write", "p+0x5000", value=1),
           op("mprotect", "p+0x4000", length=PAGE, prot="rw")]  # fmt: skip
    found = compared(program(ops), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 7):
        assert {e.exception for e in found.excused} == {"mprotect-uncharges"}


def test_a_move_that_takes_away_more_than_there_is() -> None:
    length = oracle.host().memory // PAGE * PAGE + 64 * PAGE
    move = {**MOVED, "addr": "p+0x6000", "old_length": length, "new_addr": "p+0x1000"}
    found = compared(program([mmap(8), move, op("read")]), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 17) and oracle.host().overcommit != 1:
        assert {e.exception for e in found.excused} == {"overcommit"}
        assert found.cut == "tasks[0].ops[1]"


def test_a_child_that_waits_first_does_not_see_what_came_meanwhile() -> None:
    # It was forked before there was a heap.
    note = {"op": "note", "text": "first"}
    child = [op("mremap", "h-0x1000", old_length=PAGE, new_length=PAGE)]
    tasks = [
        {"name": "t0", "ops": [note, {"op": "fork", "child": "c", "wait": True}]},
        {"name": "t1", "ops": [{"op": "brk", "delta": PAGE, "id": "h"}]},
        {"name": "c", "start": "fork", "ops": child},
    ]
    given = Program.from_dict({"format": "spfemu-program/1", "tasks": tasks})
    found = compared(given, "classic")
    assert found.differences == []
    if oracle.host().version >= (5, 16):
        assert [e.exception for e in found.excused][:1] == ["mremap-of-nothing"]


def test_what_has_grown_down_is_mapped() -> None:
    # 5.1 has unmapped the lower half by the time that it does not find the upper end.
    stack = mmap(4, addr=hex(BASE + 4 * PAGE), flags=[*FIXED, "growsdown"])
    move = {**MOVED, "addr": "p+0x2000", "old_length": 3 * PAGE, "new_length": 3 * PAGE,
            "new_addr": hex(BASE)}  # fmt: skip
    found = compared(program([stack, op("execute", BASE), move, op("read", BASE)]), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 17):
        assert found.cut == "tasks[0].ops[2]"
    below = op("mremap", BASE, old_length=PAGE, new_length=PAGE)
    found = compared(program([stack, op("execute", BASE), below]), "classic")
    assert (found.differences, found.excused) == ([], [])


def test_memory_before_a_file_is_cut_like_the_file() -> None:
    # Neither the file's offset nor that of the memory before it goes on in the other one.
    ops = [mmap(1), mmap(3, flags=["private", "fixed"], file="f", addr=hex(BASE + PAGE), id="q"),
           op("mlock", "q+0x2000", length=PAGE),
           op("munlock", "q+0x1000", length=2 * PAGE)]  # fmt: skip
    found = compared(program(ops, files={"f": {"length": 4 * PAGE}}), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 16):
        assert {e.exception for e in found.excused} == {"touched-joins-untouched"}


def test_a_file_at_another_offset_is_a_difference() -> None:
    ops = [mmap(1), mmap(3, flags=["private", "fixed"], file="f", addr=hex(BASE + PAGE), id="q")]
    emulated, host = both(program(ops, files={"f": {"length": 4 * PAGE}}), "classic")
    for offset in (0, PAGE):
        lines = [maps_line(BASE, BASE + PAGE, "rw-p", 0),
                 maps_line(BASE + PAGE, BASE + 2 * PAGE, "rw-p", 0),
                 maps_line(BASE + 2 * PAGE, BASE + 4 * PAGE, "rw-p", offset + PAGE)]  # fmt: skip
        found = oracle.compare(replace(emulated, maps={"t0": lines}), host)
        assert [entry.what for entry in found.differences] == ["maps t0"]


def test_a_stack_that_was_moved_stays_apart() -> None:
    move = op("mremap", "p+0x4000", old_length=3 * PAGE, new_length=3 * PAGE,
              flags=["maymove", "fixed"], new_addr=hex(Q))  # fmt: skip
    stack = mmap(4, addr=hex(BASE + PAGE), flags=[*FIXED, "stack"], id="q")
    found = compared(program([mmap(7), stack, move]), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 17):
        assert {e.exception for e in found.excused} == {"stack-is-nohugepage"}


def test_a_move_of_what_has_merged_because_it_was_uncharged() -> None:
    # On the host it is one VMA with what could never be written to; in 5.1 page 7 stays charged.
    grow = op("mremap", "q+0x1000", old_length=3 * PAGE, new_length=4 * PAGE, flags=["maymove"])
    none = mmap(3, "none", addr=hex(BASE + 4 * PAGE), id="q")
    ops = [mmap(8), op("mprotect", "p+0x7000", length=PAGE, prot="none"), none, grow]
    found = compared(program(ops), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 7):
        assert {e.exception for e in found.excused} == {"mprotect-uncharges"}
        assert found.cut == "tasks[0].ops[3]"


@pytest.mark.parametrize("mode", ["user", "kernel"])
def test_a_stack_does_not_grow_below_where_hints_are_raised_to(mode: str) -> None:
    lowest = oracle.host().lowest_hint
    if oracle.host().mmap_min_addr >= lowest:
        pytest.skip("this host has one lowest address for all")
    stack = mmap(2, addr=hex(lowest + PAGE), flags=[*FIXED, "growsdown"])
    at = op("write", lowest, value=1, mode=mode)
    found = compared(program([stack, at]), "classic")
    assert (found.differences, found.excused) == ([], [])
    below = op("write", lowest - 8, value=1, mode=mode)
    found = compared(program([stack, at, below]), "classic")
    assert found.differences == []
    assert {e.exception for e in found.excused} == {"growth-too-low"}
    assert found.cut == "tasks[0].ops[2]"


def test_a_stack_that_grows_too_low_in_vain() -> None:
    # Either way the kernel's write is EFAULT: only the maps tell that the stack has grown.
    host = oracle.host()
    if host.mmap_min_addr >= host.lowest_hint:
        pytest.skip("this host has one lowest address for all")
    stack = mmap(2, "none", addr=hex(host.lowest_hint + PAGE), flags=[*FIXED, "growsdown"])
    below = op("write", host.lowest_hint - PAGE, value=1, mode="kernel")
    found = compared(program([stack, below]), "classic")
    assert found.differences == []
    assert {e.exception for e in found.excused} == {"growth-too-low"}


def test_a_heap_that_meets_a_place_only_the_emulator_chose() -> None:
    # Newer kernels align 2 MiB, and so leave room above, where 5.1 has put them.
    ops = [{"op": "mmap", "length": 512 * PAGE, "id": "q"}]
    emulated, host = (int(result.ops["ret"][0]) for result in both(program(ops), "classic"))
    for start, meets in ((host - 8 * PAGE, False), (host + 512 * PAGE, emulated != host)):
        heap = [{"op": "brk", "start": start}, *ops, {"op": "brk", "delta": 2 * PAGE}]
        found = compared(program(heap), "classic")
        assert (found.differences, excused(found)) == ([], [])
        assert found.cut == ("tasks[0].ops[2]" if meets else "")


def test_a_move_of_what_is_several_since_it_was_uncharged() -> None:
    # 5.1 moves one VMA, the host two that stay apart at the new place as well.
    none = op("mprotect", "p+0x2000", length=PAGE, prot="none")
    move = op("mremap", "p+0x1000", old_length=2 * PAGE, new_length=2 * PAGE,
              flags=["maymove", "fixed"], new_addr=hex(Q))  # fmt: skip
    ops = [mmap(8), none, op("write", value=1), op("mprotect", length=8 * PAGE, prot="x"), move]
    found = compared(program(ops), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 17):
        assert {e.exception for e in found.excused} == {"mprotect-uncharges"}


def test_a_move_of_several_onto_itself_moves_none() -> None:
    # The first VMA would not meet its own new place, but the whole range does: EINVAL.
    onto = op("mremap", "p+0x8000", old_length=16 * PAGE, new_length=16 * PAGE,
              flags=["maymove", "fixed"], new_addr=hex(BASE - 7 * PAGE))  # fmt: skip
    apart = {**onto, "new_addr": hex(BASE - 8 * PAGE)}
    found = compared(program([mmap(12), onto, apart]), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 17):
        assert {e.exception for e in found.excused} == {"mremap-of-several"}


def test_what_was_wiped_is_not_copied_to_a_grandchild() -> None:
    # 5.1 gives it an anon_vma at once, so the next fork copies its page tables.
    tasks = [
        {"name": "t0", "ops": [mmap(4), op("madvise", length=4 * PAGE, advice="wipeonfork"),
                               {"op": "fork", "child": "c", "wait": True}]},
        {"name": "c", "start": "fork",
         "ops": [op("read"), op("madvise", length=4 * PAGE, advice="keeponfork"),
                 {"op": "fork", "child": "d", "wait": True}]},
        {"name": "d", "start": "fork", "ops": [op("read")]},
    ]  # fmt: skip
    found = compared(Program.from_dict({"format": "spfemu-program/1", "tasks": tasks}), "classic")
    assert found.differences == []
    if oracle.host().version >= (5, 7):
        assert {entry.exception for entry in found.excused} == {"wiped-has-no-anon-vma"}


def test_a_stack_that_grows_at_a_place_of_its_own() -> None:
    flags = ["private", "anonymous", "growsdown"]
    ops = [{"op": "mmap", "length": 512 * PAGE, "flags": flags, "id": "k"},
           op("write", "k-0x1000", value=1)]  # fmt: skip
    emulated, host = both(program(ops), "classic")
    found = oracle.compare(emulated, host)
    assert (found.differences, excused(found)) == ([], [])
    assert found.cut == ("tasks[0].ops[1]" if emulated.ops["ret"][0] != host.ops["ret"][0] else "")


def test_an_execute_of_the_vsyscall_page() -> None:
    found = compared(program([mmap(), op("execute", 0xFFFFFFFFFF600000)]), "classic")
    assert found.differences == []


CHOSEN: Final = {
    "mremap grows it": [
        {"op": "mmap", "length": 16 * PAGE, "id": "p"},
        {"op": "mmap", "length": 1024 * PAGE, "id": "q"},
        op("mremap", "q", old_length=1024 * PAGE, new_length=1025 * PAGE),
    ],
    "mremap does not": [
        {"op": "mmap", "length": 512 * PAGE, "prot": "r", "id": "p"},
        {"op": "mmap", "length": 2 * PAGE, "prot": "r"},
        {"op": "mmap", "length": 768 * PAGE},
        op("mremap", old_length=512 * PAGE, new_length=1024 * PAGE),
    ],
    "a stack grows": [
        {"op": "mmap", "length": 16 * PAGE},
        {"op": "mmap", "length": 1024 * PAGE},
        {"op": "mmap", "length": 16 * PAGE, "id": "c",
         "flags": ["private", "anonymous", "growsdown"]},
        {"op": "mmap", "length": 1024 * PAGE},
        op("write", "c-0x1000", value=1),
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", CHOSEN)
def test_what_grows_towards_a_chosen_place(what: str) -> None:
    ops = CHOSEN[what]
    emulated, host = both(program(ops), "classic")
    found = oracle.compare(emulated, host)
    assert (found.differences, excused(found)) == ([], [])
    last = [result.outcome(result.ops[-1]) for result in (emulated, host)]
    if [one["errno"] or one["signal"] for one in last] != [None] * 2:
        assert found.cut == f"tasks[0].ops[{len(ops) - 1}]"


def test_edges_beside_a_chosen_place_are_compared() -> None:
    ops = [{"op": "mmap", "length": 1536 * PAGE, "id": "q"}, mmap()]
    emulated, host = both(program(ops), "classic")
    assert oracle.compare(emulated, host).differences == []
    first, *others = emulated.maps["t0"]
    assert first == maps_line(BASE, BASE + 16 * PAGE, "rw-p", 0)
    parts = [maps_line(BASE, BASE + PAGE, "rw-p", 0),
             maps_line(BASE + PAGE, BASE + 16 * PAGE, "rw-p", 0)]  # fmt: skip
    cut = replace(emulated, maps={"t0": [*parts, *others]})
    assert [entry.what for entry in oracle.compare(cut, host).differences] == ["maps t0"]


def test_too_much_to_lock_up_to_a_hole() -> None:
    # 5.1 locks what is before it; here nothing is locked. Both say ENOMEM.
    given = [mmap(), op("mlock", "p+0x1000", length=1 << 40), op("madvise", "p+0x2000",
             length=PAGE, advice="dontneed")]  # fmt: skip
    found = compared(program(given), "classic")
    assert (found.differences, found.excused) == ([], [])
    if oracle.host().max_locked < 1 << 40:
        assert found.cut == "tasks[0].ops[1]"


def test_a_file_that_grew_is_read_at_once_where_it_was_moved() -> None:
    move = op("mremap", "p+0x2000", old_length=2 * PAGE, new_length=2 * PAGE,
              flags=["maymove", "fixed"], new_addr=hex(Q))  # fmt: skip
    file = mmap(10, flags=["private", "fixed"], file="f", offset=50 * PAGE)
    grown = {"op": "truncate", "file": "f", "length": 64 * PAGE}
    reads = [op("read", Q), op("read", Q + PAGE)]
    given = program([file, grown, move, *reads], files={"f": {"length": 9000}})
    found = compared(given, "classic")
    assert found.differences == []
    assert {entry.exception for entry in found.excused} <= {"grown-file"}


def test_what_came_with_another_page_brings_none_itself() -> None:
    # The host has read the third page with the second, after the file grew for the last time.
    shared = mmap(8, flags=["shared", "fixed"], file="f")
    private = mmap(8, flags=["private", "fixed"], file="f", addr=hex(Q), id="q")
    lengths = [{"op": "truncate", "file": "f", "length": n} for n in (12388, 4196, 8292)]
    touches = [op("touch", at, length=3 * PAGE, access="read") for at in ("p", "q")]
    ops = [shared, private, lengths[0], op("read", "q+0x2000"), *lengths[1:], *touches]
    found = compared(program(ops, files={"f": {"length": PAGE}}), "classic")
    assert found.differences == []
    assert {entry.exception for entry in found.excused} <= {"grown-file"}


def test_a_file_that_a_child_lets_grow() -> None:
    # What t0 tried before was beyond its end; then the host reads several pages with the first.
    tasks = [
        {"name": "t0", "ops": [mmap(16, flags=["shared", "fixed"], file="f"),
                               op("write", "p+0x6000", value=3), {"op": "fork", "child": "c",
                               "wait": True}, op("read", "p+0x7000"), op("read", "p+0x6000")]},
        {"name": "c", "start": "fork",
         "ops": [{"op": "truncate", "file": "f", "length": 16 * PAGE}]},
    ]  # fmt: skip
    files = {"f": {"length": PAGE}}
    given = {"format": "spfemu-program/1", "files": files, "tasks": tasks}
    found = compared(Program.from_dict(given), "classic")
    assert found.differences == []
    assert {entry.exception for entry in found.excused} <= {"grown-file"}


def test_what_lies_above_a_chosen_place_on_the_host_alone() -> None:
    # Newer kernels align what is large, and the next mapping comes to lie in the gap above it,
    # right below the first one. In 5.1 it keeps its distance from the stack above.
    first = {"op": "mmap", "length": 4 * PAGE, "prot": "r", "flags": ["shared", "anonymous"]}
    large = {"op": "mmap", "length": 1 << 30, "flags": ["private", "anonymous", "growsdown"]}
    small = {"op": "mmap", "length": PAGE, "flags": ["shared", "anonymous"], "id": "q"}
    ops = [first, large, small, op("read", "q"), op("read", "q+0x1000")]
    emulated, host = both(program(ops), "classic")
    found = oracle.compare(emulated, host)
    assert (found.differences, excused(found)) == ([], [])
    places = [
        emulated.ops["ret"][1] - emulated.ops["ret"][2],
        host.ops["ret"][1] - host.ops["ret"][2],
    ]
    if places[0] != places[1]:
        assert found.cut == "tasks[0].ops[4]"


def test_what_has_merged_as_it_grew_merges_otherwise_in_a_child() -> None:
    # The child's copy of the whole has an anon_vma on the host; in 5.1 what has grown has none yet,
    # and joins what the child maps beside it.
    grow = op("mremap", "p+0x1000", old_length=PAGE, new_length=3 * PAGE, flags=["maymove"])
    ops = [mmap(8), op("munmap", "p+0x2000", length=2 * PAGE), op("write", "p+0x4000", value=1),
           op("mprotect", "p", length=PAGE, prot="r"), grow]  # fmt: skip
    child = [mmap(2)]
    found = compared(forked(ops, child), "classic")
    assert found.differences == []
    if oracle.host().version >= (5, 19):
        assert {e.exception for e in found.excused} == {"grown-joins-next"}


def test_a_chosen_place_that_was_mapped_over_is_no_place_any_more() -> None:
    # Newer kernels align what is large, so the two put it elsewhere; then it is one mapping again.
    large = {"op": "mmap", "length": 1 << 30, "prot": "r"}
    over = mmap(addr=hex(0x7F00_0000_0000), length=0xFF_FFFF_F000, prot="x")
    found = compared(program([large, over]), "classic")
    assert (found.differences, excused(found), found.cut) == ([], [], "")


def test_the_last_page_of_a_file_may_be_alone_in_what_is_left_of_its_mapping() -> None:
    # mbind has cut off the page before it.
    ops = [mmap(8, prot="rx", flags=["private", "fixed"], file="f"),
           op("mbind", "p+0x1000", length=7 * PAGE, mode="interleave"),
           op("execute", "p+0x2000"), op("read", "p+0x1000")]  # fmt: skip
    found = compared(program(ops, files={"f": {"length": 2 * PAGE}}), "classic")
    assert found.differences == []
    if oracle.host().version == (6, 18):
        assert {e.exception for e in found.excused} == {"last-page-alone"}


def test_what_a_stack_keeps_apart_decides_what_merges_elsewhere() -> None:
    # Without VM_NOHUGEPAGE the three are one, which has an anon_vma; with it each has its own.
    ops = [mmap(6), mmap(2, addr=hex(BASE + 2 * PAGE), flags=[*FIXED, "stack"], id="q"),
           op("write", "p", value=1), op("write", "p+0x5000", value=1),
           op("munmap", "q", length=2 * PAGE),
           mmap(2, addr=hex(BASE + 2 * PAGE), id="q")]  # fmt: skip
    found = compared(program(ops), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 7):
        assert {e.exception for e in found.excused} == {"stack-is-nohugepage"}


def test_the_page_of_the_engine_is_in_the_way_of_a_stack() -> None:
    # Ours gets an anon_vma when the access is refused; the host does not look beyond that page.
    given = program([mmap(4, flags=[*FIXED, "growsdown"]), op("read", 0x20_2000), op("read")])
    found = compared(given, "classic")
    assert (found.differences, found.cut) == ([], "tasks[0].ops[1]")
    island = spfemu.run(given, engine="kernel").settings["island"]
    found = compared(
        program([mmap(4, flags=[*FIXED, "growsdown"]), op("read", island + PAGE)]), "spf"
    )
    assert (found.differences, found.cut) == ([], "")


def test_a_move_whose_rest_is_beyond_user_space() -> None:
    move = {**MOVED, "addr": "p", "old_length": (1 << 47) - PAGE, "new_length": 8 * PAGE,
            "new_addr": hex(BASE - 10 * PAGE)}  # fmt: skip
    cut = op("mprotect", "p+0x4000", length=4 * PAGE, prot="r")  # the host then says EFAULT
    found = compared(program([mmap(8), cut, move]), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 17):
        assert "mremap-checks-first" in {e.exception for e in found.excused}


def test_memory_that_may_only_be_executed() -> None:
    # With protection keys it cannot be read; and the kernel, which reads the instruction after a
    # general protection fault, has a fault for it that is not the task's. 0: add %al,(%rax)
    ops = [mmap(2), op("write", "p", value=0), op("mprotect", "p", length=2 * PAGE, prot="x"),
           op("execute", "p"), op("read", "p"), op("read", "p+0x1000"), op("write", "p", value=1),
           op("execute", "p+0x1000"), op("execute", "p+0x1000"), op("mlock", "p", length=PAGE),
           op("read", "p", mode="kernel"), op("madvise", "p", length=PAGE, advice="populate_read"),
           op("mprotect", "p", length=PAGE, prot="rx"), op("read", "p")]  # fmt: skip
    given = forked(ops, [op("read", "p+0x1000"), op("execute", "p")])
    found = compared(given, "classic")
    assert (found.differences, found.excused, found.cut) == ([], [], "")
    codes = spfemu.run(given, engine="kernel").task_ops(0)["si_code"]
    assert (4 in codes) is oracle.host().protection_keys  # SEGV_PKUERR


def test_too_much_shared_memory_of_dev_zero() -> None:
    much = 1 << 46
    given = program([mmap(addr=hex(BASE), length=much, file="z", flags=["shared", "fixed"])],
                    files={"z": {"length": PAGE, "kind": "devzero"}})  # fmt: skip
    found = compared(given, "classic")
    assert found.differences == []
    if oracle.host().overcommit != 1:
        assert {e.exception for e in found.excused} == {"overcommit"}


def test_memory_that_is_mapped_locked_over_locked_memory() -> None:
    # It counts twice: the limit is looked at before what was there is taken away.
    most = oracle.host().max_locked * 5 // 8 & -PAGE
    if most > 1 << 30:
        pytest.skip("there is no limit on locked memory")
    locked = mmap(length=most, flags=[*FIXED, "locked"])
    found = compared(program([locked, locked]), "classic")
    assert (found.differences, set(excused(found))) == ([], {"locked-memory-limit"})


@pytest.mark.parametrize("mode", ["user", "kernel"])
def test_a_locked_stack_does_not_grow_beyond_the_limit(mode: str) -> None:
    most = oracle.host().max_locked - 8 * PAGE & -PAGE
    if most > 1 << 30:
        pytest.skip("there is no limit on locked memory")
    ops = [mmap(2, flags=[*FIXED, "growsdown", "locked"]), mmap(length=most, addr=hex(1 << 43)),
           op("mlock", 1 << 43, length=most, onfault=True),
           op("write", BASE - 2 * PAGE, value=1), op("write", BASE - 32 * PAGE, value=1, mode=mode),
           op("write", value=1)]  # fmt: skip
    found = compared(program(ops), "classic")
    assert (found.differences, set(excused(found))) == ([], {"locked-memory-limit"})
    assert found.cut == "tasks[0].ops[4]"


def test_a_fork_of_more_memory_than_there_is() -> None:
    # Each part is a promise that can be kept; together they are one VMA.
    half = oracle.host().memory * 3 // 4 & -PAGE
    ops = [mmap(length=half), mmap(length=half, addr=hex(BASE + half))]
    found = compared(forked(ops, [op("read")]), "classic")
    assert found.differences == []
    if oracle.host().overcommit == 0:
        assert set(excused(found)) == {"overcommit"}


def test_a_hint_that_is_raised_past_what_is_there() -> None:
    lowest = oracle.host().lowest_hint
    if oracle.host().mmap_min_addr >= lowest:
        pytest.skip("hints are not raised any further")
    taken = mmap(1, addr=hex(lowest - PAGE))
    hint = {"op": "mmap", "length": PAGE, "addr": hex(lowest - PAGE)}
    found = compared(program([taken, hint, op("read")]), "classic")
    assert found.differences == []
    assert (set(excused(found)), found.cut) == ({"second-lowest-address"}, "tasks[0].ops[1]")


def test_a_stack_grows_to_what_lay_elsewhere_and_is_gone() -> None:
    # The mremap cuts all off up to the stack, which then is asked to grow to two places.
    large = {"op": "mmap", "length": 2 << 20, "prot": "none", "id": "q"}
    cut = op("mremap", old_length=0x7FFF_F800_7000 - BASE, new_length=PAGE, flags=[])
    stack = {"op": "mmap", "length": 3 * PAGE, "id": "s",
             "flags": ["private", "anonymous", "growsdown"]}  # fmt: skip
    gone = {"op": "munmap", "addr": "q", "length": 2 << 20}
    shrunk = op("mremap", "q", old_length=2 << 20, new_length=PAGE, flags=[])
    for away in ([gone], [shrunk, {"op": "munmap", "addr": "q", "length": PAGE}], [cut]):
        ops = [mmap(2), large, *away, stack, op("touch", "q+0x8000", length=PAGE)]
        assert compared(program(ops), "classic").differences == []


def test_an_mremap_of_a_size_that_wraps_copies_and_leaves_what_was_there() -> None:
    # Of size 0 then: what is shared is mapped twice, and the failed move clears its place on 5.1.
    ops = [mmap(16, flags=["shared", "anonymous", "fixed"]),
           op("mremap", "p+0x7000", old_length=(1 << 64) - 1, new_length=8 * PAGE,
              flags=["maymove", "fixed"], new_addr="p+0xf000"),
           op("mremap", BASE + (1 << 30), old_length=PAGE, new_length=PAGE,
              flags=["maymove", "fixed"], new_addr="p+0xc000"),
           op("mprotect", "p+0x1000", length=16 * PAGE, prot="none")]  # fmt: skip
    assert compared(program(ops), "classic").differences == []


@pytest.mark.parametrize(
    ("old", "new"), [((1 << 64) - 1, (1 << 64) - PAGE), ((1 << 64) - PAGE, (1 << 64) - 2 * PAGE)]
)
def test_an_mremap_to_a_size_whose_end_wraps(old: int, new: int) -> None:
    # 5.1 has no room for the first, and takes for the second away what lies right before it.
    ops = [mmap(4, flags=["shared", "anonymous", "fixed"]),
           op("mremap", "p+0x2000", old_length=old, new_length=new, flags=["maymove"])]  # fmt: skip
    found = compared(program(ops), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 17):
        assert set(excused(found)) == {"mremap-checks-first"}


def test_which_pages_come_with_another_depends_on_where_they_lie() -> None:
    large = {"op": "mmap", "length": 2 << 20, "prot": "r", "flags": ["shared"], "file": "f"}
    taken = {"op": "mmap", "length": PAGE, "id": "q"}
    ops = [{"op": "truncate", "file": "f", "length": 64 * PAGE}, taken, {**large, "id": "p"},
           op("touch", "p", length=64 * PAGE, access="read", order="backward")]  # fmt: skip
    given = program(ops, files={"f": {"length": 64 * PAGE, "kind": "regular"}})
    assert compared(given, "classic").differences == []


def test_more_is_promised_than_there_is_up_to_a_hole() -> None:
    ops = [mmap(length=(1 << 47) - PAGE - BASE, prot="r"),
           op("mprotect", "p+0x2000", length=1 << 63, prot="w")]  # fmt: skip
    found = compared(program(ops), "classic")
    assert found.differences == []
    if oracle.host().overcommit != 1:
        assert found.cut == "tasks[0].ops[1]"


def test_what_had_a_protection_key_shares_no_anon_vma_with_what_has_none() -> None:
    # With keys the middle gets an anon_vma of its own, and stays apart when all is alike again.
    ops = [mmap(8), op("write", "p", value=1), op("mprotect", "p", length=8 * PAGE, prot="x"),
           mmap(2, addr=hex(BASE + 2 * PAGE), id="q"), op("write", "q", value=1),
           op("mprotect", "p", length=8 * PAGE, prot="rw")]  # fmt: skip
    found = compared(program(ops), "classic")
    assert (found.differences, found.excused) == ([], [])


def test_a_refused_access_brings_in_nothing_of_a_file_that_grew() -> None:
    # The page comes with the one before it, as if nobody had tried.
    ops = [{"op": "truncate", "file": "f", "length": 16 * PAGE},
           mmap(16, prot="r", flags=["private", "fixed"], file="f"),
           op("write", "p+0x7000", value=1), op("read", "p+0x6000"),
           op("read", "p+0x7000")]  # fmt: skip
    found = compared(program(ops, files={"f": {"length": 5 * PAGE}}), "classic")
    assert found.differences == []
