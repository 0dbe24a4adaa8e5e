"""``spfemu.sweep``: what a list of CPUs means, what a table holds, who runs the cells."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

import spfemu
from spfemu.engines import core_list
from spfemu.sweeping.cells import Cell, Outcome, Workload, run_cell, usual_command
from spfemu.sweeping.numbers import cpu_numbers, doubling
from spfemu.sweeping.store import Store
from spfemu.workloads import WORKLOADS, make_job

SHORT: Final = "ebizzy -mTt {cpus} -S 0.001"
MACHINES: Final = {entry["name"]: entry for entry in core_list("machines")}
MINE: Final = 'name = "mine"\nlike = "x86-48"\nfault_ns = 5000'


@pytest.fixture(scope="module")
def table() -> spfemu.Sweep:
    return spfemu.sweep(SHORT, cpus="1,2,4", jobs=1)


class TestLists:
    @pytest.mark.parametrize(
        ("text", "numbers"),
        [
            ("1", [1]),
            (" 4, 2 ", [2, 4]),
            ("1,2,4..64", [1, 2, 4, 8, 16, 32, 64]),
            ("1,2,4..48", [1, 2, 4, 8, 16, 32]),
            ("1,2..8", [1, 2, 4, 8]),
            ("3,9..100", [3, 9, 27, 81]),
            ("1..4", [1, 2, 3, 4]),
            ("10,20,30..60", [10, 20, 30, 40, 50, 60]),
            ("1,2,4..8,24,48", [1, 2, 4, 8, 24, 48]),
            ("5..5", [5]),
            ("1,1,2", [1, 2]),
            (7, [7]),
            ([8, 1], [1, 8]),
            (range(1, 4), [1, 2, 3]),
        ],
    )
    def test_means(self, text: Any, numbers: list[int]) -> None:
        assert list(cpu_numbers(text, 128, "it")) == numbers

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("0", "cpus: value 0 (allowed: 1 to 128, what it has)"),
            ("129", "cpus: value 129 (allowed: 1 to 128, what it has)"),
            ("1..999999999", "cpus: value 999999999 (allowed: 1 to 128, what it has)"),
            ("1,2,4..99999999999999999999", 'cpus: value "99999999999999999999" (allowed: numbers'),
            ("-1", 'cpus: value "-1" (allowed: numbers, as in 1,2,4..32 or 1..8)'),
            ("1,,2", 'cpus: value "1,,2" (allowed: numbers'),
            ("", 'cpus: value "" (allowed: numbers'),
            ("many", 'cpus: value "many" (allowed: numbers'),
            ("4..", 'cpus: value "4.." (allowed: numbers'),
            ("..4", 'cpus: value "..4" (allowed: numbers'),
            ("8..4", 'cpus: value "8..4" (allowed: ascending numbers)'),
            ("4,2..8", 'cpus: value "2..8" (allowed: ascending numbers)'),
            ("2,2..8", 'cpus: value "2..8" (allowed: ascending numbers)'),
            ("1...4", 'cpus: value ".4" (allowed: numbers'),
            ([], "cpus: value [] (allowed: 1 to 128"),
            ([1, "2"], 'cpus: value "2" (allowed: 1 to 128'),
            (True, "cpus: value true (allowed: 1 to 128"),
            (0, "cpus: value 0 (allowed: 1 to 128"),
            (1.5, "cpus: value 1.5 (allowed: 1 to 128"),
        ],
    )
    def test_refuses(self, text: Any, message: str) -> None:
        with pytest.raises(spfemu.EngineError) as error:
            cpu_numbers(text, 128, "it")
        assert str(error.value).startswith(message)

    @pytest.mark.parametrize("most", [1, 2, 48, 64, 1024])
    def test_doubling_ends_with_the_last(self, most: int) -> None:
        numbers = doubling(most)
        assert numbers[-1] == most
        assert all(number & (number - 1) == 0 for number in numbers[:-1])
        assert sorted(set(numbers)) == list(numbers)


class TestRows:
    def test_one_for_each_figure_and_counter(self, table: spfemu.Sweep) -> None:
        cells = {(row.ncpus, row.variant) for row in table.rows}
        assert cells == {(n, handler) for n in (1, 2, 4) for handler in ("classic", "spf")}
        metrics = ["records", "records/s", "elapsed", "faults/s"]
        metrics += [f"count:{event.removeprefix('pagefault:')}" for event in spfemu.EVENTS]
        assert table.metrics() == metrics
        assert len(table.rows) == len(cells) * len(metrics)

    def test_what_one_run_of_the_same_gives(self, table: spfemu.Sweep) -> None:
        first = next(iter(MACHINES))
        job = make_job(["ebizzy", "-mTt", "4", "-S", "0.001"])
        program = job.build()
        result = spfemu.run(program, engine="vtime", machine=first, cpus=4, record=False)
        rows = [row for row in table.rows if (row.ncpus, row.variant) == (4, "spf")]
        values = {row.metric: row.value for row in rows}
        assert values["records/s"] == job.figures(result)["records_per_s"]
        assert values["elapsed"] == result.elapsed_ns / 1e9
        assert values["faults/s"] == pytest.approx(result.counters["faults"] / values["elapsed"])
        for event, count in result.counters.items():
            assert values[f"count:{event.removeprefix('pagefault:')}"] == count
        row = rows[0]
        assert row.machine == first
        assert (row.arch, row.threads, row.note) == ("x86_64", 4, "seed 0")
        assert row.benchmark == "ebizzy -mTt <nrcpus> -S 0.001"
        assert row.source == f"spfemu {spfemu.__version__}, virtual time"
        assert row.stddev_pct is None

    def test_repeats_are_a_mean_with_a_deviation(self) -> None:
        rows = spfemu.sweep(SHORT, cpus=4, handler="classic", repeat=3, seed=5, jobs=1).rows
        ones = [
            spfemu.sweep(SHORT, cpus=4, handler="classic", seed=seed, jobs=1).rows
            for seed in (5, 6, 7)
        ]
        for row, *single in zip(rows, *ones, strict=True):
            values = [one.value for one in single]
            assert row.value == pytest.approx(statistics.fmean(values))
            if row.value:
                spread = 100 * statistics.stdev(values) / row.value
                assert row.stddev_pct == pytest.approx(spread)
            else:
                assert row.stddev_pct is None
            assert row.note == "mean of 3 runs, seeds 5 to 7"
        assert any(row.stddev_pct for row in rows)

    def test_several_machines(self) -> None:
        names = list(MACHINES)[:2]
        rows = spfemu.sweep(SHORT, cpus="1,2", machine=names, handler="spf", jobs=1).rows
        assert list(dict.fromkeys(row.machine for row in rows)) == names

    def test_power_and_arm(self) -> None:
        for family, word in (("powerpc", "ppc64le"), ("arm64", "aarch64")):
            name = next(n for n, entry in MACHINES.items() if entry["arch"] == family)
            rows = spfemu.sweep("brk1 -t {cpus} -s 1e-4", cpus=1, machine=name, jobs=1).rows
            assert {row.arch for row in rows} == {word}

    def test_tasks_that_wait_for_ever_are_noted(self) -> None:
        builder = spfemu.ProgramBuilder()
        for name, other in (("one", "two"), ("two", "one")):
            task = builder.task(name)
            task.await_(other)
            task.post(name)
        table = spfemu.sweep(builder.build(), cpus=1, handler="spf", jobs=1)
        assert table.stuck() == ["tasks that wait for ever: one, two"]
        assert table.rows[0].threads == 2

    def test_a_program_a_file_and_a_trace(self, tmp_path: Path) -> None:
        program = make_job(["brk1", "-t", "2", "-s", "1e-4"]).build()
        path = tmp_path / "p.json"
        program.save(path)
        given = spfemu.sweep(program, cpus="1,2", handler="spf", jobs=1).rows
        loaded = spfemu.sweep([str(path)], cpus="1,2", handler="spf", jobs=1).rows
        assert [row.value for row in given] == [row.value for row in loaded]
        assert {row.benchmark for row in loaded} == {str(path)}
        trace = Path(__file__).parent / "traces" / "pigz.perf.txt.zst"
        rows = spfemu.sweep([str(trace)], cpus=2, handler="spf", jobs=1).rows
        assert next(row.value for row in rows if row.metric == "count:faults") > 1000


class TestMachines:
    """Of the user's own; `tests/test_machines.py` has what they are."""

    def test_a_file_is_read_once_and_its_numbers_go_with_each_cell(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.toml"
        path.write_text(MINE)
        mine = spfemu.Machine.load(path)

        class Elsewhere(Recorder):
            """As a worker of another computer: it gets bytes, and has no such file."""

            def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
                path.unlink(missing_ok=True)
                return super().submit(fn, *pickle.loads(pickle.dumps(args)), **kwargs)

        elsewhere = Elsewhere()
        table = spfemu.sweep(SHORT, cpus="1,4", machine=path, executor=elsewhere)
        assert len(elsewhere.cells) == 4
        assert {row.machine for row in table.rows} == {"mine"}
        assert table == spfemu.sweep(SHORT, cpus="1,4", machine=mine, jobs=1)
        job = make_job(["ebizzy", "-mTt", "4", "-S", "0.001"])
        result = spfemu.run(job.build(), engine="vtime", machine=mine, cpus=4, record=False)
        assert rate(table, 4, "spf") == job.figures(result)["records_per_s"]
        # Slower faults: not the rate of the machine that it is like.
        assert rate(table, 4, "spf") < rate(spfemu.sweep(SHORT, cpus=4, jobs=1), 4, "spf")

    def test_the_largest_number_of_cpus_is_the_smallest_machines(self, tmp_path: Path) -> None:
        mine = spfemu.machine("x86-48").replace(sockets=1)
        with pytest.raises(spfemu.EngineError) as error:
            spfemu.sweep(SHORT, cpus=25, machine=["x86-48", mine])
        assert str(error.value) == "cpus: value 25 (allowed: 1 to 24, what x86-48,sockets=1 has)"
        rows = spfemu.sweep(SHORT, cpus=24, machine=["x86-48", mine], handler="spf", jobs=1).rows
        assert list(dict.fromkeys(row.machine for row in rows)) == ["x86-48", "x86-48,sockets=1"]

    def test_this_host(self) -> None:
        rows = spfemu.sweep(SHORT, cpus=1, machine="host", handler="spf", jobs=1).rows
        assert {row.machine for row in rows} == {"host"}

    def test_a_file_that_changed_is_another_machine(self, tmp_path: Path) -> None:
        path, keep = tmp_path / "mine.toml", tmp_path / "cells"
        for text, runs in ((MINE, 2), (MINE.replace("5000", "6000"), 2), (MINE, 0)):
            path.write_text(text)
            recorder = Recorder()
            spfemu.sweep(SHORT, cpus=1, machine=str(path), executor=recorder, keep=keep)
            assert len(recorder.cells) == runs

    def test_two_of_one_name_are_refused_and_one_twice_is_one(self) -> None:
        base = spfemu.machine("x86-48")
        other = base.replace(name="x86-48", fault_ns=1)
        with pytest.raises(spfemu.EngineError) as error:
            spfemu.sweep(SHORT, cpus=1, machine=[base, other])
        assert str(error.value) == 'machine "x86-48": 2 that differ (allowed: other names)'
        recorder = Recorder()
        spfemu.sweep(SHORT, cpus=1, machine=[base, "x86-48"], executor=recorder)
        assert len(recorder.cells) == 2


class TestWorkloads:
    @pytest.mark.parametrize("name", sorted(WORKLOADS))
    def test_a_name_alone_is_a_command_that_works(self, name: str) -> None:
        command = usual_command(name).replace("{cpus}", "3").split()
        assert make_job(command, cpus=3).nr_tasks >= 1

    def test_ebizzy_is_the_founding_documents(self) -> None:
        assert usual_command("ebizzy") == "ebizzy -mTt {cpus} -S 0.2"

    @pytest.mark.parametrize(
        ("workload", "message"),
        [
            ("", "no workload (allowed: a command"),
            ("ebizzy -t '", 'workload "ebizzy -t \'": no closing quotation'),
            ("frob -x", 'workload "frob" (allowed: ebizzy, '),
            ("-", 'workload "-" (allowed: files, which each cell can read anew)'),
            ("ebizzy -t x{cpus}", 'ebizzy: option -t: value "x1" (allowed: 1 to 16384)'),
            ("ebizzy -t {threads}", 'ebizzy: option -t: value "{threads}" (allowed:'),
        ],
    )
    def test_refused(self, workload: str, message: str) -> None:
        with pytest.raises(spfemu.ProgramError) as error:
            spfemu.sweep(workload, cpus=1)
        assert str(error.value).startswith(message)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"handler": "v11"}, 'handler "v11" (allowed: both, classic, spf)'),
            ({"repeat": 0}, "repeat: value 0 (allowed: 1 to "),
            ({"seed": -1}, "seed: value -1 (allowed with 1 of them: 0 to "),
            ({"seed": (1 << 64) - 1, "repeat": 2}, "seed: value 18446744073709551615 (allowed"),
            ({"jobs": 0}, "jobs: value 0 (allowed: 1 and more)"),
            ({"executor": print}, "executor: value "),
            ({"jobs": 2, "executor": ThreadPoolExecutor(1)}, "jobs: value 2 (allowed: without ex"),
        ],
    )
    def test_refused_options(self, options: Any, message: str) -> None:
        with pytest.raises(spfemu.EngineError) as error:
            spfemu.sweep(SHORT, cpus=1, **options)
        assert str(error.value).startswith(message)

    @pytest.mark.parametrize(
        ("machine", "message"),
        [
            ("pdp11", 'machine "pdp11" (allowed: x86-48, '),
            (["x86-48", 5], 'machine "5" (allowed: x86-48, '),
            ("none.toml", "none.toml: cannot be read: No such file or directory"),
        ],
    )
    def test_refused_machines(self, machine: Any, message: str) -> None:
        with pytest.raises(spfemu.ProfileError) as error:
            spfemu.sweep(SHORT, cpus=1, machine=machine)
        assert str(error.value).startswith(message)

    def test_all_is_checked_before_anything_runs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ran: list[Cell] = []
        monkeypatch.setattr("spfemu.sweeping.pool.run_cell", lambda cell, _: ran.append(cell))
        with pytest.raises(spfemu.ProgramError, match="16385"):
            spfemu.sweep("ebizzy -t 1638{cpus}", cpus="1..5", jobs=1)
        assert ran == []


