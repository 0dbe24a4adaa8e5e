"""From the events of a recording to operations: faults become accesses, calls become calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from spfemu.importers.calls import CALLS, map_area
from spfemu.importers.events import (
    Call,
    Ended,
    Event,
    Exec,
    Exit,
    Fault,
    Forked,
    Lost,
    Mapped,
    NewTask,
    Renamed,
    Skipped,
)
from spfemu.importers.state import PAGE_SIZE, Area, Space, TaskState, page_up
from spfemu.importers.summary import ImportSummary
from spfemu.importers.tape import CODE
from spfemu.importers.tasks import Tasks
from spfemu.importers.writer import Writer
from spfemu.program import Program
from spfemu.program.ops import ACCESSES

__all__ = ["Translator"]

_KERNEL: Final = 1 << 56  # no user address of any x86 is that high
_NULL_PAGES: Final = 1 << 16  # below this nothing can be mapped (vm.mmap_min_addr)
_STACK_BYTES: Final = 8 << 20  # the usual RLIMIT_STACK, which a stack grows to
_AROUND: Final = ~15  # a file fault maps up to 16 aligned pages
_READ, _WRITE, _EXECUTE = range(len(ACCESSES))
_ACCESS_CODES: Final = tuple(CODE[name] for name in ACCESSES)
_ALLOWS: Final = (7, 2, 4)  # protection bits of which an access needs one
_ANONYMOUS_NAMES: Final = ("//anon", "")


class Translator:
    """Makes a program of events; ``add`` takes them in their order, ``finish`` returns the program.

    ``root`` is the first traced task when strace tells the system calls; then perf's mappings serve
    only for exec. What each kind of event becomes is told in docs/importing.md. Source: ours.
    """

    def __init__(self, root: int | None = None) -> None:
        self.summary = ImportSummary()
        self._writer = Writer(self.summary)
        self._tasks = Tasks(self._writer, root)
        self._mapped_only_by_exec = root is not None
        self._cpus: set[int] = set()
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            Fault: self._fault,
            Call: self._call,
            Mapped: self._mapped,
            NewTask: self._tasks.started,
            Forked: self._tasks.forked,
            Renamed: self._tasks.renamed,
            Ended: self._tasks.ended,
            Exec: self._exec,
            Exit: self._exit_alone,
            Lost: self._lost,
            Skipped: self._skipped,
        }

    def add(self, events: Iterable[Event]) -> None:
        """Takes events in their order. Source: ours."""
        handlers, cpus = self._handlers, self._cpus
        for event in events:
            cpus.add(event.cpu)
            handlers[type(event)](event)

    def finish(self, name: str) -> Program:
        """Returns the program, checked; ``name`` is the recording's, for messages.

        Source: ours. Raises TraceError when the recording holds no task.
        """
        summary = self.summary
        program = self._writer.finish(name)
        summary.cpus = len([cpu for cpu in self._cpus if cpu >= 0])
        if not summary.cpus:
            nr_gaps = summary.nr_computes + summary.nr_sleeps
            summary.guessed["gap, as if there were one CPU"] += nr_gaps
        return replace(program, cpus=summary.cpus or None)

    def _fault(self, event: Fault) -> None:
        address, summary = event.address, self.summary
        if address >= _KERNEL:
            summary.skipped["fault at a kernel address"] += 1
            return
        task = self._tasks.of(event)
        if task is None:
            return
        space = task.space
        space.loading = space.loading and not event.user
        area = space.areas.get(address)
        access = event.access if event.access is not None else self._guess(event, area)
        page = address // PAGE_SIZE
        # Faults on a file decide for their neighbours too, so they keep their order as a block.
        block = page & _AROUND if area is not None and area.file else page
        trail = space.trail
        marks = trail.at_page(page)
        if block != page:
            marks |= trail.at_page(block)
        mark = self._writer.append(
            task, _ACCESS_CODES[access], marks, mode=0 if event.user else 1, addr=address,
            value=1 if access == _WRITE else 0, label=area.label if area is not None else 0,
            ip=event.ip if isinstance(event.ip, int) else 0,
        )  # fmt: skip
        trail.page_done(page, mark)
        if block != page:
            trail.page_done(block, mark)
        if event.access is None:
            if page in space.guesses:  # twice on one page: the first can only have been a read
                number, index = space.guesses.pop(page)
                self._writer.tapes[number].patch(index, op=CODE["read"], value=0)
            elif access == _WRITE:
                space.guesses[page] = mark
        summary.faults += 1
        summary.taken["fault in user mode" if event.user else "fault in kernel mode"] += 1
        self._judge(address, area, access)

    def _guess(self, event: Fault, area: Area | None) -> int:
        self.summary.guessed["access of a fault"] += 1
        if event.address == event.ip:
            return _EXECUTE
        return _WRITE if area is not None and area.prot & _ALLOWS[_WRITE] else _READ

    def _judge(self, address: int, area: Area | None, access: int) -> None:
        """Counts a fault that no mapping allows. Source: ours."""
        if area is not None and area.prot & _ALLOWS[access]:
            return
        self.summary.segv += 1
        if area is not None:
            self.summary.segv_kinds["forbidden by the protection"] += 1
        elif address < _NULL_PAGES:
            self.summary.segv_kinds["at null"] += 1
        else:
            self.summary.unresolved["fault where nothing is mapped"] += 1

    def _call(self, call: Call) -> None:
        task = self._tasks.of(call)
        if task is None:
            return
        task.space.loading = task.space.loading and call.name.startswith("execve")
        known = CALLS.get(call.name)
        if known is None:
            self.summary.skipped[f"system call {call.name}"] += 1
            return
        handler, wanted = known
        missing = [name for name in wanted if name not in call.args]
        if missing:
            self.summary.unresolved[f"{call.name} without {missing[0]}"] += 1
        elif call.result is not None and call.result < 0:
            if not call.begins:
                self.summary.skipped[f"{call.name} that failed"] += 1
        elif handler is not None:
            handler(self._writer, task, call)

    def _exit_alone(self, event: Exit) -> None:
        """The end of a call without its beginning: what a new task, or an exec, begins with.
        Source: ours.
        """
        known = CALLS.get(event.name)
        if self._tasks.of(event) is not None and known is not None and known[0] is not None:
            self.summary.unresolved[f"end of {event.name} without its beginning"] += 1

    def _exec(self, event: Exec) -> None:
        task = self._tasks.of(event)
        if task is not None:
            self._tasks.execed(task)

    def _mapped(self, event: Mapped) -> None:
        """Takes from a reported mapping what no system call told: what exec maps, and the stack.
        Source: ours.
        """
        task = self._tasks.of(event)
        if task is None:
            return
        space, summary = task.space, self.summary
        if not space.loading and self._mapped_only_by_exec:
            summary.skipped["mapping that a system call reports"] += 1
            return
        start, end = event.start, event.start + page_up(event.length)
        if event.name == "[stack]":
            self._stack(task, end)
            return
        area = self._area(event, start, end)
        parts = _differences(space, start, end, area)
        for low, high in parts:
            map_area(self._writer, task, low, high - low, area)
        if not parts:
            summary.skipped["mapping that is known"] += 1
        elif space.loading:
            summary.taken["mapping made by exec"] += 1
        else:
            summary.guessed["mapping that no system call reports"] += 1

    def _area(self, event: Mapped, start: int, end: int) -> Area:
        writer = self._writer
        if event.name in _ANONYMOUS_NAMES:
            label = writer.label(f"anon {start:#x}+{end - start:#x}")
            return Area(event.prot, label, shared=event.shared)
        label = writer.label(event.name)
        if event.name == "[heap]":
            return Area(event.prot, label)
        file = writer.file(event.name, event.offset + end - start)
        return Area(event.prot, label, file, event.offset - start, event.shared)

    def _stack(self, task: TaskState, top: int) -> None:
        """Maps the stack as a plain mapping of the size it may grow to, as far as there is room.
        Source: ours.
        """
        areas = task.space.areas
        if areas.get(top - PAGE_SIZE) is not None:
            self.summary.skipped["growth of a stack"] += 1
            return
        below = [high for _, high, _ in areas.items(top - _STACK_BYTES, top)]
        bottom = max([top - _STACK_BYTES, *below])
        area = Area(3, self._writer.label("[stack]"))
        map_area(self._writer, task, bottom, top - bottom, area)
        self.summary.guessed["stack, as a plain mapping of 8 MiB"] += 1

    def _lost(self, event: Lost) -> None:
        self.summary.unresolved["event that perf lost"] += event.count

    def _skipped(self, event: Skipped) -> None:
        if self._tasks.is_live(event.tid):
            self._tasks.of(event)
        self.summary.skipped[event.kind] += 1


def _differences(space: Space, start: int, end: int, area: Area) -> list[tuple[int, int]]:
    """The parts of a reported mapping that are not mapped just so. Source: ours."""
    parts, at = [], start
    for low, high, there in space.areas.items(start, end):
        if there._replace(label=area.label) == area:
            if at < low:
                parts.append((at, low))
            at = high
    if at < end:
        parts.append((at, end))
    return parts
