"""Tables: with lines on a terminal, aligned plain text when piped."""

from __future__ import annotations

import contextlib
import io

from spfemu.cli.output import error_line, print_table, progress_bar

HEADERS = ["count", "name"]
ROWS = [["1", "faults"], ["1,234", "[bold]spf[/bold]"]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_text_is_aligned_and_has_no_trailing_blanks() -> None:
    out = io.StringIO()
    print_table(HEADERS, ROWS, right=(0,), min_width=7, file=out)
    assert out.getvalue().splitlines() == [
        "  count  name",
        "      1  faults",
        "  1,234  [bold]spf[/bold]",
    ]


def test_a_terminal_gets_a_table_and_cells_are_no_markup() -> None:
    out = Terminal()
    print_table(HEADERS, ROWS, right=(0,), file=out)
    assert "─" in out.getvalue()
    assert "[bold]spf[/bold]" in out.getvalue()


def test_an_error_is_one_line() -> None:
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        error_line("first\n   second")
    assert err.getvalue() == "spfemu: first second\n"


def test_no_progress_where_nobody_looks() -> None:
    with progress_bar("work", quiet=False) as progress:
        assert progress is None
