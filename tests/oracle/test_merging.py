"""What may be said to be a newer rule for what merges: only what that rule changes."""

from __future__ import annotations

from typing import Any, Final

import pytest

from spfemu import oracle
from spfemu.reference import vma_ops
from tests.oracle.play import BASE, PAGE, both, compared, forked, mmap, op, program

FIXED: Final = ["private", "anonymous", "fixed"]
TOUCHED: Final = [mmap(), op("touch", length=16 * PAGE)]
HALF: Final = {"addr": "p+0x8000", "length": 8 * PAGE}


def cut_and_back(name: str, one: dict[str, Any], other: dict[str, Any]) -> list[dict[str, Any]]:
    """Half of what was touched becomes something else, and then the same again."""
    return [*TOUCHED, {"op": name, **HALF, **one}, {"op": name, **HALF, **other}]


ONCE_MORE_ONE: Final = {
    "dump": cut_and_back("madvise", {"advice": "dontdump"}, {"advice": "dodump"}),
    "fork": cut_and_back("madvise", {"advice": "dontfork"}, {"advice": "dofork"}),
    "read-only": cut_and_back("mprotect", {"prot": "r"}, {"prot": "rw"}),
    "locked": [*TOUCHED, {"op": "mlock", **HALF}, {"op": "munlock", **HALF}],
    "policy": cut_and_back("mbind", {"mode": "interleave"}, {"mode": "default"}),
    "untouched below": [
        mmap(), op("write", "p+0x8000", value=1), op("mprotect", length=8 * PAGE, prot="r"),
        op("write", value=1), op("write", "p+0x9000", value=2),
        op("mprotect", length=8 * PAGE, prot="rw"),
    ],
    "mapped beside": [mmap(8), op("write", value=1), mmap(8, addr=hex(BASE + 8 * PAGE), id="q")],
}  # fmt: skip


@pytest.mark.parametrize("name", list(ONCE_MORE_ONE))
def test_a_model_that_never_merges_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = program(ONCE_MORE_ONE[name])
    emulated, host = both(given, "classic")
    found = oracle.compare(emulated, host)
    assert (found.differences, found.excused) == ([], [])
    monkeypatch.setattr(vma_ops, "_mergeable", lambda *_: False)
    emulated, _ = both(given, "classic")
    found = oracle.compare(emulated, host)
    assert [entry.what for entry in found.differences] == ["maps t0"]
    assert found.excused == []


def test_what_is_locked_and_wiped_at_fork_is_one_vma() -> None:
    # On both: at the fork the child's copy is still locked like its parent's neighbour.
    first = [
        mmap(flags=["private", "anonymous", "fixed", "locked"]),
        op("madvise", length=16 * PAGE, advice="wipeonfork"),
        {"op": "mprotect", **HALF, "prot": "none"},
    ]
    child = [op("mprotect", "p+0x8000", length=PAGE, prot="rw")]
    found = compared(forked(first, child), "classic")
    assert (found.differences, found.excused) == ([], [])


def test_what_was_uncharged_at_fork_stays_a_vma_when_it_is_charged_again() -> None:
    # Two of the child's VMAs have an anon_vma each from the fork, on the host only.
    first = [
        mmap(), op("mprotect", "p+0xd000", length=2 * PAGE, prot="none"),
        op("mlock", "p+0xd000", length=2 * PAGE),
        op("mprotect", "p+0x9000", length=5 * PAGE, prot="rw"),
        op("mprotect", "p+0x2000", length=13 * PAGE, prot="rx"),
    ]  # fmt: skip
    found = compared(forked(first, [op("mprotect", length=15 * PAGE, prot="w")]), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 7):
        assert {e.exception for e in found.excused} == {"mprotect-uncharges"}


def test_each_of_what_is_wiped_has_an_anon_vma_of_its_own() -> None:
    # In 5.1. On the host they have none, and are one VMA when they are the same again.
    first = [
        mmap(2), op("madvise", length=2 * PAGE, advice="wipeonfork"),
        op("mlock", length=PAGE, onfault=True),
    ]  # fmt: skip
    found = compared(forked(first, [op("mlock", length=2 * PAGE)]), "classic")
    assert found.differences == []
    if oracle.host().version >= (5, 7):
        assert {e.exception for e in found.excused} == {"wiped-has-no-anon-vma"}


def test_a_stack_that_nobody_has_written_to_is_not_copied() -> None:
    # In 5.1 it is one VMA with what was, and so fork copies what is mapped of it.
    first = [mmap(6), mmap(1, addr=hex(BASE + 6 * PAGE), flags=[*FIXED, "stack"], id="q"),
             op("read", "q"), op("write", value=1)]  # fmt: skip
    found = compared(forked(first, [op("read", "q")]), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 7):
        assert {e.exception for e in found.excused} == {"stack-is-nohugepage"}


def test_what_was_uncharged_and_nobody_has_written_to_is_not_copied() -> None:
    # As with the stack: in 5.1 it is one VMA with what was written to.
    first = [mmap(8), op("mprotect", "p+0x6000", length=2 * PAGE, prot="rwx"), op("write", value=1),
             op("mprotect", "p+0x3000", length=5 * PAGE, prot="r"),
             op("read", "p+0x6000")]  # fmt: skip
    found = compared(forked(first, [op("read", "p+0x6000")]), "classic")
    assert found.differences == []
    if oracle.host().version >= (6, 7):
        assert {e.exception for e in found.excused} == {"mprotect-uncharges"}
