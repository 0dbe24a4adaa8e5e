"""madvise about pages: what free, pageout, cold and willneed do to memory, in swap and in files."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spfemu.program import FileSpec, Program, System, TaskBuilder
from spfemu.program.model import Swap
from spfemu.reference import run
from tests.reference.arches import X86
from tests.reference.play import A, P, Played, play

SWAP = Swap(size=100 * P)
FIXED = ("private", "anonymous", "fixed")


def on_pages(ops: Callable[[TaskBuilder], None]) -> Played:
    """Writes 7 to four pages, and then does `ops`; the outcomes are of `ops` alone."""

    def all_ops(t: TaskBuilder) -> None:
        t.mmap(4 * P, addr=A, flags=FIXED)
        t.touch(A, 4 * P, value=7)
        ops(t)

    played = play(all_ops, system=System(swap=SWAP))
    return Played(played.result, played.outcomes[5:], played.maps)


def values(played: Played) -> list[int]:
    return [o["value"] for o in played.outcomes if o["value"] is not None]


def test_what_is_given_up_stays_until_reclaim() -> None:
    def ops(t: TaskBuilder) -> None:
        t.madvise(A, 4 * P, "free")
        t.touch(A, 2 * P, access="read")
        t.write(A + P, 8)
        t.swap_out(A, 4 * P)
        t.touch(A, 4 * P, access="read")

    played = on_pages(ops)
    assert values(played) == [7, 7, 0, 8, 0, 0]
    assert not any(o["counters"] for o in played.outcomes[1:4])


def test_populating_for_writing_makes_what_was_given_up_count_again() -> None:
    def ops(t: TaskBuilder) -> None:
        t.madvise(A, 4 * P, "free")
        t.mlock(A, P)
        t.munlock(A, P)
        t.madvise(A + P, P, "populate_write")
        t.madvise(A + 2 * P, P, "populate_read")
        t.madvise(A, 4 * P, "pageout")
        t.touch(A, 4 * P, access="read")

    assert values(on_pages(ops)) == [7, 7, 0, 0]


@pytest.mark.parametrize("keep_cache", [False, True])
def test_what_is_in_swap_goes_at_once(keep_cache: bool) -> None:
    def ops(t: TaskBuilder) -> None:
        t.swap_out(A, 2 * P, keep_cache=keep_cache)
        t.madvise(A, P, "free")
        t.touch(A, 2 * P, access="read")

    assert values(on_pages(ops)) == [0, 7]


def shared_with_a_child(variant: str, kind: str) -> int:
    """What a child reads of a page that was in swap before, and that its parent has given up."""
    page = {"addr": hex(A), "length": P}
    obj = {
        "format": "spfemu-program/1",
        "system": {"swap": {"size": 100 * P, "kind": kind}},
        "tasks": [
            {"name": "t0", "ops": [
                {"op": "mmap", **page, "flags": list(FIXED)},
                {"op": "write", "addr": hex(A), "value": 7},
                {"op": "swap_out", **page},
                {"op": "read", "addr": hex(A)},
                {"op": "fork", "child": "c"},
                {"op": "madvise", **page, "advice": "free"},
                {"op": "swap_out", **page},
                {"op": "post", "name": "reclaimed"},
            ]},
            {"name": "c", "start": "fork", "ops": [
                {"op": "await", "name": "reclaimed"},
                {"op": "read", "addr": hex(A)},
            ]},
        ],
    }  # fmt: skip
    result = run(Program.from_dict(obj), arch=X86, variants={"L3": variant})
    return int(result.outcome(result.task_ops(1)[-1])["value"])


def test_what_others_have_is_not_given_up_for_them() -> None:
    assert shared_with_a_child("v12", "normal") == 7
    assert shared_with_a_child("fixed", "synchronous") == 7
    # L3: 5.1 forgets that nothing but this page has the content.
    assert shared_with_a_child("v12", "synchronous") == 0


def test_only_private_anonymous_memory_can_be_given_up() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(P, addr=A + 8 * P, flags=("shared", "anonymous", "fixed"))
        for advice in ("free", "cold", "pageout", "willneed"):
            t.madvise(A + 8 * P, P, advice)

    assert [o["errno"] for o in on_pages(ops).outcomes[1:]] == ["EINVAL", None, None, None]


def test_pageout_reclaims_and_cold_does_not() -> None:
    def ops(t: TaskBuilder) -> None:
        t.madvise(A, P, "pageout")
        t.madvise(A + P, P, "cold")
        t.touch(A, 2 * P, access="read")

    out, _, *reads = on_pages(ops).outcomes
    assert out["ret"] == 0
    assert [o["counters"].get("major-faults", 0) for o in reads] == [1, 0]
    assert reads[1]["counters"] == {}


def test_willneed_brings_pages_back_from_swap() -> None:
    def ops(t: TaskBuilder) -> None:
        t.swap_out(A, 4 * P)
        t.madvise(A + P, 2 * P, "willneed")
        t.touch(A + P, 2 * P, access="read")

    played = on_pages(ops)
    assert [o["counters"].get("pgmajfault", 0) for o in played.outcomes[2:]] == [0, 0]
    assert values(played) == [7, 7]


def test_willneed_reads_a_file_before_it_is_needed() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(4 * P, addr=A, flags=("private", "fixed"), file="f")
        t.madvise(A, 4 * P, "willneed")
        t.read(A + P)

    files = (FileSpec("f", 2 * P, "regular", cached=False),)
    played = play(ops, files=files, arch=X86)
    assert played.last["counters"].get("major-faults", 0) == 0


def test_migration_changes_nothing_that_an_access_sees() -> None:
    def ops(t: TaskBuilder) -> None:
        t.migrate(A, 4 * P, 1)
        t.write(A, 8)
        t.touch(A, 2 * P, access="read")
        t.migrate(A + 1, P, 1)
        t.migrate(A, P, 2)

    played = on_pages(ops)
    assert values(played) == [8, 7]
    assert played.errnos()[-2:] == ["EINVAL", "ENODEV"]
    assert not any(outcome["counters"] for outcome in played.outcomes)
