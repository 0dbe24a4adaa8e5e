"""The command line: what it prints, its exit statuses, and that the examples in --help work."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer

import spfemu
from spfemu.cli import main
from spfemu.cli.app import app
from spfemu.cli.demo import race_program
from spfemu.cli.exploration import print_exploration
from spfemu.cli.timeline import print_timeline
from spfemu.engines import core_list
from spfemu.program import EVENTS
from spfemu.workloads import WORKLOADS
from tests.host_kernel import needs_host

HERE = Path(__file__).parent
CATALOGUE = Path(spfemu.__file__).parent / "data/catalogue"
SCENARIO = str(HERE / "kernel_scenarios" / "anon_first_write.json")
COMMANDS = sorted(command.name for command in typer.main.get_command(app).commands.values())  # type: ignore[attr-defined]
ENGINES = ["native", "reference", "vtime", "explore", pytest.param("kernel", marks=needs_host)]
EBIZZY = ["--", "ebizzy", "-mTt", "2", "-S", "0.002"]


TIMELINE: Any = [
    {
        "cpu": 0, "function": "walk", "access": "load", "what": "pte[0].[5]",
        "value": "0x0", "text": "none",
    },
    {
        "cpu": 0, "function": "walk", "access": "load", "what": "vm_area_struct[0].vm_start",
        "value": "0x1000", "text": "0x1000",
    },
    {
        "cpu": 1, "function": "unmap", "access": "store", "what": "pte[0].[5]",
        "value": "0x1001", "text": "page 1", "new": "0x0", "new_text": "none",
    },
    {"cpu": 0, "function": "walk", "access": "passed", "what": "H1: a VMA ends above 0x1000"},
    {"cpu": 0, "function": "walk", "access": "failed", "what": "H2: vm_sequence 0x3 is even"},
    {"cpu": 0, "function": "walk", "access": "mutant", "what": "A7: without a check"},
    {"cpu": 0, "function": "walk", "access": "finding", "what": "1: broken"},
]  # fmt: skip


def told(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """Runs the command line and returns what it wrote."""
    assert main(arguments) == status, capsys.readouterr().err
    out, err = capsys.readouterr()
    assert status or err == ""
    return out


def told_json(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> Any:
    return json.loads(told(capsys, *arguments, status=status))


class TestHelp:
    @pytest.mark.parametrize("name", ["", *COMMANDS])
    def test_each_command_has_an_example_that_works(
        self,
        capsys: pytest.CaptureFixture[str],
        name: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        text = " ".join(told(capsys, *name.split(), "--help").split())
        example = re.search(r"Example: spfemu (.+)$", text)
        assert example is not None
        arguments = shlex.split(example[1])
        assert arguments[0] == (name or "stat")
        monkeypatch.chdir(tmp_path)
        (tmp_path / "program.json").write_text(Path(SCENARIO).read_text())
        (tmp_path / "trace.perf.txt.zst").write_bytes(
            (HERE / "traces" / "pigz.perf.txt.zst").read_bytes()
        )
        # explore's example finds what it looks for; record's needs perf.
        assert main(arguments) in {"explore": (0, 1), "record": (0, 2)}.get(name, (0,))

    def test_check_shows_how_to_ask_the_host(self, capsys: pytest.CaptureFixture[str]) -> None:
        text = " ".join(told(capsys, "check", "--help").split())
        assert "spfemu check program.json --against kernel" in text

    def test_short_option(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert told(capsys, "stat", "-h") == told(capsys, "stat", "--help")

    def test_no_command_at_all_asks_for_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert told(capsys) == told(capsys, "--help")

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert told(capsys, "--version").startswith(f"spfemu {spfemu.__version__} (")

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_completion(self, shell: str) -> None:
        script = run_module("--show-completion", shell=shell)
        assert script.returncode == 0
        assert f"_SPFEMU_COMPLETE=complete_{shell}" in script.stdout

    def test_completion_is_installed(self, tmp_path: Path) -> None:
        home = {"HOME": str(tmp_path)}
        installed = run_module("--install-completion", environment=home, shell="bash")
        assert installed.returncode == 0
        script = tmp_path / ".bash_completions" / "spfemu.sh"
        assert f"source '{script}'" in (tmp_path / ".bashrc").read_text()
        # The shell hands over the words typed; the command says what they may become (below).
        text = script.read_text()
        assert "complete -o default -F _spfemu_completion spfemu" in text
        assert all(name in text for name in ("COMP_WORDS=", "COMP_CWORD=", "_SPFEMU_COMPLETE="))

    @pytest.mark.parametrize(
        ("words", "completions"),
        [
            ("exp", ["explore", "explain"]),
            ("explore --ht", ["--html"]),
            ("explain --handler cl", ["classic"]),
            ("stat --handler ", ["both", "classic", "spf"]),
            ("stat --engine v", ["vtime"]),
            ("stat --machine power8-1", ["power8-1024"]),
            ("stat --arch arm64", ["arm64", "arm64-64k"]),
            ("stat --by ", ["vma", "comm", "ip"]),
            ("stat -e pagefault:spf_p", ["pagefault:spf_pmd_changed"]),
            ("stat -- eb", ["ebizzy"]),
            ("run p.json --engine ref", ["reference"]),
            ("check p.json --against ", ["reference", "kernel"]),
            ("explore p.json --strategy p", ["pct"]),
            ("explore p.json --mutant no-n", ["no-node-test"]),
            ("explore p.json --variants ", ["v12", "fixed"]),
            ("explore split", ["split"]),
            ("explain fork_", ["fork_of_two_mappings", "fork_without_memory"]),
            ("mutants no-n", ["no-node-test"]),
            ("variants ev", ["even-before-unlinked"]),
        ],
    )
    def test_completion_of(self, words: str, completions: list[str]) -> None:
        environment = {
            "_SPFEMU_COMPLETE": "complete_bash",
            "COMP_WORDS": f"spfemu {words}",
            "COMP_CWORD": str(words.count(" ") + 1),
        }
        assert run_module(environment=environment).stdout.split() == completions


def run_module(
    *arguments: str, environment: dict[str, str] | None = None, shell: str | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spfemu", *arguments]
    if shell:
        # Who looks for the shell it is in goes by its parents' names: sh takes that of `shell`, and
        # stays, for something comes after the command.
        command = [shell, "-c", '"$@"; exit $?', shell, *command]
    return subprocess.run(
        command,
        executable="/bin/sh" if shell else None,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )


def wait_until_at_work(process: subprocess.Popen[str]) -> None:
    """Waits until a process has had the CPU for two seconds: starting takes less than one.

    How long that is for others depends on what else runs.
    """
    ticks = 2 * os.sysconf("SC_CLK_TCK")
    while process.poll() is None:
        stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        if int(stat[11]) + int(stat[12]) >= ticks:
            return
        time.sleep(0.01)


class TestStat:
    def test_both_handlers_side_by_side(self, capsys: pytest.CaptureFixture[str]) -> None:
        out = told(capsys, "stat", *EBIZZY)
        lines = out.splitlines()
        assert lines[1] == (
            " Performance counter stats for 'ebizzy -mTt 2 -S 0.002' [vtime, x86, 2 CPUs]:"
        )
        assert lines[3].split() == ["classic", "spf", "spf/classic", "event"]
        assert [line.split()[-1] for line in lines[4:6]] == ["faults", "spf"]
        assert any(line.endswith("  records/s") for line in lines)
        assert any(line.endswith("  seconds time elapsed") for line in lines)

    def test_one_handler_looks_as_perf(self, capsys: pytest.CaptureFixture[str]) -> None:
        out = told(capsys, "stat", "--handler", "spf", "-e", "faults,spf,pagefault:*", *EBIZZY)
        counts = re.findall(r"^ *([\d,]+)      (\S+)$", out, re.MULTILINE)
        assert [name for _, name in counts][:7] == [
            "faults", "spf", *(event for event in EVENTS if event.startswith("pagefault:")),
        ]  # fmt: skip
        assert all(line[:18].rstrip() == line[:18] for line in out.splitlines()[3:5])

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        obj = told_json(capsys, "stat", "--json", *EBIZZY)
        assert obj["format"] == "spfemu-result/1"
        assert [run["handler"] for run in obj["runs"]] == ["classic", "spf"]
        for run in obj["runs"]:
            assert list(run["counters"]) == list(EVENTS)
            assert run["result"]["records"] > 0
            assert run["counters"]["faults"] >= 128 * run["result"]["records"]
            assert run["elapsed_ns"] >= 2_000_000
        assert obj["runs"][0]["counters"]["spf"] == 0
        assert obj["runs"][1]["counters"]["spf"] > 0

    def test_twice_is_the_same(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert told(capsys, "stat", *EBIZZY) == told(capsys, "stat", *EBIZZY)

    def test_separated_fields(self, capsys: pytest.CaptureFixture[str]) -> None:
        out = told(capsys, "stat", "-x", ";", "-e", "faults", *EBIZZY)
        rows = [line.split(";") for line in out.splitlines()]
        assert [row[1:] for row in rows] == [
            [unit, name, handler]
            for handler in ("classic", "spf")
            for unit, name in (
                ("", "faults"), ("ns", "elapsed"), ("", "records"), ("", "records_per_s"),
            )
        ]  # fmt: skip

    def test_repeats_give_a_deviation(self, capsys: pytest.CaptureFixture[str]) -> None:
        out = told(capsys, "stat", "-r", "3", "--handler", "classic", *EBIZZY)
        assert "(3 runs):" in out
        assert len(re.findall(r"\( \+- +\d+\.\d\d% \)$", out, re.MULTILINE)) > 5

    def test_output_goes_to_a_file(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        assert told(capsys, "stat", "-o", str(tmp_path / "out"), *EBIZZY) == ""
        assert "Performance counter stats" in (tmp_path / "out").read_text()

    @pytest.mark.parametrize("by", ["vma", "comm", "ip"])
    def test_where_faults_abort(self, capsys: pytest.CaptureFixture[str], by: str) -> None:
        obj = told_json(capsys, "stat", "--by", by, "--json", *EBIZZY)
        spf = obj["runs"][1]
        groups = spf["by"][by]
        assert sum(group["faults"] for group in groups) == spf["counters"]["faults"]
        notsup = sum(group["reasons"]["spf_vma_notsup"] for group in groups)
        assert notsup == spf["counters"]["pagefault:spf_vma_notsup"] > 0
        assert f"Aborts of the spf run by {by}:" in told(capsys, "stat", "--by", by, *EBIZZY)

    def test_faults_without_an_event(
        self,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        # Alone: 1; with another user: 3 by the kernel, 1 where nothing is mapped, 4 speculative.
        builder = spfemu.ProgramBuilder()
        first = builder.task("first")
        first.mmap(65536, id="p")
        first.write("p")
        first.clone("second")
        first.touch(("p", 4096), 3 * 4096, mode="kernel")
        first.write(("p", 1 << 20))
        first.touch(("p", 32768), 4 * 4096)
        first.await_("end")
        second = builder.task("second", "clone")
        second.sleep(1_000_000)
        second.post("end")
        path = tmp_path / "p.json"
        builder.build().save(path)
        runs = told_json(capsys, "stat", "--json", "--", str(path))["runs"]
        assert [run.get("no_event") for run in runs] == [None, 5]
        assert runs[1]["counters"]["spf"] == 4
        out = told(capsys, "stat", "--", str(path))
        assert (
            "\n 5 of the 9 faults with spf have no event: they were not tried (the kernel\n" in out
        )
        assert "no event" not in told(capsys, "stat", "--handler", "classic", "--", str(path))
        # A narrow terminal is not left, a wide one not used up.
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        for columns, width in (("40", 40), ("200", 80)):
            monkeypatch.setenv("COLUMNS", columns)
            out = told(capsys, "stat", "--", str(path))
            lines = out[out.index(" 5 of the 9 faults with spf") :].splitlines()
            assert width - 15 < max(map(len, lines)) <= width

    def test_a_machine_of_a_file(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        path = tmp_path / "mine.toml"
        path.write_text('name = "mine"\nlike = "power8-80"\nsockets = 1')
        obj = told_json(capsys, "stat", "--machine", str(path), "--json", *EBIZZY)
        assert (obj["arch"], obj["machine"]) == ("powerpc", "mine")
        assert told_json(capsys, "machines", str(path), "--json")["cpus"] == 40
        assert main(["stat", "--machine", str(path), "-o", str(path), *EBIZZY]) == 2
        assert "is read, or written twice" in capsys.readouterr().err

    def test_a_machine_implies_its_arch(self, capsys: pytest.CaptureFixture[str]) -> None:
        obj = told_json(capsys, "stat", "--machine", "power8-80", "--json", *EBIZZY)
        assert (obj["arch"], obj["machine"]) == ("powerpc", "power8-80")

    def test_the_options_of_a_workload(self, capsys: pytest.CaptureFixture[str]) -> None:
        for workload in WORKLOADS.values():
            for asked in ("-h", "--help"):
                lines = told(capsys, "stat", "--", workload.name, asked).splitlines()
                assert lines[0] == f"{workload.name}: {workload.summary}"
                assert len(lines) == 1 + len(workload.options)

    def test_an_imported_recording_keeps_its_cpus(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        trace = str(HERE / "traces" / "pigz.perf.txt.zst")
        for name in ("pigz.npz", "pigz.json"):
            target = str(tmp_path / name)
            told(capsys, "import", trace, "-o", target)
            runs = [told_json(capsys, "stat", "--json", "--", one) for one in (trace, target)]
            assert runs[0]["settings"] == runs[1]["settings"]
            assert runs[0]["settings"]["cpus"] == 2
            assert runs[0]["runs"] == runs[1]["runs"]

    def test_one_of_something_is_not_several(self, capsys: pytest.CaptureFixture[str]) -> None:
        out = told(capsys, "stat", "--cpus", "1", *EBIZZY)
        assert "[vtime, x86, 1 CPU]:" in out

    def test_native_has_threads(self, capsys: pytest.CaptureFixture[str]) -> None:
        # ebizzy's main thread only starts the others, but it is one.
        out = told(capsys, "stat", "--engine", "native", *EBIZZY)
        assert "[native, x86, 3 threads]:" in out

    def test_groups_without_aborts_are_left_out(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        out = told(capsys, "stat", "--by", "ip", *EBIZZY)
        rows = out[out.index("Aborts of the spf run") :].splitlines()[3:]
        assert rows
        assert all(not row.strip().startswith("0 ") for row in rows)
        program = spfemu.ProgramBuilder()
        program.task().compute(1)
        path = tmp_path / "p.json"
        program.build().save(path)
        assert "No attempt of the spf run was aborted." in told(
            capsys, "stat", "--by", "vma", "--", str(path)
        )

    def test_programs_traces_and_standard_input(self, capsys: pytest.CaptureFixture[str]) -> None:
        obj = told_json(capsys, "stat", "--json", "--", SCENARIO)
        assert obj["runs"][1]["counters"]["faults"] == 15
        piped = subprocess.run(
            [sys.executable, "-m", "spfemu", "stat", "--json", "--", "-"],
            input=Path(SCENARIO).read_bytes(),
            capture_output=True,
            check=True,
        )
        assert json.loads(piped.stdout)["runs"] == obj["runs"]
        trace = str(HERE / "traces" / "pigz.perf.txt.zst")
        assert told_json(capsys, "stat", "--json", "--", trace)["runs"][1]["counters"]["faults"]

    def test_copies_of_a_recording(self, capsys: pytest.CaptureFixture[str]) -> None:
        trace = str(HERE / "traces" / "pigz.perf.txt.zst")
        one, three = (
            told_json(capsys, "stat", "--json", "--replicate", copies, "--", trace)
            for copies in ("1", "3")
        )
        assert three["settings"]["cpus"] == 3 * one["settings"]["cpus"]
        faults = [obj["runs"][1]["counters"]["faults"] for obj in (one, three)]
        assert 2.9 * faults[0] < faults[1] <= 3 * faults[0]
        assert "pigz.perf.txt.zst, 3 copies'" in told(
            capsys, "stat", "--replicate", "3", "--", trace
        )

    def test_native(self, capsys: pytest.CaptureFixture[str]) -> None:
        obj = told_json(capsys, "stat", "--engine", "native", "--json", *EBIZZY)
        assert all(run["counters"]["faults"] > 0 for run in obj["runs"])

    def test_interrupted(self) -> None:
        self._interrupt("stat", "--", "ebizzy", "-mTt", "4", "-S", "1e5")

    def test_interrupted_while_several_run(self) -> None:
        self._interrupt("reproduce", "--group", "ebizzy", "-S", "3600")

    @staticmethod
    def _interrupt(*arguments: str) -> None:
        command = [sys.executable, "-m", "spfemu", *arguments]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        wait_until_at_work(process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 130
        assert err.strip().splitlines() == ["spfemu: interrupted"]

    def test_a_reader_that_goes_away(self) -> None:
        command = f"{shlex.quote(sys.executable)} -m spfemu events --json | head -n 1"
        piped = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        assert (piped.stdout, piped.stderr) == ("[\n", "")


class TestRun:
    @pytest.mark.parametrize("engine", ["native", "vtime", "reference"])
    def test_interrupted_within_one_operation(self, engine: str, tmp_path: Path) -> None:
        # Zeroes take no memory but page tables, so it would go on for an hour.
        flags = ["private", "anonymous", "populate"]
        populating = {"op": "mmap", "length": "1T", "prot": "r", "flags": flags}
        obj = {"format": "spfemu-program/1", "tasks": [{"ops": [populating]}]}
        path = tmp_path / "long.json"
        path.write_text(json.dumps(obj))
        command = [sys.executable, "-m", "spfemu", "run", "--engine", engine, str(path)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        wait_until_at_work(process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 130
        assert err.strip().splitlines() == ["spfemu: interrupted"]

    @pytest.mark.parametrize("engine", ENGINES)
    def test_outcomes(self, capsys: pytest.CaptureFixture[str], engine: str) -> None:
        out = told(capsys, "run", SCENARIO, "--engine", engine, "--check")
        assert out.splitlines()[0].split()[:4] == ["task", "place", "round", "op"]
        assert "maps of t0:" in out
        assert out.endswith("no differences\n")

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        obj = told_json(capsys, "run", SCENARIO, "--json", "--check")
        assert obj["differences"] == []
        assert obj["ops"][2]["handled"] == "classic"
        assert obj["ops"][3]["counters"]["spf"] == 1
        assert obj["maps"] == {"t0": ["100000000000-100000010000 rw-p 00000000"]}

    def test_a_check_that_differs(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        program = spfemu.ProgramBuilder()
        task = program.task()
        task.mmap(4096, id="p")
        task.read("p")
        task.expect({"value": 9})
        path = tmp_path / "p.json"
        program.build().save(path)
        out = told(capsys, "run", str(path), "--check", status=1)
        assert out.endswith("1 difference\n")
        obj = told_json(capsys, "run", str(path), "--check", "--json", status=1)
        assert obj["differences"] == [
            {
                "place": "tasks[0].ops[1]", "op": "read", "round": 0, "what": "value",
                "expected": 9, "actual": 0,
            }
        ]  # fmt: skip

    @pytest.mark.parametrize("engine", ENGINES)
    def test_tasks_that_wait_for_ever(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, engine: str
    ) -> None:
        program = spfemu.ProgramBuilder()
        sleeper = program.task("sleeper")
        sleeper.await_("what comes after")
        sleeper.post("what comes after")
        program.task("other").compute(1)
        path = tmp_path / "p.json"
        program.build().save(path)
        assert main(["run", str(path), "--engine", engine]) == 1
        assert capsys.readouterr().err == "spfemu: tasks that wait for ever: sleeper\n"

    def test_a_terminal_gets_the_first_thousand_outcomes(
        self,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        program = spfemu.ProgramBuilder()
        task = program.task()
        with task.repeat(count=12_345):
            task.compute(1)
        path = tmp_path / "p.json"
        program.build().save(path)
        lines = told(capsys, "run", str(path)).splitlines()
        assert sum(line.startswith("t0") for line in lines) == 12_345
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        lines = told(capsys, "run", str(path)).splitlines()
        assert sum(line.startswith("t0") for line in lines) == 1000
        assert "… and 11,345 more outcomes (all of them when piped, or with --json)" in lines


class TestCheck:
    def test_engines_agree(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert told(capsys, "check", SCENARIO) == "\nno differences\n"
        obj = told_json(capsys, "check", SCENARIO, "--engine", "vtime", "--json")
        assert (obj["against"], obj["differences"]) == ("reference", [])

    @needs_host
    def test_against_the_host(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert told(capsys, "check", SCENARIO, "--against", "kernel") == "\nno differences\n"
        program = spfemu.ProgramBuilder()
        task = program.task()
        task.mmap(8192, addr=1 << 44, prot="rwx", id="p")
        task.write("p", 0xC3)
        task.execute("p")
        task.mprotect("p", 4096, "r")
        task.mprotect("p", 4096, "rw")
        task.write("p", 1)
        path = tmp_path / "p.json"
        program.build().save(path)
        command = ("check", str(path), "--engine", "vtime", "--handler", "classic")
        out = told(capsys, *command, "--against", "kernel")
        obj = told_json(capsys, *command, "--against", "kernel", "--json")
        assert (obj["engine"], obj["against"]) == ("vtime", "kernel")
        assert (obj["differences"], obj["cut"]) == ([], "")
        if spfemu.oracle.host().version >= (6, 1):
            assert out.startswith("\nexcused, 1 of mprotect-spares-faults: ")
            assert obj["excused"] == [
                {
                    "exception": "mprotect-spares-faults", "place": "tasks[0].ops[5]",
                    "op": "write", "round": 0, "what": "faults", "expected": 0, "actual": 1,
                }
            ]  # fmt: skip

    @needs_host
    def test_the_host_against_the_reference(self, capsys: pytest.CaptureFixture[str]) -> None:
        obj = told_json(capsys, "check", SCENARIO, "--engine", "kernel", "--json")
        assert (obj["engine"], obj["against"], obj["differences"]) == ("kernel", "reference", [])
        obj = told_json(capsys, "run", SCENARIO, "--engine", "kernel", "--check", "--json")
        assert (obj["engine"], obj["differences"], obj["excused"]) == ("kernel", [], [])

    def test_a_race_is_told_from_a_mistake(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        # On the reference the second task comes last; in virtual time the first is late.
        program = spfemu.ProgramBuilder()
        first = program.task()
        first.mmap(4096, id="p")
        first.write("p", 1)
        first.post("go")
        first.sleep(1_000_000)
        first.write("p", 2)
        second = program.task()
        second.await_("go")
        second.read("p")
        path = tmp_path / "p.json"
        program.build().save(path)
        out = told(capsys, "check", str(path), "--engine", "vtime", status=1)
        assert out.splitlines()[-2:] == [
            "Tasks run one after another on reference, and side by side on vtime: where they race, "
            "the order alone makes a",
            "difference; where they do not, one of the two is wrong.",
        ]


class TestImport:
    def test_a_trace_becomes_a_program(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        target = tmp_path / "pigz.npz"
        trace = str(HERE / "traces" / "pigz.perf.txt.zst")
        out = told(capsys, "import", trace, "-o", str(target))
        assert out.splitlines()[-1].startswith(f"wrote {target}: ")
        assert spfemu.Program.load(target).nr_ops > 100
        obj = told_json(capsys, "import", trace, "-o", str(target), "--json")
        assert obj["program"] == str(target)
        assert obj["faults"] > 0

    def test_the_default_name(
        self,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        told(capsys, "import", str(HERE / "traces" / "pigz.perf.txt.zst"))
        assert [path.name for path in tmp_path.iterdir()] == ["pigz.npz"]

    def test_only_a_name_that_was_given_is_replaced(
        self,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        trace = str(HERE / "traces" / "pigz.perf.txt.zst")
        target = tmp_path / "pigz.npz"
        target.write_text("precious")
        assert main(["import", trace]) == 2
        message = "pigz.npz: exists (allowed: -o pigz.npz to replace it, or another file)"
        assert capsys.readouterr().err == f"spfemu: {message}\n"
        assert target.read_text() == "precious"
        told(capsys, "import", trace, "-o", "pigz.npz")
        assert spfemu.Program.load(target).nr_ops > 100


class TestExplore:
    def test_a_panic_of_the_protocol_is_told_once(self, capfd: pytest.CaptureFixture[str]) -> None:
        program = "write_against_munmap"
        command = ["explore", program, "--variants", "fixed", "--mutant", "A12"]
        assert main(command) == 1
        out, err = capfd.readouterr()
        assert "panic (known as A12): t1: a NULL pmd is dereferenced" in out
        assert "panicked" not in err

    def test_a_finding_is_told_with_a_column_for_each_cpu(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        violation = {
            "invariant": "1", "what": "written after munmap", "entry": "B3", "token": "d:1.2",
            "why": "Because.", "fired": 6, "timeline": TIMELINE,
        }  # fmt: skip
        exploration = {
            "schedules": 12, "steps": 5678, "complete": False, "too_long": 2,
            "settings": {"strategy": "dfs", "steps": 1000}, "violations": [violation],
        }  # fmt: skip
        print_exploration(exploration, ["spfemu", "explore", "p.json"], ["t0", "other"])
        assert capsys.readouterr().out.splitlines() == [
            "12 schedules, 5,678 steps, 2 cut short after 1,000 steps, not complete, 1 violation",
            "",
            "1 (known as B3): written after munmap",
            "Because.",
            "step    CPU 0 (t0)                        CPU 1 (other)",
            "        walk:",
            "   0      load pte[0][5] = none",
            "                                          unmap:",
            "   2                                        store pte[0][5] page 1 -> none",
            "        walk:",
            "   4  !   H2 NO: vm_sequence 0x3 is even",
            "   5  *   A7: without a check",
            "   6  >   1: broken",
            "(1 look at words that no other CPU changes and 1 check that held left out; "
            "--full has all)",
            "token   d:1.2",
            "replay  spfemu explore p.json --replay d:1.2",
        ]

    @pytest.mark.parametrize("width", [20, 40, 60, 80])
    def test_a_timeline_fits_the_terminal(
        self,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        width: int,
    ) -> None:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        long = {**TIMELINE[2], "text": "page 126 present write read young dirty", "cpu": 0}
        print_timeline([*TIMELINE, long], ["t0", "other"], full=True)
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= max(width, 40)
        words = " ".join(lines).split()
        assert all(
            word in words for word in ("126", "present", "young", "dirty", "vma[0].vm_start")
        )

    def test_every_step_is_there_when_asked_for(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_timeline(TIMELINE, ["t0", "other"], full=True)
        lines = capsys.readouterr().out.splitlines()
        assert lines[3] == "   1      load vma[0].vm_start = 0x1000"
        assert "left out" not in lines[-1]

    def test_the_bounds_of_a_search_are_told(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        path = tmp_path / "race.json"
        race_program().save(path)
        command = ["explore", str(path), "--variants", "fixed"]
        bounds = {"preemptions": 2, "schedules": None, "steps": 1_000_000}
        found = told_json(capsys, *command, "--json")
        assert {name: found["settings"][name] for name in bounds} == bounds
        assert found["format"] == "spfemu-result/1"
        assert (found["engine"], found["arch"]) == ("explore", "x86")
        told_text = told(capsys, *command, "--preemptions", "1")
        assert "complete within 1 preemption, 0 violations" in told_text
        drawn = told(capsys, *command, "--strategy", "random", "--schedules", "1")
        assert drawn.startswith("1 schedule, ")
        assert "drawn at random, 0 violations" in drawn
        assert "(default: 2)" in told(capsys, "explore", "--help")
        assert "not complete" in told(capsys, *command, "--schedules", "9")
        assert main([*command, "--strategy", "pct", "--preemptions", "1"]) == 2
        assert "only with strategy dfs" in capsys.readouterr().err

    @pytest.mark.parametrize("mutant", ["A6", "A7"])
    def test_a_missing_check_is_found_and_the_token_replays(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, mutant: str
    ) -> None:
        path = tmp_path / "race.json"
        race_program().save(path)
        command = ["explore", str(path), "--variants", "fixed", "--json"]
        clean = told_json(capsys, *command)
        assert (clean["complete"], clean["violations"]) == (True, [])
        command += ["--mutant", mutant]
        found = told_json(capsys, *command, status=1)["violations"]
        assert found
        for violation in found:
            again = told_json(capsys, *command, "--replay", violation["token"], status=1)
            assert violation["invariant"] in {one["invariant"] for one in again["violations"]}
        (listed,) = (one for one in core_list("mutants") if one["entry"] == mutant)
        assert {one["invariant"] for one in found} <= set(listed["oracle"].split(", "))
        assert {one["entry"] for one in found} == {mutant}

    def test_the_first_finding_is_minimised_and_its_command_replays_it(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        catalogue = CATALOGUE / "write_against_munmap.json"
        Path("p.json").write_text(catalogue.read_text())
        command = ["explore", "p.json", "--variants", "fixed", "--mutant", "A7"]
        lines = told(capsys, *command, "--minimise", "small.json", status=1).splitlines()
        at = next(nth for nth, line in enumerate(lines) if line.startswith("minimised: "))
        token = lines[at + 3].removeprefix("token   ")
        replay = "spfemu explore small.json --mutant A7 --variants fixed --replay"
        assert lines[at - 1 :] == [
            "",
            "minimised: 6 of 7 operations, 1 preemption",
            "of      mapcount (known as A7)",
            "file    small.json",
            f"token   {token}",
            f"replay  {replay} {token}",
            "not minimised (--replay TOKEN does): rss-count (known as A7), "
            "use-after-free (known as A7)",
        ]
        assert spfemu.Program.load("small.json").nr_ops == 6
        again = shlex.split(lines[at + 4].removeprefix("replay  spfemu "))
        (finding,) = told_json(capsys, *again, "--json", status=1)["violations"]
        assert (finding["invariant"], finding["token"]) == ("mapcount", token)

    def test_the_finding_of_a_token_is_minimised_with_json_and_a_page(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        catalogue = "write_against_munmap"
        command = ["explore", catalogue, "--variants", "fixed", "--mutant", "A7", "--json"]
        found = told_json(capsys, *command, status=1)
        assert "minimised" not in found
        small, page = tmp_path / "small.npz", tmp_path / "page.html"
        command += ["--replay", found["violations"][2]["token"]]
        command += ["--minimise", str(small), "--html", str(page)]
        again = told_json(capsys, *command, status=1)
        assert again["violations"] == [found["violations"][2]]
        minimised = again["minimised"]
        assert minimised["finding"]["invariant"] == "use-after-free"
        names = ("preemptions", "fewest", "operations", "operations_before", "minimal")
        assert [minimised[name] for name in names] == [2, True, 6, 7, True]
        assert spfemu.Program.load(small).to_dict() == minimised["program"]
        assert found["violations"][2]["token"] in page.read_text()

    def test_where_nothing_breaks_there_is_nothing_to_minimise(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        small = tmp_path / "small.json"
        catalogue = "split"
        command = ["explore", catalogue, "--variants", "fixed", "--minimise", str(small)]
        last = told(capsys, *command).splitlines()[-1]
        assert last == f"minimised: nothing was found, {small} was not written"
        assert told_json(capsys, *command, "--json")["minimised"] is None
        assert not small.exists()

    @pytest.mark.parametrize("as_json", [False, True])
    def test_an_interrupted_minimising_leaves_the_smallest_program_so_far(
        self,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        as_json: bool,
    ) -> None:
        path, small = tmp_path / "p.json", tmp_path / "small.json"
        obj = json.loads((CATALOGUE / "write_against_munmap.json").read_text())
        obj["tasks"].append({"name": "idle", "ops": [{"op": "compute", "ns": 1}]})
        path.write_text(json.dumps(obj))
        left = iter(range(4))

        def explore(*arguments: Any, **settings: Any) -> dict[str, Any]:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return spfemu.explore(*arguments, **settings)

        # With no and with one preemption it is looked for, then without the last task.
        monkeypatch.setattr("spfemu.minimising.explore", explore)
        command = ["explore", str(path), "--variants", "fixed", "--mutant", "A7"]
        command += ["--minimise", str(small), *(["--json"] if as_json else [])]
        assert main(command) == 130
        out, err = capsys.readouterr()
        assert err == "spfemu: interrupted\n"
        if as_json:
            assert json.loads(out)["minimised"]["minimal"] is False
        else:
            assert "\n(interrupted; perhaps more can be left out)\n" in out
        assert [task.name for task in spfemu.Program.load(small).tasks] == ["t0", "t1"]

    def test_v12_has_only_bugs_that_are_known(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        path = tmp_path / "race.json"
        race_program().save(path)
        assert main(["explore", str(path), "--json"]) in (0, 1)
        found = json.loads(capsys.readouterr().out)
        assert found["complete"]
        assert {violation["entry"] for violation in found["violations"]} == {"B2", "B3"}


class TestLists:
    @pytest.mark.parametrize(
        ("name", "keys"),
        [
            ("workloads", {"name", "summary", "options"}),
            ("machines", {"name", "arch", "summary", "cpus", "page_size", "values"}),
            ("mutants", {"name", "entry", "kind", "cpus", "oracle", "models"}),
            ("variants", {"name", "entry", "kind", "cpus", "oracle"}),
            ("events", {"name", "aliases", "text"}),
        ],
    )
    def test_each_list(self, capsys: pytest.CaptureFixture[str], name: str, keys: set[str]) -> None:
        entries = told_json(capsys, name, "--json")
        assert entries
        assert all(keys <= set(entry) for entry in entries)
        lines = told(capsys, name).splitlines()
        assert max(map(len, lines)) <= 100
        first = lines[0].split()[0]
        assert first in ("name", "entry")
        for entry in entries:
            assert any(line.startswith(f"{entry[first]} ") for line in lines)

    def test_one_machine_with_the_source_of_each_value(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        machine = told_json(capsys, "machines", "power8-80", "--json")
        values = {value["name"]: value["value"] for value in machine["values"]}
        assert values["wakeup_ns"] == 9_000
        assert values["threads_adjacent"] is True
        lines = told(capsys, "machines", "power8-80").splitlines()
        assert lines[0] == f"power8-80: {machine['summary']}"
        assert lines[1] == "arch powerpc, 80 CPUs, pages of 65536 bytes"
        rows = [" ".join(line.split()) for line in lines[4:]]
        for value in machine["values"]:
            shown = str(value["value"]).lower()
            row = f"{value['name']} {shown} {value['unit']} {value['kind']} {value['source']}"
            start = " ".join(row.split())[:50]
            assert any(told.startswith(start) for told in rows), start

    def test_events_have_their_order(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert [entry["name"] for entry in told_json(capsys, "events", "--json")] == list(EVENTS)
