"""The series' published results beside what virtual time gives, with the error of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from spfemu.engines import one_of
from spfemu.errors import EngineError, ProfileError
from spfemu.machines import Machine, find_machine
from spfemu.reproducing.rows import CASES, Case, Cell, Line, lines_of
from spfemu.reproducing.running import run_cells

__all__ = ["Compared", "reproduce"]


@dataclass(frozen=True, slots=True)
class Compared:
    """One published number beside ours.

    Source: ``spfemu.published`` for ``published``. ``case`` names the machine and the series,
    ``machine`` what it is run on, ``what`` and ``unit`` the number. ``kind`` is
    "fitted" where constants of the machine were fitted to it, else "predicted". ``limit`` says how
    far ours may be off, "" for any; ``within`` whether it is not farther.
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
    within: bool

    @property
    def error_pct(self) -> float:
        """The difference in percent of the published value. Source: ours."""
        return 100 * (self.ours - self.published) / self.published if self.published else 0.0


def reproduce(
    *,
    seconds: float = 2.0,
    repeat: int = 1,
    seed: int = 0,
    machines: Mapping[str, str | Path | Machine] | None = None,
    progress: Callable[[float], object] | None = None,
) -> tuple[Compared, ...]:
    """Runs ebizzy as the cover letters of v12 and v11 have it and compares the results.

    Source: ``published.csv``; machines' constants: ``docs/cost-model.md``. ``seconds`` of virtual
    time each run has (2; the authors' had 10), ``repeat`` runs with seeds from ``seed`` on are
    averaged (1), ``progress`` is called with 0 to 1. All local cores. Deterministic. ``machines``
    has, by the name of a machine that a case is run on, another to run it on instead: a machine,
    its name or its file, with as many CPUs.

    v11's tree, which an rwlock protects, is v12's here: what the reading side of that lock costs
    is not in our numbers. ``spf_vma_notsup`` is compared for each thread, as the threads' start
    makes it, and not in percent of the faults, of which longer runs have more.

    Raises EngineError for a number that cannot be, ProfileError for a machine.

    >>> import spfemu
    >>> lines = spfemu.reproduce(seconds=0.01)
    >>> lines[2].case, lines[2].what, round(lines[2].published, 3)
    ('v12, x86, 24 CPUs', 'ratio', 1.708)
    """
    if not 0 < seconds <= 3600:
        raise EngineError(f"seconds: value {seconds} (allowed: above 0, to 3600)")
    if repeat < 1:
        raise EngineError(f"repeat: value {repeat} (allowed: 1 and more)")
    chosen = _machines(machines or {})
    pairs = {case: _pair(case, chosen[case.machine], seconds) for case in CASES}
    cells = [cell for pair in pairs.values() for cell in pair]
    seeds = range(seed, seed + repeat)
    figures = run_cells(cells, seeds=seeds, progress=progress)
    compared: list[Compared] = []
    for case in CASES:
        classic, spf = (figures[cell] for cell in pairs[case])
        machine = chosen[case.machine]
        compared += [_compare(line, machine, line.ours(classic, spf)) for line in lines_of(case)]
    return tuple(compared)


def _machines(given: Mapping[str, str | Path | Machine]) -> dict[str, Machine]:
    """What to run the cases of each machine on."""
    wanted = {case.machine: 0 for case in CASES}
    for case in CASES:
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


def _pair(case: Case, machine: Machine, seconds: float) -> tuple[Cell, Cell]:
    return case.cell(machine, "classic", seconds), case.cell(machine, "spf", seconds)


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
        within=line.limit.holds(line.published, ours),
    )
