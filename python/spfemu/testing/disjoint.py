"""A strategy for programs whose tasks run at once, each on ranges of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from hypothesis import strategies as st

from spfemu.profiles import Arch
from spfemu.program import Program
from spfemu.program.ops import FORMAT
from spfemu.testing.mappings import mappings
from spfemu.testing.operations import plain_operations
from spfemu.testing.places import Place, Places
from spfemu.testing.programs import MAX_TASKS, check_number, files_used, profile
from spfemu.testing.vocabulary import Operation, Vocabulary, finished, pick

__all__ = ["disjoint_programs"]

_WINDOW_PAGES: Final = 8
_ADVICES: Final = (
    *("dontneed",) * 3,
    *("random", "normal", "dontdump", "dodump", "nohugepage"),
    *("pageout", "cold", "willneed"),
)
"""Not free: when a page that was given up goes is up to whoever shares it."""


def disjoint_programs(
    *, arch: str | Arch = "x86", tasks: int = 4, max_ops: int = 20, forks: bool = True
) -> st.SearchStrategy[Program]:
    """A strategy for programs whose tasks overlap in time but not in memory.

    After a barrier, each task maps, changes and accesses a window of its own; the windows lie side
    by side, so that VMAs, page tables and locks are shared. What a task gets back (``ret``,
    ``errno``, ``value``, ``signal``) is the same in every interleaving; who handles a fault, what
    it counts and how the mappings are cut into VMAs is not. ``assert_same(…, what="own")`` compares
    accordingly.

    Nothing comes up whose outcome depends on the others all the same: executing what may not be
    executed (C2 of SPF_V12), limits, and, with forks, shared mappings.

    Source: ours.

    Args:
        arch: a profile or its name (default "x86"); the program is made for its page size.
        tasks: the most tasks of a program, 2 to 64 (default 4), all threads of one process.
        max_ops: the most operations of a task, 1 to 10,000 (default 20).
        forks: whether tasks may have a child by fork, at work in a copy of the same window
            (default true).

    Returns:
        A strategy of programs.

    Raises:
        ProgramError: a number is out of its range.

    >>> from hypothesis import given, settings
    >>> import spfemu
    >>> from spfemu.testing import assert_same, disjoint_programs
    >>> @settings(max_examples=5, database=None)
    ... @given(disjoint_programs(tasks=2))
    ... def agrees(program):
    ...     one, other = (spfemu.run(program, engine=name) for name in ("reference", "native"))
    ...     assert_same(one, other, what="own")
    >>> agrees()
    """
    check_number("disjoint_programs", "tasks", tasks, MAX_TASKS, least=2)
    check_number("disjoint_programs", "max_ops", max_ops, 10_000)
    return _disjoint_programs(profile(arch), tasks, max_ops, forks)


@st.composite
def _disjoint_programs(
    draw: st.DrawFn, arch: Arch, tasks: int, max_ops: int, forks: bool
) -> Program:
    places = Places(arch)
    with_forks = forks and draw(st.booleans())
    parents: list[dict[str, Any]] = []
    children: list[dict[str, Any]] = []
    files: dict[str, Any] = {}
    for number in range(2 + pick(draw, range(tasks - 1))):
        file = f"f{number}"
        words = _words(draw, places, number, file, shared=not with_forks)
        ops = [{"op": "barrier", "name": "go"}, *_ops(draw, words, max_ops)]
        used = files_used(ops)
        if number == 0 and draw(st.booleans()):
            ops.append({"op": "brk", "delta": 3 * places.page, "id": "heap"})
            ops.append({"op": "touch", "addr": f"heap-{places.page}", "length": 1})
        if with_forks and draw(st.booleans()):
            child_ops = [*_alone(words), *_ops(draw, words, max_ops)]
            ops.insert(pick(draw, range(len(ops) + 1)), {"op": "fork", "child": f"c{number}"})
            used |= files_used(child_ops)
            children.append({"name": f"c{number}", "start": "fork", "ops": child_ops})
        if used:
            files[file] = _file(draw, words, file)
        parents.append({"name": f"t{number}", "ops": ops})
    return Program.from_dict(
        {
            "format": FORMAT,
            "page_size": arch.page_size,
            "files": files,
            "tasks": parents + children,
        }
    )


def _words(draw: st.DrawFn, places: Places, number: int, file: str, *, shared: bool) -> Vocabulary:
    """What a task may speak of: its window, its file."""
    half = _WINDOW_PAGES // 2
    base = places.main.base + number * _WINDOW_PAGES * places.page
    prots = pick(draw, _PROTS)
    words = Vocabulary.of(
        places.arch,
        files={file: pick(draw, ("regular", "shmem"))},
        confined=True,
        prots=prots,
        sharing=2 if shared else 0,
        heap=False,
        limits=False,
        executing=prots is _PROTS[1],
        advices=_ADVICES,
    )
    return replace(words, window=Place(base, half, half))


_PROTS: Final = (("rw", "rw", "rw", "r", "none", "w"), ("rwx", "rwx", "rx", "none"))
"""What a task's mappings allow: none may be executed, or all that may be read."""


def _ops(draw: st.DrawFn, words: Vocabulary, max_ops: int) -> list[Operation]:
    plain = plain_operations(words)
    ops = [*draw(mappings(words)), *draw(st.lists(plain, max_size=max_ops))][:max_ops]
    if draw(st.booleans()):
        loop = draw(st.lists(plain, min_size=1, max_size=4))
        ops.append({"op": "repeat", "count": pick(draw, (1, 2, 3, 20)), "ops": loop})
    made: list[Operation] = finished(ops)
    return made


def _alone(words: Vocabulary) -> list[Operation]:
    """What a child does first: it takes away what it has got of the others' windows."""
    start, end = words.window_start, words.window_end
    return [
        {"op": "munmap", "addr": 0, "length": start},
        {"op": "munmap", "addr": end, "length": words.places.rest(end)},
    ]


def _file(draw: st.DrawFn, words: Vocabulary, name: str) -> dict[str, Any]:
    page = words.page
    length = pick(draw, (20 * page, 3 * page + 100, 0))
    return {"length": length, "kind": words.files[name], "cached": draw(st.booleans())}
