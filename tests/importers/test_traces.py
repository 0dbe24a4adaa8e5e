"""Every recorded trace: all faults hit a mapping in any order the program allows, and fault again.

The reference replays the tasks one after another, each until it waits: an order far from the
recorded one, so what the posts and awaits do not keep would show.
"""

from __future__ import annotations

import csv
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from spfemu.importers import Imported, import_trace
from spfemu.program import OPS, Program
from spfemu.reference import run
from spfemu.results import Result
from tests.importers.flat import replay
from tests.reference.arches import X86

TRACES = Path(__file__).parent.parent / "traces"
ROWS = list(csv.DictReader((TRACES / "manifest.csv").read_text().splitlines()))
NAMES = [row["name"] for row in ROWS]
STRACE = [TRACES / "thr.userperf.txt.gz", TRACES / "thr.strace.txt.gz"]
MANUAL = Path(__file__).parent.parent.parent / "docs/importing.md"
TABLE = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in MANUAL.read_text().splitlines()
    if line.startswith(tuple(f"| {name}" for name in [*NAMES, "thr"]))
]
ACCESSES = [OPS[name].code for name in ("read", "write", "execute")]


@cache
def imported(name: str) -> Imported:
    return import_trace(STRACE if name == "thr" else TRACES / f"{name}.perf.txt.zst")


@cache
def played(name: str, handler: str) -> Result:
    return run(imported(name).program, handler=handler, arch=X86)


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_takes_what_the_manifest_counts(row: dict[str, str]) -> None:
    program, summary = imported(row["name"])
    assert summary.faults == int(row["faults"])
    assert summary.taken["fault in user mode"] == int(row["faults_user"])
    assert summary.taken["fault in kernel mode"] == int(row["faults_kernel"])
    assert summary.nr_lines == int(row["events"])
    assert summary.nr_processes == int(row["processes"])
    assert len(program.tasks) == int(row["threads"])
    assert summary.taken["munmap"] == int(row["munmap"])
    assert summary.taken["mprotect"] == int(row["mprotect"])
    assert not summary.unresolved
    assert not summary.approximated
    accesses = np.concatenate([task.ops["op"] for task in program.tasks])
    assert int((accesses == OPS["write"].code).sum()) == int(row["write_faults"])
    assert int((accesses == OPS["execute"].code).sum()) == int(row["exec_faults"])


@pytest.mark.parametrize("name", [*NAMES, "thr"])
@pytest.mark.parametrize("seed", [None, 1])
def test_every_fault_hits_a_mapping_in_any_order(name: str, seed: int | None) -> None:
    program, summary = imported(name)
    played = replay(program, seed)
    assert not played.stuck
    assert played.accesses == summary.faults
    assert played.hits == summary.faults - summary.segv


@pytest.mark.parametrize("name", [*NAMES, "thr"])
def test_faults_again(name: str) -> None:
    summary, result = imported(name).summary, played(name, "classic")
    assert not result.stuck
    assert result.counters["faults"] >= 0.99 * summary.faults
    assert result.counters["faults"] <= summary.faults
    accesses = np.isin(result.ops["op"], ACCESSES)
    assert int((result.ops["signal"][accesses] != 0).sum()) == summary.segv
    assert not result.ops["errno"].any(), "every system call succeeds as it did"


def test_the_manual_has_all_traces() -> None:
    assert [row[0].split()[0] for row in TABLE] == [*sorted(NAMES), "thr"]


def test_a_fault_of_the_jvm_at_null_is_counted_apart() -> None:
    summary = imported("jvm-parallel").summary
    assert (summary.segv, dict(summary.segv_kinds)) == (1, {"at null": 1})


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_the_table_of_the_manual_is_true(row: list[str]) -> None:
    # The last numbers hang on which mapping was there first. They are those of a replay in exactly
    # the recorded order, except that the order here is kept by a few posts.
    name = row[0].split()[0]
    summary, spf = imported(name).summary, played(name, "spf").counters
    assert [int(cell.replace(",", "")) for cell in row[1:]] == [
        summary.faults,
        summary.faults - summary.segv,
        played(name, "classic").counters["faults"],
        spf["spf"],
        spf["pagefault:spf_vma_notsup"],
        summary.nr_awaits + summary.nr_waits,
    ]


def test_strace_is_the_second_source() -> None:
    program, summary = imported("thr")
    assert [task.start for task in program.tasks] == [None, "clone", "clone"]
    assert summary.taken["fault in user mode"] == summary.guessed["access of a fault"] == 1753
    assert summary.approximated == {"mremap by munmap and mmap": 100}
    assert summary.taken["brk"] == 3
    assert not summary.unresolved
    assert summary.cpus == 0


@pytest.mark.parametrize("name", ["memcached", "thr"])
def test_the_same_text_gives_the_same_program(name: str) -> None:
    again = import_trace(STRACE[::-1] if name == "thr" else TRACES / f"{name}.perf.txt.zst")
    assert again.program == imported(name).program
    assert again.summary == imported(name).summary


def test_survives_a_file(tmp_path: Path) -> None:
    program = imported("stressng-fork-cow").program
    program.save(tmp_path / "p.npz")
    assert Program.load(tmp_path / "p.npz") == program


def test_says_where_each_fault_came_from() -> None:
    program = imported("memcached").program
    task = next(task for task in program.tasks if task.name.startswith("mc-worker"))
    assert task.sites is not None
    faults = task.sites[np.isin(task.ops["op"], ACCESSES)]
    assert (faults["vma"] > 0).all()
    comms = {program.comms[number - 1] for number in faults["comm"].tolist()}
    assert comms == {"mc-worker"}
    labels = {program.vmas[number - 1] for number in faults["vma"].tolist()}
    assert any(label.startswith("anon 0x") for label in labels)


def test_the_largest_takes_seconds() -> None:
    # Far above what it takes (half a second), far below what would make nobody use it.
    start = time.process_time()
    import_trace(TRACES / "node-workers.perf.txt.zst")
    assert time.process_time() - start < 20
