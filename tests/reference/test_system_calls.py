"""Results and errors of the system calls, the first error first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from spfemu.program import FileSpec, System, TaskBuilder
from tests.reference.arches import X86
from tests.reference.play import A, P, play

BOTH = ("private", "shared")
FIXED = ("private", "anonymous", "fixed")
END = X86.task_size
FREE = A + 8 * P
LONGEST = (1 << 64) - 1
Call = Callable[[TaskBuilder], None]


def mmap(length: int = P, **keys: object) -> Call:
    return lambda t: t.mmap(length, **keys)  # type: ignore[arg-type]


def munmap(address: int, length: int) -> Call:
    return lambda t: t.munmap(address, length)


def mprotect(address: int, length: int, prot: str = "r") -> Call:
    return lambda t: t.mprotect(address, length, prot)


def madvise(address: int, length: int, advice: str = "random") -> Call:
    return lambda t: t.madvise(address, length, advice)


def errno_of(call: Call) -> str | None:
    """The errno of a call beside a mapping of four pages at A."""

    def ops(t: TaskBuilder) -> None:
        t.mmap(4 * P, addr=A, flags=FIXED)
        call(t)

    errno = play(ops, files=(FileSpec("f", 1 << 20),)).last["errno"]
    assert errno is None or isinstance(errno, str)
    return errno


@pytest.mark.parametrize(
    ("call", "errno"),
    [
        (mmap(0), "EINVAL"),
        (mmap(0, file="f", offset=1), "EINVAL"),
        (mmap(file="f", offset=P + 1), "EINVAL"),
        (mmap(LONGEST), "ENOMEM"),  # rounds up to 0
        (mmap(END + P), "ENOMEM"),
        (mmap(END), "ENOMEM"),
        (mmap(END, addr=0, flags=FIXED), "EPERM"),
        (mmap(flags=("anonymous",)), "EINVAL"),
        (mmap(flags=(), file="f"), "EINVAL"),
        (mmap(flags=BOTH, file="f"), None),  # MAP_SHARED_VALIDATE
        (mmap(addr=FREE, flags=(*BOTH, "fixed_noreplace"), file="f"), "EOPNOTSUPP"),
        (mmap(addr=FREE, flags=("shared", "fixed_noreplace"), file="f"), None),
        (mmap(addr=FREE, flags=(*BOTH, "fixed_noreplace"), file="f", offset=1 << 63), "EOVERFLOW"),
        (mmap(flags=(*BOTH, "anonymous")), "EINVAL"),
        (mmap(addr=A + 1, flags=FIXED), "EINVAL"),
        (mmap(addr=END, flags=FIXED), "ENOMEM"),
        (mmap(addr=END + 1, flags=FIXED), "ENOMEM"),  # too high comes before unaligned
        (mmap(addr=(1 << 64) - 1, flags=FIXED), "EPERM"),  # MAP_FAILED is -1, taken for an errno
        (mmap(addr=4096, flags=FIXED), "EPERM"),
        (mmap(addr=A + P, flags=("private", "anonymous", "fixed_noreplace")), "EEXIST"),
        (mmap(addr=A + 4 * P, flags=("private", "anonymous", "fixed_noreplace")), None),
        (mmap(addr=A + P, flags=("anonymous", "fixed_noreplace")), "EEXIST"),
        (mmap(file="f", offset=(1 << 63) - P), "EOVERFLOW"),
        (mmap(file="f", offset=(1 << 64) - P), "EOVERFLOW"),
        (mmap(1), None),
        (munmap(A + 1, P), "EINVAL"),
        (munmap(A, 0), "EINVAL"),
        (munmap(A, LONGEST), "EINVAL"),
        (munmap(END + P, P), "EINVAL"),
        (munmap(END, 0), "EINVAL"),
        (munmap(0, END), None),
        (munmap(A + 8 * P, P), None),
        (mprotect(A + 1, P), "EINVAL"),
        (mprotect(A + 1, 0), "EINVAL"),
        (mprotect(A, 0), None),
        (mprotect(A, LONGEST), "ENOMEM"),
        (mprotect(A, LONGEST - A), "ENOMEM"),
        (mprotect(A + 8 * P, P), "ENOMEM"),
        (mprotect(A - P, 2 * P), "ENOMEM"),
        (mprotect(A, 5 * P), "ENOMEM"),
        (mprotect(A, 4 * P, "none"), None),
        (madvise(A + 1, P), "EINVAL"),
        (madvise(A, 0), None),
        (madvise(A, LONGEST), "EINVAL"),
        (madvise(A, LONGEST - A), "EINVAL"),  # ends at 0, below its start
        (madvise(A, LONGEST - A - P), "ENOMEM"),
        (madvise(A, 5 * P), "ENOMEM"),
        (madvise(A - P, 2 * P), "ENOMEM"),
        (madvise(A + 8 * P, P), "ENOMEM"),
        (madvise(A, 4 * P, "dontneed"), None),
        (lambda t: t.sysctl("vm.max_map_count", -1), "EINVAL"),
        (lambda t: t.sysctl("vm.page-cluster", 1 << 31), "EINVAL"),
        (lambda t: t.sysctl("vm.speculative_page_fault", -(1 << 31)), None),
    ],
)
def test_errno(call: Call, errno: str | None) -> None:
    assert errno_of(call) == errno


def test_private_and_shared_is_shared_for_a_file() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(P, addr=A, flags=(*BOTH, "fixed"), file="f")
        t.mmap(P, addr=A + P, flags=(*BOTH, "fixed"), file="z")

    files = (FileSpec("f", 1 << 20), FileSpec("z", 0, "devzero"))
    assert play(ops, files=files).areas() == ["0-1 rw-s", "1-2 rw-s"]


def test_mprotect_keeps_what_it_did_before_the_hole() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(4 * P, addr=A, flags=FIXED)
        t.mmap(2 * P, addr=A + 6 * P, flags=FIXED)
        t.mprotect(A + P, 7 * P, "r")

    played = play(ops)
    assert played.last["errno"] == "ENOMEM"
    assert played.areas() == ["0-1 rw-p", "1-4 r--p", "6-8 rw-p"]


def test_madvise_goes_on_behind_the_hole() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * P, addr=A, flags=FIXED)
        t.mmap(2 * P, addr=A + 4 * P, flags=FIXED)
        t.write(A + 5 * P, 3)
        t.madvise(A, 6 * P, "dontneed")
        t.read(A + 5 * P)

    played = play(ops)
    assert played[3]["errno"] == "ENOMEM"
    assert played.last["value"] == 0


class TestMapCount:
    def test_mmap_stops_one_above_the_limit(self) -> None:
        def ops(t: TaskBuilder) -> None:
            t.sysctl("vm.max_map_count", 3)
            for number in range(6):
                t.mmap(P, addr=A + 2 * number * P, flags=FIXED)

        assert play(ops).errnos()[1:] == [None] * 4 + ["ENOMEM"] * 2

    def test_splits_stop_at_the_limit(self) -> None:
        def ops(t: TaskBuilder) -> None:
            t.mmap(9 * P, addr=A, flags=FIXED)
            t.sysctl("vm.max_map_count", 2)
            t.mprotect(A + 3 * P, 3 * P, "r")  # splits once, then may not
            t.madvise(A + P, P, "random")
            t.munmap(A + P, P)  # a hole in the middle would need one more for good
            t.munmap(A, P)

        played = play(ops)
        assert played.errnos()[2:] == ["ENOMEM", "ENOMEM", "ENOMEM", None]
        assert played.areas() == ["1-3 rw-p", "3-9 rw-p"]

    def test_a_fixed_mapping_whose_unmapping_fails_is_enomem(self) -> None:
        def ops(t: TaskBuilder) -> None:
            t.mmap(9 * P, addr=A, flags=FIXED)
            t.sysctl("vm.max_map_count", 1)
            t.mmap(P, prot="r", addr=A + 4 * P, flags=FIXED)

        assert play(ops).last["errno"] == "ENOMEM"


class TestBrk:
    START = 0x5555_5580_0000

    def brks(self, *deltas: int, start: int | None = None, above: int = 0) -> list[int | str]:
        def ops(t: TaskBuilder) -> None:
            if above:
                t.mmap(P, addr=above, flags=FIXED)
            for number, delta in enumerate(deltas):
                t.brk(delta, start=start if number == 0 else None)

        found = []
        for outcome in play(ops).outcomes:
            if outcome["op"] == "brk":
                found.append(outcome["errno"] or outcome["ret"])
        return found

    def test_begins_at_a_2_mib_boundary_or_where_it_is_told(self) -> None:
        assert self.brks(0) == [self.START]
        assert self.brks(100, start=A) == [A + 100]

    def test_grows_and_shrinks_by_bytes(self) -> None:
        s = self.START
        assert self.brks(100, 5000, -5000, -100) == [s + 100, s + 5100, s + 100, s]

    def test_never_goes_below_its_start(self) -> None:
        assert self.brks(100, -101, 0) == [self.START + 100, "ENOMEM", self.START + 100]

    def test_leaves_a_page_below_the_next_mapping(self) -> None:
        s = self.START
        assert self.brks(2 * P, above=s + 3 * P) == [s + 2 * P]
        assert self.brks(2 * P + 1, above=s + 3 * P) == ["ENOMEM"]

    def test_ends_with_user_space(self) -> None:
        assert self.brks(P, start=END) == ["ENOMEM"]
        assert self.brks((1 << 63) - 1) == ["ENOMEM"]
        assert self.brks(-(1 << 63) + 1) == ["ENOMEM"]

    def test_begins_two_thirds_up_in_a_small_user_space(self) -> None:
        small = replace(X86, task_size=1 << 40, mmap_base=1 << 40)
        played = play(lambda t: t.brk(0), arch=small)
        assert played.last["ret"] == -(-((1 << 40) // 3 * 2) // (2 << 20)) * (2 << 20)

    def test_is_enomem_whatever_the_reason(self) -> None:
        assert self.brks(0, P, start=4096) == [4096, "ENOMEM"]

    def test_merges_with_a_mapping_below(self) -> None:
        def ops(t: TaskBuilder) -> None:
            t.mmap(2 * P, addr=A, flags=FIXED)
            t.brk(2 * P, start=A + 2 * P)

        assert play(ops).areas() == ["0-4 rw-p"]

    def test_only_the_first_call_says_where(self) -> None:
        def ops(t: TaskBuilder) -> None:
            t.brk(P, start=A)
            t.brk(0, start=A + (1 << 30))

        assert play(ops).last["ret"] == A + P


def test_fixed_memory_below_the_minimum_is_allowed_when_there_is_none() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(P, addr=0, flags=FIXED)
        t.write(0, 3)
        t.read(0)

    assert play(ops, system=System(mmap_min_addr=0)).last["value"] == 3


def test_an_id_of_a_failed_call_is_map_failed() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(0, id="p")
        t.read("p")
        t.munmap("p", P)

    played = play(ops)
    assert played[1]["signal"] == "SIGSEGV"
    assert played[2]["errno"] == "EINVAL"
