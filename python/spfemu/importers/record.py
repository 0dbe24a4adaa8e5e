"""Makes recordings that ``import_trace`` takes: the commands to run, and running them.

With root (or the rights perf asks for) perf records system calls and page faults of both modes;
without, strace records the system calls and perf the page faults of user mode.
"""

from __future__ import annotations

import gzip
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal, cast

import zstandard

from spfemu.errors import SpfemuError
from spfemu.importers.perf import FIELDS

__all__ = ["CALLS", "EVENTS", "Command", "RecordPlan", "plan_recording"]

CALLS: Final = (
    "mmap", "munmap", "mprotect", "pkey_mprotect", "madvise", "brk", "mremap", "mlock", "mlock2",
    "munlock", "clone", "clone3", "fork", "vfork", "execve", "execveat", "exit", "exit_group",
    "wait4",
)  # fmt: skip
"""The system calls that a recording takes down."""
_NEVER_RETURN: Final = ("exit", "exit_group")

EVENTS: Final = (
    "exceptions:page_fault_user",
    "exceptions:page_fault_kernel",
    "task:task_newtask",
    "sched:sched_process_exec",
    "sched:sched_process_exit",
    "sched:sched_switch",
    *(f"syscalls:sys_enter_{name}" for name in CALLS),
    *(f"syscalls:sys_exit_{name}" for name in CALLS if name not in _NEVER_RETURN),
)
"""The tracepoints of a recording with root."""

_RECORDS: Final = ("--ns", "--show-task-events", "--show-mmap-events", "--show-lost-events")
_TRACING: Final = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_PARANOID: Final = Path("/proc/sys/kernel/perf_event_paranoid")

Method = Literal["auto", "perf", "strace"]


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a recording. ``stdout``: the file its output goes to, or None. Source:
    ours.
    """

    argv: tuple[str, ...]
    stdout: Path | None = None

    def __str__(self) -> str:
        line = shlex.join(self.argv)
        if self.stdout is None:
            return line
        packed = {".zst": " | zstd", ".gz": " | gzip"}.get(self.stdout.suffix, "")
        return f"{line}{packed} > {shlex.quote(str(self.stdout))}"


@dataclass(frozen=True, slots=True)
class RecordPlan:
    """The commands that make a recording of a program.

    ``outputs`` are the files to import afterwards, ``missing`` what keeps the commands from running
    here, in words; empty when nothing does. Source: perf-record(1), perf-script(1), strace(1).
    """

    commands: tuple[Command, ...]
    outputs: tuple[Path, ...]
    data: Path
    missing: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Returns the commands as lines for a shell. Source: ours."""
        return [str(command) for command in self.commands]

    def run(self) -> int:
        """Runs the commands one after the other and removes what lies between them.

        Returns the exit status of the recorded program as perf passes it on. Source: ours. Raises
        SpfemuError when ``missing`` is not empty, or a command after the recording fails.
        """
        if self.missing:
            raise SpfemuError(f"cannot record here: {'; '.join(self.missing)}")
        record, *after = self.commands
        try:
            status = subprocess.run(record.argv, check=False).returncode
            if not self.data.exists():
                raise SpfemuError(
                    f"{record.argv[0]} record made no recording (exit status {status})"
                )
            for command in after:
                _write(command)
        finally:
            self.data.unlink(missing_ok=True)
        return status


def plan_recording(
    command: Sequence[str], *, output: str | Path = "trace.perf.txt.zst", method: Method = "auto"
) -> RecordPlan:
    """Says how to record a program, and whether that can be done here.

    ``command`` is the program with its arguments; ``output`` the file for the perf script text
    (.zst and .gz are packed); ``method`` "perf" needs root and sees kernel-mode faults and whether
    an access writes, "strace" does not, "auto" (the default) takes perf if it may. strace text goes
    beside ``output``, with ``.strace`` in its name. Source: the recordings in tests/traces were
    made so. Raises SpfemuError for an empty command or an unknown method.

    >>> plan = plan_recording(["ls", "-l"], output="ls.perf.txt", method="strace")
    >>> [line.split()[0] for line in plan.lines()], [str(path) for path in plan.outputs]
    (['perf', 'perf'], ['ls.perf.txt', 'ls.strace.txt'])
    """
    if not command:
        raise SpfemuError("no program to record; give the command after --")
    if method not in ("auto", "perf", "strace"):
        raise SpfemuError(f"unknown method {method!r} (allowed: auto, perf, strace)")
    script = Path(output)
    data = Path(tempfile.gettempdir(), f"spfemu-{os.getpid()}.perf.data")
    missing = []
    if shutil.which("perf") is None:
        missing.append("perf is not installed (Debian: linux-perf; Fedora: perf)")
    rights = _tracepoints_denied()
    if method == "perf" or (method == "auto" and (rights is None or _strace_denied() is not None)):
        if rights is not None:
            missing.append(rights)
        return _with_perf(command, script, data, tuple(missing))
    if (denied := _strace_denied()) is not None:
        missing.append(denied)
    return _with_strace(command, script, data, tuple(missing))


