"""Bad usage and bad input: one line on standard error, exit status 2, and what is allowed."""

# ruff: noqa: E501 - a table reads best with a case on each line

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spfemu.cli import main
from spfemu.engines import ENGINES
from spfemu.workloads import WORKLOADS
from tests.host_kernel import needs_host

SCENARIO = str(Path(__file__).parent / "kernel_scenarios" / "anon_first_write.json")
TRACE = Path(__file__).parent / "traces" / "pigz.perf.txt.zst"
PROGRAM = {"format": "spfemu-program/1", "tasks": [{"ops": [{"op": "compute", "ns": 1}]}]}


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs the command line, which has to refuse, and returns the one line it says."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("spfemu: ")
    assert not err.startswith("spfemu: spfemu")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err.removeprefix("spfemu: ").rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frob"], "No such command 'frob' (allowed: stat, run, check, import, record, explore,"),
        (["--frob"], "no such option: --frob (allowed: --version,"),
        (["stat", "--frob"], "no such option: --frob (allowed: -e, --event,"),
        (["stat"], "no workload; give one after --, as in: spfemu stat -- ebizzy -mTt 8"),
        (["stat", "--", "lmbench"], f'workload "lmbench" (allowed: {", ".join(WORKLOADS)}; a scenario, a program or trace file; -)'),
        (["stat", "--", "ebizzy", "-t", "0"], 'ebizzy: option -t: value "0" (allowed: 1 to 16384)'),
        (["stat", "--", "ebizzy", "-j"], "ebizzy: option -j not recognized (allowed: -m, -M,"),
        (["stat", "-e", "flts", "--", "brk1"], 'event "flts" (allowed: faults, minor-faults, major-faults, spf,'),
        (["stat", "-e", "faults,", "--", "brk1"], 'event "" (allowed: faults,'),
        (["stat", "-e", "x*", "--", "brk1"], 'event "x*" (allowed: faults,'),
        (["stat", "--engine", "qemu", "--", "brk1"], 'engine "qemu" (allowed: vtime, native)'),
        (["stat", "--handler", "v11", "--", "brk1"], 'handler "v11" (allowed: both, classic, spf)'),
        (["stat", "--arch", "vax", "--", "brk1"], 'arch "vax" (allowed: x86, x86-5level, powerpc, powerpc-4k, arm64, arm64-64k)'),
        (["stat", "--machine", "pdp11", "--", "brk1"], 'machine "pdp11" (allowed: '),
        (["machines", "pdp11"], 'machine "pdp11" (allowed: x86-48, '),
        (["machines", "none.toml"], "none.toml: cannot be read: No such file or directory"),
        (["stat", "--machine", "none.toml", "--", "brk1"], "none.toml: cannot be read: No such file or directory"),
        (["stat", "--by", "moon", "--", "brk1"], '--by "moon" (allowed: vma, comm, ip)'),
        (["stat", "--by", "vma", "--handler", "classic", "--", "brk1"], "--by: the classic handler aborts nothing (allowed: both, spf)"),
        (["stat", "--cpus", "0", "--", "brk1"], 'option --cpus: value "0" (allowed: a whole number, 1 and more)'),
        (
            ["stat", "--cpus", "2000", "--", "brk1"],
            "cpus: value 2000 (allowed: 1 to 256, what zen5-256 has; power8-1024 has 1024)",
        ),
        (["stat", "--replicate", "0", "--", str(TRACE)], 'option --replicate: value "0" (allowed: a whole number, 1 and more)'),
        (["stat", "--replicate", "2", "--", "brk1"], "--replicate 2: a workload has its own number of tasks (allowed: with a program or a trace)"),
        (["stat", "--replicate", "2000", "--", str(TRACE)], f"{TRACE}: replicate: value 2000 (allowed: 1 to 1024)"),
        (["stat", "-r", "0", "--", "brk1"], 'option -r/--repeat: value "0" (allowed: a whole number, 1 and more)'),
        (["stat", "-r", "often", "--", "brk1"], 'option -r/--repeat: value "often" (allowed: a whole number, 1 and more)'),
        *[(["stat", "--", name, letter, "0"], f'{name}: option {letter}: value "0" (allowed: 1 to 16384)') for name in WORKLOADS for letter in ["-j" if name == "kernbench" else "-t"] if name != "ebizzy"],
        (["stat", "--", "brk1", "--frob"], "brk1: option --frob not recognized (allowed: -t NUM, -p NUM, -s SECONDS)"),
        (["stat", "--", "ebizzy", "twice"], 'ebizzy: argument "twice" (allowed: -m, -M,'),
        (["stat", "--pace", "--", "brk1"], "--pace (allowed: only with engine native)"),
        (["run", SCENARIO, "--engine", "vtime", "--pace"], "--pace (allowed: only with engine native)"),
        (["stat", "--engine", "native", "--cpus", "2", "--", "brk1"], "--cpus: value 2 (allowed: only with engine vtime)"),
        (["stat", "--engine", "native", "--machine", "x86-48", "--", "brk1"], "--machine: value x86-48 (allowed: only with engine vtime)"),
        (["stat", "-x", "", "--", "brk1"], '-x: value "" (allowed: what no number holds'),
        (["stat", "-x", ",", "--json", "--", "brk1"], "-x (allowed: without --json and --by)"),
        (["stat", "-x", ",", "--by", "vma", "--", "brk1"], "-x (allowed: without --json and --by)"),
        (["stat", "-r", "2", "--seed", str((1 << 64) - 1), "--", "brk1"], "--seed: value 18446744073709551615 (allowed with -r 2: to 2^64-2)"),
        (["check", SCENARIO, "--engine", "reference"], 'engine "reference" (allowed: native, vtime, explore, kernel)'),
        (["explore", SCENARIO, "--seed", str(1 << 64)], "seed: value 18446744073709551616 (allowed: 0 to 18446744073709551615)"),
        (["run"], "Missing argument 'PROGRAM'"),
        (["run", "none.json"], "none.json: cannot be read: No such file or directory"),
        (["run", SCENARIO, "--engine", "bochs"], 'engine "bochs" (allowed: native, reference, vtime, explore, kernel)'),
        (["run", SCENARIO, "--timeout", "3"], "--timeout: value 3 (allowed: only with engine kernel)"),
        (["run", SCENARIO, "--engine", "kernel", "--timeout", "0"], "--timeout: value 0 (allowed: above 0, to 1e9 seconds)"),
        (["run", SCENARIO, "--engine", "kernel", "--arch", "arm64"], "engine kernel: arch arm64 (allowed: x86)"),
        (["run", SCENARIO, "--engine", "kernel", "--arch", "x86-5level"], "engine kernel: arch x86-5level (allowed: x86)"),
        (["run", SCENARIO, "--engine", "kernel", "--handler", "classic"], "--handler: classic (allowed: not with engine kernel, which the host decides)"),
        (["run", SCENARIO, "--engine", "kernel", "--handler", "spf"], "--handler: spf (allowed: not with engine kernel"),
        (["run", SCENARIO, "--engine", "kernel", "--seed", "0"], "--seed: 0 (allowed: not with engine kernel"),
        (["run", SCENARIO, "--handler", "both"], 'handler "both" (allowed: spf, classic)'),
        (["run", SCENARIO, "--arch", "vax"], 'arch "vax" (allowed: x86,'),
        (["run", SCENARIO, "--arch", "powerpc"], f"{SCENARIO}: key 'page_size': value 4096 (allowed on arch powerpc: 65536, or any with"),
        (["run", SCENARIO, "--seed", "-1"], 'option --seed: value "-1" (allowed: a whole number, 0 and more)'),
        (["run", SCENARIO, "--engine", "reference", "--handler", "classic", "--check"], f"{SCENARIO}: key 'expect_for': made for handler spf, arch x86; this run has handler classic"),
        (["check", SCENARIO, "--against", "native"], '--against "native" (allowed: reference, kernel)'),
        (["check", SCENARIO, "--engine", "kernel", "--against", "kernel"], 'engine "kernel" (allowed: native, reference, vtime, explore)'),
        (["check", SCENARIO, "--timeout", "3"], "--timeout: value 3 (allowed: only with engine kernel)"),
        (["check", SCENARIO, "--against", "kernel", "--arch", "arm64"], "engine kernel: arch arm64 (allowed: x86)"),
        (["check", SCENARIO, "--against", "kernel", "--arch", "x86-5level"], "engine kernel: arch x86-5level (allowed: x86)"),
        (["import", "none.txt"], "none.txt: "),
        (["record"], "no program to record; give the command after --"),
        (["explore", SCENARIO, "--strategy", "luck"], 'strategy "luck" (allowed: dfs, random, pct, coverage, guided)'),
        (["explore", SCENARIO, "--preemptions", "few"], 'preemptions: value "few" (allowed: a number, or \'all\')'),
        (["explore", SCENARIO, "--strategy", "pct", "--depth", "0"], 'option --depth: value "0" (allowed: a whole number, 1 and more)'),
        (["explore", SCENARIO, "--depth", "2"], "depth: value 2 (allowed: only with strategy pct)"),
        (["explore", SCENARIO, "--schedule", "0"], "schedule: given (allowed: only with strategy guided)"),
        (["explore", SCENARIO, "--strategy", "guided"], "schedule: missing (needed with strategy guided)"),
        (["explore", SCENARIO, "--strategy", "guided", "--schedule", "0,x"], 'schedule: value "x" (allowed: whole numbers, by commas)'),
        (["explore", SCENARIO, "--strategy", "guided", "--schedule", "1", "--schedules", "3"], "schedules: value 3 (allowed with strategy guided: 1)"),
        (["explore", SCENARIO, "--strategy", "random", "--no-reduction"], "reduction: value False (allowed: only with strategy dfs)"),
        (["explore", SCENARIO, "--minimise", "-"], "--minimise - (allowed: a file)"),
        (["explore", SCENARIO, "--minimise", ""], "--minimise: names no file (allowed: a file)"),
        (["explore", SCENARIO, "--html", "-"], "--html - (allowed: a file)"),
        (["explore", SCENARIO, "--html", ""], "--html: names no file (allowed: a file)"),
        (["explore", SCENARIO, "--minimise", "small.txt"], 'small.txt: suffix ".txt" (allowed: .json, .npz)'),
        (["explore", SCENARIO, "--minimise", SCENARIO], f"{SCENARIO}: is read, or written twice (allowed: another file)"),
        (["explore", SCENARIO, "--minimise", "p.json", "--html", "p.json"], "p.json: is read, or written twice (allowed: another file)"),
        (["explore", SCENARIO, "--workers", "1025"], "workers: value 1025 (allowed: 1 to 1024)"),
        (["explore", SCENARIO, "--steps", "0"], 'option --steps: value "0" (allowed: a whole number, 1 and more)'),
        (["explore", SCENARIO, "--memory-model", "vax"], 'memory model "vax" (allowed: sc, tso, armv8, power)'),
        (["explore", SCENARIO, "--mutant", "Z9"], 'mutant "Z9" (allowed: '),
        (["explore", SCENARIO, "--mutant", "A1"], 'mutant "A1" (allowed: A1a, A1b, A1c, A1d)'),
        (["explore", SCENARIO, "--variant", "Z9=v12"], 'variant "Z9" (allowed: '),
        (["explore", SCENARIO, "--variant", "B1"], 'variant "B1" (allowed: NAME=v12 or NAME=fixed)'),
        (["explore", SCENARIO, "--variant", "B1=v13"], 'variant B1 "v13" (allowed: v12, fixed)'),
        (["explore", SCENARIO, "--variants", "v13"], 'variants "v13" (allowed: v12, fixed)'),
        (["explore", SCENARIO, "--schedules", "0"], 'option --schedules: value "0" (allowed: a whole number, 1 and more)'),
    ],
)  # fmt: skip
def test_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert message in refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.json", b"", "the file is empty (allowed: a program, JSON text or .npz)"),
        ("binary", b"\x7fELF\x02\x01\x01\x00" * 8, "not a program: neither JSON text (UTF-8) nor an .npz archive"),
        ("zeroes.json", bytes(4096), "not a program: neither JSON text (UTF-8) nor an .npz archive"),
        ("binary.json", bytes(range(128, 256)), "not a program: neither JSON text (UTF-8) nor an .npz archive"),
        ("cut.npz", b"PK\x03\x04only the beginning", "not an .npz archive of a program: "),
        ("broken.json", b"{", "line 1 column 2: not JSON: "),
        ("double.json", b'{"format": "spfemu-program/1",\n "tasks": [{"ops": [],\n "ops": []}]}', 'line 3 column 2: key "ops" twice in one object'),
        ("double.json", b'{"a": ["x", {"b": 1, "c": "b"}],\n\n   "a" : 1}', 'line 3 column 4: key "a" twice in one object'),
        ("long.json", b'{"format": "spfemu-program/1", "tasks": [{"ops": [{"op": "compute", "ns": ' + b"7" * 5000 + b"}]}]}", "tasks[0].ops[0]: key 'ns': value \"777"),
        ("bom.json", "\ufeff[]".encode(), "not a program: it does not begin with {"),
        ("cpus.json", b'{"format": "spfemu-program/1", "cpus": 0, "tasks": []}', "key 'cpus': value 0 (allowed: 1 to 1024)"),
        ("tasks.json", b'{"format": "spfemu-program/1", "tasks": []}', "key 'tasks': value [] (allowed: at least one task)"),
    ],
)  # fmt: skip
def test_files_that_are_no_programs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert refused(capsys, "run", str(path)).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("op", "message"),
    [
        ({"op": "frob"}, "key 'op': value \"frob\" (allowed: mmap,"),
        ({"op": "exit", "code": 1}, "key 'code': unknown for exit (allowed: none)"),
        ({"op": "read", "addr": "q"}, "key 'addr': id \"q\" is never defined"),
        ({"op": "read", "addr": -1}, "key 'addr': value -1 (allowed: an address from 0 to 2^64-1)"),
        ({"op": "touch", "addr": 0, "length": 0}, "key 'length': value 0 (allowed: 1 to 2^64-1)"),
        (
            {"op": "await", "name": "raedy"},
            "key 'name': value \"raedy\" (allowed: what a post names: there is none)",
        ),
        (
            {"op": "note", "text": "", "expect": {"maps_lines": ["garbage"]}},
            'expect: key \'maps_lines\': value "garbage" (allowed: "start..end perms',
        ),
        (
            {"op": "note", "text": "", "expect": {"maps_lines": ["p..q 7777 0"]}},
            "expect: key 'maps_lines': value",
        ),
        ({"op": "ksm_scan", "addr": 0}, "key 'length': missing"),
    ],
)
def test_programs_with_a_bad_operation(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, op: object, message: str
) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"format": "spfemu-program/1", "tasks": [{"ops": [op]}]}))
    for command in (["run"], ["check"], ["explore"], ["stat", "--"]):
        line = refused(capsys, *command, str(path))
        assert line.startswith(f"{path}: tasks[0].ops[0]: {message}")


