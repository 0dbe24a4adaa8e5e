"""Running a few operations on the model, said as briefly as a test needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spfemu.profiles import Arch
from spfemu.program import FileSpec, ProgramBuilder, System, TaskBuilder
from spfemu.reference import run
from spfemu.results import Result
from tests.reference.arches import X86

A = 0x1000_0000_0000
"""Where the tests map: the start of an entry of every table of every arch."""

P = 4096
"""A page of X86."""


@dataclass(frozen=True)
class Played:
    """What came of the operations: outcomes as JSON objects, and the final maps."""

    result: Result
    outcomes: list[dict[str, Any]]
    maps: list[str]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.outcomes[index]

    @property
    def last(self) -> dict[str, Any]:
        return self.outcomes[-1]

    def errnos(self) -> list[str | None]:
        return [outcome["errno"] for outcome in self.outcomes]

    def areas(self, base: int = A, page: int = P) -> list[str]:
        """The final VMAs as "first-end perms", in pages from `base`."""
        found = []
        for line in self.maps:
            span, perms, _ = line.split()
            start, end = (int(part, 16) - base for part in span.split("-"))
            assert start % page == end % page == 0
            found.append(f"{start // page}-{end // page} {perms}")
        return found


def play(
    ops: Callable[[TaskBuilder], None],
    *,
    arch: Arch = X86,
    handler: str = "spf",
    threads: int = 2,
    files: tuple[FileSpec, ...] = (),
    system: System | None = None,
    variants: Mapping[str, str] | None = None,
) -> Played:
    """Runs the operations in the first of `threads` tasks; the others wait until it is done."""
    builder = ProgramBuilder(page_size=1 << arch.page_shift, system=system)
    for file in files:
        builder.file(file.name, file.length, kind=file.kind, cached=file.cached)
    first = builder.task("t0")
    ops(first)
    first.post("done")
    for _ in range(threads - 1):
        builder.task().await_("done")
    result = run(builder.build(), arch=arch, handler=handler, variants=variants)
    outcomes = [result.outcome(record) for record in result.task_ops(0)]
    return Played(result, outcomes[:-1], list(result.maps["t0"]))
