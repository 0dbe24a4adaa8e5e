"""Where a JSON text says a key twice: Python's reader knows that it does, and not where."""

from __future__ import annotations

import json
import re
from typing import Final

from spfemu.program.values import shown

__all__ = ["key_twice"]

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]')


def key_twice(text: str) -> str:
    """Returns the message for the first key that an object of a valid JSON text has twice.

    Source: ours. With the line and column of the second, from 1.

    >>> from spfemu.program.doubles import key_twice
    >>> key_twice('{"a": {"b": 1},\\n "a": 2}')
    'line 2 column 2: key "a" twice in one object'
    """
    # For each bracket that is open: the keys so far, None for a list.
    open_keys: list[set[str] | None] = []
    may_be_key = False
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark in "{[":
            open_keys.append(set() if mark == "{" else None)
        elif mark in "}]":
            open_keys.pop()
        elif mark.startswith('"') and may_be_key and open_keys and open_keys[-1] is not None:
            key = json.loads(mark)
            if key in open_keys[-1]:
                line = text.count("\n", 0, token.start()) + 1
                column = token.start() - text.rfind("\n", 0, token.start())
                return f"line {line} column {column}: key {shown(key)} twice in one object"
            open_keys[-1].add(key)
        may_be_key = mark in "{,"
    return "a key twice in one object"
