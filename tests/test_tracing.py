"""The series' tracepoints: what they record, and ftrace's text of it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import spfemu
from spfemu.cli import main
from spfemu.program.ops import TRACE_DTYPE
from spfemu.workloads import make_job

P = 4096
A = 0x10_0000
LINE = re.compile(
    r" *(?P<comm>\S+)-(?P<pid>\d+) +\[(?P<cpu>\d{3})\] (?P<irqs>[d.])\.\.\. +(?P<time>\d+\.\d{6}): "
    r"(?P<event>spf_\w+): ip:0 vma:(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) "
    r"address:(?P<address>[0-9a-f]+)"
)


def traced(program: spfemu.Program, **how: Any) -> tuple[spfemu.Result, list[re.Match[str]]]:
    result = spfemu.run(program, trace=True, **how)
    lines = [line for line in spfemu.trace_lines(result) if not line.startswith("#")]
    matches = [LINE.fullmatch(line) for line in lines]
    assert all(matches), lines
    return result, [match for match in matches if match]


def ebizzy() -> spfemu.Program:
    return make_job(["ebizzy", "-mTt", "3", "-S", "0.002"]).build()


def test_each_event_is_a_line_with_the_vma_and_the_page() -> None:
    # By the protocol: no anon_vma yet (H4), a hole (H8), a write to what may be read (H10), and a
    # table that is not there (H16), with interrupts off.
    builder = spfemu.ProgramBuilder()
    main_task = builder.task("worker")
    other = builder.task("other", start="clone")
    main_task.clone(other)
    main_task.mmap(4 * P, addr=A, flags=("private", "anonymous", "fixed"))
    main_task.mmap(P, addr=A + (1 << 30), flags=("private", "anonymous", "fixed"))
    main_task.write(A + P + 8)
    main_task.write(A - P)
    main_task.write(A + (1 << 30))
    main_task.mmap(4 << 20, addr=A + (2 << 30), flags=("private", "anonymous", "fixed"))
    main_task.write(A + (2 << 30))
    main_task.write(A + (2 << 30) + (3 << 20))
    main_task.mprotect(A, P, "r")
    main_task.write(A + 2 * P)
    main_task.write(A)
    result, lines = traced(builder.build(), engine="explore")
    found = [
        (line["event"], line["irqs"], line["start"], line["end"], line["address"]) for line in lines
    ]
    assert found == [
        ("spf_vma_notsup", ".", "100000", "104000", "101000"),
        ("spf_vma_changed", ".", "100000", "104000", "ff000"),
        ("spf_vma_notsup", ".", "40100000", "40101000", "40100000"),
        ("spf_vma_notsup", ".", "80100000", "80500000", "80100000"),
        ("spf_vma_notsup", "d", "80100000", "80500000", "80400000"),
        ("spf_vma_access", ".", "100000", "101000", "100000"),
    ]
    assert {(line["comm"], line["pid"], line["cpu"]) for line in lines} == {("worker", "1", "000")}
    assert result.trace.dtype == TRACE_DTYPE


@pytest.mark.parametrize("engine", ["native", "vtime", "explore"])
def test_there_are_as_many_lines_as_the_counters_say(engine: str) -> None:
    builder = spfemu.ProgramBuilder()
    first = builder.task()
    second = builder.task(start="clone")
    first.clone(second)
    first.mmap(600 * P, id="p")
    first.touch("p", 600 * P, access="read")
    first.touch("p", 600 * P)
    second.mmap(600 * P, id="q")
    second.touch("q", 600 * P)
    result, lines = traced(builder.build(), engine=engine)
    counted = {event: count for event, count in result.counters.items() if "pagefault" in event}
    by_event = Counter("pagefault:" + line["event"] for line in lines)
    assert by_event == {event: count for event, count in counted.items() if count}
    assert len(lines) == len(result.trace) == result.trace_written > 0
    times = [float(line["time"]) for line in lines]
    assert times == sorted(times)
    for line in lines:
        start, end, address = (int(line[name], 16) for name in ("start", "end", "address"))
        assert address % P == 0
        assert line["event"] == "spf_vma_changed" or start <= address < end


def test_virtual_time_repeats_the_text() -> None:
    program = ebizzy()
    first, second = (
        list(spfemu.trace_lines(spfemu.run(program, engine="vtime", trace=True))) for _ in range(2)
    )
    assert first == second
    assert len(first) > 20


def test_without_trace_nothing_is_kept() -> None:
    result = spfemu.run(ebizzy(), engine="vtime")
    assert (len(result.trace), result.trace_written) == (0, 0)
    assert all(line.startswith("#") for line in spfemu.trace_lines(result))


def test_an_engine_without_tracepoints_says_so() -> None:
    with pytest.raises(spfemu.EngineError, match=r"trace: engine reference \(allowed: native, "):
        spfemu.run(ebizzy(), engine="reference", trace=True)


WORKLOAD = ("--", "ebizzy", "-mTt", "2", "-S", "0.001")


def test_stat_writes_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "spf.trace"
    assert main(["stat", "--trace", str(path), *WORKLOAD]) == 0
    counts = capsys.readouterr().out
    assert main(["stat", "--trace", "-", *WORKLOAD]) == 0
    both = capsys.readouterr().out
    text = path.read_text()
    assert both == text + counts
    assert text.startswith("# tracer: nop\n#\n# entries-in-buffer/entries-written: ")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines
    assert all(LINE.fullmatch(line) for line in lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--handler", "classic"], "the classic handler has no tracepoints (allowed: both, spf)"),
        (["-r", "2"], "--trace: -r 2 (allowed: one run)"),
        (["--json"], "--trace -: with --json (allowed: a file)"),
    ],
)
def test_stat_refuses(capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    assert main(["stat", "--trace", "-", *options, *WORKLOAD]) == 2
    assert capsys.readouterr().err.strip().endswith(message)
