"""Transparent huge pages: where there are any, what cuts them, what fork makes of them."""

from __future__ import annotations

import pytest

from spfemu.profiles import Arch
from spfemu.program import ProgramBuilder, System, TaskBuilder
from spfemu.reference import run
from spfemu.reference.huge_pages import has_transparent_hugepage
from tests.reference.arches import ARCHES, ARM64_64K, POWERPC, POWERPC_4K, X86
from tests.reference.play import A, P, play

FIXED = ("private", "anonymous", "fixed")
HUGE = 1 << 21
NR = HUGE // P


def map_huge(t: TaskBuilder, length: int = HUGE, start: int = A) -> None:
    t.mmap(length, addr=start, flags=FIXED)
    t.madvise(start, length, "hugepage")


def faults(t: TaskBuilder, length: int = HUGE, access: str = "write") -> None:
    t.touch(A, length, access=access)


def test_one_fault_maps_all_of_it() -> None:
    def ops(t: TaskBuilder) -> None:
        map_huge(t, 2 * HUGE)
        t.touch(A, 2 * HUGE)

    counters = play(ops).result.counters
    assert counters["faults"] == 2
    assert counters["pagefault:spf_vma_notsup"] == 2  # no anon_vma; then none at the PMD


def test_a_read_maps_zeroes_and_makes_an_anon_vma() -> None:
    def ops(t: TaskBuilder) -> None:
        map_huge(t)
        faults(t, access="read")
        t.mprotect(A, HUGE, "none")
        t.read(A)

    played = play(ops)
    assert played.result.counters["faults"] == 2
    # Refused by the speculative handler: there is an anon_vma.
    assert (played.last["handled"], played.last["signal"]) == ("spf", "SIGSEGV")


def test_a_write_to_the_zeroes_is_a_fault_for_the_whole() -> None:
    def ops(t: TaskBuilder) -> None:
        map_huge(t)
        t.read(A)
        faults(t)

    assert play(ops).result.counters["faults"] == 2


@pytest.mark.parametrize(
    ("thp", "advice", "nr_faults"),
    [
        ("madvise", "normal", NR),
        ("madvise", "hugepage", 1),
        ("never", "hugepage", NR),
        ("always", "normal", 1),
        ("always", "nohugepage", NR),
    ],
)
def test_setting_and_advice_decide(thp: str, advice: str, nr_faults: int) -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(HUGE, addr=A, flags=FIXED)
        t.madvise(A, HUGE, advice)
        faults(t)

    assert play(ops, system=System(thp=thp)).result.counters["faults"] == nr_faults


def test_without_the_configuration_the_advice_is_unknown() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(HUGE, addr=A, flags=FIXED)
        t.madvise(A + 1, 0, "hugepage")
        t.madvise(A, HUGE, "nohugepage")
        faults(t)

    played = play(ops, system=System(thp="always", config={"THP": False}))
    assert played.errnos()[1:3] == ["EINVAL", "EINVAL"]
    assert played.result.counters["faults"] == NR


def test_it_must_fit_into_the_vma() -> None:
    # [q: 1 page less than a huge page][.......]
    def ops(t: TaskBuilder) -> None:
        map_huge(t, HUGE - P, A + P)
        t.touch(A + P, HUGE - P)

    assert play(ops).result.counters["faults"] == NR - 1


@pytest.mark.parametrize(
    "cut",
    [
        lambda t: t.madvise(A + P, P, "dontneed"),
        lambda t: t.munmap(A + P, P),
        lambda t: t.mprotect(A + P, P, "r"),
        lambda t: t.madvise(A + P, P, "random"),
        lambda t: t.mmap(P, addr=A + P, flags=FIXED),
    ],
    ids=["dontneed", "munmap", "mprotect", "madvise", "mmap"],
)
def test_what_cuts_it_leaves_small_pages(cut: object) -> None:
    # A write to what is left faults no more; the speculative handler can take the PMD again.
    def ops(t: TaskBuilder) -> None:
        map_huge(t)
        t.write(A, 7)
        cut(t)  # type: ignore[operator]
        t.write(A + 2 * P, 8)
        t.read(A)
        t.madvise(A + 3 * P, P, "dontneed")
        t.write(A + 3 * P)

    wrote, value, _, again = play(ops).outcomes[-4:]
    assert (wrote["handled"], value["value"], again["handled"]) == ("none", 7, "spf")


def test_what_takes_all_of_it_does_not_cut_it() -> None:
    def ops(t: TaskBuilder) -> None:
        map_huge(t)
        t.write(A, 7)
        t.mprotect(A, HUGE, "r")
        t.mprotect(A, HUGE, "rw")
        faults(t)
        t.madvise(A, HUGE, "dontneed")
        faults(t)

    assert play(ops).result.counters["faults"] == 3


