"""A flat model that replays a program: which pages are mapped, and with which protection.

It knows nothing of faults. Tasks run one after another under a policy that picks the next one, so
that an order which the program does not keep shows as an access to nothing, or as tasks that wait.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from spfemu.importers.ranges import RangeMap
from spfemu.importers.state import page_up
from spfemu.program import OPS_BY_CODE, Program

ALLOWS = {"read": 7, "write": 2, "execute": 4}


@dataclass
class Memory:
    """The protection of what is mapped, and the break."""

    areas: RangeMap[int] = field(default_factory=RangeMap)
    brk: int = 0


@dataclass
class Replay:
    """How many accesses there were, how many hit a mapping that allows them, and who is stuck."""

    accesses: int = 0
    hits: int = 0
    stuck: list[int] = field(default_factory=list)


class Flat:
    """One replay of a program; ``seed`` None runs the tasks in their order, each until it waits."""

    def __init__(self, program: Program, seed: int | None) -> None:
        self.program = program
        self.random = None if seed is None else random.Random(seed)
        self.memory: dict[int, Memory] = {}
        self.at = [0] * len(program.tasks)
        first = Memory()
        for number, task in enumerate(program.tasks):
            if task.start is None:
                self.memory[number] = first
        self.posted: set[int] = set()
        self.replay = Replay()

    def run(self) -> Replay:
        live = set(self.memory)
        while live:
            ready = [number for number in sorted(live) if self.can_go(number)]
            if not ready:
                self.replay.stuck = sorted(live)
                break
            number = ready[0] if self.random is None else self.random.choice(ready)
            steps = 1 << 30 if self.random is None else self.random.randrange(1, 200)
            while steps and self.at[number] < len(self.program.tasks[number].ops):
                if not self.can_go(number):
                    break
                self.step(number, live)
                steps -= 1
            if self.at[number] == len(self.program.tasks[number].ops) and self.can_go(number):
                live.discard(number)
        return self.replay

    def ended(self, number: int) -> bool:
        return number in self.memory and self.at[number] == len(self.program.tasks[number].ops)

    def can_go(self, number: int) -> bool:
        ops, at = self.program.tasks[number].ops, self.at[number]
        if at:
            before = ops[at - 1]
            child = int(before["aux"])
            if OPS_BY_CODE[int(before["op"])].name == "vfork":
                shares = self.memory[child] is self.memory[number]
                if shares and not self.ended(child):
                    return False
        if at == len(ops):
            return True
        op = OPS_BY_CODE[int(ops[at]["op"])].name
        aux = int(ops[at]["aux"])
        return not (
            (op == "await" and aux not in self.posted) or (op == "wait" and not self.ended(aux))
        )

    def step(self, number: int, live: set[int]) -> None:
        record = self.program.tasks[number].ops[self.at[number]]
        self.at[number] += 1
        op, memory = OPS_BY_CODE[int(record["op"])].name, self.memory[number]
        addr, aux = int(record["addr"]), int(record["aux"])
        end = addr + page_up(int(record["length"]))
        if op in ALLOWS:
            self.replay.accesses += 1
            self.replay.hits += bool((memory.areas.get(addr) or 0) & ALLOWS[op])
        elif op == "mmap":
            memory.areas.set(addr, end, int(record["prot"]))
        elif op == "munmap":
            memory.areas.clear(addr, end)
        elif op == "mprotect":
            for low, high, _ in list(memory.areas.items(addr, end)):
                memory.areas.set(low, high, int(record["prot"]))
        elif op == "brk":
            memory.brk = int(record["addr2"]) or memory.brk
            low, high = sorted((page_up(memory.brk), page_up(memory.brk + addr)))
            memory.areas.clear(low, high)
            if addr > 0:
                memory.areas.set(low, high, 3)
            memory.brk += addr
        elif op in ("fork", "vfork", "clone"):
            live.add(aux)
            self.memory[aux] = memory
            if op == "fork":
                self.memory[aux] = Memory(memory.areas.copy(), memory.brk)
        elif op == "exec":
            self.memory[number] = Memory(brk=addr)
        elif op == "post":
            self.posted.add(aux)


def replay(program: Program, seed: int | None = None) -> Replay:
    """Replays a program on the flat model."""
    return Flat(program, seed).run()
