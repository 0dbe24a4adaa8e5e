"""``spfemu sweep``: files, tables, going on after a kill, and what is refused."""

# ruff: noqa: E501 - a table reads best with a case on each line

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import pytest

import spfemu
from spfemu.cli import main
from spfemu.cli.output import check_output, progress_bar
from spfemu.sweeping.store import Store

SHORT: Final = ["--", "ebizzy", "-mTt", "{cpus}", "-S", "0.001"]
LONG: Final = ["--", "ebizzy", "-mTt", "{cpus}", "-S", "0.03"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def told(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> tuple[str, str]:
    assert main(["sweep", *arguments]) == status, capsys.readouterr().err
    out, err = capsys.readouterr()
    return out, err


class TestOutput:
    def test_files_of_one_sweep(self, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("matplotlib")
        options = ["--cpus", "1,2", "-j", "1", "-o", "a.csv", "-o", "a.png", "-o", "a.html"]
        assert told(capsys, *options, *SHORT) == ("", "")
        # What was kept on the way is gone.
        assert sorted(path.name for path in Path().iterdir()) == ["a.csv", "a.html", "a.png"]
        table = spfemu.sweep(SHORT[1:], cpus="1,2", jobs=1)
        assert Path("a.csv").read_text() == table.to_csv()

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        out, err = told(capsys, "--cpus", "2", "-r", "2", "--seed", "3", "--json", *SHORT)
        table = spfemu.sweep(SHORT[1:], cpus=2, repeat=2, seed=3, jobs=1)
        assert (json.loads(out), err) == (table.to_dicts(), "")

    def test_a_table_where_no_file_is_asked_for(self, capsys: pytest.CaptureFixture[str]) -> None:
        out, err = told(capsys, "--cpus", "1,4", "-j", "1", *SHORT)
        head, *lines = [line.split("  ") for line in out.splitlines()]
        assert [cell.strip() for cell in head if cell][:4] == [
            "CPUs",
            "records/s, classic",
            "records/s, spf",
            "spf/classic",
        ]
        table = spfemu.sweep(SHORT[1:], cpus="1,4", jobs=1)
        for line, cells in zip(lines, table.overview()[1], strict=True):
            assert [cell.strip() for cell in line if cell] == cells
        assert err == ""

    def test_several_machines_have_their_column(self, capsys: pytest.CaptureFixture[str]) -> None:
        machines = ["--machine", "x86-48", "--machine", "power8-80"]
        out, _ = told(capsys, "--cpus", "1", "--handler", "spf", "-j", "1", *machines, *SHORT)
        assert [line.split()[0] for line in out.splitlines()] == ["machine", "x86-48", "power8-80"]

    def test_machines_of_files_and_of_this_host(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("mine.toml").write_text('name = "mine"\nlike = "x86-48"')
        machines = ["--machine", "mine.toml", "--machine", "host"]
        out, _ = told(capsys, "--cpus", "1", "--handler", "spf", "-j", "1", *machines, *SHORT)
        assert [line.split()[0] for line in out.splitlines()] == ["machine", "mine", "host"]

    def test_the_usual_command_and_the_usual_cpus(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Any] = []

        def planned(plan: Any, *_: Any, **__: Any) -> spfemu.Sweep:
            asked.append(plan)
            return spfemu.sweep(SHORT[1:], cpus=1, jobs=1)

        monkeypatch.setattr("spfemu.cli.sweep.run_plan", planned)
        told(capsys, "--workload", "ebizzy", "--machine", "x86-48")
        assert asked[0].workload.label == "ebizzy -mTt {cpus} -S 0.2"
        assert asked[0].cpus == (1, 2, 4, 8, 16, 32, 48)
        told(capsys, "--workload", "ebizzy -t {cpus}", "--handler", "spf")
        assert asked[1].workload.label == "ebizzy -t {cpus}"
        assert asked[1].handlers == ("spf",)

    def test_tasks_that_wait_for_ever_are_a_finding(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        builder = spfemu.ProgramBuilder()
        for name, other in (("one", "two"), ("two", "one")):
            task = builder.task(name)
            task.await_(other)
            task.post(name)
        builder.build().save("p.json")
        options = ["--cpus", "1", "-j", "1", "-o", "a.csv", "--", "p.json"]
        _, err = told(capsys, *options, status=1)
        assert err == "spfemu: tasks that wait for ever: one, two\n"
        assert Path("a.csv").exists()

    def test_help_of_a_workload(self, capsys: pytest.CaptureFixture[str]) -> None:
        out, _ = told(capsys, "--", "ebizzy", "-h")
        assert out.startswith("ebizzy: ")


class TestGoingOn:
    def started(self, *options: str) -> subprocess.Popen[str]:
        """Starts a sweep that takes seconds, and waits until some of its runs are kept."""
        command = [sys.executable, "-m", "spfemu", "sweep", *options, "-o", "a.csv", *LONG]
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        cells = Path("a.csv.cells")
        while not cells.exists() or cells.read_text().count("\n") < 3:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.005)
        return process

    @pytest.mark.parametrize("jobs", ["1", "2"])
    @pytest.mark.parametrize(
        ("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
    )
    def test_after_a_signal(
        self, capsys: pytest.CaptureFixture[str], number: signal.Signals, status: int, jobs: str
    ) -> None:
        options = ["--cpus", "4,8", "--handler", "spf", "-r", "6", "-j", jobs]
        process = self.started(*options)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == status
        kept = Path("a.csv.cells").read_text().count("\n") - 1
        assert 2 <= kept < 12
        if number == signal.SIGINT:
            assert err.splitlines() == [
                f"spfemu: {kept} runs of 12 are kept in a.csv.cells; the same command goes on from there",
                "spfemu: interrupted",
            ]
        assert not Path("a.csv").exists()
        out, err = told(capsys, *options, "-o", "a.csv", *LONG)
        assert (out, err) == ("", f"spfemu: {kept} runs of 12 are in a.csv.cells\n")
        assert [path.name for path in Path().iterdir()] == ["a.csv"]
        whole = spfemu.sweep(LONG[1:], cpus="4,8", handler="spf", repeat=6, jobs=1)
        assert Path("a.csv").read_text() == whole.to_csv()

    @pytest.mark.parametrize(("before", "kept"), [(True, 2), (False, 3)])
    def test_what_is_said_to_be_kept_is_in_the_file(
        self,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        before: bool,
        kept: int,
    ) -> None:
        write = Store._write

        def interrupted(store: Store, value: Any) -> None:
            third = Path("a.csv.cells").read_text().count("\n") == 3
            if not (third and before):
                write(store, value)
            if third:
                raise KeyboardInterrupt

        monkeypatch.setattr(Store, "_write", interrupted)
        options = ["--cpus", "1,2,4,8", "--handler", "spf", "-j", "1", "-o", "a.csv"]
        _, err = told(capsys, *options, *SHORT, status=130)
        told_kept = f"spfemu: {kept} runs of 4 are kept in a.csv.cells; "
        assert err.splitlines()[0].startswith(told_kept)

    def test_workers_end_with_a_parent_that_was_killed(self) -> None:
        process = self.started("--cpus", "4,8", "-r", "400", "-j", "2")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) >= 2
        process.kill()
        process.communicate(timeout=60)
        for child in children:
            while Path(f"/proc/{child}").exists() and ended(child) is False:
                time.sleep(0.005)


def ended(pid: str) -> bool:
    """Says whether a process is dead, whoever has to fetch its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


class TestRefused:
    def refused(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
        out, err = told(capsys, *arguments, status=2)
        assert out == ""
        assert err.count("\n") == 1
        assert list(Path().glob("*.cells")) == []
        return err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "no workload; name one, as in: spfemu sweep --workload ebizzy"),
            (["--workload", "", "-o", "a.csv"], "no workload; name one"),
            (["--workload", "brk1", "--", "brk1"], "--workload brk1 and -- brk1 (allowed: one of them)"),
            (["--workload", "frob"], 'workload "frob" (allowed: ebizzy, '),
            (["--workload", "brk1", "--cpus", "0"], "cpus: value 0 (allowed: 1 to 48, what x86-48 has)"),
            (["--workload", "brk1", "--cpus", "1,2,4..64"], "cpus: value 64 (allowed: 1 to 48, what x86-48 has)"),
            (["--workload", "brk1", "--cpus", "49", "--machine", "power8-80", "--machine", "x86-48"], "cpus: value 49 (allowed: 1 to 48, what x86-48 has)"),
            (["--workload", "brk1", "--cpus", "-3"], 'cpus: value "-3" (allowed: numbers, as in'),
            (["--workload", "brk1", "--cpus", "2..x"], 'cpus: value "x" (allowed: numbers, as in'),
            (["--workload", "brk1", "--machine", "pdp11"], 'machine "pdp11" (allowed: x86-48, '),
            (["--workload", "brk1", "--machine", "none.toml"], "none.toml: cannot be read: No such file or directory"),
            (["--workload", "brk1", "--machine", "./a.csv", "-o", "a.csv"], "a.csv: is read, or written twice"),
            (["--workload", "brk1", "--handler", "v11"], 'handler "v11" (allowed: both, classic, spf)'),
            (["--workload", "brk1", "-r", "0"], 'option -r/--repeat: value "0" (allowed: a whole number, 1 and more)'),
            (["--workload", "brk1", "-j", "0"], 'option -j/--jobs: value "0" (allowed: a whole number, 1 and more)'),
            (["--workload", "brk1", "-o", "a.xls"], 'a.xls: suffix ".xls" (allowed: .csv, .parquet, .html, .png)'),
            (["--workload", "brk1", "-o", "a"], 'a: suffix "" (allowed: .csv, '),
            (["--workload", "brk1", "-o", "none/a.csv"], "none/a.csv: cannot be written: No such file or directory"),
            (["--workload", "brk1", "-o", "a.csv", "-o", "a.csv"], "a.csv: is read, or written twice"),
            (["--", "brk1", "-t", "0"], 'brk1: option -t: value "0" (allowed: 1 to 16384)'),
            (["--", "none.json"], 'workload "none.json" (allowed: ebizzy, '),
        ],
    )  # fmt: skip
    def test_usage(
        self, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
    ) -> None:
        assert self.refused(capsys, *arguments).startswith(f"spfemu: {message}")

    def test_a_folder_as_output(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("a.csv").mkdir()
        err = self.refused(capsys, "--workload", "brk1", "-o", "a.csv")
        assert err == "spfemu: a.csv: cannot be written: Is a directory\n"

    def test_a_place_where_nothing_can_be_kept(self, capsys: pytest.CaptureFixture[str]) -> None:
        err = self.refused(capsys, "--workload", "brk1", "-o", "/proc/a.csv")
        assert err.startswith("spfemu: /proc/a.csv.cells: cannot be written: ")

    def test_a_file_in_the_way(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("a.csv.cells").write_text("mine\n")
        _, err = told(capsys, "-o", "a.csv", "--cpus", "1", *SHORT, status=2)
        assert err.startswith("spfemu: a.csv.cells: holds no cells of a sweep (allowed: ")
        assert Path("a.csv.cells").read_text() == "mine\n"

    def test_a_library_that_is_missing(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        err = self.refused(capsys, "--workload", "brk1", "-o", "a.png")
        assert err == "spfemu: matplotlib is not installed; pip install spfemu[sweep]\n"


def test_progress_says_how_long_it_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        encoding = "utf-8"

        def __init__(self) -> None:
            self.text = ""

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> None:
            self.text += text

        def flush(self) -> None:
            pass

        def fileno(self) -> int:
            raise OSError

    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    with progress_bar("work", quiet=False, left=True) as progress:
        assert progress is not None
        progress(0.5)
    assert "left:" in terminal.text


def test_an_output_beside_its_own_input_is_refused() -> None:
    with pytest.raises(spfemu.ProgramError):
        check_output("a.csv", "a.csv")
    assert os.listdir() == []
