"""What an import took from a recording, and what it did not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["ImportSummary"]

_COUNTERS: Final = (
    ("taken", "events that became operations"),
    ("skipped", "understood, and left out because a program has no use for them"),
    ("guessed", "not in the recording, and filled in"),
    ("approximated", "represented by something else"),
    ("unresolved", "could not be understood from what the recording holds"),
)


@dataclass(slots=True)
class ImportSummary:
    """Counts, by kind, of what became of the events of a recording.

    Each of the five counters maps a kind (a word for the user) to how often it was met: ``taken``
    events became operations, ``skipped`` ones have no use in a program, ``guessed`` counts what the
    recording does not say and was filled in, ``approximated`` what stands in for something else,
    ``unresolved`` what could not be understood. ``faults`` are the page faults taken; ``segv``
    those of them that no mapping allows (a program that faults on purpose, or a mapping that was
    not recorded). ``compute_ns`` and ``sleep_ns`` are the sums of the gaps, ``nr_computes`` and
    ``nr_sleeps`` how many. ``nr_posts``, ``nr_awaits`` and ``nr_waits`` keep the recorded order.
    ``cpus`` is the number of CPUs seen. Source: ours.

    >>> summary = ImportSummary()
    >>> summary.taken["fault"] += 3
    >>> [line for line in summary.lines() if line.endswith("fault")]
    ['taken              3  fault']
    """

    taken: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    guessed: Counter[str] = field(default_factory=Counter)
    approximated: Counter[str] = field(default_factory=Counter)
    unresolved: Counter[str] = field(default_factory=Counter)
    faults: int = 0
    segv: int = 0
    segv_kinds: Counter[str] = field(default_factory=Counter)
    compute_ns: int = 0
    sleep_ns: int = 0
    nr_computes: int = 0
    nr_sleeps: int = 0
    nr_posts: int = 0
    nr_awaits: int = 0
    nr_waits: int = 0
    nr_tasks: int = 0
    nr_processes: int = 0
    nr_lines: int = 0
    cpus: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Returns the counts as JSON values, kinds in alphabetical order. Source: ours."""
        values: dict[str, Any] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            values[name] = dict(sorted(value.items())) if isinstance(value, Counter) else value
        return values

    def lines(self) -> list[str]:
        """Returns the table as lines of plain text: what, how often, kind. Source: ours."""
        where = f"on {_counted(self.cpus, 'CPU', 'CPUs')}" if self.cpus else "(CPUs not recorded)"
        tasks = _counted(self.nr_tasks, "task", "tasks")
        processes = _counted(self.nr_processes, "process", "processes")
        lines = [f"{self.nr_lines:,} lines: {tasks} of {processes} {where}"]
        for name, meaning in _COUNTERS:
            counter: Counter[str] = getattr(self, name)
            if counter:
                lines.append(f"{name}: {meaning}")
            for kind, count in sorted(counter.items(), key=lambda item: (-item[1], item[0])):
                lines.append(f"{name:<12} {count:>7,}  {kind}")
        lines.append(
            f"gaps: compute {_seconds(self.compute_ns)} in {self.nr_computes:,}, "
            f"sleep {_seconds(self.sleep_ns)} in {self.nr_sleeps:,}"
        )
        lines.append(
            f"order: {self.nr_posts:,} posts, {self.nr_awaits:,} awaits, "
            f"{self.nr_waits:,} waits for the end of a task"
        )
        kinds = "".join(f", {count:,} {kind}" for kind, count in sorted(self.segv_kinds.items()))
        lines.append(f"faults: {self.faults:,}; no mapping allows {self.segv:,} of them{kinds}")
        return lines


def _counted(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e9:,.6f} s"
