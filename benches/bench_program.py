"""Bars: a program of a million operations loads from its array form in under 2 s, and enters the
core in one call, without a Python object for each operation.
"""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import spfemu
from benches.table import against_bar
from spfemu import _core
from spfemu.program import Program, ProgramBuilder

NR_OPERATIONS = 1_000_000
NR_PAGES = 1024


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that writes its pages in turn, as an ``.npz``."""
    builder = ProgramBuilder(page_size=4096)
    task = builder.task("t0")
    task.mmap(NR_PAGES * 4096, id="area")
    for number in range(NR_OPERATIONS - 1):
        task.write(("area", number % NR_PAGES * 4096))
    path = tmp_path_factory.mktemp("bench") / "million.npz"
    builder.build().save(path)
    return path


def bench_load_of_a_million_operations(benchmark: BenchmarkFixture, archive: Path) -> None:
    program = benchmark(Program.load, archive)
    assert len(program.tasks[0].ops) == NR_OPERATIONS
    assert benchmark.stats is not None
    seconds = benchmark.stats.stats.median
    what = "loading a million operations"
    against_bar(what, f"{seconds:.2f} s", "<= 2 s", met=seconds <= 2)


class Door:
    """Stands in for the core's `run`: counts the calls and takes their time."""

    def __init__(self) -> None:
        self.calls = 0
        self.ns = 0
        self.run = _core.run

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        start = time.process_time_ns()
        result = self.run(*arguments)
        self.ns += time.process_time_ns() - start
        return result


def bench_call_of_a_million_operations(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program.load(archive)
    door = Door()
    monkeypatch.setattr(_core, "run", door)
    gc.collect()
    blocks = sys.getallocatedblocks()
    start = time.process_time_ns()
    result = spfemu.run(program, engine="native")
    ns = time.process_time_ns() - start
    blocks = sys.getallocatedblocks() - blocks
    assert len(result.ops) == NR_OPERATIONS
    outside, inside = ((ns - door.ns) / NR_OPERATIONS, door.ns / NR_OPERATIONS)
    measured = (
        f"{door.calls} call, {blocks:,} objects; "
        f"{outside:.2f} ns each outside the core, {inside:.0f} in it"
    )
    few = door.calls == 1 and blocks < NR_OPERATIONS / 1000
    against_bar("calling with a million operations", measured, "1 call, no object each", met=few)
