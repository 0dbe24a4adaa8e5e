"""The words of the messages that the reader and the checks share."""

from __future__ import annotations

from collections.abc import Iterable

from spfemu.program.values import shown

__all__ = ["listed", "no_nodes", "out_of_range"]


def out_of_range(key: str, value: object, allowed: str) -> str:
    """The message for a value that is not allowed. Source: ours."""
    return f"key '{key}': value {shown(value)} (allowed: {allowed})"


def no_nodes(mode: str) -> str:
    """The message for nodes that are given to a policy that has none. Source: ours."""
    return f"key 'nodes': mode {shown(mode)} has none (allowed: with bind, interleave, preferred)"


def listed(names: Iterable[object]) -> str:
    """Names as a list in a message. Source: ours."""
    return ", ".join(str(name) for name in names)