@pytest.mark.parametrize("engine", [*ENGINES[:-1], pytest.param("kernel", marks=needs_host)])
def test_a_touch_that_is_too_long_has_its_place_on_every_engine(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, engine: str
) -> None:
    touch = {"op": "touch", "addr": 0, "length": 2**64 - 1, "stride": 1}
    repeat = {"op": "repeat", "count": 2, "ops": [{"op": "exit"}, touch]}
    path = tmp_path / "p.json"
    path.write_text(json.dumps({**PROGRAM, "tasks": [{"ops": [repeat]}]}))
    line = refused(capsys, "run", "--engine", engine, str(path))
    message = f"key 'length': value {2**64 - 1} (allowed: 1 to 2^32-1 accesses)"
    assert line == f"{path}: tasks[0].ops[0].ops[1]: {message}"


def test_a_name_that_no_post_has(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    post = {"ops": [{"op": "post", "name": "ready"}]}
    wait = {"ops": [{"op": "compute", "ns": 1}, {"op": "await", "name": "raedy"}]}
    path.write_text(json.dumps({"format": "spfemu-program/1", "tasks": [post, wait]}))
    line = refused(capsys, "run", str(path))
    message = "tasks[1].ops[1]: key 'name': value \"raedy\" (allowed: what a post names: ready)"
    assert line == f"{path}: {message}"


def test_what_only_the_core_finds_names_the_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "p.json"
    many = {**PROGRAM, "tasks": [{"ops": []}] * 65}
    path.write_text(json.dumps(many))
    assert refused(capsys, "explore", str(path)) == f"{path}: tasks: 65 (explore allows 1 to 64)"


def test_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text("\ufeff" + json.dumps(PROGRAM), encoding="utf-8")
    assert main(["stat", "--", str(path)]) == 0


def test_a_page_size_that_the_arch_lacks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps({**PROGRAM, "page_size": "16K"}))
    line = refused(capsys, "run", str(path))
    assert line.startswith(f"{path}: key 'page_size': value 16384 (allowed on arch x86: 4096")


