"""kernbench, written afresh from its usage text: a kernel compiled by so many jobs at a time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from spfemu.program.builder import ProgramBuilder, TaskBuilder
from spfemu.program.model import Program, System
from spfemu.program.ops import OPS
from spfemu.results import Result
from spfemu.workloads.job import (
    DEFAULT_CPUS,
    KIB,
    MAX_TASKS,
    MIB,
    NS,
    Arguments,
    Job,
    Option,
    round_up,
)

__all__ = ["OPTIONS", "Kernbench", "kernbench_job"]

AROUND: Final = 64 * KIB
"""What a read fault on a file maps around its address, whatever the page size."""

STACK: Final = 132 * KIB
HEAP_STEP: Final = 132 * KIB
"""What malloc moves the break by when it wants a little: the pad of 128 KiB and a page."""
CHUNK: Final = 256 * KIB
"""What the compiler's own allocator maps at a time."""

MILLION: Final = 1_000_000

REPEAT: Final = OPS["repeat"].code
END: Final = OPS["end"].code
COMPUTE: Final = OPS["compute"].code


@dataclass(frozen=True, slots=True)
class _File:
    """A program or library: what is mapped, how much of it is run, and its writable part."""

    text: int
    used: int
    data: int


_FILES: Final = {
    "ld.so": _File(192 * KIB, 128 * KIB, 12 * KIB),
    "libc": _File(1856 * KIB, 640 * KIB, 24 * KIB),
    "libm": _File(1088 * KIB, 64 * KIB, 8 * KIB),
    "libz": _File(128 * KIB, 64 * KIB, 8 * KIB),
    "libmpc": _File(128 * KIB, 64 * KIB, 8 * KIB),
    "libmpfr": _File(512 * KIB, 128 * KIB, 12 * KIB),
    "libgmp": _File(512 * KIB, 64 * KIB, 12 * KIB),
    "libbfd": _File(1280 * KIB, 256 * KIB, 72 * KIB),
    "sh": _File(128 * KIB, 128 * KIB, 12 * KIB),
    "gcc": _File(1088 * KIB, 256 * KIB, 24 * KIB),
    "cc1": _File(24 * MIB, 8 * MIB, 448 * KIB),
    "as": _File(768 * KIB, 256 * KIB, 32 * KIB),
    "fixdep": _File(64 * KIB, 64 * KIB, 8 * KIB),
}


@dataclass(frozen=True, slots=True)
class _Stage:
    """One process of a compilation: libraries, zeroed data, memory that it allocates, CPU time."""

    libraries: tuple[str, ...]
    bss: int
    heap: int
    chunks: int
    user_ns: int


_STAGES: Final = {
    "sh": _Stage(("libc",), 16 * KIB, HEAP_STEP, 0, 1 * MILLION),
    "gcc": _Stage(("libm", "libc"), 32 * KIB, 3 * HEAP_STEP, 0, 2 * MILLION),
    "cc1": _Stage(
        ("libmpc", "libmpfr", "libgmp", "libz", "libm", "libc"),
        1280 * KIB,
        128 * HEAP_STEP,
        112 * CHUNK,
        254 * MILLION,
    ),
    "as": _Stage(("libbfd", "libz", "libc"), 64 * KIB, 40 * HEAP_STEP, 0, 22 * MILLION),
    "fixdep": _Stage(("libc",), 8 * KIB, HEAP_STEP, 0, 1 * MILLION),
}
"""The processes of one compilation. Sizes of files are those of GCC 8 on x86-64, rounded; what is
used of them and the memory are chosen so that the faults of a second of user time are those of the
founding document (525,873,132 in five half and five optimal runs of about 2182 s together)."""


