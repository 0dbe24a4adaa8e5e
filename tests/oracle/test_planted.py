"""Wrong results that no exception may excuse: each is what a bug of the emulator would give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest

from spfemu import oracle, run
from spfemu.program import OPS
from spfemu.reference import mmap as reference_mmap
from spfemu.reference.mm import Mm
from spfemu.results import EVENTS, Result
from tests.host_kernel import needs_host
from tests.oracle.play import BASE, PAGE, both, mmap, op, program

pytestmark = needs_host

ENOMEM: Final = 12
Q: Final = BASE + (64 << 20)
FAR: Final = BASE + 64 * PAGE
HUGE: Final = 1 << 45
BEYOND: Final = 1 << 48
SHRUNK: Final = op("mremap", old_length=8 * PAGE, new_length=4 * PAGE, id="q")


def plant(result: Result, name: str, **fields: Any) -> Result:
    """The result with the last outcome of an operation changed."""
    ops = result.ops.copy()
    row = int(np.flatnonzero(ops["op"] == OPS[name].code)[-1])
    for field, value in fields.items():
        if field == "faults":
            ops["counters"][row, EVENTS.index("faults")] = value
        else:
            ops[field][row] = value
    return replace(result, ops=ops)


LIVELOCK: Final = {"livelock": 1, "signal": 0, "si_code": 0, "handled": 1, "faults": 1000}
PLANTED: Final[dict[str, tuple[list[dict[str, Any]], str, dict[str, Any]]]] = {
    "a shrunk mapping that moves": (
        [mmap(8), {**SHRUNK, "flags": ["maymove"]}, op("read", "q")], "mremap", {"ret": FAR},
    ),
    "one that may not move, and does": (
        [mmap(8), {**SHRUNK, "flags": []}, op("read", "q")], "mremap", {"ret": FAR},
    ),
    "one that could grow where it is, and moves": (
        [mmap(4), op("mremap", old_length=4 * PAGE, new_length=8 * PAGE, flags=["maymove"], id="q"),
         op("write", "q", value=1)], "mremap", {"ret": FAR},
    ),
    "a place that is too low": (
        [{"op": "mmap", "length": 4 * PAGE, "id": "p"}, op("write", "p", value=1)],
        "mmap", {"ret": 0x7FFF_F7FF_4000},
    ),
    "a read that never ends": ([mmap(prot="none"), op("read")], "read", LIVELOCK),
    "a write that never ends": ([mmap(prot="none"), op("write", value=1)], "write", LIVELOCK),
    "a promise about a hole": (
        [mmap(4), op("mprotect", length=HUGE, prot="rw")], "mprotect", {"ret": 0, "errno": 0},
    ),
    "a promise at a place that is taken": (
        [mmap(4), mmap(4, addr=hex(Q), id="q"),
         op("mremap", old_length=4 * PAGE, new_length=HUGE, flags=[])],
        "mremap", {"ret": BASE, "errno": 0},
    ),
    "a heap that grows over a mapping": (
        [{"op": "brk", "delta": PAGE, "start": BASE}, mmap(4, addr=hex(Q)),
         {"op": "brk", "delta": HUGE}], "brk", {"ret": BASE + PAGE + HUGE, "errno": 0},
    ),
    "a place beyond user space that is cut off": (
        [mmap(2), op("mremap", old_length=BEYOND, new_length=PAGE, flags=[])],
        "mremap", {"ret": BASE, "errno": 0},
    ),
    "a size beyond user space that is to be tried again": (
        [mmap(2), op("mremap", old_length=PAGE, new_length=BEYOND, flags=["maymove"])],
        "mremap", {"ret": -1, "errno": 11},
    ),
    "a low hint that leads anywhere": (
        [{"op": "mmap", "length": PAGE, "addr": "0x8000"}], "mmap", {"ret": 0x1_2345_6000},
    ),
    "a lock that is refused for another reason": (
        [mmap(length=32 << 20), op("mlock", length=32 << 20, onfault=True)],
        "mlock", {"ret": -1, "errno": 22},
    ),
}  # fmt: skip
"""What each is about: a program, and how the last outcome of an operation is changed."""


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_outcome_is_a_difference(name: str) -> None:
    ops, changed, fields = PLANTED[name]
    emulated, host = both(program(ops), "spf")
    found = oracle.compare(plant(emulated, changed, **fields), host)
    assert found.differences != []
    assert changed in {entry.op for entry in found.differences}


@pytest.mark.parametrize("length", [2 << 20, 4 * PAGE])
def test_a_bug_of_the_search_for_a_place_is_no_newer_rule(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the exception about stacks, where there is none.
    search = reference_mmap._highest_gap

    def too_low(mm: Mm, wanted: int, low: int, high: int, *, keeps_guards: bool) -> int | None:
        found = search(mm, wanted, low, high, keeps_guards=keeps_guards)
        return None if found is None else found - (9 * PAGE if wanted == length else 0)

    monkeypatch.setattr(reference_mmap, "_highest_gap", too_low)
    ops = [mmap(length=3 << 20), {"op": "mmap", "length": length, "id": "q"}]
    given = program(ops)
    host = run(given, engine="kernel")
    found = oracle.compare(run(oracle.for_host(given, oracle.host()), engine="reference"), host)
    assert [entry.op for entry in found.differences] == ["mmap"]


def test_maps_at_a_note_before_the_two_part_are_compared() -> None:
    note = {"op": "note", "text": "maps", "expect": {"maps_lines": []}}
    aligned = op("mremap", old_length=PAGE, new_length=PAGE, flags=["maymove", "dontunmap"])
    emulated, host = both(program([mmap(4), op("write", value=1), note, aligned]), "classic")
    wrong = {place: [line.replace("rw", "r-") for line in lines]
             for place, lines in emulated.note_maps.items()}  # fmt: skip
    found = oracle.compare(replace(emulated, note_maps=wrong), host)
    assert [entry.what for entry in found.differences] == ["maps_lines"]
