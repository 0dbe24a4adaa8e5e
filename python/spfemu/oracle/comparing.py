"""Holding an emulated run against the host's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spfemu.comparing import Difference, parsed_maps_line, parting
from spfemu.errors import ProgramError
from spfemu.oracle.cases import Case, Edge, Exempt
from spfemu.oracle.exceptions import EXCEPTIONS
from spfemu.oracle.history import History
from spfemu.oracle.host import Host
from spfemu.oracle.layout import Layout
from spfemu.oracle.mapped import first_behind
from spfemu.oracle.merging import Merging, Same
from spfemu.oracle.merging import edges as edges_of
from spfemu.program.model import Program
from spfemu.program.ops import EVENTS
from spfemu.reference import NEWER
from spfemu.results import Result

__all__ = ["Comparison", "Excused", "compare", "excuse", "for_host", "shown"]

_FAULTS: Final = EVENTS.index("faults")
_FIELDS: Final = ("ret", "errno", "value", "signal", "si_code", "livelock", "faults")


@dataclass(frozen=True, slots=True)
class Excused:
    """A difference that a named exception explains.

    Source: ours. ``exception`` is the name of one of ``EXCEPTIONS``.
    """

    exception: str
    difference: Difference

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON object. Source: the command line's ``--json``."""
        return {"exception": self.exception, **self.difference.to_json()}


@dataclass(slots=True)
class Comparison:
    """What a comparison with the host came to.

    Source: ours. ``differences`` are what nobody explains, ``excused`` what an exception does, both
    in the order of the run. ``cut`` names the place from which on nothing was compared, for the two
    go different ways there: an exception says so, or the program names an address by number where
    only one of the kernels had put something. "" if all was.
    """

    differences: list[Difference] = field(default_factory=list)
    excused: list[Excused] = field(default_factory=list)
    cut: str = ""

    def swapped(self) -> Comparison:
        """Returns it with the emulator's values as what was expected. Source: ours."""

        def swap(entry: Difference) -> Difference:
            return replace(entry, expected=entry.actual, actual=entry.expected)

        differences = [swap(entry) for entry in self.differences]
        excused = [replace(entry, difference=swap(entry.difference)) for entry in self.excused]
        return Comparison(differences, excused, self.cut)


def for_host(program: Program, found: Host) -> Program:
    """Returns the program as an emulator has to run it to be compared with the host.

    Source: ours. The emulator gets the host's ``mmap_min_addr``, NUMA nodes and protection keys.
    """
    system = replace(program.system, mmap_min_addr=found.mmap_min_addr)
    config = {**system.config, "X86_INTEL_MEMORY_PROTECTION_KEYS": found.protection_keys}
    if found.nodes:
        system = replace(system, nodes=found.nodes)
    else:
        config["NUMA"] = False
    system = replace(system, config=config)
    return replace(program, system=system)


def compare(
    emulated: Result, host: Result, *, exceptions: Sequence[Exempt] = EXCEPTIONS
) -> Comparison:
    """Compares an emulated run with the host's, in the order in which the host ran.

    Compared are ``ret``, ``errno``, ``value``, ``signal``, ``si_code``, ``livelock`` and the number
    of faults of each operation, the VMAs at notes that state them and in the end, and who waits for
    ever. Addresses that the kernel chose are compared relative to what it chose.

    In the differences, what the host did is what was expected.

    Source: ours. ``emulated`` comes from any other engine with either handler, ``host`` from
    engine kernel; ``exceptions`` are those that may excuse a difference. Raises ProgramError when
    the results are of different programs, or have no outcomes.
    """
    mine, theirs = emulated.program, host.program
    if _what_runs(mine) != _what_runs(theirs):
        raise ProgramError("the results are of different programs")
    if sum(count for _, count in host.turns) != len(host.ops):
        raise ProgramError("a run without outcomes cannot be compared")
    return _Comparing(emulated, host, exceptions).run()


def _what_runs(program: Program) -> tuple[Any, ...]:
    """The program but for its system, which `for_host` may have changed."""
    return program.files, [task.ops.tobytes() for task in program.tasks]


# Whoever holds an engine against the host holds others against it as well.
@lru_cache(maxsize=1)
def _history(host: Same[Result]) -> History:
    return History(host.it)


