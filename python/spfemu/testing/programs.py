"""Strategies for whole programs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from hypothesis import strategies as st

from spfemu.errors import ProgramError
from spfemu.profiles import Arch
from spfemu.profiles import arch as arch_by_name
from spfemu.program import Program
from spfemu.program.ops import FORMAT
from spfemu.testing.assembling import Assembly, Turn
from spfemu.testing.mappings import mappings
from spfemu.testing.operations import Maker, makers, plain_operations
from spfemu.testing.places import Places
from spfemu.testing.vocabulary import At, Operation, Vocabulary, finished, pick

__all__ = ["MAX_TASKS", "check_number", "files_used", "operations", "profile", "programs"]

MAX_TASKS: Final = 64
"""The most tasks that a strategy is asked for."""

_IDS: Final = ("m0", "m1", "m2", "m3")
_FILES: Final = (
    ("f", "regular", True),
    ("s", "shmem", True),
    ("u", "regular", False),
    ("z", "devzero", True),
    ("h", "hugetlb", True),
)
_MEMCGS: Final = (*(None,) * 12, 1, 3, 6, 12, 520)
"""How many pages of anonymous memory all processes may have."""
_POOLS: Final = (None, None, None, 4, 3, 2, 1)
_THP: Final = (*("madvise",) * 4, "never", "always")
_SWAPS: Final[tuple[tuple[int, dict[str, Any]] | None, ...]] = (
    *(None,) * 8,
    *((pages, {}) for pages in (0, 1, 3, 6, 12, 24)),
    *((pages, {"kind": "synchronous"}) for pages in (4, 8, 1 << 20)),
    *((pages, {"vma_ra_enabled": False}) for pages in (8, 20, 1 << 20)),
    (1 << 20, {"readahead": 1}),
    (1 << 20, {"readahead": 3, "vma_ra_enabled": False}),
)
"""The swap device: how many pages, the header's included, and what kind."""
_STACK_LIMITS: Final = (*(None,) * 5, 20, 10, 0)
"""In pages, and a few bytes."""
_MIN_ADDRS: Final = (*(65536,) * 5, 4096, 0, 100_000)


def operations(
    *, arch: str | Arch = "x86", ids: tuple[str, ...] = (), files: tuple[str, ...] = ()
) -> st.SearchStrategy[dict[str, Any]]:
    """A strategy for single operations, as objects of the program format.

    Ranges overlap, for most lie in a window of 16 pages across the edge between two PTE tables;
    some are at other edges, beyond them, not aligned, empty or huge. All protections, most flags
    and advices come up. No operation starts or ends a task or waits for one.

    Source: ours.

    Args:
        arch: a profile or its name (default "x86").
        ids: names that earlier operations define; operations name them and define them anew.
        files: names of the program's files that mmap may map (default: none).

    Returns:
        A strategy of dictionaries; each example is a new one.

    >>> from hypothesis import given, settings
    >>> from spfemu.testing import operations
    >>> @settings(max_examples=5, database=None)
    ... @given(operations(files=("f",)))
    ... def has_a_name(operation):
    ...     assert operation["op"] in ("mmap", "munmap", "mprotect") or operation["op"]
    >>> has_a_name()
    """
    words = Vocabulary.of(profile(arch), ids=ids, files=dict.fromkeys(files, "regular"))
    return plain_operations(words).map(finished)


def programs(
    *,
    arch: str | Arch = "x86",
    tasks: int = 4,
    max_ops: int = 60,
    limits: bool = True,
    host: bool = False,
) -> st.SearchStrategy[Program]:
    """A strategy for programs whose outcomes do not depend on the interleaving.

    One task at a time is at work and then hands over to another, by post and await or a barrier;
    who has ended is waited for. So every engine must come to the same outcomes, counters and maps.
    Tasks are threads that start together, and children of fork, vfork and clone; some exec. The
    operations are those of ``operations``, also in loops, and files of all kinds with accesses
    beyond their ends. Some have room for huge pages, transparent ones and hugetlb's. Now and then
    all tasks wait for ever in the end.

    Source: ours.

    Args:
        arch: a profile or its name (default "x86"); the program is made for its page size.
        tasks: the most tasks of a program, 1 to 64 (default 4).
        max_ops: the most operations that do something, 1 to 10,000 (default 60); those that hand
            over come on top, and those in loops are counted once.
        limits: whether vm.max_map_count may be lowered, so that calls stop half way (default
            true).
        host: whether only what engine kernel can run is drawn (default false): no sysctl and no
            ``limits``, no huge pages, no stacks, files in the page cache.

    Returns:
        A strategy of programs; a failing one shrinks to few tasks, turns and operations.

    Raises:
        ProgramError: a number is out of its range.

    >>> from hypothesis import given, settings
    >>> import spfemu
    >>> from spfemu.testing import programs
    >>> @settings(max_examples=5, database=None)
    ... @given(programs(arch="arm64", tasks=2))
    ... def is_a_program(program):
    ...     assert spfemu.Program.from_dict(program.to_dict()) == program
    >>> is_a_program()
    """
    check_number("programs", "tasks", tasks, MAX_TASKS)
    check_number("programs", "max_ops", max_ops, 10_000)
    return _programs(profile(arch), tasks, max_ops, limits and not host, host)


