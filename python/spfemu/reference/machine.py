"""The interpreter that runs a program's tasks one after another.

A task is a generator that yields a condition whenever it has to wait. The scheduler goes through
the tasks in file order, again and again, and lets each run until it waits or ends; it stops when a
whole round brings nobody further. Time does not exist: `compute` and `sleep` do nothing.
"""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Generator
from signal import SIGKILL

from spfemu.errors import EngineError
from spfemu.program import OPS, FileSpec, Program
from spfemu.program.ops import GIVEN
from spfemu.program.values import to_i64
from spfemu.reference.calls import MEMORY_CALLS, Call, addresses, defined_id
from spfemu.reference.exec import bprm_mm_init, setup_arg_pages
from spfemu.reference.faults import AccessResult, access
from spfemu.reference.fork import dup_mmap, exit_mmap, new_mm
from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.model import ADDRESS_MASK, File, SyscallError, TaskKilledError
from spfemu.reference.numa import numa_scan, rebind, set_mempolicy
from spfemu.reference.order import touch_order
from spfemu.reference.task_mmu import proc_text
from spfemu.reference.tasks import Barrier, Condition, Outcome, Process, Record, Steps, Task
from spfemu.reference.vm_fault import EXECUTE, READ, WRITE

HAS_RET, HAS_VALUE = 1, 2
"""Bits of an outcome's `has`."""

_INT_MAX = (1 << 31) - 1
_SYSCTL_LOWEST = {
    "vm.speculative_page_fault": -(1 << 31),  # plain proc_dointvec: any number but 0 is on
    "vm.page-cluster": 0,
    "vm.max_map_count": 0,
}

FAILED_ID = ADDRESS_MASK
"""What an id names when the call that sets it failed: MAP_FAILED, (void *)-1."""


