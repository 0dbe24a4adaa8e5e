"""The arch profiles as the tests know them, so that the model is tested without the core."""

from __future__ import annotations

from spfemu.profiles import Arch, Level


def levels(page_shift: int, *names_bits: tuple[str, int]) -> tuple[Level, ...]:
    shift = page_shift + sum(bits for _, bits in names_bits)
    found = []
    for name, bits in names_bits:
        shift -= bits
        found.append(Level(name, shift, 1 << bits))
    return tuple(found)


X86_END = (1 << 47) - 4096
X86 = Arch(
    "x86",
    "x86",
    12,
    levels(12, ("pgd", 9), ("pud", 9), ("pmd", 9), ("pte", 9)),
    task_size=X86_END,
    mmap_base=X86_END - (128 << 20),
)
X86_5LEVEL = Arch(
    "x86-5level",
    "x86",
    12,
    levels(12, ("pgd", 9), ("p4d", 9), ("pud", 9), ("pmd", 9), ("pte", 9)),
    task_size=X86_END,
    mmap_base=X86_END - (128 << 20),
)
POWERPC = Arch(
    "powerpc",
    "powerpc",
    16,
    levels(16, ("pgd", 8), ("pud", 10), ("pmd", 10), ("pte", 8)),
    task_size=1 << 47,
    mmap_base=(1 << 47) - (128 << 20),
)
POWERPC_4K = Arch(
    "powerpc-4k",
    "powerpc",
    12,
    levels(12, ("pgd", 9), ("pud", 9), ("pmd", 7), ("pte", 9)),
    task_size=1 << 46,
    mmap_base=(1 << 46) - (128 << 20),
)
ARM64 = Arch(
    "arm64",
    "arm64",
    12,
    levels(12, ("pgd", 9), ("pud", 9), ("pmd", 9), ("pte", 9)),
    task_size=1 << 48,
    mmap_base=(1 << 48) - (1 << 30),
    exec_only=True,
)
ARM64_64K = Arch(
    "arm64-64k",
    "arm64",
    16,
    levels(16, ("pgd", 6), ("pmd", 13), ("pte", 13)),
    task_size=1 << 48,
    mmap_base=(1 << 48) - (1 << 30),
    exec_only=True,
)
ARCHES = (X86, X86_5LEVEL, POWERPC, POWERPC_4K, ARM64, ARM64_64K)
