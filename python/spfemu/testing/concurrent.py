"""Strategies for programs whose tasks race, and for the schedules under which they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from hypothesis import strategies as st

from spfemu.exploring import explore
from spfemu.profiles import Arch
from spfemu.program import Program
from spfemu.program.ops import FORMAT
from spfemu.testing.agreement import program_text
from spfemu.testing.programs import MAX_TASKS, check_number, profile
from spfemu.testing.vocabulary import Operation, pick

__all__ = ["assert_unbroken", "concurrent_programs", "schedules"]

_PAGES: Final = 3
"""Of the mapping that the tasks share, at most."""
_WRITES: Final = ("write",) * 4
_KINDS: Final = (
    (*_WRITES, "munmap", "munmap"),
    (*_WRITES, "read", "fork", "fork"),
    (*_WRITES, "munmap", "read", "mprotect"),
    (*_WRITES, "read", "mremap", "dontneed"),
    (*_WRITES, "munmap", "read", "mprotect", "dontneed", "mremap", "fork"),
)
"""What the tasks of one program do: few kinds of operations, for those to meet that race."""
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


@st.composite
def _programs(draw: st.DrawFn, arch: Arch, tasks: int, max_ops: int) -> Program:
    page = arch.page_size
    nr_tasks, pages = draw(st.integers(2, tasks)), draw(st.integers(1, _PAGES))
    kinds = pick(draw, _KINDS)
    first: list[Operation] = [{"op": "mmap", "length": pages * page, "id": "p"}]
    touched = draw(st.lists(st.integers(0, pages - 1), max_size=max(pages - 1, 1), unique=True))
    first += [{"op": "write", "addr": f"p+{nth * page}", "value": 1} for nth in touched]
    made: list[dict[str, Any]] = []
    children: list[dict[str, Any]] = []
    # Those that have a page in their TLB before all begin.
    warm = [task for task in range(1, nr_tasks) if draw(st.booleans())]
    # What was stored is looked at in the end.
    reads = draw(st.booleans())
    for task in range(nr_tasks):
        if task == 0:
            ops = [*first, {"op": "post", "name": "go"}]
            ops += [{"op": "await", "name": f"warm{other}"} for other in warm]
        else:
            ops = [{"op": "await", "name": "go"}]
        if task in warm:
            addr = f"p+{page * pick(draw, range(pages))}"
            ops.append({"op": "write", "addr": addr, "value": 1})
            ops.append({"op": "post", "name": f"warm{task}"})
        for nth in range(draw(st.integers(1, max_ops))):
            value = 2 + task * max_ops + nth
            operation = _operation(draw, kinds, pages, page, value)
            if operation["op"] == "fork":
                operation["child"] = child = f"c{len(children)}"
                read = {"op": "read", "addr": f"p+{page * pick(draw, range(pages))}"}
                children.append({"name": child, "start": "fork", "ops": [read]})
            ops.append(operation)
        if task and reads:
            ops.append({"op": "post", "name": f"end{task}"})
        made.append({"name": f"t{task}", "ops": ops})
    if reads:
        made[0]["ops"] += [{"op": "await", "name": f"end{task}"} for task in range(1, nr_tasks)]
        made[0]["ops"] += [{"op": "read", "addr": f"p+{nth * page}"} for nth in range(pages)]
    return Program.from_dict(
        {"format": FORMAT, "page_size": page, "tasks": [*made, *children]},
    )


def _operation(
    draw: st.DrawFn, kinds: Sequence[str], pages: int, page: int, value: int
) -> Operation:
    """One operation on the pages that all share."""
    kind = pick(draw, kinds)
    first = pick(draw, range(pages))
    addr = f"p+{first * page}"
    if kind == "write":
        return {"op": "write", "addr": addr, "value": value}
    if kind == "read":
        return {"op": "read", "addr": addr}
    if kind == "fork":
        return {"op": "fork"}
    length = pick(draw, range(1, pages - first + 1)) * page
    if kind == "mprotect":
        return {"op": "mprotect", "addr": addr, "length": length, "prot": pick(draw, ("r", "rw"))}
    if kind == "dontneed":
        return {"op": "madvise", "addr": addr, "length": length, "advice": "dontneed"}
    if kind == "mremap":
        place = {"flags": ["maymove", "fixed"], "new_addr": "0x100000000000"}
        return {"op": "mremap", "addr": addr, "old_length": length, "new_length": length, **place}
    return {"op": "munmap", "addr": addr, "length": length}


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
