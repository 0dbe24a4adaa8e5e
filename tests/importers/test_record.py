"""How recordings are made: the commands, what is missing, and runs with a stand-in for perf."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import zstandard

from spfemu.cli import main
from spfemu.errors import SpfemuError
from spfemu.importers import import_trace, record
from spfemu.importers.record import RecordPlan, plan_recording

PERF = """\
#!/bin/sh
case $1 in
record)
    while [ "$1" != -- ]; do
        [ "$1" = -o ] && data=$2
        shift
    done
    shift
    "$@"
    status=$?
    [ -z "$NO_DATA" ] && echo data > "$data"
    exit $status ;;
script)
    [ -n "$BROKEN" ] && { echo first >&2; echo "bad file" >&2; exit 5; }
    echo 'a 7/7 [000] 1.5: PERF_RECORD_COMM exec: a:7/7' ;;
esac
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of tools that comes first on PATH, and every right."""
    tools = tmp_path / "bin"
    tools.mkdir()
    perf = tools / "perf"
    perf.write_text(PERF)
    perf.chmod(perf.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(record, "_tracepoints_denied", lambda: None)
    return tools


def plan(directory: Path, *command: str, name: str = "t.perf.txt") -> RecordPlan:
    return plan_recording(command or ("true",), output=directory / name, method="perf")


@pytest.mark.parametrize("name", ["t.perf.txt", "t.perf.txt.gz", "t.perf.txt.zst"])
def test_runs_the_commands_and_leaves_the_text(tools: Path, tmp_path: Path, name: str) -> None:
    planned = plan(tmp_path, "sh", "-c", "exit 3", name=name)
    assert planned.missing == ()
    assert planned.run() == 3
    assert planned.outputs == (tmp_path / name,)
    assert not planned.data.exists()
    assert import_trace(planned.outputs).program.tasks[0].name == "a-7"
    if name.endswith(".zst"):
        assert (tmp_path / name).read_bytes().startswith(zstandard.FRAME_HEADER)


def test_a_recording_that_was_not_made_is_an_error(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_DATA", "1")
    with pytest.raises(SpfemuError, match="made no recording"):
        plan(tmp_path).run()


def test_what_perf_script_says_last_is_the_error(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKEN", "1")
    with pytest.raises(SpfemuError, match="perf script failed: bad file"):
        plan(tmp_path).run()


def test_a_place_that_cannot_be_written_is_an_error(tools: Path, tmp_path: Path) -> None:
    with pytest.raises(SpfemuError, match="cannot be written"):
        plan(tmp_path, name="absent/t.txt").run()


def test_without_perf_there_is_a_plan_and_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    planned = plan_recording(["ls", "a b"], output="t.perf.txt.zst", method="strace")
    assert [reason.split()[0] for reason in planned.missing] == ["perf", "strace"]
    first, second = planned.lines()
    assert first.startswith("perf record -d -k CLOCK_REALTIME -e page-faults:u -c 1 ")
    assert first.endswith(" -o t.strace.txt ls 'a b'")
    assert second.endswith(" -F comm,pid,tid,time,event,addr,ip | zstd > t.perf.txt.zst")
    with pytest.raises(SpfemuError, match="cannot record here: perf is not installed"):
        planned.run()


def test_without_the_rights_strace_records_the_calls(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "_tracepoints_denied", lambda: "tracepoints need root")
    monkeypatch.setattr(record, "_strace_denied", lambda: None)
    planned = plan_recording(["ls"], output=tmp_path / "t.perf.txt")
    assert planned.outputs == (tmp_path / "t.perf.txt", tmp_path / "t.strace.txt")
    assert planned.missing == ()
    assert plan(tmp_path).missing == ("tracepoints need root",)
    monkeypatch.setattr(record, "_strace_denied", lambda: "strace is not installed")
    planned = plan_recording(["ls"], output=tmp_path / "t.perf.txt")
    assert planned.missing == ("tracepoints need root",)


def test_rights_are_read_from_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paranoid = tmp_path / "perf_event_paranoid"
    monkeypatch.setattr(record, "_PARANOID", paranoid)
    monkeypatch.setattr(record, "_TRACING", (tmp_path / "tracing",))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    paranoid.write_text("2\n")
    assert "need root" in (record._tracepoints_denied() or "")
    paranoid.write_text("-1\n")
    assert "tracefs is not readable" in (record._tracepoints_denied() or "")
    (tmp_path / "tracing/events/exceptions").mkdir(parents=True)
    assert record._tracepoints_denied() is None
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    paranoid.write_text("3\n")
    assert "perf_event_paranoid of 2" in (record._strace_denied() or "")
    paranoid.write_text("2\n")
    assert record._strace_denied() is None
    paranoid.unlink()
    assert record._strace_denied() is None


def test_every_call_of_a_recording_is_understood() -> None:
    from spfemu.importers.calls import CALLS

    unused = {"mlock", "mlock2", "munlock", "exit", "exit_group"}
    assert set(record.CALLS) - set(CALLS) == unused
    assert not any("sys_exit_exit" in event for event in record.EVENTS)


def test_no_program_and_unknown_methods_are_errors() -> None:
    with pytest.raises(SpfemuError, match="no program"):
        plan_recording([])
    with pytest.raises(SpfemuError, match="unknown method 'dtrace'"):
        plan_recording(["ls"], method="dtrace")  # type: ignore[arg-type]


def test_a_program_that_is_not_there_is_said_so_before_anything_runs(
    tools: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "t.perf.txt"
    assert main(["record", "-o", str(output), "--", "no-such-command"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "spfemu: no-such-command: command not found\n")
    assert not output.exists()
    assert main(["record", "-o", str(output), "--", "true"]) == 0
    assert output.exists()
