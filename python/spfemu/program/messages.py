"""The words of the messages that the reader and the checks share."""

from __future__ import annotations

from collections.abc import Iterable

from spfemu.program.values import shown

__all__ = ["listed", "no_nodes", "out_of_range", "to_be_started"]


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
