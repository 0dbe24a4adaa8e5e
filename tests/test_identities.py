"""What counters have to do with each other, whatever a program does. Source: SPF_V12 section 8."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import spfemu
from spfemu.program import EVENTS
from spfemu.program.expect import ERRNOS
from spfemu.program.model import System
from spfemu.program.ops import OPS
from spfemu.testing import disjoint_programs, programs

ABORTS = [event for event in EVENTS if event.startswith("pagefault:")]
ACCESSES = [OPS[name].code for name in ("read", "write", "execute", "touch")]
how = st.fixed_dictionaries(
    {"variants": st.sampled_from((None, {"C3": "fixed"})), "seed": st.integers(0, 99)}
)
engines = pytest.mark.parametrize("engine", ["native", "reference", "vtime", "explore"])
arches = pytest.mark.parametrize("arch", ["x86", "powerpc", "arm64"])


def check_sums(result: spfemu.Result) -> None:
    counters = result.counters
    ops = result.ops[np.isin(result.ops["op"], ACCESSES)]
    # Each fault is accounted as one or the other, or ends its access in a signal or an error;
    # addresses that are no user's may do so without a fault.
    ended = (ops["signal"] != 0) | (ops["errno"] == ERRNOS["EFAULT"])
    failed = int((ended & (ops["counters"][:, EVENTS.index("faults")] != 0)).sum())
    assert counters["faults"] == counters["minor-faults"] + counters["major-faults"] + failed
    # Who came to an end speculatively did not go through handle_mm_fault.
    assert counters["pgfault"] >= counters["faults"] - counters["spf"] - failed
    assert counters["pagefault:spf_vma_noanon"] == 0
    # The outcomes have all of it.
    per_op = result.ops["counters"].sum(axis=0, dtype=np.int64)
    assert dict(zip(EVENTS, per_op.tolist(), strict=True)) == dict(counters)


def check_speculation(result: spfemu.Result, *, si_code_fixed: bool) -> None:
    counters = result.counters
    attempts = counters["speculative_pgfault"] + sum(counters[event] for event in ABORTS)
    assert attempts <= counters["faults"]
    accepted = counters["speculative_pgfault"]
    if not result.arch.startswith("powerpc") and not si_code_fixed:
        # SIGSEGV verdicts leave before the vmstat counter; powerpc asks the classic handler.
        accepted += counters["pagefault:spf_vma_access"]
    assert counters["spf"] == accepted
    assert (result.ops["handled"] == 1).sum() <= counters["spf"]


@engines
@arches
@given(data=st.data(), how=how)
def test_of_sequential_programs(
    engine: str, arch: str, data: st.DataObject, how: dict[str, Any]
) -> None:
    check(data.draw(programs(arch=arch)), engine, arch, how)


@engines
@arches
@given(data=st.data(), how=how)
def test_of_tasks_side_by_side(
    engine: str, arch: str, data: st.DataObject, how: dict[str, Any]
) -> None:
    check(data.draw(disjoint_programs(arch=arch)), engine, arch, how)


def check(program: spfemu.Program, engine: str, arch: str, how: dict[str, Any]) -> None:
    result = spfemu.run(program, engine=engine, arch=arch, **how)
    check_sums(result)
    check_speculation(result, si_code_fixed=how["variants"] is not None)
    classic = spfemu.run(program, engine=engine, arch=arch, handler="classic", **how)
    check_sums(classic)
    silent = [*ABORTS, "spf", "speculative_pgfault"]
    assert [classic.counters[event] for event in silent] == [0] * len(silent)


def test_powerpc_without_memory_keys_accepts_nothing() -> None:
    # C8: the work is done, the classic fault runs and finds it done; vmstat counts, perf does not.
    builder = spfemu.ProgramBuilder(system=System(config={"PPC_MEM_KEYS": False}), page_size=65536)
    task = builder.task()
    other = builder.task(start="clone")
    task.clone(other)
    task.mmap(8 * 65536, id="p")
    task.touch("p", 8 * 65536)
    counters = spfemu.run(builder.build(), engine="vtime", arch="powerpc").counters
    assert counters["speculative_pgfault"] == 7
    assert (counters["spf"], counters["faults"], counters["pgfault"]) == (0, 8, 8)
