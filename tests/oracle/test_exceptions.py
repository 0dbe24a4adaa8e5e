"""Each exception has a program that shows it, and is in the table of docs/fidelity.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

import spfemu
from spfemu import Program, oracle
from tests.oracle.play import BASE, PAGE, mmap, op, program

ANON: Final = ["private", "anonymous"]
FIXED: Final = [*ANON, "fixed"]
Q: Final = BASE + 16 * PAGE
FIDELITY: Final = Path(__file__).parents[2] / "docs/fidelity.md"


def one_page_file(*ops: dict[str, Any]) -> Program:
    return program(list(ops), files={"f": {"length": PAGE}})


HUGE: Final = oracle.host().memory * 2
CASES: Final[dict[str, tuple[Program, str]]] = {
    "v12-C3": (
        program(
            # Somebody else is there, or nothing is speculative.
            [mmap(), op("write", value=1), op("mprotect", length=PAGE, prot="r"),
             op("write", value=2), {"op": "barrier", "name": "end"}],
            [{"op": "barrier", "name": "end"}],
        ),
        "spf",
    ),
    "v12-C2": (
        program(
            [mmap(), op("write", value=0xC3), op("execute"), {"op": "barrier", "name": "end"}],
            [{"op": "barrier", "name": "end"}],
        ),
        "spf",
    ),
    "address-as-errno": (program([mmap(addr=hex((1 << 64) - PAGE + 1))]), "classic"),
    "second-lowest-address": (
        program([{"op": "mmap", "length": PAGE, "addr": oracle.host().mmap_min_addr}]),
        "classic",
    ),
    "mprotect-spares-faults": (
        program(
            [mmap(), op("write", value=1), op("mprotect", length=PAGE, prot="r"),
             op("mprotect", length=PAGE, prot="rw"), op("write", value=2)],
        ),
        "classic",
    ),
    "brk-over-hole": (
        program(
            [{"op": "brk", "delta": 4 * PAGE, "id": "h"}, op("munmap", "h-0x1000", length=PAGE),
             {"op": "brk", "delta": -PAGE}, {"op": "brk", "delta": -PAGE}]
        ),
        "classic",
    ),
    "mremap-dontunmap": (
        program(
            [mmap(), op("mremap", old_length=PAGE, new_length=PAGE, flags=["maymove", "dontunmap"])]
        ),
        "classic",
    ),
    "mremap-of-nothing": (
        program([op("mremap", BASE, old_length=PAGE, new_length=PAGE)]),
        "classic",
    ),
    "mremap-checks-first": (
        program(
            [mmap(), op("mremap", old_length=1 << 63, new_length=1 << 63, flags=["maymove"])]
        ),
        "classic",
    ),
    "mremap-of-several": (
        program(
            [mmap(), op("mprotect", "p+0x1000", length=PAGE, prot="r"),
             op("mremap", old_length=2 * PAGE, new_length=2 * PAGE, flags=["maymove", "fixed"],
                new_addr=hex(Q))]
        ),
        "classic",
    ),
    "mprotect-uncharges": (
        program(
            [mmap(4, prot="r"), mmap(4, addr=hex(BASE + 4 * PAGE), id="q"),
             op("mprotect", "q", length=4 * PAGE, prot="r")]
        ),
        "classic",
    ),
    "stack-is-nohugepage": (
        program([mmap(4), mmap(4, addr=hex(BASE + 4 * PAGE), flags=[*FIXED, "stack"], id="q")]),
        "classic",
    ),
    "touched-joins-untouched": (
        program(
            [mmap(4, prot="w"), mmap(4, addr=hex(BASE + 4 * PAGE), id="q"), op("write", value=1),
             op("mprotect", length=8 * PAGE, prot="rw")]
        ),
        "classic",
    ),
    "last-page-alone": (
        one_page_file(
            mmap(4, prot="r", flags=["private", "fixed"], file="f"), op("read", "p+0x1000"),
            op("read"),
        ),
        "classic",
    ),
    "overcommit": (program([mmap(1, length=HUGE)]), "classic"),
}  # fmt: skip
"""For each exception a program that shows it, and the emulator's handler."""

# These depend on how a host is set up, not on its kernel.
SETUP: Final = {
    "overcommit": oracle.host().overcommit != 1,
    "second-lowest-address": oracle.host().mmap_min_addr < 65536,
}
# Where the table was measured. Newer kernels may have more or less of it.
MEASURED: Final = (6, 18)


@pytest.mark.parametrize("name", [exception.name for exception in oracle.EXCEPTIONS])
def test_shows_in_a_program(name: str) -> None:
    given, handler = CASES[name]
    found = compared(given, handler)
    assert found.differences == []
    names = {entry.exception for entry in found.excused}
    exception = oracle.exception(name)
    version = oracle.host().version
    if version < (exception.since or (0, 0)) or not SETUP.get(name, True):
        assert names == set()
    elif version == MEASURED or exception.since is None:
        assert names == {name}
        assert bool(found.cut) == exception.ends
    else:
        assert names <= {name}


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


def test_is_in_the_table() -> None:
    text = FIDELITY.read_text()
    for exception in oracle.EXCEPTIONS:
        since = "-" if exception.since is None else ".".join(map(str, exception.since))
        assert f"| `{exception.name}` | {since} |" in text, exception.name
    assert text.count("| `mremap-") == sum(e.name.startswith("mremap-") for e in oracle.EXCEPTIONS)


@pytest.mark.parametrize("name", list(CASES))
def test_nothing_else_is_excused(name: str) -> None:
    """With the exception taken away, its program differs: no other one covers it."""
    given, handler = CASES[name]
    host = spfemu.run(given, engine="kernel")
    others = [e for e in oracle.EXCEPTIONS if e.name != name]
    emulated = spfemu.run(
        oracle.for_host(given, oracle.host()), engine="reference", handler=handler
    )
    all_of_them = oracle.compare(emulated, host)
    without = oracle.compare(emulated, host, exceptions=others)
    assert bool(without.differences) == bool(all_of_them.excused)


def compared(given: Program, handler: str) -> oracle.Comparison:
    host = spfemu.run(given, engine="kernel")
    emulated = spfemu.run(
        oracle.for_host(given, oracle.host()), engine="reference", handler=handler
    )
    return oracle.compare(emulated, host)
