"""Where aborts happen: the outcomes of a run grouped by mapping, thread name or instruction."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from spfemu.program.model import Program
from spfemu.program.ops import EVENTS
from spfemu.results import Result

__all__ = ["GROUPS", "Group", "group_aborts", "no_event"]

GROUPS: Final = ("vma", "comm", "ip")

_ABORTS: Final = tuple(event for event in EVENTS if event.startswith("pagefault:"))


@dataclass(slots=True)
class Group:
    """The faults of one mapping, thread name or instruction, and why they aborted. Source: ours."""

    REASONS: ClassVar[tuple[str, ...]] = tuple(event.split(":", 1)[1] for event in _ABORTS)

    name: str
    faults: int = 0
    spf: int = 0
    reasons: dict[str, int] = field(default_factory=lambda: dict.fromkeys(Group.REASONS, 0))

    @property
    def aborts(self) -> int:
        """All events of attempts, of whatever reason. Source: ours."""
        return sum(self.reasons.values())

    def to_json(self) -> dict[str, Any]:
        """Returns the group as a JSON object. Source: ours."""
        return {
            "name": self.name,
            "faults": self.faults,
            "spf": self.spf,
            "aborts": self.aborts,
            "reasons": dict(self.reasons),
        }


def group_aborts(result: Result, by: str) -> list[Group]:
    """Returns the groups of a result's faults, most aborts first.

    Source: ours. ``by`` is "vma", "comm" or "ip". What a program does not record falls back on its
    own words: the task's name, the id an address is relative to, the place of the operation.
    """
    groups: dict[str, Group] = {}
    faulting = result.ops[result.ops["counters"].any(axis=1)]
    for number in range(len(result.program.tasks)):
        rows = faulting[faulting["task"] == number]
        sums = _sums_by_index(rows)
        for index, counts in sums.items():
            name = _name(result.program, number, index, by)
            _add(groups.setdefault(name, Group(name)), counts)
    return sorted(groups.values(), key=lambda group: (-group.aborts, -group.faults, group.name))


def no_event(result: Result) -> int:
    """Returns how many faults of a speculative run end in no event.

    Source: docs/protocol.md, which lists where v12 gives up silently (W1, W2, W3, H1 above all).
    """
    counters = result.counters
    told = counters["speculative_pgfault"] + sum(counters[event] for event in _ABORTS)
    return counters["faults"] - told


def _sums_by_index(rows: npt.NDArray[np.void]) -> dict[int, npt.NDArray[np.int64]]:
    sums: dict[int, npt.NDArray[np.int64]] = defaultdict(
        lambda: np.zeros(len(EVENTS), dtype=np.int64)
    )
    indices, inverse = np.unique(rows["index"], return_inverse=True)
    totals = np.zeros((len(indices), len(EVENTS)), dtype=np.int64)
    np.add.at(totals, inverse, rows["counters"].astype(np.int64))
    sums.update(zip(indices.tolist(), totals, strict=True))
    return sums


def _add(group: Group, counts: npt.NDArray[np.int64]) -> None:
    by_event = dict(zip(EVENTS, counts.tolist(), strict=True))
    group.faults += by_event["faults"]
    group.spf += by_event["spf"]
    for event, reason in zip(_ABORTS, Group.REASONS, strict=True):
        group.reasons[reason] += by_event[event]


def _name(program: Program, task: int, index: int, by: str) -> str:
    ip, comm, vma = _site(program, task, index)
    if by == "comm":
        return program.comms[comm - 1] if comm else program.tasks[task].name
    if by == "ip":
        return f"{ip:#x}" if ip else program.where(task, index)
    if vma:
        return program.vmas[vma - 1]
    record = program.tasks[task].ops[index]
    base, address = int(record["base"]), int(record["addr"])
    return program.ids[base] if base >= 0 else f"{address & ~(program.page_size - 1):#x}"


def _site(program: Program, task: int, index: int) -> tuple[int, int, int]:
    """Returns instruction pointer, comm and mapping of a record, 0 for what is not known."""
    sites = program.tasks[task].sites
    if sites is None:
        return 0, 0, 0
    ip, comm, vma = sites[index].item()
    return ip, comm, vma