class Recorder(Executor):
    """An executor that runs at once and remembers what."""

    def __init__(self) -> None:
        self.cells: list[Cell] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.cells.append(args[0])
        future.set_result(fn(*args, **kwargs))
        return future


class TestExecutors:
    def test_any_gives_the_same(self, table: spfemu.Sweep) -> None:
        with ThreadPoolExecutor(2) as threads:
            assert spfemu.sweep(SHORT, cpus="1,2,4", executor=threads) == table
        recorder = Recorder()
        assert spfemu.sweep(SHORT, cpus="1,2,4", executor=recorder) == table
        # The largest begin first.
        assert [cell.cpus for cell in recorder.cells] == [4, 4, 2, 2, 1, 1]

    def test_processes_give_the_same(self, table: spfemu.Sweep) -> None:
        shares: list[float] = []
        assert spfemu.sweep(SHORT, cpus="1,2,4", jobs=2, progress=shares.append) == table
        assert (shares[0], shares[-1]) == (0, 1)
        assert shares == sorted(shares)

    def test_a_cell_that_fails_is_the_error_and_the_rest_is_taken_back(self) -> None:
        class Failing(Executor):
            def __init__(self) -> None:
                self.futures: list[Future[Any]] = []

            def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
                self.futures.append(Future())
                if len(self.futures) == 2:
                    self.futures[1].set_exception(spfemu.EngineError("out of luck"))
                return self.futures[-1]

        failing = Failing()
        with pytest.raises(spfemu.EngineError, match="out of luck"):
            spfemu.sweep(SHORT, cpus="1,2,4", executor=failing)
        assert [future.cancelled() for future in failing.futures] == [True, False] + [True] * 4

    def test_a_worker_that_is_killed_is_an_error_and_the_cells_before_are_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("spfemu.sweeping.pool.run_cell", die_with_one_cpu)
        keep = tmp_path / "cells"
        with pytest.raises(spfemu.EngineError, match="a worker process has ended"):
            spfemu.sweep(SHORT, cpus="1,2", handler="spf", repeat=2, jobs=2, keep=keep)
        monkeypatch.undo()
        again = spfemu.sweep(SHORT, cpus="1,2", handler="spf", repeat=2, jobs=1, keep=keep)
        assert again == spfemu.sweep(SHORT, cpus="1,2", handler="spf", repeat=2, jobs=1)


