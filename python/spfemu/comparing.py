"""Comparing results: with what a program expects, and with each other."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spfemu.errors import ProgramError
from spfemu.program.ops import EVENTS, OPS, OPS_BY_CODE
from spfemu.program.values import format_address, parse_address, parse_int
from spfemu.results import Result

__all__ = [
    "Difference",
    "check",
    "compare",
    "joined_maps",
    "maps_line",
    "parsed_maps_line",
    "parting",
    "unmet",
]

_EVENT_NUMBER: Final = {event: number for number, event in enumerate(EVENTS)}
_COMPARED: Final = ("op", "handled", "livelock", "signal", "si_code", "has", "errno", "counters")


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is not what it should be.

    Source: ours. ``place`` is the operation in the program's JSON form ("" for the run as a whole),
    ``op`` its name, ``round`` its repetition, ``what`` the key; ``expected`` and ``actual`` are the
    values as JSON has them.
    """

    place: str
    op: str
    round: int
    what: str
    expected: Any
    actual: Any

    def to_json(self) -> dict[str, Any]:
        """Returns the difference as a JSON object. Source: the command line's ``--json``."""
        return {
            "place": self.place,
            "op": self.op,
            "round": self.round,
            "what": self.what,
            "expected": self.expected,
            "actual": self.actual,
        }


def check(result: Result) -> list[Difference]:
    """Compares a result with the program's ``expect`` objects.

    Source: the program format, "Expectations". Returns the differences in program order, none when
    all is as expected. An operation in a ``repeat`` is compared in every round; the counters of a
    ``touch`` are those of all its accesses. On engine kernel ``ret``, ``errno``, ``value``,
    ``signal`` and the number of faults are compared, and what a named exception explains is left
    out (``spfemu.oracle.check`` has it). Raises ProgramError when the expectations were made for
    another handler or arch, or the result has no outcomes.

    >>> import spfemu
    >>> program = spfemu.Program.loads('''{"format": "spfemu-program/1", "tasks": [{"ops": [
    ...     {"op": "mmap", "length": "64K", "id": "p"},
    ...     {"op": "read", "addr": "p", "expect": {"value": 7}}]}]}''')
    >>> for difference in spfemu.check(spfemu.run(program, engine="vtime")):
    ...     print(difference.place, difference.what, difference.expected, difference.actual)
    tasks[0].ops[1] value 7 0
    """
    if result.engine == "kernel":
        from spfemu import oracle

        return oracle.check(result).differences
    program = result.program
    if not program.expect:
        return []
    wanted = dict(program.expect_for)
    actual = {"handler": result.handler, "arch": result.arch}
    if actual != wanted:
        raise ProgramError(
            f"{program.source}: key 'expect_for': made for handler {wanted['handler']}, arch "
            f"{wanted['arch']}; this run has handler {actual['handler']}, arch {actual['arch']}"
        )
    return [difference for difference, _ in unmet(result)]


def unmet(result: Result) -> Iterator[tuple[Difference, npt.NDArray[np.void]]]:
    """Yields each expectation that is not met, and the outcomes of that operation in that round.

    Source: the program format, "Expectations". Raises ProgramError if there are no outcomes.
    """
    program = result.program
    if not len(result.ops) and result.settings.get("record") is False:
        raise ProgramError(f"{program.source}: a run without outcomes cannot be compared")
    for number in range(len(program.tasks)):
        yield from _unmet_of_task(result, number)


def _unmet_of_task(
    result: Result, number: int
) -> Iterator[tuple[Difference, npt.NDArray[np.void]]]:
    program = result.program
    entries = sorted(key for key in program.expect if key[0] == number)
    if not entries:
        return
    rows = result.task_ops(number)
    rows = rows[np.argsort(rows["index"], kind="stable")]
    for key in entries:
        first, last = np.searchsorted(rows["index"], [key[1], key[1] + 1])
        mine = rows[first:last]
        expect = program.expect[key]
        place = program.where(*key)
        op = OPS_BY_CODE[int(program.tasks[number].ops["op"][key[1]])].name
        if not len(mine):
            yield Difference(place, op, 0, "outcome", "to run", "did not run"), mine
            continue
        rounds = np.split(mine, np.flatnonzero(np.diff(mine["round"].astype(np.int64))) + 1)
        for group in rounds:
            for what, wanted, actual in _compare_outcome(result, group, expect, key):
                number_of_round = int(group["round"][0])
                yield Difference(place, op, number_of_round, what, wanted, actual), group


