"""Whether two results are the same, and running one program everywhere to see."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np

from spfemu.comparing import Difference, compare, joined_maps
from spfemu.engines import run
from spfemu.errors import ProgramError
from spfemu.profiles import Arch
from spfemu.program import Program
from spfemu.program.values import shown
from spfemu.results import EVENTS, Result
from spfemu.testing.programs import profile

__all__ = ["assert_same", "differences", "differential", "program_text", "with_maps"]

WHAT: Final = ("all", "own")

_MAX_SHOWN: Final = 12
_CHANGE_MAPS: Final = ("mmap", "munmap", "mprotect", "mremap", "madvise", "brk", "exec", "mlock")
_OWN: Final = ("op", "signal", "has", "errno")
_SAME_PLACE: Final = ("index", "round", "access")


def differences(a: Result, b: Result, *, what: str = "all") -> list[Difference]:
    """Returns what differs between two results of one program.

    ``what`` is "all": every outcome, counter, final VMA, and the VMAs at notes that state them; or
    "own": what each operation gives back (``ret``, ``errno``, ``value``, ``signal``), and which
    addresses are mapped how in the end, however they are cut into VMAs. "own" is for programs
    whose tasks run at once on ranges of their own, see ``disjoint_programs``. Elapsed times are
    never compared.

    Source: ours.

    Args:
        a: the result that is taken as right in ``Difference.expected``.
        b: the other one.
        what: "all" (default) or "own".

    Returns:
        The differences, in program order, then those of the run as a whole; none if the results
        are the same.

    Raises:
        ProgramError: the results are of different programs, or ``what`` is neither.

    >>> import spfemu
    >>> from spfemu.testing import differences
    >>> program = spfemu.Program.loads('''{"format": "spfemu-program/1", "tasks": [{"ops": [
    ...     {"op": "mmap", "length": "64K", "id": "p"}, {"op": "write", "addr": "p", "value": 7}]},
    ...     {"name": "t1", "ops": [{"op": "read", "addr": "p+0x1000"}]}]}''')
    >>> spf, classic = (
    ...     spfemu.run(program, engine="reference", handler=name) for name in ("spf", "classic"))
    >>> [found.what for found in differences(spf, classic, what="own")]
    []
    >>> [found.place for found in differences(spf, classic)][0]
    'tasks[0].ops[1]'
    """
    if what not in WHAT:
        raise ProgramError(f"differences: what: value {shown(what)} (allowed: {', '.join(WHAT)})")
    if what == "own":
        return _own_differences(a, b)
    found = compare(a, b)
    for name, mine, theirs in (
        ("rounds", list(a.rounds), list(b.rounds)),
        ("note_maps", _note_maps(a), _note_maps(b)),
        *((f"counters {event}", a.counters[event], b.counters[event]) for event in EVENTS),
    ):
        if mine != theirs:
            found.append(Difference("", "", 0, name, mine, theirs))
    return found


def assert_same(a: Result, b: Result, *, what: str = "all") -> None:
    """Raises AssertionError if two results of one program differ.

    The message has the differences and the whole program, ready to be kept as a test.

    Source: ours.

    Args:
        a: the result that is taken as right.
        b: the other one.
        what: what is compared, see ``differences`` (default "all").

    Raises:
        AssertionError: the results differ.
        ProgramError: the results are of different programs, or ``what`` is unknown.
    """
    found = differences(a, b, what=what)
    if not found:
        return
    lines = [f"{_name(a)} and {_name(b)} differ in {len(found)} places:"]
    lines += [f"  {_line(a, b, difference)}" for difference in found[:_MAX_SHOWN]]
    if len(found) > _MAX_SHOWN:
        lines.append(f"  … and {len(found) - _MAX_SHOWN} more")
    lines += ["program:", program_text(a.program)]
    raise AssertionError("\n".join(lines))


def differential(
    program: Program,
    *,
    engines: Iterable[str] = ("reference", "native", "vtime", "explore"),
    handlers: Iterable[str] = ("spf", "classic"),
    tree: str = "rcu",
    arches: Iterable[str | Arch] = ("x86",),
    what: str = "all",
    seed: int = 0,
    cpus: int | None = None,
    variants: str | Mapping[str, str] | None = None,
) -> None:
    """Runs a program on all engines and raises AssertionError where two differ.

    Source: ours.

    Args:
        program: what to run; its outcomes must not depend on the interleaving (``programs``), or
            only in what "own" leaves out (``disjoint_programs``).
        engines: names as ``spfemu.run`` takes them; the others are compared with the first one
            (default "reference", "native", "vtime", "explore").
        handlers: "spf", "classic" or both (default).
        tree: what spf looks VMAs up in, "rcu" (default) or "rwlock".
        arches: profiles or names, of the program's page size (default "x86").
        what: what is compared, see ``differences`` (default "all").
        seed: for engines that draw (default 0).
        cpus: for engines that have some, from 1 (default: as each chooses).
        variants: as ``spfemu.run`` takes them (default: each engine's own choice).

    Raises:
        AssertionError: two engines differ; the message has the program.
        ProgramError: the program cannot run on one of the arches.
        EngineError: an engine, handler or setting is unknown.

    Determinism: the arguments fix the result, but for what native's interleaving may show.

    >>> import spfemu
    >>> from spfemu.testing import differential
    >>> differential(spfemu.Program.loads('''{"format": "spfemu-program/1", "tasks": [{"ops": [
    ...     {"op": "mmap", "length": "64K", "id": "p"}, {"op": "touch", "addr": "p+4096",
    ...     "length": "8K"}]}]}'''))
    """
    first, *others = engines
    for arch in arches:
        for handler in handlers:
            settings: dict[str, Any] = {
                "handler": handler,
                "tree": tree if handler == "spf" else "rcu",
                "arch": profile(arch),
                "seed": seed,
                "cpus": cpus,
                "variants": variants,
                "proc": True,
            }
            expected = run(program, engine=first, **settings)
            for engine in others:
                assert_same(expected, run(program, engine=engine, **settings), what=what)


def with_maps(program: Program) -> Program:
    """Returns the program with a look at the VMAs after each operation that changes some.

    Source: ours. The look is a ``note`` that states ``maps_lines``.

    >>> import spfemu
    >>> from spfemu.testing import with_maps
    >>> program = spfemu.Program.loads('''{"format": "spfemu-program/1", "tasks": [{"ops": [
    ...     {"op": "mmap", "length": "64K", "addr": "0x10000"}]}]}''')
    >>> list(spfemu.run(with_maps(program), engine="reference").note_maps.values())
    [['00010000-00020000 rw-p 00000000']]
    """

    def looked_at(ops: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for op in ops:
            if op["op"] == "repeat":
                op = {**op, "ops": looked_at(op["ops"])}
            found.append(op)
            if op["op"] in _CHANGE_MAPS:
                found.append({"op": "note", "text": "maps", "expect": {"maps_lines": []}})
        return found

    obj = program.to_dict()
    tasks = [{**task, "ops": looked_at(task["ops"])} for task in obj["tasks"]]
    return Program.from_dict({**obj, "tasks": tasks})


# --- the parts ---------------------------------------------------------------------------------


def _note_maps(result: Result) -> dict[str, list[str]]:
    return {
        f"{result.program.where(task, index)} round {number}": list(lines)
        for (task, index, number), lines in sorted(result.note_maps.items())
    }


def _name(result: Result) -> str:
    return f"{result.engine} ({result.handler}, {result.arch})"


def _line(a: Result, b: Result, found: Difference) -> str:
    where = " ".join(part for part in (found.place, found.op) if part)
    again = f" round {found.round}" if found.round else ""
    values = f"{a.engine} {found.expected!r}, {b.engine} {found.actual!r}"
    return f"{where}{again}{': ' if where else ''}{found.what}: {values}"


def program_text(program: Program) -> str:
    """Returns the program as JSON with an operation on each line. Source: ours."""
    obj = program.to_dict()
    tasks = []
    for task in obj.pop("tasks"):
        ops = task.pop("ops")
        head = json.dumps(task)[:-1] + (", " if task else "")
        tasks.append(head + '"ops": [' + ",".join(f"\n  {json.dumps(op)}" for op in ops) + "]}")
    return json.dumps(obj)[:-1] + ', "tasks": [\n ' + ",\n ".join(tasks) + "]}"


def _own_differences(a: Result, b: Result) -> list[Difference]:
    if [task.ops.tobytes() for task in a.program.tasks] != [
        task.ops.tobytes() for task in b.program.tasks
    ]:
        raise ProgramError("the results are of different programs")
    found: list[Difference] = []
    for number in range(len(a.program.tasks)):
        found += _own_of_task(a, b, number)
    if a.stuck != b.stuck:
        found.append(Difference("", "", 0, "stuck", list(a.stuck), list(b.stuck)))
    for name in sorted({*a.maps, *b.maps}):
        mine, theirs = joined_maps(a.maps.get(name, [])), joined_maps(b.maps.get(name, []))
        if mine != theirs:
            found.append(Difference("", "", 0, f"maps {name}", mine, theirs))
    return found


def _own_of_task(a: Result, b: Result, number: int) -> list[Difference]:
    mine, theirs = a.task_ops(number), b.task_ops(number)
    if len(mine) != len(theirs) or any(
        (mine[field] != theirs[field]).any() for field in _SAME_PLACE
    ):
        lengths = (f"{len(mine)} outcomes", f"{len(theirs)} outcomes")
        return [Difference(f"tasks[{number}]", "", 0, "order", *lengths)]
    differs = np.zeros(len(mine), dtype=bool)
    for field in _OWN:
        differs |= mine[field] != theirs[field]
    for field, bit in (("ret", 1), ("value", 2)):
        differs |= ((mine["has"] & bit) != 0) & (mine[field] != theirs[field])
    return [
        difference
        for row in np.flatnonzero(differs).tolist()
        for difference in _own_of_outcome(a, b, number, mine[row], theirs[row])
    ]


def _own_of_outcome(
    a: Result, b: Result, number: int, mine: np.void, theirs: np.void
) -> list[Difference]:
    wanted, came = a.outcome(mine), b.outcome(theirs)
    place = a.program.where(number, wanted["index"])
    return [
        Difference(place, wanted["op"], wanted["round"], key, wanted[key], came[key])
        for key in ("op", "ret", "errno", "value", "signal")
        if wanted[key] != came[key]
    ]