def profile(arch: str | Arch) -> Arch:
    """Returns the profile of a name, or the profile itself. Source: ours."""
    return arch_by_name(arch) if isinstance(arch, str) else arch


def check_number(what: str, name: str, value: int, most: int, *, least: int = 1) -> None:
    """Refuses a number that is not from ``least`` to ``most``. Source: ours.

    Raises ProgramError.
    """
    if type(value) is not int or not least <= value <= most:
        raise ProgramError(f"{what}: {name}: value {value!r} (allowed: {least} to {most})")


@dataclass(frozen=True)
class _Plan:
    """What a program is drawn from, made once for each kind of program."""

    words: Vocabulary
    first: st.SearchStrategy[list[Operation]]
    turns: st.SearchStrategy[list[Turn]]

    @classmethod
    @cache
    def of(
        cls,
        arch: Arch,
        min_addr: int,
        second: int,
        most_turns: int,
        **restrictions: bool,
    ) -> _Plan:
        huge = restrictions["huge"]
        files = {name: kind for name, kind, _ in _FILES if huge or kind != "hugetlb"}
        words = Vocabulary.of(
            arch, ids=_IDS, files=files, min_addr=min_addr, second=second, **restrictions
        )
        first = mappings(words)
        turn = _turns(st.lists(_steps(words, first), max_size=20))
        turns = st.lists(turn, max_size=most_turns)
        if most_turns >= _MANY_TURNS:  # a list alone has about five parts, however many it may have
            turns = st.lists(turns, max_size=most_turns).map(_joined)
        return cls(words, first, turns)


_MANY_TURNS: Final = 25


def _joined(lists: list[list[Turn]]) -> list[Turn]:
    return [turn for turns in lists for turn in turns]


