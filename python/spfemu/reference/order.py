"""The order in which `touch` visits its addresses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_MASK = (1 << 64) - 1


def touch_order(order: int, count: int, seed: int) -> Sequence[int]:
    """Positions 0 to count - 1: forward (0), backward (1), or shuffled by `seed` (2).

    **Source:** ours. The shuffle is Fisher and Yates', from the last position down, drawing from
    splitmix64 and taking the remainder.
    """
    if order == 0:
        return range(count)
    if order == 1:
        return range(count - 1, -1, -1)
    positions = list(range(count))
    draws = splitmix64(seed)
    for last in range(count - 1, 0, -1):
        other = next(draws) % (last + 1)
        positions[last], positions[other] = positions[other], positions[last]
    return positions


def splitmix64(seed: int) -> Iterator[int]:
    """An endless row of 64-bit numbers. **Source:** Steele, Lea and Flood, OOPSLA 2014."""
    state = seed
    while True:
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
        yield z ^ (z >> 31)
