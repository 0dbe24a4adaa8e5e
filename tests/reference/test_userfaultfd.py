"""userfaultfd: what v12 does with registered memory, and how a missing page comes."""

from __future__ import annotations

from spfemu.program import TaskBuilder
from tests.reference.play import A, P, play

FIXED = ("private", "anonymous", "fixed")
HUGE = 1 << 21


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
