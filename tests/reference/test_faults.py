"""The fault path on each arch: what is counted, who handles it, which signal comes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spfemu.profiles import Arch
from spfemu.program import ProgramBuilder, System, TaskBuilder
from spfemu.reference import run
from spfemu.reference.faults import do_page_fault
from spfemu.reference.kernel import Kernel
from spfemu.reference.machine import Machine
from spfemu.reference.mm import Mm
from spfemu.reference.mmap import mmap
from spfemu.reference.model import Frames
from spfemu.reference.vm_fault import WRITE, Fault
from tests.reference.arches import ARCHES, ARM64, POWERPC, POWERPC_4K, X86, X86_5LEVEL
from tests.reference.play import A, P, play

BIG = 1 << 24


def arch_id(arch: Arch) -> str:
    return arch.name


@pytest.mark.parametrize("arch", ARCHES, ids=arch_id)
class TestEveryArch:
    def test_a_second_write_in_a_table_is_speculative(self, arch: Arch) -> None:
        # [ written | written ]: the first makes anon_vma and table, the second needs neither.
        def ops(t: TaskBuilder) -> None:
            t.mmap(BIG, addr=A, flags=("private", "anonymous", "fixed"))
            t.write(A)
            t.write(A + arch.page_size)

        first, second = play(ops, arch=arch).outcomes[1:]
        assert first["handled"] == "classic"
        assert first["counters"] == {
            "faults": 1,
            "minor-faults": 1,
            "pagefault:spf_vma_notsup": 1,
            "pgfault": 1,
        }
        assert second["handled"] == "spf"
        assert second["counters"] == {
            "faults": 1,
            "minor-faults": 1,
            "spf": 1,
            "speculative_pgfault": 1,
        }

    def test_the_classic_handler_emits_nothing(self, arch: Arch) -> None:
        def ops(t: TaskBuilder) -> None:
            t.mmap(BIG, addr=A, flags=("private", "anonymous", "fixed"))
            t.touch(A, 4 * arch.page_size)

        counters = play(ops, arch=arch, handler="classic").result.counters
        assert {name: count for name, count in counters.items() if count} == {
            "faults": 4,
            "minor-faults": 4,
            "pgfault": 4,
        }

    def test_each_table_costs_one_classic_fault(self, arch: Arch) -> None:
        table = 1 << arch.levels[-2].shift

        def ops(t: TaskBuilder) -> None:
            t.mmap(4 * table, addr=A, flags=("private", "anonymous", "fixed"))
            t.touch(A, 4 * table, stride=table // 4)

        counters = play(ops, arch=arch).result.counters
        assert counters["pagefault:spf_vma_notsup"] == 4
        assert counters["spf"] == 12

    def test_fetching_from_a_page_that_may_only_be_read_never_ends(self, arch: Arch) -> None:
        # C2: H10 takes VM_READ for enough, the PTE does not change, and that counts as handled.
        def ops(t: TaskBuilder) -> None:
            t.mmap(BIG, addr=A, flags=("private", "anonymous", "fixed"))
            t.write(A)
            t.execute(A)
            t.execute(A + arch.page_size)

        for outcome in play(ops, arch=arch).outcomes[2:]:
            assert outcome["livelock"]
            assert outcome["signal"] is None
            assert outcome["ret"] is None
            assert outcome["counters"] == {
                "faults": 1000,
                "minor-faults": 1000,
                "spf": 1000,
                "speculative_pgfault": 1000,
            }

    def test_with_c2_fixed_the_classic_handler_refuses_it(self, arch: Arch) -> None:
        def ops(t: TaskBuilder) -> None:
            t.mmap(BIG, addr=A, flags=("private", "anonymous", "fixed"))
            t.write(A)
            t.execute(A)

        last = play(ops, arch=arch, variants={"C2": "fixed"}).last
        assert (last["signal"], last["si_code"]) == ("SIGSEGV", "SEGV_ACCERR")
        assert last["counters"] == {"faults": 1}

    def test_a_bad_write_is_refused_speculatively_but_on_powerpc(self, arch: Arch) -> None:
        def ops(t: TaskBuilder) -> None:
            t.mmap(BIG, addr=A, flags=("private", "anonymous", "fixed"))
            t.write(A)
            t.mprotect(A, BIG, "r")
            t.write(A)

        last = play(ops, arch=arch).last
        assert last["signal"] == "SIGSEGV"
        if arch.family == "powerpc":
            assert (last["si_code"], last["handled"]) == ("SEGV_ACCERR", "classic")
            assert last["counters"] == {"faults": 1, "pagefault:spf_vma_access": 1}
        else:
            assert (last["si_code"], last["handled"]) == ("SEGV_MAPERR", "spf")
            assert last["counters"] == {"faults": 1, "spf": 1, "pagefault:spf_vma_access": 1}

    def test_with_c3_fixed_the_classic_handler_says_the_code(self, arch: Arch) -> None:
        def ops(t: TaskBuilder) -> None:
            t.mmap(BIG, addr=A, flags=("private", "anonymous", "fixed"))
            t.write(A)
            t.mprotect(A, BIG, "r")
            t.write(A)

        last = play(ops, arch=arch, variants={"si-code": "fixed"}).last
        assert (last["si_code"], last["handled"]) == ("SEGV_ACCERR", "classic")
        assert last["counters"] == {"faults": 1, "pagefault:spf_vma_access": 1}

    def test_execute_only_memory(self, arch: Arch) -> None:
        # x86 and powerpc read through execute permission, arm64 does not; its speculative handler
        # lets the read pass (H10) and then faults for ever.
        def ops(t: TaskBuilder) -> None:
            t.mmap(BIG, prot="x", addr=A, flags=("private", "anonymous", "fixed"))
            t.execute(A)
            t.read(A)

        executed, read = play(ops, arch=arch, threads=1).outcomes[1:]
        assert executed["signal"] is None
        assert read["signal"] == ("SIGSEGV" if arch.exec_only else None)
        assert read["counters"] == ({"faults": 1} if arch.exec_only else {})

    def test_fetching_from_an_absent_page_that_may_only_be_read(self, arch: Arch) -> None:
        # x86 takes the first fault for a read and maps the zero page, then refuses; the others
        # ask for VM_EXEC at once.
        def ops(t: TaskBuilder) -> None:
            t.mmap(BIG, addr=A, flags=("private", "anonymous", "fixed"))
            t.execute(A)

        last = play(ops, arch=arch, threads=1).last
        assert (last["signal"], last["si_code"]) == ("SIGSEGV", "SEGV_ACCERR")
        assert last["counters"]["faults"] == (2 if arch.family == "x86" else 1)


class TestWhoIsAsked:
    def test_one_user_of_the_address_space_never_speculates(self) -> None:
        def ops(t: TaskBuilder) -> None:
            t.mmap(4 * P, addr=A, flags=("private", "anonymous", "fixed"))
            t.touch(A, 4 * P)

        counters = play(ops, threads=1).result.counters
        assert counters["spf"] == counters["pagefault:spf_vma_notsup"] == 0

    def test_an_ended_thread_counts_no_more(self) -> None:
        def ops(t: TaskBuilder) -> None:
            t.mmap(4 * P, addr=A, flags=("private", "anonymous", "fixed"))
            t.write(A)
            t.post("go")
            t.await_("gone")
            t.write(A + P)

        builder = ProgramBuilder()
        ops(builder.task())
        other = builder.task()
        other.await_("go")
        other.post("gone")
        result = run(builder.build(), arch=X86)
        assert result.outcome(result.task_ops(0)[-1])["counters"] == {
            "faults": 1,
            "minor-faults": 1,
            "pgfault": 1,
        }

    def test_any_number_but_zero_switches_it_on(self) -> None:
        def ops(t: TaskBuilder) -> None:
            t.mmap(8 * P, addr=A, flags=("private", "anonymous", "fixed"))
            t.write(A)
            t.sysctl("vm.speculative_page_fault", 0)
            t.write(A + P)
            t.sysctl("vm.speculative_page_fault", -3)
            t.write(A + 2 * P)

        played = play(ops)
        assert (played[3]["handled"], played[5]["handled"]) == ("classic", "spf")

    def test_kernel_mode_is_classic_and_ends_in_efault(self) -> None:
        def ops(t: TaskBuilder) -> None:
            t.mmap(4 * P, addr=A, flags=("private", "anonymous", "fixed"))
            t.write(A)
            t.write(A + P, 5, mode="kernel")
            t.read(A + P, mode="kernel")
            t.read(A - P, mode="kernel")

        write, read, bad = play(ops).outcomes[2:]
        assert write["handled"] == "classic"
        assert write["counters"] == {"faults": 1, "minor-faults": 1, "pgfault": 1}
        assert (read["value"], read["handled"]) == (5, "none")
        assert (bad["ret"], bad["errno"], bad["signal"]) == (-1, "EFAULT", None)
        assert bad["counters"] == {"faults": 1}

    @pytest.mark.parametrize(
        ("arch", "address", "si_code", "faults"),
        [
            (X86, X86.task_size - P, "SEGV_MAPERR", 1),
            (X86, X86.task_size, "SEGV_MAPERR", 0),  # do_kern_addr_fault(), before the event
            (X86, 1 << 47, "SI_KERNEL", 0),  # not canonical
            (X86, (1 << 64) - (1 << 47) - 8, "SI_KERNEL", 0),
            (X86, (1 << 64) - (1 << 47), "SEGV_MAPERR", 0),
            (X86, (1 << 64) - 8, "SEGV_MAPERR", 0),
            (X86_5LEVEL, 1 << 47, "SEGV_MAPERR", 1),  # TASK_SIZE_MAX is 56 bits
            (X86_5LEVEL, (1 << 56) - P, "SEGV_MAPERR", 0),
            (X86_5LEVEL, 1 << 56, "SI_KERNEL", 0),
            (ARM64, ARM64.task_size, "SEGV_MAPERR", 0),  # not TTBR0's
            (ARM64, (1 << 64) - 8, "SEGV_MAPERR", 0),
            (POWERPC, POWERPC.task_size, "SEGV_BNDERR", 0),  # no segment
            (POWERPC, 0xC << 60, "SEGV_MAPERR", 1),  # a segment, no page
            (POWERPC, 0xE << 60, "SEGV_BNDERR", 0),
            (POWERPC_4K, (0xD << 60) + (1 << 46), "SEGV_BNDERR", 0),
            (POWERPC, (0xD << 60) + (1 << 46), "SEGV_MAPERR", 1),
            (POWERPC, (1 << 64) - 8, "SEGV_BNDERR", 0),
        ],
    )
    def test_beyond_user_space(self, arch: Arch, address: int, si_code: str, faults: int) -> None:
        def ops(t: TaskBuilder) -> None:
            t.read(address)
            t.write(address, mode="kernel")

        user, kernel = play(ops, arch=arch).outcomes
        assert (user["signal"], user["si_code"]) == ("SIGSEGV", si_code)
        assert user["counters"] == ({"faults": 1} if faults else {})
        assert user["handled"] == ("classic" if faults else "none")
        # access_ok() refuses what is none of a user's, whatever the hardware would do.
        is_users = faults and address < 1 << 56
        assert (kernel["ret"], kernel["errno"]) == (-1, "EFAULT")
        assert kernel["counters"] == ({"faults": 1} if is_users else {})

    def test_powerpc_without_memory_keys_accepts_nothing(self) -> None:
        # C8: the work is done speculatively, then the classic fault finds it done.
        kernel = Kernel(POWERPC, "spf", Frames(100), {}, 65536, mem_keys=False)
        mm = Mm(POWERPC, kernel.frames)
        mm.users = 2
        mmap(kernel, mm, A, 1 << 20, 3, 1 | 4 | 8)
        for page in range(2):
            do_page_fault(Fault(kernel, mm, A + page * 65536, WRITE, user=True, present=False))
        counted = dict(zip(play(lambda t: None).result.counters, kernel.counters, strict=True))
        assert counted["speculative_pgfault"] == 1
        assert (counted["spf"], counted["pgfault"], counted["minor-faults"]) == (0, 2, 2)


class TestMemory:
    def test_when_it_ends_the_access_is_killed(self) -> None:
        # 16 frames: one is the zero page, four are page tables, eleven can be written.
        def ops(t: TaskBuilder) -> None:
            t.mmap(64 * P, addr=A, flags=("private", "anonymous", "fixed"))
            t.touch(A, 12 * P)
            t.munmap(A, 4 * P)
            t.write(A + 11 * P)

        played = play(ops, system=System(memory=16 * P))
        touched = played.outcomes[1:13]
        assert [outcome["signal"] for outcome in touched] == [None] * 11 + ["SIGKILL"]
        assert touched[-1]["handled"] == "spf"
        assert touched[-1]["counters"] == {"faults": 1, "spf": 1, "speculative_pgfault": 1}
        assert played.last["signal"] is None

    def test_fork_without_memory_is_refused(self) -> None:
        builder = ProgramBuilder(system=System(memory=16 * P))
        t = builder.task()
        t.mmap(64 * P, addr=A, flags=("private", "anonymous", "fixed"))
        t.touch(A, 9 * P)
        t.fork("c")
        builder.task("c", start="fork")
        result = run(builder.build(), arch=X86)
        assert result.outcome(result.ops[-1])["errno"] == "ENOMEM"

    def test_all_of_it_is_back_at_the_end(self) -> None:
        builder = ProgramBuilder()
        t = builder.task()
        t.mmap(64 * P, addr=A, flags=("private", "anonymous", "fixed"))
        t.touch(A, 64 * P)
        t.mmap(4 * P, addr=A + 2 * P, flags=("shared", "anonymous", "fixed"), id="s")
        t.touch("s", 4 * P)
        t.fork("c", wait=True)
        t.touch(A, 16 * P)
        c = builder.task("c", start="fork")
        c.touch(A, 20 * P)
        c.exec()
        c.mmap(4 * P, id="x")
        c.touch("x", 4 * P)
        program = builder.build()
        kernel = Kernel(X86, "spf", Frames(1000), {}, 65536)
        assert Machine(program, kernel).run() == []
        assert kernel.frames.used == 0


def test_a_profile_of_the_user_is_taken_as_it_is() -> None:
    tiny = replace(ARM64, name="tiny", exec_only=False, mmap_base=1 << 30, task_size=1 << 30)

    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * P, id="p")
        t.write("p")

    assert play(ops, arch=tiny)[0]["ret"] == (1 << 30) - 2 * P