@st.composite
def _programs(
    draw: st.DrawFn, arch: Arch, tasks: int, max_ops: int, limits: bool, host: bool
) -> Program:
    min_addr = 65536 if host else pick(draw, _MIN_ADDRS)
    second = pick(draw, range(len(Places(arch).others)))
    thp = "never" if host else pick(draw, _THP)
    huge = pick(draw, range(4)) == 3 and not host
    plan = _Plan.of(
        arch, min_addr, second, max(1, max_ops // 4), huge=huge, limits=limits, host=host
    )
    threads = pick(draw, (1, 2, 2, 3))
    assembly = Assembly(
        threads=min(threads, tasks),
        most=tasks,
        max_ops=max_ops,
        anywhere=plan.words.window.base,
    )
    first = pick(draw, range(10)) < 9
    turns = draw(plan.turns)
    if first:
        turns = [Turn(0, draw(plan.first)), *turns]
    stuck = pick(draw, range(20)) == 19
    made = assembly.tasks_of(turns, stuck=stuck)
    system: dict[str, Any] = {}
    if huge and (pages := pick(draw, _POOLS)) is not None:
        system["hugetlb_pages"] = pages
    if min_addr != 65536:
        system["mmap_min_addr"] = min_addr
    if thp != "madvise":
        system["thp"] = thp
    if (swap := pick(draw, _SWAPS)) is not None and not host:
        size, settings = swap
        system["swap"] = {"size": size * arch.page_size, **settings}
    if (pages := pick(draw, _MEMCGS)) is not None and not host:
        system["memcg"] = pages * arch.page_size + 100
    if (stack_limit := pick(draw, _STACK_LIMITS)) is not None and not host:
        system["stack_limit"] = stack_limit * arch.page_size + 100
    if limits and pick(draw, range(16)) == 15:
        system["sysctl"] = {"vm.max_map_count": draw(st.integers(3, 9))}
    return Program.from_dict(
        {
            "format": FORMAT,
            "page_size": arch.page_size,
            "system": system,
            "files": _files(draw, plan.words, made),
            "tasks": made,
        }
    )


def _files(draw: st.DrawFn, words: Vocabulary, tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """The files that the tasks map, each with a length that may end within a page or window."""
    page, span = words.page, words.places.table_span
    lengths = (20 * page, 64 * page, 5 * page - 1, 3 * page + 100, page, 0)
    huge_lengths = (2 * span, 0, span, 4 * span, span + page)
    used = set().union(*(files_used(task["ops"]) for task in tasks))
    return {
        name: {
            "length": pick(draw, huge_lengths if kind == "hugetlb" else lengths),
            "kind": kind,
            "cached": cached or words.host,
        }
        for name, kind, cached in _FILES
        if name in used
    }


def files_used(ops: list[Operation]) -> set[str]:
    """Returns the names of the files that operations map, loops included. Source: ours."""
    found = {operation["file"] for operation in ops if "file" in operation}
    for operation in ops:
        if operation["op"] == "repeat":
            found |= files_used(operation["ops"])
    return found


# --- turns ---------------------------------------------------------------------------------------

NOTHING: Final[Operation] = {"op": "nothing"}
"""The simplest step. Shrinking turns steps into it; the assembling leaves it out."""


@st.composite
def _turns(draw: st.DrawFn, steps: st.SearchStrategy[list[Operation]]) -> Turn:
    who = pick(draw, range(8))
    by = pick(draw, ("post", "post", "barrier"))
    return Turn(who, draw(steps), by)


@st.composite
def _steps(
    draw: st.DrawFn, words: Vocabulary, first: st.SearchStrategy[list[Operation]]
) -> Operation:
    """A step, the simplest kinds first. Few draws, for that is what shrinks well."""
    plain = makers(words)
    kind = draw(_kinds(len(plain)))
    if kind == 0:
        return NOTHING
    if kind <= len(plain):
        return plain[kind - 1](draw, words)
    if kind <= len(plain) + _NR_LOOPS:
        return _loop(draw, words, plain)
    return _task_step(draw, words, first)


_NR_LOOPS: Final = 2
_NR_TASK_STEPS: Final = 6


@cache
def _kinds(nr_plain: int) -> st.SearchStrategy[int]:
    return st.integers(0, nr_plain + _NR_LOOPS + _NR_TASK_STEPS)


def _loop(draw: st.DrawFn, words: Vocabulary, plain: tuple[Maker, ...]) -> Operation:
    """A loop, a loop in a loop, two tasks that take turns, or a comb: every other page changed."""
    if (kind := pick(draw, ("repeat", "alternate", "nested", "comb"))) == "comb":
        return _comb(draw, words)

    def body() -> list[Operation]:
        return [pick(draw, plain)(draw, words) for _ in range(pick(draw, range(4)) + 1)]

    count = pick(draw, range(1, 4))
    if kind == "alternate":
        other = pick(draw, range(4))
        return {
            "op": kind,
            "count": count,
            "other": other,
            "mine": body(),
            "theirs": body(),
        }
    ops = body()
    if kind == "nested":
        ops.append({"op": "repeat", "count": pick(draw, range(1, 4)), "ops": body()})
    return {"op": "repeat", "count": count, "ops": ops}


def _comb(draw: st.DrawFn, words: Vocabulary) -> Operation:
    change: Operation = {"op": "mprotect", "prot": pick(draw, words.prots)}
    if pick(draw, range(2)):
        change = {"op": "munmap"}
    pages = pick(draw, (2, 4, 8))
    first = pick(draw, range(4))
    return {
        "op": "several",
        "ops": [
            {
                **change,
                "addr": At(None, words.window_start + (first + 2 * number) * words.page),
                "length": words.page,
            }
            for number in range(pages)
        ],
    }


def _task_step(
    draw: st.DrawFn, words: Vocabulary, first: st.SearchStrategy[list[Operation]]
) -> Operation:
    """A step that starts, ends or awaits a task."""
    name = pick(draw, _TASK_STEPS)
    step: Operation = {"op": name}
    if name in ("fork", "vfork") and pick(draw, range(4)) == 3:
        step["wait"] = True
    elif name == "wait":
        step["which"] = pick(draw, range(8))
    elif name == "exec":
        place = pick(draw, (None, words.places.main, words.places.others[0], words.places.top))
        if place is not None:
            step["brk_start"] = place.base - 4 * words.page
        if not words.host and pick(draw, range(2)):
            step["stack"] = pick(draw, (1, words.page, 3 * words.page, 128 << 10, 2 << 20))
            step["stack_shift"] = pick(draw, (0, words.page, 2 << 20, 7 * words.page + 1, 1 << 30))
        if pick(draw, range(4)):
            step["then"] = draw(first)
    return step


_TASK_STEPS: Final = (
    *("fork",) * 8,
    *("clone",) * 5,
    *("vfork",) * 3,
    *("end",) * 3,
    "exec",
    "exit",
    "wait",
)
