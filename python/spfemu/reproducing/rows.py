"""What the series' authors published of ebizzy, row by row, and what is run for each row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from spfemu.data import published
from spfemu.machines import Machine
from spfemu.sweeping.beside import handler_of

__all__ = ["CASES", "Case", "Cell", "Figures", "Limit", "Line", "lines_of"]

CHANGED: Final = "pagefault:spf_vma_changed"
NOTSUP: Final = "pagefault:spf_vma_notsup"


@dataclass(frozen=True, slots=True)
class Cell:
    """One run in virtual time: machine, CPUs, handler, workload, and the kernel's settings."""

    machine: Machine
    cpus: int
    handler: str
    workload: tuple[str, ...]
    downgrade: bool = True


@dataclass(frozen=True, slots=True)
class Figures:
    """What a cell gave: the workload's figures and the counters, means over the seeds."""

    results: Mapping[str, float]
    counters: Mapping[str, float]

    @property
    def rate(self) -> float:
        """Records a second. Source: ebizzy's output."""
        return self.results["records_per_s"]

    def share(self, event: str) -> float:
        """Returns an event's percentage of the faults. Source: the founding document's tables."""
        faults = self.counters["faults"]
        return 100 * self.counters[event] / faults if faults else 0.0


@dataclass(frozen=True, slots=True)
class Limit:
    """How far ours may be from what was published.

    Source: the project's bars. ``percent`` of the published value either way, or a ``factor``
    either way; any for neither.
    """

    percent: float | None = None
    factor: float | None = None

    def holds(self, published: float, ours: float) -> bool:
        """Says whether ours is near enough. Source: ours."""
        if self.factor is not None:
            return published / self.factor <= ours <= published * self.factor
        if self.percent is not None:
            return abs(ours - published) <= self.percent / 100 * published
        return True

    def __str__(self) -> str:
        if self.factor is not None:
            return f"factor {self.factor:g}"
        return "" if self.percent is None else f"± {self.percent:g} %"


RATE: Final = Limit(percent=20)
RATIO: Final = Limit(percent=25)
ANY: Final = Limit()


@dataclass(frozen=True, slots=True)
class Case:
    """One machine of one series' results, with ebizzy as its table has it.

    ``publication`` is a part of the rows' ``source``, ``words`` of their ``machine``; ``ncpus`` are
    those of the rows. ``fitted`` says on whether constants of ``machine`` were fitted to these
    rates. ``factor`` is how far the share of changed VMAs may be off.
    """

    name: str
    publication: str
    words: str
    ncpus: int
    machine: str
    downgrade: bool = True
    fitted: bool = False
    factor: float = 1.5

    def cell(self, machine: Machine, handler: str, seconds: float) -> Cell:
        """Returns the run of one handler. Source: the founding document's command."""
        workload = ("ebizzy", "-mTt", str(self.ncpus), "-S", f"{seconds:g}")
        return Cell(machine, self.ncpus, handler, workload, self.downgrade)


_PAGES_OF_A_RECORD: Final = 128
_SECONDS: Final = 10
"""ebizzy's default chunk in pages of 4 KiB, and its default time: the x86 table of 48 CPUs has the
faults and no rate."""

V12: Final = "20190416134522"
V11: Final = "1526555193"
CASES: Final = (
    Case("v12, x86, 24 CPUs", V12, "x86 node", 24, "x86-48", fitted=True),
    Case("v12, x86, 48 CPUs", V12, "x86 node", 48, "x86-48"),
    Case("v12, POWER8, 1024 CPUs", V12, "POWER8", 1024, "power8-1024", fitted=True, factor=3),
    Case(
        "v11, x86 VM, 16 CPUs", V11, "x86", 16, "x86-vm16", downgrade=False, fitted=True, factor=3
    ),
    Case("v11, POWER8, 80 CPUs", V11, "POWER8", 80, "power8-80", downgrade=False, fitted=True),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table. ``ours`` takes the figures of classic and spf."""

    case: Case
    what: str
    unit: str
    published: float
    ours: Callable[[Figures, Figures], float]
    limit: Limit
    is_fitted: bool = False


def lines_of(case: Case) -> Iterator[Line]:
    """Yields the lines that a case has published rows for. Source: ``published.csv``."""
    rows = [
        row
        for row in published()
        if case.publication in row.source
        and row.machine.startswith(case.words)
        and row.ncpus == case.ncpus
        and row.benchmark.startswith("ebizzy")
    ]
    rates = {handler_of(row.variant): row.value for row in rows if row.metric == "records/s"}
    counts = {row.metric.removeprefix("count:"): row.value for row in rows if row.unit == "events"}
    fitted = case.fitted

    if rates:
        classic, spf = rates["classic"], rates["spf"]
        yield Line(case, "mmap_sem", "records/s", classic, lambda c, s: c.rate, RATE, fitted)
        yield Line(case, "speculative", "records/s", spf, lambda c, s: s.rate, RATE, fitted)
        yield Line(case, "ratio", "", spf / classic, lambda c, s: s.rate / c.rate, RATIO, fitted)
    if counts:
        faults = counts["faults"]
        if not rates:
            spf = faults / _PAGES_OF_A_RECORD / _SECONDS
            yield Line(case, "speculative", "records/s", spf, lambda c, s: s.rate, RATE)
        share = {name: 100 * value / faults for name, value in counts.items()}
        off, changed, notsup = Limit(factor=case.factor), "spf_vma_changed", "spf_vma_notsup"
        yield Line(case, "spf", "% of faults", share["spf"], lambda c, s: s.share("spf"), RATIO)
        yield Line(case, changed, "% of faults", share[changed], lambda c, s: s.share(CHANGED), off)
        a_thread = counts[notsup] / case.ncpus
        yield Line(
            case, notsup, "a thread", a_thread, lambda c, s: s.counters[NOTSUP] / case.ncpus, ANY
        )
