"""The ``expect`` object of an operation: which keys there are, and what they may hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from spfemu.program.ops import EVENTS
from spfemu.program.values import parse_address, parse_int, shown

__all__ = ["ERRNOS", "HANDLED", "SIGNALS", "SI_CODES", "check_expect", "normal_expect"]

ERRNOS: Final = {
    "EPERM": 1, "ENOENT": 2, "EINTR": 4, "EIO": 5, "ENXIO": 6, "E2BIG": 7, "EBADF": 9,
    "EAGAIN": 11, "ENOMEM": 12, "EACCES": 13, "EFAULT": 14, "EBUSY": 16, "EEXIST": 17,
    "ENODEV": 19, "EINVAL": 22, "ENFILE": 23, "ETXTBSY": 26,
    "ENOSPC": 28, "ENOSYS": 38, "EOVERFLOW": 75, "EOPNOTSUPP": 95,
}  # fmt: skip
SIGNALS: Final = {"SIGBUS": 7, "SIGKILL": 9, "SIGSEGV": 11}
SI_CODES: Final = {
    "SIGSEGV": {
        "SEGV_MAPERR": 1,
        "SEGV_ACCERR": 2,
        "SEGV_BNDERR": 3,
        "SEGV_PKUERR": 4,
        "SI_KERNEL": 128,
    },
    "SIGBUS": {"BUS_ADRALN": 1, "BUS_ADRERR": 2},
}
HANDLED: Final = ("none", "spf", "classic")

_KEYS: Final = (
    "ret",
    "errno",
    "value",
    "signal",
    "si_code",
    "handled",
    "counters",
    "livelock",
    "maps_lines",
)
_MAPS_LINE: Final = re.compile(r"(\S+)\.\.(\S+) +[r-][w-][x-][ps] +(\S+)\Z")
_ALL_SI_CODES: Final = tuple(code for codes in SI_CODES.values() for code in codes)


def normal_expect(expect: Any) -> dict[str, Any]:
    """Returns an ``expect`` object with its integers as integers.

    Source: the program format, "Expectations". Raises ValueError with the rest of the message.
    """
    if not isinstance(expect, dict):
        raise ValueError(f"value {shown(expect)} (allowed: an object)")
    normal: dict[str, Any] = {}
    for key, value in expect.items():
        if key in ("ret", "value"):
            normal[key] = _integer(key, value)
        elif key == "counters" and isinstance(value, dict):
            normal[key] = {name: _integer(name, count) for name, count in value.items()}
        else:
            normal[key] = value
    return normal


def _integer(key: str, value: Any) -> int:
    try:
        return parse_int(value)
    except ValueError as error:
        raise ValueError(f"key '{key}': value {shown(value)} (allowed: {error})") from None


def _one_of(key: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise ValueError(f"key '{key}': value {shown(value)} (allowed: {', '.join(allowed)})")


def check_expect(expect: Mapping[str, Any], op: str) -> None:
    """Checks a normalised ``expect`` object of an operation named ``op``.

    Source: the program format, "Expectations". Raises ValueError with the rest of the message.
    """
    for key, value in expect.items():
        if key not in _KEYS:
            raise ValueError(f"key '{key}': unknown (allowed: {', '.join(_KEYS)})")
        if key == "errno":
            _one_of(key, value, tuple(ERRNOS))
        elif key == "signal":
            _one_of(key, value, tuple(SIGNALS))
        elif key == "si_code":
            _one_of(key, value, _ALL_SI_CODES)
        elif key == "handled":
            if op == "touch":
                raise ValueError("key 'handled': not for touch (allowed: counters)")
            _one_of(key, value, HANDLED)
        elif key == "counters":
            _check_counters(value)
        elif key == "livelock" and not isinstance(value, bool):
            raise ValueError(f"key 'livelock': value {shown(value)} (allowed: true, false)")
        elif key == "maps_lines":
            _check_maps_lines(value, op)


def _check_counters(value: Any) -> None:
    if not isinstance(value, dict):
        raise ValueError(
            f"key 'counters': value {shown(value)} (allowed: an object of event names and counts)"
        )
    for name in value:
        if name not in EVENTS:
            raise ValueError(
                f"key 'counters': unknown event {shown(name)} (allowed: {', '.join(EVENTS)})"
            )


def _check_maps_lines(value: Any, op: str) -> None:
    if op != "note":
        raise ValueError("key 'maps_lines': only a note has it")
    if not isinstance(value, list):
        raise ValueError(f"key 'maps_lines': value {shown(value)} (allowed: a list of lines)")
    for line in value:
        if not isinstance(line, str) or not _is_maps_line(line):
            raise ValueError(
                f"key 'maps_lines': value {shown(line)} "
                '(allowed: "start..end perms offset", as "p..p+0x4000 rw-p 0")'
            )


def _is_maps_line(line: str) -> bool:
    match = _MAPS_LINE.match(line)
    if match is None:
        return False
    start, end, offset = match.groups()
    try:
        parse_address(start)
        parse_address(end)
        return parse_int(offset) >= 0
    except ValueError:
        return False
