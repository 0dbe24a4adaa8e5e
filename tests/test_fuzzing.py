"""Campaigns: what they find, what they print, how they end and go on."""

from __future__ import annotations

import ast
import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, cast

import pytest

from spfemu import EngineError, Program, ProgramError, explore
from spfemu.cli import main
from spfemu.fuzzing import Campaign, Found, Plan, fuzz
from spfemu.fuzzing.findings import saved
from spfemu.fuzzing.properties import BrokenError, Example, check
from spfemu.fuzzing.worker import work

PAGE: Final = Path(__file__).parent.parent / "docs" / "fuzzing.md"
NOTE: Final = '{"format": "spfemu-program/1", "tasks": [{"ops": [{"op": "note", "text": "x"}]}]}'


def until_found(plan: Plan) -> tuple[Campaign, list[Path]]:
    """Runs a campaign up to its first finding."""
    paths: list[Path] = []

    def stop(_found: Found, path: Path) -> None:
        paths.append(path)
        raise KeyboardInterrupt

    return fuzz(plan, on_finding=stop), paths


def once_at_work(minimum: int = 1) -> Callable[[Campaign], None]:
    def stop(campaign: Campaign) -> None:
        if campaign.programs >= minimum and not campaign.interrupted:
            raise KeyboardInterrupt

    return stop


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def found(folder: Path) -> tuple[Found, Path]:
    # A26: splitting a VMA without a reference for its new half; any program that splits shows it.
    plan = Plan(workers=1, mutants=("A26",), db=str(folder / "db"))
    campaign, paths = until_found(plan)
    assert campaign.interrupted
    assert campaign.programs > 0
    assert campaign.runs > 0
    assert campaign.coverage > 0
    return campaign.findings[0], paths[0]


