"""Bar: the explorer runs 100,000 schedules/s of a write fault against munmap.

The program is that of `make demo`, whose exploration ends; with two preemptions more than usual, so
that what is done once does not count. Times are those of the CPU: it works on one thread.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import spfemu
from benches.table import against_bar
from spfemu.cli.demo import race_program

BAR = 100_000


def explore() -> dict[str, Any]:
    return spfemu.explore(race_program(), variants_default="fixed", preemptions=4)


@pytest.mark.benchmark(timer=time.process_time)
def bench_schedules_of_a_fault_against_munmap(benchmark: BenchmarkFixture) -> None:
    exploration = benchmark(explore)
    assert exploration["complete"]
    assert exploration["violations"] == []
    assert benchmark.stats is not None
    seconds = benchmark.stats.stats.median
    rate = exploration["schedules"] / seconds
    step_ns = seconds / exploration["steps"] * 1e9
    measured = f"{rate:,.0f}/s ({step_ns:.1f} ns a step)"
    against_bar("explore: schedules", measured, f">= {BAR:,}/s", met=rate >= BAR)
