"""Bar: SimPy takes at least 50 times as long for a cell of a sweep, ebizzy -mTt 48, spf, x86-48.

What it is compared with is `simpy_twin.py`. Both simulate the same stretch, one after the other;
rates are faults a second of CPU time, start included: both work on one thread.
"""

from __future__ import annotations

import statistics
import time

from benches.bench_vtime import ebizzy
from benches.simpy_twin import simulate
from benches.table import against_bar
from spfemu.machines import find_machine

ROUNDS = 3
MACHINE, CPUS, SECONDS = "x86-48", 48, 0.05


def twin() -> tuple[int, float]:
    """Returns the faults of the twin's run and the CPU seconds that it took."""
    start = time.process_time()
    world = simulate(find_machine(MACHINE), CPUS, SECONDS)
    return world.faults, time.process_time() - start


def bench_simpy() -> None:
    ours, theirs, ratios = [], [], []
    for _ in range(ROUNDS):
        faults, took = ebizzy(MACHINE, CPUS, SECONDS)
        ours.append(faults / took)
        faults, took = twin()
        theirs.append(faults / took)
        ratios.append(ours[-1] / theirs[-1])
    ratio = statistics.median(ratios)
    what = f"vtime: faults/s at {CPUS} CPUs, {statistics.median(ours):,.0f}, against SimPy's"
    measured = f"{statistics.median(theirs):,.0f}/s, {ratio:.1f}x"
    against_bar(what, measured, ">= 50x", met=ratio >= 50)
