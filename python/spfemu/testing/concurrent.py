"""Strategies for programs whose tasks race, and for the schedules under which they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st

from spfemu.exploring import explore
from spfemu.profiles import Arch
from spfemu.program import Program
from spfemu.program.ops import FORMAT
from spfemu.program.values import format_address
from spfemu.testing.agreement import program_text
from spfemu.testing.places import Places
from spfemu.testing.programs import MAX_TASKS, check_number, profile
from spfemu.testing.vocabulary import Operation, pick

__all__ = ["assert_unbroken", "concurrent_programs", "schedules"]

_UNTOUCHED: Final = ("", "", "write", "read")
_TOUCHED: Final = ("write", "write", "read")


@dataclass(frozen=True, slots=True)
class _Theme:
    """What the tasks of one program do: few kinds of operations, for those to meet that race.

    One task at least changes the mapping, others access its pages. ``pages`` is how many there are
    of these, ``focus`` how the one that most accesses are to is touched before. Tasks have one
    operation mostly, unless ``long``. ``backing``: "file" is a private mapping of one, "table" all
    that a page table maps, which moves as a whole.
    """

    changes: tuple[str, ...]
    accesses: tuple[str, ...] = ("write", "write", "write", "read")
    pages: tuple[int, ...] = (1, 2, 2, 2, 3, 3)
    focus: tuple[str, ...] = _UNTOUCHED
    long: bool = False
    backing: str = "anonymous"


_FORK: Final = _Theme(("fork",), ("write", "write", "read"), (1, 1, 2), ("write",), long=True)
_TABLE: Final = _Theme(("mremap",), ("write", "read"), (2,), ("read",), long=True, backing="table")
_THEMES: Final = (
    _Theme(("munmap",)),
    # What a fork, or the move of a page table, breaks takes more than others to be seen.
    *(_FORK,) * 3,
    _Theme(("mprotect", "mprotect", "munmap")),
    _Theme(("mremap", "mremap", "dontneed")),
    _Theme(("mlock", "mlock", "munlock")),
    _Theme(("dontneed",), ("write", "dontneed", "free", "mprotect"), (1, 2), _TOUCHED),
    _Theme(("migrate",), ("read", "write", "munmap"), (1, 1, 2), _TOUCHED),
    _Theme(("munmap",), ("read", "write"), backing="file"),
    *(_TABLE,) * 2,
    _Theme(("munmap", "mprotect", "dontneed", "mremap", "fork", "mlock")),
)
_MAX_GAP: Final = 150
"""Moments between two switches: about as many as two operations side by side have."""


def schedules(*, max_switches: int = 4) -> st.SearchStrategy[list[int]]:
    """A strategy for schedules, as ``spfemu.explore(strategy="guided", schedule=…)`` takes them.

    Nearly all numbers are 0: whoever ran goes on. A few are not, and another task does. It shrinks
    to few switches, as early as can be, and works with any program: what lies beyond its end does
    nothing.

    Source: ours.

    Args:
        max_switches: the most numbers that are not 0, 0 to 100 (default 4).

    Returns:
        A strategy of lists of whole numbers.

    Raises:
        ProgramError: a number is out of its range.

    >>> from hypothesis import find
    >>> from spfemu.testing import schedules
    >>> find(schedules(), lambda schedule: sum(schedule[3:]) > 0)
    [0, 0, 0, 1]
    """
    check_number("schedules", "max_switches", max_switches, 100, least=0)
    gap = st.one_of(st.integers(0, _MAX_GAP // 5), st.integers(0, _MAX_GAP))
    switch = st.tuples(gap, st.integers(1, 3))
    return st.lists(switch, max_size=max_switches).map(_flat)


def _flat(switches: list[tuple[int, int]]) -> list[int]:
    return [number for gap, other in switches for number in [*[0] * gap, other]]


def concurrent_programs(
    *, arch: str | Arch = "x86", tasks: int = 2, max_ops: int = 3
) -> st.SearchStrategy[Program]:
    """A strategy for small programs whose tasks are at work on the same few pages at once.

    One task maps the pages and writes to some, others may write to one too; then all of them
    write, read, unmap, protect, drop, move and copy (fork) them, side by side. What they see
    depends on the interleaving; that no
    invariant breaks must not (``assert_unbroken``).

    Source: ours.

    Args:
        arch: a profile or its name (default "x86"); the program is made for its page size.
        tasks: the most tasks that start together, 2 to 64 (default 2).
        max_ops: the most operations of a task once they run side by side, 1 to 100 (default 3).

    Returns:
        A strategy of programs; a failing one shrinks to few operations.

    Raises:
        ProgramError: a number is out of its range.

    >>> from hypothesis import given, settings
    >>> from spfemu.testing import assert_unbroken, concurrent_programs, schedules
    >>> @settings(max_examples=5, database=None)
    ... @given(concurrent_programs(), schedules())
    ... def nothing_breaks(program, schedule):
    ...     assert_unbroken(program, schedule, variants_default="fixed")
    >>> nothing_breaks()
    """
    check_number("concurrent_programs", "tasks", tasks, MAX_TASKS, least=2)
    check_number("concurrent_programs", "max_ops", max_ops, 100)
    return _programs(profile(arch), tasks, max_ops)


@dataclass(frozen=True, slots=True)
class _Shared:
    """The pages that all tasks share; ``focus`` is the one that most accesses are to. A mapping
    moves to just below where it is: in the same page table as a rule.
    """

    theme: _Theme
    page: int
    pages: int
    length: int
    focus: int

    def addr(self, draw: st.DrawFn, *, moved: bool) -> str:
        """One of the addresses; those of where it moves to, or of where it was."""
        nth = pick(draw, (self.focus,) * self.pages + tuple(range(self.pages)))
        return self.at(nth, moved=moved)

    def at(self, nth: int, *, moved: bool = False) -> str:
        return str(format_address("p", nth * self.page - (self.length if moved else 0)))

    @property
    def moves(self) -> bool:
        return "mremap" in self.theme.changes


def _shared(draw: st.DrawFn, arch: Arch) -> _Shared:
    page, theme = arch.page_size, pick(draw, _THEMES)
    pages = pick(draw, theme.pages)
    length = Places(arch).table_span if theme.backing == "table" else pages * page
    return _Shared(theme, page, pages, length, pick(draw, range(pages)))


def _first(draw: st.DrawFn, shared: _Shared, arch: Arch) -> list[Operation]:
    """The mapping, and who has a page of it already."""
    mapping: Operation = {"op": "mmap", "length": shared.length, "id": "p"}
    if shared.theme.backing == "file":
        mapping |= {"flags": ["private"], "file": "f"}
    elif shared.theme.backing == "table":
        flags = ["private", "anonymous", "fixed"]
        mapping |= {"addr": Places(arch).main.base, "flags": flags}
    ops = [mapping]
    for nth in range(shared.pages):
        # The write to another page gives the VMA its anon_vma, and the first fault at the focus is
        # speculative; what was only read has the zero page, and a write to it copies.
        kinds = shared.theme.focus if nth == shared.focus else ("", "write", "write", "write")
        if kind := pick(draw, kinds):
            ops.append(_access(kind, shared.at(nth), 1))
    return ops


@st.composite
def _programs(draw: st.DrawFn, arch: Arch, tasks: int, max_ops: int) -> Program:
    nr_tasks, shared = draw(st.integers(2, tasks)), _shared(draw, arch)
    first = _first(draw, shared, arch)
    made: list[dict[str, Any]] = []
    children: list[dict[str, Any]] = []
    # Those that have a page in their TLB before all begin.
    warm = [task for task in range(1, nr_tasks) if draw(st.booleans())]
    # What was stored is looked at in the end.
    reads = pick(draw, (False, True, True))
    theme, changer = shared.theme, pick(draw, range(nr_tasks))
    both = theme.accesses + theme.changes
    # Where the others are while it moves. Not at both places: who has seen a page at the new one,
    # and then writes through its TLB to the old one, which is not flushed yet, does what Linux
    # lets it, and looks like a lost store. One alone may go from the old place to the new.
    new = shared.moves and draw(st.booleans())
    stay = tuple(kind for kind in both if kind != "mremap")
    for task in range(nr_tasks):
        if task == 0:
            ops = [*first, {"op": "post", "name": "go"}]
            ops += [{"op": "await", "name": f"warm{other}"} for other in warm]
        else:
            ops = [{"op": "await", "name": "go"}]
        if task in warm:
            kind = pick(draw, ("write", "write", "read"))
            ops.append(_access(kind, shared.at(pick(draw, range(shared.pages))), 1))
            ops.append({"op": "post", "name": f"warm{task}"})
        kinds = theme.changes if task == changer else pick(draw, (theme.accesses,) * 2 + (stay,))
        moved = new
        most = max_ops if theme.long or draw(st.booleans()) else 1
        for nth in range(draw(st.integers(1, most))):
            kind = pick(draw, both if nth and task == changer else kinds)
            if shared.moves and (task == changer or (nth and nr_tasks == 2)):
                moved = (moved and task != changer) or draw(st.booleans())
            value = 2 + task * max_ops + nth
            operation = _operation(draw, shared, kind, moved=moved, value=value)
            if operation["op"] == "fork":
                operation["child"] = child = f"c{len(children)}"
                read = _access("read", shared.addr(draw, moved=moved))
                children.append({"name": child, "start": "fork", "ops": [read]})
            ops.append(operation)
        if task and reads:
            ops.append({"op": "post", "name": f"end{task}"})
        made.append({"name": f"t{task}", "ops": ops})
    if reads:
        made[0]["ops"] += [{"op": "await", "name": f"end{task}"} for task in range(1, nr_tasks)]
        for moved in (False, True)[: 1 + shared.moves]:
            for nth in range(shared.pages):
                made[0]["ops"].append(_access("read", shared.at(nth, moved=moved)))
    files = {"f": {"length": shared.length}} if theme.backing == "file" else {}
    return Program.from_dict(
        {"format": FORMAT, "page_size": shared.page, "files": files, "tasks": [*made, *children]},
    )


def _access(kind: str, addr: str, value: int = 0) -> Operation:
    return {"op": kind, "addr": addr, **({"value": value} if kind == "write" else {})}


def _operation(
    draw: st.DrawFn, shared: _Shared, kind: str, *, moved: bool, value: int
) -> Operation:
    """One operation on the pages that all share."""
    if kind in ("write", "read"):
        return _access(kind, shared.addr(draw, moved=moved), value)
    if kind == "fork":
        return {"op": "fork"}
    if kind == "mremap" and shared.theme.backing == "table":
        first, length = 0, shared.length
    else:
        first = pick(draw, range(shared.pages))
        length = pick(draw, range(1, shared.pages - first + 1)) * shared.page
    addr = shared.at(first)
    if kind == "mremap":
        sizes = {"old_length": length, "new_length": length}
        place = {"flags": ["maymove", "fixed"], "new_addr": shared.at(first, moved=True)}
        return {"op": kind, "addr": addr, **sizes, **place}
    where: Operation = {"addr": addr, "length": length}
    if kind == "mprotect":
        return {"op": kind, **where, "prot": pick(draw, ("r", "rw"))}
    if kind in ("dontneed", "free"):
        return {"op": "madvise", **where, "advice": kind}
    if kind == "migrate":
        return {"op": kind, **where, "node": 1}
    if kind == "mlock":
        return {"op": kind, **where, "onfault": pick(draw, (True, False))}
    return {"op": kind, **where}


def assert_unbroken(program: Program, schedule: Sequence[int], **settings: Any) -> None:
    """Runs a program under one schedule, and raises AssertionError if an invariant breaks.

    The message has what broke, the program, and how to see it again. A finding that has an entry
    of the catalogue is one like any other.

    Source: ours.

    Args:
        program: the program.
        schedule: as ``spfemu.explore`` takes it with strategy "guided".
        settings: ``arch``, ``mutants``, ``variants`` and whatever else ``spfemu.explore`` takes.

    Raises:
        AssertionError: an invariant broke.
        ProgramError, EngineError: as ``spfemu.explore``.

    >>> import spfemu
    >>> from spfemu.testing import assert_unbroken
    >>> builder = spfemu.ProgramBuilder()
    >>> builder.task("t0").note("nothing")
    >>> assert_unbroken(builder.build(), [])
    """
    found = explore(program, strategy="guided", schedule=list(schedule), **settings)
    if found["violations"]:
        (broken,) = found["violations"][:1]
        again = {**settings, "replay": broken["token"]}
        how = ", ".join(f"{key}={value!r}" for key, value in again.items())
        raise AssertionError(
            f"{broken['invariant']}: {broken['what']}\n"
            f"spfemu.explore(program, {how})\n"
            f"{program_text(program)}"
        )
