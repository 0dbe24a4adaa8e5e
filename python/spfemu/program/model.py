"""What a program is in memory: tasks with their records, and the tables these point into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spfemu.program.ops import FORMAT, OP_DTYPE, OPS

__all__ = ["DEFAULT_EXPECT_FOR", "FileSpec", "Program", "Swap", "System", "Task"]

_REPEAT: Final = OPS["repeat"].code
_END: Final = OPS["end"].code

DEFAULT_EXPECT_FOR: Final = MappingProxyType({"handler": "spf", "arch": "x86"})


@dataclass(frozen=True, slots=True)
class FileSpec:
    """A file that a program maps.

    Source: the program format. ``length`` in bytes; ``kind`` is "regular", "shmem", "devzero" or
    "hugetlb"; ``cached`` false: the first access of a page is a major fault.
    """

    name: str
    length: int
    kind: str = "regular"
    cached: bool = True


@dataclass(frozen=True, slots=True)
class Swap:
    """The swap device.

    Source: the program format. ``size`` in bytes (4 GiB), 0 for none; the first page holds no
    data. ``kind`` "normal", or "synchronous" for one that the CPU reads itself, as zram.
    ``readahead`` is the most pages that one swap-in reads, None for what vm.page-cluster says;
    ``vma_ra_enabled`` whether it reads around an address (true) or around a slot, the kernel's
    /sys/kernel/mm/swap/vma_ra_enabled.
    """

    size: int = 4 << 30
    kind: str = "normal"
    readahead: int | None = None
    vma_ra_enabled: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Returns every setting that is given, as JSON values. Source: ours."""
        given = {
            "size": self.size,
            "kind": self.kind,
            "readahead": self.readahead,
            "vma_ra_enabled": self.vma_ra_enabled,
        }
        return {key: value for key, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class System:
    """The machine's settings that a program may ask for.

    Source: the program format. ``memory`` in bytes (16 GiB); ``thp`` "madvise", "never" or
    "always"; ``swap`` the swap device; ``nodes`` how many NUMA nodes (2); ``stack_limit`` in bytes
    (8 MiB), how large a mapping that grows down gets; ``mmap_min_addr`` in bytes (65536);
    ``overcommit`` as vm.overcommit_memory (1); ``sysctl`` initial values by name; ``config`` what
    of the kernel is compiled in, by name, where it is not as v12 has it by default;
    ``hugetlb_pages`` how many the pool has (None: enough); ``memcg`` how many bytes of anonymous
    memory the processes may have together (None: any).
    """

    memory: int = 16 << 30
    thp: str = "madvise"
    swap: Swap = field(default_factory=Swap)
    stack_limit: int = 8 << 20
    nodes: int = 2
    mmap_min_addr: int = 65536
    overcommit: int = 1
    sysctl: Mapping[str, int] = field(default_factory=dict)
    config: Mapping[str, bool] = field(default_factory=dict)
    hugetlb_pages: int | None = None
    memcg: int | None = None

    def has(self, name: str, family: str) -> bool:
        """Says whether CONFIG_``name`` is set on an arch of that family. Source: 5.1's Kconfig."""
        default = name != "HAVE_MOVE_PMD" or family == "x86"
        return self.config.get(name, default)

    def to_dict(self) -> dict[str, Any]:
        """Returns every setting, defaults included, as JSON values. Source: ours."""
        return {
            "memory": self.memory,
            "thp": self.thp,
            "swap": self.swap.to_dict(),
            "stack_limit": self.stack_limit,
            "nodes": self.nodes,
            "mmap_min_addr": self.mmap_min_addr,
            "overcommit": self.overcommit,
            "sysctl": dict(self.sysctl),
            "config": dict(self.config),
            "hugetlb_pages": self.hugetlb_pages,
            "memcg": self.memcg,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One task: its name, how it starts, and its operations.

    Source: the program format. ``start`` is None (a thread of the first process), "fork", "vfork"
    or "clone". ``ops`` is an array of ``OP_DTYPE``, shape (operations and brackets,), read-only.
    ``sites`` says where recorded operations came from: ``SITE_DTYPE``, same shape, or None.
    """

    name: str
    start: str | None
    ops: npt.NDArray[np.void]
    sites: npt.NDArray[np.void] | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Task):
            return NotImplemented
        mine, theirs = self.sites, other.sites
        return (
            self.name == other.name
            and self.start == other.start
            and np.array_equal(self.ops, other.ops)
            and (
                mine is theirs
                or (mine is not None and theirs is not None and np.array_equal(mine, theirs))
            )
        )

    __hash__ = None  # type: ignore[assignment]  # arrays have no hash


@dataclass(frozen=True, slots=True)
class Program:
    """A program: what each task does, in order.

    A program is checked when it is made (``load``, ``loads``, ``from_dict``,
    ``ProgramBuilder.build``) and does not change afterwards: the arrays are read-only. Make a
    changed one from ``to_dict``, or with ``dataclasses.replace`` and ``checked``. Source: the
    program format, ``spfemu-program/1``.

    ``ids``, ``names`` (of barriers and posts), ``texts`` and ``files`` are the tables that the
    records index. ``cpus`` are what ``spfemu stat`` gives it, one for each task by default.
    ``expect`` maps (task number, record index) to what must come out. ``comms`` and
    ``vmas`` are the labels that ``Task.sites`` index. ``source`` names the file in messages and
    takes no part in comparisons.

    >>> from spfemu.program import Program
    >>> program = Program.loads('''{"format": "spfemu-program/1", "tasks": [{"ops": [
    ...     {"op": "mmap", "length": "64K", "id": "p"},
    ...     {"op": "write", "addr": "p+0x1000", "value": 7}]}]}''')
    >>> program.tasks[0].name, len(program.tasks[0].ops), program.ids
    ('t0', 2, ('p',))
    """

    tasks: tuple[Task, ...]
    page_size: int = 4096
    ids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    files: tuple[FileSpec, ...] = ()
    system: System = field(default_factory=System)
    expect: Mapping[tuple[int, int], Mapping[str, Any]] = field(default_factory=dict)
    expect_for: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULT_EXPECT_FOR))
    scale_pages: bool = False
    cpus: int | None = None
    comms: tuple[str, ...] = ()
    vmas: tuple[str, ...] = ()
    source: str = field(default="<program>", compare=False)

    @classmethod
    def load(cls, path: str | Path) -> Program:
        """Loads a program from a file, JSON or ``.npz`` by its content; ``"-"`` is standard input.

        Source: the program format. Raises ProgramError, with the exact place, for what is not a
        valid program (an unreadable file included); mend the place it names.
        """
        from spfemu.program.files import load

        return load(path)

    @classmethod
    def loads(cls, text: str | bytes, source: str = "<program>") -> Program:
        """Loads a program from its JSON text or from the bytes of an ``.npz`` archive.

        Source: the program format. ``source`` names the text in messages. Raises ProgramError as
        ``load`` does.
        """
        from spfemu.program.files import loads

        return loads(text, source)

    @classmethod
    def from_dict(cls, obj: Any, source: str = "<program>") -> Program:
        """Makes a program from the object that its JSON text stands for.

        Source: the program format. Raises ProgramError as ``load`` does.
        """
        from spfemu.program.reader import read_program

        return read_program(obj, source)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of this program, without what is default.

        Source: the program format. Addresses are hexadecimal strings; ``Program.from_dict`` of the
        object gives the same operations again.
        """
        from spfemu.program.writer import to_dict

        return to_dict(self)

    def save(self, path: str | Path) -> None:
        """Writes the program to a file, ``.json`` or ``.npz`` as its suffix says.

        ``"-"`` writes JSON to standard output. A file that cannot be finished is not left half
        written. Source: the program format. Raises
        ProgramError for another suffix or a file that cannot be written.
        """
        from spfemu.program.files import save

        save(self, path)

    def meta(self) -> dict[str, Any]:
        """Returns everything but the arrays, as JSON values.

        Source: the program format: this is the ``meta`` of the array form.
        """
        meta: dict[str, Any] = {
            "format": FORMAT,
            "page_size": self.page_size,
            "scale_pages": self.scale_pages,
            "cpus": self.cpus,
            "ids": list(self.ids),
            "names": list(self.names),
            "texts": list(self.texts),
            "files": [
                {"name": f.name, "length": f.length, "kind": f.kind, "cached": f.cached}
                for f in self.files
            ],
            "system": self.system.to_dict(),
            "tasks": [{"name": task.name, "start": task.start} for task in self.tasks],
            "expect": [
                {"task": task, "index": index, "expect": dict(expect)}
                for (task, index), expect in sorted(self.expect.items())
            ],
            "expect_for": dict(self.expect_for),
        }
        if self.comms or self.vmas:
            meta["comms"] = list(self.comms)
            meta["vmas"] = list(self.vmas)
        return meta

    def checked(self) -> Program:
        """Returns this program with read-only arrays after all checks. Source: ours.

        Raises ProgramError.
        """
        from spfemu.program.checks import check_program

        tasks = []
        for task in self.tasks:
            ops = task.ops
            if ops.dtype == OP_DTYPE:
                ops = np.ascontiguousarray(ops)
            if ops.flags.writeable:
                ops = ops.view()
                ops.flags.writeable = False
            tasks.append(replace(task, ops=ops))
        program = replace(self, tasks=tuple(tasks))
        check_program(program)
        return program

    def replicate(self, copies: int) -> Program:
        """Returns a program with so many copies of its threads in one process.

        The process is the one with the most tasks; in a recording, what comes after its exec. Each
        copy but the first has tasks, ids and names of its own (``"t0#1"``), and ranges of its own
        where addresses are numbers, each as far into its page table as it was. Files are shared.
        Instead of the break, of which a process has one, a copy maps its whole heap at once, and
        each later brk is an mprotect that changes nothing. ``cpus``, the memory and
        vm.max_map_count are multiplied; expectations are left out. Source: ours. ``copies``: 1 to
        1024. Raises ProgramError where the ranges do not fit, and for what cannot be copied: an
        exec in the process, a brk with an id or without a known beginning.

        >>> from spfemu.program import ProgramBuilder
        >>> b = ProgramBuilder()
        >>> b.task("t0").mmap(65536, id="p")
        >>> [task.name for task in b.build().replicate(3).tasks]
        ['t0', 't0#1', 't0#2']
        """
        from spfemu.program.replicate import replicate_program
        from spfemu.program.scale import refuse_stacks

        refuse_stacks(self, "replicate")

        return replicate_program(self, copies)

    def where(self, task: int, index: int) -> str:
        """Returns the place of a record in the JSON form: ``tasks[0].ops[3].ops[1]``.

        Source: ours. ``task`` is the task's number, ``index`` the record's in its array (brackets
        counted).

        >>> from spfemu.program import ProgramBuilder
        >>> b = ProgramBuilder()
        >>> t = b.task("t0")
        >>> with t.repeat(count=2):
        ...     t.compute(5)
        >>> b.build().where(0, 1)
        'tasks[0].ops[0].ops[0]'
        """
        counts = [0]
        place: list[int] = []
        codes = self.tasks[task].ops["op"][:index].tolist()
        for code in codes:
            if code == _REPEAT:
                place.append(counts[-1])
                counts.append(0)
            elif code == _END and len(counts) > 1:
                counts.pop()
                place.pop()
                counts[-1] += 1
            else:
                counts[-1] += 1
        path = "".join(f".ops[{number}]" for number in (*place, counts[-1]))
        return f"tasks[{task}]{path}"

    @property
    def nr_ops(self) -> int:
        """The number of records of all tasks, brackets included. Source: ours."""
        return sum(len(task.ops) for task in self.tasks)