def _compare_outcome(
    result: Result, group: npt.NDArray[np.void], expect: Mapping[str, Any], key: tuple[int, int]
) -> Iterator[tuple[str, Any, Any]]:
    """Yields (key, expected, actual) for each key that one operation's outcome does not meet."""
    outcomes = [result.outcome(record) for record in group]
    for name, wanted in expect.items():
        if name == "counters":
            sums = group["counters"].sum(axis=0, dtype=np.uint64)
            for event, count in wanted.items():
                actual = int(sums[_EVENT_NUMBER[event]])
                if actual != count:
                    yield f"counters {event}", count, actual
        elif name == "maps_lines":
            place = (*key, int(group["round"][0]))
            yield from _compare_maps(result, wanted, place)
        else:
            for outcome in outcomes:
                if outcome[name] != wanted:
                    yield name, wanted, outcome[name]
                    break


def _compare_maps(
    result: Result, wanted: list[str], place: tuple[int, int, int]
) -> Iterator[tuple[str, Any, Any]]:
    actual = result.note_maps.get(place)
    if actual is None:
        yield "maps_lines", wanted, "not reported by this engine"
        return
    lines = [_maps_line(result, line, place[0]) for line in wanted]
    if [_normal_maps_line(line) for line in actual] != lines:
        yield "maps_lines", lines, list(actual)


def _normal_maps_line(line: str) -> str:
    """Returns a line of hexadecimal start and end in the form that expectations come to."""
    span, perms, offset = line.split()[:3]
    start, end = span.split("-")
    return f"{int(start, 16):#x}..{int(end, 16):#x} {perms} {int(offset, 16):#x}"


def _maps_line(result: Result, line: str, task: int) -> str:
    """Returns an expected line with its ids as addresses."""
    try:
        span, perms, offset = line.split()
        start, end = (_resolved(result, text, task) for text in span.split(".."))
        return f"{start:#x}..{end:#x} {perms} {parse_int(offset):#x}"
    except ValueError as error:
        return f"{line} ({error})"


def _resolved(result: Result, text: str, task: int) -> int:
    name, offset = parse_address(text)
    if name is None:
        return offset
    program = result.program
    number = program.ids.index(name)
    for op in OPS.values():
        for key in op.keys:
            if key.kind != "define":
                continue
            for where in (task, *range(len(program.tasks))):
                ops = program.tasks[where].ops
                defines = (ops["op"] == op.code) & (
                    ops[key.field].astype(np.int64) - key.plus == number
                )
                rows = result.task_ops(where)
                hits = rows[np.isin(rows["index"], np.flatnonzero(defines))]
                if len(hits):
                    return int(hits["ret"][-1]) + offset
    raise ValueError(f"id {format_address(name, 0)} has no address")


def compare(expected: Result, actual: Result) -> list[Difference]:
    """Compares two results of one program, operation by operation, and the final maps.

    Source: ours. Returns the places where ``actual`` differs from ``expected``, ``proc`` included
    if both have it; elapsed times are not compared. Raises ProgramError when the results
    are of different programs.
    """
    if [len(task.ops) for task in expected.program.tasks] != [
        len(task.ops) for task in actual.program.tasks
    ]:
        raise ProgramError("the results are of different programs")
    differences: list[Difference] = []
    for number in range(len(expected.program.tasks)):
        differences += _compare_tasks(expected, actual, number)
    if expected.stuck != actual.stuck:
        stuck = (list(expected.stuck), list(actual.stuck))
        differences.append(Difference("", "", 0, "stuck", *stuck))
    for name in sorted(set(expected.maps) | set(actual.maps)):
        mine, theirs = expected.maps.get(name), actual.maps.get(name)
        if mine != theirs:
            differences.append(Difference("", "", 0, f"maps {name}", mine, theirs))
    for name in sorted(set(expected.proc) & set(actual.proc)):
        for file, lines in expected.proc[name].items():
            now = actual.proc[name][file]
            if lines != now:
                differences.append(Difference("", "", 0, f"{file} {name}", lines, now))
    return differences


