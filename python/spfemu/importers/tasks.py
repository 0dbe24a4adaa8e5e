"""The tasks of a recording: which one an event belongs to, where it comes from, how it ends."""

from __future__ import annotations

from typing import Final

from spfemu.importers.events import (
    CLONE_THREAD,
    CLONE_VFORK,
    CLONE_VM,
    Ended,
    Event,
    Forked,
    NewTask,
    Renamed,
)
from spfemu.importers.order import Mark
from spfemu.importers.state import Process, Space, TaskState
from spfemu.importers.tape import CODE
from spfemu.importers.writer import Writer

__all__ = ["Tasks"]

_RECORDERS: Final = frozenset(("perf", "perf-exec", "strace"))


class Tasks:
    """The tasks that live, by task id, and what starts, renames, execs and ends them.

    ``root`` is the first traced task where strace tells; tasks that do not descend from it are the
    recorder's own. Starts and ends of tasks keep their recorded order within a process, and between
    a process and its children. Source: ours.
    """

    def __init__(self, writer: Writer, root: int | None) -> None:
        self._writer = writer
        self._summary = writer.summary
        self._root = root
        self._live: dict[int, TaskState] = {}
        self._gone: set[int] = set()
        self._forked: dict[int, Forked] = {}
        self._began = 0

    def of(self, event: Event) -> TaskState | None:
        """Returns the task of an event with its gap added, or None for one that is not traced.
        Source: ours.
        """
        task = self._live.get(event.tid)
        if task is None:
            task = self._first_seen(event)
            if task is None:
                return None
        if task.lost:
            self._summary.unresolved["event of a task that left memory it shared"] += 1
            return None
        task.compute_ns += event.compute_ns
        task.sleep_ns += event.sleep_ns
        return task

    def is_live(self, tid: int) -> bool:
        """Whether a task id belongs to a task that lives. Source: ours."""
        return tid in self._live

    def _first_seen(self, event: Event) -> TaskState | None:
        tid = event.tid
        record = self._forked.pop(tid, None)
        if record is not None and record.parent in self._live:
            self._start(self._live[record.parent], tid, record.child_pid, record.flags)
            return self._live[tid]
        if tid in self._gone:
            self._summary.skipped["event of a task that has ended"] += 1
        elif (self._root is not None and tid != self._root) or event.comm in _RECORDERS or not tid:
            self._summary.skipped["event of the recorder"] += 1
        else:
            return self._adopt(event)
        return None

    def _adopt(self, event: Event) -> TaskState:
        """Takes in a task whose start was not recorded: the first one, or one that another has to
        start.

        Source: ours. Such a process is a vfork child of the first task that execs at once: it costs
        its starter no copy.
        """
        tid = event.tid
        pid = event.pid if event.pid >= 0 else tid
        family = next((task for task in self._live.values() if task.process.pid == pid), None)
        if family is not None:
            task = self._new(tid, family.process, family.space, "clone", event.comm)
            family.tape.start_first(CODE["clone"], task.number)
            self._summary.guessed["start of a thread"] += 1
        elif self._writer.tapes:
            task = self._new(tid, Process(pid), Space(), "vfork", event.comm)
            self._writer.tapes[0].start_first(CODE["vfork"], task.number)
            self._summary.guessed["start of a process"] += 1
            self._exec(task)
        else:
            self._began = event.time
            return self._new(tid, Process(pid), Space(), None, event.comm)
        task.sleep_ns += max(event.time - self._began, 0)
        return task

    def _new(
        self, tid: int, process: Process, space: Space, start: str | None, comm: str
    ) -> TaskState:
        task = TaskState(self._writer.tape(), tid, process, space, start, comm or "?")
        self._writer.title(task)
        self._live[tid] = task
        self._gone.discard(tid)
        space.users.add(task.number)
        if not process.tasks:
            self._summary.nr_processes += 1
        if process.pid == tid:
            self._writer.leaders[tid] = task.number
        process.tasks[task.number] = task
        return task

    def _start(self, parent: TaskState, child_tid: int, child_pid: int, flags: int | None) -> None:
        """One task starts another. Source: clone(2)."""
        summary, space = self._summary, parent.space
        if flags is None:
            flags = CLONE_VM | CLONE_THREAD if child_pid == parent.process.pid else 0
            summary.guessed["flags of a clone"] += 1
        thread = bool(flags & CLONE_THREAD)
        start = "fork"
        if flags & CLONE_VM:
            start = "vfork" if flags & CLONE_VFORK and not thread else "clone"
        marks = self._before(parent)
        if start == "fork":
            marks |= space.trail.at_all()
        child = self._new(
            child_tid,
            parent.process if thread else Process(child_tid, parent.process),
            Space(space.areas.copy(), brk=space.brk) if start == "fork" else space,
            start,
            parent.comm,
        )
        child.apart = start == "clone" and not thread
        mark = self._writer.append(parent, CODE[start], marks, aux=child.number)
        space.life = mark
        if start == "fork":
            space.trail.all_done(mark)
            space.guesses.clear()
        if start != "fork":
            self._writer.clocks.starts(child.number, mark)
        if child.apart:
            summary.approximated["process that shares memory by a thread"] += 1
        summary.taken[start] += 1

    def _before(self, task: TaskState) -> set[Mark]:
        """What a start or an end of a task comes after: the one before in its memory.

        Ends of child processes come before, too. Source: ours.
        """
        self._writer.wait(task, task.process.children_ended)
        task.process.children_ended.clear()
        return set() if task.space.life is None else {task.space.life}

    def _leave(self, task: TaskState, mark: Mark) -> None:
        """The task no longer uses its memory. Source: mmput.

        With one user left faults are not speculative, so what that one does next comes after.
        """
        users = task.space.users
        users.discard(task.number)
        task.space.life = mark
        if len(users) == 1:
            for other in self._live.values():
                if other.number in users:
                    other.owed.add(mark)

    def _exec(self, task: TaskState) -> None:
        process = task.process
        if task.apart:  # a thread of the program, it would end the others
            task.lost = True
            return
        marks = self._before(task)
        for number in [number for number in process.tasks if number != task.number]:
            other = process.tasks.pop(number)
            self._live.pop(other.tid, None)
            task.space.users.discard(number)
            if other.tape.index:
                marks.add((number, other.tape.index - 1))
            self._summary.guessed["end of a thread at exec"] += 1
        mark = self._writer.append(task, CODE["exec"], marks)
        self._leave(task, mark)
        task.space = Space(users={task.number}, exec_at=mark, loading=True, life=mark)

    # The events that tell of tasks.

    def started(self, event: NewTask) -> None:
        """A task was made, as its maker tells. Source: task:task_newtask."""
        parent = self.of(event)
        if parent is not None and event.child not in self._live:
            record = self._forked.pop(event.child, None)
            pid = record.child_pid if record is not None else event.child
            self._start(parent, event.child, pid, event.flags)

    def forked(self, event: Forked) -> None:
        """A task was made; how, tells the call, or the event after this one. Source:
        PERF_RECORD_FORK.
        """
        self._gone.discard(event.child)
        self._live.pop(event.child, None)
        self._forked[event.child] = event
        if event.flags is not None and event.parent in self._live:
            self.of(event)
            del self._forked[event.child]
            parent = self._live[event.parent]
            self._start(parent, event.child, event.child_pid, event.flags)

    def renamed(self, event: Renamed) -> None:
        """A task has a new name, by its own wish or by exec. Source: PERF_RECORD_COMM."""
        task = self._live.get(event.child)
        if event.execed:
            task = task or self._heir(event)
        if task is None:
            return
        task.comm = event.name
        self._writer.title(task)
        if event.execed:
            self._exec(task)
            task.execed = True
            self._summary.taken["exec"] += 1

    def _heir(self, event: Renamed) -> TaskState | None:
        """The task that execs as the first of its process without having been it. Source:
        de_thread.
        """
        mine = [task for task in self._live.values() if task.process.pid == event.child]
        if not mine:
            return self.of(event)
        task = mine[-1]
        del self._live[task.tid]
        task.tid = event.child
        self._live[event.child] = task
        self._gone.discard(event.child)
        return task

    def execed(self, task: TaskState) -> None:
        """An exec is complete. Source: sched:sched_process_exec."""
        if not task.execed:  # no PERF_RECORD_COMM said so before
            self._exec(task)
            self._summary.taken["exec"] += 1
        task.execed = False
        task.space.loading = False

    def ended(self, event: Ended) -> None:
        """A task ended; the first of several events to say so counts. Source: exit(2)."""
        task = self._live.get(event.child)
        if task is None:
            return
        if event.tid == event.child:
            self.of(event)
        mark = self._writer.end(task, self._before(task))
        self._leave(task, mark)
        del self._live[event.child]
        self._gone.add(event.child)
        process = task.process
        process.tasks.pop(task.number, None)
        if not process.tasks and process.parent is not None:
            process.parent.children_ended |= process.children_ended | {task.number}
        self._summary.taken["exit"] += 1
