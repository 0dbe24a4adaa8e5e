"""What /proc says of a process in the end: smaps, status, vmstat."""

from __future__ import annotations

import json
from typing import Any

import pytest

import spfemu
from spfemu import EngineError, Program
from spfemu.profiles import arch, arch_names
from tests.host_kernel import needs_host

EMULATORS = ("reference", "native", "vtime", "explore")
PAGE = 4096


def program(*tasks: dict[str, Any], **more: Any) -> Program:
    return Program.loads(json.dumps({"format": "spfemu-program/1", "tasks": tasks, **more}))


def ops(*given: dict[str, Any], **task: Any) -> dict[str, Any]:
    return {"ops": list(given), **task}


def sizes(lines: list[str]) -> dict[str, int]:
    """What lines in kB say that is not 0, in pages."""
    found = (line.split() for line in lines if line.endswith(" kB"))
    return {name[:-1]: int(kb) // 4 for name, kb, _ in found if kb != "0"}


@pytest.mark.parametrize("engine", EMULATORS)
def test_each_kind_of_memory_is_counted(engine: str) -> None:
    given = program(
        ops(
            {"op": "mmap", "length": 16 * PAGE, "addr": "0x100000000000", "id": "p"},
            {"op": "touch", "addr": "p", "length": 6 * PAGE},
            {"op": "touch", "addr": "p+0x8000", "length": 2 * PAGE, "access": "read"},
            {"op": "mlock", "addr": "p+0x5000", "length": PAGE},
            {"op": "swap_out", "addr": "p", "length": 2 * PAGE},
            {"op": "mmap", "length": 4 * PAGE, "addr": "0x200000000000", "prot": "rx",
             "flags": ["private"], "file": "f", "id": "f"},
            {"op": "read", "addr": "f"},
            {"op": "mmap", "length": 4 * PAGE, "addr": "0x300000000000", "id": "s",
             "flags": ["shared", "anonymous"]},
            {"op": "write", "addr": "s", "value": 1},
            {"op": "mmap", "length": 3 * PAGE, "addr": "0x400000000000",
             "flags": ["private", "anonymous", "growsdown"]},
        ),
        files={"f": {"length": 4 * PAGE}},
    )  # fmt: skip
    result = spfemu.run(given, engine=engine, handler="classic", proc=True)
    smaps, status = result.proc["t0"]["smaps"], result.proc["t0"]["status"]
    assert [line for line in smaps if "-" in line] == result.maps["t0"]
    # Two pages are in swap; the pages of zeroes are no pages.
    assert smaps[: smaps.index(result.maps["t0"][1])] == [
        "100000000000-100000005000 rw-p 00000000",
        "Size:                 20 kB",
        "KernelPageSize:        4 kB",
        "MMUPageSize:           4 kB",
        "Rss:                  12 kB",
        "Anonymous:            12 kB",
        "AnonHugePages:         0 kB",
        "Swap:                  8 kB",
        "VmFlags: rd wr mr mw me ac",
    ]
    assert [line for line in smaps if line.startswith("VmFlags:")][1:] == [
        "VmFlags: rd wr mr mw me lo ac",
        "VmFlags: rd wr mr mw me ac",
        "VmFlags: rd ex mr mw me",
        "VmFlags: rd wr sh mr mw me ms",
        "VmFlags: rd wr mr mw me gd ac",
    ]
    assert status[0] == "VmSize:\t     108 kB"
    assert sizes(status) == {
        "VmSize": 27, "VmLck": 1, "VmRSS": 9, "RssAnon": 4, "RssFile": 4, "RssShmem": 1,
        "VmData": 16, "VmStk": 3, "VmLib": 4, "VmPTE": 9, "VmSwap": 2,
    }  # fmt: skip
    assert result.vmstat == [
        f"{name} {result.counters[name]}"
        for name in ("pgfault", "pgmajfault", "speculative_pgfault")
    ]
    assert result.to_json()["proc"] == result.proc


@pytest.mark.parametrize("engine", EMULATORS)
def test_huge_pages(engine: str) -> None:
    given = program(
        ops(
            {"op": "mmap", "length": "4M", "addr": "0x100000000000", "id": "p"},
            {"op": "madvise", "addr": "p", "length": "4M", "advice": "hugepage"},
            {"op": "write", "addr": "p", "value": 1},
            {"op": "read", "addr": "p+2M"},
        )
    )
    proc = spfemu.run(given, engine=engine, proc=True).proc["t0"]
    assert proc["smaps"][-1] == "VmFlags: rd wr mr mw me ac hg"
    assert sizes(proc["smaps"]) == {
        "Size": 1024, "KernelPageSize": 1, "MMUPageSize": 1, "Rss": 512, "Anonymous": 512,
        "AnonHugePages": 512,
    }  # fmt: skip
    # A table is deposited with each of the two.
    assert sizes(proc["status"])["VmPTE"] == 4


@pytest.mark.parametrize("engine", EMULATORS)
def test_p4d_tables_are_not_counted(engine: str) -> None:
    mmap = {"op": "mmap", "length": "4K", "id": "p"}
    given = program(ops(mmap, {"op": "read", "addr": "p"}))
    for name in ("x86", "x86-5level"):
        status = spfemu.run(given, engine=engine, arch=name, proc=True).proc["t0"]["status"]
        assert sizes(status)["VmPTE"] == 3


@pytest.mark.parametrize("engine", EMULATORS)
def test_pages_of_hugetlb_are_not_resident(engine: str) -> None:
    given = program(
        ops(
            {"op": "mmap", "length": "4M", "addr": "0x100000000000", "id": "p",
             "flags": ["private", "anonymous", "hugetlb"]},
            {"op": "write", "addr": "p", "value": 1},
            {"op": "fork", "child": "c"},
            {"op": "write", "addr": "p+2M", "value": 1},
            {"op": "wait", "child": "c"},
        ),
        ops(name="c", start="fork"),
    )  # fmt: skip
    result = spfemu.run(given, engine=engine, proc=True)
    proc = result.proc["t0"]
    assert proc["smaps"][-1] == "VmFlags: rd wr mr mw me de ht"
    assert sizes(proc["smaps"]) == {
        "Size": 1024, "KernelPageSize": 512, "MMUPageSize": 512,
    }  # fmt: skip
    assert sizes(proc["status"]) == {
        "VmSize": 1024, "VmData": 1024, "VmPTE": 2, "HugetlbPages": 1024,
    }  # fmt: skip


@pytest.mark.parametrize("name", arch_names())
@pytest.mark.parametrize("engine", EMULATORS)
def test_a_child_has_tables_as_far_down_as_its_parent(engine: str, name: str) -> None:
    """Found by a generated program: what is copied need not have any PTEs.

    Source: copy_pud_range() and so on, mm/memory.c@5.1: each allocates before it looks.
    """
    page = arch(name).page_size
    given = program(
        ops(
            {"op": "mmap", "length": 16 * page, "flags": ["private"], "file": "f", "id": "p"},
            {"op": "write", "addr": f"p+{5 * page}", "value": 1},
            {"op": "fork", "child": "c"},
            {"op": "wait", "child": "c"},
        ),
        ops({"op": "exit"}, name="c", start="fork"),
        files={"f": {"length": 4 * page}},
        page_size=page,
    )
    result = spfemu.run(given, engine=engine, arch=name, proc=True)
    assert result.ops[1]["signal"] == 7
    parent, child = (sizes(result.proc[task]["status"])["VmPTE"] for task in ("t0", "c"))
    assert parent == child > 0


@pytest.mark.parametrize("name", arch_names())
@pytest.mark.parametrize("engine", EMULATORS)
def test_a_child_has_upper_tables_for_hugetlb_only_down_to_a_pmd(engine: str, name: str) -> None:
    """Found by a generated program: 512 GiB apart, but in one of the highest tables of five levels.

    Source: copy_hugetlb_page_range(), mm/hugetlb.c@5.1: huge_pte_offset() has to find a PMD.
    """
    page = arch(name).page_size
    given = program(
        ops(
            {"op": "mmap", "length": page, "addr": "0x100000000", "id": "p"},
            {"op": "read", "addr": "p"},
            {"op": "mmap", "length": page, "addr": "0x100000000000",
             "flags": ["private", "anonymous", "hugetlb"], "id": "h"},
            {"op": "fork", "child": "none", "wait": True},
            {"op": "read", "addr": "h"},
            {"op": "fork", "child": "all", "wait": True},
        ),
        ops({"op": "exit"}, name="none", start="fork"),
        ops({"op": "exit"}, name="all", start="fork"),
        page_size=page,
    )  # fmt: skip
    result = spfemu.run(given, engine=engine, arch=name, proc=True)
    assert "VmPTE" not in sizes(result.proc["none"]["status"])
    # PUDs and PMDs: p4d tables are not counted.
    upper = sum(level.entries * 8 for level in arch(name).levels[1:-1][-2:])
    assert sizes(result.proc["all"]["status"])["VmPTE"] == upper // PAGE


def test_only_who_asks_gets_it() -> None:
    given = program(ops({"op": "mmap", "length": PAGE}))
    assert spfemu.run(given).proc == {}
    assert "proc" not in spfemu.run(given).to_json()


def test_the_hosts_kernel_says_nothing_yet() -> None:
    with pytest.raises(EngineError, match=r"^proc: engine kernel \(allowed: native, reference,"):
        spfemu.run(program(ops({"op": "exit"})), engine="kernel", proc=True)


@pytest.mark.parametrize("engine", [*EMULATORS, pytest.param("kernel", marks=needs_host)])
def test_processes_are_in_the_order_of_the_program(engine: str) -> None:
    # Not in that of their names, nor in which they began, nor ended.
    given = program(
        ops({"op": "exit"}, name="m", start="fork"),
        ops(
            {"op": "mmap", "length": PAGE},
            {"op": "fork", "child": "a", "wait": True},
            {"op": "fork", "child": "m"},
            name="z",
        ),
        ops({"op": "exit"}, name="a", start="fork"),
    )
    result = spfemu.run(given, engine=engine, proc=engine in EMULATORS)
    assert list(result.maps) == ["m", "z", "a"]
    assert list(result.proc) == (["m", "z", "a"] if engine in EMULATORS else [])
