"""Mappings that grow down: how far, at what distance, and what keeps away from them."""

from __future__ import annotations

import pytest

from spfemu.program import FileSpec, System, TaskBuilder
from tests.reference.play import A, P, play

FIXED = ("private", "anonymous", "fixed")
STACK = (*FIXED, "growsdown")
GUARD = 256
"""Pages that are kept free below a stack."""
S = A + 1000 * P
"""Where the stacks of these tests begin: two pages."""


def grown(address: int, *, stack_limit: int = 8 << 20) -> tuple[str | None, list[str]]:
    """The signal of a write below a stack, and the VMAs then, in pages from its start."""

    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * P, addr=S, flags=STACK)
        t.write(address, 1)

    played = play(ops, system=System(stack_limit=stack_limit))
    return played.last["signal"], played.areas(base=S)


def test_a_stack_grows_to_the_page_of_a_fault() -> None:
    assert grown(S - 3 * P + 9) == (None, ["-3-2 rw-p"])


@pytest.mark.parametrize(("limit", "pages"), [(0, 0), (2 * P, 0), (4 * P - 1, 1), (4 * P, 2)])
def test_it_grows_to_its_limit_and_no_further(limit: int, pages: int) -> None:
    assert grown(S - (pages + 1) * P, stack_limit=limit) == ("SIGSEGV", ["0-2 rw-p"])
    if pages:
        assert grown(S - pages * P, stack_limit=limit) == (None, [f"-{pages}-2 rw-p"])


def test_growing_is_classic_and_refused_it_is_a_hole() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * P, addr=S, flags=STACK)
        t.write(S, 1)
        t.write(S - P, 2)
        t.read(S - (16 << 20))

    played = play(ops)
    assert [outcome["handled"] for outcome in played.outcomes[1:]] == ["classic"] * 3
    counted = {"faults", "minor-faults", "pgfault", "pagefault:spf_vma_notsup"}
    assert played[2]["counters"] == dict.fromkeys(counted, 1)
    assert (played.last["signal"], played.last["si_code"]) == ("SIGSEGV", "SEGV_MAPERR")


@pytest.mark.parametrize(
    ("prot", "flags", "nearest"),
    [("r", FIXED, 1 + GUARD), ("none", FIXED, 1), ("rw", STACK, 1)],
)
def test_it_keeps_away_from_what_can_be_accessed(
    prot: str, flags: tuple[str, ...], nearest: int
) -> None:
    #  B........SS   B: one page at A
    def ops(t: TaskBuilder) -> None:
        t.mmap(P, addr=A, flags=flags, prot=prot)
        t.mmap(2 * P, addr=S, flags=STACK)
        t.write(A + (nearest - 1) * P, 1)
        t.write(A + nearest * P, 1)

    played = play(ops)
    near, there = (outcome["signal"] for outcome in played.outcomes[2:])
    # The page below the nearest one is B itself unless a gap is kept; another stack can be written.
    assert (near, there) == (None if flags is STACK else "SIGSEGV", None)


def test_below_a_stack_nothing_is_placed_unless_fixed() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * P, addr=S, flags=STACK)
        t.mmap(P, addr=S - P)
        t.mmap(P, addr=S - (GUARD + 1) * P)
        t.mmap(P, addr=S - P, flags=FIXED)

    played = play(ops)
    refused, taken, fixed = (outcome["ret"] for outcome in played.outcomes[1:])
    assert refused not in (S - P, -1)
    assert (taken, fixed) == (S - (GUARD + 1) * P, S - P)


def test_a_moved_stack_does_not_grow_before_its_object() -> None:
    # Touched, it keeps the offset of its old address.
    def ops(t: TaskBuilder) -> None:
        t.mmap(P, addr=17 * P, flags=STACK)
        t.write(17 * P, 1)
        t.mremap(17 * P, P, P, flags=("maymove", "fixed"), new_addr=S)
        t.write(S - 18 * P, 1)
        t.write(S - 17 * P, 1)

    assert [outcome["signal"] for outcome in play(ops).outcomes[3:]] == ["SIGSEGV", None]


@pytest.mark.parametrize(
    ("flags", "file", "errno"),
    [
        (("shared", "anonymous", "growsdown"), None, "EINVAL"),
        (("private", "growsdown"), "f", "EINVAL"),
        (("shared", "growsdown"), "f", "EINVAL"),
        (("shared", "private", "fixed_noreplace", "growsdown"), "f", "EOPNOTSUPP"),
        (("private", "anonymous", "growsdown"), None, None),
    ],
)
def test_only_private_memory_without_a_file_grows(
    flags: tuple[str, ...], file: str | None, errno: str | None
) -> None:
    played = play(
        lambda t: t.mmap(P, addr=A, flags=flags, file=file), files=(FileSpec("f", 1 << 16),)
    )
    assert played.last["errno"] == errno
