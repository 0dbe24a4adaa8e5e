"""Building programs from Python, task by task."""

from __future__ import annotations

from typing import Any

from spfemu.errors import ProgramError
from spfemu.program.model import DEFAULT_EXPECT_FOR, FileSpec, Program, System
from spfemu.program.task_builder import Address, TaskBuilder
from spfemu.program.values import shown

__all__ = ["Address", "Interned", "ProgramBuilder", "TaskBuilder"]


class Interned:
    """A table of names, each with its number in the order of first use. Source: ours."""

    __slots__ = ("_numbers",)

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """Returns the number of a name, a new one at its first use. Source: ours."""
        return self._numbers.setdefault(name, len(self._numbers))

    def names(self) -> tuple[str, ...]:
        """Returns the names in the order of their numbers. Source: ours."""
        return tuple(self._numbers)


class ProgramBuilder:
    """Builds a program task by task.

    Source: ours. ``page_size`` in bytes (4096); ``system`` the machine's settings; ``source`` names
    the program in messages.

    >>> from spfemu.program import ProgramBuilder
    >>> b = ProgramBuilder()
    >>> t = b.task("t0")
    >>> t.mmap(65536, id="p")
    >>> t.touch("p", 65536)
    >>> b.build().nr_ops
    2
    """

    def __init__(
        self,
        page_size: int = 4096,
        *,
        system: System | None = None,
        scale_pages: bool = False,
        cpus: int | None = None,
        source: str = "<program>",
    ) -> None:
        self.page_size = page_size
        self.system = system if system is not None else System()
        self.scale_pages = scale_pages
        self.cpus = cpus
        self.source = source
        self.ids = Interned()
        self.names = Interned()
        self.texts = Interned()
        self.comms = Interned()
        self.vmas = Interned()
        self.files: dict[str, FileSpec] = {}
        self._file_numbers: dict[str, int] = {}
        self.expect: dict[tuple[int, int], dict[str, Any]] = {}
        self.expect_for: dict[str, str] = dict(DEFAULT_EXPECT_FOR)
        self.tasks: dict[str, TaskBuilder] = {}

    def task(self, name: str | None = None, start: str | None = None) -> TaskBuilder:
        """Adds a task. ``name`` defaults to t0, t1, …; ``start``: None, "fork", "vfork" or "clone".

        Source: the program format. Raises ProgramError for a name that is taken.
        """
        number = len(self.tasks)
        name = f"t{number}" if name is None else name
        if name in self.tasks:
            other = self.tasks[name].number
            raise ProgramError(f"{self.source}: task {name!r}: tasks[{other}] has the name")
        self.tasks[name] = TaskBuilder(self, name, start, number)
        return self.tasks[name]

    def file(self, name: str, length: int, *, kind: str = "regular", cached: bool = True) -> str:
        """Adds a file of ``length`` bytes, or replaces the one of that name; returns its name.

        Source: the program format.
        """
        self._file_numbers.setdefault(name, len(self._file_numbers))
        self.files[name] = FileSpec(name, length, kind, cached)
        return name

    def file_number(self, name: str) -> int:
        """Returns the number of a file added before. Source: ours.

        Raises ProgramError when there is none of that name.
        """
        try:
            return self._file_numbers[name]
        except KeyError:
            known = ", ".join(self._file_numbers) or "none; add it with file()"
            raise ProgramError(
                f"<builder>: key 'file': value {shown(name)} (allowed: {known})"
            ) from None

    def build(self) -> Program:
        """Returns the program, checked. The builder must not be used afterwards.

        Source: ours. Raises ProgramError, with the place, for what is not a valid program.
        """
        numbers = {name: task.number for name, task in self.tasks.items()}
        return Program(
            tasks=tuple(task.finished(numbers) for task in self.tasks.values()),
            page_size=self.page_size,
            ids=self.ids.names(),
            names=self.names.names(),
            texts=self.texts.names(),
            files=tuple(self.files.values()),
            system=self.system,
            expect=self.expect,
            expect_for=self.expect_for,
            scale_pages=self.scale_pages,
            cpus=self.cpus,
            comms=self.comms.names(),
            vmas=self.vmas.names(),
            source=self.source,
        ).checked()
