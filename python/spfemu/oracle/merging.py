"""What newer kernels merge: the reference beside itself with the newer rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

from spfemu.comparing import joined_maps, parsed_maps_line
from spfemu.profiles import Arch, arch, arch_names
from spfemu.program.model import Program
from spfemu.program.ops import EVENTS
from spfemu.reference import NEWER, run
from spfemu.results import Result

__all__ = ["Merging", "Same", "edges"]

T = TypeVar("T")


def edges(lines: list[str]) -> set[int]:
    """Where the VMAs of lines of maps begin and end. Source: ours."""
    return {edge for line in lines for edge in parsed_maps_line(line)[:2]}


_RULES = frozenset(NEWER)


@dataclass(frozen=True, slots=True, eq=False)
class Same(Generic[T]):
    """Something that a cache knows again if it is the very same object. Source: ours."""

    it: T

    def __hash__(self) -> int:
        return id(self.it)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.it is self.it


# Whoever compares an engine with the host compares others with it as well.
@lru_cache(maxsize=2 << len(NEWER).bit_length())
def _run(
    given: Same[Program],
    handler: str,
    name: str,
    variants: tuple[tuple[str, str], ...],
    newer: frozenset[str],
) -> Result:
    return run(given.it, handler=handler, arch=arch(name), variants=dict(variants), newer=newer)


@dataclass(frozen=True)
class Merging:
    """A program on the reference, with the newer rules for what merges and without them.

    Source: ours. An exception about such a rule explains what it changes, and nothing else; the
    rules may work together. Nothing runs before somebody asks. ``program`` is as an emulator has to
    run it, ``handler``, ``arch`` and ``variants`` as it did; ``rules`` are those that the host has.
    """

    program: Program
    handler: str
    arch: str = "x86"
    variants: Mapping[str, str] | None = None
    rules: frozenset[str] = _RULES

    def with_rules(self, *rules: str) -> Result:
        """Returns the run with these rules beside 5.1's. Source: ours."""
        variants = tuple(sorted((self.variants or {}).items()))
        name = self.profile.name
        return _run(Same(self.program), self.handler, name, variants, frozenset(rules))

    @property
    def profile(self) -> Arch:
        """The emulator's machine; x86 if nobody else knows it. Source: ours."""
        return arch(self.arch if self.arch in arch_names() else "x86")

    def _pairs(self, rule: str) -> Iterator[tuple[Result, Result]]:
        """The run without and with a rule: on 5.1, and where the others hold."""
        if rule not in self.rules:
            return
        for others in (frozenset[str](), self.rules - {rule}):
            yield self.with_rules(*others), self.with_rules(rule, *others)

    def moves_edge(self, rule: str, address: int, maps: Callable[[Result], list[str]]) -> bool:
        """Whether a rule decides whether there is an edge at an address. Source: ours."""
        return any(address in edges(maps(old)) ^ edges(maps(new)) for old, new in self._pairs(rule))

    def moves_memory(
        self, mine: list[str], theirs: list[str], maps: Callable[[Result], list[str]]
    ) -> bool:
        """Whether memory is there without a rule, and here with it, however it is cut.

        Source: ours. ``mine`` and ``theirs`` are lines of maps; ``maps`` takes such from a result.
        """
        wanted = [joined_maps(mine), joined_maps(theirs)]
        pairs = (pair for rule in sorted(self.rules) for pair in self._pairs(rule))
        return any([joined_maps(maps(run)) for run in pair] == wanted for pair in pairs)

    def explains(
        self, rule: str, place: tuple[int, int], here: dict[str, Any], there: dict[str, Any]
    ) -> bool:
        """Whether an outcome is this one without a rule, and that one with it.

        Source: ours. ``here`` and ``there`` are outcomes as JSON objects, with ``faults``.
        """
        wanted = [tuple(outcome[key] for key in _DECIDED) for outcome in (here, there)]
        if wanted[0] == wanted[1]:
            return False
        return any([_decided(run, place) for run in pair] == wanted for pair in self._pairs(rule))

    def explains_place(self, rule: str, place: tuple[int, int], here: int, there: int) -> bool:
        """Whether a kernel chose one address without a rule, and the other with it.

        Source: ours.
        """
        pairs = self._pairs(rule)
        return any([_ret(run, place) for run in pair] == [here, there] for pair in pairs)


def _ret(result: Result, place: tuple[int, int]) -> int | None:
    task, row = place
    rows = result.task_ops(task)
    return int(rows[row]["ret"]) if row < len(rows) else None


_DECIDED: Final = ("errno", "signal", "si_code", "faults")


def _decided(result: Result, place: tuple[int, int]) -> tuple[Any, ...] | None:
    task, row = place
    rows = result.task_ops(task)
    if row >= len(rows):
        return None
    outcome = result.outcome(rows[row])
    faults = int(rows[row]["counters"][EVENTS.index("faults")])
    return outcome["errno"], outcome["signal"], outcome["si_code"], faults
