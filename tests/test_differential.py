"""Engines against the reference: every generated program comes to the same on all of them.

A failure prints the smallest program that hypothesis found and where the engines part. Kept as a
named case in ``CASES`` it stays found.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import spfemu
from spfemu import Program
from spfemu.engines import TREES
from spfemu.profiles import arch_names
from spfemu.testing import assert_same, differential, disjoint_programs, programs, with_maps

ENGINES: Final = ("native", "vtime", "explore")

# A failing example is shrunk for minutes before it is shown.
pytestmark = pytest.mark.timeout(900)

engines = pytest.mark.parametrize("engine", ENGINES)
arches = pytest.mark.parametrize("arch", arch_names())
settings_of_runs = st.fixed_dictionaries(
    {
        "handlers": st.sampled_from((("spf",), ("classic",))),
        "tree": st.sampled_from(TREES),
        "seed": st.integers(0, 99),
        "cpus": st.sampled_from((None, 1, 2)),
    }
)
# What a program can see without concurrency: who refuses an access, and how.
variants = st.sampled_from((None, {"C3": "fixed"}, {"C8": "fixed"}))


@engines
@arches
@given(data=st.data(), how=settings_of_runs, variants=variants)
def test_engines_agree_on_sequential_programs(
    engine: str,
    arch: str,
    data: st.DataObject,
    how: dict[str, Any],
    variants: str | dict[str, str] | None,
) -> None:
    program = with_maps(data.draw(programs(arch=arch), "program"))
    both = ("reference", engine)
    differential(program, engines=both, arches=(arch,), variants=variants, **how)


@engines
@arches
@given(data=st.data(), how=settings_of_runs)
def test_engines_agree_on_what_disjoint_tasks_get_back(
    engine: str, arch: str, data: st.DataObject, how: dict[str, Any]
) -> None:
    program = data.draw(disjoint_programs(arch=arch), "program")
    differential(program, engines=("reference", engine), arches=(arch,), what="own", **how)


@pytest.mark.parametrize("variant", ["C2", "C3"])
def test_a_check_that_is_changed_is_found(variant: str) -> None:
    # C2: an execute fault that changes nothing is refused; C3: a refusal keeps its code.
    @settings(max_examples=2000, database=None, phases=[Phase.generate], derandomize=True)
    @given(programs(arch="x86"))
    def agrees(program: Program) -> None:
        changed = spfemu.run(program, engine="vtime", variants={variant: "fixed"})
        assert_same(spfemu.run(program, engine="reference"), changed)

    with pytest.raises(AssertionError, match=r"reference .* and vtime .* differ"):
        agrees()


# --- found once ----------------------------------------------------------------------------------

CASES: Final[dict[str, tuple[str, str]]] = {
    "brk_below_the_lowest_address_is_enomem": (
        "x86",
        """{"tasks": [{"ops": [{"op": "brk", "delta": 4096, "start": 0}]}]}""",
    ),
    "a_heap_may_begin_at_0": (
        "x86",
        """{"system": {"mmap_min_addr": 0}, "tasks": [{"ops": [
            {"op": "brk", "delta": 4096, "start": 0}, {"op": "brk", "delta": 4096}]}]}""",
    ),
    "exec_settles_where_the_heap_begins": (
        "x86",
        """{"tasks": [{"ops": [
            {"op": "exec", "brk_start": "0x1f80001fc000"},
            {"op": "brk", "delta": 4096, "start": "0x1f80001f8000"}]}]}""",
    ),
    # Too little memory for its pages, for page tables at its new place, and enough.
    **{
        f"a_stack_of_exec_with_{memory}_of_memory": (
            "x86",
            f"""{{"system": {{"memory": "{memory}"}}, "tasks": [{{"ops": [
                {{"op": "mmap", "length": "48K", "id": "p"}},
                {{"op": "touch", "addr": "p", "length": "48K"}},
                {{"op": "vfork", "child": "c"}}, {{"op": "post", "name": "on"}}]}},
                {{"name": "c", "start": "vfork", "ops": [
                {{"op": "exec", "stack": "12K", "stack_shift": "1G"}},
                {{"op": "await", "name": "on"}},
                {{"op": "write", "addr": "0x7fffbfffeff8", "value": 1}}]}}]}}""",
        )
        for memory in ("84K", "104K", "240K")
    },
    "a_small_user_space_has_a_heap": (
        "powerpc-4k",
        """{"tasks": [{"ops": [{"op": "brk", "delta": 4096}]}]}""",
    ),
    "dev_zero_has_offsets_below_2_to_the_64": (
        "x86",
        """{"files": {"z": {"length": 0, "kind": "devzero"}}, "tasks": [{"ops": [
            {"op": "mmap", "length": 4096, "file": "z", "offset": "0xffffffffffffe000"},
            {"op": "mmap", "length": 4096, "file": "z", "offset": "0xfffffffffffff000"}]}]}""",
    ),
    # 521 pages of memory for 512 of a huge page and 16 others: all of it is the parent's still.
    "a_child_that_ends_does_not_give_back_what_is_left_of_a_huge_page": (
        "x86",
        """{"system": {"memcg": 2134016}, "tasks": [{"ops": [
            {"op": "mmap", "length": "2M", "addr": "0x100200000", "id": "p"},
            {"op": "madvise", "addr": "p", "length": "2M", "advice": "hugepage"},
            {"op": "write", "addr": "p", "value": 1},
            {"op": "munmap", "addr": "p", "length": "1M"},
            {"op": "fork", "child": "c", "wait": true},
            {"op": "mmap", "length": "64K", "addr": "0x110000000", "id": "q"},
            {"op": "touch", "addr": "q", "length": "64K"}]},
            {"name": "c", "start": "fork", "ops": [{"op": "exit"}]}]}""",
    ),
    # To find an anon_vma at a wiping fork, the child's VMA is locked like its parent's neighbour.
    "what_is_locked_and_wiped_at_fork_may_merge": (
        "x86",
        """{"tasks": [{"ops": [
            {"op": "mmap", "length": "64K", "addr": "0x7a0000000000", "id": "p",
             "flags": ["private", "anonymous", "locked"]},
            {"op": "madvise", "addr": "p", "length": "64K", "advice": "wipeonfork"},
            {"op": "mprotect", "addr": "p+32K", "length": "32K", "prot": "none"},
            {"op": "fork", "child": "c", "wait": true}]},
            {"name": "c", "start": "fork", "ops": [
            {"op": "mprotect", "addr": "p+32K", "length": "4K", "prot": "rw"}]}]}""",
    ),
    "a_hugetlb_mapping_at_map_failed_is_not_aligned": (
        "x86",
        """{"tasks": [{"ops": [{"op": "mmap", "length": "1G", "prot": "none",
            "flags": ["shared", "anonymous", "fixed", "hugetlb"],
            "addr": "0xffffffffffffffff"}]}]}""",
    ),
}


@engines
@pytest.mark.parametrize("name", CASES)
def test_engines_agree_where_they_once_did_not(engine: str, name: str) -> None:
    arch, text = CASES[name]
    page_size = spfemu.arch(arch).page_size
    head = f'{{"format": "spfemu-program/1", "page_size": {page_size}, '
    program = with_maps(Program.loads(head + text[1:]))
    differential(program, engines=("reference", engine), arches=(arch,))
