"""The page fault: what the hardware reports, the arch entry, both handlers.

Read from the top: `access` is the processor, `do_page_fault` the entry of the three arches,
`handle_speculative_fault` the series, `handle_classic_fault` what was there before; both go on in
`pte_faults`. The numbers W, H and 5.x are those of SPF_V12, the description of series v12 that the
model is made from (sections 3 and 5).

Nothing runs beside a fault here, so a sequence count never changes under it, `pte_map_lock` and
`pte_spinlock` always succeed, and a PTE is always the one that was read. Those steps are named in
comments and have no code.
"""

from __future__ import annotations

import errno
import signal
from typing import NamedTuple

from spfemu.reference.huge_pages import huge_pmd_fault
from spfemu.reference.hugetlb import hugetlb_fault, is_hugetlb
from spfemu.reference.kernel import (
    FAULTS,
    MAJOR_FAULTS,
    MINOR_FAULTS,
    PGFAULT,
    SPECULATIVE_PGFAULT,
    SPF,
    SPF_VMA_ACCESS,
    SPF_VMA_CHANGED,
    SPF_VMA_NOTSUP,
    Kernel,
)
from spfemu.reference.kernel_address import SEGV_MAPERR, exception, is_users
from spfemu.reference.mm import Mm
from spfemu.reference.model import (
    VM_EXEC,
    VM_GROWSDOWN,
    VM_READ,
    VM_UFFD_MISSING,
    VM_WRITE,
    Mempolicy,
    OutOfFramesError,
    Pte,
)
from spfemu.reference.numa import is_interleaved
from spfemu.reference.protection_keys import has_execute_only_pkey, vma_access_permitted
from spfemu.reference.pte_faults import handle_pte_fault
from spfemu.reference.stack import expand_stack
from spfemu.reference.vm_fault import (
    EXECUTE,
    VM_FAULT_ERROR,
    VM_FAULT_MAJOR,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    VM_FAULT_SIGSEGV,
    WRITE,
    Fault,
)

HANDLED_NONE, HANDLED_SPF, HANDLED_CLASSIC = 0, 1, 2
"""Who handled a fault, as the outcomes number them."""

SEGV_ACCERR, SEGV_PKUERR, BUS_ADRERR = 2, 4, 2
"""Signal codes. Source: include/uapi/asm-generic/siginfo.h@5.1."""

LIVELOCK_FAULTS = 1000
"""An access that has faulted this often without succeeding is given up."""


