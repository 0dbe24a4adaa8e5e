"""Bars: virtual time simulates 1,000,000 faults/s of ebizzy -mTt N, spf, at 48 CPUs and 500,000 at
1024; a tenth of a second on 1024 takes under 10 s; its memory is linear in CPUs and touched pages,
and under 1 GB at 1024; for a number of faults the cost grows at most as n log n in CPUs.

Rates are those of the steady state: a longer run less a shorter one, so that starting the threads
does not count. Times are those of the CPU: it works on one thread.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time

import pytest

import spfemu
from benches.table import against_bar
from spfemu.workloads import Ebizzy, Pft

ROUNDS = 3


def ebizzy(machine: str, cpus: int, seconds: float) -> tuple[int, float]:
    """Returns the faults of a run and the CPU seconds that it took."""
    arch = "powerpc" if machine.startswith("power8") else "x86"
    job = Ebizzy(threads=cpus, seconds=seconds, always_mmap=True, touch=True)
    program = job.build(page_size=spfemu.arch(arch).page_size)
    start = time.process_time()
    result = spfemu.run(
        program, engine="vtime", arch=arch, machine=machine, cpus=cpus, record=False
    )
    return result.counters["faults"], time.process_time() - start


@pytest.mark.parametrize(
    ("machine", "cpus", "short", "long", "bar"),
    [
        pytest.param("x86-48", 48, 0.1, 0.5, 1_000_000, id="48"),
        pytest.param("power8-1024", 1024, 0.5, 4.0, 500_000, id="1024"),
    ],
)
def bench_simulated_faults(machine: str, cpus: int, short: float, long: float, bar: int) -> None:
    rates = []
    for _ in range(ROUNDS):
        faults_short, time_short = ebizzy(machine, cpus, short)
        faults_long, time_long = ebizzy(machine, cpus, long)
        rates.append((faults_long - faults_short) / (time_long - time_short))
    rate = statistics.median(rates)
    what = f"vtime: simulated faults at {cpus} CPUs"
    against_bar(what, f"{rate:,.0f}/s", f">= {bar:,}/s", met=rate >= bar)


def bench_a_tenth_of_a_second() -> None:
    # All that it takes: the program, the threads and their first mappings, too.
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        ebizzy("power8-1024", 1024, 0.1)
        times.append(time.process_time() - start)
    took = statistics.median(times)
    what = "vtime: 0.1 s of ebizzy at 1024 CPUs"
    against_bar(what, f"{took:.2f} s", "< 10 s", met=took < 10)


FAULTS = 1 << 16
CPUS = (1, 4, 16, 64, 256, 1024)


def pft_s(cpus: int) -> float:
    """Returns the CPU seconds of so many faults, side by side in one region."""
    page_size = spfemu.arch("powerpc").page_size
    program = Pft(tasks=cpus, size=FAULTS * page_size // cpus).build(page_size=page_size)
    start = time.process_time()
    spfemu.run(
        program, engine="vtime", arch="powerpc", machine="power8-1024", cpus=cpus, record=False
    )
    return time.process_time() - start


def bench_growth() -> None:
    # Each round runs all numbers of CPUs, so that what slows the host down slows all of them.
    rounds = [[pft_s(cpus) for cpus in CPUS] for _ in range(ROUNDS)]
    times = [statistics.median(column) for column in zip(*rounds, strict=True)]
    # The constant is what the first step, from 1 to 4, leaves room for.
    bars = [times[1] * (n * math.log2(n)) / (4 * math.log2(4)) for n in CPUS[1:]]
    measured = ", ".join(f"{n}: {t:.3f}" for n, t in zip(CPUS, times, strict=True))
    met = all(took <= bar for took, bar in zip(times[1:], bars, strict=True))
    what = f"vtime: s for {FAULTS:,} faults of pft, by CPUs"
    against_bar(what, measured, "at most as n log n", met=met)


# A process of its own, for the most that one has used never becomes less.
CHILD = """
import sys
from pathlib import Path
from benches.bench_vtime import ebizzy

def most_kib():
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

before = most_kib()
ebizzy("power8-1024", int(sys.argv[1]), 0.5)
print(most_kib() - before)
"""


def memory_kib(cpus: int) -> float:
    """Returns what a run adds to the memory of a process, for each CPU with its thread."""
    command = [sys.executable, "-c", CHILD, str(cpus)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout) / cpus


def bench_memory() -> None:
    # Each thread touches as many pages as any other, so CPUs and pages grow together.
    few, many = memory_kib(128), memory_kib(1024)
    measured = f"{many:.0f} KiB each at 1024, {few:.0f} at 128"
    whole = many * 1024 * 1024 / 1e9
    what = "vtime: memory of ebizzy at 1024 CPUs"
    against_bar(what, f"{whole:.2f} GB", "< 1 GB", met=whole < 1)
    what = "vtime: memory for a CPU and its pages"
    against_bar(what, measured, "no more at 1024 than at 128", met=many <= few)