def die_with_one_cpu(cell: Cell) -> Outcome:
    if cell.cpus == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return run_cell(cell)


class TestKeeping:
    def test_a_second_call_runs_only_what_is_missing(
        self, tmp_path: Path, table: spfemu.Sweep
    ) -> None:
        keep = tmp_path / "cells"
        first = Recorder()
        spfemu.sweep(SHORT, cpus="1,2", executor=first, keep=keep)
        assert len(first.cells) == 4
        second = Recorder()
        shares: list[float] = []
        again = spfemu.sweep(
            SHORT, cpus="1,2,4", executor=second, keep=keep, progress=shares.append
        )
        assert again == table
        assert [cell.cpus for cell in second.cells] == [4, 4]
        assert shares[0] == pytest.approx(6 / 14)

    @pytest.mark.parametrize(
        "change",
        [{"seed": 1}, {"machine": list(MACHINES)[1]}, {"workload": "ebizzy -mTt {cpus} -S 0.002"}],
        ids=lambda change: next(iter(change)),
    )
    def test_cells_of_another_sweep_are_not_taken(
        self, tmp_path: Path, change: dict[str, Any]
    ) -> None:
        keep = tmp_path / "cells"
        spfemu.sweep(SHORT, cpus=1, executor=Recorder(), keep=keep)
        other = Recorder()
        spfemu.sweep(**{"workload": SHORT, "cpus": 1, "executor": other, "keep": keep, **change})
        assert len(other.cells) == 2

    def test_a_file_that_changed_is_another_workload(self, tmp_path: Path) -> None:
        path, keep = tmp_path / "p.json", tmp_path / "cells"
        for threads in ("1", "2"):
            make_job(["brk1", "-t", threads, "-s", "1e-4"]).build().save(path)
            recorder = Recorder()
            spfemu.sweep([str(path)], cpus=1, executor=recorder, keep=keep)
            assert len(recorder.cells) == 2

    @pytest.mark.parametrize(("cut", "missing"), [(1, 1), (20, 1), (10_000, 6)])
    def test_a_line_that_a_crash_cut_short_is_run_again(
        self, tmp_path: Path, table: spfemu.Sweep, cut: int, missing: int
    ) -> None:
        keep = tmp_path / "cells"
        spfemu.sweep(SHORT, cpus="1,2,4", executor=Recorder(), keep=keep)
        text = keep.read_bytes()
        keep.write_bytes(text[:-cut])
        recorder = Recorder()
        assert spfemu.sweep(SHORT, cpus="1,2,4", executor=recorder, keep=keep) == table
        assert len(recorder.cells) == missing
        assert sorted(keep.read_bytes().splitlines()) == sorted(text.splitlines())

    @pytest.mark.parametrize("content", ["a,b\n1,2\n", "{}\n", "\0\n"])
    def test_another_file_is_not_overwritten(self, tmp_path: Path, content: str) -> None:
        keep = tmp_path / "cells"
        keep.write_text(content)
        with pytest.raises(spfemu.ProgramError, match="holds no cells of a sweep"):
            spfemu.sweep(SHORT, cpus=1, keep=keep)
        assert keep.read_text() == content

    def test_two_sweeps_do_not_share_one_file(self, tmp_path: Path) -> None:
        keep = tmp_path / "cells"
        with Store(keep), pytest.raises(spfemu.ProgramError, match="another sweep is writing it"):
            spfemu.sweep(SHORT, cpus=1, keep=keep)
        spfemu.sweep(SHORT, cpus=1, jobs=1, keep=keep)

    def test_a_place_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(spfemu.ProgramError, match="cannot be written: No such file"):
            spfemu.sweep(SHORT, cpus=1, keep=tmp_path / "none" / "cells")

    def test_cells_are_plain_values(self) -> None:
        workload = Workload(("brk1", "-t", "{cpus}", "-s", "1e-4"))
        cell = Cell(workload, spfemu.machine("x86-48"), 2, "spf", 3)
        outcome = run_cell(cell)
        assert json.loads(json.dumps(outcome)) == outcome
        assert outcome["threads"] == 2


