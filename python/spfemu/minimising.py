"""Minimising a finding of the explorer: fewest preemptions, then fewest operations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from spfemu.engines import Progress
from spfemu.errors import EngineError, ProgramError
from spfemu.exploring import PREEMPTIONS, explore
from spfemu.program.cutting import Cutter, nr_operations, simpler
from spfemu.program.model import Program
from spfemu.program.values import shown

__all__ = ["LIMIT", "Minimised", "minimise"]

LIMIT: Final = 20_000
"""How many schedules a search of one smaller program has at most, unless told otherwise."""

_FEW: Final = 20
"""A search begins with this fraction of its schedules."""

_MOST_PREEMPTIONS: Final = 8

_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
"""Of a token."""

_OF_SEARCH: Final[tuple[str, ...]] = (
    "strategy", "schedules", "preemptions", "depth", "schedule", "reduction", "seed",
)  # fmt: skip
"""What of explore's arguments says how schedules are chosen; the others say what is explored."""


@dataclass(frozen=True, slots=True)
class Minimised:
    """A program that breaks what a finding broke, and is no larger than it has to be.

    Source: ours. ``finding`` is the violation of ``program``, as ``spfemu.explore`` gives it. It
    takes ``preemptions``: with fewer ``dfs`` has not found it, if ``fewest``; else that was too
    long, and it takes no more than that. ``operations`` are those of ``program``,
    ``operations_before`` those of the program given; ``candidates`` the programs that were
    explored. ``search`` is what ``spfemu.explore`` is told, beside mutants, variants and the like,
    to find it. ``minimal``: without any single operation it is not found; False after an interrupt.
    """

    program: Program
    finding: dict[str, Any]
    preemptions: int
    fewest: bool
    operations: int
    operations_before: int
    candidates: int
    search: dict[str, Any]
    minimal: bool

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of this. Source: ours; docs/command-line.md."""
        return {
            "program": self.program.to_dict(),
            "finding": self.finding,
            "preemptions": self.preemptions,
            "fewest": self.fewest,
            "operations": self.operations,
            "operations_before": self.operations_before,
            "candidates": self.candidates,
            "search": self.search,
            "minimal": self.minimal,
        }


def minimise(
    program: Program,
    finding: Mapping[str, Any],
    *,
    limit: int = LIMIT,
    progress: Progress | None = None,
    **explored: Any,
) -> Minimised:
    """Makes a program as small as can be that breaks the same as a finding of the explorer.

    The same is the same ``invariant`` with the same ``entry``. First come fewest preemptions: the
    strategy ``dfs`` with 0, 1, 2, … of them, until it is found; at most as many as ``dfs`` was
    given, else 8, and no more than ``limit`` schedules. If those do not have it, the search that
    ``explored`` tells stays, and a schedule must not have more choices than the last one (a
    preemption is one). Then fewest operations: tasks are left out, halves of the operations,
    quarters, and so on to single ones and all barriers of a name, with what cannot be without them
    (awaits of a post, a fork's child, uses of a mapping); expectations go in any case. Then
    settings of the machine, rounds and lengths become simpler. A smaller program is taken if it is
    valid and the search finds the same in it.

    Source: Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input" (2002); ours.
    ``finding`` is one of the violations of ``spfemu.explore(program, **explored)``; with ``replay``
    among ``explored`` (a token) the other arguments are how it is looked for, by ``dfs`` in
    ``limit`` schedules unless ``schedules`` says otherwise. ``limit``: 1 to 2^64-1, default
    ``LIMIT`` (20,000). ``progress`` is called now and then with an estimate of the share done.
    Ctrl-C, or a KeyboardInterrupt of ``progress``, ends it with the smallest program so far,
    ``minimal`` False; before the finding was found again it is raised. Raises EngineError for a
    finding that the search does not find in the program, else what ``spfemu.explore`` raises.
    Determinism: all arguments and the version, but for an interrupt.

    >>> import spfemu
    >>> builder = spfemu.ProgramBuilder()
    >>> first = builder.task("first")
    >>> first.mmap(8192, id="p")
    >>> first.write("p")
    >>> first.read("p")
    >>> first.clone("second")
    >>> first.munmap("p", 8192)
    >>> builder.task("second", "clone").write(("p", 4096), 2)
    >>> told = {"variants_default": "fixed", "mutants": ["A7"]}
    >>> finding = spfemu.explore(builder.build(), **told)["violations"][0]
    >>> small = spfemu.minimise(builder.build(), finding, **told)
    >>> small.operations, small.operations_before, small.preemptions
    (5, 6, 1)
    """
    minimiser = _Minimiser(finding, limit, progress, explored)
    minimiser.begin(program)
    minimal = True
    try:
        minimiser.shrink()
    except KeyboardInterrupt:
        minimal = False
    smallest, violation = minimiser.best
    return Minimised(
        program=smallest,
        finding=violation,
        preemptions=minimiser.preemptions,
        fewest=minimiser.fewest,
        operations=nr_operations(smallest),
        operations_before=nr_operations(program),
        candidates=minimiser.candidates,
        search=minimiser.search,
        minimal=minimal,
    )


class _Minimiser:
    """The smallest program so far, and the search that finds the same in it."""

    def __init__(
        self,
        finding: Mapping[str, Any],
        limit: int,
        progress: Progress | None,
        explored: dict[str, Any],
    ) -> None:
        try:
            self.wanted = finding["invariant"], finding["entry"]
        except (TypeError, KeyError):
            allowed = "one of the violations that spfemu.explore returns"
            raise EngineError(f"finding: value {shown(finding)} (allowed: {allowed})") from None
        if type(limit) is not int or not 1 <= limit < 1 << 64:
            raise EngineError(f"limit: value {shown(limit)} (allowed: 1 to {(1 << 64) - 1})")
        self.limit, self.progress, self.share = limit, progress, 0.0
        self.search = {name: explored[name] for name in _OF_SEARCH if name in explored}
        is_dfs = self.search.get("strategy", "dfs") == "dfs"
        if is_dfs and explored.get("replay") and self.search.get("schedules") is None:
            self.search["schedules"] = limit  # nobody has waited for more
        self.explored = {
            name: value for name, value in explored.items() if name not in (*_OF_SEARCH, "replay")
        }
        self.preemptions, self.fewest = _MOST_PREEMPTIONS, False
        self.candidates = 0
        self.failed: set[str] = set()

    def begin(self, program: Program) -> None:
        """Finds it in the program as it is given: with fewest preemptions, or as it was found."""
        if self._with_fewest(program):
            return
        violation = self._find(program, self.search)
        if violation is None:
            invariant, entry = self.wanted
            known = f" ({entry})" if entry else ""
            raise EngineError(
                f"{program.source}: finding {shown(invariant)}{known}: not found again (allowed: a "
                "finding of this program, with the search and the settings that found it)"
            )
        self.best, self.preemptions = (program, violation), _nr_choices(violation)

    def _most(self) -> int:
        """The most preemptions to try."""
        if self.fewest:
            return self.preemptions - 1
        most = self.search.get("preemptions")
        if most is None and self.search.get("strategy", "dfs") == "dfs":
            most = PREEMPTIONS
        return min(most, self.preemptions) if isinstance(most, int) else self.preemptions

    def _with_fewest(self, program: Program) -> bool:
        """Looks for it with ever more preemptions, and takes the first search that finds it."""
        for preemptions in range(self._most() + 1):
            search = {"preemptions": preemptions, "schedules": self.limit}
            violation = self._find(program, search)
            if violation is not None:
                self.best = program, violation
                self.preemptions, self.fewest, self.search = preemptions, True, search
                self.failed.clear()
                return True
            if not self.are_all:
                break
        return False

    def _find(self, program: Program, search: dict[str, Any]) -> dict[str, Any] | None:
        """Looks for it. Of many schedules the first often have it, so they are tried alone."""
        schedules = search.get("schedules")
        for few in (max(1, schedules // _FEW), schedules) if schedules else (None,):
            exploration = self._explore(program, {**search, "schedules": few})
            self.are_all = few is None or exploration["schedules"] < few
            for violation in exploration["violations"]:
                if (violation["invariant"], violation["entry"]) == self.wanted:
                    found: dict[str, Any] = violation
                    return found
            if self.are_all:
                break
        return None

    def _explore(self, program: Program, search: dict[str, Any]) -> dict[str, Any]:
        tell = self.progress
        look = None if tell is None else lambda _: tell(self.share)
        return explore(program, **self.explored, **search, progress=look)

    def shrink(self) -> None:
        """Leaves out what can be, until nothing can; a smaller program may be easier to search."""
        while True:
            while self._leave_out() or self._simplify():
                pass
            if not self._with_fewest(self.best[0]):
                break
        self._tell(1.0)

    def _try(self, candidate: Program | None) -> bool:
        """Takes a smaller program if the same is found in it."""
        if candidate is None or (text := json.dumps(candidate.to_dict())) in self.failed:
            return False
        self.candidates += 1
        try:
            violation = self._find(candidate, self.search)
        except ProgramError:  # what only shows when it is prepared for the arch
            violation = None
        if violation is None or (not self.fewest and _nr_choices(violation) > self.preemptions):
            self.failed.add(text)
            return False
        self.best = candidate, violation
        if not self.fewest:
            self.preemptions = _nr_choices(violation)
        return True

    def _leave_out(self) -> bool:
        """Leaves out tasks, then ranges of operations and single ones, then barriers."""
        before = self.best
        for number in reversed(range(len(self.best[0].tasks))):
            self._try(Cutter(self.best[0]).without((), [number]))
        size = rounds = max(1, nr_operations(self.best[0]))
        while True:
            size = max(1, size // 2)
            is_smaller = self._leave_ranges_out(size, 1 - size / rounds)
            if size == 1 and not is_smaller:
                break
        for name in Cutter(self.best[0]).barriers:
            cutter = Cutter(self.best[0])
            self._try(cutter.without(cutter.barriers.get(name, ())))
        return self.best is not before

    def _leave_ranges_out(self, size: int, share: float) -> bool:
        """Leaves out ranges of so many operations, the last first: fewer others need them."""
        is_smaller = False
        cutter = Cutter(self.best[0])
        end = len(cutter.places)
        while end > 0:
            self._tell(share)
            start = max(0, end - size)
            if self._try(cutter.without(cutter.places[start:end])):
                cutter = Cutter(self.best[0])
                is_smaller = True
            end = min(start, len(cutter.places))
        return is_smaller

    def _simplify(self) -> bool:
        """Makes one thing after another simpler, each as often as it can be."""
        is_simpler = False
        while any(self._try(candidate) for candidate in simpler(self.best[0])):
            is_simpler = True
        return is_simpler

    def _tell(self, share: float) -> None:
        self.share = max(self.share, share)
        if self.progress is not None:
            self.progress(self.share)


def _nr_choices(violation: Mapping[str, Any]) -> int:
    """How often another task went on than the one that usually does: no fewer than preemptions.

    Source: ``rust/core/src/explore/token.rs``: the first number of a token's choices.
    """
    number = 0
    for nth, letter in enumerate(violation["token"].rpartition("-")[2]):
        digit = _DIGITS.index(letter)
        number |= digit % 16 << 4 * nth
        if digit < 16:
            break
    return number
