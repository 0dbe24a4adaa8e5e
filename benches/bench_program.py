"""Bar: a program of a million operations loads from its array form in under 2 s."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

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
