"""Protection keys of memory, which execute-only memory has on x86 and powerpc, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from spfemu.reference.model import VM_ACCESS, VM_EXEC, Vma
from spfemu.reference.vm_fault import EXECUTE

if TYPE_CHECKING:
    from spfemu.profiles import Arch
    from spfemu.program import System


def with_keys(arch: Arch, system: System) -> Arch:
    """The machine with a kernel that is configured so: whether protection keys are used."""
    has = arch.exec_only
    if arch.family == "x86":
        has = system.config.get("X86_INTEL_MEMORY_PROTECTION_KEYS", has)
    elif arch.family == "powerpc":
        has = has and system.has("PPC_MEM_KEYS", arch.family)
    return replace(arch, exec_only=has)


def has_execute_only_pkey(arch: Arch) -> bool:
    """Whether a key forbids data accesses to execute-only memory.

    **Source:** execute_only_pkey(), arch/x86/mm/pkeys.c and arch/powerpc/mm/pkeys.c@5.1.
    """
    return arch.exec_only and arch.family != "arm64"


def has_pkey(arch: Arch, vma: Vma) -> bool:
    """Whether a VMA has a key. (The kernel has its number among the flags.)"""
    return has_execute_only_pkey(arch) and vma.flags & VM_ACCESS == VM_EXEC


def vma_access_permitted(arch: Arch, vma: Vma, kind: int) -> bool:
    """Whether the key of the VMA permits an access; fetches it never forbids.

    **Source:** arch_vma_access_permitted()@5.1.
    """
    return kind == EXECUTE or not has_pkey(arch, vma)
