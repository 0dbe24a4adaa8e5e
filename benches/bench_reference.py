"""Bar: the Rust core runs a program at least 100 times as fast as the Python reference does.

The same program, everything recorded as by default, on one task; in turns. CPU times.
"""

from __future__ import annotations

import statistics
import time

import spfemu
from benches.table import against_bar
from spfemu.program import Program, ProgramBuilder

ROUNDS = 5
BAR = 100
LENGTH = 64 * 4096


def program() -> Program:
    """Maps, writes and reads 64 pages, protects and unmaps them, and again."""
    builder = ProgramBuilder(page_size=4096)
    task = builder.task("task")
    with task.repeat(count=300):
        task.mmap(LENGTH, id="area")
        task.touch("area", LENGTH)
        task.touch("area", LENGTH, access="read")
        task.mprotect("area", LENGTH // 2, "r")
        task.munmap("area", LENGTH)
    return builder.build()


def cpu_seconds(given: Program, engine: str) -> float:
    start = time.process_time()
    result = spfemu.run(given, engine=engine)
    seconds = time.process_time() - start
    assert result.counters["faults"] == 300 * 64
    return seconds


def bench_core_against_reference() -> None:
    given = program()
    times: dict[str, list[float]] = {"reference": [], "native": [], "vtime": []}
    for _ in range(ROUNDS):
        for engine, seconds in times.items():
            seconds.append(cpu_seconds(given, engine))
    medians = {engine: statistics.median(seconds) for engine, seconds in times.items()}
    native, vtime = (medians["reference"] / medians[engine] for engine in ("native", "vtime"))
    measured = f"{native:.0f}x (virtual time {vtime:.0f}x)"
    against_bar("native / the Python reference", measured, f">= {BAR}x", met=native >= BAR)