def test_nothing_to_check(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(PROGRAM))
    line = refused(capsys, "run", str(path), "--check")
    assert line == f"{path}: --check: no operation has 'expect'"


def test_a_trace_where_a_program_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    assert f"make one with 'spfemu import {TRACE}" in refused(capsys, "run", str(TRACE))


@pytest.mark.parametrize("command", [["import"], ["stat", "--"]])
def test_bad_traces(capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]) -> None:
    bad = {
        "cut.perf.txt.zst": (TRACE.read_bytes()[:20_000], ":2753: the Zstandard data ends early"),
        "head.perf.txt.zst": (TRACE.read_bytes()[:10], ": the Zstandard data ends early"),
        "binary.perf.txt": (b"\x7fELF\x00\x00\x01\x02" * 10, ":1: holds binary data; expected the"),
        "empty.perf.txt": (b"", ": is empty; expected the text that perf script or strace prints"),
        "novel.txt": (b"It was a dark and stormy night.\n", ":1: is neither perf script text"),
    }
    for name, (content, message) in bad.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert refused(capsys, *command, str(path)).startswith(f"{path}{message}")
    assert not list(tmp_path.glob("*.npz"))


def test_an_output_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["stat", "--", "brk1"], ["import", str(TRACE)], ["record", "--", "true"]):
        line = refused(capsys, command[0], "-o", "/nowhere/out", *command[1:])
        assert line == "/nowhere/out: cannot be written: No such file or directory"


def test_an_output_that_is_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ["-t", "1", "-s", "1e-6"]
    line = refused(capsys, "stat", "-o", str(tmp_path), "--", "brk1", *options)
    assert line == f"{tmp_path}: cannot be written: Is a directory"


def test_an_output_that_is_read_or_written_twice(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "program.json"
    path.write_text(json.dumps(PROGRAM))
    said = f"{path}: is read, or written twice (allowed: another file)"
    for option in ("-o", "--trace"):
        assert refused(capsys, "stat", option, str(path), "--", str(path)) == said
    other = str(tmp_path / "t")
    both = ("--trace", other, "-o", f"{tmp_path}/./t")
    assert "written twice" in refused(capsys, "stat", *both, "--", "brk1", "-s", "0.001")
    assert "is read" in refused(capsys, "import", str(TRACE), "-o", str(TRACE))
    assert json.loads(path.read_text()) == PROGRAM
