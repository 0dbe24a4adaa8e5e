"""The engine ``kernel``: a program on the host's own kernel, in processes that are traced."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spfemu.errors import EngineError, ProgramError
from spfemu.oracle.host import Host, host
from spfemu.profiles import Arch
from spfemu.program.messages import out_of_range, placed
from spfemu.program.model import Program, System
from spfemu.program.ops import (
    ACCESSES,
    ADVICES,
    MMAP_FLAGS,
    MODES,
    OPS,
    OPS_BY_CODE,
    OUTCOME_DTYPE,
)
from spfemu.program.values import shown
from spfemu.results import Result

__all__ = ["COUNTINGS", "DEFAULT_TIMEOUT_S", "HANDLER", "run"]

DEFAULT_TIMEOUT_S: Final = 60.0
"""Seconds after which everything is killed."""

COUNTINGS: Final = ("best", "perf", "perf-user", "stat")
"""Where faults are counted, see ``run``."""

HANDLER: Final = "host"
"""What results say of who handles faults: it is not known how the host does it."""

_CHANGES_HOST: Final = (
    "sysctl",
    "swap_out",
    "collapse",
    "numa_scan",
    "ksm_scan",
    "clear_refs",
    "migrate",
    "oom_reap",
    "rebind",
    "notifier",
    "uffd_register",
    "uffd_unregister",
)
"""What the kernel does by itself for all, or what needs somebody else than the program."""

_OF_THE_HOST: Final = {
    "pageout": "it depends on the host's swap and on who else uses it",
    "mergeable": "what is merged is up to the host's ksmd",
    "unmergeable": "what is merged is up to the host's ksmd",
}
"""Advices that only the host's own state gives a meaning to."""

_MAX_FILE: Final = np.uint64(1 << 44)
"""The length that ext4 does not give a file, bytes. Source: ext4(5), with blocks of 4 KiB."""

_MAX_TIMEOUT_S: Final = 1e9


def run(
    program: Program,
    *,
    arch: Arch,
    seed: int = 0,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    counting: str = "best",
    max_memory: int | None = None,
    progress: Callable[[float], object] | None = None,
) -> Result:
    """Runs a program on the host's own kernel and returns what came of it.

    Each process of the program is a process of the host, each task a thread; all are traced, and
    killed when this call ends, however it ends. They are no risk for the caller: a process whose
    memory is gone only gets signals. Transparent huge pages are off for them, addresses are not
    randomised if the host permits it, and they have no privileges. Tasks run one at a time, in file
    order, each until it waits or ends.

    An access gives what the processor gave: the value, or signal and si_code, and how many page
    faults it had. ``handled`` is always "none", for the host does not tell. The counters are
    ``faults``, ``minor-faults`` and ``major-faults`` of accesses. ``maps`` are what
    ``/proc/PID/maps`` says without the one page that the engine needs in each process.

    Source: ours.

    Args:
        program: what to run. Its files are made anew, on a disk (TMPDIR) or in memory.
        arch: a profile of the x86 family with pages of 4096 bytes and page tables of four levels.
        seed: goes into the result; nothing is drawn.
        timeout_s: seconds after which everything is killed (default 60).
        counting: "perf" counts every fault, "perf-user" not those in the kernel (mode kernel),
            "stat" only those that were settled; "best" (default) is the first that is permitted.
        max_memory: the most that the processes may have together, bytes; more ends the run
            (default: half of what the host has available).
        progress: called with the share of the work done, 0 to 1.

    Returns:
        The result; ``settings`` has ``kernel`` (the host's release), ``mmap_min_addr`` and what
        else the comparison asks of the host, ``counting``, ``timeout_s`` and ``island``, the
        address of the engine's page.

    Raises:
        ProgramError: an operation or setting would change the host, or is not possible there; the
            message names it. Leave it out.
        EngineError: the host is no Linux on x86-64, does not permit tracing, or time or memory
            was up.

    Determinism: the host's. Kernel-chosen addresses depend on it.

    >>> from spfemu import Program, arch
    >>> from spfemu.oracle import run
    >>> program = Program.loads('''{"format": "spfemu-program/1", "tasks": [{"ops": [
    ...     {"op": "mmap", "length": "64K", "id": "p"}, {"op": "write", "addr": "p", "value": 7},
    ...     {"op": "read", "addr": "p"}]}]}''')
    >>> result = run(program, arch=arch("x86"))
    >>> result.counters["faults"], int(result.ops["value"][-1])
    (1, 7)
    """
    options: dict[str, Any] = {
        "timeout_s": _seconds(timeout_s),
        "counting": counting,
        "max_memory": _bytes(max_memory),
    }
    if arch.family != "x86" or arch.page_size != 4096 or len(arch.levels) != 4:
        raise EngineError(f"engine kernel: arch {arch.name} (allowed: x86)")
    found = host()
    _refuse(program, found)
    return _run(program, arch, found, seed, options, progress)


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and 0 < value <= _MAX_TIMEOUT_S:
        return float(value)
    raise EngineError(f"timeout_s: value {shown(value)} (allowed: above 0, to 1e9 seconds)")


def _bytes(value: object) -> int | None:
    if value is None or (type(value) is int and 0 < value < 1 << 64):
        return value
    raise EngineError(f"max_memory: value {shown(value)} (allowed: 1 and more bytes)")


