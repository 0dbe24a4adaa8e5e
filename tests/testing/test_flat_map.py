"""Generated programs on the reference model, judged by the flat map and by counting rules.

The flat map knows what system calls and accesses promise and nothing of faults; the counting rules
are the identities of SPF_V12 section 8. Both are other authorities than the model itself.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spfemu.profiles import Arch
from spfemu.program import EVENTS, OPS, Program
from spfemu.program.ops import ADVICES
from spfemu.reference import run
from spfemu.results import Result
from spfemu.testing import disjoint_programs, programs
from tests.reference.arches import ARCHES
from tests.testing.flat_model import Expected, FlatMap

EVENT = {name: number for number, name in enumerate(EVENTS)}
ACCESSES = [OPS[name].code for name in ("read", "write", "execute", "touch")]
POPULATING = [EVENT["pgfault"], EVENT["pgmajfault"]]
"""What moves when pages are brought in without a hardware fault."""
SPF_EVENTS = [EVENT[name] for name in EVENTS if name.startswith("pagefault:")]

arches = pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
handlers = st.sampled_from(("spf", "classic"))
seeds = st.integers(0, 1 << 16)

_KEEPS_PROMISES = {"L3": "fixed"}
"""Without a bug of 5.1 that lets one process give up a page for another."""


def is_followed(program: Program) -> bool:
    """Whether the flat map follows it.

    userfaultfd splits mappings, and its faults are major; truncation leaves what is in swap; the
    OOM reaper leaves what nobody promises, and a memory cgroup how much there is.
    """
    ops = np.concatenate([task.ops for task in program.tasks])
    pages_out = (ops["op"] == OPS["madvise"].code) & (ops["advice"] == ADVICES.index("pageout"))
    swaps = pages_out.any() or (ops["op"] == OPS["swap_out"].code).any()
    truncates = (ops["op"] == OPS["truncate"].code).any()
    limited = program.system.memcg is not None
    followed = not np.isin(ops["op"], _NOT_FOLLOWED).any()
    return followed and not limited and not (swaps and truncates)


_NOT_FOLLOWED = [OPS[name].code for name in ("uffd_register", "uffd_unregister", "oom_reap")]


def assert_promises_kept(program: Program, result: Result, flat: FlatMap) -> None:
    stuck = flat.run()
    assert list(result.stuck) == stuck
    for number, task in enumerate(program.tasks):
        outcomes = [result.outcome(row) for row in result.task_ops(number)]
        expected = flat.tasks[task.name].expected
        for outcome, wanted in zip(outcomes, expected, strict=True):
            place = f"{program.where(number, wanted.index)} {outcome}"
            assert (outcome["index"], outcome["round"]) == (wanted.index, wanted.round), place
            assert outcome.get("access", 0) == wanted.access, place
            assert_kept(outcome, wanted, place)
    for process in flat.processes:
        assert covered(result.maps[process.name]) == process.maps


def assert_kept(outcome: dict[str, object], wanted: Expected, place: str) -> None:
    if wanted.signal is None:
        assert outcome["ret"] == wanted.ret, place
        assert outcome["errno"] == wanted.errno, place
        assert outcome["value"] == wanted.value, place
        assert outcome["signal"] is None, place
        assert not outcome["livelock"], place
        return
    if outcome["livelock"]:  # C2: the access is refused, but nobody is told
        assert wanted.signal == "SIGSEGV", place
        assert not wanted.codes, place
        return
    assert outcome["signal"] == wanted.signal, place
    assert outcome["ret"] is None, place
    assert outcome["value"] is None, place
    if wanted.codes:
        assert outcome["si_code"] in wanted.codes, place


def covered(lines: list[str]) -> list[tuple[int, int, str]]:
    found: list[tuple[int, int, str]] = []
    for line in lines:
        span, perms, _ = line.split()
        start, end = (int(part, 16) for part in span.split("-"))
        if found and found[-1][1:] == (start, perms):
            found[-1] = (found[-1][0], end, perms)
        else:
            found.append((start, end, perms))
    return found


def assert_counted(result: Result, arch: Arch) -> None:
    """The identities of SPF_V12 section 8, access by access."""
    rows = result.ops
    counters = rows["counters"].astype(np.int64)
    count = {name: counters[:, number] for name, number in EVENT.items()}
    access = np.isin(rows["op"], ACCESSES)
    assert not np.delete(counters[~access], POPULATING, axis=1).any(), "only accesses fault"
    assert (counters.sum(axis=0) == [result.counters[name] for name in EVENTS]).all()
    assert not count["pagefault:spf_vma_noanon"].any(), "v12 never says noanon"
    assert not count["pagefault:spf_pmd_changed"].any(), "nothing runs at the same time"
    events = counters[:, SPF_EVENTS].sum(axis=1)
    assert (events + count["speculative_pgfault"] <= count["faults"]).all()
    verdicts = count["pagefault:spf_vma_access"]
    if arch.family != "powerpc":
        assert (count["spf"] == count["speculative_pgfault"] + verdicts).all()
    else:  # a SIGSEGV is asked for again, the classic way
        assert (count["spf"] == count["speculative_pgfault"]).all()
    settled = count["minor-faults"] + count["major-faults"]
    assert (settled <= count["faults"]).all()
    failed = (rows["signal"] != 0) | ((rows["errno"] != 0) & access)
    refused = failed & (count["faults"] == 0)  # beyond user space, before anything is counted
    assert not rows["handled"][refused].any()
    assert (settled[access] == (count["faults"] - (failed & ~refused))[access]).all()
    # What is read speculatively, from a synchronous device, counts as minor.
    read_speculatively = (count["pgmajfault"] - count["major-faults"])[access]
    assert ((read_speculatively >= 0) & (read_speculatively <= count["spf"][access])).all()
    if result.program.system.swap.kind == "normal":
        assert not read_speculatively.any()
    if result.handler == "classic":
        assert not count["spf"].any()
        assert not events.any()


@arches
@given(data=st.data(), handler=handlers, seed=seeds)
def test_sequential_programs_do_what_is_promised_in_any_order(
    arch: Arch, data: st.DataObject, handler: str, seed: int
) -> None:
    program = data.draw(programs(arch=arch, limits=False).filter(is_followed), "program")
    result = run(program, handler=handler, arch=arch, variants=_KEEPS_PROMISES)
    assert_promises_kept(program, result, FlatMap(program, arch, seed, result))


@arches
@given(data=st.data(), handler=handlers)
def test_counts_follow_from_each_other(arch: Arch, data: st.DataObject, handler: str) -> None:
    program = data.draw(programs(arch=arch).filter(is_followed), "program")
    assert_counted(run(program, handler=handler, arch=arch), arch)


@arches
@given(data=st.data(), handler=handlers, seed=seeds)
def test_disjoint_programs_do_what_is_promised_in_any_order(
    arch: Arch, data: st.DataObject, handler: str, seed: int
) -> None:
    program = data.draw(disjoint_programs(arch=arch), "program")
    result = run(program, handler=handler, arch=arch, variants=_KEEPS_PROMISES)
    assert_promises_kept(program, result, FlatMap(program, arch, seed, result))