@dataclass(frozen=True, slots=True)
class Kernbench(Job):
    """kernbench: a kernel is compiled; short processes of one thread, ``jobs`` at a time.

    Source: kernbench's usage text, and what ``make`` does in a kernel tree. ``loads`` has the jobs
    of each run, one run after the other (kernbench's half, optimal and maximal load, or one -j);
    ``compilations`` as -c, of each run; ``cpus`` only for how many CPUs it is run on by default.

    ``make`` forks a make for each job, as the kernel's own tree does, and the compilations are
    dealt out to them. Each compilation is a vfork and exec of a shell, which forks the compiler
    driver, which vforks the compiler and then the assembler; at last the shell forks fixdep. Each
    of them execs, maps its loader, itself and its libraries as the loader does (private, from the
    page cache; the writable part apart, half of it read-only in the end), runs what it uses of
    them, writes its data and stack, and uses memory as it computes: by the break in steps of
    132 KiB, the compiler most of it in mappings of 256 KiB, of which it gives every other one
    back. Then it ends. Memory and CPU time of compiler and assembler are drawn anew for each
    compilation, from half to one and a half times the usual.

    About 14,000 faults and 0.28 s of user time each, on x86. A kernel has some thousand
    compilations; here there are few, so that times are smaller than kernbench's while the share of
    faults is the same. Source files are not read, and no pipe joins compiler and assembler. No
    process has threads, so the speculative handler is not tried (W3).

    >>> from spfemu.workloads import Kernbench
    >>> program = Kernbench(loads=(2,), compilations=4).build()
    >>> len(program.tasks), program.tasks[3].start
    (23, 'vfork')
    """

    loads: tuple[int, ...] = (4 * DEFAULT_CPUS,)
    compilations: int = 8 * DEFAULT_CPUS
    cpus: int = 4 * DEFAULT_CPUS

    @property
    def nr_tasks(self) -> int:  # type: ignore[override]
        """On how many CPUs it runs if nobody says. Source: -j, or the CPUs."""
        return self.cpus

    def build(self, *, page_size: int = 4096, seed: int = 0) -> Program:
        """Returns the program. Source: see the class.

        ``page_size`` in bytes (4096); ``seed`` fixes the sizes of the compilations (0).
        Deterministic.
        """
        jobs = max(min(load, self.compilations) for load in self.loads)
        memory = max(System().memory, 1024 * MIB + 2 * jobs * 128 * MIB)
        builder = ProgramBuilder(
            page_size, system=System(memory=memory, thp="never"), source="kernbench"
        )
        for name, file in _FILES.items():
            builder.file(name, file.text + round_up(file.data, AROUND))
        make = builder.task("make")
        make.exec()
        _start(make, "make", "gcc", _STAGES["sh"], page_size)
        for number, load in enumerate(self.loads):
            rng = random.Random(f"kernbench {seed}")  # every run compiles the same
            scales = [rng.uniform(0.5, 1.5) for _ in range(self.compilations)]
            _run(builder, make, f"{number}", min(load, self.compilations), scales)
        return builder.build()

    def figures(self, result: Result) -> dict[str, int | float]:
        """Returns ``elapsed_s`` of all runs, and ``compilations`` and ``user_s`` of theirs.

        Source: kernbench's output (elapsed and user time; system time is not told apart here).
        """
        return {
            "elapsed_s": result.elapsed_ns / NS,
            "compilations": self.compilations * len(self.loads),
            "user_s": computed_ns(result.program) / NS,
        }


def _run(
    builder: ProgramBuilder, make: TaskBuilder, prefix: str, jobs: int, scales: list[float]
) -> None:
    """Appends one run: a make for each job, and the compilations, dealt out to them in turn.

    Task n is on CPU n modulo their number, so tasks are made in the order in which as many
    processes as there are jobs are one after the other on as many CPUs.
    """
    page_size = builder.page_size
    slots = [builder.task(f"make{prefix}.{slot}", "fork") for slot in range(jobs)]
    for first in range(0, len(scales), jobs):
        batch = scales[first : first + jobs]
        stages = {
            stage: [
                builder.task(f"{stage}{prefix}.{first + slot}", "fork" if forked else "vfork")
                for slot in range(len(batch))
            ]
            for stage, forked in (
                ("sh", False),
                ("gcc", True),
                ("cc1", False),
                ("as", False),
                ("fixdep", True),
            )
        }
        for slot, scale in enumerate(batch):
            tasks = {stage: tasks[slot] for stage, tasks in stages.items()}
            slots[slot].vfork(tasks["sh"], wait=True)
            _compilation(tasks, scale, page_size)
    for slot_task in slots:
        make.fork(slot_task)
    for slot_task in slots:
        make.wait(slot_task)


def _compilation(tasks: dict[str, TaskBuilder], scale: float, page_size: int) -> None:
    """Appends what the processes of one compilation do."""
    for stage, task in tasks.items():
        if stage in ("gcc", "fixdep"):  # forked: the child writes its copy of the stack first
            task.write((f"{tasks['sh'].name}.stack", STACK - page_size))
        task.exec()
        _start(task, task.name, stage, _STAGES[stage], page_size)
        if stage == "gcc":
            task.vfork(tasks["cc1"], wait=True)
            task.vfork(tasks["as"], wait=True)
        factor = scale if stage in ("cc1", "as") else 1.0
        _work(task, task.name, _STAGES[stage], factor, page_size)
        if stage == "sh":
            for child in ("gcc", "fixdep"):
                task.fork(tasks[child], wait=True)
                task.write((f"{task.name}.stack", STACK - page_size))


