"""What a fault carries with it: `struct vm_fault`, and the results of its handlers."""

from __future__ import annotations

from dataclasses import dataclass, field

from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.model import Mempolicy, Protection, Vma
from spfemu.reference.page_prot import vm_page_prot

READ, WRITE, EXECUTE = 0, 1, 2
"""The kinds of access, as the array form numbers them."""

# vm_fault_t. Source: include/linux/mm_types.h@5.1.
VM_FAULT_OOM = 0x01
VM_FAULT_SIGBUS = 0x02
VM_FAULT_MAJOR = 0x04
VM_FAULT_WRITE = 0x08
VM_FAULT_SIGSEGV = 0x40
VM_FAULT_NOPAGE = 0x100
VM_FAULT_RETRY = 0x400
VM_FAULT_ERROR = VM_FAULT_OOM | VM_FAULT_SIGBUS | VM_FAULT_SIGSEGV


@dataclass(eq=False)
class Fault:
    """A fault: what the hardware told, and (from `vma` on) what `struct vm_fault` keeps."""

    kernel: Kernel
    mm: Mm
    address: int
    kind: int
    user: bool
    present: bool
    """The PTE was there and forbade the access: X86_PF_PROT, a permission fault on arm64."""
    task_policy: Mempolicy | None = None
    speculative: bool = False
    allow_retry: bool = False
    """FAULT_FLAG_ALLOW_RETRY: mmap_sem may be dropped while a page is read."""
    vma: Vma = field(init=False)
    flags: int = field(init=False)
    page_prot: Protection = field(init=False)

    @property
    def write(self) -> bool:
        """FAULT_FLAG_WRITE."""
        return self.kind == WRITE

    def cache_vma(self, vma: Vma) -> None:
        """Fills vma, vma_flags and vma_page_prot: one snapshot for the whole fault (H5)."""
        self.vma = vma
        self.flags = vma.flags
        self.page_prot = vm_page_prot(self.mm, vma)
