"""A flat map of each address space, as another authority than the reference model.

An address space is a sorted list of areas that never merge and are cut wherever an operation begins
or ends, plus the contents of private pages. There are no page tables, faults, handlers or VMAs:
the map knows only what mmap(2), mprotect(2), munmap(2), madvise(2), sbrk(2), fork(2) and a memory
access promise. It runs the tasks in an order drawn at random, one operation at a time, so that it
also finds programs whose outcomes depend on the order.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

from hypothesis import reject

from spfemu.profiles import Arch
from spfemu.program import Program
from spfemu.program.ops import OPS
from spfemu.program.values import parse_address, parse_int, parse_prot, to_i64
from spfemu.results import Result

TOP = 1 << 64
READ, WRITE, EXECUTE = 1, 2, 4
ACCESS = {"read": READ, "write": WRITE, "execute": EXECUTE}
CODES = {
    "unmapped": ("SEGV_MAPERR",),
    "beyond": ("SEGV_MAPERR", "SEGV_BNDERR", "SI_KERNEL"),
}
DEFAULT_HEAP = 0x5555_5580_0000
HEAP_ALIGN = 2 << 20
GUARD_PAGES = 256
"""What is kept free below memory that grows down."""
SYSCTL_LOW = {"vm.speculative_page_fault": -(1 << 31)}


class FailedError(Exception):
    """A system call that fails; the message is the name of the error."""


@dataclass(eq=False)
class Content:
    """What a file, or shared memory, holds: words by page."""

    length: int
    pages: dict[int, int] = field(default_factory=dict)


class GivenUp(int):
    """A word that MADV_FREE gave up, and nobody has written over: it may be 0 at any time."""


@dataclass
class Area:
    """Addresses with one protection and one backing; ``offset`` is that of its first byte."""

    start: int
    end: int
    prot: int
    shared: bool
    content: Content | None
    offset: int
    named: bool
    forked: bool = True
    wiped: bool = False
    locked: str = ""
    grows: bool = False
    moved: bool = False

    def has_page(self, address: int, page: int) -> bool:
        """Whether there is something behind the page: its file may have ended before."""
        length = TOP if self.content is None else self.content.length
        return self.offset + address - self.start < -(-length // page) * page

    def cut(self, start: int, end: int) -> Area:
        return replace(self, start=start, end=end, offset=self.offset + start - self.start)


@dataclass(frozen=True)
class Expected:
    """What one operation must come to.

    ``codes`` are the signal's codes; none are given where SIGSEGV may also be faults without end.
    """

    index: int
    round: int
    access: int
    ret: int | None = None
    errno: str | None = None
    value: int | None = None
    signal: str | None = None
    codes: tuple[str, ...] = ()


class Space:
    """An address space."""

    def __init__(self, arch: Arch, min_addr: int, stack_limit: int) -> None:
        self.arch = arch
        self.page = arch.page_size
        self.min_addr = min_addr
        self.stack_limit = stack_limit
        self.areas: list[Area] = []
        self.private: dict[int, int] = {}
        self.brk_start: int | None = None
        self.brk_now = 0

    def fork(self) -> Space:
        child = Space(self.arch, self.min_addr, self.stack_limit)
        child.areas = [replace(area, locked="") for area in self.areas if area.forked]
        kept = {page: child.at(page) for page in self.private}
        child.private = {
            page: self.private[page] for page, area in kept.items() if area and not area.wiped
        }
        child.brk_start, child.brk_now = self.brk_start, self.brk_now
        return child

    def at(self, address: int) -> Area | None:
        return next((area for area in self.areas if area.start <= address < area.end), None)

    def within(self, start: int, end: int) -> list[Area]:
        return [area for area in self.areas if area.start < end and start < area.end]

    def aligned(self, length: int) -> int:
        return -(-length // self.page) * self.page % TOP

    def cut_at(self, *addresses: int) -> None:
        for address in addresses:
            area = self.at(address)
            if area is not None and area.start < address:
                self.areas.remove(area)
                self.areas += [area.cut(area.start, address), area.cut(address, area.end)]
        self.areas.sort(key=lambda area: area.start)

    def drop(self, start: int, end: int) -> None:
        """Takes the contents of private pages away."""
        for page in [page for page in self.private if start <= page < end]:
            del self.private[page]

    def give_up(self, start: int, end: int) -> None:
        """Leaves it to others how long private pages keep their contents."""
        given = {page: GivenUp(word) for page, word in self.private.items() if start <= page < end}
        self.private |= given

    def clear(self, start: int, end: int) -> None:
        self.cut_at(start, end)
        self.areas = [area for area in self.areas if not start <= area.start < end]
        self.drop(start, end)

    # --- system calls ----------------------------------------------------------------------------

    def place(self, hint: int, length: int) -> int:
        size = self.arch.task_size
        low = self.aligned(max(self.min_addr, self.page))
        hint = hint // self.page * self.page
        if hint and hint < self.min_addr:
            hint = self.aligned(self.min_addr)
        if low <= hint <= size - length and self.has_room(hint, hint + length):
            return hint
        base = self.arch.mmap_base
        for area in [None, *reversed(self.areas)]:
            bottom = min(base, base if area is None else self.below(area)) - length
            # What is kept free below one area may reach below the next.
            mine = area is None or self.above(bottom) is area
            if low <= bottom and mine and self.has_room(bottom, bottom + length):
                return bottom
        floor = max(low, self.aligned(size // 3))
        for bottom in [floor, *(area.end for area in self.areas)]:
            end = bottom + length
            if floor <= bottom and end <= size and self.has_room(bottom, end):
                return bottom
        raise FailedError("ENOMEM")

    def below(self, area: Area) -> int:
        """Where something below an area has to end, if the kernel is to choose its place."""
        return max(0, area.start - GUARD_PAGES * self.page) if area.grows else area.start

    def above(self, address: int) -> Area | None:
        return next((area for area in self.areas if area.end > address), None)

    def has_room(self, start: int, end: int) -> bool:
        above = self.above(start)
        return above is None or end <= self.below(above)

    def mmap(self, op: dict[str, Any], hint: int, file: Content | None, zero: bool) -> int:
        flags = op.get("flags", ["private"] if "file" in op else ["private", "anonymous"])
        if "hugetlb" in flags:
            reject()  # Its pages and what is reserved of them are not on this map.
        offset, length = parse_int(op.get("offset", 0)), parse_int(op["length"])
        if offset % self.page or length == 0:
            raise FailedError("EINVAL")
        length = self.aligned(length)
        if not 0 < length <= self.arch.task_size:
            raise FailedError("ENOMEM")
        if "fixed" in flags or "fixed_noreplace" in flags:
            self.check_fixed(hint, length)
        else:
            hint = self.place(hint, length)
        if "fixed_noreplace" in flags and self.within(hint, hint + length):
            raise FailedError("EEXIST")
        most = TOP - 1 if zero else (1 << 63) - 1
        if "file" in op and offset + length > most:
            raise FailedError("EOVERFLOW")
        kinds = {"private", "shared"} & set(flags)
        if not kinds or (len(kinds) == 2 and "file" not in op):
            raise FailedError("EINVAL")
        if len(kinds) == 2 and "fixed_noreplace" in flags:
            raise FailedError("EOPNOTSUPP")
        shared, grows = "shared" in flags, "growsdown" in flags
        if grows and (shared or "file" in op):
            raise FailedError("EINVAL")
        self.clear(hint, hint + length)
        if shared and file is None:
            file = Content(length)
            if not zero:
                offset = 0
        named = file is not None or zero
        prot = parse_prot(op.get("prot", "rw"))
        locked = "now" if "locked" in flags else ""
        area = Area(hint, hint + length, prot, shared, file, offset, named, locked=locked)
        area.grows = grows
        self.areas.append(area)
        self.areas.sort(key=lambda area: area.start)
        if locked or "populate" in flags:
            self.populate(hint, hint + length)
        return hint

    def populate(self, start: int, end: int, *, copies: bool = False) -> str | None:
        """Brings pages in: seen only where a page of a private file is copied for it.

        ``copies``: even if it need not be. Returns the first error; what comes after one in the
        same area is left.
        """
        failed = None
        for area in self.within(start, end):
            error = None if area.prot else "EFAULT"
            for page in range(max(start, area.start), min(end, area.end), self.page):
                if (
                    error is None
                    and area.locked != "onfault"
                    and not area.has_page(page, self.page)
                ):
                    error = "EFAULT"
                if error is not None:
                    break
                if area.locked != "onfault" and not area.shared and (area.prot & WRITE or copies):
                    self.private.setdefault(page, self.access(page, READ, 0)[1])
            failed = failed or error
        return failed

    def check_fixed(self, address: int, length: int) -> None:
        if address == TOP - 1:  # MAP_FAILED
            raise FailedError("EPERM")
        if address > self.arch.task_size - length:
            raise FailedError("ENOMEM")
        if address % self.page:
            raise FailedError("EINVAL")
        if address < self.min_addr:
            raise FailedError("EPERM")

    def munmap(self, start: int, length: int) -> None:
        size = self.arch.task_size
        if start % self.page or start > size or length > size - start or length == 0:
            raise FailedError("EINVAL")
        self.clear(start, start + self.aligned(length))

    def mprotect(self, start: int, length: int, prot: int) -> None:
        if start % self.page:
            raise FailedError("EINVAL")
        if length == 0:
            return
        end = start + self.aligned(length)
        if not start < end < TOP:
            raise FailedError("ENOMEM")
        self.cut_at(start, end)
        reached = start
        for area in self.within(start, end):
            if area.start != reached:
                break
            before, area.prot = area.prot, prot
            reached = area.end
            if area.locked and prot & WRITE and not before & WRITE:
                self.populate(area.start, area.end)
        if reached < end:
            raise FailedError("ENOMEM")

    def mremap(self, op: dict[str, Any], addr: int, new_addr: int, *, crosses: bool) -> int:
        """Moves or resizes. ``crosses``: whether a range over several areas is refused.

        mremap(2) promises nothing there: that is fine only if the kernel has one mapping of them.
        """
        flags = op.get("flags", [])
        old, new = (self.aligned(parse_int(op[key])) for key in ("old_length", "new_length"))
        unknown = "dontunmap" in flags or flags == ["fixed"]
        if unknown or addr % self.page or not new:
            raise FailedError("EINVAL")
        if "fixed" in flags:
            size = self.arch.task_size
            if new_addr % self.page or new > size or new_addr > size - new:
                raise FailedError("EINVAL")
            if (addr + old) % TOP > new_addr and new_addr + new > addr:
                raise FailedError("EINVAL")
            self.munmap(new_addr, new)
        if old >= new:
            if old > new:
                self.munmap((addr + new) % TOP, old - new)
            old = new
            if "fixed" not in flags:
                return addr
        self.check_one_area(addr, old, crosses=crosses)
        if "fixed" in flags:
            self.check_fixed(new_addr, new)
        elif self.ends_at(addr + old) and self.is_free(addr + old, addr + new):
            area = self.areas[self.index_at(addr + old - 1)]
            area.end = addr + new
            if area.locked:
                self.populate(addr + old, addr + new)
            return addr
        elif "maymove" in flags:
            new_addr = self.place(0, new)
        else:
            raise FailedError("ENOMEM")
        self.move(addr, old, new_addr, new)
        return new_addr

    def check_one_area(self, addr: int, length: int, *, crosses: bool) -> None:
        area = self.at(addr)
        if area is None:
            raise FailedError("EFAULT")
        if length == 0 and not area.shared:
            raise FailedError("EINVAL")
        mapped = sum(
            min(other.end, addr + length) - max(other.start, addr)
            for other in self.within(addr, addr + length)
        )
        if mapped < length or (area.end < addr + length and crosses):
            raise FailedError("EFAULT")

    def ends_at(self, end: int) -> bool:
        """Whether something is mapped up to here, and nothing right behind it."""
        return self.at(end - 1) is not None and self.at(end) is None

    def index_at(self, address: int) -> int:
        return next(n for n, area in enumerate(self.areas) if area.start <= address < area.end)

    def is_free(self, start: int, end: int) -> bool:
        return end <= self.arch.task_size and not self.within(start, end)

    def move(self, addr: int, old: int, new_addr: int, new: int) -> None:
        last = self.areas[self.index_at(addr + max(old, 1) - 1)]
        grown = last.cut(addr + old, addr + new)
        self.cut_at(addr, addr + old)
        taken = self.within(addr, addr + old)
        self.areas = [area for area in self.areas if area not in taken]
        for area in (*taken, *([grown] if new > old else [])):
            delta = new_addr - addr
            start, end = area.start + delta, area.end + delta
            self.areas.append(replace(area, start=start, end=end, moved=True))
        self.areas.sort(key=lambda area: area.start)
        moved = {page: self.private[page] for page in self.private if addr <= page < addr + old}
        self.drop(addr, addr + old)
        self.private |= {page - addr + new_addr: value for page, value in moved.items()}
        if new > old and last.locked:
            self.populate(new_addr + old, new_addr + new)

    def madvise(self, start: int, length: int, advice: str) -> None:
        rounded = self.aligned(length)
        end = start + rounded
        if start % self.page or (length and not rounded) or end >= TOP:
            raise FailedError("EINVAL")
        if rounded == 0:
            return
        self.cut_at(start, end)
        areas = self.within(start, end)
        if advice.startswith("populate"):
            self.advise_populate(areas, start, end, WRITE if advice == "populate_write" else READ)
            return
        for area in areas:
            if area.locked and advice in ("dontneed", "free", "cold", "pageout"):
                raise FailedError("EINVAL")
            if advice == "dontneed":
                self.drop(area.start, area.end)
            elif advice == "free" and (area.content is not None or area.shared):
                raise FailedError("EINVAL")
            elif advice == "free":
                self.give_up(area.start, area.end)
            elif advice in ("dontfork", "dofork"):
                area.forked = advice == "dofork"
            elif advice == "wipeonfork" and (area.named or area.shared):
                raise FailedError("EINVAL")
            elif advice in ("wipeonfork", "keeponfork"):
                area.wiped = advice == "wipeonfork"
        if sum(area.end - area.start for area in areas) < rounded:
            raise FailedError("ENOMEM")

    def advise_populate(self, areas: list[Area], start: int, end: int, access: int) -> None:
        for area in areas:
            if area.start > start:
                break
            if not area.prot & access:
                raise FailedError("EINVAL")
            for page in range(area.start, area.end, self.page):
                if not area.has_page(page, self.page):
                    raise FailedError("EFAULT")
                if access == WRITE and not area.shared:
                    self.private.setdefault(page, self.access(page, READ, 0)[1])
            start = area.end
        if start < end:
            raise FailedError("ENOMEM")

    def lock(self, start: int, length: int, locked: str) -> None:
        """mlock, or with an empty text munlock."""
        inside = start % self.page
        start, length = start - inside, self.aligned((length + inside) % TOP)
        end = start + length
        if end >= TOP:
            raise FailedError("EINVAL")
        if length == 0:
            return
        self.cut_at(start, end)
        reached = start
        for area in self.within(start, end):
            if area.start == reached:
                area.locked = locked
                reached = area.end
        if reached < end or (locked and self.populate(start, end)):
            raise FailedError("ENOMEM")

    def mbind(
        self, start: int, length: int, policy: dict[str, Any], cpuset: frozenset[int]
    ) -> None:
        """Only its errors can be told: a hole in front, or between mappings that get a policy."""
        end = start + self.aligned(length)
        if start % self.page or end >= TOP:
            raise FailedError("EINVAL")
        if end == start:
            return
        check_policy(policy, cpuset)
        areas = self.within(start, end)
        if not areas or areas[0].start > start:
            raise FailedError("EFAULT")
        holes = any(one.end < other.start for one, other in pairwise(areas))
        if holes and policy.get("mode", "default") != "default":
            raise FailedError("EFAULT")

    def brk(self, delta: int, start: int | None) -> int:
        if self.brk_start is None:
            self.brk_start = self.brk_now = self.default_heap() if start is None else start
        wanted = self.brk_now + delta
        if not self.brk_start <= wanted < TOP:
            raise FailedError("ENOMEM")
        old, new = self.aligned(self.brk_now), self.aligned(wanted)
        try:
            if new < old:
                self.munmap(new, old - new)
            elif new > old:
                if not self.has_room(old, new + self.page):
                    raise FailedError("ENOMEM")
                self.check_fixed(old, new - old)
                self.areas.append(Area(old, new, READ | WRITE, False, None, 0, False))
                self.areas.sort(key=lambda area: area.start)
        except FailedError:
            raise FailedError("ENOMEM") from None
        self.brk_now = wanted
        return wanted

    def default_heap(self) -> int:
        size = self.arch.task_size
        return (
            DEFAULT_HEAP if size > DEFAULT_HEAP else -(-(size // 3 * 2) // HEAP_ALIGN) * HEAP_ALIGN
        )

    # --- accesses --------------------------------------------------------------------------------

    def allows(self, prot: int, access: int) -> bool:
        if access == READ:
            return bool(prot & ~EXECUTE if self.arch.exec_only else prot)
        return bool(prot & access)

    def expand(self, address: int, has_grown: Callable[[], bool]) -> None:
        """Lets what grows down begin at the page of an access, if it may.

        ``has_grown``: whether it did, asked where only the kernel can tell: how much of it is one
        mapping decides on its limit, and from where it was moved on how far it goes.
        """
        area, start = self.above(address), address // self.page * self.page
        if area is None or area.start <= address or not area.grows or start < self.min_addr:
            return
        lower = [other for other in self.areas if other.end <= start]
        guarded = lower and lower[-1].prot and not lower[-1].grows
        if guarded and start - lower[-1].end < GUARD_PAGES * self.page:
            return
        if area.end - start > self.stack_limit:
            return
        end = area.end
        for other in self.areas[self.areas.index(area) + 1 :]:
            if other.start == end and other.grows:
                end = other.end
        if (end - start > self.stack_limit or area.moved) and not has_grown():
            return
        area.start = start

    def access(self, address: int, access: int, value: int) -> tuple[str, int]:
        """ "ok" and the word, or "unmapped", "beyond" (user space), "denied", "SIGBUS"."""
        if address >= self.arch.task_size:
            return "beyond", 0
        area = self.at(address)
        if area is None:
            return "unmapped", 0
        page = address // self.page * self.page
        index = (area.offset + page - area.start) // self.page
        content = area.content
        beyond = content is not None and index >= -(-content.length // self.page)
        if not self.allows(area.prot, access):
            # x86 looks whether a page may be executed only once there is one.
            fetched = access == EXECUTE and area.prot and self.arch.family == "x86"
            return ("SIGBUS" if beyond and fetched else "denied"), 0
        if beyond:
            return "SIGBUS", 0
        if access == WRITE:
            if area.shared:
                assert content is not None
                content.pages[index] = value
            else:
                self.private[page] = value
        if area.shared or page not in self.private:
            return "ok", content.pages.get(index, 0) if content else 0
        return "ok", self.private[page]

    def covered(self) -> list[tuple[int, int, str]]:
        """Which addresses are mapped how: (start, end, perms), joined where they can be."""
        found: list[tuple[int, int, str]] = []
        for area in self.areas:
            perms = "".join(
                x if area.prot & b else "-" for x, b in zip("rwx", (1, 2, 4), strict=True)
            )
            perms += "s" if area.shared else "p"
            if found and found[-1][1:] == (area.start, perms):
                found[-1] = (found[-1][0], area.end, perms)
            else:
                found.append((area.start, area.end, perms))
        return found


@dataclass(eq=False)
class Process:
    name: str
    space: Space
    tasks: list[Task] = field(default_factory=list)
    maps: list[tuple[int, int, str]] = field(default_factory=list)


@dataclass(eq=False)
class Task:
    name: str
    ops: list[dict[str, Any]]
    process: Process | None = None
    ended: bool = False
    cpuset: frozenset[int] = frozenset({0, 1})
    ready: Any = None
    steps: Iterator[Any] = field(default_factory=lambda: iter(()))
    expected: list[Expected] = field(default_factory=list)
    runs: dict[int, int] = field(default_factory=dict)

    @property
    def space(self) -> Space:
        assert self.process is not None
        return self.process.space


class FlatMap:
    """A program at work on flat maps."""

    def __init__(self, program: Program, arch: Arch, seed: int, result: Result) -> None:
        obj = program.to_dict()
        self.result = result
        self.arch = arch
        self.random = random.Random(seed)
        self.min_addr = program.system.mmap_min_addr
        self.stack_limit = program.system.stack_limit
        self.kinds = {file.name: file.kind for file in program.files}
        if "hugetlb" in self.kinds.values():
            reject()
        # A private mapping of what a file has no page for gets one that the file does not know.
        codes = {code for task in program.tasks for code in task.ops["op"].tolist()}
        if {OPS["truncate"].code, OPS["uffd_register"].code} <= codes:
            reject()
        self.files = {file.name: Content(file.length) for file in program.files}
        self.ids: dict[str, int] = {}
        self.posts: dict[str, int] = {}
        self.barriers: dict[str, list[Task]] = {}
        self.waiting: dict[str, set[str]] = {}
        self.opened: dict[str, int] = {}
        self.tasks = {task["name"]: Task(task["name"], task["ops"]) for task in obj["tasks"]}
        for task in self.tasks.values():
            self.register(task, task.ops)
        self.processes: list[Process] = []
        first = [task for task in obj["tasks"] if "start" not in task]
        process = self.new_process(first[0]["name"], Space(arch, self.min_addr, self.stack_limit))
        for task in first:
            self.start(self.tasks[task["name"]], process)

    def register(self, task: Task, ops: list[dict[str, Any]]) -> None:
        for op in ops:
            if op["op"] == "repeat":
                self.register(task, op["ops"])
            elif op["op"] == "post":
                self.posts[op["name"]] = self.posts.get(op["name"], 0) + 1
            elif op["op"] == "barrier" and task not in self.barriers.get(op["name"], []):
                self.barriers.setdefault(op["name"], []).append(task)

    def new_process(self, name: str, space: Space) -> Process:
        self.processes.append(Process(name, space))
        return self.processes[-1]

    def start(self, task: Task, process: Process) -> None:
        task.process = process
        process.tasks.append(task)
        task.steps = self.run_ops(task, task.ops, 0)

    def run(self) -> list[str]:
        """Runs to the end; returns the names of those that wait for ever."""
        while True:
            going = [
                task
                for task in self.tasks.values()
                if task.process and not task.ended and (task.ready is None or task.ready())
            ]
            if not going:
                break
            task = self.random.choice(going)
            task.ready = next(task.steps, "end")
            if task.ready == "end":
                self.end(task)
        for process in self.processes:
            if any(not task.ended for task in process.tasks):
                process.maps = process.space.covered()
        return [task.name for task in self.tasks.values() if task.process and not task.ended]

    def end(self, task: Task) -> None:
        assert task.process is not None
        task.ended = True
        if all(other.ended for other in task.process.tasks):
            task.process.maps = task.space.covered()

    def run_ops(self, task: Task, ops: list[dict[str, Any]], index: int) -> Iterator[Any]:
        """Runs operations whose first has that record index; yields what has to be waited for."""
        for op in ops:
            if op["op"] == "repeat":
                for _ in range(op["count"]):
                    yield from self.run_ops(task, op["ops"], index + 1)
                index += records(op)
                continue
            yield None
            for key in ("addr", "new_addr"):
                name = parse_address(op[key])[0] if key in op else None
                if name is not None:
                    yield lambda name=name: name in self.ids
            yield from self.run_op(task, op, index)
            task.runs[index] = task.runs.get(index, 0) + 1
            if op["op"] == "exit":
                yield "end"
            index += 1

    def run_op(self, task: Task, op: dict[str, Any], index: int) -> Iterator[Any]:
        place = (index, task.runs.get(index, 0))
        if op["op"] in ACCESS or op["op"] == "touch":
            self.touch(task, op, place)
            return
        ret, errno = 0, None
        try:
            ret = self.call(task, op, place)
        except FailedError as failure:
            ret, errno = -1, str(failure)
        if "id" in op:
            self.ids[op["id"]] = ret % TOP
        yield from self.wait_for(task, op)
        task.expected.append(Expected(*place, 0, ret=to_i64(ret), errno=errno))

    def address(self, op: dict[str, Any], key: str = "addr") -> int:
        name, offset = parse_address(op.get(key, 0))
        return ((self.ids[name] if name else 0) + offset) % TOP

    def touch(self, task: Task, op: dict[str, Any], place: tuple[int, int]) -> None:
        start, positions = self.address(op), [0]
        stride = parse_int(op.get("stride", self.arch.page_size))
        kind = op["op"]
        if kind == "touch":
            kind = op.get("access", "write")
            positions = shuffled(op, -(-parse_int(op["length"]) // stride))
        kernel = op.get("mode") == "kernel"
        for number, position in enumerate(positions):
            address = (start + position * stride) % TOP
            value = parse_int(op.get("value", 1))
            if address < self.arch.task_size:
                task.space.expand(address, partial(self.has_grown, task, (*place, number)))
            what, word = task.space.access(address, ACCESS[kind], value)
            if what == "ok" and isinstance(word, GivenUp) and kind == "read":
                word = GivenUp(self.what_was_left(task, (*place, number), word))
                task.space.private[address - address % task.space.page] = word
            if what == "ok":
                read = word if kind == "read" else None
                found = Expected(*place, number, ret=0, value=read)
            elif kernel:
                found = Expected(*place, number, ret=-1, errno="EFAULT")
            else:
                signal = "SIGBUS" if what == "SIGBUS" else "SIGSEGV"
                found = Expected(*place, number, signal=signal, codes=CODES.get(what, ()))
            task.expected.append(found)

    def what_was_left(self, task: Task, place: tuple[int, int, int], word: int) -> int:
        """The word of a page that was given up, or the 0 that was really found in its place."""
        number = list(self.tasks.values()).index(task)
        outcomes = (self.result.outcome(row) for row in self.result.task_ops(number))
        for outcome in outcomes:
            if (outcome["index"], outcome["round"], outcome.get("access", 0)) == place:
                return 0 if outcome["value"] == 0 else word
        return word

    def has_grown(self, task: Task, access: tuple[int, int, int]) -> bool:
        """Whether an access really made something grow."""
        number = list(self.tasks.values()).index(task)
        outcomes = (self.result.outcome(row) for row in self.result.task_ops(number))
        found = next(o for o in outcomes if (o["index"], o["round"], o.get("access", 0)) == access)
        if found["errno"] is not None:
            reject()  # Refused by the kernel's own access: before, or after it grew.
        return bool(found["si_code"] != "SEGV_MAPERR")

    def came_to(self, task: Task, place: tuple[int, int]) -> str | None:
        """The errno that the operation really had: for what nobody promises."""
        number = list(self.tasks.values()).index(task)
        outcomes = (self.result.outcome(row) for row in self.result.task_ops(number))
        return next((o["errno"] for o in outcomes if (o["index"], o["round"]) == place), None)

    def call(self, task: Task, op: dict[str, Any], place: tuple[int, int]) -> int:
        space = task.space
        name = op["op"]
        if name == "mmap":
            hint = self.address(op) if "addr" in op else 0
            zero = "file" in op and self.kinds[op["file"]] == "devzero"
            file = None if zero or "file" not in op else self.files[op["file"]]
            return space.mmap(op, hint, file, zero)
        if name == "mremap":
            crosses = self.came_to(task, place) == "EFAULT"
            addresses = (self.address(op), self.address(op, "new_addr"))
            return space.mremap(op, *addresses, crosses=crosses)
        if name == "brk":
            start = parse_int(op["start"]) if "start" in op else None
            return space.brk(parse_int(op.get("delta", 0)), start)
        if name in ("munmap", "mprotect", "madvise", "mlock", "munlock"):
            start, length = self.address(op), parse_int(op["length"])
            if name == "munmap":
                space.munmap(start, length)
            elif name == "mprotect":
                space.mprotect(start, length, parse_prot(op["prot"]))
            elif name == "mlock":
                space.lock(start, length, "onfault" if op.get("onfault") else "now")
            elif name == "munlock":
                space.lock(start, length, "")
            else:
                space.madvise(start, length, op["advice"])
        elif name == "mbind":
            space.mbind(self.address(op), parse_int(op["length"]), op, task.cpuset)
        elif name == "set_mempolicy":
            check_policy(op, task.cpuset)
        elif name == "rebind":
            task.cpuset = new_cpuset(op["nodes"])
        elif name == "clear_refs":  # nobody can tell, but by faults
            if parse_int(op["what"]) not in range(1, 6):
                raise FailedError("EINVAL")
        elif name == "truncate":
            self.truncate(op["file"], parse_int(op["length"]))
        elif name in (
            "swap_out",
            "migrate",
            "numa_scan",
            "ksm_scan",
        ):  # nobody can tell, but by the time it takes
            if self.address(op) % space.page:
                raise FailedError("EINVAL")
            if name == "migrate" and parse_int(op["node"]) not in task.cpuset:
                raise FailedError("EACCES")
        elif name == "sysctl":
            low = SYSCTL_LOW.get(op["name"], 0)
            if not low <= parse_int(op["value"]) < 1 << 31:
                raise FailedError("EINVAL")
        elif name in ("collapse", "notifier", "uffd_register", "uffd_unregister"):
            # Whether that can be is the kernel's business; nobody sees what it does.
            if (error := self.came_to(task, place)) is not None:
                raise FailedError(error)
        elif name == "post":
            self.posts[op["name"]] -= 1
        else:
            self.task_call(task, op)
        return 0

    def truncate(self, name: str, length: int) -> None:
        if length >= 1 << 63 or self.kinds[name] == "devzero":
            raise FailedError("EINVAL")
        file, page = self.files[name], self.arch.page_size
        file.length = length
        first = -(-length // page)
        file.pages = {number: word for number, word in file.pages.items() if number < first}
        for process in self.processes:
            for area in process.space.areas:
                if area.content is file:
                    start = area.start + first * page - area.offset
                    process.space.drop(max(start, area.start), area.end)

    def task_call(self, task: Task, op: dict[str, Any]) -> None:
        name, process = op["op"], task.process
        assert process is not None
        if name in ("fork", "vfork", "clone"):
            self.tasks[op["child"]].cpuset = task.cpuset
        if name == "exec":
            for other in process.tasks:
                if other is not task:
                    other.ended = True
            process.space = Space(self.arch, self.min_addr, self.stack_limit)
            if "brk_start" in op:
                process.space.brk_start = process.space.brk_now = parse_int(op["brk_start"])
        elif name in ("fork", "vfork"):
            space = process.space.fork() if name == "fork" else process.space
            self.start(self.tasks[op["child"]], self.new_process(op["child"], space))
        elif name == "clone":
            self.start(self.tasks[op["child"]], process)

    def wait_for(self, task: Task, op: dict[str, Any]) -> Iterator[Any]:
        name = op["op"]
        if name == "await":
            yield lambda: self.posts.get(op["name"], 0) <= 0
        elif name == "barrier":
            barrier = op["name"]
            self.waiting.setdefault(barrier, set()).add(task.name)
            number = self.opened.setdefault(barrier, 0)
            yield lambda: self.has_opened(barrier, number)
        elif name in ("wait", "fork", "vfork"):
            child, space = self.tasks[op["child"]], task.space
            if name == "wait" or op.get("wait"):
                yield lambda: child.ended
            elif name == "vfork":
                yield lambda: child.ended or child.space is not space

    def has_opened(self, name: str, number: int) -> bool:
        missing = [
            task
            for task in self.barriers[name]
            if not task.ended and task.name not in self.waiting[name]
        ]
        if self.waiting[name] and not missing:
            self.waiting[name].clear()
            self.opened[name] += 1
        return self.opened[name] > number


def new_cpuset(nodes: list[int]) -> frozenset[int]:
    """Two nodes; a cpuset has one of them or both."""
    if not {0, 1} >= set(nodes):
        raise FailedError("EINVAL")
    if not nodes:
        raise FailedError("ENOSPC")
    return frozenset(nodes)


def check_policy(op: dict[str, Any], cpuset: frozenset[int]) -> None:
    """A policy that needs nodes must name one of the cpuset."""
    mode, nodes = op.get("mode", "default"), op.get("nodes", [0])
    needed = mode in ("bind", "interleave") or (mode == "preferred" and nodes)
    if needed and not cpuset & set(nodes):
        raise FailedError("EINVAL")


def records(op: dict[str, Any]) -> int:
    """How many records of the array form an operation takes."""
    if op["op"] != "repeat":
        return 1
    return 2 + sum(records(inner) for inner in op["ops"])


def shuffled(op: dict[str, Any], count: int) -> list[int]:
    """The positions of a touch in its order."""
    positions = list(range(count))
    order = op.get("order", "forward")
    if order == "backward":
        positions.reverse()
    if order != "random":
        return positions
    state = parse_int(op.get("seed", 0))
    for last in range(count - 1, 0, -1):
        state = (state + 0x9E3779B97F4A7C15) % TOP
        mixed = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % TOP
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % TOP
        other = (mixed ^ (mixed >> 31)) % (last + 1)
        positions[last], positions[other] = positions[other], positions[last]
    return positions