class AccessResult(NamedTuple):
    """What came of an access: a value, or a signal, or (kernel mode) an error number."""

    value: int = 0
    handled: int = HANDLED_NONE
    signal: int = 0
    si_code: int = 0
    errno: int = 0
    livelock: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether the load, store or fetch took place."""
        return not (self.signal or self.errno or self.livelock)


class Verdict(NamedTuple):
    """How one fault ended: who handled it, and the signal if the access may not go on."""

    handled: int
    signal: int = 0
    si_code: int = 0


# --- the processor ---------------------------------------------------------------------------


def access(
    kernel: Kernel,
    mm: Mm,
    address: int,
    kind: int,
    *,
    user: bool = True,
    value: int = 0,
    task_policy: Mempolicy | None = None,
) -> AccessResult:
    """Loads, stores or fetches one word, faulting until that works or a signal comes.

    **Source:** ours. The walk sets the accessed and dirty bits on every arch; there is no TLB,
    since with one task at a time nobody can meet a stale entry. Beyond user space the kernel does
    not try (access_ok), and a user does not always come as far as a page fault.
    """
    if not is_users(kernel.arch, address):
        if not user:
            return AccessResult(errno=errno.EFAULT)
        refused = exception(kernel.arch, address)
        if refused is not None:
            return AccessResult(0, HANDLED_NONE, *refused)
    handled = HANDLED_NONE
    for number in range(LIVELOCK_FAULTS):
        pte = mm.page_tables.pte(address)
        if isinstance(pte, Pte) and pte.protection[kind] and not pte.hinted:
            return AccessResult(_use(mm, address, pte, kind, value), handled)
        present = isinstance(pte, Pte) and pte.hardware_present
        counted = tuple(kernel.counters)
        verdict = do_page_fault(Fault(kernel, mm, address, kind, user, present, task_policy))
        handled = verdict.handled
        if verdict.signal and not user:  # the exception table makes -EFAULT of it
            return AccessResult(handled=handled, errno=errno.EFAULT)
        if verdict.signal:
            return AccessResult(0, handled, verdict.signal, verdict.si_code)
        if number > 0 and mm.page_tables.pte(address) == pte:
            # It did not change anything, and neither will the others.
            for event, before in enumerate(counted):
                by_one = kernel.counters[event] - before
                kernel.counters[event] += by_one * (LIVELOCK_FAULTS - number - 1)
            break
    return AccessResult(handled=handled, livelock=True)


def _use(mm: Mm, address: int, pte: Pte, kind: int, value: int) -> int:
    """The access itself, once the PTE allows it."""
    mm.page_tables.mark_used(address, dirty=kind == WRITE)
    if kind == WRITE:
        pte.page.value = value
    return pte.page.value


# --- the arch entry --------------------------------------------------------------------------


def do_page_fault(fault: Fault) -> Verdict:
    """Handles one hardware fault: counts it, tries speculation, else takes the classic path.

    **Source:** do_user_addr_fault() x86, do_page_fault() arm64, __do_page_fault() powerpc, @5.1
    with patches 28-30 of the series (SPF_V12 section 7).
    """
    kernel = fault.kernel
    kernel.count(FAULTS)
    is_key_fault = _is_key_fault(fault)
    if is_key_fault and kernel.arch.family == "powerpc":
        return Verdict(HANDLED_CLASSIC, signal.SIGSEGV, SEGV_PKUERR)
    if kernel.handler == "spf" and not is_key_fault:
        result = handle_speculative_fault(fault)
        if _accepts(kernel, result):
            kernel.count(SPF)
            return _done_speculative(kernel, result)
    return handle_classic_fault(fault)


def _is_key_fault(fault: Fault) -> bool:
    """X86_PF_PK, DSISR_KEYFAULT: the PTE is there, and its protection key forbids the access."""
    if not has_execute_only_pkey(fault.kernel.arch) or not fault.present or fault.kind == EXECUTE:
        return False
    pte = fault.mm.page_tables.pte(fault.address)
    return isinstance(pte, Pte) and not pte.protection.read


def _accepts(kernel: Kernel, result: int) -> bool:
    """Whether the arch takes a speculative result as final (SPF_V12 7.2-7.4).

    powerpc asks for protection keys to be compiled in, as v12 wrote it (C8), and even then repeats
    a SIGSEGV classically, since it cannot tell a key mismatch without the VMA. With C3 fixed all
    repeat it, for the sake of its code.
    """
    if result == VM_FAULT_RETRY or (result == VM_FAULT_SIGSEGV and kernel.is_fixed("C3")):
        return False
    if kernel.arch.family == "powerpc":
        return result != VM_FAULT_SIGSEGV if kernel.mem_keys else kernel.is_fixed("C8")
    return True


def _done_speculative(kernel: Kernel, result: int) -> Verdict:
    """Ends a fault that speculation settled. It is always minor (SPF_V12 7.2, 8).

    The VMA is not at hand to look at, so SIGSEGV comes with the generic code MAPERR (7.5; C3).
    """
    if result & VM_FAULT_ERROR:
        return _mm_fault_error(result, HANDLED_SPF)
    kernel.count(MINOR_FAULTS)
    return Verdict(HANDLED_SPF)


def _mm_fault_error(result: int, handled: int) -> Verdict:
    """Turns an error result into the signal. Out of memory, the OOM killer takes the task."""
    if result & VM_FAULT_OOM:
        return Verdict(handled, signal.SIGKILL)
    if result & VM_FAULT_SIGBUS:
        return Verdict(handled, signal.SIGBUS, BUS_ADRERR)
    return Verdict(handled, signal.SIGSEGV, SEGV_MAPERR)


# --- the speculative handler -----------------------------------------------------------------


def handle_speculative_fault(fault: Fault) -> int:
    """Tries to handle a fault without mmap_sem; VM_FAULT_RETRY says "do it the classic way".

    **Source:** patches 22, 24, 27 and 31; SPF_V12 3.1 and 3.2.
    """
    if not fault.kernel.sysctl["vm.speculative_page_fault"]:  # W1
        return VM_FAULT_RETRY
    if not fault.user:  # W2
        return VM_FAULT_RETRY
    if fault.mm.users == 1:  # W3
        return VM_FAULT_RETRY
    return _handle_speculative_fault(fault)


def _handle_speculative_fault(fault: Fault) -> int:
    """The checks H1 to H19 in the order of v12, then the shared part of the fault."""
    kernel = fault.kernel
    vma = fault.mm.find_vma(fault.address)  # find_vma_rcu(), put again at the end
    if vma is None:  # H1: the one abort here without an event
        return VM_FAULT_RETRY
    # H2: the sequence count is even, no writer runs.
    if vma.vm_ops is not None:  # H3: it has a `fault` operation
        return _abort(kernel, SPF_VMA_NOTSUP)
    if vma.anon_vma is None:  # H4: v12 says notsup here, not noanon
        return _abort(kernel, SPF_VMA_NOTSUP)
    fault.cache_vma(vma)  # H5
    if fault.flags & (VM_UFFD_MISSING | VM_GROWSDOWN):  # H6, H7: before the bounds are looked at
        return _abort(kernel, SPF_VMA_NOTSUP)
    if not vma.start <= fault.address < vma.end:  # H8: also for an address in a hole
        return _abort(kernel, SPF_VMA_CHANGED)
    permitted = vma_access_permitted(kernel.arch, vma, fault.kind)  # H9
    if not permitted or _speculative_access_error(fault):  # H10
        kernel.count(SPF_VMA_ACCESS)
        return VM_FAULT_SIGSEGV
    if kernel.numa and is_interleaved(vma, fault.task_policy):  # H11
        return _abort(kernel, SPF_VMA_NOTSUP)
    if fault.mm.page_tables.table(fault.address) is None:  # H12-H16: none, or a huge page
        return _abort(kernel, SPF_VMA_NOTSUP)
    # H17-H19: the PTE is read and the sequence has not changed.
    fault.speculative = True
    result = handle_pte_fault(fault)  # H20
    if result != VM_FAULT_RETRY:  # H22
        kernel.count(SPECULATIVE_PGFAULT)
    return result


def _abort(kernel: Kernel, event: int) -> int:
    kernel.count(event)
    return VM_FAULT_RETRY


def _speculative_access_error(fault: Fault) -> bool:
    """H10. An instruction fetch passes on any permission at all: that is C2."""
    if fault.write:
        return not fault.flags & VM_WRITE
    return not fault.flags & (VM_READ | VM_EXEC | VM_WRITE)


# --- the classic handler ---------------------------------------------------------------------


def handle_classic_fault(fault: Fault) -> Verdict:
    """Handles a fault under mmap_sem.

    A handler that has to wait for a device drops mmap_sem and says RETRY, once: the next round
    begins with the VMA, and waits with mmap_sem held. The fault is major if any round was.

    **Source:** the second half of the arch handlers named at `do_page_fault`, @5.1.
    """
    fault.speculative = False
    major = 0
    for allow_retry in (True, False):  # a fault that drops mmap_sem begins again, once
        fault.allow_retry = allow_retry
        vma = fault.mm.find_vma(fault.address)
        if vma is None or (
            fault.address < vma.start
            and not expand_stack(fault.kernel, fault.mm, vma, fault.address)
        ):
            return Verdict(HANDLED_CLASSIC, signal.SIGSEGV, SEGV_MAPERR)
        fault.cache_vma(vma)
        by_key = not vma_access_permitted(fault.kernel.arch, vma, fault.kind)
        if fault.kernel.arch.family == "x86" and (by_key or _is_key_fault(fault)):
            return Verdict(HANDLED_CLASSIC, signal.SIGSEGV, SEGV_PKUERR)
        if _access_error(fault):
            return Verdict(HANDLED_CLASSIC, signal.SIGSEGV, SEGV_ACCERR)
        result = handle_mm_fault(fault)
        if by_key and result & VM_FAULT_SIGSEGV:  # powerpc
            return Verdict(HANDLED_CLASSIC, signal.SIGSEGV, SEGV_PKUERR)
        major |= result & VM_FAULT_MAJOR
        if not result & VM_FAULT_RETRY:
            break
    if result & VM_FAULT_ERROR:
        return _mm_fault_error(result, HANDLED_CLASSIC)
    fault.kernel.count(MAJOR_FAULTS if major else MINOR_FAULTS)
    return Verdict(HANDLED_CLASSIC)


def _access_error(fault: Fault) -> bool:
    """Whether the VMA forbids the access, as each arch asks.

    x86 does not ask for VM_EXEC: a fetch from an absent page counts as a read, and is refused only
    when it faults again on the page that is then present. arm64 and powerpc refuse it at once.
    A mapping that is only executable can be read on x86 and powerpc, where no key forbids it, not
    on arm64.

    **Source:** access_error() x86 and powerpc (with CPU_FTR_NOEXECUTE), __do_page_fault() arm64.
    """
    if fault.write:
        return not fault.flags & VM_WRITE
    readable = VM_READ | VM_WRITE | VM_EXEC
    if fault.kernel.arch.family == "arm64" and fault.kernel.arch.exec_only:
        readable = VM_READ | VM_WRITE
    if fault.kernel.arch.family == "x86":
        return fault.present or not fault.flags & readable
    return not fault.flags & (VM_EXEC if fault.kind == EXECUTE else readable)


def handle_mm_fault(fault: Fault) -> int:
    """Counts vmstat pgfault, makes the upper page tables, handles the fault.

    **Source:** handle_mm_fault() and __handle_mm_fault(), mm/memory.c@5.1.
    """
    fault.kernel.count(PGFAULT)
    if not vma_access_permitted(fault.kernel.arch, fault.vma, fault.kind):
        return VM_FAULT_SIGSEGV
    if is_hugetlb(fault.vma):
        return hugetlb_fault(fault)
    try:
        fault.mm.page_tables.allocate_upper(fault.address)
        result = huge_pmd_fault(fault)
    except OutOfFramesError:
        return VM_FAULT_OOM
    return handle_pte_fault(fault) if result is None else result