def _with_perf(
    command: Sequence[str], script: Path, data: Path, missing: tuple[str, ...]
) -> RecordPlan:
    options = (
        "-d",
        "-m",
        "16384",
        "-k",
        "CLOCK_MONOTONIC",
        "-e",
        ",".join(EVENTS),
        "-o",
        str(data),
    )
    record = Command(("perf", "record", *options, "--", *command))
    text = Command(("perf", "script", "-i", str(data), *_RECORDS, "-F", FIELDS), script)
    return RecordPlan((record, text), (script,), data, missing)


def _with_strace(
    command: Sequence[str], script: Path, data: Path, missing: tuple[str, ...]
) -> RecordPlan:
    stem = script.name.split(".", 1)[0]
    calls = script.with_name(f"{stem}.strace.txt")
    options = ("-d", "-k", "CLOCK_REALTIME", "-e", "page-faults:u", "-c", "1", "-o", str(data))
    strace = (
        "strace", "-f", "--absolute-timestamps=format:unix,precision:ns", "-e",
        f"trace={','.join('?' + name for name in CALLS)}", "-o", str(calls),
    )  # fmt: skip
    record = Command(("perf", "record", *options, "--", *strace, *command))
    fields = "comm,pid,tid,time,event,addr,ip"
    text = Command(("perf", "script", "-i", str(data), *_RECORDS, "-F", fields), script)
    return RecordPlan((record, text), (script, calls), data, missing)


def _paranoid() -> int:
    try:
        return int(_PARANOID.read_text())
    except (OSError, ValueError):
        return 2


def _tracepoints_denied() -> str | None:
    """Why perf may not record tracepoints here, or None. Source: perf's documentation of
    perf_event_paranoid.
    """
    if os.geteuid() != 0 and _paranoid() > -1:
        return "tracepoints need root, or kernel.perf_event_paranoid = -1 and a readable tracefs"
    if not any(os.access(path / "events" / "exceptions", os.R_OK) for path in _TRACING):
        if os.geteuid() == 0 and any(path.exists() for path in _TRACING):
            return None  # perf mounts tracefs itself
        return "tracefs is not readable (mount -t tracefs none /sys/kernel/tracing)"
    return None


def _strace_denied() -> str | None:
    if shutil.which("strace") is None:
        return "strace is not installed (without root it is what records system calls)"
    if os.geteuid() != 0 and _paranoid() > 2:
        return "page faults need kernel.perf_event_paranoid of 2 or less"
    return None


def _write(command: Command) -> None:
    """Runs a command with its output in a file, packed as the file's suffix says. Source: ours."""
    assert command.stdout is not None
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command.argv, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        assert process.stdout is not None
        with _packed(command.stdout) as file:
            shutil.copyfileobj(process.stdout, file)
        if process.wait():
            errors.seek(0)
            said = errors.read().decode("utf-8", "backslashreplace").strip().splitlines()
            last = said[-1] if said else f"exit status {process.returncode}"
            raise SpfemuError(f"{' '.join(command.argv[:2])} failed: {last}")


def _packed(path: Path) -> BinaryIO:
    try:
        if path.suffix == ".zst":
            return cast(BinaryIO, zstandard.open(path, "wb"))
        if path.suffix == ".gz":
            return cast(BinaryIO, gzip.open(path, "wb"))
        return path.open("wb")
    except OSError as error:
        raise SpfemuError(f"{path}: cannot be written: {error.strerror or error}") from error
