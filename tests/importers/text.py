"""Small recordings, written as what the tasks do."""

from __future__ import annotations

from pathlib import Path

from spfemu.importers import Imported, import_trace
from spfemu.program import OPS_BY_CODE


class Recording:
    """Lines of perf script text, one microsecond apart unless told otherwise."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.time = 1_000_000_000

    def line(self, pid: int, tid: int, text: str, *, cpu: int = 0, comm: str = "a") -> None:
        self.time += 1000
        seconds, rest = divmod(self.time, 10**9)
        self.lines.append(f"{comm:>16} {pid:>5}/{tid:<5} [{cpu:03}] {seconds}.{rest:09}: {text}")

    def exec(self, pid: int, comm: str = "a") -> None:
        self.line(pid, pid, f"PERF_RECORD_COMM exec: {comm}:{pid}/{pid}", comm=comm)
        self.line(pid, pid, f"sched:sched_process_exec: filename=/{comm} pid={pid} old_pid={pid}")
        self.line(pid, pid, "syscalls:sys_exit_execve: 0x0")

    def enter(self, pid: int, tid: int, name: str, cpu: int = 0, **args: int) -> None:
        text = ", ".join(f"{key}: {value:#010x}" for key, value in args.items())
        self.line(pid, tid, f"syscalls:sys_enter_{name}: {text}", cpu=cpu)

    def exit(self, pid: int, tid: int, name: str, result: int, cpu: int = 0) -> None:
        self.line(pid, tid, f"syscalls:sys_exit_{name}: {result & (2**64 - 1):#x}", cpu=cpu)

    def call(self, pid: int, tid: int, name: str, result: int, cpu: int = 0, **args: int) -> None:
        self.enter(pid, tid, name, cpu, **args)
        self.exit(pid, tid, name, result, cpu)

    def mmap(
        self, pid: int, tid: int, start: int, length: int, prot: int = 3, flags: int = 0x22
    ) -> None:
        args = {"addr": 0, "len": length, "prot": prot, "flags": flags, "fd": 0xFFFFFFFF, "off": 0}
        self.call(pid, tid, "mmap", start, **args)

    def fault(self, pid: int, tid: int, address: int, code: int = 6, cpu: int = 0) -> None:
        where = "user" if code & 4 else "kernel"
        text = f"address={address:#x} ip=0x400000 error_code={code:#x}"
        self.line(pid, tid, f"exceptions:page_fault_{where}: {text}", cpu=cpu)

    def mapped(self, pid: int, tid: int, start: int, length: int, name: str = "//anon") -> None:
        text = f"[{start:#x}({length:#x}) @ 0 00:00 0 0]: rw-p {name}"
        self.line(pid, tid, f"PERF_RECORD_MMAP2 {pid}/{tid}: {text}")

    def clone(self, pid: int, tid: int, child: int, flags: int) -> None:
        child_pid = pid if flags & 0x10000 else child
        self.line(pid, tid, f"PERF_RECORD_FORK({child_pid}:{child}):({pid}:{tid})")
        text = f"pid={child} comm=a clone_flags={flags:x} oom_score_adj=0"
        self.line(pid, tid, f"task:task_newtask: {text}")

    def end(self, pid: int, tid: int, parent: int = 1) -> None:
        text = f"comm=a pid={tid} prio=120 group_dead=true"
        self.line(pid, tid, f"sched:sched_process_exit: {text}")
        self.line(pid, tid, f"PERF_RECORD_EXIT({pid}:{tid}):({parent}:{parent})")

    def load(self, directory: Path) -> Imported:
        path = directory / "a.perf.txt"
        path.write_text("\n".join(self.lines) + "\n")
        return import_trace(path)


THREAD = 0x3D0F00
FORK = 0x1200000
VFORK = 0x4100


def ops(imported: Imported, task: int = 0, *, gaps: bool = False) -> list[str]:
    """The names of a task's operations."""
    names = [OPS_BY_CODE[int(code)].name for code in imported.program.tasks[task].ops["op"]]
    return names if gaps else [name for name in names if name not in ("compute", "sleep")]
