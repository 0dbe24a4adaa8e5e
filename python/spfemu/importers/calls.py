"""System calls on memory: from what was called and returned to operations with the same effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from spfemu.importers.events import Call
from spfemu.importers.state import Area, TaskState, page_up
from spfemu.importers.tape import CODE
from spfemu.importers.writer import Writer
from spfemu.program.ops import ADVICES, GIVEN, MMAP_FLAGS

__all__ = ["CALLS", "Handler", "map_area"]

Handler = Callable[[Writer, TaskState, Call], None]

# x86 numbers of what mmap is given.
_TYPE: Final = 0x03
_PRIVATE: Final = 0x02
_ANONYMOUS: Final = 0x20
_FLAGS: Final = {
    0x100: "growsdown",
    0x2000: "locked",
    0x4000: "noreserve",
    0x8000: "populate",
    0x20000: "stack",
    0x40000: "hugetlb",
}
_LEFT_OUT: Final = "hugetlb"
"""Its addresses and lengths are multiples of the recording machine's huge pages."""

_ADVICE: Final = {
    0: "normal", 1: "random", 2: "sequential", 3: "willneed", 4: "dontneed", 8: "free",
    9: "remove", 10: "dontfork", 11: "dofork", 12: "mergeable", 13: "unmergeable",
    14: "hugepage", 15: "nohugepage", 16: "dontdump", 17: "dodump", 18: "wipeonfork",
    19: "keeponfork", 20: "cold", 21: "pageout", 22: "populate_read", 23: "populate_write",
    24: "dontneed", 25: "collapse",
}  # fmt: skip


def map_area(
    writer: Writer, task: TaskState, start: int, length: int, area: Area, extra_flags: int = 0
) -> None:
    """Appends an mmap fixed at its recorded address, and enters it in the importer's own map.

    ``extra_flags`` go beside private or shared, anonymous and fixed. Source: ours.
    """
    end = start + page_up(length)
    flags = MMAP_FLAGS["shared" if area.shared else "private"] | MMAP_FLAGS["fixed"] | GIVEN
    offset = 0
    if area.file:
        offset = start + area.origin
        writer.file(writer.file_name(area.file), offset + end - start)
    else:
        flags |= MMAP_FLAGS["anonymous"]
    mark = writer.append(
        task, CODE["mmap"], task.space.trail.at_range(start, end), prot=area.prot, addr=start,
        length=length, flags=flags | extra_flags, value=offset, aux=area.file, label=area.label,
    )  # fmt: skip
    task.space.trail.range_done(start, end, mark)
    task.space.forget_guesses(start, end)
    task.space.areas.set(start, end, area)


def _range_call(
    writer: Writer, task: TaskState, op: str, start: int, length: int, **fields: int
) -> tuple[int, int]:
    """Appends an operation on the pages of a range; returns the range. Source: ours."""
    end = start + page_up(length)
    space = task.space
    area = space.areas.get(start)
    marks = space.trail.at_range(start, end)
    label = area.label if area is not None else 0
    mark = writer.append(task, CODE[op], marks, addr=start, length=length, label=label, **fields)
    space.trail.range_done(start, end, mark)
    space.forget_guesses(start, end)
    return start, end


def _mmap(writer: Writer, task: TaskState, call: Call) -> None:
    args, mapped, summary = call.args, call.mapped, writer.summary
    start = call.result
    if start is None:
        if mapped is None:
            summary.unresolved["mmap whose result is missing"] += 1
            return
        start = mapped.start
        summary.guessed["result of an mmap"] += 1
    bits, length = args["flags"], args["len"]
    shared = bits & _TYPE != _PRIVATE
    prot = args["prot"] & 7
    if bits & _ANONYMOUS:
        label = writer.label(f"anon {start:#x}+{page_up(length):#x}")
        area = Area(prot, label, shared=shared)
    else:
        offset = args.get("off", 0)
        if mapped is None:
            summary.guessed["file of an mmap"] += 1
        name = mapped.name if mapped is not None else f"fd {args.get('fd', -1)}"
        file = writer.file(name, offset + page_up(length))
        area = Area(prot, writer.label(name), file, offset - start, shared)
    map_area(writer, task, start, length, area, _extra_flags(writer, bits))
    summary.taken["mmap"] += 1


def _extra_flags(writer: Writer, bits: int) -> int:
    """The flags that go on; what does not is counted, for it changes faults. Source: ours."""
    flags = 0
    for bit, name in _FLAGS.items():
        if not bits & bit:
            continue
        if name == _LEFT_OUT:
            writer.summary.approximated[f"mmap without its flag {name}"] += 1
        else:
            flags |= MMAP_FLAGS[name]
    return flags


