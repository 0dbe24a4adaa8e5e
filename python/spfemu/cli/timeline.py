"""The timeline of a finding: what each CPU did, step by step, in a column for each.

Where the columns have no room they become one, with the CPU before each step. What does not tell
the story is left out: looks at words that no other CPU changes. The numbers of the steps stay.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from spfemu.cli.output import counted
from spfemu.cli.tables import terminal_width

__all__ = ["new_value", "print_timeline", "short", "step_text", "tells"]

_PIPED_WIDTH: Final = 120
_LEAST_COLUMN: Final = 34
_GAP: Final = "  "
_MARKS: Final = {"mutant": "*", "finding": ">", "failed": "!"}
_LOOKS: Final = ("load", "observe", "cas-failed")
_CHECKS: Final = {"passed": "ok", "failed": "NO"}
# The line of the words that the program's own synchronisation sleeps on.
_BY_PROGRAM: Final = "on line 0 +0x0"
# An rwsem's owner: the task from here on, and below it whether it reads.
_OWNER_SHIFT: Final = 2


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a timeline: the step's number or "", the mark, the CPU, and the text."""

    number: str
    mark: str
    cpu: int
    text: str


def print_timeline(
    steps: Sequence[dict[str, Any]], task_names: Sequence[str], *, full: bool = False
) -> None:
    """Writes the steps of a schedule.

    Source: ours. ``steps`` as in the JSON form; ``full`` leaves nothing out. ``*`` marks a step
    where a mutant left out a check, ``!`` a check that failed, ``>`` where the invariant broke.
    """
    cpus = sorted({step["cpu"] for step in steps})
    if not cpus:
        return
    lines = list(_lines(steps, full=full))
    names = {cpu: f"CPU {cpu} ({task_names[cpu]})" for cpu in cpus}
    first = max(len("step"), *(len(line.number) for line in lines))
    room = (terminal_width(sys.stdout) or _PIPED_WIDTH) - first - len(_GAP) - 2
    widths = _widths(lines, names, room)
    if widths is None:
        head, texts = ", ".join(names.values()), _in_one(lines, room)
    else:
        head = _GAP.join(names[cpu].ljust(widths[cpu]) for cpu in cpus)
        texts = _in_columns(lines, widths)
    print(f"{'step':>{first}}{_GAP}  {head}".rstrip())
    for line, text in zip(lines, texts, strict=True):
        before = f"{line.number:>{first}}{_GAP}{line.mark or ' '} "
        print(textwrap.indent(text, " " * len(before)).replace(" " * len(before), before, 1))
    _say_what_is_left_out(steps, {line.number for line in lines})


def _say_what_is_left_out(steps: Sequence[dict[str, Any]], there: set[str]) -> None:
    missing = [step for number, step in enumerate(steps) if str(number) not in there]
    checks = sum(1 for step in missing if step["access"] == "passed")
    said = []
    if len(missing) > checks:
        looks = counted(len(missing) - checks, "look")
        said.append(f"{looks} at words that no other CPU changes")
    if checks:
        said.append(f"{counted(checks, 'check')} that held")
    if said:
        print(f"({' and '.join(said)} left out; --full has all)")


def _widths(lines: Sequence[_Line], names: dict[int, str], room: int) -> dict[int, int] | None:
    """Returns how wide each CPU's column is: as it needs, or all the same; None without room."""
    natural = {cpu: len(name) for cpu, name in names.items()}
    for line in lines:
        natural[line.cpu] = max(natural[line.cpu], len(line.text))
    if sum(natural.values()) + len(_GAP) * (len(natural) - 1) <= room:
        return natural
    width = room // len(names) - len(_GAP)
    least = max(_LEAST_COLUMN, *map(len, names.values()), 0)
    return dict.fromkeys(names, width) if width >= least else None


def _in_columns(lines: Sequence[_Line], widths: dict[int, int]) -> list[str]:
    places, place = {}, 0
    for cpu, width in widths.items():
        places[cpu] = " " * place
        place += width + len(_GAP)
    return [
        textwrap.indent(_wrapped(line.text, widths[line.cpu]), places[line.cpu]) for line in lines
    ]


def _in_one(lines: Sequence[_Line], room: int) -> list[str]:
    """The CPU before each text, and only blanks before what does not fit into its line."""
    texts = []
    for line in lines:
        first, *rest = _wrapped(line.text, max(room - 3, 20)).split("\n")
        texts.append("\n".join([f"{line.cpu}  {first}", *(f"   {more}" for more in rest)]))
    return texts


def _wrapped(text: str, width: int) -> str:
    indent = " " * (len(text) - len(text.lstrip()))
    lines = textwrap.wrap(
        text.strip(), width, initial_indent=indent, subsequent_indent=f"{indent}  ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return "\n".join(lines)


def _lines(steps: Sequence[dict[str, Any]], *, full: bool) -> Iterator[_Line]:
    """Yields the steps with a head wherever the CPU, or what it is at, changes."""
    told = [True] * len(steps) if full else tells(steps)
    before: tuple[int, str] | None = None
    for number, step in enumerate(steps):
        cpu, function = step["cpu"], step["function"]
        if not told[number]:
            continue
        if before != (cpu, function) and function:
            yield _Line("", "", cpu, f"{function}:")
        before = (cpu, function)
        yield _Line(str(number), _MARKS.get(step["access"], ""), cpu, f"  {step_text(step)}")


def tells(steps: Sequence[dict[str, Any]]) -> list[bool]:
    """Says of each step whether it tells the story: no look at a word that no other CPU changes.

    Source: ours. A check that held tells nothing either: what it looked at is there.
    """
    writers: dict[str, set[int]] = {}
    for step in steps:
        if "new" in step:
            writers.setdefault(step["what"], set()).add(step["cpu"])
    return [
        step["access"] != "passed"
        and (step["access"] not in _LOOKS or bool(writers.get(step["what"], set()) - {step["cpu"]}))
        for step in steps
    ]


def step_text(step: dict[str, Any]) -> str:
    """Returns a step as one line, without its CPU and function. Source: ours."""
    text = str(step["what"])
    if step["access"] in _CHECKS:
        number, demand = text.split(": ", 1)
        text = f"{number} {_CHECKS[step['access']]}: {demand}"
    if "value" in step:
        text = f"{step['access']} {text} "
        value = _told(step, "value", "text")
        text += f"{value} -> {new_value(step)}" if "new" in step else f"= {value}"
    return short(text.replace(_BY_PROGRAM, "until another task lets it go on"))


def new_value(step: dict[str, Any]) -> str:
    """Returns what a step has written, as timelines say it. Source: ours."""
    return short(_told(step, "new", "new_text"))


def _told(step: dict[str, Any], value: str, text: str) -> str:
    if step["what"].endswith("sem_owner"):
        owner = int(step[value], 16)
        reads = owner & ((1 << _OWNER_SHIFT) - 1)
        return (
            f"CPU {(owner >> _OWNER_SHIFT) - 1}{' (reads)' if reads else ''}" if owner else "none"
        )
    return str(step.get(text, step[value]))


def short(text: str) -> str:
    """Returns a step's words with what everybody calls these structs. Source: ours.

    An entry of a table is one of it.
    """
    names = text.replace("vm_area_struct[", "vma[").replace("mm_struct[", "mm[")
    return names.replace("].[", "][")
