"""userfaultfd: what v12 does with registered memory, and how a missing page comes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spfemu.program import FileSpec, System, TaskBuilder
from tests.reference.play import A, P, play

FIXED = ("private", "anonymous", "fixed")
SHARED = ("shared", "anonymous", "fixed")
HUGE = 1 << 21
BROUGHT = {"faults": 1, "major-faults": 1, "pagefault:spf_vma_notsup": 1, "pgfault": 2}


def registered(t: TaskBuilder, pages: int = 8, prot: str = "rw") -> None:
    """Touched, so that a speculative fault comes as far as H6; then registered."""
    t.mmap(pages * P, addr=A, prot="rw", flags=FIXED)
    t.write(A, 1)
    t.mprotect(A, pages * P, prot)
    t.uffd_register(A, pages * P)


def test_a_missing_page_is_a_major_classic_fault() -> None:
    def ops(t: TaskBuilder) -> None:
        registered(t)
        t.write(A + P, 2)
        t.read(A + 2 * P)
        t.write(A + 2 * P, 3)

    *_, write, read, again = play(ops).outcomes
    for outcome in (write, read):
        assert outcome["handled"] == "classic"
        assert outcome["counters"] == {
            "faults": 1, "major-faults": 1, "pagefault:spf_vma_notsup": 1, "pgfault": 2,
        }  # fmt: skip
    # It was given a page of its own, writable at once, not that of zeroes.
    assert (read["value"], again["handled"], again["counters"]) == (0, "none", {})


def test_what_is_there_is_not_missing() -> None:
    # H6 looks at the VMA alone: a write to a page that fork has write-protected is classic, minor.
    def ops(t: TaskBuilder) -> None:
        registered(t)
        t.mprotect(A, P, "r")
        t.mprotect(A, P, "rw")
        t.write(A, 5)

    last = play(ops).last
    assert (last["handled"], last["counters"]["pagefault:spf_vma_notsup"]) == ("classic", 1)
    assert last["counters"].get("major-faults", 0) == 0


def test_it_is_refused_before_the_bounds_are_looked_at() -> None:
    # H6 comes before H8: in the hole below a registered VMA it is notsup, not changed.
    def ops(t: TaskBuilder) -> None:
        registered(t)
        t.write(A - P, 1)

    last = play(ops).last
    assert last["counters"] == {"faults": 1, "pagefault:spf_vma_notsup": 1}
    assert (last["handled"], last["signal"], last["si_code"]) == (
        "classic",
        "SIGSEGV",
        "SEGV_MAPERR",
    )


def test_the_kernels_own_faults_wait_for_it_too() -> None:
    def ops(t: TaskBuilder) -> None:
        registered(t)
        t.write(A + P, 2, mode="kernel")

    last = play(ops).last
    assert last["counters"] == {"faults": 1, "major-faults": 1, "pgfault": 2}


def test_memory_for_huge_pages_gets_a_small_one() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(HUGE, addr=A, flags=FIXED)
        t.madvise(A, HUGE, "hugepage")
        t.uffd_register(A, HUGE)
        t.write(A, 1)
        t.collapse(A)
        t.uffd_unregister(A, HUGE)
        t.collapse(A)

    *_, write, refused, _, collapsed = play(ops).outcomes
    assert write["counters"]["major-faults"] == 1
    # What is missing is for user space to bring.
    assert (refused["errno"], collapsed["errno"]) == ("EINVAL", None)


def test_unregistering_lets_faults_be_speculative_again() -> None:
    def ops(t: TaskBuilder) -> None:
        registered(t)
        t.uffd_unregister(A, 8 * P)
        t.write(A + P, 2)

    assert play(ops).last["handled"] == "spf"


@pytest.mark.parametrize(
    ("of", "at", "length", "errno"),
    [
        ("anonymous", 0, P, None),
        ("shared", 0, P, None),
        ("memory", 0, P, None),
        ("copy", 0, P, None),
        ("disk", 0, P, "EINVAL"),
        ("hugetlb", 0, HUGE, None),
        ("hugetlb", P, HUGE - P, "EINVAL"),
        ("hugetlb", -P, HUGE + P, "EINVAL"),  # where it begins counts, too
        ("hugetlb", 0, P, "EINVAL"),
        ("hugetlb", 0, 2 * HUGE + P, None),  # it has ended before
    ],
)
def test_what_can_be_registered(of: str, at: int, length: int, errno: str | None) -> None:
    flags, file = {
        "anonymous": (FIXED, None),
        "shared": (SHARED, None),
        "memory": (("shared", "fixed"), "m"),
        "copy": (("private", "fixed"), "m"),
        "disk": (("private", "fixed"), "d"),
        "hugetlb": ((*FIXED, "hugetlb"), None),
    }[of]

    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * HUGE, addr=A, flags=flags, file=file)
        t.uffd_register(A + at, length)
        t.uffd_unregister(A + at, length)

    files = (FileSpec("m", 2 * HUGE, kind="shmem"), FileSpec("d", 2 * HUGE))
    # Where nothing is registered unregistering does not mind where it ends.
    unregistered = None if at == 0 and of == "hugetlb" else errno
    assert play(ops, files=files).errnos() == [None, errno, unregistered]


def test_unregistering_finds_late_that_it_cannot_cut_through_a_huge_page() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * P, addr=A - 2 * P, flags=FIXED)
        t.mmap(HUGE, addr=A, flags=(*FIXED, "hugetlb"))
        t.uffd_register(A - 2 * P, HUGE + 2 * P)
        t.uffd_unregister(A - P, 2 * P)
        t.write(A - P, 1)
        t.write(A - 2 * P, 1)

    played = play(ops)
    assert played.errnos() == [None, None, None, "EINVAL", None, None]
    # What came before is done.
    majors = [o["counters"].get("major-faults", 0) for o in played.outcomes[4:]]
    assert majors == [0, 1]


def test_what_was_brought_counts_as_used() -> None:
    # khugepaged makes no huge page of what nobody has used.
    def ops(t: TaskBuilder) -> None:
        t.mmap(HUGE, addr=A, flags=FIXED)
        t.madvise(A, HUGE, "hugepage")
        t.uffd_register(A, HUGE)
        t.madvise(A, HUGE, "populate_write")
        t.collapse(A)

    assert play(ops).errnos()[-1] is None


def test_a_missing_page_of_shared_memory_comes_once_for_all() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * P, addr=A, flags=SHARED)
        t.uffd_register(A, 2 * P)
        t.read(A)
        t.write(A, 2)  # the page is writable
        t.mremap(A, 0, 2 * P, flags=("maymove", "fixed"), new_addr=A + HUGE)
        t.uffd_register(A + HUGE, 2 * P)
        t.read(A + HUGE)  # what is in the page cache is not missing
        t.write(A + HUGE + P, 3)
        t.read(A + P)

    _, _, read, write, _, _, other, brought, last = play(ops).outcomes
    assert (read["counters"], read["value"]) == (BROUGHT, 0)
    assert write["handled"] == "none"
    assert (other["value"], other["counters"].get("major-faults")) == (2, None)
    assert brought["counters"] == BROUGHT
    assert (last["value"], last["counters"].get("major-faults")) == (3, None)


def test_of_a_file_in_memory_holes_are_missing_and_what_is_in_swap_is_not() -> None:
    def ops(t: TaskBuilder) -> None:
        t.truncate("m", 4 * P)
        t.mmap(8 * P, addr=A, flags=("shared", "fixed"), file="m")
        t.uffd_register(A, 8 * P)
        t.read(A)  # swapped out, so read
        t.read(A + 2 * P)  # a hole
        t.read(A + 4 * P)  # beyond the end

    files = (FileSpec("m", 2 * P, kind="shmem", cached=False),)
    *_, swapped, hole, beyond = play(ops, files=files).outcomes
    assert swapped["counters"]["pgmajfault"] == 1
    assert (swapped["counters"]["pgfault"], hole["counters"]) == (1, BROUGHT)
    assert (beyond["signal"], beyond["si_code"]) == ("SIGBUS", "BUS_ADRERR")


@pytest.mark.parametrize("write", [False, True])
def test_a_private_mapping_gets_a_page_that_its_file_has_not(write: bool) -> None:
    def ops(t: TaskBuilder) -> None:
        t.truncate("m", P)
        t.mmap(P, addr=A, flags=("private", "fixed"), file="m")
        t.mmap(P, addr=A + HUGE, flags=("shared", "fixed"), file="m")
        t.uffd_register(A, P)
        if write:
            t.write(A, 7)
        else:
            t.read(A)
        t.write(A + HUGE, 5)
        t.read(A)

    *_, first, _, last = play(ops, files=(FileSpec("m", 0, kind="shmem"),)).outcomes
    assert first["counters"] == BROUGHT
    assert last["value"] == (7 if write else 0)


@pytest.mark.parametrize("sharing", [FIXED, SHARED])
def test_a_missing_huge_page_comes_from_the_pool(sharing: tuple[str, ...]) -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * HUGE, addr=A, flags=(*sharing, "hugetlb", "noreserve"))
        t.uffd_register(A, 2 * HUGE)
        t.read(A + P)
        t.write(A, 7)
        t.read(A + HUGE)

    *_, first, write, last = play(ops, system=System(hugetlb_pages=1)).outcomes
    assert (first["counters"], first["value"]) == (BROUGHT, 0)
    assert write["handled"] == "none"  # also of a private one: nobody else has it
    # The pool has none: in the second round nobody is waited for.
    assert (last["signal"], last["counters"]["pgfault"]) == ("SIGBUS", 2)


@pytest.mark.parametrize(
    "call", [lambda t: t.mlock(A, HUGE), lambda t: t.madvise(A, HUGE, "populate_read")]
)
def test_populating_ends_if_the_pool_is_empty(call: Callable[[TaskBuilder], None]) -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(HUGE, addr=A, flags=(*SHARED, "hugetlb", "noreserve"))
        t.uffd_register(A, HUGE)
        call(t)

    last = play(ops, system=System(hugetlb_pages=0)).last
    assert last["errno"] in ("ENOMEM", "EFAULT")
