"""What becomes of each kind of event, on recordings of a few lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from spfemu.program import OPS, Program
from spfemu.program.ops import MMAP_FLAGS
from spfemu.reference import run
from tests.importers.flat import replay
from tests.importers.text import FORK, THREAD, VFORK, Recording, ops
from tests.reference.arches import X86

HEAP = 0x555555558000
MAP = 0x7F0000000000


@pytest.fixture
def recording() -> Recording:
    recording = Recording()
    recording.exec(7)
    return recording


def maps(program: Program) -> list[str]:
    """The last maps of the first process on the reference."""
    return next(iter(run(program, arch=X86).maps.values()))


class TestTasks:
    def test_threads_processes_and_vfork_children(
        self, recording: Recording, tmp_path: Path
    ) -> None:
        recording.clone(7, 7, 8, THREAD)
        recording.clone(7, 7, 9, FORK)
        recording.clone(7, 8, 10, VFORK)
        recording.line(10, 10, "syscalls:sys_exit_vfork: 0x0")
        recording.exec(10, "b")
        imported = recording.load(tmp_path)
        assert ops(imported) == ["exec", "clone", "fork", "post"]
        assert ops(imported, 1) == ["await", "vfork"]
        assert ops(imported, 3) == ["exec"]
        assert [(task.name, task.start) for task in imported.program.tasks] == [
            *(("a-7", None), ("a-8", "clone"), ("a-9", "fork"), ("b-10", "vfork")),
        ]
        assert imported.summary.nr_processes == 3
        assert not imported.summary.guessed

    def test_flags_of_a_clone_without_task_newtask(
        self, recording: Recording, tmp_path: Path
    ) -> None:
        recording.line(7, 7, "PERF_RECORD_FORK(7:8):(7:7)")
        recording.line(7, 7, "PERF_RECORD_FORK(9:9):(7:7)")
        recording.fault(7, 8, MAP)
        recording.fault(9, 9, MAP)
        imported = recording.load(tmp_path)
        assert [task.start for task in imported.program.tasks] == [None, "clone", "fork"]
        assert imported.summary.guessed["flags of a clone"] == 2

    def test_flags_of_a_clone_from_the_call_itself(
        self, recording: Recording, tmp_path: Path
    ) -> None:
        recording.enter(7, 7, "clone", clone_flags=VFORK)
        recording.line(7, 7, "PERF_RECORD_FORK(9:9):(7:7)")
        recording.exit(7, 7, "clone", 9)
        imported = recording.load(tmp_path)
        assert [task.start for task in imported.program.tasks] == [None, "vfork"]
        assert not imported.summary.guessed

    def test_memory_shared_without_vfork_is_a_thread(
        self, recording: Recording, tmp_path: Path
    ) -> None:
        recording.mmap(7, 7, MAP, 0x1000)
        recording.clone(7, 7, 8, 0x100)
        recording.fault(8, 8, MAP)
        recording.exec(8)
        recording.fault(8, 8, MAP + 0x5000)
        recording.end(8, 8)
        imported = recording.load(tmp_path)
        assert [task.start for task in imported.program.tasks] == [None, "clone"]
        assert ops(imported, 1) == ["write", "exit"]
        assert sum(imported.summary.approximated.values()) == 1
        assert sum(imported.summary.unresolved.values()) > 0

    def test_a_search_in_path_is_no_exec(self, recording: Recording, tmp_path: Path) -> None:
        recording.call(7, 7, "execve", -2, filename=1)
        imported = recording.load(tmp_path)
        assert ops(imported) == ["exec"]
        assert imported.summary.skipped["execve that failed"] == 1

    def test_exec_by_another_thread_goes_on_as_the_first(
        self, recording: Recording, tmp_path: Path
    ) -> None:
        recording.clone(7, 7, 8, THREAD)
        recording.enter(7, 8, "execve", filename=1)
        recording.end(7, 7)
        recording.line(7, 7, "PERF_RECORD_COMM exec: b:7/7", comm="b")
        recording.line(7, 7, "sched:sched_process_exec: filename=/b pid=7 old_pid=8", comm="b")
        recording.exit(7, 7, "execve", 0)
        recording.fault(7, 7, 0)
        imported = recording.load(tmp_path)
        assert ops(imported) == ["exec", "clone", "exit"]
        assert ops(imported, 1) == ["wait", "exec", "write"]
        assert [task.name for task in imported.program.tasks] == ["a-7", "b-7"]

    def test_exec_without_its_comm_record(self, recording: Recording, tmp_path: Path) -> None:
        recording.mmap(7, 7, MAP, 0x1000)
        recording.line(7, 7, "sched:sched_process_exec: filename=/b pid=7 old_pid=7")
        recording.fault(7, 7, MAP)
        imported = recording.load(tmp_path)
        assert ops(imported) == ["exec", "mmap", "exec", "write"]
        assert imported.summary.segv == 1

    def test_threads_are_named_as_they_end_up(self, recording: Recording, tmp_path: Path) -> None:
        recording.clone(7, 7, 8, THREAD)
        recording.line(7, 7, "PERF_RECORD_COMM: wörk er:7/8")
        recording.fault(7, 8, 0)
        program, _ = recording.load(tmp_path)
        assert program.tasks[1].name == "wörk er-8"
        assert program.tasks[1].sites is not None
        assert {program.comms[number - 1] for number in program.tasks[1].sites["comm"]} == {
            "wörk er"
        }

    def test_a_task_id_that_is_used_again_is_another_task(
        self, recording: Recording, tmp_path: Path
    ) -> None:
        for _ in range(2):
            recording.clone(7, 7, 8, FORK)
            recording.fault(8, 8, 0)
            recording.end(8, 8, 7)
        recording.fault(8, 8, 0)
        imported = recording.load(tmp_path)
        assert [task.name for task in imported.program.tasks] == ["a-7", "a-8", "a-8'"]
        assert imported.summary.skipped["event of a task that has ended"] == 1
        # The second fork comes after the end of the first child.
        assert ops(imported) == ["exec", "fork", "wait", "fork"]

    def test_wait_is_a_wait(self, recording: Recording, tmp_path: Path) -> None:
        recording.clone(7, 7, 8, FORK)
        recording.enter(7, 7, "wait4", upid=8)
        recording.end(8, 8, 7)
        recording.exit(7, 7, "wait4", 8)
        recording.call(7, 7, "wait4", 4711, upid=1)
        recording.end(7, 7)
        imported = recording.load(tmp_path)
        assert ops(imported) == ["exec", "fork", "wait", "exit"]
        assert imported.summary.skipped["wait4 that met no known child"] == 1

    def test_tasks_that_were_there_before(self, tmp_path: Path) -> None:
        # perf record -p: a process with two threads, and another one.
        recording = Recording()
        recording.line(7, 7, f"PERF_RECORD_MMAP2 7/7: [{MAP:#x}(0x2000) @ 0 0:0 0 0]: rw-p //anon")
        recording.lines[0] = recording.lines[0].replace("1.000001000", "0.000000000")
        recording.fault(7, 7, MAP)
        recording.fault(7, 8, MAP + 0x1000)
        recording.fault(9, 9, 0)
        imported = recording.load(tmp_path)
        assert [task.start for task in imported.program.tasks] == [None, "clone", "vfork"]
        assert ops(imported) == ["clone", "vfork", "mmap", "post", "write"]
        assert ops(imported, 1) == ["await", "write"]
        assert ops(imported, 2) == ["exec", "write"]
        assert imported.summary.segv == 1
        assert replay(imported.program).hits == 2
        assert imported.summary.guessed["start of a thread"] == 1
        assert imported.summary.guessed["start of a process"] == 1

    def test_the_recorder_is_left_out(self, tmp_path: Path) -> None:
        recording = Recording()
        recording.line(7, 7, "syscalls:sys_exit_brk: 0x1000", comm="perf-exec")
        recording.exec(7)
        recording.fault(7, 7, 0)
        imported = recording.load(tmp_path)
        assert ops(imported) == ["exec", "write"]
        assert imported.summary.skipped["event of the recorder"] == 1

    def test_faults_of_one_left_alone_come_after_the_end_of_the_other(
        self, recording: Recording, tmp_path: Path
    ) -> None:
        recording.mmap(7, 7, MAP, 0x1000)
        recording.clone(7, 7, 8, THREAD)
        recording.end(7, 8)
        recording.fault(7, 7, MAP)
        imported = recording.load(tmp_path)
        assert ops(imported) == ["exec", "mmap", "clone", "wait", "write"]
        assert run(imported.program, arch=X86).counters["spf"] == 0


class TestMemory:
    def test_mappings_lie_where_they_lay(self, recording: Recording, tmp_path: Path) -> None:
        recording.mmap(7, 7, MAP, 0x2001, prot=1)
        recording.mmap(7, 7, MAP + 0x3000, 0x1000, prot=1)
        recording.call(7, 7, "munmap", 0, addr=MAP + 0x1000, len=0x800)
        recording.call(7, 7, "mprotect", 0, start=MAP + 0x3000, len=0x1000, prot=0x1000003)
        imported = recording.load(tmp_path)
        assert maps(imported.program) == [
            f"{MAP:x}-{MAP + 0x1000:x} r--p 00000000",
            f"{MAP + 0x2000:x}-{MAP + 0x3000:x} r--p 00000000",
            f"{MAP + 0x3000:x}-{MAP + 0x4000:x} rw-p 00000000",
        ]

    def test_files_are_as_long_as_what_maps_them(
        self, recording: Recording, tmp_path: Path
    ) -> None:
        args = {"addr": 0, "len": 0x1800, "prot": 1, "flags": 2, "fd": 3, "off": 0x4000}
        recording.enter(7, 7, "mmap", **args)
        recording.mapped(7, 7, MAP, 0x2000, "/lib/a b")
        recording.exit(7, 7, "mmap", MAP)
        recording.enter(7, 7, "mmap", **{**args, "flags": 1, "off": 0})
        recording.mapped(7, 7, MAP + 0x10000, 0x2000, "/dev/shm/x")
        recording.exit(7, 7, "mmap", MAP + 0x10000)
        recording.fault(7, 7, MAP, 4)
        program, summary = recording.load(tmp_path)
        assert [(f.name, f.length, f.kind) for f in program.files] == [
            *(("/lib/a b", 0x6000, "regular"), ("/dev/shm/x", 0x2000, "shmem")),
        ]
        assert maps(program) == [
            f"{MAP:x}-{MAP + 0x2000:x} r--p 00004000",
            f"{MAP + 0x10000:x}-{MAP + 0x12000:x} r--s 00000000",
        ]
        assert program.vmas == ("/lib/a b", "/dev/shm/x")
        assert not summary.guessed

    def test_flags_that_cannot_be_carried_are_counted(
        self, recording: Recording, tmp_path: Path
    ) -> None:
        flags = 0x22 | 0x100 | 0x2000 | 0x4000 | 0x8000 | 0x20000 | 0x40000
        recording.mmap(7, 7, MAP, 0x1000, flags=flags)
        program, summary = recording.load(tmp_path)
        records = program.tasks[0].ops
        (carried,) = records["flags"][records["op"] == OPS["mmap"].code].tolist()
        for name in ("growsdown", "locked", "noreserve", "populate", "stack", "hugetlb"):
            counted = any(name in kind for kind in summary.approximated)
            assert bool(carried & MMAP_FLAGS[name]) == (name != "hugetlb") == (not counted)

    def test_calls_that_failed_are_left_out(self, recording: Recording, tmp_path: Path) -> None:
        recording.mmap(7, 7, -12, 0x1000)
        recording.call(7, 7, "munmap", -22, addr=1, len=0)
        recording.call(7, 7, "mremap", -14, addr=0, old_len=1, new_len=2, flags=0, new_addr=0)
        imported = recording.load(tmp_path)
        assert ops(imported) == ["exec"]
        assert {kind for kind in imported.summary.skipped if "failed" in kind} == {
            *("mmap that failed", "munmap that failed", "mremap that failed"),
        }

    def test_the_heap_starts_where_it_did(self, recording: Recording, tmp_path: Path) -> None:
        for wanted, result in [
            *((0, HEAP), (HEAP + 0x3000, HEAP + 0x3000), (HEAP + 0x1800, HEAP + 0x1800)),
            (HEAP + 0x999000, HEAP + 0x1800),
        ]:
            recording.call(7, 7, "brk", result, brk=wanted)
        recording.fault(7, 7, HEAP + 0x1FFF)
        recording.fault(7, 7, HEAP + 0x2000)
        imported = recording.load(tmp_path)
        assert maps(imported.program) == [f"{HEAP:x}-{HEAP + 0x2000:x} rw-p 00000000"]
        assert imported.summary.skipped["brk that failed"] == 1
        assert imported.summary.segv == 1
        assert not imported.summary.guessed

    def test_a_heap_whose_start_was_missed_is_guessed(self, tmp_path: Path) -> None:
        recording = Recording()
        recording.call(7, 7, "brk", HEAP + 0x3000, brk=HEAP + 0x3000)
        recording.call(7, 7, "brk", HEAP + 0x4000, brk=HEAP + 0x4000)
        imported = recording.load(tmp_path)
        assert maps(imported.program) == [f"{HEAP + 0x3000:x}-{HEAP + 0x4000:x} rw-p 00000000"]
        assert imported.summary.guessed["start of a heap"] == 1

    @pytest.mark.parametrize(
        ("old_length", "new", "new_length", "expected"),
        [
            (0x2000, MAP + 0x10000, 0x3000, [(0x2000, 0x4000), (0x10000, 0x13000)]),
            (0x2000, MAP, 0x1000, [(0, 0x1000), (0x2000, 0x4000)]),
            (0x4000, MAP, 0x6000, [(0, 0x6000)]),
        ],
    )
    def test_mremap_is_a_munmap_and_an_mmap(
        self, recording: Recording, tmp_path: Path,
        old_length: int, new: int, new_length: int, expected: list[tuple[int, int]],
    ) -> None:  # fmt: skip
        recording.mmap(7, 7, MAP, 0x4000)
        args = {"addr": MAP, "old_len": old_length, "new_len": new_length}
        recording.call(7, 7, "mremap", new, **args, flags=1, new_addr=0)
        program, summary = recording.load(tmp_path)
        assert maps(program) == [
            f"{MAP + low:x}-{MAP + high:x} rw-p 00000000" for low, high in expected
        ]
        assert summary.approximated == {"mremap by munmap and mmap": 1}

    def test_advice_is_kept_as_far_as_it_goes(self, recording: Recording, tmp_path: Path) -> None:
        recording.mmap(7, 7, MAP, 0x4000)
        for behavior in (4, 10, 8, 12, 102):
            recording.call(7, 7, "madvise", 0, start=MAP, len_in=0x1000, behavior=behavior)
        summary = recording.load(tmp_path).summary
        assert summary.taken["madvise dontneed"] == summary.taken["madvise dontfork"] == 1
        assert {kind for kind in summary.skipped if kind.startswith("madvise")} >= {"madvise 102"}

    def test_the_stack_is_a_mapping_as_long_as_it_may_grow(self, tmp_path: Path) -> None:
        recording = Recording()
        recording.line(7, 7, "PERF_RECORD_COMM exec: a:7/7")
        recording.mapped(7, 7, 0x7FFC00000000, 0x21000, "[stack]")
        recording.fault(7, 7, 0x7FFC0001F000, 2)
        recording.mapped(7, 7, 0x7FFBFFFF0000, 0x31000, "[stack]")
        recording.fault(7, 7, 0x7FFBFFF00000)
        imported = recording.load(tmp_path)
        top = 0x7FFC00021000
        assert maps(imported.program) == [f"{top - (8 << 20):x}-{top:x} rw-p 00000000"]
        assert imported.summary.segv == 0
        assert imported.summary.skipped["growth of a stack"] == 1

    def test_mappings_that_no_call_reports_are_taken_from_perf(
        self, recording: Recording, tmp_path: Path
    ) -> None:
        recording.mmap(7, 7, MAP, 0x2000)
        recording.mapped(7, 7, MAP, 0x2000)
        recording.mapped(7, 7, MAP - 0x1000, 0x4000)
        imported = recording.load(tmp_path)
        assert ops(imported) == ["exec", "mmap", "mmap", "mmap"]
        assert maps(imported.program) == [f"{MAP - 0x1000:x}-{MAP + 0x3000:x} rw-p 00000000"]
        assert imported.summary.skipped["mapping that is known"] == 1
        assert imported.summary.guessed["mapping that no system call reports"] == 1

    def test_a_call_without_its_beginning_is_unresolved(
        self, recording: Recording, tmp_path: Path
    ) -> None:
        recording.exit(7, 7, "mmap", MAP)
        recording.line(7, 7, "PERF_RECORD_LOST lost 5")
        recording.call(7, 7, "mmap", MAP)
        imported = recording.load(tmp_path)
        assert imported.summary.unresolved == {
            "end of mmap without its beginning": 1,
            "event that perf lost": 5,
            "mmap without len": 1,
        }


class TestFaults:
    def test_accesses_by_kind_and_mode(self, recording: Recording, tmp_path: Path) -> None:
        recording.mmap(7, 7, MAP, 0x8000, prot=7)
        for code in (4, 6, 0x14, 7, 0, 2, 3):
            recording.fault(7, 7, MAP + 0x123, code)
        recording.fault(7, 7, 0xFFFF888000000000, 2)
        imported = recording.load(tmp_path)
        names = ["read", "write", "execute", "write", "read", "write", "write"]
        assert ops(imported)[2:] == names
        records = imported.program.tasks[0].ops
        accesses = records[records["op"] >= OPS["read"].code]
        accesses = accesses[accesses["op"] <= OPS["execute"].code]
        assert accesses["mode"].tolist() == [0, 0, 0, 0, 1, 1, 1]
        assert set(accesses["addr"].tolist()) == {MAP + 0x123}
        assert imported.summary.skipped["fault at a kernel address"] == 1
        assert imported.program.tasks[0].sites is not None

    def test_what_no_mapping_allows_is_counted_apart(
        self, recording: Recording, tmp_path: Path
    ) -> None:
        recording.mmap(7, 7, MAP, 0x1000, prot=1)
        recording.fault(7, 7, 8, 4)
        recording.fault(7, 7, MAP)
        recording.fault(7, 7, MAP + 0x1000, 4)
        summary = recording.load(tmp_path).summary
        assert (summary.faults, summary.segv) == (3, 3)
        assert summary.segv_kinds == {"at null": 1, "forbidden by the protection": 1}
        assert summary.unresolved == {"fault where nothing is mapped": 1}

    def test_threads_on_one_page_keep_their_order_and_others_do_not(
        self, recording: Recording, tmp_path: Path
    ) -> None:
        recording.mmap(7, 7, MAP, 0x2000)
        recording.clone(7, 7, 8, THREAD)
        recording.fault(7, 7, MAP, 4)
        recording.fault(7, 8, MAP)
        recording.fault(7, 8, MAP + 0x1000)
        imported = recording.load(tmp_path)
        assert ops(imported) == ["exec", "mmap", "clone", "read", "post"]
        assert ops(imported, 1) == ["await", "write", "write"]
        assert (imported.summary.nr_posts, imported.summary.nr_awaits) == (1, 1)

    def test_a_fork_comes_between_the_faults_of_other_threads(
        self, recording: Recording, tmp_path: Path
    ) -> None:
        recording.mmap(7, 7, MAP, 0x2000)
        recording.clone(7, 7, 8, THREAD)
        recording.fault(7, 8, MAP)
        recording.clone(7, 7, 9, FORK)
        recording.fault(7, 8, MAP, 7)
        imported = recording.load(tmp_path)
        assert ops(imported) == ["exec", "mmap", "clone", "await", "fork", "post"]
        assert ops(imported, 1) == ["write", "post", "await", "write"]
        assert run(imported.program, handler="classic", arch=X86).counters["faults"] == 2
