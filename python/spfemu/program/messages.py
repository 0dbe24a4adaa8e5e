"""The words of the messages that the reader and the checks share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from spfemu.program.values import shown

if TYPE_CHECKING:
    from spfemu.program.model import Program

__all__ = ["listed", "no_nodes", "out_of_range", "placed", "to_be_started"]

_PLACE: Final = re.compile(r"tasks\[(\d+)\]: record (\d+): ")
"""The place of an operation as the compiled core says it."""


def placed(program: Program, message: str) -> str:
    """A message of the core with the program's source, and its place as the JSON form has it.

    Source: ours.
    """
    if match := _PLACE.match(message):
        message = f"{program.where(int(match[1]), int(match[2]))}: {message[match.end() :]}"
    return f"{program.source}: {message}"


def out_of_range(key: str, value: object, allowed: str) -> str:
    """The message for a value that is not allowed. Source: ours."""
    return f"key '{key}': value {shown(value)} (allowed: {allowed})"


def no_nodes(mode: str) -> str:
    """The message for nodes that are given to a policy that has none. Source: ours."""
    return f"key 'nodes': mode {shown(mode)} has none (allowed: with bind, interleave, preferred)"


def to_be_started(how: str, starts: Iterable[tuple[str, str | None]]) -> str:
    """Which tasks an operation may start, of these names and their ``start``. Source: ours."""
    fit = listed(name for name, start in starts if start == how)
    return f'a task with "start": "{how}": {fit or "there is none"}'


def listed(names: Iterable[object]) -> str:
    """Names as a list in a message. Source: ours."""
    return ", ".join(str(name) for name in names)
