"""perf script text, line by line: what is read, and what is broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from spfemu.errors import TraceError
from spfemu.importers import import_trace
from spfemu.importers.events import (
    Ended,
    Enter,
    Event,
    Exec,
    Exit,
    Fault,
    Forked,
    Lost,
    Mapped,
    NewTask,
    Renamed,
    Skipped,
    Switched,
)
from spfemu.importers.lines import LineReader
from spfemu.importers.perf import read_perf

HEAD = "  a b/1:2  12/34    [003]  1596.979674206: "

Read = Callable[[str], list[Event]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read_text(text: str) -> list[Event]:
        path = tmp_path / "trace.txt"
        path.write_text(text)
        return list(read_perf(LineReader(path)))

    return read_text


def test_reads_the_head_of_a_line(read: Read) -> None:
    (event,) = read(HEAD + "syscalls:sys_exit_brk: 0x1000\n")
    assert (event.time, event.tid, event.pid, event.cpu) == (1596979674206, 34, 12, 3)
    assert event.comm == "a b/1:2"


def test_reads_times_of_any_precision_and_lines_without_a_cpu(read: Read) -> None:
    (event,) = read("a 1/2 7.5: syscalls:sys_exit_brk: 0x1000\n")
    assert (event.time, event.cpu) == (7_500_000_000, -1)


@pytest.mark.parametrize(
    ("text", "event", "fields"),
    [
        ("exceptions:page_fault_user: address=0x7f00 ip=0x40 error_code=0x14", Fault,
         {"address": 0x7F00, "ip": 0x40, "access": 2, "user": True}),
        ("exceptions:page_fault_kernel: address=0x10 ip=_copy_to_user error_code=0x2", Fault,
         {"address": 0x10, "ip": "_copy_to_user", "access": 1, "user": False}),
        ("exceptions:page_fault_user: address=0x10 ip=0x4 error_code=0x4", Fault, {"access": 0}),
        ("page-faults:u:     7f80e03fab70     7f80e03fab7f", Fault,
         {"address": 0x7F80E03FAB70, "ip": 0x7F80E03FAB7F, "access": None, "user": True}),
        ("1 page-faults:  7f80e03fab70  7f80e03fab7f main+0x3 (/a)", Fault, {"user": True}),
        ("syscalls:sys_enter_brk: brk: 0x00001000", Enter,
         {"name": "brk", "args": {"brk": 0x1000}}),
        ("syscalls:sys_enter_execve: filename: 0x7f (\"/a\"), argv: 0x1", Enter,
         {"args": {"filename": 0x7F, "argv": 1}}),
        ("syscalls:sys_exit_mmap: 0xfffffffffffffff4", Exit, {"name": "mmap", "result": -12}),
        ("task:task_newtask: pid=9 comm=x y clone_flags=3d0f00 oom_score_adj=0", NewTask,
         {"child": 9, "flags": 0x3D0F00}),
        ("PERF_RECORD_FORK(12:35):(12:34)", Forked,
         {"child": 35, "child_pid": 12, "parent": 34, "parent_pid": 12, "flags": None}),
        ("PERF_RECORD_EXIT(12:35):(1:1)", Ended, {"child": 35}),
        ("sched:sched_process_exit: comm=x pid=35 prio=120 group_dead=false", Ended,
         {"child": 35}),
        ("PERF_RECORD_COMM: mc:log:12/35", Renamed,
         {"child": 35, "name": "mc:log", "execed": False}),
        ("PERF_RECORD_COMM exec: x:12/12", Renamed, {"child": 12, "execed": True}),
        ("sched:sched_process_exec: filename=/a b pid=12 old_pid=34", Exec, {"old_tid": 34}),
        ("sched:sched_switch: prev_comm=a prev_pid=34 prev_prio=120 prev_state=S ==> next_comm=b"
         " next_pid=9 next_prio=120", Switched, {"successor": 9}),
        ("PERF_RECORD_MMAP2 12/34: [0x7000(0x2000) @ 0x1000 fe:00 260946 0]: r-xp /a b", Mapped,
         {"start": 0x7000, "length": 0x2000, "offset": 0x1000, "prot": 5, "shared": False,
          "name": "/a b"}),
        ("PERF_RECORD_MMAP2 12/34: [0x7000(0x2000) @ 0 <5f3c>]: rw-s //anon", Mapped,
         {"offset": 0, "prot": 3, "shared": True}),
        ("PERF_RECORD_MMAP -1/0: [0xffffffff81000000(0x12090c8) @ 0]: x [kernel.kallsyms]_text",
         Skipped, {"kind": "mapping of the kernel"}),
        ("PERF_RECORD_LOST lost 17", Lost, {"count": 17}),
        ("PERF_RECORD_SWITCH OUT", Skipped, {"kind": "PERF_RECORD_SWITCH"}),
        ("cycles:u:  7f00 main", Skipped, {"kind": "event cycles:u"}),
    ],
)  # fmt: skip
def test_reads_an_event(
    read: Read, text: str, event: type[Event], fields: dict[str, object]
) -> None:
    (found,) = read(HEAD + text + "\n")
    assert type(found) is event
    assert {name: getattr(found, name) for name in fields} == fields


def test_passes_over_comments_empty_lines_and_call_chains(read: Read) -> None:
    chain = "\t    7f80e03fab70 main+0x12 (/usr/bin/a)\n\n"
    assert len(read(f"# comment\n\n{HEAD}syscalls:sys_exit_brk: 0x1\n{chain}")) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello", "not a line of perf script"),
        (HEAD.rstrip(": "), "not a line of perf script"),
        (HEAD + "exceptions:page_fault_user: address=0x7ff5", "broken line: page_fault_user"),
        (HEAD + "exceptions:page_fault_kernel: address=0x7 ip=f error_", "page_fault_kernel"),
        (HEAD + "page-faults:u: 7f00", "an address and an ip"),
        (HEAD + "syscalls:sys_exit_mmap: ", "sys_exit_mmap without a result"),
        (HEAD + "task:task_newtask: pid=9 comm=x", "task_newtask without"),
        (HEAD + "sched:sched_process_exec: filename=/a", "sched_process_exec without"),
        (HEAD + "sched:sched_process_exit: comm=a", "sched_process_exit without"),
        (HEAD + "sched:sched_switch: prev_comm=a", "sched_switch without"),
        (HEAD + "PERF_RECORD_MMAP2 12/34: [0x7000(0x20", "PERF_RECORD_MMAP2 without"),
        (HEAD + "PERF_RECORD_FORK(12:35):(12", "PERF_RECORD_FORK"),
        (HEAD + "PERF_RECORD_COMM: x", "PERF_RECORD_COMM"),
        (HEAD + "???", "no event name"),
    ],
)
def test_a_broken_line_is_an_error_with_file_and_line(
    read: Read, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(TraceError) as caught:
        read(f"{HEAD}syscalls:sys_exit_brk: 0x1\n{text}\n")
    assert caught.value.file == str(tmp_path / "trace.txt")
    assert caught.value.line == 2
    assert message in caught.value.message


@pytest.mark.parametrize("at", range(60, 160, 7))
def test_a_text_cut_in_its_last_line_is_an_error(tmp_path: Path, at: int) -> None:
    line = HEAD + "exceptions:page_fault_user: address=0x7f0000001000 ip=0x400000 error_code=0x6\n"
    path = tmp_path / "t"
    path.write_text(line + line[: at - 60])
    if at == 60:
        assert import_trace(path).summary.faults == 1
        return
    with pytest.raises(TraceError) as caught:
        import_trace(path)
    assert caught.value.line == 2


@pytest.mark.parametrize("text", ["hello\n", '{"format": "spfemu-program/1"}\n'])
def test_another_text_is_refused_at_its_first_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t"
    path.write_text("\n" + text)
    with pytest.raises(TraceError, match="neither perf script text") as caught:
        import_trace(path)
    assert caught.value.line == 2


def test_a_recording_without_tasks_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text("swapper 0/0 [000] 1.0: syscalls:sys_exit_brk: 0x1\n")
    with pytest.raises(TraceError, match="holds no task"):
        import_trace(path)


def test_comments_alone_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text("# nothing\n\n")
    with pytest.raises(TraceError, match="holds no events"):
        import_trace(path)


@pytest.mark.parametrize("count", [0, 2, 3])
def test_the_wrong_number_of_recordings_is_an_error(tmp_path: Path, count: int) -> None:
    path = tmp_path / "t"
    path.write_text("a 1/1 [000] 1.5: syscalls:sys_exit_brk: 0x1\n")
    with pytest.raises(TraceError, match="expected one perf script"):
        import_trace([path] * count)


def test_strace_alone_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text('17 1.5 execve("/a", ["a"], 0x0) = 0\n')
    with pytest.raises(TraceError, match="0 perf scripts and 1 strace"):
        import_trace(path)
