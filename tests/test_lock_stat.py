"""``--lock-stat``: what was waited for, against the trace, and where nobody can wait."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

import spfemu
from spfemu.cli import main
from spfemu.lock_stat import LockStat
from spfemu.workloads import make_job
from tests.test_cli import told, told_json

EBIZZY = ["ebizzy", "-mTt", "16", "-S", "0.004"]


def counted(command: list[str], handler: str = "spf", **options: Any) -> spfemu.Result:
    program = make_job(command).build()
    return spfemu.run(program, engine="vtime", handler=handler, lock_stat=True, **options)


def stat_of(result: spfemu.Result) -> LockStat:
    assert result.lock_stat is not None
    return result.lock_stat


def waits_of_trace(result: spfemu.Result) -> dict[str, int]:
    """The lengths of the slices that wait, by what for; a track for each task."""
    assert result.settings["cpus"] == len(result.program.tasks)
    waits: dict[str, int] = {}
    for cpu in range(result.settings["cpus"]):
        stack = []
        for entry in result.spans[result.spans["cpu"] == cpu]:
            if entry["phase"] == 0:
                stack.append(entry)
            elif entry["phase"] in (1, 4):
                begun = stack.pop()
                name = result.span_names[begun["name"]]
                if name.startswith("wait for "):
                    lock = name.removeprefix("wait for ")
                    waits[lock] = waits.get(lock, 0) + int(entry["time_ns"] - begun["time_ns"])
    return waits


@pytest.mark.parametrize("command", [EBIZZY, ["malloc1", "-t", "16", "-s", "0.002"]])
@pytest.mark.parametrize("handler", ["classic", "spf"])
def test_waits_are_those_of_the_trace(command: list[str], handler: str) -> None:
    result = counted(command, handler, spans=True, cpus=len(make_job(command).build().tasks))
    waits = {lock.name: lock.wait_ns for lock in stat_of(result).locks if lock.wait_ns}
    assert waits == waits_of_trace(result)
    assert waits["mmap_sem"]


def test_v11s_tree_waits_for_its_lock() -> None:
    locks = {lock.name: lock for lock in stat_of(counted(EBIZZY, tree="rwlock")).locks}
    assert locks["mm_rb_lock"].acquisitions > locks["mmap_sem"].acquisitions
    assert "mm_seq" not in locks


def test_a_lone_task_waits_for_nothing() -> None:
    found = stat_of(counted(["page_fault1", "-t", "1", "-s", "0.001"], cpus=1))
    assert found.locks
    assert [lock for lock in found.locks if lock.lost_ns or lock.contended or lock.fetches] == []
    assert next(lock for lock in found.locks if lock.name == "mmap_sem").acquisitions


@pytest.mark.parametrize("handler", ["classic", "spf"])
def test_on_one_cpu_nobody_loses_time(handler: str) -> None:
    """Tasks go on one after another there, and give their CPU up between operations only."""
    found = stat_of(counted(EBIZZY, handler, cpus=1))
    assert sum(lock.lost_ns for lock in found.locks) == 0


def test_each_acquisition_is_counted() -> None:
    """Of one task: a classic fault takes mmap_sem and a PTE lock, and mmap takes mmap_sem."""
    counts = []
    for pages in (16, 48):
        builder = spfemu.ProgramBuilder()
        task = builder.task("t0")
        task.mmap(65536 * 4, id="p")
        task.touch(("p", 0), 4096 * pages)
        result = spfemu.run(builder.build(), engine="vtime", handler="classic", lock_stat=True)
        counts.append({lock.name: lock.acquisitions for lock in stat_of(result).locks})
    few, many = counts
    assert many["mmap_sem"] - few["mmap_sem"] == 32
    assert many["ptl"] - few["ptl"] == 32
    # mmap, and exit_mmap.
    assert few["mmap_sem"] == 16 + 2


def test_task_time_bounds_what_is_lost() -> None:
    for handler in ("classic", "spf"):
        result = counted(EBIZZY, handler)
        found = stat_of(result)
        nr_tasks = len(result.program.tasks)
        assert 0 < found.task_ns <= nr_tasks * result.elapsed_ns
        assert sum(lock.lost_ns for lock in found.locks) < found.task_ns
        lost = [lock.lost_ns for lock in found.locks]
        assert lost == sorted(lost, reverse=True)


class TestCommandLine:
    def test_the_ten_hottest(self, capsys: pytest.CaptureFixture[str]) -> None:
        plain = told(capsys, "stat", "--", *EBIZZY)
        text = told(capsys, "stat", "--lock-stat", "--", *EBIZZY)
        assert text.startswith(plain)
        tables = text.removeprefix(plain).split(" Waits of the ")[1:]
        assert [table.partition(" ")[0] for table in tables] == ["classic", "spf"]
        for handler, table in zip(("classic", "spf"), tables, strict=True):
            found = stat_of(counted(EBIZZY, handler, cpus=16))
            names = [line.split()[-1] for line in table.splitlines()[3:] if line]
            assert names == [lock.name for lock in found.locks[:10]]
            first = table.splitlines()[3].split()
            assert first[-2] == f"{100 * found.share(found.locks[0].lost_ns):.2f}%"

    def test_nobody_waited(self, capsys: pytest.CaptureFixture[str]) -> None:
        command = ["--cpus", "1", "--handler", "spf", "--", "brk1", "-t", "1", "-s", "1e-4"]
        text = told(capsys, "stat", "--lock-stat", *command)
        assert text.endswith(" Nobody waited in the spf run.\n\n")

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        obj = told_json(capsys, "stat", "--lock-stat", "--json", "--", *EBIZZY)
        for run in obj["runs"]:
            assert run["lock_stat"] == stat_of(counted(EBIZZY, run["handler"], cpus=16)).to_json()
        assert "lock_stat" not in told_json(capsys, "stat", "--json", "--", *EBIZZY)["runs"][0]

    def test_separated(self, capsys: pytest.CaptureFixture[str]) -> None:
        text = told(capsys, "stat", "--lock-stat", "-x", ",", "--handler", "spf", "--", *EBIZZY)
        rows = [row for row in csv.reader(io.StringIO(text)) if row[2].startswith("lock:")]
        assert len(rows) == 50
        values = {name: int(value) for value, _, name, _ in rows}
        for lock in stat_of(counted(EBIZZY, cpus=16)).locks[:10]:
            assert values[f"lock:{lock.name}:wait"] == lock.wait_ns
            assert values[f"lock:{lock.name}:acquired"] == lock.acquisitions
            assert values[f"lock:{lock.name}:fetch"] == lock.fetch_ns

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--engine", "native"], "--lock-stat: engine native (allowed: vtime)"),
            (["-r", "2"], "--lock-stat: -r 2 (allowed: one run)"),
        ],
    )
    def test_refused(
        self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["stat", "--lock-stat", *arguments, "--", "brk1"]) == 2
        assert capsys.readouterr().err == f"spfemu: {message}\n"


@pytest.mark.parametrize("engine", ["native", "reference", "explore"])
@pytest.mark.parametrize("what", ["spans", "lock_stat"])
def test_engines_without_a_clock_of_their_own_refuse(engine: str, what: str) -> None:
    builder = spfemu.ProgramBuilder()
    builder.task().compute(1)
    with pytest.raises(spfemu.EngineError, match=rf"{what}: engine {engine} \(allowed: vtime\)"):
        spfemu.run(builder.build(), engine=engine, **{what: True})  # type: ignore[arg-type]
