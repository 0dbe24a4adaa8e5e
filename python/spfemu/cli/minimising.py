"""``spfemu explore --minimise``: the smallest program that breaks the same."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from spfemu.cli.output import check_is_file, check_output, counted, progress_bar
from spfemu.errors import ProgramError
from spfemu.minimising import minimise
from spfemu.program.model import Program
from spfemu.program.values import shown

__all__ = ["check_target", "exit_status", "minimise_first", "print_minimised"]

_FOUND: Final = 1
_INTERRUPTED: Final = 130
_SUFFIXES: Final = (".json", ".npz")


def check_target(path: Path | None, *others: str | Path | None) -> None:
    """Refuses a file that no program can be written to, before anything long begins.

    Source: ours. Raises ProgramError; None is no file.
    """
    if path is None:
        return
    check_is_file("--minimise", path)
    check_output(path, *others)
    if path.suffix not in _SUFFIXES:
        allowed = ", ".join(_SUFFIXES)
        raise ProgramError(f"{path}: suffix {shown(path.suffix)} (allowed: {allowed})")


def minimise_first(
    path: Path | None,
    program: Program,
    exploration: dict[str, Any],
    settings: Mapping[str, Any],
    *,
    quiet: bool,
) -> None:
    """Minimises the first finding of an exploration, and writes the program, if there is one.

    Source: ours. ``settings`` are what ``spfemu.explore`` was given. The exploration gets a
    member ``minimised``, None if nothing was found; without a file nothing happens. Raises as
    ``spfemu.minimise`` does.
    """
    if path is None:
        return
    exploration["minimised"] = None
    if not exploration["violations"]:
        return
    with progress_bar("minimising", quiet=quiet) as progress:
        smaller = minimise(program, exploration["violations"][0], **settings, progress=progress)
    smaller.program.save(path)
    exploration["minimised"] = smaller.to_dict()


def exit_status(exploration: Mapping[str, Any]) -> int:
    """Returns the exit status of an exploration. Source: ours."""
    if not exploration["violations"]:
        return 0
    smaller = exploration.get("minimised")
    return _FOUND if smaller is None or smaller["minimal"] else _INTERRUPTED


def print_minimised(path: Path, exploration: Mapping[str, Any], options: Sequence[str]) -> None:
    """Says what was written, and how to see it again; ``options`` are those of the exploration.

    Source: ours.
    """
    smaller = exploration["minimised"]
    print()
    if smaller is None:
        print(f"minimised: nothing was found, {path} was not written")
        return
    bound = "" if smaller["fewest"] else "at most "
    took = f"{bound}{counted(smaller['preemptions'], 'preemption')}"
    all_of_them = counted(smaller["operations_before"], "operation")
    print(f"minimised: {smaller['operations']:,} of {all_of_them}, {took}")
    if not smaller["minimal"]:
        print("(interrupted; perhaps more can be left out)")
    finding = smaller["finding"]
    print(f"of      {_told(finding)}")
    print(f"file    {path}")
    print(f"token   {finding['token']}")
    replay = ["spfemu", "explore", str(path), *options, "--replay", finding["token"]]
    print(f"replay  {shlex.join(replay)}")
    if others := exploration["violations"][1:]:
        print(f"not minimised (--replay TOKEN does): {', '.join(map(_told, others))}")


def _told(violation: Mapping[str, Any]) -> str:
    known = f" (known as {violation['entry']})" if violation["entry"] else ""
    return f"{violation['invariant']}{known}"