def _run(
    program: Program,
    arch: Arch,
    found: Host,
    seed: int,
    options: dict[str, Any],
    progress: Callable[[float], object] | None,
) -> Result:
    from spfemu import __version__, _core

    notes = [list(place) for place, e in program.expect.items() if "maps_lines" in e]
    try:
        summary_text, outcomes = _core.oracle(
            [task.ops.view(np.uint8) for task in program.tasks],
            json.dumps(program.meta()),
            json.dumps({**options, "note_maps": notes}),
            progress,
        )
    except (ProgramError, EngineError) as error:
        raise type(error)(f"{placed(program, str(error))} (engine kernel)") from None
    summary = json.loads(summary_text)
    return Result(
        program=program,
        engine="kernel",
        handler=HANDLER,
        arch=arch.name,
        machine=None,
        seed=seed,
        elapsed_ns=summary["elapsed_ns"],
        counters=summary["counters"],
        ops=outcomes.view(OUTCOME_DTYPE),
        maps=summary["maps"],
        rounds=tuple(summary["rounds"]),
        stuck=tuple(summary["stuck"]),
        settings={
            "kernel": found.release,
            "kernel_version": list(found.version),
            "overcommit": found.overcommit,
            "memory": found.memory,
            "mmap_min_addr": found.mmap_min_addr,
            "lowest_hint": found.lowest_hint,
            "max_locked": found.max_locked,
            "timeout_s": options["timeout_s"],
            **summary["settings"],
        },
        version=__version__,
        note_maps={
            (note["task"], note["index"], note["round"]): note["maps"]
            for note in summary["note_maps"]
        },
        turns=tuple((task, count) for task, count in summary["turns"]),
    )


# --- what is refused -----------------------------------------------------------------------------


def _refuse(program: Program, found: Host) -> None:
    for place, message in _unsuitable(program, found):
        raise ProgramError(f"{program.source}: {place}{message} (engine kernel)")


def _unsuitable(program: Program, found: Host) -> Iterator[tuple[str, str]]:
    """Yields (place, message) of what the host cannot or should not do."""
    system, default = program.system, System()
    if system.memory != default.memory:
        yield "", "key 'memory': the host's memory is not limited"
    if system.swap != default.swap:
        yield "", "key 'swap': the host has its own"
    if system.memcg is not None:
        yield "", "key 'memcg': the host's cgroups are not ours"
    if system.sysctl:
        yield "", "key 'sysctl': it would change the host"
    if system.thp == "always":
        yield "", "key 'thp': value \"always\" (allowed: madvise, never; there are no huge pages)"
    if system.stack_limit != default.stack_limit:
        allowed = f"{default.stack_limit}, which its layout goes by"
        yield "", out_of_range("stack_limit", system.stack_limit, allowed)
    if system.mmap_min_addr not in (default.mmap_min_addr, found.mmap_min_addr):
        allowed = f"the host's own, {found.mmap_min_addr}"
        yield "", out_of_range("mmap_min_addr", system.mmap_min_addr, allowed)
    keys = "X86_INTEL_MEMORY_PROTECTION_KEYS"
    if system.config.get(keys, found.protection_keys) != found.protection_keys:
        has = "has them" if found.protection_keys else "has none"
        yield "", f"config {keys}: the host {has}"
    for file in program.files:
        if file.kind == "hugetlb":
            yield f"files[{shown(file.name)}]: ", "kind 'hugetlb': there are no huge pages"
        if not file.cached:
            place = f"files[{shown(file.name)}]: "
            yield place, "key 'cached': value false (allowed: true; what is read is the host's)"
    for number, task in enumerate(program.tasks):
        for where, message in _unsuitable_ops(task.ops, has_huge_pages=system.thp != "never"):
            for index in np.flatnonzero(where).tolist():
                op = OPS_BY_CODE[int(task.ops["op"][index])].name
                yield f"{program.where(number, index)}: ", message.format(op=op)


def _unsuitable_ops(
    ops: npt.NDArray[np.void], *, has_huge_pages: bool
) -> Iterator[tuple[npt.NDArray[np.bool_], str]]:
    """Yields (which operations, message, where {op} stands for the operation's name)."""
    madvise = ops["op"] == OPS["madvise"].code
    if has_huge_pages:
        message = "advice 'hugepage': there are no huge pages (allowed: with thp never)"
        yield madvise & (ops["advice"] == ADVICES.index("hugepage")), message
    huge = (ops["op"] == OPS["mmap"].code) & (ops["flags"] & MMAP_FLAGS["hugetlb"] != 0)
    yield huge, "flag 'hugetlb': there are no huge pages"
    for advice, why in _OF_THE_HOST.items():
        yield madvise & (ops["advice"] == ADVICES.index(advice)), f"advice '{advice}': {why}"
    stack = (ops["op"] == OPS["exec"].code) & (ops["length"] != 0)
    yield stack, "key 'stack': what exec leaves there is the engine's (allowed: 0)"
    length = ops["length"].astype(np.uint64)
    # 2^63 and more is EINVAL everywhere.
    is_long = (length >= _MAX_FILE) & (length < np.uint64(1 << 63))
    yield (
        (ops["op"] == OPS["truncate"].code) & is_long,
        "key 'length': a file on the host is not that long (allowed: less than 2^44)",
    )
    changes = np.isin(ops["op"], [OPS[name].code for name in _CHANGES_HOST])
    yield changes, "operation '{op}' would change the host"
    executes = (ops["op"] == OPS["execute"].code) | (
        (ops["op"] == OPS["touch"].code) & (ops["access"] == ACCESSES.index("execute"))
    )
    message = "key 'mode': no system call executes for a task (allowed: user)"
    yield executes & (ops["mode"] == MODES.index("kernel")), message
