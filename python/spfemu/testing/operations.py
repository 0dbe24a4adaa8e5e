"""Strategies for single operations, as objects of the program format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypothesis import strategies as st

from spfemu.program.ops import POLICIES_WITHOUT_NODES
from spfemu.testing.vocabulary import At, Operation, Vocabulary, below, pick

__all__ = ["Maker", "flags_of", "makers", "plain_operations"]

Draw = st.DrawFn

_VALUES: Final = (1, 2, 3, 4, 5, 0, (1 << 64) - 1)
_ODD_BYTES: Final = (1, 8, 100)


def _odd(draw: Draw, addr: At) -> At:
    """The address a few bytes on, no more that of a page."""
    return At(addr.id, addr.offset + pick(draw, _ODD_BYTES))


def _length(draw: Draw, words: Vocabulary, addr: At) -> int:
    length, clipped, rest = pick(draw, words.lengths)
    if clipped:
        return min(length, words.pages_left(addr) * words.page)
    if rest and addr.id is None:
        return words.places.rest(addr.offset) or length
    return length


def _range(draw: Draw, words: Vocabulary) -> Operation:
    addr = pick(draw, words.addresses)
    length = _length(draw, words, addr)
    if pick(draw, _RANGE_QUIRKS) == "odd":
        addr = _odd(draw, addr)
    return {"addr": addr, "length": length}


_RANGE_QUIRKS: Final = (*("",) * 23, "odd")


# --- operations ----------------------------------------------------------------------------------


def _mmap(draw: Draw, words: Vocabulary) -> Operation:
    operation: Operation = {"op": "mmap", **_range(draw, words)}
    operation["prot"] = pick(draw, words.prots)
    sharing, file = pick(draw, words.backings)
    addr = operation["addr"]
    if file is not None:
        operation["file"] = file
        operation["offset"] = _offset(draw, words, addr)
    flags = flags_of(sharing, file)
    where = ("fixed",) if words.confined else pick(draw, _WHERE)
    if where == ("anywhere",):
        del operation["addr"]
    elif where != ("hint",):
        flags += where
    flags += pick(draw, _ODD_FLAGS[words.confined])
    if operation["length"] <= words.few_pages:
        flags += pick(draw, _POPULATING)
    if "neither" in flags:
        flags = [flag for flag in flags if flag not in ("neither", sharing)]
    operation["flags"] = list(dict.fromkeys(flags))
    if (name := pick(draw, words.defined)) is not None:
        operation["id"] = name
    return operation


_WHERE: Final[tuple[tuple[str, ...], ...]] = (
    *(("fixed",),) * 8,
    *(("anywhere",),) * 3,
    *(("hint",),) * 2,
    ("fixed_noreplace",),
    ("fixed", "fixed_noreplace"),
)
_ODD_FLAGS: Final[tuple[tuple[tuple[str, ...], ...], ...]] = (
    (
        *((),) * 24,
        *(("growsdown",),) * 3,
        *(("noreserve",), ("stack",), ("private", "shared"), ("neither",)),
    ),
    (*((),) * 24, ("noreserve",), ("stack",)),
)


_POPULATING: Final = (*((),) * 10, ("populate",), ("locked",))


def flags_of(sharing: str, file: str | None) -> list[str]:
    """Returns the flags of a mapping of a file, or of none. Source: ours."""
    return [sharing] if file is not None else [sharing, "anonymous"]


def _offset(draw: Draw, words: Vocabulary, addr: At) -> int:
    """An offset into a file, mostly one that lets neighbours in the window merge."""
    page = words.page
    choice = pick(draw, range(16))
    from_window = addr.offset - words.window_start
    if choice < 9 and addr.id is None and 0 <= from_window < 64 * page:
        return from_window // page * page
    if choice < 13 or words.confined:
        return choice % 5 * page
    return pick(draw, (1, page // 2, (1 << 63) - page, (1 << 64) - page))


def _mmap_hugetlb(draw: Draw, words: Vocabulary) -> Operation:
    """Mostly whole huge pages, of the file or of none."""
    page, span = words.page, words.places.table_span
    operation: Operation = {
        "op": "mmap",
        "addr": pick(draw, (*words.huge_starts * 5, *words.addresses[:2])),
        "length": pick(draw, (span, span, 2 * span, page, span + page, 0)),
        "prot": pick(draw, ("rw", "rw", "rw", *words.prots)),
    }
    file = pick(draw, (None, *words.hugetlb_files))
    flags = flags_of(pick(draw, ("private", "private", "shared")), file)
    if file is not None:
        operation |= {"file": file, "offset": pick(draw, (0, 0, 0, span, 2 * span, page))}
    if file is None or not draw(below(4)):
        flags.append("hugetlb")
    where = pick(draw, _WHERE)
    if where == ("anywhere",):
        del operation["addr"]
    elif where != ("hint",):
        flags += where
    if not draw(below(8)):
        flags.append("noreserve")
    operation["flags"] = flags
    if (name := pick(draw, words.defined)) is not None:
        operation["id"] = name
    return operation


def _munmap(draw: Draw, words: Vocabulary) -> Operation:
    return {"op": "munmap", **_range(draw, words)}


def _mprotect(draw: Draw, words: Vocabulary) -> Operation:
    return {"op": "mprotect", **_range(draw, words), "prot": pick(draw, words.prots)}


def _mremap(draw: Draw, words: Vocabulary) -> Operation:
    """Mostly a move, or a length that changes by little."""
    if words.confined:
        return _confined_mremap(draw, words)
    given = _range(draw, words)
    addr, old = given["addr"], given["length"]
    kind = pick(draw, _RESIZES)
    new = {"same": old, "page": words.page, "shrink": old - words.page}.get(kind)
    if new is None:
        new = _length(draw, words, addr) if kind == "any" else old + 4 * words.page
    # What is locked is brought in as it grows.
    if old + words.few_pages < new < words.places.arch.task_size:
        new = old + words.few_pages
    flags = pick(draw, _REMAPS)
    operation: Operation = {
        "op": "mremap",
        "addr": addr,
        "old_length": 0 if pick(draw, range(16)) == 15 else old,
        "new_length": max(0, min(new, (1 << 64) - 1)),
        "flags": list(flags),
    }
    if "fixed" in flags:
        operation["new_addr"] = pick(draw, words.addresses)
    if (name := pick(draw, words.defined)) is not None:
        operation["id"] = name
    return operation


def _confined_mremap(draw: Draw, words: Vocabulary) -> Operation:
    """Of single pages, for whether more are in one VMA hangs on neighbours; to a given place."""
    page, flags = words.page, pick(draw, ((), _MOVE_TO, _MOVE_TO))
    addr = pick(draw, words.addresses)
    operation: Operation = {"op": "mremap", "addr": addr, "old_length": page, "flags": list(flags)}
    target = addr
    if flags:
        target = operation["new_addr"] = pick(draw, words.addresses)
    most = min(words.pages_left(target), 4)
    return {**operation, "new_length": pick(draw, range(1, most + 1)) * page}


_MOVE_TO: Final = ("maymove", "fixed")
_RESIZES: Final = (*("same",) * 4, *("grow", "page", "any") * 2, "shrink")
_REMAPS: Final[tuple[tuple[str, ...], ...]] = (
    *(_MOVE_TO,) * 6,
    *(("maymove",),) * 3,
    *((),) * 3,
    ("fixed",),
    ("maymove", "dontunmap"),
)


def _madvise(draw: Draw, words: Vocabulary) -> Operation:
    advices = words.advices
    if words.host:  # what they come to depends on the host's swap, and on its ksmd
        advices = tuple(advice for advice in advices if advice not in _OF_THE_HOST)
    advice = pick(draw, advices)
    given = _few_pages(draw, words) if advice.startswith("populate") else _range(draw, words)
    return {"op": "madvise", **given, "advice": advice}


_OF_THE_HOST: Final = ("pageout", "mergeable", "unmergeable")


def _few_pages(draw: Draw, words: Vocabulary) -> Operation:
    """A range short enough that all its pages may be brought in."""
    given = _range(draw, words)
    return {**given, "length": min(given["length"], words.few_pages)}


def _mlock(draw: Draw, words: Vocabulary) -> Operation:
    operation: Operation = {"op": pick(draw, ("mlock", "mlock", "munlock"))}
    operation |= _few_pages(draw, words)
    addr = operation["addr"]
    if words.confined:  # it takes all pages that the bytes lie in, and one may be another's
        operation["addr"] = At(addr.id, addr.offset // words.page * words.page)
    if operation["op"] == "mlock" and pick(draw, range(4)) == 3:
        operation["onfault"] = True
    return operation


def _policy(draw: Draw) -> Operation:
    """Mostly one that is interleaved; sometimes with nodes that there are not."""
    operation: Operation = {"mode": pick(draw, _POLICIES)}
    nodes = pick(draw, _NODES)
    if nodes is not None and operation["mode"] not in POLICIES_WITHOUT_NODES:
        operation["nodes"] = nodes
    return operation


_POLICIES: Final = ("default", *("interleave",) * 3, *("bind",) * 2, "preferred", "local")
_NODES: Final[tuple[list[int] | None, ...]] = (*(None,) * 4, [1], [1], [0, 1], [0, 5], [5], [])


def _mbind(draw: Draw, words: Vocabulary) -> Operation:
    # A long range would meet the page that the engine kernel has in each process.
    given = _few_pages(draw, words) if words.host else _range(draw, words)
    return {"op": "mbind", **given, **_policy(draw)}


def _set_mempolicy(draw: Draw, words: Vocabulary) -> Operation:
    return {"op": "set_mempolicy", **_policy(draw)}


def _rebind(draw: Draw, words: Vocabulary) -> Operation:
    return {"op": "rebind", "nodes": pick(draw, ([0], [0], [1], [1], [0, 1], [0, 1], [0, 5], []))}


def _numa_scan(draw: Draw, words: Vocabulary) -> Operation:
    return {"op": "numa_scan", **_range(draw, words)}


def _ksm_scan(draw: Draw, words: Vocabulary) -> Operation:
    return {"op": "ksm_scan", **_range(draw, words)}


def _swap_out(draw: Draw, words: Vocabulary) -> Operation:
    operation: Operation = {"op": "swap_out", **_range(draw, words)}
    if pick(draw, _KEEPS):
        operation["keep_cache"] = True
    return operation


def _migrate(draw: Draw, words: Vocabulary) -> Operation:
    return {"op": "migrate", **_range(draw, words), "node": pick(draw, (0, 1, 1))}


def _truncate(draw: Draw, words: Vocabulary) -> Operation:
    length = pick(draw, _FILE_PAGES) * words.page + pick(draw, _PARTS_OF_A_PAGE)
    if pick(draw, range(32)) == 31:
        length = 1 << 63
    return {"op": "truncate", "file": pick(draw, words.truncated), "length": length}


def _clear_refs(draw: Draw, words: Vocabulary) -> Operation:
    return {"op": "clear_refs", "what": pick(draw, (4, 4, 4, 1, 1, 2, 3, 5, 0))}


def _oom_reap(draw: Draw, words: Vocabulary) -> Operation:
    return {"op": "oom_reap"}


def _notifier(draw: Draw, words: Vocabulary) -> Operation:
    return {"op": "notifier", "on": pick(draw, (True, True, False))}


_FILE_PAGES: Final = (0, 1, 2, 3, 4, 5, 8, 12, 16, 20, 70)
_PARTS_OF_A_PAGE: Final = (*(0,) * 12, 100, 100, *range(1, 10))


_KEEPS: Final = (False, False, True)


def _uffd(draw: Draw, words: Vocabulary) -> Operation:
    name = pick(draw, ("uffd_register", "uffd_register", "uffd_unregister"))
    return {"op": name, **_range(draw, words)}


def _access(draw: Draw, words: Vocabulary) -> tuple[At, Operation]:
    """Where an access goes, and the keys that say how."""
    addr = pick(draw, words.accessed)
    quirk = pick(draw, _ACCESS_QUIRKS)
    if quirk == "odd":
        addr = _odd(draw, addr)
    return addr, {"mode": "kernel"} if quirk == "kernel" else {}


_ACCESS_QUIRKS: Final = (*("",) * 17, "odd", "kernel", "kernel")


def _read(draw: Draw, words: Vocabulary) -> Operation:
    addr, how = _access(draw, words)
    return {"op": "read", "addr": addr, **how}


def _write(draw: Draw, words: Vocabulary) -> Operation:
    addr, how = _access(draw, words)
    return {"op": "write", "addr": addr, "value": pick(draw, _VALUES), **how}


def _execute(draw: Draw, words: Vocabulary) -> Operation:
    addr, how = _access(draw, words)
    return {"op": "execute", "addr": addr, **({} if words.host else how)}


def _touch(draw: Draw, words: Vocabulary) -> Operation:
    """At most 16 accesses; few when they execute, for each may fault a thousand times."""
    page = words.page
    addr, how = _access(draw, words)
    access = pick(draw, _TOUCHES if words.executing else _TOUCHES[:-1])
    most = 2 if access == "execute" else 16
    quirk = "" if words.confined else pick(draw, _TOUCH_QUIRKS)
    if quirk != "beyond":
        most = min(most, words.pages_left(addr))
    stride = pick(draw, words.strides) if quirk == "stride" else page
    length = (1 + draw(below(most))) * stride - (quirk == "shorter")
    operation = {"op": "touch", "addr": addr, "length": min(length, (1 << 64) - 1)}
    if stride != page:
        operation["stride"] = stride
    if access == "write":
        operation["value"] = pick(draw, _VALUES)
    else:
        operation["access"] = access
    order = pick(draw, ("forward", "forward", "backward", "random"))
    if order != "forward":
        operation["order"] = order
    if order == "random":
        operation["seed"] = draw(below(100))
    return {**operation, **({} if words.host and access == "execute" else how)}


_TOUCHES: Final = (*("write",) * 4, *("read",) * 3, "execute")
_TOUCH_QUIRKS: Final = (*("",) * 12, "beyond", "beyond", "stride", "shorter")


def _collapse(draw: Draw, words: Vocabulary) -> Operation:
    return {"op": "collapse", "addr": pick(draw, words.accessed)}


def _brk(draw: Draw, words: Vocabulary) -> Operation:
    pages = pick(draw, (1, 2, 4, 8, 0, -1, -2, -4))
    operation: Operation = {"op": "brk", "delta": pages * words.page + pick(draw, _BRK_BYTES)}
    if (start := pick(draw, words.heaps)) is not None:
        operation["start"] = hex(start)
    if (name := pick(draw, words.defined)) is not None:
        operation["id"] = name
    return operation


_BRK_BYTES: Final = (0, 0, 0, 0, 100, 8, -1)


def _sysctl(draw: Draw, words: Vocabulary) -> Operation:
    name, value = pick(draw, _SYSCTLS if words.limits else _SYSCTLS[:6])
    return {"op": "sysctl", "name": name, "value": value}


_SYSCTLS: Final = (
    *(("vm.speculative_page_fault", value) for value in (0, 1, 1, -1)),
    *(("vm.page-cluster", value) for value in (0, 31)),
    *(("vm.max_map_count", value) for value in (2, 4, 6, 65530, 65530, 0, -1, 1 << 31)),
)


def _idle(draw: Draw, words: Vocabulary) -> Operation:
    name = pick(draw, ("note", "compute", "sleep"))
    return {"op": name, "text": "here"} if name == "note" else {"op": name, "ns": 10}


Maker = Callable[[Draw, Vocabulary], Operation]
"""Draws one operation."""

_MAKERS: Final[tuple[Maker, ...]] = (
    *(_read,) * 4,
    *(_write,) * 5,
    *(_mmap,) * 8,
    *(_touch,) * 8,
    *(_munmap,) * 2,
    *(_mremap,) * 3,
    *(_mprotect,) * 6,
    *(_madvise,) * 5,
    *(_mbind,) * 3,
    _set_mempolicy,
    *(_numa_scan,) * 3,
    *(_ksm_scan,) * 3,
    *(_swap_out,) * 4,
    *(_mlock,) * 2,
    *(_migrate,) * 2,
    *(_execute,) * 2,
    *(_brk,) * 3,
    _sysctl,
    _idle,
    _rebind,
    *(_collapse,) * 2,
    *(_uffd,) * 2,
    *(_mmap_hugetlb,) * 4,
    *(_truncate,) * 2,
    *(_clear_refs,) * 2,
    _oom_reap,
    _notifier,
)


def makers(words: Vocabulary) -> tuple[Maker, ...]:
    """Returns what draws operations that start and end no task, each as often as it should.

    Source: ours.
    """
    left_out: set[Maker] = set()
    if not words.heap:
        left_out.add(_brk)
    if not words.executing:
        left_out.add(_execute)
    if not words.huge:
        left_out |= {_collapse, _mmap_hugetlb}
    if words.confined:  # the error depends on what others have mapped above; it takes all of them
        left_out |= {_uffd, _oom_reap, _notifier}
        if not words.sharing:  # a child has the same file
            left_out.add(_truncate)
    if not words.truncated:
        left_out.add(_truncate)
    if words.host:  # what the kernel does by itself, or to all
        left_out |= {
            _clear_refs,
            _oom_reap,
            _notifier,
            _sysctl,
            _swap_out,
            _migrate,
            _uffd,
            _numa_scan,
            _rebind,
            _ksm_scan,
        }
    return tuple(maker for maker in _MAKERS if maker not in left_out)


@st.composite
def plain_operations(draw: Draw, words: Vocabulary) -> Operation:
    """A strategy for the operations that start and end no task. Source: ours."""
    return pick(draw, makers(words))(draw, words)
