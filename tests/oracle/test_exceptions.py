"""Each exception has a program that shows it and one next to it that it does not excuse.

docs/fidelity.md has all of them in a table.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from spfemu import Program, Result, oracle
from spfemu.comparing import maps_line, parsed_maps_line
from spfemu.program import EVENTS
from tests.oracle.play import BASE, PAGE, both, compared, forked, mmap, op, program

ANON: Final = ["private", "anonymous"]
FIXED: Final = [*ANON, "fixed"]
Q: Final = BASE + 16 * PAGE
LOW: Final = 0x1000_0000
"""Below the engine's own page."""
FIDELITY: Final = Path(__file__).parents[2] / "docs/fidelity.md"


def one_page_file(*ops: dict[str, Any]) -> Program:
    return program(list(ops), files={"f": {"length": PAGE}})


HUGE: Final = oracle.host().memory * 2
MUCH: Final = min(oracle.host().max_locked, 1 << 30) + PAGE
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
    # What is refused on both sides has given it an anon_vma here, which joins the two ends.
    "growth-too-low": (
        program(
            [mmap(4, flags=[*FIXED, "growsdown"], addr=hex(LOW)),
             op("read", oracle.host().lowest_hint - PAGE),
             op("mprotect", "p+0x2000", length=PAGE, prot="r"), op("write", value=1),
             op("write", "p+0x3000", value=1), op("mprotect", "p+0x2000", length=PAGE, prot="rw")],
        ),
        "classic",
    ),
    "locked-memory-limit": (
        program([mmap(1, length=MUCH), op("mlock", length=MUCH, onfault=True)]), "classic",
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
    "mbind-hole": (
        program([mmap(), op("mbind", length=17 * PAGE, mode="preferred")]), "classic",
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
    "mlock-onfault": (
        program([mmap(prot="none"), op("mlock", length=PAGE, onfault=True)]), "classic",
    ),
    "mprotect-uncharges": (
        program(
            [mmap(4, prot="r"), mmap(4, addr=hex(BASE + 4 * PAGE), id="q"),
             op("mprotect", "q", length=4 * PAGE, prot="r")]
        ),
        "classic",
    ),
    "grown-joins-next": (
        program(
            [mmap(8), op("munmap", "p+0x3000", length=PAGE),
             op("mremap", "p+0x2000", old_length=PAGE, new_length=2 * PAGE)]
        ),
        "classic",
    ),
    "stack-is-nohugepage": (
        program([mmap(4), mmap(4, addr=hex(BASE + 4 * PAGE), flags=[*FIXED, "stack"], id="q")]),
        "classic",
    ),
    "wiped-has-no-anon-vma": (
        forked(
            [mmap(2), op("madvise", length=2 * PAGE, advice="wipeonfork"),
             op("mprotect", length=PAGE, prot="r")],
            [op("mprotect", length=PAGE, prot="rw")]
        ),
        "classic",
    ),
    "touched-joins-untouched": (
        program(
            [mmap(4, prot="w"), mmap(4, addr=hex(BASE + 4 * PAGE), id="q"), op("write", value=1),
             op("mprotect", length=8 * PAGE, prot="rw")]
        ),
        "classic",
    ),
    "heap-stays-apart": (
        program(
            [mmap(1), {"op": "brk", "delta": PAGE, "start": BASE + PAGE}]
        ),
        "classic",
    ),
    # What was touched gets the protection of what was not.
    "touched-moves-whole": (
        program(
            [mmap(4), mmap(2, "rwx", addr=hex(BASE + 4 * PAGE), id="q"), op("write", "q", value=1),
             op("mprotect", "q", length=2 * PAGE, prot="rw"),
             op("mremap", "p+0x3000", old_length=2 * PAGE, new_length=4 * PAGE, flags=["maymove"])],
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
    "grown-file": (
        one_page_file(
            {"op": "truncate", "file": "f", "length": 4 * PAGE},
            mmap(4, prot="r", flags=["private", "fixed"], file="f"), op("read", "p+0x1000"),
            op("read", "p+0x2000"),
        ),
        "classic",
    ),
    "overcommit": (program([mmap(1, length=HUGE)]), "classic"),
    "vsyscall-page": (program([mmap(), op("read", 0xFFFFFFFFFF600000)]), "classic"),
    "large-is-aligned": (program([{"op": "mmap", "length": 2 << 20}]), "classic"),
    "guard-gap-below-others": (
        program(
            [{"op": "mmap", "length": PAGE, "flags": ["private", "anonymous", "growsdown"],
              "id": "s"},
             {"op": "mmap", "length": PAGE, "flags": FIXED, "addr": "s-0x5000"},
             {"op": "mmap", "length": PAGE}]
        ),
        "classic",
    ),
}  # fmt: skip
"""For each exception a program that shows it, and the emulator's handler."""

MOST: Final = min(oracle.host().max_locked, 1 << 30) * 3 // 4 & ~(PAGE - 1)

# These depend on how a host is set up, not on its kernel.
SETUP: Final = {
    "overcommit": oracle.host().overcommit != 1,
    "second-lowest-address": oracle.host().mmap_min_addr < oracle.host().lowest_hint,
    "growth-too-low": oracle.host().mmap_min_addr < oracle.host().lowest_hint,
    "locked-memory-limit": oracle.host().max_locked < MUCH,
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
        assert bool(found.cut) == (exception.ends and exception.edge is None)
    else:
        assert names <= {name}


def test_the_table_is_this_list() -> None:
    text = FIDELITY.read_text().partition("\n## Against the host's kernel\n")[2]
    rows = re.findall(r"^\| `([a-z0-9A-Z-]+)` \| (\S+) \|.*\| (.*?) ?\|$", text, re.MULTILINE)
    listed = [(name, since, after != "") for name, since, after in rows]
    assert listed == [
        (e.name, "-" if e.since is None else ".".join(map(str, e.since)), e.ends)
        for e in oracle.EXCEPTIONS
    ]


@pytest.mark.parametrize("name", list(CASES))
def test_nothing_else_is_excused(name: str) -> None:
    """With the exception taken away, its program differs: no other one covers it."""
    emulated, host = both(*CASES[name])
    others = [e for e in oracle.EXCEPTIONS if e.name != name]
    all_of_them = oracle.compare(emulated, host)
    without = oracle.compare(emulated, host, exceptions=others)
    assert bool(without.differences) == bool(all_of_them.excused)


SHRUNK: Final = op("mremap", old_length=2 * PAGE, new_length=PAGE)
MOVED: Final = {**SHRUNK, "flags": ["maymove", "fixed"], "new_addr": hex(Q)}
ENOMEM: Final = {"ret": -1, "errno": 12}
NEIGHBOURS: Final[dict[str, tuple[list[dict[str, Any]], str, dict[str, Any]]]] = {
    # The other code is the emulator's own, and nothing was refused speculatively.
    "v12-C3": ([mmap(prot="r"), op("write", value=1)], "emulated", {"si_code": 1}),
    "v12-C2": (
        [mmap(), op("execute")], "emulated", {"livelock": 1, "signal": 0, "si_code": 0},
    ),
    # It is the errno of its negative, no other.
    "address-as-errno": ([mmap(addr=hex((1 << 64) - PAGE + 1))], "host", {"errno": 22}),
    # The host takes the hint, and the emulator something above.
    "second-lowest-address": (
        [{"op": "mmap", "length": PAGE, "addr": hex(BASE)}], "emulated", {"ret": BASE + PAGE},
    ),
    # It is mapped there, and does not grow.
    "growth-too-low": (
        [mmap(1, addr=hex(oracle.host().mmap_min_addr), flags=[*FIXED, "growsdown"]),
         op("write", value=1, mode="kernel")],
        "host", {"ret": -1, "errno": 14},
    ),
    "overcommit": ([mmap(), mmap()], "host", ENOMEM),
    # Nothing lies between.
    "guard-gap-below-others": (
        [{"op": "mmap", "length": PAGE, "flags": ["private", "anonymous", "growsdown"]},
         {"op": "mmap", "length": PAGE}],
        "host", {"ret": 0x7FFF_F7E0_0000},
    ),
    # It is a page less than a huge one.
    "large-is-aligned": (
        [{"op": "mmap", "length": (2 << 20) - PAGE}], "host", {"ret": 0x7FFF_F780_0000},
    ),
    "locked-memory-limit": ([mmap(), op("mlock", length=PAGE)], "host", ENOMEM),
    # Another page was made writable.
    "mprotect-spares-faults": (
        [mmap(), op("write", value=1), op("mprotect", "p+0x1000", length=PAGE, prot="r"),
         op("mprotect", "p+0x1000", length=PAGE, prot="rw"), op("write", value=2)],
        "emulated", {"faults": 1},
    ),
    # There is no hole.
    "brk-over-hole": (
        [{"op": "brk", "delta": 4 * PAGE}, {"op": "brk", "delta": -PAGE}], "host", ENOMEM,
    ),
    # The range is mapped to its end.
    "mbind-hole": (
        [mmap(2), op("mbind", length=2 * PAGE, mode="preferred")],
        "host", {"ret": -1, "errno": 14},
    ),
    "mremap-dontunmap": ([mmap(), MOVED], "emulated", {"ret": -1, "errno": 22}),
    # Something is mapped.
    "mremap-of-nothing": ([mmap(), SHRUNK], "host", {"ret": -1, "errno": 14}),
    # Its lengths are in order, and it does not unmap itself.
    "mremap-checks-first": ([mmap(), SHRUNK], "host", {"ret": -1, "errno": 22}),
    # It does more than to move.
    "mremap-of-several": ([mmap(), MOVED], "emulated", {"ret": -1, "errno": 14}),
    # It begins where nothing is, so no kernel gets as far as the new place.
    "mremap-of-several-too-low": (
        [mmap(), op("munmap", length=PAGE), {**MOVED, "new_length": 2 * PAGE, "new_addr": 0}],
        "host", {"errno": 1},
    ),
    # Its pages are to come at once.
    "mlock-onfault": ([mmap(), op("mlock", length=PAGE)], "emulated", ENOMEM),
    # What lost the right to be written to lies behind it.
    "mprotect-uncharges": (
        [mmap(4), op("mprotect", "p+0x2000", length=PAGE, prot="none"), SHRUNK],
        "host", {"ret": -1, "errno": 14},
    ),
    # It has met nobody when it grew.
    "grown-joins-next": (
        [mmap(4), op("mremap", old_length=4 * PAGE, new_length=5 * PAGE, flags=["maymove"]),
         op("mremap", old_length=5 * PAGE, new_length=4 * PAGE)],
        "host", {"ret": -1, "errno": 14},
    ),
    # All of it is the heap.
    "heap-stays-apart": (
        [{"op": "brk", "delta": 4 * PAGE, "start": BASE, "id": "h"},
         op("mremap", "h-0x4000", old_length=4 * PAGE, new_length=3 * PAGE)],
        "host", {"ret": -1, "errno": 14},
    ),
    # It does not go across the stack's edge.
    "stack-is-nohugepage": (
        [mmap(4, flags=[*FIXED, "stack"]), mmap(4, "r", addr=hex(BASE + 4 * PAGE)), SHRUNK],
        "host", {"ret": -1, "errno": 14},
    ),
    # The page tables are the task's own, no copy.
    "touched-joins-untouched": (
        [mmap(2, flags=["private", "fixed"], file="f"), op("write", value=1), op("read")],
        "emulated", {"faults": 1},
    ),
    # All of it was touched, and is one VMA for both.
    "touched-moves-whole": (
        [mmap(4), op("write", value=1), op("mremap", old_length=4 * PAGE, new_length=3 * PAGE)],
        "host", {"ret": -1, "errno": 14},
    ),
    # Its last page may be around what was mapped, but it is one of several.
    "last-page-alone": (
        [mmap(4, prot="r", flags=["private", "fixed"], file="f"), op("read", "p+0x2000"),
         op("read")],
        "host", {"faults": 1},
    ),
    # What is not there is looked at if it is to grow, …
    "mremap-of-nothing-grown": (
        [mmap(), op("munmap", length=16 * PAGE), {**SHRUNK, "new_length": 4 * PAGE}],
        "emulated", {"ret": BASE, "errno": 0},
    ),
    # … and a length beyond everything, too.
    "mremap-checks-first-grown": (
        [mmap(), {**SHRUNK, "new_length": 1 << 48}], "emulated", {"ret": BASE, "errno": 0},
    ),
    # What was locked is not any more.
    "locked-memory-limit-unlocked": (
        [mmap(length=MOST), op("mlock", length=MOST, onfault=True), op("munlock", length=MOST),
         op("mlock", f"p+{MOST - PAGE}", length=2 * PAGE, onfault=True)],
        "emulated", {"ret": 0, "errno": 0},
    ),
    # It was made writable, but is another mapping now, …
    "mprotect-spares-faults-remapped": (
        [mmap(), op("mprotect", length=PAGE, prot="r"), op("mprotect", length=PAGE, prot="rw"),
         op("munmap", length=16 * PAGE), mmap(flags=[*FIXED, "populate"]), op("read")],
        "emulated", {"faults": 1},
    ),
    # … or was not there then, …
    "mprotect-spares-faults-failed": (
        [mmap(), op("munmap", length=16 * PAGE), op("mprotect", length=PAGE, prot="rw"),
         mmap(flags=[*FIXED, "populate"]), op("read")],
        "emulated", {"faults": 1},
    ),
    # … or is a file's.
    "mprotect-spares-faults-shared": (
        [mmap(2, prot="r", flags=["shared", "fixed"], file="f"), op("read"),
         op("mprotect", length=PAGE, prot="rw"), op("read")],
        "emulated", {"faults": 1},
    ),
    # Nothing is wiped.
    "wiped-has-no-anon-vma": (
        [mmap(4), op("madvise", length=4 * PAGE, advice="wipeonfork"), SHRUNK],
        "host", {"ret": -1, "errno": 14},
    ),
    # Memory that may not be written to is no promise.
    "overcommit-read-only": (
        [mmap(1, length=HUGE, prot="r")], "host", ENOMEM,
    ),
    # There is a hole.
    "locked-memory-limit-with-hole": (
        [mmap(), op("mlock", length=MUCH, onfault=True)], "emulated", {"ret": 0, "errno": 0},
    ),
    # There was no read beyond the end.
    "last-page-alone-first": (
        [mmap(1, flags=["private", "fixed"], file="f", offset=PAGE), op("write", value=1)],
        "emulated", {"faults": 0},
    ),
    # It was there when it was written to.
    "grown-file-written": (
        [{"op": "truncate", "file": "f", "length": 0},
         {"op": "truncate", "file": "f", "length": 16 * PAGE},
         mmap(16, flags=["private", "fixed"], file="f"), op("read"), op("write", value=1)],
        "emulated", {"faults": 2},
    ),
    # An mlock that found nothing has locked nothing.
    "locked-memory-limit-of-nothing": (
        [mmap(), op("mlock", Q, length=MOST, onfault=True),
         op("mlock", "p+0xf000", length=MUCH - MOST, onfault=True)],
        "emulated", {"ret": 0, "errno": 0},
    ),
    # What was mapped meanwhile is elsewhere.
    "grown-file-elsewhere": (
        [{"op": "truncate", "file": "f", "length": 16 * PAGE},
         mmap(16, flags=["private", "fixed"], file="f"), op("read", "p+0x5000"),
         mmap(addr=hex(Q), id="q"), op("read", "p+0x5000")],
        "emulated", {"faults": 1},
    ),
    # Ours has nothing there.
    "vsyscall-page-success": (
        [mmap(), op("write", 0xFFFFFFFFFF600000, value=1)],
        "emulated", {"signal": 0, "si_code": 0, "faults": 5},
    ),
    # It is the next page.
    "vsyscall-page": (
        [mmap(), op("read", 0xFFFFFFFFFF601000)], "host", {"faults": 1},
    ),
    # It had the page before, and has had it all the time.
    "grown-file": (
        [{"op": "truncate", "file": "f", "length": 4 * PAGE},
         mmap(4, prot="r", flags=["private", "fixed"], file="f"), op("read"),
         op("read", "p+0x1000")],
        "emulated", {"faults": 1},
    ),
}  # fmt: skip
"""For each exception about outcomes a program in which it does not apply, and what is changed in
the last outcome of one of the two, so that it looks as if it did."""


def test_every_exception_has_a_neighbour() -> None:
    assert {e.name for e in oracle.EXCEPTIONS if e.outcome is not None} <= set(NEIGHBOURS)


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_what_is_next_to_it_is_a_difference(name: str) -> None:
    ops, side, changes = NEIGHBOURS[name]
    emulated, host = both(program(ops, files={"f": {"length": 2 * PAGE}}), "classic")
    assert oracle.compare(emulated, host).differences == []
    changed = [changed_at_the_end(emulated if side == "emulated" else host, changes)]
    pair = (*changed, host) if side == "emulated" else (emulated, *changed)
    found = oracle.compare(*pair)
    assert {entry.what for entry in found.differences} == set(changes)
    assert found.excused == []


def changed_at_the_end(result: Result, changes: dict[str, Any]) -> Result:
    ops = result.ops.copy()
    for field, value in changes.items():
        if field == "faults":
            ops["counters"][-1, EVENTS.index("faults")] = value
        else:
            ops[field][-1] = value
    return replace(result, ops=ops)


PROTECTED: Final = op("mprotect", "p+0x1000", length=PAGE, prot="r")
EDGES: Final[dict[str, tuple[list[dict[str, Any]], str, int]]] = {
    # Only at what mprotect took the right from, and only while it may not be written to.
    "mprotect-uncharges": ([mmap(8), PROTECTED], "emulated", 4),
    "mprotect-uncharges-back": (
        [mmap(8), PROTECTED, op("mprotect", "p+0x1000", length=PAGE, prot="rw")], "emulated", 1,
    ),
    # Only where it ends now, and if it grew.
    "grown-joins-next": (
        [mmap(8), op("munmap", "p+0x4000", length=4 * PAGE),
         op("mremap", "p+0x2000", old_length=2 * PAGE, new_length=4 * PAGE)], "emulated", 2,
    ),
    "grown-joins-next-shrunk": (
        [mmap(8), op("mremap", old_length=4 * PAGE, new_length=4 * PAGE)], "emulated", 4,
    ),
    # Only where it has an anon_vma for that.
    "growth-too-low": (
        [mmap(8), mmap(4, flags=[*FIXED, "growsdown"], addr=hex(LOW), id="q"),
         op("read", oracle.host().lowest_hint - PAGE)],
        "emulated", 4,
    ),
    # Only where it begins.
    "heap-stays-apart": ([{"op": "brk", "delta": 8 * PAGE, "start": BASE}], "emulated", 4),
    # Only at the edges of the stack.
    "stack-is-nohugepage": (
        [mmap(4), mmap(4, addr=hex(BASE + 8 * PAGE), flags=[*FIXED, "stack"])], "host", 2,
    ),
    "stack-is-nohugepage-moved": (
        [mmap(4, flags=[*FIXED, "stack"]), {**MOVED, "new_length": 2 * PAGE},
         mmap(8, addr=hex(Q + 4 * PAGE))],
        "host", 22,
    ),
    "stack-is-nohugepage-gone": (
        [mmap(8, flags=[*FIXED, "stack"]), op("munmap", length=8 * PAGE), mmap(8)], "host", 4,
    ),
    # Only in a child.
    "wiped-has-no-anon-vma": (
        [mmap(8), op("madvise", length=8 * PAGE, advice="wipeonfork")], "emulated", 4,
    ),
    # Only where the emulator has an edge, in anonymous memory, once something was written to.
    "touched-joins-untouched": ([mmap(8), op("read")], "emulated", 4),
    "touched-joins-untouched-host": ([mmap(8), op("write", value=1)], "host", 4),
    "touched-joins-untouched-shared": (
        [mmap(8, flags=["shared", "anonymous", "fixed"]), op("write", value=1)], "emulated", 4,
    ),
    # Only if what could join it on the other side was touched, ...
    "touched-joins-untouched-alone": (
        [mmap(8), op("write", value=1), op("mprotect", "p+0x4000", length=4 * PAGE, prot="rwx")],
        "host", 2,
    ),
    # ... if it was not touched first, ...
    "touched-joins-untouched-late": (
        [mmap(8), op("touch", length=8 * PAGE),
         op("mprotect", "p+0x4000", length=4 * PAGE, prot="rwx")],
        "host", 2,
    ),
    # ... and if a call was about it.
    "touched-joins-untouched-nothing": (
        [mmap(4), mmap(4, addr=hex(BASE + 4 * PAGE), prot="rwx", id="q"), op("write", value=1),
         op("write", "q", value=1)],
        "host", 2,
    ),
}  # fmt: skip
"""Programs, and the page at which one of the two is given an edge that the exception of that name
does not explain."""


@pytest.mark.parametrize("name", list(EDGES))
def test_an_edge_elsewhere_is_a_difference(name: str) -> None:
    ops, side, page = EDGES[name]
    emulated, host = both(program(ops), "classic")
    assert oracle.compare(emulated, host).differences == []
    results = {"emulated": emulated, "host": host}
    maps = {
        task: [part for line in lines for part in cut_at(line, BASE + page * PAGE)]
        for task, lines in results[side].maps.items()
    }
    assert maps != results[side].maps
    results[side] = replace(results[side], maps=maps)
    found = oracle.compare(results["emulated"], results["host"])
    assert [entry.what for entry in found.differences] == ["maps t0"]


def cut_at(line: str, address: int) -> list[str]:
    start, end, perms, offset = parsed_maps_line(line)
    if not start < address < end:
        return [line]
    return [maps_line(start, address, perms, offset), maps_line(address, end, perms, offset)]


def test_every_exception_about_edges_has_a_neighbour() -> None:
    named = {e.name for e in oracle.EXCEPTIONS if e.edge is not None}
    assert {name for name in named if any(key.startswith(name) for key in EDGES)} == named