def _munmap(writer: Writer, task: TaskState, call: Call) -> None:
    start, end = _range_call(writer, task, "munmap", call.args["addr"], call.args["len"])
    task.space.areas.clear(start, end)
    writer.summary.taken["munmap"] += 1


def _mprotect(writer: Writer, task: TaskState, call: Call) -> None:
    args, areas = call.args, task.space.areas
    prot = args["prot"] & 7
    start, end = _range_call(writer, task, "mprotect", args["start"], args["len"], prot=prot)
    for low, high, area in list(areas.items(start, end)):
        areas.set(low, high, area._replace(prot=prot))
    writer.summary.taken["mprotect"] += 1


def _madvise(writer: Writer, task: TaskState, call: Call) -> None:
    args = call.args
    name = _ADVICE.get(args["behavior"], f"{args['behavior']}")
    if name not in ADVICES:
        writer.summary.skipped[f"madvise {name}"] += 1
        return
    advice = ADVICES.index(name)
    _range_call(writer, task, "madvise", args["start"], args["len_in"], advice=advice)
    writer.summary.taken[f"madvise {name}"] += 1


def _brk(writer: Writer, task: TaskState, call: Call) -> None:
    space, summary = task.space, writer.summary
    wanted, now = call.args["brk"], call.result
    if now is None:
        summary.unresolved["brk whose result is missing"] += 1
        return
    if wanted not in (0, now):
        summary.skipped["brk that failed"] += 1
        if space.brk is not None:
            return
    fields: dict[str, int] = {}
    if space.brk is None:
        if wanted == now:  # a growth is the first that is seen
            summary.guessed["start of a heap"] += 1
        if space.exec_at is None:
            fields = {"flags": GIVEN, "addr2": now}
        else:
            number, index = space.exec_at
            writer.tapes[number].patch(index, flags=GIVEN, addr=now)
            space.exec_at = None
        space.brk = now
    delta = now - space.brk
    low, high = sorted((page_up(space.brk), page_up(now)))
    marks = space.trail.at_range(low, high) if low < high else set()
    label = writer.label("[heap]")
    mark = writer.append(task, CODE["brk"], marks, addr=delta, label=label, **fields)
    if low < high:
        space.trail.range_done(low, high, mark)
        space.forget_guesses(low, high)
        if delta > 0:
            space.areas.set(low, high, Area(3, label))
        else:
            space.areas.clear(low, high)
    space.brk = now
    summary.taken["brk"] += 1


def _mremap(writer: Writer, task: TaskState, call: Call) -> None:
    """Unmaps where the call begins, maps where it ends: a stand-in that leaves the pages absent.

    No fault on pages that moved was recorded, so none is missed. Source: mremap(2).
    """
    args, areas = call.args, task.space.areas
    old, new_length = args["addr"], args["new_len"]
    old_end = old + page_up(args["old_len"])
    if call.begins:
        task.moving = areas.get(old)
        gone = old + page_up(new_length) if call.result == old else old
        if gone < old_end:
            _range_call(writer, task, "munmap", gone, old_end - gone)
            areas.clear(gone, old_end)
        return
    area, task.moving = task.moving, None
    start = call.result
    if start is None or area is None:
        writer.summary.unresolved["mremap of what is not known"] += 1
        return
    first, end = (old_end if start == old else start), start + page_up(new_length)
    if first < end:
        origin = area.origin + old - start if area.file else 0
        map_area(writer, task, first, end - first, area._replace(origin=origin))
    writer.summary.approximated["mremap by munmap and mmap"] += 1


def _wait(writer: Writer, task: TaskState, call: Call) -> None:
    child = writer.leaders.get(call.result) if call.result else None
    if child is None or child == task.number:
        writer.summary.skipped[f"{call.name} that met no known child"] += 1
        return
    task.process.children_ended.discard(child)
    writer.append(task, CODE["wait"], set(), aux=child)
    writer.summary.taken["wait"] += 1


CALLS: Final[dict[str, tuple[Handler | None, tuple[str, ...]]]] = {
    "mmap": (_mmap, ("len", "prot", "flags")),
    "munmap": (_munmap, ("addr", "len")),
    "mprotect": (_mprotect, ("start", "len", "prot")),
    "pkey_mprotect": (_mprotect, ("start", "len", "prot")),
    "madvise": (_madvise, ("start", "len_in", "behavior")),
    "brk": (_brk, ("brk",)),
    "mremap": (_mremap, ("addr", "old_len", "new_len")),
    "wait4": (_wait, ()),
    **dict.fromkeys(("clone", "clone3", "fork", "vfork", "execve", "execveat"), (None, ())),
}
"""The calls that matter, with what makes operations of them (None: the events that tell which tasks
start and exec do) and the arguments that takes.
"""