def forked(*, memory: int = 1 << 30, no_more: bool = False) -> list[dict[str, object]]:
    """The parent's outcomes: it writes to a huge page that a child has, and reads another."""
    builder = ProgramBuilder(system=System(memory=memory))
    t, c = builder.task("t0"), builder.task("c", "fork")
    map_huge(t)
    t.write(A, 7)
    t.write(A + P, 8)
    t.fork("c")
    if no_more:
        t.madvise(A, HUGE, "nohugepage")
    t.write(A, 9)
    t.write(A + P, 10)
    t.post("written")
    c.await_("written")
    c.read(A)
    c.read(A + P)
    result = run(builder.build(), arch=X86)
    assert [o["value"] for o in map(result.outcome, result.task_ops(1))][1:] == [7, 8]
    return [result.outcome(record) for record in result.task_ops(0)]


def test_after_fork_the_first_write_copies_all_of_it() -> None:
    *_, first, second, _ = forked()
    assert (first["handled"], second["handled"]) == ("classic", "none")


@pytest.mark.parametrize("kwargs", [{"memory": HUGE + (HUGE >> 1) * 3}, {"no_more": True}])
def test_without_another_huge_page_small_ones_are_copied(kwargs: dict[str, int]) -> None:
    # In one fault all the same. The memory suffices for small pages, not for a huge page more.
    *_, first, second, _ = forked(**kwargs)  # type: ignore[arg-type]
    assert (first["handled"], second["handled"]) == ("classic", "none")


def test_a_part_is_shared_as_long_as_any_part_is() -> None:
    builder = ProgramBuilder()
    t, c = builder.task("t0"), builder.task("c", "fork")
    map_huge(t)
    t.write(A, 7)
    t.fork("c")
    c.await_("cut")
    t.madvise(A + P, P, "dontneed")
    t.post("cut")
    t.await_("cut there")
    t.write(A + 2 * P)
    c.munmap(A, HUGE - P)
    c.post("cut there")
    c.await_("end")
    t.post("end")
    frames_used = run(builder.build(), arch=X86)
    write = frames_used.outcome(frames_used.task_ops(0)[-2])
    assert (write["op"], write["counters"]["minor-faults"]) == ("write", 1)


def test_memory_comes_back_with_the_last_part() -> None:
    # Half of it is dropped, and another huge page is still one too many: small pages.
    def ops(t: TaskBuilder) -> None:
        map_huge(t, 2 * HUGE)
        t.write(A)
        t.madvise(A, HUGE - P, "dontneed")
        t.write(A + HUGE)
        t.write(A + HUGE + P)
        t.madvise(A, HUGE, "dontneed")
        t.madvise(A + HUGE, HUGE, "dontneed")
        t.write(A)
        t.write(A + P)

    outcomes = play(ops, system=System(memory=HUGE + (HUGE >> 1))).outcomes
    assert outcomes[-5]["handled"] == "spf"
    assert [o["handled"] for o in outcomes[-2:]] == ["spf", "spf"]


@pytest.mark.parametrize(("frames", "signal"), [(3, None), (4, "SIGKILL"), (5, None)])
def test_no_memory_for_the_table_set_aside_is_fatal(frames: int, signal: str | None) -> None:
    # x86: 3 upper tables and the page of zeroes; then the huge page, and the last table. With
    # fewer frames yet there are small pages.
    def ops(t: TaskBuilder) -> None:
        map_huge(t)
        t.write(A)

    found = play(ops, system=System(memory=(NR + frames) * P)).last["signal"]
    assert found == signal


@pytest.mark.parametrize(
    ("old", "new", "length", "huge"),
    [(0, 0, HUGE, True), (0, P, HUGE, False), (P, P, HUGE - P, False), (0, 0, HUGE - P, False)],
)
def test_mremap_moves_it_as_one_or_splits_it(old: int, new: int, length: int, huge: bool) -> None:
    target = A + 16 * HUGE

    def ops(t: TaskBuilder) -> None:
        map_huge(t)
        t.write(A + 3 * P, 7)
        flags = ("maymove", "fixed")
        t.mremap(A + old, length, length, flags=flags, new_addr=target + new)
        t.read(target + 3 * P - old + new)
        t.mprotect(target + new, length, "r")
        t.mprotect(target + new, length, "rw")
        t.write(target + 4 * P)

    *_, read, _, _, write = play(ops).outcomes
    assert read["value"] == 7
    # A huge page stops the speculative handler.
    assert write["handled"] == ("classic" if huge else "spf")


def test_each_arch_has_its_size() -> None:
    sizes = {a.name: 1 << a.levels[-2].shift for a in ARCHES if has_transparent_hugepage(a)}
    assert sizes[POWERPC.name] == 16 << 20
    assert sizes[ARM64_64K.name] == 512 << 20
    assert POWERPC_4K.name not in sizes


@pytest.mark.parametrize("arch", [POWERPC, POWERPC_4K], ids=lambda arch: arch.name)
def test_hash_wants_16_mib(arch: Arch) -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(16 << 20, addr=A, flags=FIXED)
        t.madvise(A, 16 << 20, "hugepage")
        t.touch(A, 8 * arch.page_size)

    expected = 1 if arch is POWERPC else 8
    assert play(ops, arch=arch).result.counters["faults"] == expected
