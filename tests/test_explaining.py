"""One fault step by step: what ``spfemu explain`` says is what the handler did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import spfemu
from spfemu.cli import main

# A mapping, its first write (classic: there is no anon_vma), a second page's (speculative), which
# another task reads again (no fault), and a hole (SIGSEGV).
PROGRAM = spfemu.Program.loads("""{"format": "spfemu-program/1", "scale_pages": true, "tasks": [
    {"name": "mapper", "ops": [
        {"op": "mmap", "length": "16K", "id": "p"},
        {"op": "write", "addr": "p", "value": 1},
        {"op": "post", "name": "go"},
        {"op": "await", "name": "end"}]},
    {"name": "writer", "ops": [
        {"op": "await", "name": "go"},
        {"op": "write", "addr": "p+0x1000", "value": 2},
        {"op": "read", "addr": "p"},
        {"op": "read", "addr": "0x1000"},
        {"op": "post", "name": "end"}]}]}""")
# Those that a speculative write to anonymous memory passes, in the order of docs/protocol.md; H5,
# H17, H18, H20 and H21 decide nothing, H9 is made where there are protection keys, H23 not at all.
CHECKS = ["W1", "W2", "W3", "H1", "H2", "H3", "H4", "H6", "H7", "H8", "H8", "H10", "H11",
          "H12-H15", "H16", "H19"]  # fmt: skip


def checks(told: dict[str, Any]) -> list[tuple[str, bool]]:
    return [
        (step["what"].split(":")[0], step["access"] == "passed")
        for step in told["steps"]
        if step["access"] in ("passed", "failed")
    ]


def test_a_speculative_fault_passes_every_check_in_order() -> None:
    told = spfemu.explain(PROGRAM, fault=2)
    assert (told["faults"], told["fault"], told["task"], told["cpu"]) == (3, 2, "writer", 1)
    assert (told["outcome"]["op"], told["outcome"]["handled"]) == ("write", "spf")
    passed = checks(told)
    assert all(holds for _, holds in passed)
    names = [name for name, _ in passed]
    assert names[: len(CHECKS)] == CHECKS
    # Under the PTE lock once more.
    assert names[len(CHECKS) :].count("vma_has_changed") == 4
    assert names[-2:] == ["H22", "arch"]
    assert told["steps"][-1]["what"] == "handled with the speculative handler"


def test_what_a_check_compared_is_what_was_read_before_it() -> None:
    told = spfemu.explain(PROGRAM, fault=2)
    steps = told["steps"]
    for number, word in (("H2", "vm_sequence"), ("H8", "vm_start"), ("W3", "mm_users")):
        place = next(n for n, step in enumerate(steps) if step["what"].startswith(f"{number}: "))
        read = steps[place - 1]
        assert read["access"] == "load"
        assert read["what"].endswith(f".{word}")
        value = int(read["value"], 16)
        assert {f"{value}", f"{value:#x}"} & set(steps[place]["what"].split())
    assert told["address"] == hex(int(told["address"], 16))


def test_the_check_that_fails_is_the_one_whose_event_is_counted() -> None:
    told = spfemu.explain(PROGRAM, fault=1)
    assert told["outcome"]["op"] == "write"
    # One task is there, but two that will be: W3 holds, and there is no anon_vma yet.
    failed = [name for name, holds in checks(told) if not holds]
    whats = [step["what"] for step in told["steps"]]
    assert failed == ["H4"]
    assert "trace pagefault:spf_vma_notsup" in whats
    assert told["outcome"]["counters"]["pagefault:spf_vma_notsup"] == 1
    functions = {step["function"] for step in told["steps"]}
    assert {"__handle_speculative_fault", "do_user_addr_fault", "do_anonymous_page"} <= functions


def test_the_last_fault_is_explained_unless_told_otherwise() -> None:
    told = spfemu.explain(PROGRAM)
    assert (told["fault"], told["address"]) == (3, "0x1000")
    assert told["outcome"]["signal"] == "SIGSEGV"
    assert told["steps"][-1]["what"] == "SIGSEGV (SEGV_MAPERR) with mmap_sem held"


@pytest.mark.parametrize(
    ("arch", "function"),
    [("x86", "do_user_addr_fault"), ("arm64", "do_page_fault"), ("powerpc", "__do_page_fault")],
)
def test_the_architecture_has_its_own_entry(arch: str, function: str) -> None:
    told = spfemu.explain(PROGRAM, fault=2, arch=arch)
    assert told["steps"][-1]["function"] == function
    assert told["outcome"]["handled"] == "spf"
    # C8: v12's hook for powerpc takes no result without memory keys.
    keyless = spfemu.Program.from_dict(
        PROGRAM.to_dict() | {"system": {"config": {"PPC_MEM_KEYS": False}}}
    )
    told = spfemu.explain(keyless, fault=2, arch=arch, variants="v12")
    assert dict(checks(told))["arch"] is (arch != "powerpc")
    assert told["outcome"]["handled"] == ("classic" if arch == "powerpc" else "spf")


def test_the_classic_handler_has_none_of_the_checks() -> None:
    told = spfemu.explain(PROGRAM, fault=2, handler="classic")
    assert {name for name, _ in checks(told)} == {"pte_none"}
    assert (told["handler"], told["outcome"]["handled"]) == ("classic", "classic")


def test_steps_of_a_lone_task_are_told_too() -> None:
    builder = spfemu.ProgramBuilder()
    task = builder.task("t0")
    task.mmap(8192, id="p")
    task.touch("p", 8192)
    told = spfemu.explain(builder.build(), fault=1)
    assert checks(told)[2] == ("W3", False)
    assert (told["faults"], told["outcome"]["access"]) == (2, 0)


def test_the_command_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "p.json")
    PROGRAM.save(path)
    assert main(["explain", path, "--fault", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"fault 2 of 3 in {path}: writer, ops[1] write, at 0x7ff")
    assert lines[0].endswith("; x86, spf")
    assert any("H2 ok: vm_sequence 0x2 is even" in line for line in lines)
    assert lines[-1] == "24 checks held; handled with the speculative handler"
    assert main(["explain", path, "--fault", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == spfemu.explain(spfemu.Program.load(path), fault=2)
    assert main(["explain", path]) == 0
    told = capsys.readouterr().out.splitlines()
    assert any("!   H1" in line or "!   H8" in line for line in told)


def test_what_cannot_be_explained_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "p.json")
    PROGRAM.save(path)
    for arguments, message in (
        (["--fault", "4"], f"fault: value 4 (allowed: 1 to 3 in {path})"),
        (["--handler", "both"], 'handler "both" (allowed: spf, classic)'),
        (
            ["--handler", "classic", "--tree", "rwlock"],
            "tree rwlock: handler classic (allowed: spf)",
        ),
    ):
        assert main(["explain", path, *arguments]) == 2
        assert capsys.readouterr().err == f"spfemu: {message}\n"
    builder = spfemu.ProgramBuilder()
    builder.task("t0").mmap(4096)
    builder.build().save(path)
    assert main(["explain", path]) == 2
    assert "nothing faults in it (needed: an access that does)" in capsys.readouterr().err
