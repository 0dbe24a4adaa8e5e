"""Generated programs against the host's own kernel."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from spfemu import oracle
from spfemu.engines import run
from spfemu.program import Program
from spfemu.testing.agreement import program_text

__all__ = ["against_host"]

_MAX_SHOWN: Final = 12
_MAX_RUNS: Final = 16


def against_host(
    program: Program,
    *,
    engines: Iterable[str] = ("reference", "native"),
    handlers: Iterable[str] = ("spf", "classic"),
) -> list[oracle.Comparison]:
    """Runs a program on the host's own kernel and on engines, and compares.

    Where an exception lets the two go different ways, the operation is taken out and the rest is
    compared as well, in another run.

    Source: ours.

    Args:
        program: what to run; its outcomes must not depend on the interleaving
            (``programs(host=True)``).
        engines: names as ``spfemu.run`` takes them (default "reference", "native").
        handlers: "spf", "classic" or both (default).

    Returns:
        A comparison for each run of each engine; they say what was excused.

    Raises:
        AssertionError: something differs that no exception explains; the message has the program.
        ProgramError: the host cannot run the program, or should not.
        EngineError: there is no host's kernel to ask, or it does not let us.

    Determinism: the host's.

    >>> import spfemu
    >>> from spfemu.testing import against_host
    >>> program = spfemu.Program.loads('''{"format": "spfemu-program/1", "tasks": [{"ops": [
    ...     {"op": "mmap", "length": "64K", "id": "p"}, {"op": "touch", "addr": "p+4096",
    ...     "length": "8K"}]}]}''')
    >>> [comparison.excused for comparison in against_host(program)]
    [[], [], [], []]
    """
    how = [(engine, handler) for engine in engines for handler in handlers]
    found: list[oracle.Comparison] = []
    setting = oracle.host()
    for _ in range(_MAX_RUNS):
        host = run(program, engine="kernel")
        given = oracle.for_host(program, setting)
        some = []
        for engine, handler in how:
            comparison = oracle.compare(run(given, engine=engine, handler=handler), host)
            _assert_same(comparison, program, f"{engine} ({handler})")
            some.append(comparison)
        found += some
        cuts = {comparison.cut for comparison in some} - {""}
        shorter = _without(program, cuts)
        if shorter == program:
            break
        program = shorter
    return found


def _assert_same(found: oracle.Comparison, program: Program, name: str) -> None:
    if not found.differences:
        return
    lines = [f"{name} and the host differ in {len(found.differences)} places:"]
    for entry in found.differences[:_MAX_SHOWN]:
        where = f"{entry.place} {entry.op} round {entry.round} {entry.what}".strip()
        lines.append(f"  {where}: host {entry.expected!r}, {name} {entry.actual!r}")
    if len(found.differences) > _MAX_SHOWN:
        lines.append(f"  … and {len(found.differences) - _MAX_SHOWN} more")
    raise AssertionError("\n".join([*lines, "program:", program_text(program)]))


def _without(program: Program, places: Iterable[str]) -> Program:
    """The program without the operations at some places."""
    obj = program.to_dict()
    for place in places:
        path = [int(number) for number in re.findall(r"\d+", place)]
        ops: list[dict[str, Any]] = obj["tasks"][path[0]]["ops"]
        for number in path[1:-1]:
            ops = ops[number]["ops"]
        op = ops[path[-1]]
        # An id has to be set, or those who name it wait for ever.
        idle = {"op": "brk", "delta": 0, "id": op["id"]} if "id" in op else None
        ops[path[-1]] = idle or {"op": "note", "text": "taken out"}
    return Program.from_dict(obj)
