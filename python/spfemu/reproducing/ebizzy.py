"""What the series' authors published of ebizzy, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from spfemu.data import published
from spfemu.machines import Machine
from spfemu.reproducing.cases import ANY, Case, Cell, Limit, Line
from spfemu.sweeping.beside import PUBLISHED_AS, handler_of

__all__ = ["CASES", "MEASURED_S", "EbizzyCase"]

CHANGED: Final = "pagefault:spf_vma_changed"
NOTSUP: Final = "pagefault:spf_vma_notsup"
RATE: Final = Limit(percent=20)
RATIO: Final = Limit(percent=25)
FEW: Final = Limit(most=0.3)
NONE: Final = Limit(most=0)

_PAGES_OF_A_RECORD: Final = 128
MEASURED_S: Final = 10
"""ebizzy's default chunk in pages of 4 KiB, and its default time: the x86 table of 48 CPUs has the
faults and no rate."""


@dataclass(frozen=True)
class EbizzyCase(Case):
    """One machine of one series' results, with ebizzy as its table has it.

    ``ncpus`` are those of the rows. ``fitted`` says whether constants of ``machine`` were fitted to
    these rates. ``factor`` is how far the shares of changed VMAs, and of all that fails, may be
    off. ``without`` are the kernel's mechanisms that came later, ``tree`` is the series'.
    ``aside``: not measured, but what the other tree would have made of it, so without limits.
    ``why``: as in ``Line``, of changed VMAs.
    """

    without: tuple[str, ...] = ()
    tree: str = "rcu"
    fitted: bool = False
    factor: float = 1.5
    aside: bool = False
    why: str = ""

    def cells(self, machine: Machine, seconds: float) -> tuple[Cell, ...]:
        """Returns a run of each handler. Source: the founding document's command."""
        workload = ("ebizzy", "-mTt", str(self.ncpus), "-S", f"{seconds:g}")
        return (
            Cell(machine, self.ncpus, "classic", workload, without=self.without),
            Cell(machine, self.ncpus, "spf", workload, self.tree, self.without),
        )

    def lines(self) -> Iterator[Line]:
        """Yields rates, their ratio, and how the faults ended. Source: ``published.csv``."""
        lines = (*self._rates(), *self._counts())
        for line in lines:
            if not self.aside:
                yield line
            elif line.what in ("speculative", "ratio", "spf_vma_changed"):
                yield Line(self, line.what, line.unit, line.published, line.ours)

    def _rows(self) -> dict[tuple[str, str], float]:
        return {
            (handler_of(row.variant), row.metric): row.value
            for row in published()
            if row.machine in PUBLISHED_AS[self.machine]
            and row.ncpus == self.ncpus
            and row.benchmark.startswith("ebizzy")
        }

    def _rates(self) -> Iterator[Line]:
        rows = self._rows()
        if ("classic", "records/s") not in rows:
            return
        classic, spf = rows["classic", "records/s"], rows["spf", "records/s"]
        fitted = self.fitted
        yield Line(self, "mmap_sem", "records/s", classic, lambda f: f[0].rate, RATE, fitted)
        yield Line(self, "speculative", "records/s", spf, lambda f: f[1].rate, RATE, fitted)
        ratio = spf / classic
        yield Line(self, "ratio", "", ratio, lambda f: f[1].rate / f[0].rate, RATIO, fitted)

    def _counts(self) -> Iterator[Line]:
        rows = self._rows()
        counts = {
            metric.removeprefix("count:"): value
            for (_, metric), value in rows.items()
            if metric.startswith("count:")
        }
        if not counts:
            return
        faults = counts["faults"]
        if ("spf", "records/s") not in rows:
            spf = faults / _PAGES_OF_A_RECORD / MEASURED_S
            yield Line(self, "speculative", "records/s", spf, lambda f: f[1].rate, RATE)
        share = {name: 100 * value / faults for name, value in counts.items()}
        unit, changed, notsup = "% of faults", "spf_vma_changed", "spf_vma_notsup"
        rest = Limit(factor=self.factor, of_rest=True)
        yield Line(self, "spf", unit, share["spf"], lambda f: f[1].share("spf"), rest)
        yield Line(
            self, changed, unit, share[changed], lambda f: f[1].share(CHANGED),
            Limit(factor=self.factor), why=self.why,
        )  # fmt: skip
        # A share of the ten seconds that were measured: in a shorter run threads that start make
        # most of them.
        yield Line(
            self, notsup, f"% of {MEASURED_S} s's faults", share[notsup],
            lambda f: f[1].share(NOTSUP) * f[1].results["records"] / f[1].rate / MEASURED_S, FEW,
        )  # fmt: skip
        for event in ("spf_vma_noanon", "spf_vma_access", "spf_pmd_changed"):
            if event in share:
                yield Line(
                    self, event, unit, share[event],
                    lambda f, event=event: f[1].share(f"pagefault:{event}"), NONE,  # type: ignore[misc]
                )  # fmt: skip
        a_thread = counts[notsup] / self.ncpus
        yield Line(
            self, notsup, "a thread", a_thread, lambda f: f[1].counters[NOTSUP] / self.ncpus, ANY,
            why="beside those of threads that start they come, as long as it runs, of mappings "
            "that find no neighbour to merge with",
        )  # fmt: skip


_BEFORE_4_20: Final = ("downgrade",)
_CLEARING: Final = (
    "clearing 64 KiB, for which 4 us are assumed, is most of the time in which a VMA can change: "
    "with 1024 CPUs 74 % fewer do if it is free"
)
CASES: Final = (
    EbizzyCase("v12, x86, 24 CPUs", "x86-48", 24, fitted=True),
    EbizzyCase(
        "v12, x86, 48 CPUs", "x86-48", 48,
        why="the time in which a VMA can change is what a fault takes: charge_page_ns, half or "
        "double, moves them by -21 and +29 %",
    ),
    EbizzyCase(
        "v12, POWER8, 1024 CPUs", "power8-1024", 1024, fitted=True, factor=3,
        why=_CLEARING,
    ),
    *(
        EbizzyCase(
            f"v11, {name}" + (", on v12's tree" if tree == "rcu" else ""),
            machine, ncpus, _BEFORE_4_20, tree,
            fitted=True, factor=factor, aside=tree == "rcu",
            why=_CLEARING if machine == "power8-80" else "",
        )
        for name, machine, ncpus, factor in (
            ("x86 VM, 16 CPUs", "x86-vm16", 16, 3.0),
            ("POWER8, 80 CPUs", "power8-80", 80, 1.5),
        )
        for tree in ("rwlock", "rcu")
    ),
)  # fmt: skip
