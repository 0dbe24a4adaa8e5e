"""What a published table is compared by: its cases, what is run for each, and the limits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from spfemu.machines import Machine

__all__ = ["ANY", "Case", "Cell", "Figures", "Limit", "Line"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One run in virtual time: machine, CPUs, handler, workload, and the kernel's settings."""

    machine: Machine
    cpus: int
    handler: str
    workload: tuple[str, ...]
    tree: str = "rcu"
    without: tuple[str, ...] = ()
    """Which of the kernel's mechanisms it lacks, by the names of ``settings``."""
    strict: bool = False
    """No CPU runs ahead of others, whose locks are taken and given back in less time than that."""
    shift: int = 0
    """What is added to the seed."""


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
    either way (``of_rest``: of what is left to 100 %); or, whatever was published, ``percent`` of 1
    (``of_one``) or at most ``most``; any for none of these.
    """

    percent: float | None = None
    factor: float | None = None
    most: float | None = None
    of_one: bool = False
    of_rest: bool = False

    def holds(self, published: float, ours: float) -> bool:
        """Says whether ours is near enough. Source: ours."""
        if self.of_rest:
            published, ours = 100 - published, 100 - ours
        if self.factor is not None:
            return published / self.factor <= ours <= published * self.factor
        if self.most is not None:
            return ours <= self.most
        if self.percent is not None:
            middle = 1.0 if self.of_one else published
            return abs(ours - middle) <= self.percent / 100 * middle
        return True

    def __str__(self) -> str:
        if self.factor is not None:
            return f"{'rest: ' if self.of_rest else ''}factor {self.factor:g}"
        if self.most is not None:
            return f"at most {self.most:g}"
        if self.percent is None:
            return ""
        return f"{'1 ' if self.of_one else ''}± {self.percent:g} %"


ANY = Limit()


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table. ``ours`` takes the figures of the case's cells, in their order."""

    case: Case
    what: str
    unit: str
    published: float
    ours: Callable[[Sequence[Figures]], float]
    limit: Limit = ANY
    is_fitted: bool = False
    why: str = ""
    """Why ours is off, as far as it was looked into."""


@dataclass(frozen=True)
class Case(ABC):
    """One group of published rows, and the machine that it is run on."""

    name: str
    machine: str
    ncpus: int

    @abstractmethod
    def cells(self, machine: Machine, seconds: float) -> tuple[Cell, ...]:
        """Returns the runs. Source: the tables' captions."""

    @abstractmethod
    def lines(self) -> Iterator[Line]:
        """Yields the lines that there are published rows for. Source: ``published.csv``."""
