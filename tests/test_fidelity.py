"""docs/fidelity.md says of each writer, step and catalogue entry of v12 how it is here."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from spfemu.engines import core_list

TEXT: Final = (Path(__file__).parents[1] / "docs/fidelity.md").read_text()
VERDICT: Final = re.compile(
    r"same($|[ ,;:] ?\S)|simplified: \S.*\(lost: \S.*\)$|not modelled: \S.*"
)
"""The same; or simplified, and what is lost; or not modelled, and why."""

# The first column of SPF_V12's table 6.1, in its order and without backticks.
TABLE_6_1: Final = (
    "__vma_adjust (all merges and splits)",
    "… removal of next",
    "… remove_next == 3 (vma and next swapped)",
    "… error from anon_vma_clone",
    "… insert (second half of a split)",
    "__vma_merge(…, keep_locked) / copy_vma",
    "copy_vma, no merge",
    "move_vma (mremap)",
    "unmap_page_range (munmap, MADV_DONTNEED, truncation, OOM reaper, exit)",
    "free_pgtables",
    "detach in munmap",
    "mprotect_fixup",
    "madvise_behavior (flag advices)",
    "madvise_free_page_range (MADV_FREE)",
    "mlock_fixup / munlock_vma_pages_range",
    "mmap_region, tail",
    "expand_upwards / expand_downwards (stack)",
    "vma_replace_policy (mbind)",
    "mpol_rebind_mm (cpuset)",
    "change_prot_numa (NUMA scan, lazy mbind)",
    "clear_refs soft-dirty",
    "userfaultfd register / unregister / release",
    "dup_userfaultfd",
    "dup_mmap (fork)",
    "collapse_huge_page",
    "exec (__bprm_mm_init, shift_arg_pages)",
    "__install_special_mapping, do_brk_flags",
)
# What 6.2 says needs no bracket, and who else changes PTEs.
OTHERS: Final = (
    "split of a huge PMD",
    "hugetlb: unmap_hugepage_range, copy_hugetlb_page_range, hugetlb_fault",
    "reclaim, try_to_unmap",
    "page migration",
    "truncation (unmap_mapping_range)",
    "OOM reaper",
    "KSM merging",
    "uprobes",
    "swapoff",
    "UFFDIO_COPY",
    "GUP",
)
STEPS: Final = (
    *(f"W{number}" for number in range(1, 4)),
    *(f"H{number}" for number in range(1, 24)),
)
ENTRIES: Final = tuple(
    f"{kind}{number + 1}"
    for kind, last in (("A", 32), ("B", 12), ("C", 9))
    for number in range(last)
)


def rows(title: str, text: str = TEXT) -> list[tuple[str, str]]:
    """The first and last cell of each row of a section's table."""
    section = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:2] == "| "]
    return [(cells[0], cells[-1]) for cells in lines[1:]]


def named(title: str, text: str = TEXT) -> dict[str, str]:
    """What each name of a table is said to be; a row may have several, with commas."""
    found = [(name, here) for names, here in rows(title, text) for name in names.split(", ")]
    assert Counter(name for name, _ in found).most_common(1)[0][1] == 1
    return dict(found)


def writers(text: str = TEXT) -> dict[str, str]:
    """What each writer is said to be."""
    found = [(name.replace("`", ""), here) for name, here in rows("Writers", text)]
    assert len(dict(found)) == len(found)
    return dict(found)


def unsaid(said: dict[str, str], names: tuple[str, ...]) -> list[str]:
    """Which names have no row, or one that has none of the three verdicts."""
    return [name for name in names if not VERDICT.match(said.get(name, ""))]


def test_every_writer_has_a_verdict() -> None:
    said = writers()
    assert unsaid(said, TABLE_6_1 + OTHERS) == []
    assert set(said) == set(TABLE_6_1 + OTHERS)


def test_every_step_of_the_handler_has_a_verdict() -> None:
    said = named("The handler's steps")
    assert unsaid(said, STEPS) == []
    assert tuple(name for name in said if name[1:].isdigit()) == STEPS


def test_every_entry_of_the_catalogue_has_a_verdict() -> None:
    said = named("Catalogue")
    assert unsaid(said, ENTRIES) == []
    assert tuple(name for name in said if name[0] in "ABC") == ENTRIES


def test_mutants_and_variants_are_said_to_be_some() -> None:
    said = named("Catalogue")
    entries = [mutant["entry"] for mutant in core_list("mutants")]
    # M: barriers of section 1.4.
    mutants = {re.sub(r"[a-z]$", "", entry) for entry in entries if not entry.startswith("M")}
    assert {name for name, here in said.items() if here.startswith("same, mutant")} == mutants
    variants = {variant["entry"] for variant in core_list("variants")}
    found = {name for name, here in said.items() if re.match(r"(same, )?variant", here)}
    assert found == variants


@pytest.mark.parametrize("name", ["dup_mmap (fork)", "H7", "A21", "B8", "C9"])
def test_a_row_that_goes_or_says_nothing_is_seen(name: str) -> None:
    everything = TABLE_6_1 + OTHERS + STEPS + ENTRIES
    line = re.search(rf"^\| {re.escape(name)} \| .*\n", TEXT, re.MULTILINE)
    assert line is not None
    silent = re.sub(r"[^|]*\|$", " ? |", line[0].strip()) + "\n"
    for other in ("", silent):
        text = TEXT.replace(line[0], other)
        said = writers(text) | named("The handler's steps", text) | named("Catalogue", text)
        assert unsaid(said, everything) == [name]


@pytest.mark.parametrize(
    "here", ["", "sameish", "simplified", "simplified: fewer pages", "not modelled", "later"]
)
def test_what_is_no_verdict(here: str) -> None:
    assert not VERDICT.match(here)
