"""The series' published results beside what virtual time gives, with the error of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, NoReturn

from spfemu.engines import TREES, one_of
from spfemu.errors import EngineError, ProfileError
from spfemu.machines import Machine, find_machine
from spfemu.reproducing import ebizzy, kernbench, mechanisms
from spfemu.reproducing.cases import Case, Cell, Line
from spfemu.reproducing.running import run_cells
from spfemu.reproducing.varying import Moved, ablate, sensitivity

__all__ = ["CASES", "Compared", "Moved", "ablate", "reproduce", "sensitivity"]

CASES: Final[Mapping[str, tuple[Case, ...]]] = MappingProxyType(
    {"ebizzy": ebizzy.CASES, "kernbench": kernbench.CASES, "mechanisms": mechanisms.CASES}
)
"""All cases of published rows by group, in the order of the table."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One published number beside ours.

    Source: ``spfemu.published`` for ``published``. ``case`` names the machine and the series,
    ``machine`` what it is run on, ``what`` and ``unit`` the number. ``kind`` is
    "fitted" where constants of the machine were fitted to it, else "predicted". ``limit`` says how
    far ours may be off, "" where nobody says; ``within`` whether it is not farther, None without a
    limit. ``why`` ours is off, as far as it was looked into.
    """

    case: str
    machine: str
    cpus: int
    what: str
    unit: str
    published: float
    ours: float
    kind: str
    limit: str
    within: bool | None
    why: str = ""

    @property
    def error_pct(self) -> float:
        """The difference in percent of the published value. Source: ours."""
        if not self.published:
            return 0.0 if not self.ours else float("inf")
        return 100 * (self.ours - self.published) / self.published


def reproduce(
    *,
    seconds: float = ebizzy.MEASURED_S,
    repeat: int = 1,
    seed: int = 0,
    machines: Mapping[str, str | Path | Machine] | None = None,
    tree: str | None = None,
    groups: Iterable[str] = tuple(CASES),
    progress: Callable[[float], object] | None = None,
) -> tuple[Compared, ...]:
    """Runs what was measured of the series, and of the mechanisms below it, and compares.

    ebizzy and kernbench are the cover letters' of v12 and v11; v11's rows, with the tree that it
    had, are there again on v12's tree, to show what that changed. Then single mechanisms: the rwsem
    locking microbenchmark, and will-it-scale's tlb_flush2.

    Source: ``published.csv``; machines' constants: ``docs/cost-model.md``. ``seconds`` of virtual
    time each run of ebizzy has (10, as the authors' had), those of mechanisms 5 ms, and kernbench's
    what its few files take; ``repeat`` runs with seeds from ``seed`` on are
    averaged (1), ``progress`` is called with 0 to 1. All local cores. Deterministic. ``machines``
    has, by the name of a machine that a case is run on, another to run it on instead: a machine,
    its name or its file, with as many CPUs.

    ``tree``, "rcu" or "rwlock", is what all runs have instead of their own; ``groups`` are of
    ``CASES`` (all). ``spf_vma_notsup``, of which most come of threads that start, is put as a share
    of the faults of ten seconds where ``seconds`` are fewer.

    Raises EngineError for a number that cannot be, ProfileError for a machine.

    >>> import spfemu
    >>> lines = spfemu.reproduce(seconds=0.01, groups=["ebizzy"])
    >>> lines[2].case, lines[2].what, round(lines[2].published, 3)
    ('v12, x86, 24 CPUs', 'ratio', 1.708)
    """
    if not 0 < seconds <= 3600:
        raise EngineError(f"seconds: value {seconds} (allowed: above 0, to 3600)")
    if repeat < 1:
        raise EngineError(f"repeat: value {repeat} (allowed: 1 and more)")
    if tree is not None:
        one_of("tree", tree, TREES)
    cases = [case for group in groups for case in CASES[one_of("group", group, CASES)]]
    chosen = _machines(cases, machines or {})
    cells = {case: _cells(case, chosen[case.machine], seconds, tree) for case in cases}
    every = [cell for runs in cells.values() for cell in runs]
    figures = run_cells(every, seeds=range(seed, seed + repeat), progress=progress)
    return tuple(
        _compare(line, chosen[case.machine], line.ours([figures[cell] for cell in cells[case]]))
        for case in cases
        for line in case.lines()
    )


def _machines(
    cases: Sequence[Case], given: Mapping[str, str | Path | Machine]
) -> dict[str, Machine]:
    """What to run the cases of each machine on."""
    wanted = {case.machine: 0 for case in cases}
    for case in cases:
        wanted[case.machine] = max(wanted[case.machine], case.ncpus)
    for name in given:
        one_of("machine", name, wanted)
    found = {name: find_machine(given.get(name, name)) for name in wanted}
    for name, machine in found.items():
        arch = find_machine(name).arch
        if machine.arch != arch:
            _refuse(machine, f"arch {machine.arch}", name, arch)
        if machine.cpus < wanted[name]:
            _refuse(machine, f"{machine.cpus} CPUs", name, f"{wanted[name]} and more")
    return found


def _refuse(machine: Machine, what: str, name: str, allowed: str) -> NoReturn:
    raise ProfileError(f"machine {machine.name}: {what} (allowed instead of {name}: {allowed})")


def _cells(case: Case, machine: Machine, seconds: float, tree: str | None) -> tuple[Cell, ...]:
    cells = case.cells(machine, seconds)
    if tree is None:
        return cells
    return tuple(replace(c, tree=tree) if c.handler == "spf" else c for c in cells)


def _compare(line: Line, machine: Machine, ours: float) -> Compared:
    # Of another machine nothing is fitted, unless it says so.
    is_fitted = line.is_fitted and any(value.kind == "fitted" for value in machine.values)
    return Compared(
        case=line.case.name,
        machine=machine.name,
        cpus=line.case.ncpus,
        what=line.what,
        unit=line.unit,
        published=line.published,
        ours=ours,
        kind="fitted" if is_fitted else "predicted",
        limit=str(line.limit),
        within=line.limit.holds(line.published, ours) if str(line.limit) else None,
        why=line.why,
    )
