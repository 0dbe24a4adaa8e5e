"""The series' published results beside what virtual time gives, with the error of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spfemu.errors import EngineError
from spfemu.reproducing.rows import CASES, Line, lines_of
from spfemu.reproducing.running import run_cells

__all__ = ["Compared", "reproduce"]


@dataclass(frozen=True, slots=True)
class Compared:
    """One published number beside ours.

    Source: ``spfemu.published`` for ``published``. ``case`` names the machine and the series,
    ``machine`` the profile that it is run on, ``what`` and ``unit`` the number. ``kind`` is
    "fitted" where constants of the profile were fitted to it, else "predicted". ``limit`` says how
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
    progress: Callable[[float], object] | None = None,
) -> tuple[Compared, ...]:
    """Runs ebizzy as the cover letters of v12 and v11 have it and compares the results.

    Source: ``published.csv``; machines' constants: ``docs/cost-model.md``. ``seconds`` of virtual
    time each run has (2; the authors' had 10), ``repeat`` runs with seeds from ``seed`` on are
    averaged (1), ``progress`` is called with 0 to 1. All local cores. Deterministic.

    v11's tree, which an rwlock protects, is v12's here: what the reading side of that lock costs
    is not in our numbers. ``spf_vma_notsup`` is compared for each thread, as the threads' start
    makes it, and not in percent of the faults, of which longer runs have more.

    Raises EngineError for a number that cannot be.

    >>> import spfemu
    >>> lines = spfemu.reproduce(seconds=0.01)
    >>> lines[2].case, lines[2].what, round(lines[2].published, 3)
    ('v12, x86, 24 CPUs', 'ratio', 1.708)
    """
    if not 0 < seconds <= 3600:
        raise EngineError(f"seconds: value {seconds} (allowed: above 0, to 3600)")
    if repeat < 1:
        raise EngineError(f"repeat: value {repeat} (allowed: 1 and more)")
    cells = [case.cell(handler, seconds) for case in CASES for handler in ("classic", "spf")]
    seeds = range(seed, seed + repeat)
    figures = run_cells(cells, seeds=seeds, progress=progress)
    compared: list[Compared] = []
    for case in CASES:
        classic, spf = (figures[case.cell(handler, seconds)] for handler in ("classic", "spf"))
        compared += [_compare(line, line.ours(classic, spf)) for line in lines_of(case)]
    return tuple(compared)


def _compare(line: Line, ours: float) -> Compared:
    return Compared(
        case=line.case.name,
        machine=line.case.machine,
        cpus=line.case.ncpus,
        what=line.what,
        unit=line.unit,
        published=line.published,
        ours=ours,
        kind="fitted" if line.is_fitted else "predicted",
        limit=str(line.limit),
        within=line.limit.holds(line.published, ours),
    )