class _Comparing:
    def __init__(self, emulated: Result, host: Result, exceptions: Sequence[Exempt]) -> None:
        self.exceptions = exceptions
        self.emulated = emulated
        self.host = host
        self.found = Comparison()
        self.history = _history(Same(host))
        self.layout = Layout(emulated, host, self.history)
        variants = emulated.settings.get("variants")
        how = (emulated.program, emulated.handler, emulated.arch, variants)
        self.merging = Merging(*how, _rules_of(host))

    def run(self) -> Comparison:
        stray = self._first_stray()
        end, cut = self._first_parting()
        for task, row in self.history.ordered(self._differing_rows(stray)):
            if self.history.position((task, row)) >= end:
                break
            self._outcome(task, row)
            if self.found.cut:
                self._maps_at_notes(self.history.position((task, row)))
                return self.found
        if cut and (stray is None or end <= self.history.position(stray)):
            self.found.cut = cut
            self._maps_at_notes(end)
            return self.found
        if stray is not None:
            self.found.differences.append(parting(self.host, self.emulated, *stray))
            return self.found
        if self.emulated.stuck != self.host.stuck:
            stuck = (list(self.host.stuck), list(self.emulated.stuck))
            self.found.differences.append(Difference("", "", 0, "stuck", *stuck))
        self._maps_at_notes(self.history.end)
        self._maps_at_end()
        return self.found

    def _first_parting(self) -> tuple[int, str]:
        """From which position on, and after which place, the two go different ways unseen."""
        where = self.host.program.where
        ends = [exception.first_end(self.history) for exception in self.exceptions]
        found = [(c.position + 1, where(c.task, c.index)) for c in ends if c is not None]
        if (conflict := self.layout.conflict) is not None:
            index = int(self.host.task_ops(conflict[0])["index"][conflict[1]])
            found.append((self.history.position(conflict), where(conflict[0], index)))
        if (behind := first_behind(self.history, int(self.host.settings["island"]))) is not None:
            found.append((behind.position, where(behind.task, behind.index)))
        return min(found, default=(self.history.end, ""))

    # --- outcomes --------------------------------------------------------------------------------

    def _first_stray(self) -> tuple[int, int] | None:
        """The first outcome, in the order of the run, that the two do not both have."""
        found = []
        for task in range(len(self.host.program.tasks)):
            mine, theirs = self.emulated.task_ops(task), self.host.task_ops(task)
            both = min(len(mine), len(theirs))
            same = np.ones(both, dtype=bool)
            for name in ("index", "round", "access"):
                same &= mine[name][:both] == theirs[name][:both]
            if not same.all():
                found.append((task, int(np.argmin(same))))
            elif len(mine) != len(theirs):
                found.append((task, both))
        return min(found, key=self.history.position, default=None)

    def _differing_rows(self, stray: tuple[int, int] | None) -> Iterator[tuple[int, int]]:
        last = None if stray is None else self.history.position(stray)
        for task in range(len(self.host.program.tasks)):
            mine, theirs = self.emulated.task_ops(task), self.host.task_ops(task)
            both = min(len(mine), len(theirs))
            for row in np.flatnonzero(_differ(mine[:both], theirs[:both])).tolist():
                if last is None or self.history.position((task, row)) < last:
                    yield task, row

    def _outcome(self, task: int, row: int) -> None:
        mine, theirs = self.emulated.task_ops(task)[row], self.host.task_ops(task)[row]
        wanted, came = shown(self.emulated, mine), shown(self.host, theirs)
        keys = [key for key in _FIELDS if wanted[key] != came[key]]
        if not self._counts_refused(came):
            keys = [key for key in keys if key != "faults"]
        is_same = keys == ["ret"] and self.layout.is_same_place(task, row)
        if is_same and self.layout.is_free(task, row):
            return
        if keys:
            how = (wanted, came, self.layout.moved(task, row))
            self._report(Case(self.history, self.merging, task, row, *how), keys)

    def _counts_refused(self, outcome: dict[str, Any]) -> bool:
        """Whether the host counted a fault that was refused."""
        counting = self.host.settings["counting"]
        if outcome["errno"] == "EFAULT":
            return bool(counting == "perf")
        return outcome["signal"] is None or counting != "stat"

    def _report(self, case: Case, keys: list[str]) -> None:
        place = case.place
        for key in keys:
            wanted, came = case.host[key], case.emulated[key]
            difference = Difference(place, case.op, case.host["round"], key, wanted, came)
            exception = excuse(case, key, keys, self.exceptions)
            self._note(difference, exception)
            if exception is not None and exception.ends and not case.both_failed:
                self.found.cut = place

    def _note(self, difference: Difference, exception: Exempt | None) -> None:
        if exception is None:
            self.found.differences.append(difference)
        else:
            self.found.excused.append(Excused(exception.name, difference))

    # --- maps ------------------------------------------------------------------------------------

    def _maps_at_notes(self, end: int) -> None:
        """Those before a position."""
        spaces = self.history.spaces
        for place in sorted(set(self.emulated.note_maps) & set(self.host.note_maps)):
            task, index, number = place
            at = self.history.position_of(*place)
            if at >= end:
                continue
            moment = _Moment(at, spaces.of_task(task, at), _at_note(place))
            where = Difference(self.host.program.where(task, index), "note", number, "", 0, 0)
            what = "maps_lines"
            mine, theirs = self.emulated.note_maps[place], self.host.note_maps[place]
            self._compare_maps(replace(where, what=what), moment, mine, theirs)

    def _maps_at_end(self) -> None:
        spaces = self.history.spaces
        names = [task.name for task in self.host.program.tasks]
        for name in sorted({*self.emulated.maps, *self.host.maps}):
            mine, theirs = self.emulated.maps.get(name, []), self.host.maps.get(name, [])
            moment = _Moment(self.history.end, spaces.of_process(names.index(name)), _at_end(name))
            where = Difference("", "", 0, f"maps {name}", 0, 0)
            self._compare_maps(where, moment, mine, theirs)

    def _compare_maps(
        self, where: Difference, moment: _Moment, mine: list[str], theirs: list[str]
    ) -> None:
        mine = self._comparable(moment, mine)
        theirs = self._comparable(moment, theirs, host=True)
        if mine == theirs:
            return
        difference = replace(where, expected=theirs, actual=mine)
        for exception in self._excuses_of_edges(moment, mine, theirs):
            self._note(difference, exception)

    def _comparable(self, moment: _Moment, lines: list[str], *, host: bool = False) -> list[str]:
        return self.layout.comparable(lines, moment.position, moment.space, host=host)

    def _excuses_of_edges(
        self, moment: _Moment, mine: list[str], theirs: list[str]
    ) -> list[Exempt | None]:
        """The exceptions because of which memory is cut differently; just None if not only that."""
        edges, others = edges_of(mine), edges_of(theirs)

        def maps(result: Result) -> list[str]:
            return self._comparable(moment, moment.maps(result))

        is_same = _is_same_memory(_pieces(mine, others), _pieces(theirs, edges))
        if not is_same and not self.merging.moves_memory(mine, theirs, maps):
            return [None]
        found: dict[str, Exempt | None] = {}
        for address in sorted(edges ^ others):
            edge = Edge(self.history, address, self.merging, maps, frozenset(edges))
            exception = next((e for e in self.exceptions if e.excuses_edge(edge)), None)
            if exception is None:
                return [None]
            found[exception.name] = exception
        return list(found.values()) or [None]


