"""Bar: SimPy takes at least 50 times as long for a cell of a sweep, ebizzy -mTt 48, spf, x86-48.

What it is compared with is `simpy_twin.py`, in two ways: as one writes it, with an event for each
access, and with the most that can be done about it, accesses that hit only move their thread's own
clock. Both simulate the same stretch, one after the other; rates are faults a second of CPU time,
start included: both work on one thread.
"""

from __future__ import annotations

import statistics
import time

import pytest

from benches.bench_vtime import ebizzy
from benches.simpy_twin import simulate
from benches.table import against_bar
from spfemu.machines import find_machine

ROUNDS = 3
MACHINE, CPUS, SECONDS = "x86-48", 48, 0.05


def twin(*, eager: bool) -> float:
    """Returns the faults of the twin's run for each CPU second that it took."""
    start = time.process_time()
    world = simulate(find_machine(MACHINE), CPUS, SECONDS, eager=eager)
    return world.faults / (time.process_time() - start)


@pytest.mark.parametrize(
    ("eager", "how"), [(True, "an event for each access"), (False, "hits without an event")]
)
def bench_simpy(*, eager: bool, how: str) -> None:
    ours, theirs, ratios = [], [], []
    for _ in range(ROUNDS):
        faults, took = ebizzy(MACHINE, CPUS, SECONDS)
        ours.append(faults / took)
        theirs.append(twin(eager=eager))
        ratios.append(ours[-1] / theirs[-1])
    ratio = statistics.median(ratios)
    what = f"vtime: faults/s at {CPUS} CPUs, {statistics.median(ours):,.0f}, to SimPy's, {how}"
    measured = f"{statistics.median(theirs):,.0f}/s, {ratio:.1f}x"
    against_bar(what, measured, ">= 50x", met=ratio >= 50)
