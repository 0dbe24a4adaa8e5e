"""One cell of a sweep, ebizzy -mT with the speculative handler, once more: in SimPy.

What `bench_simpy.py` compares virtual time with. A minimal twin: the steps of the protocol in their
order, cache lines that move between the same CPUs, the costs of the same machine, VMAs that merge
and split. What a step reads of one line is one access here, where spfemu makes several; of what can
go wrong only what this workload meets is left: a VMA that changed, and then the classic handler.

SimPy is asked when a line has to come, or somebody is waited for; `eager`, at every access. Else
one that hits only moves its thread's clock, which makes the twin three to four times as fast.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from random import Random

import simpy

from spfemu.machines import Machine

Steps = Generator[simpy.Event, object, None]

PAGES = 128
"""Of a record: 512 KiB."""
PER_TABLE = 512
PER_LINE = 8
"""Entries of a page table that share a line."""
BATCH = 63
"""Pages that a CPU takes from its zone at once; 15 go to the LRU lists together."""
TOP = 1 << 24
"""Mappings grow down from this page."""


class Line:
    """A cache line: who has it, and the way to it, which one at a time may take."""

    __slots__ = ("holders", "port", "written")

    def __init__(self, world: World) -> None:
        self.holders: set[int] = set()
        self.written = False
        self.port = simpy.Resource(world.env)


class Semaphore:
    """mmap_sem: first come, first served; a writer spins while a writer has it."""

    def __init__(self, world: World) -> None:
        self.count, self.wait_lock = Line(world), Line(world)
        self.readers, self.writer = 0, False
        self.waiters: deque[tuple[simpy.Event, bool]] = deque()
        self.spinners: deque[simpy.Event] = deque()


@dataclass(eq=False, slots=True)
class Vma:
    """start and end, in pages; the lines of the tree's node, of the flags and of the sequence."""

    start: int
    end: int
    node: Line
    flags: Line
    counts: Line
    sequence: int = 0


@dataclass(eq=False)
class World:
    """What all threads share."""

    machine: Machine
    eager: bool = False
    """Each access is an event; else one that hits only moves its thread's own clock."""
    env: simpy.Environment = field(default_factory=simpy.Environment)
    faults: int = 0
    speculative: int = 0
    records: int = 0

    def __post_init__(self) -> None:
        self.ns = {value.name: int(value.value) for value in self.machine.values}
        self.random = Random(0)
        self.sem = Semaphore(self)
        self.mm, self.mm_seq, self.rss, self.zone, self.lru, self.memcg = (
            Line(self) for _ in range(6)
        )
        self.vmas: list[Vma] = []
        self.upper = [Line(self) for _ in range(3)]
        self.tables: dict[int, Line] = {}
        self.entries: dict[int, Line] = {}
        self.threads: list[Thread] = []

    def line_of(self, lines: dict[int, Line], key: int) -> Line:
        """Returns the line at a key, which is made when it is first asked for."""
        if key not in lines:
            lines[key] = Line(self)
        return lines[key]

    def distance_ns(self, one: int, other: int) -> int:
        cores = self.ns["sockets"] * self.ns["cores_per_die"]
        if one % cores == other % cores:
            return self.ns["line_core_ns"]
        per_socket = self.ns["cores_per_die"]
        near = one % cores // per_socket == other % cores // per_socket
        return self.ns["line_die_ns" if near else "line_machine_ns"]


