"""The strategies: what comes up, how it shrinks, what is refused."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from spfemu import EVENTS, Program, ProgramError
from spfemu.program.ops import FORMAT, OPS, PAGE_SIZES
from spfemu.reference import fork, ksm, mremap, pte_faults, reclaim, run
from spfemu.reference.swap import Swap
from spfemu.results import Result
from spfemu.testing import disjoint_programs, operations, programs
from tests.reference.arches import ARCHES, ARM64, POWERPC, X86

ROOT = Path(__file__).parents[2]
HANDING_OVER = {"post", "await", "barrier", "wait", "repeat"}
NEVER = {"pagefault:spf_vma_noanon", "pagefault:spf_pmd_changed"}


def flat(ops: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for op in ops:
        yield op
        if op["op"] == "repeat":
            yield from flat(op["ops"])


def all_ops(program: Program) -> list[dict[str, Any]]:
    return [op for task in program.to_dict()["tasks"] for op in flat(task["ops"])]


@given(data=st.data(), tasks=st.integers(1, 6), max_ops=st.integers(1, 120))
def test_programs_keep_to_their_limits(data: st.DataObject, tasks: int, max_ops: int) -> None:
    arch = data.draw(st.sampled_from(ARCHES))
    program = data.draw(programs(arch=arch, tasks=tasks, max_ops=max_ops))
    assert 1 <= len(program.tasks) <= tasks
    assert program.page_size == arch.page_size
    starting = {"fork", "vfork", "clone", "exec", "exit"}
    drawn = [op for op in all_ops(program) if op["op"] not in HANDING_OVER | starting]
    assert len(drawn) <= max_ops
    assert Program.from_dict(program.to_dict()) == program


@given(data=st.data(), tasks=st.integers(2, 6), max_ops=st.integers(1, 40))
def test_disjoint_tasks_stay_in_their_windows(
    data: st.DataObject, tasks: int, max_ops: int
) -> None:
    program = data.draw(disjoint_programs(arch=X86, tasks=tasks, max_ops=max_ops))
    threads = [task for task in program.to_dict()["tasks"] if "start" not in task]
    assert 2 <= len(threads) <= tasks
    windows: list[tuple[int, int]] = []
    for task in threads:
        ranges = [
            (int(op["addr"], 16), op.get("length", 1))
            for op in flat(task["ops"])
            if op.get("addr", "heap")[:4] != "heap"
        ]
        if ranges:
            first = min(start for start, _ in ranges)
            windows.append((first, max(start + length for start, length in ranges)))
    windows.sort()
    page = X86.page_size
    for (_, end), (start, _) in pairwise(windows):
        assert end // page <= -(-start // page)


def watch_ksm(patch: pytest.MonkeyPatch, seen: Counter[str]) -> None:
    """Counts in ``seen`` what the reference does to pages that KSM has merged."""

    def watch(where: Any, name: str, met: Callable[..., bool], what: str) -> None:
        original = getattr(where, name)

        def watched(*args: Any, **settings: Any) -> Any:
            seen[what] += met(*args)
            return original(*args, **settings)

        patch.setattr(where, name, watched)

    def any_merged(mm: Any, start: int, end: int) -> bool:
        return any(pte.page.merged for _, pte in mm.page_tables.present(start, end))

    watch(ksm, "_replace", lambda *_: True, "KSM merges")
    watch(pte_faults, "do_wp_page", lambda _, pte: pte.page.merged, "KSM write")
    watch(reclaim, "shrink_page", lambda _, page: page.merged, "KSM swap_out")
    watch(Swap, "unmap", lambda _, pte: pte.page.merged, "KSM unmap")
    watch(mremap, "unmerge", lambda _, mm, vma, *part: any_merged(mm, *part), "KSM mremap")
    watch(
        fork, "_copy_page_range", lambda _, mm, child, vma: any_merged(mm, vma.start, vma.end),
        "KSM fork",
    )  # fmt: skip


def test_what_matters_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()
    watch_ksm(monkeypatch, seen)
    wanted = {f"event {event}" for event in EVENTS} - {f"event {event}" for event in NEVER}
    wanted |= {
        *("SIGSEGV SEGV_MAPERR spf", "SIGSEGV SEGV_MAPERR classic", "SIGSEGV SEGV_ACCERR classic"),
        *("SIGBUS BUS_ADRERR classic", "livelock", "stuck"),
        *("mmap EINVAL", "mmap ENOMEM", "mmap EPERM", "mmap EEXIST", "mmap EOVERFLOW"),
        *("munmap EINVAL", "mprotect EINVAL", "mprotect ENOMEM", "madvise EINVAL"),
        *("madvise ENOMEM", "brk ENOMEM", "sysctl EINVAL", "read EFAULT", "write EFAULT"),
        *("start fork", "start vfork", "start clone", "exec", "exit", "wait", "barrier", "await"),
        *("KSM merges", "KSM write", "KSM swap_out", "KSM unmap", "KSM mremap", "KSM fork"),
        *("file regular", "file shmem", "file devzero", "in a loop", "copied", "beside it"),
    }

    @settings(max_examples=1600, database=None, phases=[Phase.generate], derandomize=True)
    @given(data=st.data(), handler=st.sampled_from(("spf", "spf", "classic")))
    def look(data: st.DataObject, handler: str) -> None:
        arch = data.draw(st.sampled_from((X86, POWERPC, ARM64)))
        program = data.draw(programs(arch=arch))
        if wanted <= set(+seen):
            return  # the others could only add to it
        result = run(program, handler=handler, arch=arch)
        seen.update(features(program, result))

    look()
    assert wanted - set(+seen) == set()


def features(program: Program, result: Result) -> set[str]:
    """What one program has or does."""
    found = {f"event {event}" for event, count in result.counters.items() if count}
    found |= {f"start {task.start}" for task in program.tasks}
    found |= {op["op"] for op in all_ops(program)}
    found |= {f"file {file.kind}" for file in program.files}
    if result.stuck:
        found.add("stuck")
    for outcome in result.outcomes():
        if outcome["errno"]:
            found.add(f"{outcome['op']} {outcome['errno']}")
        if outcome["signal"]:
            found.add(f"{outcome['signal']} {outcome['si_code']} {outcome['handled']}")
        if outcome["livelock"]:
            found.add("livelock")
        if outcome["round"]:
            found.add("in a loop")
        if outcome["op"] == "write" and outcome["counters"].get("spf") and len(result.maps) > 1:
            found.add("copied")
    if any(len(lines) > 3 for lines in result.maps.values()):
        found.add("beside it")
    return found


def smallest_failures(seeds: Iterable[int]) -> list[list[str]]:
    """Returns, for each seed, the operations of what a failing mprotect shrinks to."""

    def fails(program: Program) -> bool:
        ops = run(program, arch=X86).ops
        return bool(((ops["op"] == OPS["mprotect"].code) & (ops["errno"] == errno.ENOMEM)).any())

    quietly = settings(max_examples=2000, database=None, suppress_health_check=list(HealthCheck))
    found = (
        find(programs(arch=X86), fails, settings=quietly, random=Random(seed)) for seed in seeds
    )
    return [[op["op"] for op in all_ops(program)] for program in found]


# Half a minute of CPU time, which takes minutes where others want the CPU too.
@pytest.mark.timeout(900)
def test_a_failure_shrinks_to_the_operation_that_fails() -> None:
    # Hypothesis tries constants of all loaded modules, so which minimum it ends in depends on what
    # else was imported: a process of its own has always the same ones loaded. Now and then it is
    # one from which no single step leads further.
    command = (
        "from tests.testing.test_programs import smallest_failures as found; "
        "import json; print(json.dumps(found(range(5))))"
    )
    found = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    smallest = json.loads(found.stdout)
    assert all(names[-1] == "mprotect" for names in smallest)
    # By itself, or with one more before it.
    assert sum(len(names) <= 2 for names in smallest) >= 3, smallest


@given(data=st.data())
def test_operations_fit_into_programs(data: st.DataObject) -> None:
    arch = data.draw(st.sampled_from(ARCHES))
    drawn = data.draw(st.lists(operations(arch=arch, ids=("p",), files=("f",)), max_size=8))
    start = {"op": "mmap", "length": arch.page_size, "id": "p"}
    program = Program.from_dict(
        {
            "format": FORMAT,
            "page_size": arch.page_size,
            "system": {"thp": "never"},
            "files": {"f": {"length": "256K"}},
            "tasks": [{"ops": [start, *drawn]}],
        }
    )
    assert len(program.tasks[0].ops) == 1 + len(drawn)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: programs(tasks=0), "programs: tasks: value 0 (allowed: 1 to 64)"),
        (lambda: programs(max_ops=True), "programs: max_ops: value True (allowed: 1 to 10000)"),
        (
            lambda: disjoint_programs(tasks=1),
            "disjoint_programs: tasks: value 1 (allowed: 2 to 64)",
        ),
        (
            lambda: disjoint_programs(max_ops=0),
            "disjoint_programs: max_ops: value 0 (allowed: 1 to 10000)",
        ),
    ],
)
def test_numbers_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ProgramError) as caught:
        make()
    assert str(caught.value) == message


def test_arches_have_page_sizes_of_programs() -> None:
    assert {arch.page_size for arch in ARCHES} <= set(PAGE_SIZES)
