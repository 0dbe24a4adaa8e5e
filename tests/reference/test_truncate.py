"""truncate: what goes with the end of a file, and what comes when it grows again."""

from __future__ import annotations

import pytest

from spfemu.program import FileSpec, System, TaskBuilder
from spfemu.program.model import Swap
from tests.reference.play import A, P, Played, play

B = A + 16 * P


def files(kind: str = "regular", pages: int = 4, *, cached: bool = True) -> tuple[FileSpec, ...]:
    return (FileSpec("f", pages * P, kind=kind, cached=cached),)


def map_file(t: TaskBuilder, kind: str = "shared", addr: int = A, pages: int = 4) -> None:
    t.mmap(pages * P, addr=addr, flags=(kind, "fixed"), file="f")


def seen(played: Played, since: int = 0) -> list[int | str]:
    accesses = [o for o in played.outcomes[since:] if o["op"] in ("read", "write", "touch")]
    return [o["signal"] or (o["value"] if o["value"] is not None else "ok") for o in accesses]


@pytest.mark.parametrize("kind", ["regular", "shmem"])
def test_pages_beyond_the_new_end_go_copies_included(kind: str) -> None:
    def ops(t: TaskBuilder) -> None:
        map_file(t)
        map_file(t, "private", B)
        t.touch(A, 4 * P, value=7)
        t.touch(B, 4 * P, value=9)
        t.truncate("f", P + P // 2)
        t.touch(A, 4 * P, access="read")
        t.touch(B, 4 * P, access="read")

    played = play(ops, files=files(kind))
    assert seen(played)[8:] == [7, 7, "SIGBUS", "SIGBUS", 9, 9, "SIGBUS", "SIGBUS"]


@pytest.mark.parametrize(("kind", "major"), [("regular", 1), ("shmem", 0)])
def test_what_a_file_grows_by_is_a_hole(kind: str, major: int) -> None:
    def ops(t: TaskBuilder) -> None:
        map_file(t, pages=8)
        t.write(A + P, 7)
        t.truncate("f", P)
        t.truncate("f", 8 * P)
        t.read(A + P)
        t.read(A + 7 * P)

    played = play(ops, files=files(kind))
    assert seen(played)[1:] == [0, 0]
    for outcome in played.outcomes[-2:]:
        assert outcome["counters"].get("major-faults", 0) == major


def test_of_a_file_in_memory_only_what_was_there_is_read() -> None:
    def ops(t: TaskBuilder) -> None:
        map_file(t, pages=4)
        t.truncate("f", 2 * P)
        t.truncate("f", 4 * P)
        t.read(A + P)
        t.read(A + 2 * P)

    played = play(ops, files=files("shmem", cached=False))
    majors = [o["counters"].get("major-faults", 0) for o in played.outcomes[-2:]]
    assert majors == [1, 0]


def test_a_copy_that_is_in_swap_stays_until_it_is_not() -> None:
    # That is a bug of 5.1: since 5.18 it goes.
    def ops(t: TaskBuilder) -> None:
        map_file(t, "private")
        t.touch(A, 2 * P, value=9)
        t.swap_out(A, P)
        t.truncate("f", 0)
        t.touch(A, 2 * P, access="read")
        t.truncate("f", 0)
        t.read(A)

    played = play(ops, files=files(), system=System(swap=Swap(size=1 << 20)))
    assert seen(played)[2:] == [9, "SIGBUS", "SIGBUS"]


def test_its_frames_are_free_again() -> None:
    def ops(t: TaskBuilder) -> None:
        map_file(t, pages=8)
        for _ in range(3):
            t.touch(A, 8 * P)
            t.truncate("f", 0)
            t.truncate("f", 8 * P)

    played = play(ops, files=files(pages=8), system=System(memory=16 * P))
    assert "SIGKILL" not in seen(played)


WORD = 0x1122_3344_5566_7788


@pytest.mark.parametrize("kind", ["regular", "shmem"])
@pytest.mark.parametrize(("kept", "word"), [(1, 0x88), (7, WORD & ~(0xFF << 56)), (8, WORD)])
def test_the_rest_of_the_last_page_is_cleared(kind: str, kept: int, word: int) -> None:
    def ops(t: TaskBuilder) -> None:
        map_file(t)
        t.touch(A, 4 * P, value=WORD)
        t.truncate("f", P + kept)
        t.truncate("f", 4 * P)
        t.touch(A, 2 * P, access="read")

    assert seen(play(ops, files=files(kind)))[4:] == [WORD, word]


@pytest.mark.parametrize(("kind", "kept"), [("regular", 0x7788), ("shmem", WORD)])
def test_what_was_stored_beyond_the_end_before_a_file_grows(kind: str, kept: int) -> None:
    def ops(t: TaskBuilder) -> None:
        map_file(t)
        t.truncate("f", 2)
        t.write(A, WORD)
        t.truncate("f", 4)
        t.read(A)
        t.truncate("f", 1)
        t.read(A)

    assert seen(play(ops, files=files(kind)))[1:] == [kept, 0x88]


@pytest.mark.parametrize(
    ("length", "majors"), [(P + 3, 1), (P + 100, 1), (2 * P, 2), (2 * P + 1, 2)]
)
def test_a_page_in_swap_comes_back_to_be_cleared(length: int, majors: int) -> None:
    def ops(t: TaskBuilder) -> None:
        map_file(t)
        t.truncate("f", length)
        t.touch(A, 2 * P, access="read")

    played = play(ops, files=files("shmem", cached=False))
    assert sum(o["counters"].get("major-faults", 0) for o in played.outcomes) == majors


@pytest.mark.parametrize(("anonymous", "majors"), [(8 * P, 0), (64 * P, 1)])
def test_it_stays_in_swap_if_there_is_no_memory_to_bring_it(anonymous: int, majors: int) -> None:
    def ops(t: TaskBuilder) -> None:
        map_file(t)
        t.mmap(64 * P, addr=B, flags=("private", "anonymous", "fixed"))
        t.touch(B, anonymous)
        t.truncate("f", 3)
        t.munmap(B, 64 * P)
        t.read(A)

    played = play(ops, files=files("shmem", cached=False), system=System(memory=32 * P))
    assert played.last["counters"].get("major-faults", 0) == majors


def test_lengths_and_files_that_cannot_be() -> None:
    def ops(t: TaskBuilder) -> None:
        t.truncate("f", 1 << 63)
        t.truncate("f", (1 << 63) - 1)
        t.truncate("f", 0)

    assert play(ops, files=files()).errnos() == ["EINVAL", None, None]
    assert play(ops, files=files("devzero")).errnos() == ["EINVAL"] * 3