def _compare_tasks(expected: Result, actual: Result, number: int) -> Iterator[Difference]:
    program = expected.program
    mine, theirs = expected.task_ops(number), actual.task_ops(number)
    both = min(len(mine), len(theirs))
    same_place = np.ones(both, dtype=bool)
    for field in ("index", "round", "access"):
        same_place &= mine[field][:both] == theirs[field][:both]
    stray = int(np.argmin(same_place)) if not same_place.all() else both
    differs = np.zeros(stray, dtype=bool)
    for field in _COMPARED:
        unequal = mine[field][:stray] != theirs[field][:stray]
        differs |= unequal.any(axis=1) if unequal.ndim > 1 else unequal
    for field, bit in (("ret", 1), ("value", 2)):
        valid = (mine["has"][:stray] & bit) != 0
        differs |= valid & (mine[field][:stray] != theirs[field][:stray])
    for row in np.flatnonzero(differs).tolist():
        wanted, came = expected.outcome(mine[row]), actual.outcome(theirs[row])
        place = program.where(number, int(mine["index"][row]))
        for what in wanted:
            if wanted[what] != came.get(what):
                yield Difference(
                    place, wanted["op"], wanted["round"], what, wanted[what], came.get(what)
                )
    if stray < max(len(mine), len(theirs)):
        yield parting(expected, actual, number, stray)


def parting(expected: Result, actual: Result, number: int, row: int) -> Difference:
    """Returns the place where a task went another way in the two results. Source: ours."""

    def at(result: Result) -> tuple[str, int, str]:
        rows = result.task_ops(number)
        if row >= len(rows):
            return "", 0, "no more outcomes"
        outcome = result.outcome(rows[row])
        place = result.program.where(number, outcome["index"])
        return outcome["op"], outcome["round"], f"{place} round {outcome['round']}"

    op, number_of_round, wanted = at(expected)
    return Difference(f"tasks[{number}]", op, number_of_round, "next", wanted, at(actual)[2])


def joined_maps(lines: Iterable[str], at: Container[int] | None = None) -> list[str]:
    """Returns lines of maps, joined wherever the second goes on as the first ends.

    So it is left out how the same memory is cut into VMAs. Source: ours. The lines may come in any
    order. With ``at``, they are joined at these addresses only.

    >>> from spfemu.comparing import joined_maps
    >>> joined_maps(["2000-3000 rw-p 0", "1000-2000 rw-p 0", "3000-4000 r--p 0"])
    ['00001000-00003000 rw-p 00000000', '00003000-00004000 r--p 00000000']
    """
    joined: list[tuple[int, int, str, int]] = []
    for start, end, perms, offset in sorted(map(parsed_maps_line, lines)):
        if joined:
            first, last, before, first_offset = joined[-1]
            goes_on = offset in (0, first_offset + start - first)
            if last == start and before == perms and goes_on and (at is None or start in at):
                joined[-1] = (first, end, perms, first_offset)
                continue
        joined.append((start, end, perms, offset))
    return [maps_line(*part) for part in joined]


def parsed_maps_line(line: str) -> tuple[int, int, str, int]:
    """Returns start, end, permissions and offset of a line of maps. Source: ``/proc/PID/maps``."""
    span, perms, offset = line.split()[:3]
    start, end = (int(part, 16) for part in span.split("-"))
    return start, end, perms, int(offset, 16)


def maps_line(start: int, end: int, perms: str, offset: int) -> str:
    """Returns a line of maps; the inverse of ``parsed_maps_line``. Source: ``/proc/PID/maps``."""
    return f"{start:08x}-{end:08x} {perms} {offset:08x}"
