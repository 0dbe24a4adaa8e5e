"""Reads what ``strace -f -ttt`` prints: a call on one line, or its beginning and its end on two."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from spfemu.importers.events import (
    CLONE_VFORK,
    CLONE_VM,
    Ended,
    Enter,
    Event,
    Exit,
    Skipped,
)
from spfemu.importers.lines import LineReader

__all__ = ["LINE", "read_strace"]

LINE: Final = re.compile(r"(?:\[pid\s+)?(\d+)\]?\s+(\d+)\.(\d{1,9})\s+(.*)", re.ASCII)
_CALL: Final = re.compile(r"(\w+)\((.*)$")
_RESUMED: Final = re.compile(r"<\.\.\. (\w+) resumed>(.*)$")
_RESULT: Final = re.compile(r"(.*)\)\s+= (0x[0-9a-f]+|-?\d+|\?)(?: (E[A-Z0-9]+))?")
_FLAGS: Final = re.compile(r"\bflags=([\w|]+)")
_TOOK: Final = re.compile(r" <(\d+)\.(\d+)>$")
_UNFINISHED: Final = "<unfinished ...>"

_NAMES: Final = {
    "mmap": ("addr", "len", "prot", "flags", "fd", "off"),
    "munmap": ("addr", "len"),
    "mprotect": ("start", "len", "prot"),
    "pkey_mprotect": ("start", "len", "prot", "pkey"),
    "madvise": ("start", "len_in", "behavior"),
    "mremap": ("addr", "old_len", "new_len", "flags", "new_addr"),
    "brk": ("brk",),
    "mlock": ("start", "len"),
    "mlock2": ("start", "len", "flags"),
    "munlock": ("start", "len"),
    "wait4": ("upid", "stat_addr", "options", "ru"),
}
"""The kernel's names of the arguments, as perf prints them."""

_SYMBOLS: Final = {
    "NULL": 0,
    "PROT_NONE": 0, "PROT_READ": 1, "PROT_WRITE": 2, "PROT_EXEC": 4,
    "PROT_GROWSDOWN": 0x1000000, "PROT_GROWSUP": 0x2000000,
    "MAP_SHARED": 1, "MAP_PRIVATE": 2, "MAP_SHARED_VALIDATE": 3, "MAP_FIXED": 0x10,
    "MAP_ANONYMOUS": 0x20, "MAP_GROWSDOWN": 0x100, "MAP_DENYWRITE": 0x800,
    "MAP_EXECUTABLE": 0x1000, "MAP_LOCKED": 0x2000, "MAP_NORESERVE": 0x4000,
    "MAP_POPULATE": 0x8000, "MAP_NONBLOCK": 0x10000, "MAP_STACK": 0x20000,
    "MAP_HUGETLB": 0x40000, "MAP_SYNC": 0x80000, "MAP_FIXED_NOREPLACE": 0x100000,
    "MREMAP_MAYMOVE": 1, "MREMAP_FIXED": 2, "MREMAP_DONTUNMAP": 4,
    "MADV_NORMAL": 0, "MADV_RANDOM": 1, "MADV_SEQUENTIAL": 2, "MADV_WILLNEED": 3,
    "MADV_DONTNEED": 4, "MADV_FREE": 8, "MADV_REMOVE": 9, "MADV_DONTFORK": 10,
    "MADV_DOFORK": 11, "MADV_MERGEABLE": 12, "MADV_UNMERGEABLE": 13, "MADV_HUGEPAGE": 14,
    "MADV_NOHUGEPAGE": 15, "MADV_DONTDUMP": 16, "MADV_DODUMP": 17, "MADV_WIPEONFORK": 18,
    "MADV_KEEPONFORK": 19, "MADV_COLD": 20, "MADV_PAGEOUT": 21, "MADV_POPULATE_READ": 22,
    "MADV_POPULATE_WRITE": 23, "MADV_DONTNEED_LOCKED": 24, "MADV_COLLAPSE": 25,
    "CLONE_VM": 0x100, "CLONE_VFORK": 0x4000, "CLONE_THREAD": 0x10000,
}  # fmt: skip
_ERRNOS: Final = {"EPERM": 1, "ENOENT": 2, "EAGAIN": 11, "ENOMEM": 12, "EACCES": 13, "EINVAL": 22}


