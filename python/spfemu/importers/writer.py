"""Writes the program: tapes with their gaps and awaits, and the tables that the records point
into.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from spfemu.errors import TraceError
from spfemu.importers.order import Clocks, Mark
from spfemu.importers.state import PAGE_SIZE, TaskState
from spfemu.importers.summary import ImportSummary
from spfemu.importers.tape import CODE, Tape
from spfemu.program import FileSpec, Program, Task
from spfemu.program.builder import Interned

__all__ = ["Writer"]

_SHMEM: Final = ("/dev/zero (deleted)", "/SYSV", "/memfd:", "/dev/shm/")


@dataclass(slots=True)
class _File:
    """A file that something maps. Source: ours."""

    number: int
    length: int
    kind: str


class Writer:
    """Writes a program: its tasks' tapes, the order between them, files, names and labels.

    ``leaders`` maps process ids to the number of the process's first task, for calls that wait.
    Source: ours.
    """

    def __init__(self, summary: ImportSummary) -> None:
        self.summary = summary
        self.tapes: list[Tape] = []
        self.leaders: dict[int, int] = {}
        self.clocks = Clocks()
        self.comms = Interned()
        self._titles: list[tuple[str, str | None]] = []
        self._ends: dict[int, int] = {}  # task number -> index of its exit
        self._posts: list[str] = []
        self._labels = Interned()
        self._files: dict[str, _File] = {}

    def tape(self) -> Tape:
        """Returns the tape of a new task. Source: ours."""
        tape = Tape(len(self.tapes))
        self.tapes.append(tape)
        self._titles.append(("", None))
        return tape

    def title(self, task: TaskState) -> None:
        """Notes under which name and how a task is to stand in the program. Source: ours."""
        self._titles[task.number] = (f"{task.comm}-{task.tid}", task.start)

    def append(
        self,
        task: TaskState,
        op: int,
        marks: set[Mark],
        *,
        ip: int = 0,
        label: int = 0,
        **fields: int,
    ) -> Mark:
        """Appends an operation that comes after ``marks``, behind the gap before it.

        ``ip`` and ``label`` say where it came from, ``fields`` are those of the array form. Source:
        ours.
        """
        tape = task.tape
        comm = self._gap(task)
        if task.owed:
            marks = marks | task.owed
            task.owed = set()
        if marks:
            for mark in self.clocks.waits(tape.number, tape.index, marks):
                self._await(tape, mark, comm)
        return tape.number, tape.append(op, site=(ip, comm, label), **fields)

    def wait(self, task: TaskState, ended: set[int]) -> None:
        """Has a task wait for the ends of others. Source: ours."""
        if ended:
            comm = self._gap(task)
            for number in sorted(ended):
                task.tape.append(CODE["wait"], aux=number, site=(0, comm, 0))
                self.summary.nr_waits += 1

    def _gap(self, task: TaskState) -> int:
        """Appends what a task did since its operation before; returns its comm's number, from 1.

        Source: ours.
        """
        tape, summary = task.tape, self.summary
        comm = self.comms.number(task.comm) + 1
        if task.compute_ns:
            tape.append(CODE["compute"], value=task.compute_ns, site=(0, comm, 0))
            summary.compute_ns += task.compute_ns
            summary.nr_computes += 1
            task.compute_ns = 0
        if task.sleep_ns:
            tape.append(CODE["sleep"], value=task.sleep_ns, site=(0, comm, 0))
            summary.sleep_ns += task.sleep_ns
            summary.nr_sleeps += 1
            task.sleep_ns = 0
        return comm

    def _await(self, tape: Tape, mark: Mark, comm: int) -> None:
        number, index = mark
        if self._ends.get(number) == index:  # nothing runs behind an exit that could post
            tape.append(CODE["wait"], aux=number, site=(0, comm, 0))
            self.summary.nr_waits += 1
            return
        post = self.tapes[number].post(index, len(self._posts))
        if post == len(self._posts):
            self._posts.append(f"t{number}.{index}")
        tape.append(CODE["await"], aux=post, site=(0, comm, 0))
        self.summary.nr_awaits += 1

    def end(self, task: TaskState, marks: set[Mark]) -> Mark:
        """Appends a task's exit. Source: ours."""
        mark = self.append(task, CODE["exit"], marks)
        self._ends[mark[0]] = mark[1]
        self.clocks.ends(mark[0])
        return mark

    def label(self, text: str) -> int:
        """Returns the number, from 1, of a mapping's label. Source: ours."""
        return self._labels.number(text) + 1

    def file(self, name: str, length: int) -> int:
        """Returns the number, from 1, of a file that is at least ``length`` bytes long. Source:
        ours.
        """
        file = self._files.get(name)
        if file is None:
            kind = "devzero" if name == "/dev/zero" else "regular"
            if name.startswith(_SHMEM):
                kind = "shmem"
            file = self._files[name] = _File(len(self._files) + 1, length, kind)
        file.length = max(file.length, length)
        return file.number

    def file_name(self, number: int) -> str:
        """Returns the name of the file of that number. Source: ours."""
        return list(self._files)[number - 1]

    def finish(self, name: str) -> Program:
        """Returns the program, checked; ``name`` is the recording's, for messages.

        Source: ours. Raises TraceError when there is no task, ProgramError as ``Program.checked``
        does.
        """
        if not self.tapes:
            raise TraceError(name, 0, "holds no task whose operations could be taken")
        tasks: dict[str, Task] = {}
        for tape, (title, start) in zip(self.tapes, self._titles, strict=True):
            self.summary.nr_posts += tape.nr_posts
            ops, sites = tape.cut()
            title = "".join(c if c.isprintable() else "?" for c in title)
            while title in tasks:
                title += "'"  # a task id that was used again
            tasks[title] = Task(title, start, ops, sites)
        self.summary.nr_tasks = len(tasks)
        files = tuple(FileSpec(path, file.length, file.kind) for path, file in self._files.items())
        program = Program(
            tasks=tuple(tasks.values()),
            page_size=PAGE_SIZE,
            scale_pages=True,  # nobody else could say so, and on another arch it is needed
            names=tuple(self._posts),
            files=files,
            comms=self.comms.names(),
            vmas=self._labels.names(),
            source=name,
        )
        return program.checked()
