"""Built-in workloads: what they ask of the kernel for each record, and their options."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

import spfemu
from spfemu import reference
from spfemu.errors import ProgramError
from spfemu.program import OPS, Program
from spfemu.results import Result
from spfemu.workloads import WORKLOADS, Ebizzy, Kernbench, WillItScale, make_job, will_it_scale
from tests.reference.arches import POWERPC, X86

REPEAT = OPS["repeat"].code


def bounded(program: Program, rounds: int) -> Program:
    """The same program with so many rounds in place of a time, for an engine without a clock."""
    tasks = []
    for task in program.tasks:
        ops = task.ops.copy()
        timed = (ops["op"] == REPEAT) & (ops["flags"] == 1)
        ops["flags"][timed] = 0
        ops["length"][timed] = 0
        ops["value"][timed] = rounds
        tasks.append(replace(task, ops=ops))
    return replace(program, tasks=tuple(tasks)).checked()


def faults_of_a_round(arguments: Sequence[str], page_size: int = 4096) -> int:
    """The faults that one more round of every thread costs, once they have all begun."""
    program = make_job(arguments).build(page_size=page_size)
    arch = X86 if page_size == 4096 else POWERPC
    results = [reference.run(bounded(program, rounds), arch=arch) for rounds in (2, 3)]
    assert all(not result.stuck for result in results)
    assert all((result.ops["errno"] == 0).all() for result in results)
    assert all((result.ops["signal"] == 0).all() for result in results)
    return results[1].counters["faults"] - results[0].counters["faults"]


class TestEbizzy:
    def test_mmap_faults_on_every_page_of_every_record(self) -> None:
        assert faults_of_a_round(["ebizzy", "-mTt", "2"]) == 2 * 128

    def test_larger_pages_mean_fewer_faults(self) -> None:
        assert faults_of_a_round(["ebizzy", "-mTt", "2"], page_size=65536) == 2 * 8

    def test_malloc_keeps_its_arena(self) -> None:
        assert faults_of_a_round(["ebizzy", "-Tt", "2"]) == 0

    def test_never_mmap_trims_and_faults_again(self) -> None:
        # A 4.14 kernel counts 96.5 faults a record for `ebizzy -MTt 2`.
        assert faults_of_a_round(["ebizzy", "-MTt", "2"]) == 2 * 96

    def test_small_chunks_come_from_the_arena(self) -> None:
        assert faults_of_a_round(["ebizzy", "-Tt", "1", "-s", "65536"]) == 0

    def test_copies_read_what_is_there_and_write_anew(self) -> None:
        # 16 records are written out for each round.
        assert faults_of_a_round(["ebizzy", "-m", "-t", "1", "-s", "32768"]) == 16 * 8

    def test_linear_search_reads_the_copy(self) -> None:
        program = make_job(["ebizzy", "-mz", "-t", "1"]).build()
        reads = [
            t for t in program.tasks[1].ops if t["op"] == OPS["touch"].code and not t["access"]
        ]
        assert len(reads) == 2 * 16

    def test_records_are_finished_rounds(self) -> None:
        job = make_job(["ebizzy", "-mTt", "2"])
        program = job.build()
        assert job.figures(result_of(program, rounds=(0, 5, 7))) == {
            "records": 12,
            "records_per_s": 24.0,
        }

    def test_the_first_record_of_malloc_counts(self) -> None:
        job = make_job(["ebizzy", "-Tt", "2"])
        assert job.figures(result_of(job.build(), rounds=(0, 5, 7)))["records"] == 14

    def test_random_sizes_come_from_the_seed(self) -> None:
        job = make_job(["ebizzy", "-mRTt", "2"])
        first, same, other = (job.build(seed=seed) for seed in (1, 1, 2))
        assert first == same
        assert first != other
        touches = first.tasks[1].ops
        sizes = touches["length"][touches["op"] == OPS["touch"].code]
        assert len(sizes) == 16
        assert (sizes <= 512 << 10).all()
        assert job.figures(result_of(first, rounds=(0, 2, 3)))["records"] == 5 * 16

    def test_permissions_and_holes_keep_chunks_apart(self) -> None:
        def chunk_maps(arguments: list[str]) -> int:
            program = make_job(arguments).build()
            return len(reference.run(bounded(program, 1), arch=X86).maps["ebizzy"])

        plain = chunk_maps(["ebizzy", "-mTt", "1"])
        assert chunk_maps(["ebizzy", "-mpTt", "1"]) == plain + 2 * 10
        assert chunk_maps(["ebizzy", "-mPTt", "1"]) == plain + 9

    def test_each_thread_has_a_stack_with_a_guard(self) -> None:
        program = Ebizzy(threads=3, always_mmap=True, touch=True).build()
        main = program.tasks[0].ops
        stacks = main[(main["op"] == OPS["mmap"].code) & (main["prot"] == 0)]
        assert stacks["length"].tolist() == [(8 << 20) + 4096] * 3
        assert [task.start for task in program.tasks] == [None, "clone", "clone", "clone"]

    def test_seconds_take_fractions(self) -> None:
        program = make_job(["ebizzy", "-mT", "-t1", "-S", "0.2"]).build()
        ops = program.tasks[1].ops
        assert ops["length"][ops["op"] == REPEAT].tolist() == [200_000_000]

    def test_threads_are_twice_the_cpus(self) -> None:
        assert make_job(["ebizzy"], cpus=6).nr_tasks == 12
        assert make_job(["ebizzy"]).nr_tasks == 8


class TestKernbench:
    def test_a_compilation_faults_on_what_it_uses(self) -> None:
        # One process after the other: stack, programs and libraries, data, memory; and four pages
        # of stacks that a fork made read-only, two for the children and two for the shell.
        job = make_job(["kernbench", "-j", "1", "-c", "1"])
        result = reference.run(job.build(seed=3), arch=X86)
        assert not result.stuck
        assert (result.ops["errno"] == 0).all()
        assert (result.ops["signal"] == 0).all()
        scale = random.Random("kernbench 3").uniform(0.5, 1.5)
        anonymous = {
            "sh": 16 + 132,
            "gcc": 32 + 396,
            "cc1": 1280 + 132 * round(128 * scale) + 2 * 256 * round(56 * scale),
            "as": 64 + 132 * round(40 * scale),
            "fixdep": 8 + 132,
        }
        libc, libm, libz, loader = (640, 24), (64, 8), (64, 8), (128, 12)
        files = [
            [(128, 12), loader, libc],
            [(256, 24), loader, libm, libc],
            [(8192, 448), loader, (64, 8), (128, 12), (64, 12), libz, libm, libc],
            [(256, 32), loader, (256, 72), libz, libc],
            [(64, 8), loader, libc],
        ]
        faults = 4 + sum(anonymous.values()) // 4 + 5 * 3
        faults += sum(used // 64 + data // 4 for program in files for used, data in program)
        driver = 3 + 16 // 4 + (256 + 128 + 640) // 64 + (24 + 12 + 24) // 4  # make itself
        assert result.counters["faults"] == faults + driver
        assert result.counters["spf"] == 0

    @pytest.mark.parametrize("jobs", [4, 8])
    def test_single_threaded_processes_do_not_care_about_the_handler(self, jobs: int) -> None:
        """The founding document: elapsed within 1 %, 242 spf of 525,873,132 faults."""
        job = make_job(["kernbench", "-j", str(jobs)])
        program = job.build()
        classic, spf = (
            spfemu.run(program, engine="vtime", cpus=8, handler=handler, record=False)
            for handler in ("classic", "spf")
        )
        assert spf.elapsed_ns == pytest.approx(classic.elapsed_ns, rel=0.01)
        assert spf.counters["faults"] == classic.counters["faults"]
        assert spf.counters["spf"] == spf.counters["pagefault:spf_vma_notsup"] == 0

    def test_faults_are_as_frequent_as_the_founding_document_has_them(self) -> None:
        # Five runs of -j24 and -j48 each, of 984.958 and 1196.78 s of user time.
        published = 525_873_132 / (5 * (984.958 + 1196.78))
        job = make_job(["kernbench", "-j", "4", "-c", "8"])
        result = spfemu.run(job.build(), engine="vtime", cpus=4, record=False)
        figures = job.figures(result)
        assert figures["compilations"] == 8
        assert figures["elapsed_s"] == result.elapsed_ns / 1e9
        assert result.counters["faults"] / figures["user_s"] == pytest.approx(published, rel=0.03)

    def test_so_many_jobs_at_a_time(self) -> None:
        program = make_job(["kernbench", "-j", "3", "-c", "7"]).build()
        makes = [task for task in program.tasks if task.name.startswith("make0.")]
        assert [(task.ops["op"] == OPS["vfork"].code).sum() for task in makes] == [3, 2, 2]
        assert len(program.tasks) == 1 + 3 + 5 * 7

    @pytest.mark.parametrize(
        ("letters", "loads"),
        [
            ([], (4, 32, 64)),
            (["-M"], (4, 32)),
            (["-M", "-s", "-o", "6"], (1, 4, 6)),
            (["-HO", "-c", "9", "-n", "2"], (9, 9)),
            (["-j", "5"], (5,)),
        ],
    )
    def test_loads(self, letters: list[str], loads: tuple[int, ...]) -> None:
        job = make_job(["kernbench", *letters], cpus=8)
        assert isinstance(job, Kernbench)
        assert job.loads == loads

    def test_two_jobs_are_no_half_load(self) -> None:
        job = make_job(["kernbench", "-OM"], cpus=4)
        assert isinstance(job, Kernbench)
        assert job.loads == (3,)

    def test_every_run_compiles_the_same(self) -> None:
        program = make_job(["kernbench", "-n", "2", "-HM", "-o", "2", "-c", "2"]).build(seed=5)
        names = {task.name: task for task in program.tasks}
        first, second, other = (names[f"cc1{which}"].ops for which in ("0.1", "1.1", "0.0"))
        assert (first["value"] == second["value"]).all()
        assert (first["value"] != other["value"]).any()


class TestWillItScale:
    @pytest.mark.parametrize(
        ("test", "faults"),
        [
            ("page_fault1", 16),
            ("page_fault2", 16),
            ("page_fault3", 16),
            ("mmap1", 0),
            ("mmap2", 0),
            ("brk1", 0),
            ("malloc1", 1),
            ("malloc2", 0),
            ("tlb_flush2", 2 * 256),
        ],
    )
    @pytest.mark.parametrize("letter", ["t", "p"])
    def test_faults_of_a_round(
        self, test: str, faults: int, letter: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(will_it_scale, "WIS_MEMORY", 16 * 4096)
        assert faults_of_a_round([test, f"-{letter}", "2"]) == 2 * faults

    def test_operations(self) -> None:
        for test, count in (
            ("page_fault1", 32768),
            ("mmap1", 1),
            ("mmap2", 1),
            ("brk1", 2),
            ("malloc1", 1),
            ("malloc2", 1000),
            ("tlb_flush2", 256),
        ):
            job = WillItScale(test, tasks=1)
            figures = job.figures(result_of(job.build(), rounds=(0, 3)))
            assert figures == {"operations": 3 * count, "operations_per_s": 6.0 * count}

    def test_a_flush_for_each_page(self) -> None:
        program = make_job(["tlb_flush2", "-t", "1"]).build(page_size=65536)
        ops = program.tasks[1].ops
        codes = [OPS[name].code for name in ("write", "madvise", "read")]
        assert [(ops["op"] == code).sum() for code in codes] == [16 + 1, 16, 16]  # and the stack
        assert faults_of_a_round(["tlb_flush2", "-t", "1"], page_size=65536) == 2 * 16

    def test_malloc1_maps_a_page_for_the_header(self) -> None:
        program = make_job(["malloc1", "-p", "1"]).build()
        ops = program.tasks[1].ops
        assert ops["length"][ops["op"] == OPS["mmap"].code].tolist() == [(128 << 20) + 4096]

    def test_processes_are_forked(self) -> None:
        program = make_job(["page_fault1", "-p", "3"]).build()
        assert [task.start for task in program.tasks] == [None, "fork", "fork", "fork"]


class TestPft:
    @pytest.mark.parametrize("letters", [["-t", "3"], ["-t", "3", "-p"], ["-n", "3"]])
    @pytest.mark.parametrize("page_size", [4096, 65536])
    def test_each_page_once(self, letters: list[str], page_size: int) -> None:
        job = make_job(["pft", "-m", "1", *letters])
        arch = X86 if page_size == 4096 else POWERPC
        result = reference.run(job.build(page_size=page_size), arch=arch)
        assert not result.stuck
        assert (result.ops["errno"] == 0).all()
        # A thread's descriptor is written before it starts, its stack by itself.
        starting = 0 if "-n" in letters else 2 * 3
        pages = 3 * (1 << 20) // page_size
        assert result.counters["faults"] == pages + starting
        result = replace(result, elapsed_ns=500_000_000)
        assert job.figures(result) == {
            "pages": pages,
            "faults_per_s": 2.0 * pages,
            "faults_per_cpu": 2.0 * pages / 3,
        }

    def test_one_region_or_one_each(self) -> None:
        def regions(*letters: str) -> object:
            ops = make_job(["pft", "-m", "1", *letters]).build().tasks[0].ops
            return ops["length"][(ops["op"] == OPS["mmap"].code) & (ops["prot"] == 3)].tolist()

        assert regions("-t", "4") == [4 << 20]
        assert regions("-t", "4", "-p") == regions("-n", "4") == [1 << 20] * 4


class TestThreadstorm:
    @pytest.mark.parametrize(("threads", "windows"), [(3, 3 * 8), (70, 512)])
    def test_each_thread_uses_its_own(self, threads: int, windows: int) -> None:
        # Top of the stack and 8 pages below, head of the arena, 1 MiB; and of the code what is
        # around 64 KiB, each place once, however many run it.
        job = make_job(["threadstorm", "-t", str(threads)])
        result = reference.run(job.build(), arch=X86)
        assert not result.stuck
        assert (result.ops["errno"] == 0).all()
        assert (result.ops["signal"] == 0).all()
        assert result.counters["faults"] == threads * (1 + 8 + 1 + 256) + windows
        figures = job.figures(replace(result, elapsed_ns=250_000_000))
        assert figures == {"launch_s": 0.25, "threads_started": threads}

    def test_larger_pages_mean_fewer_faults(self) -> None:
        program = make_job(["threadstorm", "-t", "2"]).build(page_size=65536)
        result = reference.run(program, arch=POWERPC)
        assert (result.ops["errno"] == 0).all()
        assert result.counters["faults"] == 2 * (1 + 1 + 1 + 16) + 16

    def test_memory_is_half_heap_half_arena(self) -> None:
        ops = make_job(["threadstorm", "-t", "1", "-m", "256"]).build().tasks[1].ops
        assert (ops["op"] == OPS["mprotect"].code).sum() == 1 + 1 + 2
        assert (ops["op"] == OPS["touch"].code).sum() == 1 + 3 * 2

    def test_a_telephone_has_eight_cpus(self) -> None:
        assert make_job(["threadstorm"]).nr_tasks == 8
        assert len(make_job(["threadstorm"]).build().tasks) == 101


class TestDatabase:
    @pytest.mark.parametrize(("page_size", "faults"), [(4096, 16 * (64 + 4)), (65536, 16 * 5)])
    def test_buffers_and_arenas_fault_and_the_region_does_not(
        self, page_size: int, faults: int
    ) -> None:
        letters = ["database", "-t", "2", "-g", "1"]
        assert faults_of_a_round(letters, page_size=page_size) == 2 * faults

    def test_the_region_is_brought_in_before(self) -> None:
        # Stacks (2 each) and heads of arenas, the region, and one round.
        program = bounded(make_job(["database", "-t", "3", "-g", "2", "-b", "4"]).build(), 1)
        result = reference.run(program, arch=X86)
        assert result.counters["faults"] == 3 * 3 + 512 + 3 * 16 * (1 + 4)

    def test_a_round_is_sixteen_transactions(self) -> None:
        job = make_job(["database", "-t", "2", "-S", "0.25"])
        figures = job.figures(result_of(job.build(), rounds=(0, 3, 4)))
        assert figures == {"transactions": 112, "transactions_per_s": 224.0}

    def test_what_is_under_way_at_the_end_counts_with_its_time(self) -> None:
        job = make_job(["database", "-t", "4", "-S", "0.0001"])
        figures = job.figures(spfemu.run(job.build(), engine="vtime"))
        assert figures["transactions"] == 4 * 16
        # Each computes for 50 us.
        assert figures["transactions_per_s"] < 4 / 50e-6

    def test_rows_come_from_the_seed(self) -> None:
        job = make_job(["database", "-t", "1"])
        assert job.build(seed=1) == job.build(seed=1)
        assert job.build(seed=1) != job.build(seed=2)


def result_of(program: Program, *, rounds: tuple[int, ...]) -> Result:
    """A result with these finished rounds after half a second."""
    empty = reference.run(bounded(Program.loads(NOTHING), 1), arch=X86)
    return replace(empty, program=program, rounds=rounds, elapsed_ns=500_000_000)


NOTHING = '{"format": "spfemu-program/1", "tasks": [{"ops": []}]}'


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_every_workload_builds_for_every_page_size(name: str) -> None:
    letters, nr_tasks = SMALL.get(name, (["-t", "2"], 3))
    for page_size in (4096, 65536):
        program = make_job([name, *letters]).build(page_size=page_size)
        assert program.page_size == page_size
        assert len(program.tasks) == nr_tasks


SMALL = {"kernbench": (["-j", "2", "-c", "2"], 13)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], 'workload "" (allowed: ebizzy, kernbench,'),
        (["lmbench"], 'workload "lmbench" (allowed: ebizzy, kernbench,'),
        (["ebizzy", "-t", "0"], 'ebizzy: option -t: value "0" (allowed: 1 to 16384)'),
        (["ebizzy", "-t", "many"], 'ebizzy: option -t: value "many" (allowed: 1 to 16384)'),
        (["ebizzy", "-t"], "ebizzy: option -t requires argument (allowed: -m, -M, -n NUM,"),
        (["ebizzy", "-q"], "ebizzy: option -q not recognized (allowed: -m, -M, -n NUM,"),
        (["ebizzy", "extra"], 'ebizzy: argument "extra" (allowed: -m,'),
        (["ebizzy", "-S", "0"], 'ebizzy: option -S: value "0" (allowed: above 0, up to 1e6)'),
        (["ebizzy", "-S", "nan"], 'ebizzy: option -S: value "nan"'),
        (["ebizzy", "-S", "-1"], 'ebizzy: option -S: value "-1"'),
        (["ebizzy", "-n", "0"], 'ebizzy: option -n: value "0"'),
        (["ebizzy", "-s", "4"], 'ebizzy: option -s: value "4" (allowed: 8 to '),
        (["ebizzy", "-mM"], "ebizzy: options -m and -M (allowed: at most one of them)"),
        (["kernbench", "-j", "0"], 'kernbench: option -j: value "0" (allowed: 1 to 16384)'),
        (["kernbench", "-j", "2", "-M"], "kernbench: options -j and -M (allowed: one of them)"),
        (["kernbench", "-HOM"], "kernbench: options -H, -O and -M (allowed: not all of them"),
        (["kernbench", "-n", "999"], "kernbench: 530469 processes (allowed: 65536; fewer -n"),
        (["pft", "-t", "2", "-n", "2"], "pft: options -t and -n (allowed: threads or processes,"),
        (["pft", "-p", "-n", "2"], "pft: options -n and -p (allowed: -p with threads; processes"),
        (["pft", "-m", "0"], 'pft: option -m: value "0" (allowed: 1 to 1048576)'),
        (["database", "-b", "3"], 'database: option -b: value "3" (allowed: 4 to 1048576)'),
        (["threadstorm", "-m", "1"], 'threadstorm: option -m: value "1" (allowed: 128 to 16384)'),
        (["brk1", "-t", "1", "-p", "1"], "brk1: options -t and -p (allowed: threads or processes"),
        (["mmap1", "-p", "0"], 'mmap1: option -p: value "0" (allowed: 1 to 16384)'),
    ],
)
def test_bad_options_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(ProgramError) as raised:
        make_job(arguments)
    assert str(raised.value).startswith(message)