class TestForms:
    def test_csv(self, table: spfemu.Sweep, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        table.save(path)
        assert path.read_text() == table.to_csv()
        read = list(csv.DictReader(io.StringIO(table.to_csv())))
        assert len(read) == len(table.rows)
        for fields, row in zip(read, table.to_dicts(), strict=True):
            assert list(fields) == list(spfemu.Row._fields)
            for name, value in row.items():
                if isinstance(value, float):
                    assert float(fields[name]) == value
                else:
                    assert fields[name] == ("" if value is None else str(value))

    def test_pandas_and_parquet(self, table: spfemu.Sweep, tmp_path: Path) -> None:
        pandas = pytest.importorskip("pandas")
        pytest.importorskip("pyarrow")
        path = tmp_path / "t.parquet"
        table.save(path)
        frame = table.to_pandas()
        pandas.testing.assert_frame_equal(pandas.read_parquet(path), frame)
        assert [str(frame[name].dtype) for name in ("ncpus", "value", "stddev_pct")] == [
            "int64",
            "float64",
            "float64",
        ]
        rates = frame[frame.metric == "records/s"].pivot(
            index="ncpus", columns="variant", values="value"
        )
        assert rates.loc[4, "spf"] == rate(table, 4, "spf")

    def test_polars(self, table: spfemu.Sweep) -> None:
        pytest.importorskip("polars")
        frame = table.to_polars()
        assert frame.rows() == [tuple(row) for row in table.rows]

    def test_xarray(self) -> None:
        pytest.importorskip("xarray")
        table = spfemu.sweep(SHORT, cpus="1,4", repeat=2, jobs=1)
        data = table.to_xarray()
        assert data.records_per_s.dims == ("machine", "variant", "ncpus")
        assert data.records_per_s.attrs == {"unit": "records/s"}
        machine = table.rows[0].machine
        picked = data.records_per_s.sel(machine=machine, variant="spf", ncpus=4)
        assert float(picked) == rate(table, 4, "spf")
        assert data.threads.values.tolist() == [1, 4]
        assert data.count_spf_vma_changed.dtype == np.float64
        deviation = data.records_per_s_stddev_pct.sel(variant="classic", ncpus=4)
        row = next(r for r in table.rows if r[3:7:3] == (4, "records/s"))
        assert float(deviation[0]) == row.stddev_pct
        assert all(str(name).isidentifier() for name in data.variables)

    def test_the_core_needs_none_of_them(self) -> None:
        # As where nothing but the package's own dependencies is installed.
        script = f"""
import sys
for name in ("pandas", "pyarrow", "polars", "xarray", "matplotlib", "distributed"):
    sys.modules[name] = None
import spfemu
table = spfemu.sweep({SHORT!r}, cpus=1, jobs=1)
for act in (table.to_pandas, table.to_polars, table.to_xarray, table.figure):
    try:
        act()
    except spfemu.EngineError as error:
        print(error)
"""
        told = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        assert told.stdout.splitlines() == [
            "pandas is not installed; pip install spfemu[sweep]",
            "polars is not installed; pip install polars",
            "xarray is not installed; pip install spfemu[sweep]",
            "matplotlib is not installed; pip install spfemu[sweep]",
        ]


def rate(table: spfemu.Sweep, ncpus: int, handler: str) -> float:
    return next(
        row.value
        for row in table.rows
        if (row.ncpus, row.variant, row.metric) == (ncpus, handler, "records/s")
    )