def read_strace(reader: LineReader) -> Iterator[Event]:
    """Reads strace text: the beginning and the end of each call, signals, and the end of tasks.

    A call on one line gives an ``Enter`` and an early ``Exit`` of the same time (``-T`` tells how
    long it took). Needs ``-f`` and ``-ttt``. Source: strace's output. Raises TraceError for a line
    that is none.
    """
    for line in reader:
        text = line.rstrip()
        if not text or text.startswith(("#", "strace: ")):
            continue
        found = LINE.match(text)
        if found is None:
            raise reader.error(
                f"is not a line of strace -f -ttt (a task, a time, a call): {text[:80]!r}"
            )
        tid, seconds, fraction, rest = found.groups()
        time = int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0"))
        yield from _events(reader, (time, int(tid), -1, -1, ""), rest)


def _events(reader: LineReader, head: tuple[int, int, int, int, str], text: str) -> Iterator[Event]:
    if text.startswith("+++"):
        yield Ended(*head, child=head[1])
        return
    if text.startswith("---"):
        yield Skipped(*head, kind=f"signal {text[4:].split(None, 1)[0]}")
        return
    took = _TOOK.search(text)
    if took is not None:
        text = text[: took.start()]
    if (resumed := _RESUMED.match(text)) is not None:
        name, rest = resumed.groups()
        result = _result(reader, name, rest)[1]
        if result is not None:
            yield Exit(*head, name=name, result=result)
        return
    call = _CALL.match(text)
    if call is None:
        raise reader.error(f"broken line: neither a call nor its end: {text[:80]!r}")
    name, rest = call.groups()
    if rest.endswith(_UNFINISHED):
        yield Enter(*head, name=name, args=_arguments(name, rest[: -len(_UNFINISHED)]))
        return
    inside, result = _result(reader, name, rest)
    yield Enter(*head, name=name, args=_arguments(name, inside))
    if result is not None:
        nanoseconds = int(took[1]) * 10**9 + int(took[2].ljust(9, "0")) if took else 0
        yield Exit(head[0] + nanoseconds, *head[1:], name=name, result=result, early=not took)


def _result(reader: LineReader, name: str, text: str) -> tuple[str, int | None]:
    """Returns the arguments' text and the result (None: the call never returned). Source: ours."""
    found = _RESULT.match(text)
    if found is None:
        raise reader.error(f"broken line: {name} without its result: {text[:80]!r}")
    inside, result, errno = found.groups()
    if result == "?":
        return inside, None
    return inside, -_ERRNOS.get(errno, 1) if errno else int(result, 0)


def _arguments(name: str, text: str) -> dict[str, int]:
    if name in ("clone", "clone3"):
        flags = _FLAGS.search(text)
        return {"clone_flags": _number(flags[1]) or 0} if flags else {}
    if name == "vfork":
        return {"clone_flags": CLONE_VM | CLONE_VFORK}
    if name == "fork":
        return {"clone_flags": 0}
    names = _NAMES.get(name)
    if names is None:
        return {}
    args: dict[str, int] = {}
    for key, value in zip(names, text.split(", "), strict=False):
        number = _number(value)
        if number is not None:
            args[key] = number
    return args


def _number(text: str) -> int | None:
    """Returns the value of ``0x10``, ``PROT_READ|PROT_WRITE`` or ``3</some/path>``; None for
    anything else. Source: ours.
    """
    total = 0
    for part in text.partition("<")[0].partition(" /*")[0].strip().split("|"):
        if part in _SYMBOLS:
            total |= _SYMBOLS[part]
            continue
        try:
            total |= int(part, 8 if part.startswith("0") and part.isdigit() else 0)
        except ValueError:
            if not part.startswith(("MAP_", "PROT_", "MADV_", "CLONE_", "MREMAP_")):
                return None
    return total