class TestFinding:
    def test_a_mutant_is_found_and_saved_as_program_and_token(
        self, found: tuple[Found, Path]
    ) -> None:
        finding, path = found
        program = Program.load(path)
        token = finding.token
        assert token is not None
        again = explore(program, **finding.settings, replay=token)
        assert {one["entry"] for one in again["violations"]} == {"A26"}
        assert finding.settings == {"variants_default": "fixed", "mutants": ["inherited-counts"]}
        assert sum(len(task.ops) for task in program.tasks) <= 8

    def test_the_test_runs_as_pasted_and_fails_until_it_is_mended(
        self, found: tuple[Found, Path]
    ) -> None:
        finding, path = found
        text = path.with_name(f"test_{path.stem}.py").read_text(encoding="utf-8")
        assert text == finding.test()
        names: dict[str, Any] = {}
        exec(compile(text, "pasted", "exec"), names)
        with pytest.raises(AssertionError):
            names[f"test_{finding.name}"]()
        # Mended, as far as this program shows: the check is there.
        mended = text.replace("mutants=['inherited-counts']", "mutants=[]")
        assert mended != text
        exec(compile(mended.replace(f", replay={finding.token!r}", ""), "pasted", "exec"), names)
        names[f"test_{finding.name}"]()

    def test_what_the_documentation_shows_is_printed_so_and_fails(self) -> None:
        (text,) = re.findall(
            r"```python\n(import spfemu\n\n\ndef .*?)```", PAGE.read_text(), re.DOTALL
        )
        what, program, token = (
            re.findall(pattern, text, re.DOTALL)[0]
            for pattern in (r'"""(.*?)"""', r'loads\(r"""\n(.*?)\n"""', r'replay="(.*?)"')
        )
        invariant = what.partition(":")[0]
        settings: dict[str, Any] = {"variants_default": "fixed", "mutants": ["no-second-check"]}
        key = f"exploring {invariant} A7"
        finding = Found(key, what, program, settings, {"replay": token})
        # But for quotes and folds, which are ruff's on the page.
        assert ast.dump(ast.parse(text)) == ast.dump(ast.parse(finding.test()))
        (broken,) = explore(Program.loads(program), **settings, replay=token)["violations"]
        assert (broken["entry"], f"{broken['invariant']}: {broken['what']}") == ("A7", what)
        names: dict[str, Any] = {}
        exec(compile(text, "pasted", "exec"), names)
        with pytest.raises(AssertionError):
            names[f"test_{finding.name}"]()

    def test_a_test_of_engines_that_differ_runs_as_pasted(self, tmp_path: Path) -> None:
        text = NOTE.replace('"x"', '"\\\\"')
        how = {"arch": "x86", "what": "own"}
        (tmp_path / "findings").mkdir()
        finding = Found("differential a and b: tasks[0] ret", 'say "it" \\', text, {}, how)
        path = finding.save(tmp_path)
        assert finding.command(path) == f"spfemu check {path} --against reference"
        names: dict[str, Any] = {}
        exec(compile(finding.test(), "pasted", "exec"), names)
        names[f"test_{finding.name}"]()
        assert list(saved(tmp_path)) == [finding]

    def test_what_engines_disagree_about_is_a_finding(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def differ(*_given: Any, **_more: Any) -> None:
            raise AssertionError(
                "reference (spf, x86) and native (spf, x86) differ in 1 places:\n"
                "  tasks[0].ops[3] read: value: reference 1, native 2\nprogram:\n{}"
            )

        monkeypatch.setattr("spfemu.fuzzing.properties.differential", differ)
        example = Example(Program.loads(NOTE), {"arch": "x86", "what": "all"})
        with pytest.raises(AssertionError) as error:
            check("differential", example, {}, lambda _runs, _seen: None)
        key = "differential reference (spf, x86) and native (spf, x86): read value"
        assert getattr(error.value, "key", None) == key


class TestGoingOn:
    def test_what_was_found_is_known(self, found: tuple[Found, Path], folder: Path) -> None:
        plan = Plan(workers=1, mutants=("A26",), db=str(folder / "db"))
        campaign = fuzz(plan, progress=once_at_work())
        assert campaign.known >= 1
        assert campaign.before > 0
        assert found[0].key not in [one.key for one in campaign.findings]

    def test_who_shares_the_database_has_what_others_found(
        self, found: tuple[Found, Path], folder: Path, tmp_path: Path
    ) -> None:
        examples = folder / "db" / "examples"
        assert any(path.is_file() for path in examples.rglob("*"))
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "examples").symlink_to(examples)
        plan = Plan(workers=1, mutants=("A26",), db=str(tmp_path / "other"))
        campaign, _ = until_found(plan)
        assert campaign.findings[0].key == found[0].key
        # It stays there for the next one, though this one knows it by now.
        assert any(path.is_file() for path in examples.rglob("*"))

    def test_redis_has_what_others_found(self, tmp_path: Path) -> None:
        pytest.importorskip("redis")
        server = shutil.which("redis-server") or pytest.skip("no redis-server")
        path = tmp_path / "socket"
        command = [server, "--port", "0", "--unixsocket", str(path), "--save", "", "--loglevel"]
        with subprocess.Popen([*command, "warning"], cwd=tmp_path) as process:
            try:
                deadline = time.monotonic() + 30
                while not path.exists() and time.monotonic() < deadline:
                    time.sleep(0.05)
                keys = []
                for name in ("one", "other"):
                    (tmp_path / name).mkdir()
                    with contextlib.chdir(tmp_path / name):
                        campaign, _ = until_found(Plan(mutants=("A26",), db=f"unix://{path}"))
                    keys.append(campaign.findings[0].key)
                    assert (tmp_path / name / "spfemu-fuzz" / "findings.jsonl").exists()
                # The second one had it from the first.
                assert keys[0] == keys[1]
                assert campaign.programs < 100
            finally:
                process.terminate()


class Pipe:
    """What a worker tells, kept."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def send(self, what: tuple[Any, ...]) -> None:
        self.told.append(what)

    def close(self) -> None:
        pass

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [told for told in self.told if told[0] == name]


class EndsAfter:
    """An event that is set after it was looked at so many times."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


