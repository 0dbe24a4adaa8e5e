"""What must hold of drawn programs, as hypothesis tests.

Each is an ordinary function of what its strategy draws, so that ``given`` makes a test of it for
pytest and HypoFuzz alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st

from spfemu.engines import run
from spfemu.errors import EngineError
from spfemu.exploring import explore
from spfemu.minimising import minimise
from spfemu.program import Program
from spfemu.testing import (
    concurrent_programs,
    differential,
    disjoint_programs,
    programs,
    schedules,
)

__all__ = ["BrokenError", "Example", "check", "examples", "smallest"]

_ARCHES: Final = ("x86", "powerpc", "arm64")
_SEARCHES: Final = ("pct", "pct", "coverage", "random")
_SCHEDULES: Final = 400
"""How many schedules one search runs."""

Report = Callable[[int, frozenset[str]], object]


@dataclass(frozen=True, slots=True)
class Example:
    """What was drawn: a program, and how it is looked at, as JSON values. Source: ours."""

    program: Program
    how: dict[str, Any]


class BrokenError(AssertionError):
    """What a program broke: ``key`` is the same for all that break the same. Source: ours."""

    def __init__(self, key: str, what: str, how: dict[str, Any]) -> None:
        super().__init__(what)
        self.key = key
        self.how = how


def examples(kind: str) -> st.SearchStrategy[Example]:
    """A strategy for what is checked in a campaign of this kind. Source: ours."""
    return _raced() if kind == "exploring" else _sequential()


@st.composite
def _sequential(draw: st.DrawFn) -> Example:
    arch = draw(st.sampled_from(_ARCHES))
    what = draw(st.sampled_from(("all", "own")))
    strategy = programs(arch=arch) if what == "all" else disjoint_programs(arch=arch)
    return Example(draw(strategy), {"arch": arch, "what": what})


@st.composite
def _raced(draw: st.DrawFn) -> Example:
    program = draw(concurrent_programs(tasks=3))
    # A schedule that hypothesis makes is the simplest; it costs as much as a search of hundreds.
    if draw(st.integers(0, 7)) == 0:
        return Example(program, {"strategy": "guided", "schedule": draw(schedules())})
    search = draw(st.sampled_from(_SEARCHES))
    seed = draw(st.integers(0, 1 << 32))
    return Example(program, {"strategy": search, "schedules": _SCHEDULES, "seed": seed})


def check(kind: str, example: Example, settings: dict[str, Any], report: Report) -> None:
    """Runs an example, and tells ``report`` how many runs it were and what they covered.

    Source: ours. ``settings`` as ``Plan.explored_with``. Raises BrokenError.
    """
    if kind == "exploring":
        _explore(example, settings, report)
    else:
        _compare(example, report)


def _compare(example: Example, report: Report) -> None:
    arch, what = example.how["arch"], example.how["what"]
    result = run(example.program, engine="explore", arch=arch)
    report(1, frozenset(_outcomes(arch, result.outcomes())))
    try:
        differential(example.program, arches=(arch,), what=what)
    except AssertionError as difference:
        text = str(difference)
        # "reference (spf, x86) and native (spf, x86) differ in 1 places:", and the first of them.
        head, first = text.splitlines()[:2]
        place = first.split(":")[0].split()[-1]
        key = f"differential {head.split(' differ ')[0]}: {place} {first.split(':')[1].strip()}"
        raise BrokenError(key, text, example.how) from None


def _outcomes(arch: str, ops: Iterator[dict[str, Any]]) -> Iterator[str]:
    """What came of operations: which ones, how they ended, and what they counted."""
    for op in ops:
        counted = " ".join(sorted(op["counters"]))
        yield f"{arch} {op['op']} {op['errno']} {op['signal']} {op['handled']} {counted}"


def _explore(example: Example, settings: dict[str, Any], report: Report) -> None:
    found = explore(example.program, **settings, **example.how, races=True, workers=1)
    report(found["schedules"], frozenset(f"{pair:x}" for pair in found["races"]))
    if found["violations"]:
        one = found["violations"][0]
        key = f"exploring {one['invariant']} {one['entry']}"
        raise BrokenError(key, *_told(one))


def _told(finding: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What a finding of the explorer says, and how it is seen again."""
    how = {"replay": finding["token"], **{key: finding[key] for key in ("invariant", "entry")}}
    return f"{finding['invariant']}: {finding['what']}\n{finding['why']}", how


def smallest(
    program: Program, broken: BrokenError, settings: dict[str, Any], look: Callable[[float], None]
) -> tuple[Program, str, dict[str, Any]]:
    """Returns the smallest program that breaks the same, what it breaks, and how.

    Source: ours, ``spfemu.minimise``. ``look`` is called now and then; a KeyboardInterrupt of it
    ends this with what there is. Engines that differ: hypothesis has made it small.
    """
    how = broken.how
    if "replay" not in how:
        return program, str(broken), how
    try:
        made = minimise(program, how, progress=look, replay=how["replay"], **settings)
    except (KeyboardInterrupt, EngineError):
        return program, str(broken), how
    return made.program, *_told(made.finding)