class Thread:
    """A thread of ebizzy, on a CPU of its own."""

    def __init__(self, world: World, cpu: int) -> None:
        self.world, self.cpu, self.env, self.ns = world, cpu, world.env, world.ns
        self.ahead = 0
        self.pages, self.batched, self.cached = 0, 0, None

    # What costs time.

    def misses(self, line: Line, *, writes: bool = False, atomic: bool = False) -> bool:
        """Whether a line has to come; if it is here, the access is over."""
        if atomic:
            self.ahead += self.ns["atomic_ns"]
            writes = True
        here = self.cpu in line.holders and (not writes or len(line.holders) == 1)
        if here and (not writes or line.written):
            self.ahead += self.ns["line_own_ns"]
            return False
        return True

    def catch_up(self) -> Steps:
        ahead, self.ahead = self.ahead, 0
        yield self.env.timeout(ahead)

    def fetch(self, line: Line, *, writes: bool = False) -> Steps:
        yield from self.catch_up()
        with line.port.request() as turn:
            yield turn
            others = [self.world.distance_ns(self.cpu, cpu) for cpu in line.holders - {self.cpu}]
            choose: Callable[[list[int]], int] = max if writes else min
            yield self.env.timeout(choose(others) if others else self.ns["line_own_ns"])
            if writes:
                line.holders.clear()
            line.written = writes
            line.holders.add(self.cpu)

    def access(self, line: Line, *, writes: bool = False, atomic: bool = False) -> Steps:
        if self.misses(line, writes=writes, atomic=atomic):
            yield from self.fetch(line, writes=writes or atomic)
        elif self.world.eager:
            yield from self.catch_up()

    def read(self, line: Line) -> Steps:
        return self.access(line)

    def write(self, line: Line) -> Steps:
        return self.access(line, writes=True)

    def atomic(self, line: Line) -> Steps:
        return self.access(line, atomic=True)

    # mmap_sem

    def down(self, *, writer: bool) -> Steps:
        sem = self.world.sem
        yield from self.atomic(sem.count)
        yield from self.catch_up()
        while True:
            taken = sem.writer or (writer and sem.readers)
            if not taken and (writer or not sem.waiters):
                sem.writer, sem.readers = writer, sem.readers + (not writer)
                return
            if writer and sem.writer:
                event = self.env.event()
                sem.spinners.append(event)
                yield event
                yield from self.atomic(sem.count)
                yield from self.catch_up()
                continue
            break
        yield from self.atomic(sem.wait_lock)
        event = self.env.event()
        sem.waiters.append((event, writer))
        yield from self.catch_up()
        self.grant()
        yield event
        jitter = self.ns["wakeup_ns"] * self.ns["wakeup_jitter_percent"] // 100
        spread = self.world.random.randint(-jitter, jitter)
        yield self.env.timeout(self.ns["wakeup_ns"] + spread)

    def grant(self) -> None:
        """Gives the semaphore to those who wait: a writer, or all readers up to the next."""
        sem = self.world.sem
        while sem.waiters and not sem.writer:
            event, writer = sem.waiters[0]
            if writer and sem.readers:
                return
            sem.waiters.popleft()
            sem.writer, sem.readers = writer, sem.readers + (not writer)
            event.succeed()
            self.ahead += self.ns["waker_ns"]

    def up(self, *, downgrade: bool = False) -> Steps:
        sem = self.world.sem
        yield from self.atomic(sem.count)
        yield from self.catch_up()
        if sem.writer:
            sem.writer, sem.readers = False, int(downgrade)
        else:
            sem.readers -= 1
        if sem.spinners and not sem.readers:
            sem.spinners.popleft().succeed()
        elif sem.waiters:
            yield from self.atomic(sem.wait_lock)
            self.grant()

    # VMAs

    def find_vma(self, page: int) -> Generator[simpy.Event, object, Vma | None]:
        """Goes down the tree: half of what is left, at each node."""
        yield from self.read(self.world.mm_seq)
        yield from self.read(self.world.mm)
        vmas = self.world.vmas
        low, high = 0, len(vmas)
        while low < high:
            vma = vmas[(low + high) // 2]
            yield from self.read(vma.node)
            if vma.start <= page < vma.end:
                return vma
            # The list may have become another while the line came.
            middle = (low + high) // 2
            low, high = (low, middle) if page < vma.start else (middle + 1, high)
            high = min(high, len(vmas))
        return None

    def new_vma(self, start: int, end: int) -> Vma:
        self.ahead += self.ns["slab_ns"]
        return Vma(start, end, Line(self.world), Line(self.world), Line(self.world))

    def change(self, vma: Vma, start: int, end: int) -> Steps:
        """As vma_adjust: the sequence is odd while the bounds are written."""
        yield from self.write(vma.counts)
        vma.sequence += 1
        yield from self.write(vma.node)
        vma.start, vma.end = start, end
        yield from self.write(vma.counts)
        vma.sequence += 1

    def link(self, place: int, vma: Vma | None) -> Steps:
        """Puts a VMA into the list and the tree, or takes the one that is there out."""
        yield from self.atomic(self.world.mm_seq)
        vmas = self.world.vmas
        for neighbour in vmas[max(place - 1, 0) : place + 2]:
            yield from self.write(neighbour.node)
        if vma is None:
            del vmas[place]
        else:
            vmas.insert(place, vma)
            yield from self.write(vma.node)
        yield from self.write(self.world.mm)
        yield from self.write(self.world.mm_seq)

    def mmap(self) -> Generator[simpy.Event, object, int]:
        self.ahead += self.ns["syscall_ns"]
        yield from self.down(writer=True)
        vmas, place, end = self.world.vmas, len(self.world.vmas), TOP
        while place and end - vmas[place - 1].end < PAGES:
            yield from self.read(vmas[place - 1].node)
            end, place = vmas[place - 1].start, place - 1
        start = end - PAGES
        above = vmas[place] if place < len(vmas) and vmas[place].start == end else None
        below = vmas[place - 1] if place and vmas[place - 1].end == start else None
        if above and below:
            yield from self.change(below, below.start, above.end)
            yield from self.link(place, None)
        elif above:
            yield from self.change(above, start, above.end)
        elif below:
            yield from self.change(below, below.start, end)
        else:
            yield from self.link(place, self.new_vma(start, end))
        yield from self.up()
        return start

    def munmap(self, start: int) -> Steps:
        self.ahead += self.ns["syscall_ns"]
        end = start + PAGES
        yield from self.down(writer=True)
        yield from self.find_vma(start)
        vmas = self.world.vmas
        place = bisect_right(vmas, start, key=lambda vma: vma.start) - 1
        vma = vmas[place]
        if vma.end > end:
            if vma.start < start:
                yield from self.link(place + 1, self.new_vma(end, vma.end))
            else:
                yield from self.change(vma, end, vma.end)
        if vma.start < start:
            yield from self.change(vma, vma.start, start)
        elif vma.end == end:
            yield from self.write(vma.counts)
            vma.sequence += 1
            yield from self.link(place, None)
        yield from self.up(downgrade=True)
        yield from self.zap(start, end)
        yield from self.up()

    def zap(self, start: int, end: int) -> Steps:
        for page in range(start, end):
            if page % PER_LINE == 0 or page == start:
                for line in self.world.upper:
                    yield from self.read(line)
                yield from self.atomic(self.world.line_of(self.world.tables, page // PER_TABLE))
            yield from self.atomic(self.world.line_of(self.world.entries, page // PER_LINE))
            self.ahead += self.ns["zap_page_ns"]
            yield from self.free_page()
        yield from self.write(self.world.rss)
        yield from self.catch_up()
        targets = [thread for thread in self.world.threads if thread is not self]
        for target in targets:
            target.ahead += self.ns["ipi_handler_ns"]
        self.ahead += self.ns["ipi_base_ns"] + self.ns["ipi_target_ns"] * len(targets)
        self.ahead += self.ns["ipi_handler_ns"]

    # Pages

    def allocate_page(self) -> Steps:
        if not self.pages:
            yield from self.atomic(self.world.zone)
            yield from self.atomic(self.world.memcg)
            self.pages = BATCH
        self.pages -= 1
        self.batched += 1
        if self.batched % 15 == 0:
            yield from self.atomic(self.world.lru)
        self.ahead += self.ns["clear_page_ns"] + self.ns["charge_page_ns"]

    def free_page(self) -> Steps:
        self.pages += 1
        if self.pages > 6 * BATCH:
            yield from self.atomic(self.world.zone)
            self.pages -= BATCH

    # Faults

    def touch(self, page: int) -> Steps:
        world = self.world
        world.faults += 1
        self.ahead += self.ns["fault_ns"]
        for line in world.upper:
            yield from self.read(line)
        yield from self.read(world.line_of(world.entries, page // PER_LINE))
        vma = yield from self.find_vma(page)
        if vma is not None:
            yield from self.atomic(vma.counts)
            done = yield from self.speculative(vma, page)
            yield from self.atomic(vma.counts)
            if done:
                world.speculative += 1
                return
        self.ahead += self.ns["fault_ns"]
        yield from self.down(writer=False)
        yield from self.find_vma(page)
        yield from self.set_pte(page)
        yield from self.up()

    def speculative(self, vma: Vma, page: int) -> Generator[simpy.Event, object, bool]:
        yield from self.read(vma.counts)
        sequence = vma.sequence
        yield from self.read(vma.flags)
        yield from self.read(vma.node)
        if sequence % 2 or not vma.start <= page < vma.end:
            return False
        for line in self.world.upper:
            yield from self.read(line)
        yield from self.read(self.world.line_of(self.world.entries, page // PER_LINE))
        yield from self.read(vma.counts)
        yield from self.set_pte(page)
        return vma.sequence == sequence

    def set_pte(self, page: int) -> Steps:
        world = self.world
        yield from self.allocate_page()
        yield from self.atomic(world.line_of(world.tables, page // PER_TABLE))
        yield from self.write(world.line_of(world.entries, page // PER_LINE))
        yield from self.write(world.line_of(world.tables, page // PER_TABLE))
        self.ahead += self.ns["tlb_fill_ns"] + self.ns["user_access_ns"]

    def run(self, until_ns: int) -> Steps:
        yield self.env.timeout(self.world.random.randint(0, 1000))
        while self.env.now + self.ahead < until_ns:
            start = yield from self.mmap()
            for page in range(start, start + PAGES):
                yield from self.touch(page)
            yield from self.munmap(start)
            self.world.records += 1


def simulate(machine: Machine, cpus: int, seconds: float, *, eager: bool = False) -> World:
    """Runs one thread on each CPU for so long, in virtual time. Returns what came of it."""
    world = World(machine, eager)
    world.threads = [Thread(world, cpu) for cpu in range(cpus)]
    for thread in world.threads:
        world.env.process(thread.run(round(seconds * 1e9)))
    world.env.run()
    return world
