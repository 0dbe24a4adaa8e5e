"""Single mechanisms: what others measured of a semaphore, and of flushing TLBs by interrupt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from spfemu.machines import Machine
from spfemu.reproducing.cases import Case, Cell, Line
from spfemu.sweeping.beside import RWSEM, TLB_FLUSH, Mechanism

__all__ = ["CASES", "MechanismCase"]

_SECONDS: Final = 0.005
"""How long these run, however long ebizzy does: their start-up is over then."""


@dataclass(frozen=True)
class MechanismCase(Case):
    """A benchmark of one mechanism on one machine, with several numbers of threads.

    ``of`` are the rows. ``handler`` is the one nearer to the kernel that was measured. ``costs`` of
    the machine are replaced.
    """

    of: Mechanism
    handler: str
    costs: tuple[tuple[str, int], ...] = ()
    why: str = ""

    def threads(self) -> dict[int, float]:
        """Returns the published rates by the number of threads. Source: ``published.csv``."""
        return {row.ncpus: row.value for row in self.of.rows()}

    def cells(self, machine: Machine, seconds: float) -> tuple[Cell, ...]:
        """Returns a run for each number of threads. Source: the rows."""
        if self.costs:
            machine = machine.replace(name=machine.name, **dict(self.costs))
        return tuple(
            Cell(
                machine, self.ncpus, self.handler,
                (self.of.command, "-t", str(threads), "-s", f"{_SECONDS:g}"),
                strict=True,
            )
            for threads in self.threads()
        )  # fmt: skip

    def lines(self) -> Iterator[Line]:
        """Yields a rate for each number of threads. Source: ``published.csv``."""
        figure = self.of.rate.replace("/s", "_per_s")
        for nth, (threads, value) in enumerate(self.threads().items()):
            thread = "1 thread" if threads == 1 else f"{threads} threads"
            yield Line(
                self, thread, "k/s", value / 1000,
                lambda f, nth=nth: f[nth].results[figure] / 1000,  # type: ignore[misc]
                why=self.why,
            )  # fmt: skip


_IN_THE_KERNEL: Final = ("syscall_ns", 0)
CASES: Final = (
    MechanismCase(
        "rwsem, x86, 80 CPUs", RWSEM.machine, 80, RWSEM, "classic", costs=(_IN_THE_KERNEL,),
        why="readers of 5.1 sleep behind a writer: with wake-ups for nothing it is the next case",
    ),
    # What was measured is the semaphore of 5.3 in the making: readers spin, where those of 5.1
    # sleep, so this is the nearer one.
    MechanismCase(
        "rwsem, wake-ups free", RWSEM.machine, 80, RWSEM, "classic",
        costs=(_IN_THE_KERNEL, ("wakeup_ns", 0), ("waker_ns", 0)),
        why="what was measured is the semaphore of 5.3 in the making, whose readers spin",
    ),
    # The kernel has per-VMA locks, so its faults wait for no mmap_sem: spf's are the nearer ones.
    MechanismCase(
        "TLB flush, x86, 72 CPUs", TLB_FLUSH.machine, 72, TLB_FLUSH, "spf",
        why="what an interrupt costs is a rule of thumb, with another beside it that says seven "
        "times as much",
    ),
)  # fmt: skip
