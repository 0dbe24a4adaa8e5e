"""The executable specification: a pure-Python model of the kernel's fault path and its writers.

It predicts outcomes, values, maps and counters of a program whose tasks run one after another,
for both handlers and all arches, and shares no code with the compiled core. `faults` is the place
to start reading, then `vma_ops` and `syscalls`; `model` has the data, `machine` the tasks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from spfemu.errors import EngineError, ProgramError
from spfemu.program import EVENTS, OPS, OUTCOME_DTYPE, Program
from spfemu.reference.huge_pages import has_transparent_hugepage
from spfemu.reference.kernel import Kernel
from spfemu.reference.machine import Machine
from spfemu.reference.model import Frames, SyscallError
from spfemu.reference.protection_keys import with_keys
from spfemu.results import Result

if TYPE_CHECKING:
    from spfemu.profiles import Arch

__all__ = ["run"]

NEWER = (
    "wiped",
    "stack",
    "grown",
    "heap",
    "uncharged",
    "touched",
    "alone",
    "lowest",
    "writable",
    "several",
    "nothing",
    "onfault",
    "guard",
)


def run(
    program: Program,
    *,
    handler: str = "spf",
    tree: str = "rcu",
    arch: Arch,
    seed: int = 0,
    max_outcomes: int = 10_000_000,
    proc: bool = False,
    variants: Mapping[str, str] | None = None,
    newer: Collection[str] = (),
) -> Result:
    """Runs a program on the model and returns what came of it.

    The tasks run in file order, each until it waits or ends, round after round. Nothing takes any
    time. Operations that overlap in other engines never do here, so only a program whose outcomes
    do not depend on the interleaving has the same outcomes everywhere.

    Source: ours, after Linux 5.1 and SPF_V12 sections 0 to 5, 7 and 8; docs/semantics.md says what
    is decided where these leave room.

    Args:
        program: what to run.
        handler: "spf" (default) or "classic".
        tree: "rcu" (default) or "rwlock"; goes into the result: only who runs at the same time as
            another can see what protects a tree.
        arch: the machine's profile; its page size must be the program's.
        seed: goes into the result; the model draws nothing.
        max_outcomes: how many outcomes may be kept.
        proc: whether the result has what `/proc/PID` said in the end.
        variants: names, or entries of SPF_V12 section 9, to "v12" (default) or "fixed". Only C2,
            C3, C8 and L3 can be seen without concurrency.
        newer: rules of newer kernels, of "wiped" (since 5.7 what is wiped at fork has no anon_vma),
            "stack" (since 6.7 it is nohugepage), "grown" (since 5.19 what mremap lets grow in place
            merges), "heap" (since 6.1 the heap joins nothing below its start), "uncharged" (since
            6.7 mprotect uncharges what was not touched), "touched" (since 6.16 it joins what was
            not), "alone" (in 6.18 a file's last page is not mapped around what is beyond it, if it
            would be alone in a new page table), "lowest" (where CONFIG_LSM_MMAP_MIN_ADDR is
            65536: nothing grows below it, or gets an anon_vma there, and hints are raised to it),
            "writable" (since 6.1 mprotect makes private pages writable at once that no fork has
            shared), "several" (since 6.17 mremap moves several VMAs if it does nothing else),
            "nothing" (since 5.16 mremap of what is not mapped is EFAULT before anything is done),
            "onfault" (since 5.18 mlock with onfault does not look whether pages may be accessed),
            and "guard" (since 6.1 nothing is put right above where the guard gap of a stack begins,
            whatever lies between).

    Returns:
        The result; `stuck` names the tasks that wait for ever.

    Raises:
        ProgramError: the page sizes differ; choose another arch. Or there is no memory for the
            first address space; give it more.
        EngineError: a `repeat` has `for_ns` and no `max_count`; give it one. Or there are more
            outcomes than `max_outcomes`.

    Determinism: program, handler, arch, variants and newer fix the result.

    >>> from spfemu import Program, arch
    >>> from spfemu.reference import run
    >>> program = Program.loads('''{"format": "spfemu-program/1", "tasks": [{"ops": [
    ...     {"op": "mmap", "length": "64K", "id": "p"}, {"op": "write", "addr": "p", "value": 7},
    ...     {"op": "read", "addr": "p"}]}]}''')
    >>> result = run(program, arch=arch("x86"))
    >>> result.counters["faults"], int(result.ops["value"][-1])
    (1, 7)
    """
    if handler not in ("spf", "classic"):
        raise EngineError(f"handler: {handler!r} (allowed: spf, classic)")
    if unknown := sorted({*newer} - {*NEWER}):
        raise EngineError(f"newer: {unknown[0]!r} (allowed: {', '.join(NEWER)})")
    _check_page_size(program, arch)
    _check_repeats(program)
    kernel = _boot(program, handler, arch, variants or {})
    kernel.newer = newer
    machine = Machine(program, kernel, max_outcomes, proc)
    try:
        stuck = machine.run()
    except SyscallError:  # only the first address space is made outside an operation
        raise ProgramError(
            f"{program.source}: key 'memory': value {program.system.memory} "
            f"(allowed on arch {arch.name}: room for a page table and the zero page at least)"
        ) from None
    rows = [tuple(outcome) for task in machine.tasks for outcome in task.outcomes]
    return Result(
        program=program,
        engine="reference",
        handler=handler,
        arch=arch.name,
        machine=None,
        seed=seed,
        elapsed_ns=0,
        counters=dict(zip(EVENTS, kernel.counters, strict=True)),
        ops=np.array(rows, dtype=OUTCOME_DTYPE),
        maps={process.name: process.maps for process in machine.processes},
        proc={process.name: process.proc for process in machine.processes} if proc else {},
        rounds=tuple(task.timed_rounds for task in machine.tasks),
        stuck=tuple(stuck),
        settings={"variants": dict(variants or {})} | ({"tree": tree} if handler == "spf" else {}),
        note_maps=machine.note_maps,
    )


def _boot(program: Program, handler: str, arch: Arch, variants: Mapping[str, str]) -> Kernel:
    """A kernel with the program's `system`. The zero page takes the first frame."""
    system = program.system
    frames = Frames((system.memory >> arch.page_shift) - 1)
    kernel = Kernel(
        with_keys(arch, system),
        handler,
        frames,
        variants,
        system.mmap_min_addr,
        swap_settings=system.swap,
    )
    kernel.stack_limit = system.stack_limit
    kernel.mem_keys = system.has("PPC_MEM_KEYS", arch.family)
    kernel.have_move_pmd = system.has("HAVE_MOVE_PMD", arch.family)
    kernel.numa = system.has("NUMA", arch.family)
    kernel.nodes = system.nodes
    kernel.thp_config = system.has("THP", arch.family)
    if kernel.thp_config and has_transparent_hugepage(arch):
        kernel.thp = system.thp
    if system.hugetlb_pages is not None:
        kernel.hugetlb.free = system.hugetlb_pages
    if system.memcg is not None:
        kernel.frames.memcg = system.memcg >> arch.page_shift
    kernel.sysctl.update(system.sysctl)
    return kernel


def _check_page_size(program: Program, arch: Arch) -> None:
    page_size = 1 << arch.page_shift
    if program.page_size != page_size:
        raise ProgramError(
            f"{program.source}: key 'page_size': value {program.page_size} "
            f"(allowed on {arch.name}: {page_size})"
        )


def _check_repeats(program: Program) -> None:
    repeat = OPS["repeat"].code
    for number, task in enumerate(program.tasks):
        for index, record in enumerate(task.ops):
            if record["op"] == repeat and record["flags"] & 1 and not record["length2"]:
                raise EngineError(
                    f"{program.source}: {program.where(number, index)}: key 'for_ns': "
                    "has no end without time (give 'max_count' too on engine reference)"
                )
