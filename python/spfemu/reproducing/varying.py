"""What decides the numbers: mechanisms taken away and constants doubled, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from spfemu.errors import EngineError
from spfemu.machines import Machine, find_machine
from spfemu.program.values import shown
from spfemu.reproducing import ebizzy
from spfemu.reproducing.cases import Case, Cell, Figures
from spfemu.reproducing.running import run_cells

__all__ = ["ABLATIONS", "FACTORS", "NUMBERS", "Moved", "ablate", "sensitivity"]

NUMBERS: Final = ("mmap_sem", "speculative", "ratio", "spf_vma_changed")
"""What is looked at: both rates, in records/s, their ratio, and a share of the faults, in %."""

FACTORS: Final = (0.5, 2.0)
"""What a constant is multiplied by."""

_MANY_CPUS: Final = 256
"""With more CPUs than these a case runs longer in proportion, or each has done too little."""


@dataclass(frozen=True, slots=True)
class Moved:
    """One number, as it is and with one thing changed.

    Source: ours. ``case`` is that of ``reproduce``, ``change`` what was changed: a mechanism, or a
    constant and its ``factor``; ``what`` is one of ``NUMBERS``.
    """

    case: str
    change: str
    factor: float
    what: str
    usual: float
    changed: float

    @property
    def percent(self) -> float:
        """How far it moved, in percent of the usual. Source: ours."""
        return 100 * (self.changed / self.usual - 1) if self.usual else 0.0


@dataclass(frozen=True, slots=True)
class _Change:
    name: str
    factor: float
    of: Callable[[Cell], Cell]


def _without(mechanism: str) -> Callable[[Cell], Cell]:
    return lambda cell: replace(cell, without=tuple({*cell.without, mechanism}))


def _costs(**costs: int) -> Callable[[Cell], Cell]:
    return lambda cell: replace(cell, machine=_changed(cell.machine, costs))


def _changed(machine: Machine, costs: Mapping[str, int]) -> Machine:
    return machine.replace(name=machine.name, **costs)


def _lines_free(cell: Cell) -> Cell:
    near = int(cell.machine["line_own_ns"])
    lines = [v.name for v in cell.machine.values if v.name.startswith("line_")]
    return replace(cell, machine=_changed(cell.machine, dict.fromkeys(lines, near)))


def _rwlock(cell: Cell) -> Cell:
    return replace(cell, tree="rwlock") if cell.handler == "spf" else cell


def _another_seed(cell: Cell) -> Cell:
    return replace(cell, shift=1)


ANOTHER_SEED: Final = "another seed"
"""The change that shows how much is chance."""

ABLATIONS: Final[Mapping[str, Callable[[Cell], Cell]]] = {
    "no merging of VMAs": _without("merging"),
    "munmap without downgrade": _without("downgrade"),
    "no lock stealing": _without("stealing"),
    "no optimistic spinning": _without("spinning"),
    "all readers woken, as in 5.2": _without("reader_groups"),
    "IPIs to idle CPUs": _without("lazy_tlb"),
    "v11's tree: rwlock": _rwlock,
    "IPIs free": _costs(ipi_base_ns=0, ipi_target_ns=0, ipi_handler_ns=0),
    "wake-ups without jitter": _costs(wakeup_jitter_percent=0),
    "wake-ups at once": _costs(wakeup_ns=0),
    "scheduling free": _costs(wakeup_ns=0, waker_ns=0),
    "clearing pages free": _costs(clear_page_ns=0),
    "cache lines near": _lines_free,
    "adjacent lines prefetched": _costs(adjacent_line_prefetch=True),
}
"""What is taken away, or added, one at a time, and how."""


def ablate(
    *,
    seconds: float = 0.2,
    seed: int = 0,
    case: str = "",
    progress: Callable[[float], object] | None = None,
) -> tuple[Moved, ...]:
    """Takes mechanisms away, one at a time, and says which numbers of ebizzy move.

    Source: ours; after the study of ebizzy that docs/cost-model.md names. Of each case of ebizzy in
    ``reproduce`` the ``NUMBERS``, with each of ``ABLATIONS``, and as much chance as another seed
    brings; of those cases alone whose name has ``case``. ``seconds`` of virtual time (more
    for the 1024 CPUs), ``seed``
    and ``progress`` as for ``reproduce``. All local cores. Deterministic. Raises EngineError.
    """
    changes = [_Change(name, 0.0, of) for name, of in ABLATIONS.items()]
    changes.append(_CHANCE)
    return _vary(dict.fromkeys(_cases(case), changes), seconds, seed, progress)


def sensitivity(
    *,
    seconds: float = 0.1,
    seed: int = 0,
    case: str = "",
    progress: Callable[[float], object] | None = None,
) -> tuple[Moved, ...]:
    """Halves and doubles each cost of each machine, and says which numbers of ebizzy move.

    Source: ours. Of each case of ebizzy in ``reproduce`` the ``NUMBERS``, with each value in ns of
    its machine times each of ``FACTORS``, and with another seed; ``case``, ``seconds``, ``seed``
    and ``progress`` as for ``ablate``. All local cores. Deterministic. Raises EngineError.
    """
    changes = {case: list(_scaled(find_machine(case.machine))) for case in _cases(case)}
    return _vary(changes, seconds, seed, progress)


_CHANCE: Final = _Change(ANOTHER_SEED, 0.0, _another_seed)


def _scaled(machine: Machine) -> Iterator[_Change]:
    for value in machine.values:
        # A time slice of half is no cost, and what is 0 stays so.
        if value.unit == "ns" and value.value and value.name != "slice_ns":
            for factor in FACTORS:
                cost = max(1, round(value.value * factor))
                yield _Change(value.name, factor, _costs(**{value.name: cost}))
    yield _CHANCE


def _cases(part: str) -> list[Case]:
    every = [case for case in ebizzy.CASES if not case.aside]
    found: list[Case] = [case for case in every if part in case.name]
    if not found:
        raise EngineError(
            f"case {shown(part)} (allowed: part of {'; '.join(c.name for c in every)})"
        )
    return found


def _vary(
    changes: Mapping[Case, Iterable[_Change]],
    seconds: float,
    seed: int,
    progress: Callable[[float], object] | None,
) -> tuple[Moved, ...]:
    if not 0 < seconds <= 3600:
        raise EngineError(f"seconds: value {seconds} (allowed: above 0, to 3600)")
    usual = {
        case: case.cells(find_machine(case.machine), seconds * max(1.0, case.ncpus / _MANY_CPUS))
        for case in changes
    }
    cells = {
        (case, change): tuple(change.of(cell) for cell in usual[case])
        for case in changes
        for change in changes[case]
    }
    all_cells = [cell for pair in (*usual.values(), *cells.values()) for cell in pair]
    figures = run_cells(all_cells, seeds=(seed,), progress=progress)
    moved = []
    for (case, change), pair in cells.items():
        before = _numbers([figures[cell] for cell in usual[case]])
        after = _numbers([figures[cell] for cell in pair])
        moved += [
            Moved(case.name, change.name, change.factor, what, before[what], after[what])
            for what in NUMBERS
        ]
    return tuple(moved)


def _numbers(figures: list[Figures]) -> dict[str, float]:
    classic, spf = figures
    ratio = spf.rate / classic.rate if classic.rate else 0.0
    return dict(
        zip(NUMBERS, (classic.rate, spf.rate, ratio, spf.share(ebizzy.CHANGED)), strict=True)
    )
