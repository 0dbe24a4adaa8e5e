"""Strategies for what fills an empty address space to begin with."""

from __future__ import annotations

from hypothesis import strategies as st

from spfemu.testing.operations import flags_of
from spfemu.testing.vocabulary import At, Operation, Vocabulary, below, pick

__all__ = ["mappings"]

Draw = st.DrawFn


@st.composite
def _mappings(draw: Draw, words: Vocabulary) -> list[Operation]:
    page = words.page
    pages = words.window.below + words.window.above
    half = pages // 2
    cuts = pick(draw, ((), (), (half,), (3, half), (half + 1, pages - 2)))
    made: list[Operation] = []
    for number, (low, high) in enumerate(zip((0, *cuts), (*cuts, pages), strict=True)):
        sharing, file = pick(draw, words.backings)
        operation: Operation = {
            "op": "mmap",
            "length": (high - low) * page,
            "prot": pick(draw, (*(words.prots[0],) * 4 * len(words.prots), *words.prots)),
            "flags": [*flags_of(sharing, file), "fixed"],
            "addr": At(None, words.window_start + low * page),
        }
        if file is not None:
            operation |= {"file": file, "offset": low * page}
        elif sharing == "private" and low == 0 and not words.confined and draw(below(4)) == 3:
            _make_stack(operation, high // 2 * page)
        if words.ids:
            operation["id"] = words.ids[number % len(words.ids)]
        made.append(operation)
    if not words.confined and words.second.base < words.places.top.base and draw(below(2)):
        second = words.second
        made.append(
            {
                "op": "mmap",
                "length": max(2, second.below + second.above) * page,
                "flags": ["private", "anonymous", "fixed"],
                "addr": At(None, words.places.address(second, -second.below)),
            }
        )
    if not words.host and pick(draw, range(4)) == 3:
        made += _merging(draw, words)
    return made


def _merging(draw: Draw, words: Vocabulary) -> list[Operation]:
    """Makes pages equal and has KSM merge them; sometimes one moves away right after."""
    page = words.page
    first = pick(draw, (0, 0, words.window.below - 2))
    addr = At(None, words.window_start + first * page)
    pages = min(pick(draw, (4, 2, 16)), words.pages_left(addr))
    equal: Operation = {"addr": addr, "length": pages * page}
    made: list[Operation] = [
        {"op": "touch", **equal, "value": pick(draw, (1, 2))},
        {"op": "madvise", **equal, "advice": "mergeable"},
        {"op": "ksm_scan", **equal},
    ]
    if pick(draw, range(3)) == 2:
        move = {"old_length": page, "new_length": page, "flags": ["maymove", "fixed"]}
        made.append({"op": "mremap", "addr": addr, **move, "new_addr": pick(draw, words.addresses)})
    return made


def _make_stack(operation: Operation, room: int) -> None:
    """Makes a new mapping one that grows down, and leaves it so many bytes to grow into."""
    operation["flags"] = [*operation["flags"], "growsdown"]
    operation["addr"] = At(None, operation["addr"].offset + room)
    operation["length"] -= room


@st.composite
def _huge_mappings(draw: Draw, words: Vocabulary) -> list[Operation]:
    span = words.places.table_span
    operation: Operation = {
        "op": "mmap",
        "length": 2 * span,
        "prot": pick(draw, ("rw", "rw", "rw", "r")),
        "flags": ["private", "anonymous", "fixed"],
        "addr": At(None, words.window.base - span),
    }
    if pick(draw, range(4)) == 3:
        sharing = pick(draw, ("private", "private", "shared"))
        return [{**operation, "flags": [*flags_of(sharing, None), "fixed", "hugetlb"]}]
    range_ = {"addr": operation["addr"], "length": operation["length"]}
    advise = {"op": "madvise", **range_, "advice": "hugepage"}
    touch = {"op": "touch", "addr": At(None, words.window_start), "length": 4 * words.page}
    collapse = {"op": "collapse", "addr": At(None, words.window_start)}
    kinds: tuple[list[Operation], ...] = (
        [],
        [advise],
        [advise],
        [touch, advise, collapse],
    )
    return [operation, *pick(draw, kinds)]


def mappings(words: Vocabulary) -> st.SearchStrategy[list[Operation]]:
    """A strategy for what fills an empty address space to begin with.

    Source: ours. The mappings lie side by side in the window, so that what follows finds something,
    sometimes pages that KSM has merged; with ``huge``, it is one that two huge pages fit into,
    which meet in the middle of the window; sometimes one of them has been collapsed, and sometimes
    they are hugetlb's.
    """
    return _huge_mappings(words) if words.huge else _mappings(words)