class TestWorker:
    """One worker in this process, with a check that says what the test wants."""

    @pytest.fixture(autouse=True)
    def with_ctrl_c(self) -> Iterator[None]:
        before = signal.getsignal(signal.SIGINT)
        yield
        signal.signal(signal.SIGINT, before)

    def run(self, plan: Plan, looks: int, number: int = 0) -> Pipe:
        pipe = Pipe()
        work(plan.checked(), number, cast(Any, pipe), cast(Any, EndsAfter(looks)))
        return pipe

    @pytest.mark.parametrize("looks", [*range(1, 14), 40])
    def test_time_that_is_up_at_any_moment_ends_it_and_loses_nothing(
        self, looks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Hypothesis draws, breaks, shrinks and replays; the event may come at each of these.
        def breaks(_kind: str, example: Example, *_given: Any) -> None:
            raise BrokenError("exploring broken A7", "broken", example.how)

        monkeypatch.setattr("spfemu.fuzzing.worker.check", breaks)
        pipe = self.run(Plan(mutants=("A7",), db=str(tmp_path), seed=1), looks)
        assert pipe.named("failed") == []
        (found,) = pipe.named("found")
        assert found[1].key == "exploring broken A7"
        assert sum(told[1] for told in pipe.named("ran")) == looks

    def test_a_seed_fixes_what_each_worker_draws(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn: list[str] = []

        def note(_kind: str, example: Example, *_given: Any) -> None:
            drawn.append(json.dumps([example.program.to_dict(), example.how]))

        monkeypatch.setattr("spfemu.fuzzing.worker.check", note)

        def draws(name: str, seed: int | None, number: int = 0) -> list[str]:
            drawn.clear()
            self.run(Plan(mutants=("A7",), db=str(tmp_path / name), seed=seed), 60, number)
            assert len(drawn) == 60
            return list(drawn)

        first = draws("first", 7)
        assert draws("again", 7) == first
        # Each worker and each round has others, but for the simplest one that a round begins with.
        assert len(set(first)) > 40
        for other in (draws("other", 8), draws("none", None), draws("second", 7, 1)):
            assert len(set(other) & set(first)) < 10


class TestCommand:
    def test_a_campaign_ends_when_its_time_is_up(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        db = str(tmp_path / "db")
        assert main(["fuzz", "--time", "1s", "--workers", "1", "--db", db]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert out.splitlines()[-1].endswith(f"0 findings in {db}")
        assert main(["fuzz", "--time", "0.5", "--workers", "1", "--db", db, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["format"], told["findings"]) == ("spfemu-result/1", [])
        assert told["settings"]["folder"] == db

    def test_ctrl_c_ends_it_with_a_summary(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "spfemu", "fuzz", "--workers", "2", "--mutant", "A26"]
        process = subprocess.Popen(
            [*command, "--db", "db"], cwd=tmp_path, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        # The first finding: it is at work.
        first = process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate()
        assert process.returncode == 130, err
        assert "Traceback" not in err
        assert first.split(":")[0] in ("refcount", "vma-leak")
        assert " findings in db" in out or " finding in db" in out

    @pytest.mark.parametrize("columns", [120, 80, 40, 12])
    def test_the_status_is_one_line_on_any_terminal(self, tmp_path: Path, columns: int) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        command = [sys.executable, "-m", "spfemu", "fuzz", "--time", "1s", "--workers", "1"]
        process = subprocess.Popen(
            [*command, "--db", "db"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs
        )
        os.close(theirs)
        told = b""
        try:
            while part := os.read(ours, 4096):
                told += part
        except OSError:  # the other end was closed
            pass
        os.close(ours)
        assert process.communicate()[0].endswith(b" 0 findings in db\n")
        assert process.returncode == 0
        assert b"\n" not in told
        lines = [line.decode().rstrip(" ") for line in told.split(b"\r") if line.strip()]
        assert lines
        assert max(map(len, told.split(b"\r"))) < columns
        if columns >= 40:
            assert all(
                re.search(r"[\d,]+( executions? \([\d,]+/s\)| exec(utions)?/s), cov", line)
                for line in lines
            )
            assert all(re.search(r"\b0 f(indings|ound)$", line) for line in lines)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--time", "soon"], '--time: value "soon" (allowed: as 90, 90s, 10m, 8h; above 0)'),
            (["--time", "0"], '--time: value "0" (allowed: as 90, 90s, 10m, 8h; above 0)'),
            (["--workers", "5000"], "workers: value 5000 (allowed: 1 to 1024)"),
            (["--mutant", "A99"], "A99"),
            (["--mutant", "A1"], 'mutant "A1" (allowed: A1a, A1b, A1c, A1d)'),
            (["--seed", "-1"], 'option --seed: value "-1" (allowed: a whole number, 0 and more)'),
            (["--seed", str(1 << 64)], f"seed: value {1 << 64} (allowed: 0 to 2^64-1)"),
            (["--variants", "v13"], 'variants "v13" (allowed: v12, fixed)'),
            (["--db", "file"], "file: cannot be written: "),
        ],
    )
    def test_bad_input_is_one_line(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        arguments: list[str],
        message: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "file").write_text("precious")
        assert main(["fuzz", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert message in err

    def test_a_plan_is_checked(self, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match=r"workers: value 0"):
            fuzz(Plan(workers=0, db=str(tmp_path)))
        with pytest.raises(ProgramError, match="cannot be written"):
            fuzz(Plan(db="/proc/none"))
