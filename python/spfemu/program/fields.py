"""Fields of a JSON object: each is what it must be, or an error that names its place."""

from __future__ import annotations

from typing import Any, NoReturn

from spfemu.errors import ProgramError
from spfemu.program.messages import out_of_range
from spfemu.program.values import parse_int, shown

__all__ = ["Fields", "quoted"]


class Fields:
    """What a reader of one file needs; ``place`` in the methods is where we are, for messages.

    Source: ours.
    """

    def __init__(self, source: str) -> None:
        self.source = source

    def fail(self, place: str, message: str) -> NoReturn:
        """Raises ProgramError with the source and the place. Source: ours."""
        where = f"{self.source}: {place}: " if place else f"{self.source}: "
        raise ProgramError(where + message)

    def object(self, place: str, value: Any, keys: tuple[str, ...]) -> dict[str, Any]:
        """Returns an object of ``keys``. Source: ours."""
        if not isinstance(value, dict):
            self.fail(place, f"value {shown(value)} (allowed: an object)")
        for key in value:
            if key not in keys:
                self.fail(place, f"key {quoted(key)}: unknown (allowed: {', '.join(keys)})")
        return value

    def integer(self, place: str, key: str, value: Any, low: int, high: int) -> int:
        """Returns a number of ``low`` to ``high``. Source: ours."""
        try:
            number = parse_int(value)
        except ValueError as error:
            self.fail(place, out_of_range(key, value, str(error)))
        if not low <= number <= high:
            self.fail(place, out_of_range(key, value, _range_text(low, high)))
        return number

    def boolean(self, place: str, key: str, value: Any) -> bool:
        """Returns true or false. Source: ours."""
        if not isinstance(value, bool):
            self.fail(place, out_of_range(key, value, "true, false"))
        return value

    def choice(self, place: str, key: str, value: Any, choices: tuple[str, ...]) -> str:
        """Returns one of ``choices``. Source: ours."""
        if not isinstance(value, str) or value not in choices:
            self.fail(place, out_of_range(key, value, ", ".join(choices)))
        return value


def quoted(key: object) -> str:
    """Returns a key as messages name it. Source: ours."""
    return "'" + shown(key).strip('"') + "'"


def _range_text(low: int, high: int) -> str:
    if high == (1 << 64) - 1:
        return f"{low} to 2^64-1"
    if high == (1 << 63) - 1:
        return f"{'-2^63+1' if low < 0 else low} to 2^63-1"
    return f"{low} to {high}"