def _start(task: TaskBuilder, name: str, program: str, stage: _Stage, page_size: int) -> None:
    """Appends what the kernel and the loader map, and what a program runs and writes of it."""
    task.mmap(STACK, flags=("private", "anonymous", "stack", "growsdown"), id=f"{name}.stack")
    task.touch((f"{name}.stack", STACK - 3 * page_size), 3 * page_size)
    for file in (program, "ld.so", *stage.libraries):
        known = _FILES[file]
        area = f"{name}.{file}"
        data = round_up(known.data, page_size)
        task.mmap(known.text + data, prot="rx", file=file, id=area)
        task.mmap(
            data,
            flags=("private", "fixed"),
            addr=(area, known.text),
            file=file,
            offset=known.text,
        )
        task.touch((area, 0), known.used, stride=AROUND, access="execute")
        task.touch((area, known.text), data)
        if relro := data // 2 // page_size * page_size:
            task.mprotect((area, known.text), relro, "r")
    bss = round_up(stage.bss, page_size)
    task.mmap(bss, id=f"{name}.bss")
    task.touch((f"{name}.bss", 0), bss)


def _work(task: TaskBuilder, name: str, stage: _Stage, scale: float, page_size: int) -> None:
    """Appends memory and CPU time of a process, in step."""
    steps = max(1, round(stage.heap * scale / HEAP_STEP))
    pairs = round(stage.chunks * scale / CHUNK / 2)
    ns = round(stage.user_ns * scale / (steps + 2 * pairs))
    step = round_up(HEAP_STEP, page_size)
    heap = f"{name}.heap"
    with task.repeat(count=steps):
        task.brk(id=heap)
        task.brk(step)
        task.touch((heap, 0), step)
        task.compute(ns)
    if not pairs:
        return
    with task.repeat(count=pairs):
        for chunk in ("kept", "given"):
            task.mmap(CHUNK, id=f"{name}.{chunk}")
            task.touch((f"{name}.{chunk}", 0), CHUNK)
            task.compute(ns)
        task.munmap((f"{name}.given", 0), CHUNK)


def computed_ns(program: Program) -> int:
    """Returns the CPU time that all tasks of a program ask for. Source: the program format."""
    total = 0
    for task in program.tasks:
        factors = [1]
        for op, value in zip(task.ops["op"].tolist(), task.ops["value"].tolist(), strict=True):
            if op == REPEAT:
                factors.append(factors[-1] * value)
            elif op == END:
                factors.pop()
            elif op == COMPUTE:
                total += factors[-1] * value
    return total


def kernbench_job(given: Arguments, nr_cpus: int) -> Kernbench:
    """Returns the job that the options ask for. Source: kernbench's usage text, and ours."""
    optimal = given.integer("o", 4 * nr_cpus, 1, MAX_TASKS)
    jobs = given.integer("j", 0, 1, MAX_TASKS)
    compilations = given.integer("c", 2 * (jobs or optimal), 1, MAX_TASKS)
    # Half the CPUs, but never two. Source: kernbench's change log.
    half = 3 if nr_cpus // 2 == 2 else max(1, nr_cpus // 2)
    loads = {"s": 1, "H": half, "O": optimal, "M": compilations}
    if jobs:
        for letter in (*loads, "o"):
            if given.switch(letter):
                given.fail(f"options -j and -{letter} (allowed: one of them)")
        runs = [jobs]
    else:
        runs = [load for letter, load in loads.items() if given.switch(letter) == (letter == "s")]
    if not runs:
        given.fail("options -H, -O and -M (allowed: not all of them without -s)")
    runs *= given.integer("n", 1, 1, 1000)
    if (tasks := sum(min(run, compilations) + 5 * compilations for run in runs)) > 1 << 16:
        given.fail(f"{tasks} processes (allowed: 65536; fewer -n, or -c)")
    return Kernbench(tuple(runs), compilations, cpus=jobs or nr_cpus)


OPTIONS: Final = (
    Option("j", "NUM", "one run of so many jobs at a time, instead of the loads below"),
    Option("c", "NUM", "compilations of each run (twice the jobs of -j or -o)"),
    Option("n", "NUM", "how often (1)"),
    Option("o", "NUM", "jobs of the optimal load (four times the CPUs)"),
    Option("s", "", "also a run of one job"),
    Option("H", "", "no half load (half the CPUs)"),
    Option("O", "", "no optimal load"),
    Option("M", "", "no maximal load (all at once)"),
)
