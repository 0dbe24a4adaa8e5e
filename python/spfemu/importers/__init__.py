"""Recordings of real programs, made into programs: ``import_trace``.

A recording is the text that ``perf script`` prints of system calls and page faults, or, without
root, strace's text with a perf script of page-faults:u. ``spfemu.importers.record`` makes
recordings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from spfemu.errors import TraceError
from spfemu.importers.events import Event
from spfemu.importers.lines import LineReader, Progress
from spfemu.importers.perf import FIELDS, HEADER, read_perf
from spfemu.importers.strace import LINE, read_strace
from spfemu.importers.summary import ImportSummary
from spfemu.importers.timeline import with_calls, with_gaps
from spfemu.importers.translate import Translator
from spfemu.program import Program

__all__ = ["ImportSummary", "Imported", "import_trace", "looks_like_trace"]


class Imported(NamedTuple):
    """A program made of a recording, and the account of what was taken from it. Source: ours."""

    program: Program
    summary: ImportSummary


def import_trace(
    paths: Sequence[str | Path] | str | Path, *, progress: Progress | None = None
) -> Imported:
    """Makes a program of a recording.

    One path names perf script text; two name strace text and a perf script of page-faults:u of the
    same run, in either order. Each may be plain, .gz or .zst (told by content), one may be ``"-"``.
    Text is read once, as a stream: beside the program, memory does not grow with it. ``progress``
    is called now and then with the number of bytes read from a file so far. Source: perf-script(1),
    strace(1); what becomes of each event stands in docs/importing.md. Raises TraceError, with file
    and line, for text that is broken, cut short, binary or empty; ProgramError when what was
    recorded makes no valid program. The same text gives the same program, byte for byte.

    >>> import pathlib, tempfile
    >>> text = (
    ...     "a 7/7 [000] 1.000001000: PERF_RECORD_COMM exec: a:7/7\\n"
    ...     "a 7/7 [000] 1.000002000: syscalls:sys_enter_mmap: "
    ...     "addr: 0x0, len: 0x2000, prot: 0x3, flags: 0x22, fd: 0xffffffff, off: 0x0\\n"
    ...     "a 7/7 [000] 1.000003000: syscalls:sys_exit_mmap: 0x7f0000000000\\n"
    ...     "a 7/7 [000] 1.000004000: exceptions:page_fault_user: "
    ...     "address=0x7f0000001008 ip=0x400000 error_code=0x6\\n"
    ... )
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = pathlib.Path(directory, "a.perf.txt")
    ...     _ = path.write_text(text)
    ...     program, summary = import_trace(path)
    >>> [op["op"] for op in program.to_dict()["tasks"][0]["ops"]]
    ['exec', 'compute', 'mmap', 'compute', 'write']
    >>> summary.faults
    1
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    readers = [LineReader(path, progress) for path in paths]
    straces: list[LineReader] = []
    perfs: list[LineReader] = []
    for reader in readers:
        (straces if _is_strace(reader) else perfs).append(reader)
    if len(perfs) != 1 or len(straces) > 1:
        raise TraceError(
            readers[0].name if readers else "<trace>",
            0,
            f"{len(perfs)} perf scripts and {len(straces)} strace texts; expected one perf script, "
            "or one strace text and the perf script of page-faults:u that belongs to it",
        )
    events: Iterator[Event] = read_perf(perfs[0])
    root = None
    if straces:
        calls = read_strace(straces[0])
        first = next(calls)
        root = first.tid
        events = merge(events, chain([first], calls), key=lambda event: event.time)
    translator = Translator(root)
    translator.add(with_calls(with_gaps(events)))
    program = translator.finish(perfs[0].name)
    translator.summary.nr_lines = sum(reader.line for reader in readers)
    return Imported(program, translator.summary)


def looks_like_trace(path: str | Path) -> bool:
    """Tells whether a file is a recording, by its first lines.

    Packed files are looked into. Source: ours. Returns False for a file that cannot be read, and
    for ``"-"``, which can be read only once.
    """
    if str(path) == "-":
        return False
    try:
        _is_strace(LineReader(path))
    except TraceError:
        return False
    return True


def _is_strace(reader: LineReader) -> bool:
    first = reader.peek()
    if HEADER.match(first) is not None:
        return False
    if LINE.match(first) is not None:
        return True
    raise reader.error(
        f"is neither perf script text (fields {FIELDS}) nor strace -f -ttt text: {first[:80]!r}"
    )
