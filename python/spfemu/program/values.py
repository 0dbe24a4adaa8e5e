"""Reading and writing of single values: integers with suffixes, addresses, protections."""

from __future__ import annotations

import json
import re
from typing import Any, Final

__all__ = [
    "ID_PATTERN",
    "format_address",
    "parse_address",
    "parse_int",
    "parse_prot",
    "prot_text",
    "shown",
    "to_i64",
]

_NUMBER: Final = r"0[xX][0-9a-fA-F]+|[0-9]+[KMGT]?"
_INT: Final = re.compile(rf"(-?)({_NUMBER})\Z")
_ADDRESS: Final = re.compile(rf"([A-Za-z_][A-Za-z0-9_.]*)(?:([+-])({_NUMBER}))?\Z")
ID_PATTERN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
_SUFFIX: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_PROT_BITS: Final = {"r": 1, "w": 2, "x": 4}

NUMBER_ALLOWED: Final = 'a whole number, or a string as "4096", "0x1000", "512K", "2M", "1G"'


def shown(value: object) -> str:
    """Returns a value as it goes into a message: JSON, on one line, cut at 60 characters.

    Source: ours.
    """
    try:
        text = json.dumps(value, ensure_ascii=True)
    except (TypeError, ValueError):
        text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _magnitude(text: str) -> int:
    if text[:2] in ("0x", "0X"):
        return int(text, 16)
    if text[-1] in _SUFFIX:
        return int(text[:-1]) * _SUFFIX[text[-1]]
    return int(text)


def parse_int(value: Any) -> int:
    """Returns the integer of a JSON number or of a string such as ``"0x1000"`` or ``"512K"``.

    Source: the program format (binary suffixes). Raises ValueError, with what is allowed, for
    anything else.

    >>> from spfemu.program.values import parse_int
    >>> parse_int("2M"), parse_int("-0x10"), parse_int(7)
    (2097152, -16, 7)
    """
    if type(value) is int:
        return value
    if isinstance(value, str) and len(value) < 64:
        match = _INT.match(value)
        if match is not None:
            number = _magnitude(match[2])
            return -number if match[1] else number
    raise ValueError(NUMBER_ALLOWED)


def parse_address(value: Any) -> tuple[str | None, int]:
    """Returns (id, offset) for ``"id+0x2000"`` and (None, address) for a number.

    Source: the program format. Raises ValueError, with what is allowed, for anything else; a
    negative address is one.

    >>> from spfemu.program.values import parse_address
    >>> parse_address("p+0x1000"), parse_address("64K")
    (('p', 4096), (None, 65536))
    """
    if isinstance(value, str) and len(value) < 256:
        match = _ADDRESS.match(value)
        if match is not None:
            offset = _magnitude(match[3]) if match[3] else 0
            if offset >= 1 << 63:
                raise ValueError("an offset below 2^63")
            return match[1], -offset if match[2] == "-" else offset
    try:
        number = parse_int(value)
    except ValueError:
        raise ValueError('an address from 0 to 2^64-1, or "id", "id+0x2000", "id-4096"') from None
    if not 0 <= number < 1 << 64:
        raise ValueError("an address from 0 to 2^64-1")
    return None, number


def to_i64(value: int) -> int:
    """Returns the signed 64-bit number with the same bits.

    Source: ours (the array form's ``addr`` is signed).
    """
    return value - (1 << 64) if value >= 1 << 63 else value


def format_address(name: str | None, offset: int) -> str | int:
    """Returns the JSON form of an address; the inverse of ``parse_address``.

    Source: the program format.
    """
    if name is None:
        return f"{offset & ((1 << 64) - 1):#x}"
    if offset == 0:
        return name
    return f"{name}{'-' if offset < 0 else '+'}{abs(offset):#x}"


def parse_prot(value: Any) -> int:
    """Returns the protection bits (r 1, w 2, x 4) of letters of "rwx" or of "none".

    Source: the program format. Raises ValueError, with what is allowed, for anything else.
    """
    if value == "none":
        return 0
    if (
        isinstance(value, str)
        and value
        and set(value) <= set("rwx")
        and len(set(value)) == len(value)
    ):
        return sum(_PROT_BITS[letter] for letter in value)
    raise ValueError('letters of "rwx", or "none"')


def prot_text(prot: int) -> str:
    """Returns the letters of protection bits; the inverse of ``parse_prot``.

    Source: the program format.
    """
    return "".join(letter for letter, bit in _PROT_BITS.items() if prot & bit) or "none"