class Machine:
    """A program at work on a kernel. `run` takes it to its end."""

    def __init__(
        self, program: Program, kernel: Kernel, max_outcomes: int = sys.maxsize, proc: bool = False
    ) -> None:
        self.program = program
        self.kernel = kernel
        self.nr_outcomes, self.max_outcomes, self.proc = 0, max_outcomes, proc
        self.files = [_opened(kernel, file) for file in program.files]
        self.ids: list[int | None] = [None] * len(program.ids)
        self.barriers = [Barrier() for _ in program.names]
        self.unposted: list[set[tuple[int, int]]] = [set() for _ in program.names]
        self.processes: list[Process] = []
        self.note_maps: dict[tuple[int, int, int], list[str]] = {}
        self.tasks = [
            Task(number, task.name, [Record(*row) for row in task.ops.tolist()])
            for number, task in enumerate(program.tasks)
        ]
        for task in self.tasks:
            task.ran = [0] * len(task.records)
            self._register_names(task)

    def _register_names(self, task: Task) -> None:
        for index, record in enumerate(task.records):
            if record.op == _BARRIER and task not in self.barriers[record.aux].tasks:
                self.barriers[record.aux].tasks.append(task)
            elif record.op == _POST:
                self.unposted[record.aux].add((task.number, index))

    # --- scheduling --------------------------------------------------------------------------

    def run(self) -> list[str]:
        """Runs all tasks to their ends; returns the names of those that wait for ever."""
        first = [task for task in self.tasks if self.program.tasks[task.number].start is None]
        process = self._new_process(first[0], new_mm(self.kernel))
        for task in first:
            task.mems_allowed = (1 << self.kernel.nodes) - 1
            self._start(task, process)
        while self._run_round():
            pass
        for process in self.processes:
            if process.is_alive:
                self._keep_last(process)
        return [t.name for t in self.tasks if t.process is not None and not t.ended]

    def _run_round(self) -> bool:
        """Goes through the tasks once; whether any could run."""
        progress = False
        for task in self.tasks:
            if task.is_runnable:
                self._advance(task)
                progress = True
        return progress

    def _advance(self, task: Task) -> None:
        """Lets a task run until it waits or ends."""
        task.condition = None
        with contextlib.suppress(TaskKilledError):
            for condition in task.steps:
                if not condition():
                    task.condition = condition
                    return
        self._end(task)

    def _new_process(self, first: Task, mm: Mm) -> Process:
        process = Process(first.name, mm)
        self.processes.append(process)
        return process

    def _start(self, task: Task, process: Process) -> None:
        task.process = process
        task.steps = self._run_records(task, 0, len(task.records))
        process.tasks.append(task)
        process.mm.users += 1

    def _end(self, task: Task) -> None:
        """Ends a task; the last of a process leaves what /proc says, the last of an mm frees it."""
        assert task.process is not None, "the task has started"
        task.ended = True
        if not task.process.is_alive:
            self._keep_last(task.process)
        self._leave(task.mm)

    def _keep_last(self, process: Process) -> None:
        """Keeps what /proc says of a process now."""
        process.maps = process.mm.maps()
        if self.proc:
            process.proc = proc_text(process.mm)

    def _leave(self, mm: Mm) -> None:
        mm.users -= 1
        if mm.users == 0:
            exit_mmap(self.kernel, mm)

    # --- the interpreter ---------------------------------------------------------------------

    def _run_records(self, task: Task, start: int, stop: int) -> Generator[Condition, None, bool]:
        """Runs the records from `start` to before `stop`; False if one of them was `exit`."""
        index = start
        while index < stop:
            record = task.records[index]
            if record.op == _REPEAT:
                close = _closing(task.records, index)
                timed = bool(record.flags & 1)
                for _ in range(record.length2 if timed else record.value):
                    if not (yield from self._run_records(task, index + 1, close)):
                        return False
                    task.timed_rounds += timed
                index = close + 1
            else:
                yield from self._run_record(task, index, record)
                if record.op == _EXIT:
                    return False
                index += 1
        return True

    def _run_record(self, task: Task, index: int, record: Record) -> Steps:
        yield from self._await_ids(record)
        if record.op in _ACCESSES:
            self._access(task, index, record)
        elif record.op == _TOUCH:
            self._touch(task, index, record)
        else:
            yield from self._system_call(task, index, record)
        task.ran[index] += 1

    def _await_ids(self, record: Record) -> Steps:
        ids = [number for number, _ in addresses(record) if number >= 0]
        if ids:
            yield lambda: all(self.ids[number] is not None for number in ids)

    def _addresses(self, record: Record) -> list[int]:
        return [self._resolved(number, offset) for number, offset in addresses(record)]

    def _resolved(self, number: int, offset: int) -> int:
        """The address so many bytes from an id's, or, with no id, from 0."""
        base = self.ids[number] if number >= 0 else 0
        assert base is not None, "the id has been awaited"
        return (base + offset) & ADDRESS_MASK

    # --- accesses ----------------------------------------------------------------------------

    def _access(self, task: Task, index: int, record: Record) -> None:
        kind = _ACCESSES[record.op]
        self._one_access(task, index, record, self._addresses(record)[0], kind, 0)

    def _touch(self, task: Task, index: int, record: Record) -> None:
        start = self._addresses(record)[0]
        stride = record.length2 or task.mm.page_size
        count = -(-record.length // stride)
        self._check_nr_outcomes(count, task, index)  # before the order of many is drawn
        for number, position in enumerate(touch_order(record.flags, count, record.addr2)):
            address = (start + position * stride) & ADDRESS_MASK
            self._one_access(task, index, record, address, record.access, number)

    def _one_access(
        self, task: Task, index: int, record: Record, address: int, kind: int, number: int
    ) -> None:
        before = list(self.kernel.counters)
        user = record.mode == 0
        result = access(
            *(self.kernel, task.mm, address, kind),
            user=user,
            value=record.value,
            task_policy=task.policy,
        )
        ret, has = _access_return(result, kind)
        self._keep(
            task,
            Outcome(
                task.number,
                index,
                task.ran[index],
                number,
                record.op,
                result.handled,
                result.livelock,
                result.signal,
                result.si_code,
                has,
                result.errno,
                ret,
                result.value if has & HAS_VALUE else 0,
                tuple(a - b for a, b in zip(self.kernel.counters, before, strict=True)),
            ),
        )

    def _keep(self, task: Task, outcome: Outcome) -> None:
        self._check_nr_outcomes(1)
        task.outcomes.append(outcome)
        self.nr_outcomes += 1

    def _check_nr_outcomes(self, more: int, task: Task | None = None, index: int = 0) -> None:
        """Whether so many more outcomes may be kept. `task` and `index` are of a touch."""
        if self.nr_outcomes + more > (most := self.max_outcomes):
            where = f": {self.program.where(task.number, index)}: operation 'touch'" if task else ""
            what = f"more than {most} outcomes to keep (allowed: {most}, by max_outcomes)"
            raise EngineError(f"{self.program.source}{where}: {what}")

    # --- system calls and what the format adds -----------------------------------------------

    def _system_call(self, task: Task, index: int, record: Record) -> Steps:
        """Runs an operation that is no access."""
        before = list(self.kernel.counters)
        signal, ret, error = 0, 0, 0
        try:
            ret = self._call(task, index, record)
        except SyscallError as failure:
            ret, error = -1, failure.value
        except TaskKilledError:
            signal, ret, error = SIGKILL, 0, 0
        counters = tuple(a - b for a, b in zip(self.kernel.counters, before, strict=True))
        if (number := defined_id(record)) >= 0:
            self.ids[number] = ret & ADDRESS_MASK if not error else FAILED_ID
        if not error and not signal:
            yield from self._wait_after(task, record)
        self._keep(
            task,
            Outcome(
                *(task.number, index, task.ran[index], 0, record.op, 0, 0, signal, 0),
                *(0 if signal else HAS_RET, error, to_i64(ret), 0, counters),
            ),
        )
        if signal:
            raise TaskKilledError

    def _call(self, task: Task, index: int, record: Record) -> int:
        self.kernel.mems_allowed = task.mems_allowed
        if record.op in MEMORY_CALLS:
            call = Call(self.kernel, task.mm, record, self._addresses(record), self.files)
            return MEMORY_CALLS[record.op](call)
        if record.op in _STARTS:
            self._start_child(task, record)
        elif record.op == _EXEC:
            self._exec(task, record)
        elif record.op == _NUMA_SCAN:
            start = self._addresses(record)[0]
            numa_scan(self.kernel, task.mm, start, record.length, task.policy)
        elif record.op == _SET_MEMPOLICY:
            task.policy = set_mempolicy(self.kernel, record.advice, record.value)
        elif record.op == _REBIND:
            task.policy = rebind(self.kernel, task.mm, record.value, task.policy)
            task.mems_allowed = record.value
        elif record.op == _SYSCTL:
            self._sysctl(record)
        elif record.op == _POST:
            self.unposted[record.aux].discard((task.number, index))
        elif record.op == _NOTE and "maps_lines" in self.program.expect.get(
            (task.number, index), ()
        ):
            self.note_maps[task.number, index, task.ran[index]] = task.mm.maps()
        return 0

    def _start_child(self, task: Task, record: Record) -> None:
        """fork, vfork and clone: a copy of the address space, the same one, the same process."""
        child = self.tasks[record.aux]
        assert task.process is not None, "the task has started"
        process = task.process
        if record.op == _FORK:
            process = self._new_process(child, dup_mmap(self.kernel, task.mm))
        elif record.op == _VFORK:
            process = self._new_process(child, task.mm)
        child.policy, child.mems_allowed = task.policy, task.mems_allowed
        self._start(child, process)

    def _exec(self, task: Task, record: Record) -> None:
        """A fresh address space; the other tasks of the process end first."""
        process = task.process
        assert process is not None, "the task has started"
        mm = new_mm(self.kernel)
        stack = None
        if record.length:
            try:
                stack = bprm_mm_init(self.kernel, mm, record.length)
            except SyscallError:
                exit_mmap(self.kernel, mm)
                raise
        for other in process.tasks:
            if other is not task and not other.ended:
                self._end(other)
        self._leave(process.mm)
        process.mm = mm
        mm.users = 1
        if record.flags & GIVEN:
            process.mm.start_brk = process.mm.brk = record.addr
        if stack is not None:
            setup_arg_pages(self.kernel, mm, stack, record.length2)

    def _sysctl(self, record: Record) -> None:
        name = self.program.texts[record.aux]
        if not _SYSCTL_LOWEST[name] <= record.addr <= _INT_MAX:
            raise SyscallError(errno.EINVAL)
        self.kernel.sysctl[name] = record.addr

    def _wait_after(self, task: Task, record: Record) -> Steps:
        """What an operation waits for once it is done."""
        if record.op == _BARRIER:
            barrier = self.barriers[record.aux]
            generation = barrier.generation
            barrier.waiting.add(task.number)
            yield lambda: barrier.has_opened(generation)
        elif record.op == _AWAIT:
            yield lambda: not self.unposted[record.aux]
        elif record.op == _WAIT:
            yield lambda: self.tasks[record.aux].ended
        elif record.op in (_FORK, _VFORK):
            child, mm = self.tasks[record.aux], task.mm
            if record.flags & 1:
                yield lambda: child.ended
            elif record.op == _VFORK:
                yield lambda: child.ended or child.mm is not mm


def _opened(kernel: Kernel, spec: FileSpec) -> File:
    file = File(spec.name, spec.length, spec.kind, kernel.frames, cached=spec.cached)
    file.nr_original = file.nr_pages(kernel.arch.page_shift)
    if spec.kind == "hugetlb":
        file.pool = kernel.hugetlb
    return file


def _access_return(result: AccessResult, kind: int) -> tuple[int, int]:
    """The outcome's `ret` and `has` of an access."""
    if result.errno:
        return -1, HAS_RET
    if not result.succeeded:
        return 0, 0
    return 0, HAS_RET | HAS_VALUE if kind == READ else HAS_RET


def _closing(records: list[Record], index: int) -> int:
    """The `end` that closes the `repeat` at `index`."""
    depth = 0
    while True:
        depth += (records[index].op == _REPEAT) - (records[index].op == _END)
        if depth == 0:
            return index
        index += 1


_FORK, _VFORK, _CLONE, _WAIT, _EXEC, _EXIT = (
    OPS[name].code for name in ("fork", "vfork", "clone", "wait", "exec", "exit")
)
_SET_MEMPOLICY, _NUMA_SCAN, _REBIND = (
    OPS[name].code for name in ("set_mempolicy", "numa_scan", "rebind")
)
_TOUCH, _BARRIER, _POST, _AWAIT, _REPEAT, _END, _SYSCTL, _NOTE = (
    OPS[name].code
    for name in ("touch", "barrier", "post", "await", "repeat", "end", "sysctl", "note")
)
_ACCESSES = {OPS["read"].code: READ, OPS["write"].code: WRITE, OPS["execute"].code: EXECUTE}
_STARTS = (_FORK, _VFORK, _CLONE)
