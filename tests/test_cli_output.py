"""Tables, aligned when piped and never cut on a terminal; and the streams that are not there."""

from __future__ import annotations

import contextlib
import io
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import spfemu
from spfemu.cli.output import error_line, progress_bar
from spfemu.cli.tables import print_table

HEADERS = ["count", "name"]
ROWS = [["1", "faults"], ["1,234", "[bold]spf[/bold]"]]
WIDE = [
    ["1,234,567,890", "pagefault:spf_vma_changed", "the VMA changed, or the address is below it"],
    ["0.006458000", "seconds time elapsed", ""],
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    out = Terminal()
    print_table(["classic", "event", "text"], WIDE, right=(0,), title=1, file=out)
    return out.getvalue().splitlines()


def test_plain_text_is_aligned_and_has_no_trailing_blanks() -> None:
    out = io.StringIO()
    print_table(HEADERS, ROWS, right=(0,), min_width=7, file=out)
    assert out.getvalue().splitlines() == [
        "  count  name",
        "      1  faults",
        "  1,234  [bold]spf[/bold]",
    ]


def test_a_terminal_gets_a_table_and_cells_are_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = Terminal()
    print_table(HEADERS, ROWS, right=(0,), min_width=7, file=out)
    assert out.getvalue().splitlines() == [
        "  count  name",
        "─────────────────────────",
        "      1  faults",
        "  1,234  [bold]spf[/bold]",
    ]


def test_texts_take_several_lines_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_terminal(monkeypatch, 70) == [
        "      classic  event                      text",
        "─" * 70,
        "1,234,567,890  pagefault:spf_vma_changed  the VMA changed, or the",
        "                                          address is below it",
        "  0.006458000  seconds time elapsed",
    ]


def test_a_row_is_folded_where_its_numbers_have_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_terminal(monkeypatch, 40) == [
        "pagefault:spf_vma_changed",
        "  classic 1,234,567,890",
        "  text the VMA changed, or the address",
        "    is below it",
        "seconds time elapsed",
        "  classic 0.006458000",
    ]


@pytest.mark.parametrize("width", range(1, 100))
def test_nothing_is_ever_cut(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    told = " ".join(on_terminal(monkeypatch, width)).split()
    words = [word for row in WIDE for cell in row for word in cell.split()]
    assert not [word for word in words if word not in told]


def test_an_error_is_one_line() -> None:
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        error_line("first\n   second")
    assert err.getvalue() == "spfemu: first second\n"


def test_no_progress_where_nobody_looks() -> None:
    with progress_bar("work", quiet=False) as progress:
        assert progress is None


def shell(command: str) -> subprocess.CompletedProcess[str]:
    spfemu = f"{shlex.quote(sys.executable)} -m spfemu"
    script = command.replace("spfemu", spfemu, 1)
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["events", "events --json", "stat -- brk1 -t 1 -s 1e-6"])
def test_a_closed_or_full_output_is_an_error_in_one_line(command: str) -> None:
    closed = shell(f"spfemu {command} >&-")
    assert (closed.returncode, closed.stderr) == (2, "spfemu: standard output is closed\n")
    full = shell(f"spfemu {command} >/dev/full")
    told = "spfemu: the output cannot be written: No space left on device\n"
    assert (full.returncode, full.stderr) == (2, told)


def test_no_stream_at_all() -> None:
    assert shell("spfemu events >&- 2>&-").returncode == 2


@pytest.mark.parametrize("lines", [1, 2000])
def test_a_reader_that_goes_away_is_no_finding(tmp_path: Path, lines: int) -> None:
    # More than a pipe holds.
    builder = spfemu.ProgramBuilder()
    task = builder.task()
    for _ in range(20_000):
        task.compute(1)
    path = tmp_path / "p.json"
    builder.build().save(path)
    run = shell(f"spfemu run {shlex.quote(str(path))} | head -n {lines}; exit ${{PIPESTATUS[0]}}")
    assert (run.returncode, run.stderr) == (141, "")
    assert len(run.stdout.splitlines()) == lines


@pytest.mark.parametrize("module", ["typer", "numpy", "spfemu.cli.app"])
def test_an_interrupt_during_start_up_is_no_traceback(module: str) -> None:
    # The signal comes when the module is about to be imported.
    script = f"""
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from spfemu.cli import main
sys.exit(main(["events"]))
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "spfemu: interrupted\n")


def test_a_signal_that_was_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run = shell("spfemu events >/dev/null & child=$!; kill -INT $child; wait $child")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (run.returncode, run.stderr) == (0, "")
