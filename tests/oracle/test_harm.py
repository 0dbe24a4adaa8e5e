"""Whatever a program does, the caller gets a result or one clear error, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import pytest

import spfemu
from spfemu import EngineError, ProgramError
from tests.oracle.play import PAGE, children, last, mmap, op, program, result, run

USER_END: Final = (1 << 47) - 4096
# Jumps to itself.
ENDLESS: Final = [mmap(prot="rwx"), op("write", value=0xFEEB), op("execute")]


def test_everything_is_unmapped() -> None:
    lowest = 1 << 16
    everything = {"addr": lowest, "length": USER_END - lowest}
    outcomes = run(
        mmap(),
        mmap(addr="0x400000", id="code"),
        mmap(addr=hex(USER_END - 16 * PAGE), id="stack"),
        {"op": "munmap", **everything},
        op("read", "p"),
        op("read", "code"),
        mmap(1),
        op("write", "p", value=1),
    )
    assert [o["errno"] for o in outcomes] == [None] * 8
    assert [o["signal"] for o in outcomes] == [None] * 4 + ["SIGSEGV"] * 2 + [None] * 2


def test_everything_is_protected_and_advised() -> None:
    lowest = 1 << 16
    everything = {"addr": lowest, "length": USER_END - lowest}
    # There are holes: the first one ends it.
    assert last({"op": "mprotect", "prot": "none", **everything}) == ("ENOMEM", 0)
    ops = [mmap(1), op("write", value=1), {"op": "madvise", "advice": "dontneed", **everything}]
    assert last(*ops) == ("ENOMEM", 0)
    assert last(*ops, op("read")) == (0, 1)  # what is mapped was done


def test_what_would_reach_above_user_space_does_nothing() -> None:
    ops = [mmap(1), op("munmap", 1 << 16, length=1 << 47)]
    assert last(*ops) == ("EINVAL", 0)
    assert last(*ops, op("read")) == (0, 1)


def test_the_engines_page_is_out_of_reach() -> None:
    island = result(program([mmap()])).settings["island"]
    far = mmap(1, addr=hex(island + 64 * PAGE))
    for bad in (
        op("read", "p-0x40000"),
        op("mmap", "p-0x41000", length=2 * PAGE),
        op("touch", "p-0x42000", length=3 * PAGE),
    ):
        with pytest.raises(ProgramError, match=r"ops\[1\]: .* meets the page at 0x6000000000"):
            result(program([far, bad]))
    # Who names it by number makes it lie elsewhere.
    assert last(op("read", island))[0] == ("SIGSEGV", "SEGV_MAPERR")
    assert last(mmap(1, addr=hex(island)), op("write", value=1), op("read")) == (1, 0)


def test_time_is_up_in_the_program() -> None:
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"had not ended after 0.3 s and was killed"):
        result(program(ENDLESS), timeout_s=0.3)
    loop = {"op": "repeat", "count": 10**12, "ops": [{"op": "note", "text": "again"}]}
    with pytest.raises(EngineError, match=r"had not ended after 0.3 s and was killed"):
        result(program([loop]), timeout_s=0.3)
    assert time.monotonic() - began < 60  # it did end


def test_memory_is_up() -> None:
    ops = [mmap(8192), op("touch", length=8192 * PAGE)]
    with pytest.raises(EngineError, match=r"ops\[1\]: the program has \d+ bytes of memory"):
        result(program(ops), max_memory=8 << 20)
    # Only what is there at once counts.
    drop = op("madvise", length=1024 * PAGE, advice="dontneed")
    again = {"op": "repeat", "count": 4, "ops": [op("touch", length=1024 * PAGE), drop]}
    assert result(program([mmap(1024), again]), max_memory=8 << 20).counters["faults"] == 4096


def test_a_child_that_somebody_kills_is_an_error() -> None:
    found: list[str] = []

    def go() -> None:
        with pytest.raises(EngineError) as error:
            spfemu.run(program(ENDLESS), engine="kernel", settings={"timeout_s": 60})
        found.append(str(error.value))

    thread = threading.Thread(target=go)
    thread.start()
    while (pid := running_child()) is None and thread.is_alive():
        time.sleep(0.01)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    thread.join()
    assert "ops[2]: thread " in found[0]
    assert "of the child was killed by signal 9" in found[0]
    assert children() == []


def running_child() -> int | None:
    """The process that executes without an end: a child of the one that is ours."""
    for parent in children():
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            for child in task.read_text().split():
                stat = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
                # What comes before takes no five ticks.
                if stat[0] == "R" and int(stat[11]) >= 5:
                    return int(child)
    return None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_caller_is_stopped(tmp_path: Path, number: int) -> None:
    path = tmp_path / "endless.json"
    path.write_text(json.dumps(program(ENDLESS).to_dict()))
    command = [sys.executable, "-m", "spfemu", "run", "--engine", "kernel", str(path)]
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        while process.poll() is None and not (left := descendants(process.pid)):
            time.sleep(0.01)
        time.sleep(0.1)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert (process.returncode, errors) == (130, "spfemu: interrupted\n")
    else:
        assert process.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() and not is_zombie(pid) for pid in left):
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.01)


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_many_runs_at_once() -> None:
    found: list[Any] = []

    def go(value: int) -> None:
        for _ in range(5):
            ops = [mmap(), op("write", value=value), {"op": "fork", "child": "c", "wait": True}]
            tasks = [{"ops": ops}, {"name": "c", "start": "fork", "ops": [op("read", "p")]}]
            given = spfemu.Program.from_dict({"format": "spfemu-program/1", "tasks": tasks})
            ended = spfemu.run(given, engine="kernel")
            found.append((value, int(ended.ops["value"][-1])))

    threads = [threading.Thread(target=go, args=(value,)) for value in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(value, value) for value in range(8) for _ in range(5)]
    assert children() == []


def test_as_somebody_without_rights() -> None:
    if os.geteuid() != 0:
        return  # then every other test is that
    command = [sys.executable, "-m", "spfemu", "run", "--engine", "kernel", "--json", "-"]
    given = json.dumps(program([mmap(), op("write", value=1)]).to_dict()).encode()
    try:
        ended = subprocess.run(command, input=given, user=65534, capture_output=True, cwd="/")
    except PermissionError:
        return  # what is installed here is for root only
    assert ended.stderr == b""
    assert json.loads(ended.stdout)["counters"]["faults"] == 1


def test_descriptors_do_not_pile_up() -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    files = {"f": {"length": PAGE}, "s": {"length": PAGE, "kind": "shmem"}}
    given = program([mmap(1, flags=["private", "fixed"], file="f"), op("read")], files=files)
    result(given)
    before = opened()
    for _ in range(20):
        result(given)
    assert opened() == before


def test_signals_of_the_caller_are_as_before() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    result(program([mmap()]))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
