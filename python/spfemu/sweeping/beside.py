"""Which published results stand beside which of our own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from spfemu.data import Row, published

__all__ = [
    "PFT",
    "PUBLISHED_AS",
    "RWSEM",
    "TLB_FLUSH",
    "Mechanism",
    "beside",
    "handler_of",
    "same_benchmark",
]

PUBLISHED_AS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "x86-48": ("x86 node, 24 CPUs", "x86 node, 48 CPUs"),
        "x86-vm16": ("x86 VM, 16 CPUs",),
        "power8-1024": ("POWER8 VM, 1024 CPUs",),
        "power8-80": ("POWER8 node, 80 CPUs",),
    }
)
"""What the published rows call the computers that our machines are modelled on."""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """Published rows of another kernel, which say something of one mechanism of ours.

    ``machine`` is ours; ``benchmark`` and ``variant`` begin those of the rows, whose ``metric`` has
    ``scale`` of our ``rate`` to one; ``command`` is our workload without threads and time.
    """

    machine: str
    benchmark: str
    variant: str
    metric: str
    command: str
    rate: str
    scale: float

    def rows(self) -> Iterator[Row]:
        """Yields the rows, as a sweep's: by threads, in its unit. Source: ``published.csv``."""
        for row in published():
            told = (row.benchmark.startswith(self.benchmark), row.metric == self.metric)
            if all(told) and row.variant.startswith(self.variant) and row.threads is not None:
                yield row._replace(
                    machine=self.machine,
                    ncpus=row.threads,
                    metric=self.rate,
                    value=row.value * self.scale,
                    unit=self.rate,
                    note=row.machine,
                )


RWSEM: Final = Mechanism(
    "skylake-80", "rwsem locking microbenchmark", "pre-patch", "total locking rate", "rwsem",
    "locks/s", 1000,
)  # fmt: skip
TLB_FLUSH: Final = Mechanism(
    "milan-72", "will-it-scale tlb_flush2_threads", "IPI shootdown", "loops/s total",
    "tlb_flush2", "operations/s", 1,
)  # fmt: skip
PFT: Final = Mechanism(
    "zen5-256", "mmtests pft-threads", "per-VMA lock as vm_refcnt", "faults/sec", "pft",
    "faults/s", 1,
)  # fmt: skip

_DURATION: Final = re.compile(r" -[sS] \S+$")


def beside(rows: Iterable[Row]) -> list[Row]:
    """Returns the published rows of the machines and benchmarks that a sweep has rows of.

    Source: ours. The same metrics only; each row's machine is put as the sweep calls it, and its
    variant as the handler's name. Rows of other kernels (``Mechanism``) keep theirs.
    """
    rows = list(rows)
    wanted = {
        (name, row.machine, same_benchmark(row.benchmark), row.metric)
        for row in rows
        for name in PUBLISHED_AS.get(row.machine, ())
    }
    machines = {name: machine for name, machine, _, _ in wanted}
    found = []
    for row in published():
        machine = machines.get(row.machine, "")
        key = (row.machine, machine, same_benchmark(row.benchmark), row.metric)
        if key in wanted and (handler := handler_of(row.variant)):
            found.append(row._replace(machine=machine, variant=handler, note=row.machine))
    ours = {(row.machine, row.benchmark.split()[0], row.metric) for row in rows if row.benchmark}
    for of in (RWSEM, TLB_FLUSH, PFT):
        if (of.machine, of.command, of.rate) in ours:
            found += of.rows()
    return found


def same_benchmark(benchmark: str) -> str:
    """Returns a command without how long it runs, for rates and shares do not depend on that.

    Source: ours.

    >>> from spfemu.sweeping.beside import same_benchmark
    >>> same_benchmark("ebizzy -mTt <nrcpus> -S 0.2")
    'ebizzy -mTt <nrcpus>'
    """
    return _DURATION.sub("", benchmark)


def handler_of(variant: str) -> str:
    """Returns which handler a published kernel had: "classic", "spf", or "" for another design.

    Source: ours.

    >>> from spfemu.sweeping.beside import handler_of
    >>> handler_of("mmap_sem (v5.1-rc4-mmotm)"), handler_of("SPF v12"), handler_of("INVLPGB")
    ('classic', 'spf', '')
    """
    if variant.startswith("mmap_sem"):
        return "classic"
    return "spf" if variant.startswith("SPF ") else ""
