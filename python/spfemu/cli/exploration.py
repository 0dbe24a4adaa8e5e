"""What an exploration found, in words."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from spfemu.cli.output import counted
from spfemu.cli.tables import print_folded
from spfemu.cli.timeline import print_timeline

__all__ = ["print_exploration", "summary"]


def print_exploration(
    exploration: dict[str, Any],
    command: Sequence[str],
    task_names: Sequence[str],
    *,
    full: bool = False,
    timelines: int | None = None,
) -> None:
    """Writes what an exploration found; ``command`` is the one that a token completes.

    Source: ours. ``full`` leaves nothing out of the timelines; only the first ``timelines``
    findings have one (default: all).
    """
    violations = exploration["violations"]
    print(summary(exploration))
    for number, violation in enumerate(violations):
        entry = f" (known as {violation['entry']})" if violation["entry"] else ""
        print(f"\n{violation['invariant']}{entry}: {violation['what']}")
        print_folded(violation["why"])
        if timelines is None or number < timelines:
            print_timeline(violation["timeline"], task_names, full=full)
            if violation["fired"] is None and violation["timeline"]:
                print("(seen once all tasks had ended)")
        print(f"token   {violation['token']}")
        print(f"replay  {shlex.join([*command, '--replay', violation['token']])}")


def summary(exploration: dict[str, Any]) -> str:
    """Returns in one line how far an exploration went, and how much it found. Source: ours."""
    parts = [
        counted(exploration["schedules"], "schedule"),
        counted(exploration["steps"], "step"),
        *_how_far(exploration),
        counted(len(exploration["violations"]), "violation"),
    ]
    return ", ".join(parts)


def _how_far(exploration: dict[str, Any]) -> list[str]:
    """Says within which bounds the search was complete, or why it was not."""
    settings = exploration["settings"]
    said = []
    if exploration["too_long"]:
        said.append(f"{exploration['too_long']:,} cut short after {settings['steps']:,} steps")
    if settings["strategy"] == "replay":
        return said
    if exploration["complete"]:
        bound = settings["preemptions"]
        within = "" if bound == "all" else f" within {counted(bound, 'preemption')}"
        said.append(f"complete{within}")
    elif settings["strategy"] == "guided":
        said.append("as told")
    elif settings["strategy"] != "dfs":
        said.append("drawn at random")
    else:
        said.append("not complete")
    return said