def _rules_of(host: Result) -> frozenset[str]:
    """The newer rules that may hold there."""
    not_there = set()
    if host.settings["lowest_hint"] <= host.settings["mmap_min_addr"]:
        not_there.add("lowest")
    if tuple(host.settings["kernel_version"]) < (6, 17):
        not_there.add("several")
    return frozenset(NEWER) - not_there


_Piece = tuple[int, int, str, set[int]]


@dataclass(frozen=True, slots=True)
class _Moment:
    """An address space at a position, and what takes its maps from a result."""

    position: int
    space: int
    maps: Callable[[Result], list[str]]


def _at_note(place: tuple[int, int, int]) -> Callable[[Result], list[str]]:
    return lambda result: result.note_maps.get(place, [])


def _at_end(name: str) -> Callable[[Result], list[str]]:
    return lambda result: result.maps.get(name, [])


def _pieces(lines: list[str], edges: set[int]) -> list[_Piece]:
    """The lines of maps cut at edges: start, end, permissions, and which offsets each may have.

    From offset 0 on it may be a file, whose offset grows, or memory, which has none.
    """
    found = []
    for start, end, perms, offset in map(parsed_maps_line, lines):
        cuts = [start, *sorted(edge for edge in edges if start < edge < end), end]
        for low, high in itertools.pairwise(cuts):
            offsets = {offset + low - start} if offset else {0, low - start}
            found.append((low, high, perms, offsets))
    return found


def _is_same_memory(mine: list[_Piece], theirs: list[_Piece]) -> bool:
    """Whether pieces that are cut alike are the same."""
    return len(mine) == len(theirs) and all(
        one[:3] == other[:3] and not one[3].isdisjoint(other[3])
        for one, other in zip(mine, theirs, strict=True)
    )


def _differ(mine: npt.NDArray[np.void], theirs: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    differs = np.zeros(len(mine), dtype=bool)
    for name in ("op", "livelock", "signal", "si_code", "has", "errno"):
        differs |= mine[name] != theirs[name]
    for name, bit in (("ret", 1), ("value", 2)):
        differs |= ((mine["has"] & bit) != 0) & (mine[name] != theirs[name])
    differs |= mine["counters"][:, _FAULTS] != theirs["counters"][:, _FAULTS]
    return differs


def shown(result: Result, record: np.void) -> dict[str, Any]:
    """Returns an outcome as a JSON object, with its ``faults``. Source: ours."""
    outcome = result.outcome(record)
    return {**outcome, "faults": int(record["counters"][_FAULTS])}


def excuse(
    case: Case, key: str, keys: list[str], exceptions: Sequence[Exempt] = EXCEPTIONS
) -> Exempt | None:
    """Returns the exception because of which a key of an outcome differs, if there is one.

    Source: ours. ``keys`` are all that differ.
    """
    return next((e for e in exceptions if key in e.keys and e.excuses(case, keys)), None)
