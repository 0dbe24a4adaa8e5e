"""A long recording needs the memory of its program, and little more."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

from spfemu.importers import Imported, import_trace
from tests.importers.text import THREAD, Recording

MIB = 1 << 20
A = 0x7F00_0000_0000


def imported(recording: Recording, directory: Path) -> tuple[Imported, int]:
    """Imports a recording; also returns the most memory that it had at a time."""
    path = directory / "a.perf.txt"
    path.write_text("\n".join(recording.lines) + "\n")
    recording.lines.clear()
    tracemalloc.start()
    try:
        found = import_trace(path)
        return found, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_lines_that_become_nothing_need_nothing(tmp_path: Path) -> None:
    recording = Recording()
    recording.exec(1)
    for number in range(20_000):
        recording.line(1, 1, f"kmem:mm_page_alloc: page=0x{number:x} pfn=0x{number:x} order=0")
    found, peak = imported(recording, tmp_path)
    assert found.summary.skipped["event kmem:mm_page_alloc"] == 20_000
    assert peak < 2 * MIB


def test_nothing_is_there_twice(tmp_path: Path) -> None:
    # Two threads map, touch and unmap: the same pages again and again.
    recording = Recording()
    recording.exec(1)
    recording.clone(1, 1, 2, THREAD)
    for number in range(4_500):
        tid = 1 + number % 2
        start = A + tid * MIB
        recording.mmap(1, tid, start, 16 << 12)
        for page in range(8):
            recording.fault(1, tid, start + (page << 12))
        recording.call(1, tid, "munmap", 0, addr=start, len=16 << 12)
    found, peak = imported(recording, tmp_path)
    assert found.summary.faults == 36_000
    tasks = found.program.tasks
    size = sum(
        task.ops.nbytes + (task.sites.nbytes if task.sites is not None else 0) for task in tasks
    )
    assert peak < size * 1.1 + 7 * MIB
