"""One process of a campaign: draws, checks, shrinks, and tells the parent."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Final
from unittest import SkipTest

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis.database import ExampleDatabase
from hypothesis.errors import Flaky

from spfemu.fuzzing.findings import found_of, known_keys
from spfemu.fuzzing.plan import KINDS, Plan, example_database
from spfemu.fuzzing.properties import BrokenError, Example, check, examples, smallest
from spfemu.testing.agreement import program_text

__all__ = ["work"]

_EXAMPLES: Final = 10
"""Examples of one round; then what others found meanwhile is known. After ten hypothesis begins to
try each example with parts of it repeated, five times: hardly ever that is a race that is new.
"""
_TELL_S: Final = 0.25
_MINIMISING_S: Final = 60.0
"""How long a finding is made smaller."""


class _Stop(BaseException):
    """Time is up: no failure, so hypothesis lets it pass."""


@dataclass(slots=True)
class _Tally:
    """What was not told yet."""

    programs: int = 0
    runs: int = 0
    covered: set[str] = field(default_factory=set)
    told_at: float = 0.0


class _Written(ExampleDatabase):
    """A database that is only written. What fails stays there for others, though this worker knows
    it by now and lets it pass, whereupon hypothesis would take it out."""

    def __init__(self, inner: ExampleDatabase) -> None:
        super().__init__()
        self.inner = inner

    def fetch(self, key: bytes) -> Iterable[bytes]:
        return ()

    def save(self, key: bytes, value: bytes) -> None:
        self.inner.save(key, value)

    def move(self, src: bytes, dest: bytes, value: bytes) -> None:
        self.inner.move(src, dest, value)

    def delete(self, key: bytes, value: bytes) -> None:
        pass


class _Worker:
    def __init__(self, plan: Plan, number: int, pipe: Connection, end: Event) -> None:
        self.plan, self.number = plan, number
        self.pipe, self.end = pipe, end
        self.tally = _Tally()
        self.settings = plan.explored_with()
        self.known: set[str] = set()
        self.broken: tuple[Example, BrokenError] | None = None

    def run(self) -> None:
        database = example_database(self.plan)
        try:
            # What others found, or what an interrupted campaign was at: once, for all it is worth.
            for turn, kind in enumerate(
                dict.fromkeys(self.plan.kind_of(self.number, turn) for turn in (0, 1)), -2
            ):
                self._round(turn, kind, database, (Phase.reuse,))
            written = _Written(database)
            for turn in itertools.count():
                self.known |= known_keys(self.plan.folder, self.settings)
                kind = self.plan.kind_of(self.number, turn)
                self._round(turn, kind, written, (Phase.reuse, Phase.generate))
        except _Stop:
            self._tell()

    def _round(
        self, turn: int, kind: str, database: ExampleDatabase, phases: tuple[Phase, ...]
    ) -> None:
        # Two names: whoever uses this database has the examples of each apart.
        def engines_agree(example: Example) -> None:
            self._check("differential", example)

        def nothing_breaks(example: Example) -> None:
            self._check("exploring", example)

        # What the explorer finds it makes smaller itself, faster and further (``smallest``).
        if kind == KINDS[0]:
            phases = (*phases, Phase.shrink)
        test = given(examples(kind))(engines_agree if kind == KINDS[0] else nothing_breaks)
        told = settings(
            max_examples=_EXAMPLES,
            deadline=None,
            database=database,
            phases=phases,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            print_blob=False,
            verbosity=Verbosity.quiet,
        )
        if self.plan.seed is not None:
            test = seed(f"{self.plan.seed} {self.number} {turn}")(test)
        self.broken = None
        try:
            told(test)()
        except SkipTest:
            pass  # nothing in the database
        except (BrokenError, Flaky):
            self._report_broken()

    def _check(self, kind: str, example: Example) -> None:
        if self.end.is_set():
            if self.broken is not None:
                self._report_broken()
            raise _Stop
        self.tally.programs += 1
        try:
            check(kind, example, self.settings, lambda runs, seen: self._ran(example, runs, seen))
        except BrokenError as broken:
            if broken.key in self.known:
                return
            self.broken = example, broken
            raise
        finally:
            if time.monotonic() - self.tally.told_at > _TELL_S:
                self._tell()

    def _ran(self, example: Example, runs: int, seen: frozenset[str]) -> None:
        self.tally.runs += runs
        new = seen - self.tally.covered
        if new:
            self.tally.covered |= new
            text = program_text(example.program)
            self.pipe.send(("corpus", sorted(new), {"program": text, "how": example.how}))

    def _report_broken(self) -> None:
        if self.broken is None:
            # It was: time was up while hypothesis replayed it, and put _Stop into a Flaky.
            raise _Stop
        example, broken = self.broken
        self.broken = None
        self.known.add(broken.key)
        until = time.monotonic() + _MINIMISING_S

        def look(_share: float) -> None:
            if self.end.is_set() or time.monotonic() > until:
                raise KeyboardInterrupt

        program, what, how = smallest(example.program, broken, self.settings, look)
        self.pipe.send(("found", found_of(program, broken.key, what, self.settings, how)))

    def _tell(self) -> None:
        tally = self.tally
        self.pipe.send(("ran", tally.programs, tally.runs))
        tally.programs = tally.runs = 0
        tally.told_at = time.monotonic()


def work(plan: Plan, number: int, pipe: Connection, end: Event) -> None:
    """Runs until ``end`` is set. Source: ours. Ctrl-C is the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        _Worker(plan, number, pipe, end).run()
    except Exception as error:  # a bug of ours: the parent says which, and ends
        pipe.send(("failed", f"{type(error).__name__}: {error}"))
    pipe.close()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
