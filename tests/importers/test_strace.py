"""strace text, line by line, and together with the page faults that perf saw."""

from __future__ import annotations

from pathlib import Path

import pytest

from spfemu.errors import TraceError
from spfemu.importers import import_trace
from spfemu.importers.events import Ended, Enter, Event, Exit, Skipped
from spfemu.importers.lines import LineReader
from spfemu.importers.strace import read_strace
from spfemu.importers.tape import CODE
from tests.importers.text import ops


def read(directory: Path, text: str) -> list[Event]:
    path = directory / "strace.txt"
    path.write_text(text)
    return list(read_strace(LineReader(path)))


@pytest.mark.parametrize(
    ("text", "name", "args", "result"),
    [
        ("brk(NULL)       = 0x5578df8ac000", "brk", {"brk": 0}, 0x5578DF8AC000),
        ("mmap(NULL, 48807, PROT_READ, MAP_PRIVATE|MAP_DENYWRITE, 3, 0x26000) = 0x7fcffea86000",
         "mmap", {"addr": 0, "len": 48807, "prot": 1, "flags": 0x802, "fd": 3, "off": 0x26000},
         0x7FCFFEA86000),
        ("mmap(0x10, 4096, PROT_NONE, MAP_SHARED|0x800000, 3</a, b>, 0) = -1 ENOMEM (Cannot …)",
         "mmap", {"addr": 0x10, "len": 4096, "prot": 0, "flags": 0x800001, "fd": 3}, -12),
        ("mprotect(0x1000, 8192, PROT_READ|PROT_WRITE|PROT_EXEC) = 0", "mprotect",
         {"start": 0x1000, "len": 8192, "prot": 7}, 0),
        ("madvise(0x1000, 65536, MADV_DONTNEED) = 0", "madvise",
         {"start": 0x1000, "len_in": 65536, "behavior": 4}, 0),
        ("madvise(0x1000, 65536, 0x66 /* MADV_??? */) = -1 EINVAL (Invalid argument)", "madvise",
         {"start": 0x1000, "len_in": 65536, "behavior": 0x66}, -22),
        ("mremap(0x1000, 4096, 8192, MREMAP_MAYMOVE) = 0x9000", "mremap",
         {"addr": 0x1000, "old_len": 4096, "new_len": 8192, "flags": 1}, 0x9000),
        ("clone3({flags=CLONE_VM|CLONE_VFORK, exit_signal=SIGCHLD}, 88) = 18", "clone3",
         {"clone_flags": 0x4100}, 18),
        ("clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x7) = 18",
         "clone", {"clone_flags": 0}, 18),
        ("vfork() = 18", "vfork", {"clone_flags": 0x4100}, 18),
        ("wait4(-1, [{WIFEXITED(s) && WEXITSTATUS(s) == 0}], 0, NULL) = 18", "wait4",
         {"upid": -1}, 18),
        ('execve("/a (b) = 3", ["a"], 0x7ffc /* 38 vars */) = 0', "execve", {}, 0),
    ],
)  # fmt: skip
def test_reads_a_call(
    tmp_path: Path, text: str, name: str, args: dict[str, int], result: int
) -> None:
    enter, end = read(tmp_path, f"17 1.5 {text}\n")
    assert isinstance(enter, Enter)
    assert isinstance(end, Exit)
    assert (enter.name, end.name, end.early) == (name, name, True)
    assert args.items() <= enter.args.items()
    assert end.result == result
    assert enter.time == end.time == 1_500_000_000


def test_reads_beginnings_and_ends_on_lines_of_their_own(tmp_path: Path) -> None:
    text = """\
[pid 18] 1.000000001 mprotect(0x1000, 4096, PROT_READ <unfinished ...>
17 1.1 munmap(0x2000, 4096) = 0 <0.000123>
18 1.2 <... mprotect resumed>) = 0
18 1.3 exit(0) = ?
17 1.4 <... futex resumed> <unfinished ...>) = ?
17 1.5 --- SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=NULL} ---
17 1.6 +++ exited with 0 +++
"""
    events = read(tmp_path, text)
    assert [type(event) for event in events] == [
        *(Enter, Enter, Exit, Exit),
        *(Enter, Skipped, Ended),
    ]
    assert events[2].time == events[1].time + 123_000
    assert isinstance(events[2], Exit)
    assert not events[2].early
    assert isinstance(events[5], Skipped)
    assert events[5].kind == "signal SIGSEGV"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("munmap(0x1000, 4096) = 0", "not a line of strace"),
        ("17 munmap(0x1000, 4096) = 0", "not a line of strace"),
        ("17 1.5 munmap(0x1000, 40", "munmap without its result"),
        ("17 1.5 <... munmap resumed>) =", "munmap without its result"),
        ("17 1.5 munma", "neither a call nor its end"),
    ],
)
def test_a_broken_line_is_an_error_with_file_and_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(TraceError, match=message) as caught:
        read(tmp_path, f"17 1.5 brk(NULL) = 0x1000\n{text}\n")
    assert caught.value.line == 2


