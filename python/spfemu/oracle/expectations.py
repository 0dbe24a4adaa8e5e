"""What a program expects, held against the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spfemu.comparing import Difference, unmet
from spfemu.errors import ProgramError
from spfemu.oracle.cases import Case, Exempt
from spfemu.oracle.comparing import Comparison, Excused, excuse, for_host, shown
from spfemu.oracle.history import History
from spfemu.oracle.host import host as asked
from spfemu.oracle.merging import Merging
from spfemu.program.ops import EVENTS
from spfemu.results import Result

__all__ = ["check"]

_KEYS: Final = ("ret", "errno", "value", "signal")
_FAULTS: Final = EVENTS.index("faults")


def check(result: Result) -> Comparison:
    """Compares the host's result with the program's ``expect`` objects.

    Compared are ``ret``, ``errno``, ``value``, ``signal`` and ``faults``; the rest is the
    emulator's own, and so is an access that is to fault for ever.

    Source: the program format, "Expectations". ``result`` comes from engine kernel. Raises
    ProgramError when the expectations were made for another arch, or there are no outcomes.
    """
    program = result.program
    if program.expect and program.expect_for["arch"] != result.arch:
        raise ProgramError(
            f"{program.source}: key 'expect_for': made for arch {program.expect_for['arch']}; "
            f"this run has arch {result.arch}"
        )
    comparable = {place: _comparable(expect) for place, expect in program.expect.items()}
    given = replace(result, program=replace(program, expect=comparable))
    history = History(result)
    found = Comparison()
    for difference, group in unmet(given):
        exception = _excuse(history, difference, group)
        if exception is not None:
            found.excused.append(Excused(exception.name, difference))
        elif _was_counted(result, difference, group):
            found.differences.append(difference)
    return found


def _comparable(expect: Mapping[str, Any]) -> dict[str, Any]:
    if expect.get("livelock"):
        return {}
    kept = {key: expect[key] for key in _KEYS if key in expect}
    counters = expect.get("counters", {})
    return kept | ({"counters": {"faults": counters["faults"]}} if "faults" in counters else {})


def _was_counted(result: Result, difference: Difference, group: npt.NDArray[np.void]) -> bool:
    """Not if the host counts only faults that were settled, and these were not."""
    if difference.what != "counters faults" or result.settings["counting"] != "stat":
        return True
    return not group["signal"].any()


def _excuse(history: History, difference: Difference, group: npt.NDArray[np.void]) -> Exempt | None:
    if not len(group):
        return None
    key = difference.what.removeprefix("counters ")
    if key not in (*_KEYS, "faults"):
        return None
    changes = [{key: difference.expected}]
    if key == "faults":
        # Of a touch it is not said how many each access has: one that has one too many, or too few.
        by = 1 if difference.expected > difference.actual else -1
        counts = group["counters"][:, _FAULTS].astype(int)
        changes = [{key: int(count) + by} for count in counts]
    excuses = [
        excuse(_case(history, record, change), key, [key])
        for record, change in zip(group, changes, strict=False)
    ]
    found = [exception for exception in excuses if exception is not None]
    needed = abs(difference.expected - difference.actual) if key == "faults" else 1
    return found[0] if len(found) >= needed else None


def _case(history: History, record: np.void, change: dict[str, Any]) -> Case:
    task = int(record["task"])
    rows = history.host.task_ops(task)
    same = np.ones(len(rows), dtype=bool)
    for name in ("index", "round", "access"):
        same &= rows[name] == record[name]
    host = shown(history.host, record)
    handler = history.program.expect_for["handler"]
    merging = Merging(for_host(history.program, asked()), handler)
    return Case(history, merging, task, int(np.argmax(same)), {**host, **change}, host)
