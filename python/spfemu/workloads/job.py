"""What every built-in workload shares: options, threads, and the figures of a result."""

from __future__ import annotations

import getopt
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from spfemu.errors import ProgramError
from spfemu.program.model import Program
from spfemu.program.task_builder import TaskBuilder
from spfemu.program.values import shown
from spfemu.results import Result

__all__ = [
    "DEFAULT_CPUS",
    "KIB",
    "MAX_TASKS",
    "MIB",
    "MMAP_THRESHOLD",
    "NS",
    "STACK_SIZE",
    "TOP_PAD",
    "Arguments",
    "Job",
    "Option",
    "make_arena",
    "rate",
    "round_up",
    "start_thread",
]

KIB: Final = 1 << 10
MIB: Final = 1 << 20
NS: Final = 1_000_000_000

DEFAULT_CPUS: Final = 4
"""The CPUs that a workload assumes when nobody says how many there are."""

STACK_SIZE: Final = 8 * MIB
"""What pthread_create maps for a stack, without the guard page. Source: the usual RLIMIT_STACK."""

MAX_TASKS: Final = 16384

# The constants of glibc's malloc on 64 bits. Source: the M_* parameters in mallopt(3), and
# arena.c's HEAP_MAX_SIZE.
MMAP_THRESHOLD: Final = 128 * KIB
TOP_PAD: Final = 128 * KIB
ARENA_SIZE: Final = 64 * MIB


@dataclass(frozen=True, slots=True)
class Option:
    """One option letter of a workload. Source: the original's usage text.

    ``value`` names the argument; "" says that the option is a switch.
    """

    letter: str
    value: str
    help: str


class Job:
    """A workload with its options set, ready to become a program.

    Source: ours. ``nr_tasks`` is how many threads or processes do the work.
    """

    nr_tasks: int

    def build(self, *, page_size: int = 4096, seed: int = 0) -> Program:
        """Returns the program.

        Source: ours. ``page_size`` in bytes (4096); ``seed`` fixes every random draw (0).
        Deterministic.
        """
        raise NotImplementedError

    def figures(self, result: Result) -> dict[str, int | float]:
        """Returns the workload's own figures of a result. Source: the original's output."""
        raise NotImplementedError


def rate(count: int, result: Result) -> float:
    """Returns a count per second of what `measured_ns` says. Source: ours."""
    time = measured_ns(result)
    return count * NS / time if time else 0.0


def measured_ns(result: Result) -> int:
    """Returns the time between the tasks' first note and their last; without, the whole run's.

    Source: ours. What comes before and after is no part of what the original measures: setting up,
    and taking down what the process has.
    """
    noted = [times for times in result.noted_ns if times is not None]
    if not noted:
        return result.elapsed_ns
    return max(last for _, last in noted) - min(first for first, _ in noted)


def round_up(number: int, unit: int) -> int:
    """Returns the multiple of ``unit`` at or above a number. Source: ours."""
    return -(-number // unit) * unit


def start_thread(main: TaskBuilder, thread: TaskBuilder, number: int, page_size: int) -> None:
    """Appends what pthread_create does: stack, guard, descriptor at the top, clone."""
    stack = f"stack{number}"
    size = STACK_SIZE + page_size
    main.mmap(size, prot="none", flags=("private", "anonymous", "stack"), id=stack)
    main.mprotect((stack, page_size), STACK_SIZE, "rw")
    main.write((stack, size - page_size))
    main.clone(thread)


def make_arena(thread: TaskBuilder, number: int, used: int, page_size: int) -> None:
    """Appends the arena of a thread's first malloc, writable as far as ``used`` bytes ask for.

    Source: glibc, malloc/arena.c: 64 MiB reserved, made writable as they are needed.
    """
    area = f"arena{number}"
    length = max(ARENA_SIZE, 2 * round_up(used, page_size))
    thread.mmap(length, prot="none", flags=("private", "anonymous", "noreserve"), id=area)
    thread.mprotect((area, 0), round_up(used, page_size), "rw")
    thread.write((area, 0))


class Arguments:
    """The options that a user gave, getopt style; every message names the workload and letter."""

    def __init__(self, name: str, options: Sequence[Option], arguments: Sequence[str]) -> None:
        self.name = name
        self.allowed = ", ".join(f"-{o.letter} {o.value}".rstrip() for o in options)
        letters = "".join(o.letter + (":" if o.value else "") for o in options)
        try:
            pairs, rest = getopt.getopt(list(arguments), letters)
        except getopt.GetoptError as error:
            self.fail(f"{error.msg} (allowed: {self.allowed})")
        if rest:
            self.fail(f"argument {shown(rest[0])} (allowed: {self.allowed})")
        self.given = {flag[1:]: value for flag, value in pairs}

    def fail(self, message: str) -> NoReturn:
        """Raises ProgramError with the workload's name in front. Source: ours."""
        raise ProgramError(f"{self.name}: {message}")

    def switch(self, letter: str) -> bool:
        """Says whether an option is there. Source: ours."""
        return letter in self.given

    def integer(self, letter: str, default: int, low: int, high: int) -> int:
        """Returns the number of an option. Source: ours. Raises ProgramError outside the range."""
        text = self.given.get(letter)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            self.fail(f"option -{letter}: value {shown(text)} (allowed: {low} to {high})")
        return int(text)

    def seconds(self, letter: str, default: float) -> float:
        """Returns the seconds of an option. Source: ours. Raises ProgramError for other values."""
        text = self.given.get(letter)
        try:
            seconds = default if text is None else float(text)
        except ValueError:
            seconds = math.nan
        if not 1e-9 <= seconds <= 1e6:
            self.fail(f"option -{letter}: value {shown(text)} (allowed: above 0, up to 1e6)")
        return seconds
