"""Single mechanisms: what others measured of a semaphore, and of flushing TLBs by interrupt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from spfemu.data import published
from spfemu.machines import Machine
from spfemu.reproducing.cases import Case, Cell, Line

__all__ = ["CASES", "MechanismCase"]

_SHARE: Final = 1 / 200
"""How much of ebizzy's virtual time these run: they have no start-up to speak of."""


@dataclass(frozen=True)
class MechanismCase(Case):
    """A benchmark of one mechanism on one machine, with several numbers of threads.

    ``benchmark`` and ``variant`` begin those of the rows, which have ``scale`` units to one of
    ours; ``command`` is the workload without threads and time, ``figure`` its rate. ``handler`` is
    the one nearer to the kernel that was measured. ``costs`` of the machine are replaced.
    """

    benchmark: str
    variant: str
    command: str
    figure: str
    scale: float
    handler: str
    costs: tuple[tuple[str, int], ...] = ()
    calibrated: bool = False

    def threads(self) -> dict[int, float]:
        """Returns the published rates by the number of threads. Source: ``published.csv``."""
        return {
            row.threads: row.value
            for row in published()
            if row.benchmark.startswith(self.benchmark)
            and row.variant.startswith(self.variant)
            and row.threads is not None
        }

    def cells(self, machine: Machine, seconds: float) -> tuple[Cell, ...]:
        """Returns a run for each number of threads. Source: the rows."""
        if self.costs:
            machine = machine.replace(name=machine.name, **dict(self.costs))
        return tuple(
            Cell(
                machine, self.ncpus, self.handler,
                (self.command, "-t", str(threads), "-s", f"{seconds * _SHARE:g}"),
            )
            for threads in self.threads()
        )  # fmt: skip

    def lines(self) -> Iterator[Line]:
        """Yields a rate for each number of threads. Source: ``published.csv``."""
        for nth, (threads, value) in enumerate(self.threads().items()):
            thread = "1 thread" if threads == 1 else f"{threads} threads"
            yield Line(
                self, thread, "k/s", value * self.scale / 1000,
                lambda f, nth=nth: f[nth].results[self.figure] / 1000,  # type: ignore[misc]
                is_calibrated=self.calibrated,
            )  # fmt: skip


_RWSEM: Final = (
    "rwsem locking microbenchmark",
    "pre-patch",
    "rwsem",
    "locks_per_s",
    1000,
    "classic",
)
_IN_THE_KERNEL: Final = ("syscall_ns", 0)
CASES: Final = (
    MechanismCase("rwsem, x86, 80 CPUs", "skylake-80", 80, *_RWSEM, costs=(_IN_THE_KERNEL,)),
    # What was measured is the semaphore of 5.3 in the making: readers spin, where those of 5.1
    # sleep, so this is the nearer one.
    MechanismCase(
        "rwsem, wake-ups free", "skylake-80", 80, *_RWSEM,
        costs=(_IN_THE_KERNEL, ("wakeup_ns", 0), ("waker_ns", 0)),
    ),
    # The kernel has per-VMA locks, so its faults wait for no mmap_sem: spf's are the nearer ones.
    MechanismCase(
        "TLB flush, x86, 72 CPUs", "milan-72", 72, "will-it-scale tlb_flush2_threads",
        "IPI shootdown", "tlb_flush2", "operations_per_s", 1, "spf", calibrated=True,
    ),
)  # fmt: skip
