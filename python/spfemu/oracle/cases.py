"""One place where the emulator and the host differ, and what may explain it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spfemu.oracle.history import Call, History, Mapping
from spfemu.oracle.merging import Merging, edges
from spfemu.results import Result

__all__ = ["Case", "Edge", "Exempt"]


class Case:
    """One outcome in which the emulator and the host differ.

    Source: ours. ``emulated`` and ``host`` are the outcomes as JSON objects, with ``faults``;
    ``merging`` has the emulator's handler; ``moved`` says by how many bytes its address is higher.
    """

    def __init__(
        self,
        history: History,
        merging: Merging,
        task: int,
        row: int,
        emulated: dict[str, Any],
        host: dict[str, Any],
        moved: int = 0,
    ) -> None:
        self.history = history
        self.handler = merging.handler
        self._merging = merging
        self.task = task
        self._row = row
        self.emulated = emulated
        self.host = host
        self.moved = moved
        self.position = history.position((task, row))
        index = host["index"]
        self.place = history.program.where(task, index)
        self.record = history.program.tasks[task].ops[index]
        self._outcome = history.host.task_ops(task)[row]

    @property
    def op(self) -> str:
        """The operation's name. Source: the program format."""
        return str(self.host["op"])

    @property
    def page(self) -> int:
        """The page that an access went to. Source: the program."""
        return self.history.access_address(self._outcome, self.record, self.position)

    @property
    def space(self) -> int:
        """Its address space. Source: ours."""
        return self.history.spaces.of_task(self.task, self.position)

    @property
    def before(self) -> list[Call]:
        """The calls that its address space has seen before, the last one first. Source: ours."""
        return self.history.before(self.position, self.space)

    @property
    def mapping(self) -> Mapping | None:
        """The file that the page is of that an access went to. Source: ours."""
        return self.history.mapping(self.page, self.position, self.space)

    @property
    def mmap_base(self) -> int:
        """Below which a kernel looks for places. Source: the emulator's profile."""
        return self._merging.profile.mmap_base

    @property
    def both_failed(self) -> bool:
        """Whether neither did anything, so that both go on from the same. Source: ours."""
        return self.emulated["errno"] is not None and self.host["errno"] is not None

    def is_of_merging(self, rule: str) -> bool:
        """Whether errno, signal or faults differ because of a newer rule. Source: ours."""
        return self._merging.explains(rule, (self.task, self._row), self.emulated, self.host)

    def is_of_placing(self, rule: str) -> bool:
        """Whether memory lies elsewhere because of a newer rule. Source: ours."""
        ret = int(self.emulated["ret"]), int(self.host["ret"])
        return self._merging.explains_place(rule, (self.task, self._row), *ret)

    def is_(self, emulated: dict[str, Any], host: dict[str, Any]) -> bool:
        """Whether the outcomes are these, as far as keys are given. Source: ours."""
        return all(self.emulated[key] == value for key, value in emulated.items()) and all(
            self.host[key] == value for key, value in host.items()
        )


@dataclass(frozen=True)
class Edge:
    """An edge between two VMAs that only one of the two has.

    Source: ours. ``maps`` takes the lines in question from a result, ``edges`` are all those of the
    emulator.
    """

    history: History
    address: int
    merging: Merging
    maps: Callable[[Result], list[str]]
    edges: frozenset[int]

    def is_of_merging(self, rule: str) -> bool:
        """Whether it is there, or is not, because of a newer rule. Source: ours."""
        as_it_was = edges(self.maps(self.merging.with_rules())) == self.edges
        return as_it_was and self.merging.moves_edge(rule, self.address, self.maps)


@dataclass(frozen=True, slots=True)
class Exempt:
    """One thing that is not as in Linux 5.1.

    Source: ours. ``since`` is the kernel that brought it, None if it is no matter of versions.
    ``what`` is one sentence. ``keys`` are what may differ in an outcome, ``outcome`` says when.
    ``edge`` says where there may be an edge between two VMAs on one side only. ``ends``: the two go
    different ways afterwards, unless both failed; ``silently`` names an operation, and says after
    which calls of it they do though these gave the same.
    """

    name: str
    since: tuple[int, int] | None
    what: str
    keys: tuple[str, ...] = ()
    outcome: Callable[[Case], bool] | None = None
    edge: Callable[[Edge], bool] | None = None
    silently: tuple[str, Callable[[History, Call], bool]] | None = None
    ends: bool = False

    def _is_so(self, history: History) -> bool:
        if self.since is None:
            return True
        return tuple(history.host.settings["kernel_version"]) >= self.since

    def excuses(self, case: Case, keys: list[str]) -> bool:
        """Whether this is why ``keys`` of an outcome differ. Source: ours."""
        return (
            self.outcome is not None
            and set(keys) <= set(self.keys)
            and self._is_so(case.history)
            and self.outcome(case)
        )

    def first_end(self, history: History) -> Call | None:
        """The first call after which the two go different ways, whatever it gave. Source: ours."""
        if self.silently is None or not self._is_so(history):
            return None
        op, ends = self.silently
        if not history.has(op):
            return None
        calls = (call for call in history.calls if call.op == op)
        return next((call for call in calls if ends(history, call)), None)

    def excuses_edge(self, edge: Edge) -> bool:
        """Whether this is why memory is cut into VMAs at an address, or is not. Source: ours."""
        return self.edge is not None and self._is_so(edge.history) and self.edge(edge)
