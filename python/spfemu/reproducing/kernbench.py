"""kernbench: single-threaded processes, which the series must not make slower."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from spfemu.data import published
from spfemu.machines import Machine
from spfemu.reproducing.cases import ANY, Case, Cell, Limit, Line
from spfemu.reproducing.ebizzy import NOTSUP
from spfemu.sweeping.beside import PUBLISHED_AS, handler_of

__all__ = ["CASES", "KernbenchCase"]

SAME: Final = Limit(percent=1, of_one=True)
NEXT_TO_NONE: Final = Limit(most=1)


@dataclass(frozen=True)
class KernbenchCase(Case):
    """One machine's kernel compilations with so many jobs.

    Our kernbench compiles few files, one for each job, so that of its times only the ratio of those
    elapsed can be compared, that of ``runs`` runs together: what the compilers compute is the same
    with both handlers, and so is all of the user's time. ``part``: so many jobs and CPUs stand for
    one, for more processes at once than a few minutes have time for.
    """

    jobs: int
    part: int
    runs: int

    def cells(self, machine: Machine, seconds: float) -> tuple[Cell, ...]:
        """Returns a run of each handler. Source: the tables' captions."""
        jobs = str(self.jobs // self.part)
        workload = ("kernbench", "-j", jobs, "-c", jobs, "-n", str(self.runs))
        cpus = self.ncpus // self.part
        return tuple(Cell(machine, cpus, name, workload) for name in ("classic", "spf"))

    def lines(self) -> Iterator[Line]:
        """Yields elapsed times, as a ratio, and speculative faults. Source: ``published.csv``."""
        rows = {
            (row.benchmark, handler_of(row.variant), row.metric): row.value
            for row in published()
            if row.machine in PUBLISHED_AS[self.machine]
            and row.ncpus == self.ncpus
            and row.benchmark.startswith("kernbench")
        }
        elapsed = [rows[f"kernbench -j{self.jobs}", name, "elapsed"] for name in ("classic", "spf")]
        yield Line(
            self, "elapsed, ratio", "", elapsed[1] / elapsed[0],
            lambda f: f[1].results["elapsed_s"] / f[0].results["elapsed_s"], SAME,
        )  # fmt: skip
        faults = rows["kernbench -M", "spf", "count:faults"]
        for event, name in (("spf", "spf"), ("spf_vma_notsup", NOTSUP)):
            count = rows["kernbench -M", "spf", f"count:{event}"]
            yield Line(
                self, event, "ppm of faults", 1e6 * count / faults,
                lambda f, name=name: 1e4 * f[1].share(name),  # type: ignore[misc]
                NEXT_TO_NONE if event == "spf" else ANY,
            )  # fmt: skip


CASES: Final = tuple(
    KernbenchCase(f"kernbench -j {jobs}, {name}", machine, ncpus, jobs, part, runs)
    for name, machine, ncpus, loads, part, runs in (
        ("x86, 48 CPUs", "x86-48", 48, (24, 48), 1, 1),
        ("POWER8, a quarter", "power8-1024", 1024, (512, 1024), 4, 3),
    )
    for jobs in loads
)