HEAD = """\
perf-exec 0/0 0.000000000: PERF_RECORD_COMM: perf-exec:17/17
strace 16/16 1.000: PERF_RECORD_COMM exec: strace:16/16
strace 16/16 1.001: page-faults:u: 7f0000000000 7f0000000000
strace 16/16 1.002: PERF_RECORD_FORK(17:17):(16:16)
strace 17/17 1.003: page-faults:u: 7f0000000000 7f0000000000
"""


def both(directory: Path, strace: str, perf: str) -> list[Path]:
    calls, faults = directory / "a.strace.txt", directory / "a.perf.txt"
    calls.write_text(strace)
    faults.write_text(HEAD + perf)
    return [faults, calls]


def test_the_traced_program_begins_at_its_exec(tmp_path: Path) -> None:
    strace = '17 1.1 execve("/a", ["a"], 0x0) = 0\n17 1.5 brk(NULL) = 0x8000\n17 1.6 exit(0) = ?\n'
    perf = """\
a 17/17 1.2: PERF_RECORD_COMM exec: a:17/17
a 17/17 1.3: PERF_RECORD_MMAP2 17/17: [0x400000(0x2000) @ 0 fe:00 1 0]: r-xp /a
a 17/17 1.4: page-faults:u: 400010 400010
a 17/17 1.45: page-faults:u: 400020 500010
a 17/17 1.7: PERF_RECORD_EXIT(17:17):(16:16)
"""
    imported = import_trace(both(tmp_path, strace, perf))
    assert ops(imported) == ["exec", "mmap", "execute", "read", "brk", "exit"]
    assert imported.summary.guessed["access of a fault"] == 2
    assert imported.summary.skipped["event of the recorder"] == 3
    assert not imported.summary.unresolved
    records = imported.program.tasks[0].ops
    assert records["addr"][records["op"] == CODE["exec"]].tolist() == [0x8000]


def test_the_first_of_two_faults_on_a_page_was_a_read(tmp_path: Path) -> None:
    strace = """\
17 1.1 execve("/a", ["a"], 0x0) = 0
17 1.5 mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x10000
17 1.9 madvise(0x10000, 4096, MADV_DONTNEED) = 0
"""
    perf = """\
a 17/17 1.2: PERF_RECORD_COMM exec: a:17/17
a 17/17 1.6: page-faults:u: 10000 400
a 17/17 1.7: page-faults:u: 11000 400
a 17/17 1.8: page-faults:u: 11008 400
a 17/17 1.95: page-faults:u: 10000 400
"""
    imported = import_trace(both(tmp_path, strace, perf))
    # Page 10: written, emptied, written. Page 11: read, then written.
    assert ops(imported)[1:] == ["mmap", "write", "read", "write", "madvise", "write"]


def test_takes_the_name_of_a_file_from_perf(tmp_path: Path) -> None:
    strace = """\
17 1.1 execve("/a", ["a"], 0x0) = 0
17 1.5 mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, 3, 0x1000) = 0x10000
17 1.8 mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, 4, 0) = 0x20000
17 1.9 brk(NULL) = 0x8000
"""
    perf = """\
a 17/17 1.2: PERF_RECORD_COMM exec: a:17/17
a 17/17 1.6: PERF_RECORD_MMAP2 17/17: [0x10000(0x2000) @ 0x1000 fe:00 1 0]: r--p /lib/x
"""
    program, summary = import_trace(both(tmp_path, strace, perf))
    assert [(file.name, file.length) for file in program.files] == [
        ("/lib/x", 0x3000),
        ("fd 4", 0x2000),
    ]
    assert summary.guessed["file of an mmap"] == 1
