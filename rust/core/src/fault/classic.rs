//! `handle_mm_fault()`: the classic fault, under `mmap_sem` held for reading.
//!
//! Source: `mm/memory.c`, v5.1; cached VMA fields: P13.

use super::Vmf;
use crate::design::Design;
use crate::events::Event;
use crate::mm::{FaultFlags, Kernel, MmRef, PmdVal, Pte, Vaddr, Variant, VmFault, VmFlags, VmaRef};
use crate::platform::Platform;
use crate::sync::spinlock::{spin_lock, spin_unlock};

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `arch_vma_access_permitted()`: whether the VMA's protection key, which execute-only memory
    /// has, permits the access; instructions are fetched whatever it says, and a fault for somebody
    /// else's address space (`REMOTE`) does not go by the keys of who makes it. (Whose `mm` is not
    /// the VMA's says so: `vma_is_foreign()` has nobody to find.)
    #[inline(always)]
    pub(super) fn arch_vma_access_permitted(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        flags: FaultFlags,
    ) -> bool {
        !self.config.arch.has_execute_only_pkey()
            || flags.has(FaultFlags::INSTRUCTION | FaultFlags::REMOTE)
            || !self.has_pkey(vma.vm_flags().read(cpu))
    }

    /// `handle_mm_fault()` and `__handle_mm_fault()`.
    pub(super) fn handle_mm_fault<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        vma: VmaRef<'k, P>,
        address: Vaddr,
        flags: FaultFlags,
    ) -> VmFault {
        let _step = cpu.step("handle_mm_fault");
        self.count(cpu, Event::Pgfault);
        if !self.arch_vma_access_permitted(cpu, vma, flags) {
            return VmFault::SIGSEGV;
        }
        self.handle_uncounted_fault(cpu, mm, vma, address, flags)
    }

    /// The same without `count_vm_event(PGFAULT)` and the protection key: how get_user_pages(), which
    /// has asked for that, faults in hugetlb pages.
    pub(super) fn handle_uncounted_fault<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        vma: VmaRef<'k, P>,
        address: Vaddr,
        flags: FaultFlags,
    ) -> VmFault {
        let address = Vaddr(address.0 & !(self.page_size() - 1));
        let Some(pmd) = self.pmd_alloc(cpu, mm, address) else { return VmFault::OOM };
        let mut vmf = Vmf {
            vma,
            mm,
            flags,
            address,
            pgoff: self.stable_page_index(cpu, mm, vma, address),
            vma_flags: vma.vm_flags().read(cpu),
            vma_page_prot: vma.vm_page_prot().read(cpu),
            sequence: 0,
            pmd,
            orig_pmd: PmdVal::NONE,
            pte: None,
            orig_pte: Pte::EMPTY,
            ptl: None,
        };
        if vmf.vma_flags.has(VmFlags::HUGETLB) {
            return self.hugetlb_fault(cpu, &mut vmf);
        }
        if self.has_transparent_hugepage()
            && let Some(result) = self.huge_pmd_fault(cpu, &mut vmf)
        {
            return result;
        }
        self.handle_pte_fault(cpu, &mut vmf)
    }

    /// `linear_page_index()` under `mmap_sem`. C4: a VMA that grows may do so beside this fault,
    /// and 5.1 reads its start and offset all the same; cured, as they belong together.
    pub(super) fn stable_page_index(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        address: Vaddr,
    ) -> u64 {
        if self.v12(Variant::C4) || !vma.vm_flags().read(cpu).has(VmFlags::GROWSDOWN) {
            return self.linear_page_index(cpu, vma, address);
        }
        spin_lock(cpu, mm.page_table_lock());
        let index = self.linear_page_index(cpu, vma, address);
        spin_unlock(cpu, mm.page_table_lock());
        index
    }
}
