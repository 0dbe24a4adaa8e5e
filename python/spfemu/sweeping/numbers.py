"""Lists of CPU numbers as people write them: ``1,2,4..1024``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NoReturn

from spfemu.errors import EngineError
from spfemu.program.values import shown

__all__ = ["cpu_numbers", "doubling"]


def cpu_numbers(given: str | int | Sequence[int], most: int, what: str) -> tuple[int, ...]:
    """Returns the CPU numbers that a text or a list names, ascending, each once.

    Source: ours. ``most`` is the largest allowed, and ``what`` has so many. Numbers of a text are
    separated by commas. ``A..B`` after another number goes on up to B as that number and A began:
    by their ratio where it is whole, else by their difference; first in the list it is each number
    from A to B. Raises EngineError with what is allowed.

    >>> from spfemu.sweeping.numbers import cpu_numbers
    >>> cpu_numbers("1,2,4..48,48", 48, "x86-48")
    (1, 2, 4, 8, 16, 32, 48)
    >>> cpu_numbers("1..4", 48, "x86-48"), cpu_numbers("8,12..24", 48, "x86-48")
    ((1, 2, 3, 4), (8, 12, 16, 20, 24))
    """
    reader = _Reader(most, what)
    if isinstance(given, str):
        numbers = reader.text(given)
    elif isinstance(given, int) and not isinstance(given, bool):
        numbers = [reader.checked(given)]
    elif isinstance(given, Sequence):
        numbers = [reader.checked(number) for number in given]
    else:
        reader.fail(given)
    if not numbers:
        reader.fail(given)
    return tuple(sorted(set(numbers)))


def doubling(most: int) -> tuple[int, ...]:
    """Returns the powers of two below a number, and that number. Source: ours.

    >>> from spfemu.sweeping.numbers import doubling
    >>> doubling(48)
    (1, 2, 4, 8, 16, 32, 48)
    """
    return (*itertools.takewhile(lambda number: number < most, _powers()), most)


def _powers() -> Iterator[int]:
    return (1 << exponent for exponent in itertools.count())


class _Reader:
    """Reads numbers within a range, and says which are refused."""

    def __init__(self, most: int, what: str) -> None:
        self.most = most
        self.what = what

    def fail(self, value: object, allowed: str = "") -> NoReturn:
        allowed = allowed or f"1 to {self.most}, what {self.what} has"
        raise EngineError(f"cpus: value {shown(value)} (allowed: {allowed})")

    def checked(self, number: object) -> int:
        if type(number) is not int or not 1 <= number <= self.most:
            self.fail(number)
        return number

    def text(self, text: str) -> list[int]:
        numbers: list[int] = []
        for item in text.split(","):
            first, dots, last = item.strip().partition("..")
            numbers.append(self._number(first, text))
            if dots:
                numbers += self._range(numbers[-2:], self._number(last, text), item)
        return numbers

    def _number(self, digits: str, text: str) -> int:
        if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
            self.fail(digits or text, "numbers, as in 1,2,4..32 or 1..8")
        return self.checked(int(digits))

    def _range(self, begun: list[int], last: int, item: str) -> Iterator[int]:
        """Yields what comes after the one or two numbers that were read last."""
        step, ratio, here = begun[-1] - begun[0] if len(begun) > 1 else 1, 1, begun[-1]
        if step < 1 or last < here:
            self.fail(item, "ascending numbers")
        if len(begun) > 1 and here % begun[0] == 0:
            ratio, step = here // begun[0], 0
        while (here := here * ratio + step) <= last:
            yield here
