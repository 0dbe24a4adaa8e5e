"""Whatever a program does, the model agrees with a flat map of pages and breaks no invariant."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from spfemu.program import ProgramBuilder
from spfemu.program.ops import ADVICES
from spfemu.reference.faults import access
from spfemu.reference.fork import dup_mmap, exit_mmap, new_mm
from spfemu.reference.kernel import FAULTS, PGFAULT, SPECULATIVE_PGFAULT, SPF, Kernel
from spfemu.reference.machine import Machine
from spfemu.reference.mm import Mm
from spfemu.reference.mmap import mmap
from spfemu.reference.model import Frames, SyscallError
from spfemu.reference.munmap import munmap
from spfemu.reference.protect import madvise, mprotect
from spfemu.reference.vm_fault import READ, WRITE
from tests.reference.arches import ARCHES

# A few pages on both sides of the edge between two page tables.
SPAN = 12
RANGES = st.tuples(st.integers(0, SPAN - 1), st.integers(1, SPAN)).map(
    lambda pair: (pair[0], min(pair[0] + pair[1], SPAN))
)
ADVICE = ("dontneed", "random", "normal", "dontfork", "dofork", "nohugepage")
Step = tuple[str, tuple[int, int], int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("mmap"), RANGES, st.integers(0, 7)),
        st.tuples(st.just("munmap"), RANGES, st.just(0)),
        st.tuples(st.just("mprotect"), RANGES, st.integers(0, 7)),
        st.tuples(st.just("madvise"), RANGES, st.sampled_from(ADVICE).map(ADVICES.index)),
        st.tuples(st.just("write"), RANGES, st.integers(1, 99)),
        st.tuples(st.just("read"), RANGES, st.just(0)),
    ),
    max_size=40,
)


class Flat:
    """What a program may see: for each mapped page its protection and its content."""

    def __init__(self) -> None:
        self.pages: dict[int, list[int]] = {}

    def do(self, name: str, first: int, end: int, number: int) -> None:
        for page in range(first, end):
            if name == "mmap":
                self.pages[page] = [number, 0]
            elif name == "munmap":
                self.pages.pop(page, None)
            elif name == "madvise" and ADVICES[number] == "dontneed" and page in self.pages:
                self.pages[page][1] = 0
        if name == "mprotect":
            for page in range(first, end):
                if page not in self.pages:
                    return
                self.pages[page][0] = number


def do_step(
    kernel: Kernel, mm: Mm, base: int, flat: Flat, step: tuple[str, tuple[int, int], int]
) -> None:
    name, (first, end), number = step
    size = mm.page_size
    start, length = base + first * size, (end - first) * size
    try:
        if name == "mmap":
            mmap(kernel, mm, start, length, number, 1 | 4 | 8)
        elif name == "munmap":
            munmap(kernel, mm, start, length)
        elif name == "mprotect":
            mprotect(kernel, mm, start, length, number)
        elif name == "madvise":
            madvise(kernel, mm, start, length, number)
        elif name == "write":
            do_write(kernel, mm, base, flat, first, number)
        else:
            do_read(kernel, mm, base, flat, first)
    except SyscallError:
        assert name in ("mprotect", "madvise")
        assert any(page not in flat.pages for page in range(first, end))
    flat.do(name, first, end, number)
    check_at_rest(mm, base, flat)


def do_write(kernel: Kernel, mm: Mm, base: int, flat: Flat, page: int, value: int) -> None:
    result = access(kernel, mm, base + page * mm.page_size, WRITE, value=value)
    may = page in flat.pages and bool(flat.pages[page][0] & 2)
    assert result.succeeded == may
    if may:
        flat.pages[page][1] = value


def do_read(kernel: Kernel, mm: Mm, base: int, flat: Flat, page: int) -> None:
    result = access(kernel, mm, base + page * mm.page_size, READ)
    access_bits = 3 if mm.arch.exec_only else 7
    if page in flat.pages and flat.pages[page][0] & access_bits:
        assert result.succeeded
        assert result.value == flat.pages[page][1]
    else:
        assert not result.succeeded


def check_at_rest(mm: Mm, base: int, flat: Flat) -> None:
    size = mm.page_size
    seen = {}
    for before, vma in zip([None, *mm.vmas], mm.vmas, strict=False):
        assert vma.start < vma.end
        assert before is None or before.end <= vma.start
        assert (vma.anon_vma is None) == (vma.anon_vma_chain == [])
        assert vma.pgoff == vma.start // size
        for address in range(vma.start, vma.end, size):
            seen[(address - base) // size] = vma.flags & 7
    assert seen == {page: content[0] for page, content in flat.pages.items()}
    for address, pte in mm.page_tables.present(0, mm.arch.task_size):
        page = flat.pages[(address - base) // size]
        assert not pte.protection.write or page[0] & 2
        assert not pte.page.anonymous or pte.page.value == page[1]


@given(arch=st.sampled_from(ARCHES), steps=STEPS, users=st.integers(1, 2))
def test_agrees_with_a_flat_map(arch: object, steps: list[Step], users: int) -> None:
    from spfemu.profiles import Arch

    assert isinstance(arch, Arch)
    kernel = Kernel(arch, "spf", Frames(1 << 20), {}, 65536)
    mm = new_mm(kernel)
    mm.users = users
    flat = Flat()
    base = (1 << 40) + (1 << arch.levels[-2].shift) - 5 * arch.page_size
    for step in steps:
        do_step(kernel, mm, base, flat, step)
    counters = kernel.counters
    # SPF_V12 section 8: what was not settled speculatively was left to the classic handler.
    assert counters[FAULTS] >= counters[PGFAULT] + counters[SPECULATIVE_PGFAULT]
    assert counters[SPF] >= counters[SPECULATIVE_PGFAULT]
    exit_mmap(kernel, mm)
    assert kernel.frames.used == 0


@given(steps=STEPS, more=STEPS)
def test_a_child_sees_the_moment_of_the_fork(steps: list[Step], more: list[Step]) -> None:
    arch = ARCHES[0]
    kernel = Kernel(arch, "spf", Frames(1 << 20), {}, 65536)
    mm, flat = new_mm(kernel), Flat()
    mm.users = 2
    base = (1 << 40) + (1 << 21) - 5 * 4096
    for step in steps:
        do_step(kernel, mm, base, flat, step)
    with contextlib.suppress(SyscallError):  # so that the flat map holds for the child too
        madvise(kernel, mm, base, SPAN * mm.page_size, ADVICES.index("dofork"))
    child, copy = dup_mmap(kernel, mm), Flat()
    child.users = 1
    copy.pages = {page: list(content) for page, content in flat.pages.items()}
    for step in more:
        do_step(kernel, mm, base, flat, step)
    for step in steps:
        do_step(kernel, child, base, copy, step)
    check_at_rest(mm, base, flat)
    exit_mmap(kernel, mm)
    check_at_rest(child, base, copy)
    exit_mmap(kernel, child)
    assert kernel.frames.used == 0


@given(order=st.permutations(range(4)))
def test_waiting_tasks_all_end_whatever_their_order(order: list[int]) -> None:
    builder = ProgramBuilder()
    for number in order:
        task = builder.task(f"n{number}")
        if number:
            task.await_(f"p{number - 1}")
        task.barrier("middle") if number == 3 else task.compute(1)
        task.post(f"p{number}")
    program = builder.build()
    kernel = Kernel(ARCHES[0], "spf", Frames(1000), {}, 65536)
    assert Machine(program, kernel).run() == []
