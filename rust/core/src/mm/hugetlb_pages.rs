//! What munmap, mprotect and fork do with the pages of hugetlb mappings.
//!
//! Source: `mm/hugetlb.c`, v5.1. Its pages are leaves, as transparent huge pages are, but nothing
//! is deposited with them and nothing splits them.

use super::copy::is_cow_mapping;
use super::gather::MmuGather;
use super::hugetlb::HPAGE_RESV_UNMAPPED;
use super::kernel::Kernel;
use super::objects::{MmRef, PageRef, VmaRef};
use super::page::PG_HUGETLB;
use super::pgtable::MappedPmd;
use super::pmd::{Pmd, PmdVal};
use super::types::{Errno, Pte, Vaddr};
use crate::design::Design;
use crate::events::Cost;
use crate::platform::{Ordering, Platform};
use crate::sync::spinlock::{spin_lock, spin_unlock};

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `__unmap_hugepage_range()`. Not bracketed (P09 brackets only `unmap_page_range`).
    pub(super) fn unmap_hugepage_range(
        &self,
        cpu: &P,
        tlb: &mut MmuGather<'_, P>,
        vma: VmaRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
    ) {
        let _step = cpu.step("unmap_hugepage_range");
        let file = self.i_mmap_lock_write(cpu, vma).expect("hugetlb has files only");
        let mut address = start;
        while let Some(MappedPmd { pmd, to, .. }) = self.next_pmd(cpu, tlb.mm(), address, end) {
            address = to;
            self.unmap_hugepage(cpu, tlb, pmd, |_| true);
        }
        file.up_write(cpu);
    }

    /// The same for the page at `address` if it is `lost`: its VMA is told so.
    pub(crate) fn unmap_lost_hugepage(
        &self,
        cpu: &P,
        tlb: &mut MmuGather<'_, P>,
        vma: VmaRef<'_, P>,
        address: Vaddr,
        lost: PageRef<'_, P>,
    ) {
        let Some(pmd) = self.walk_pmd(cpu, tlb.mm(), address) else { return };
        self.unmap_hugepage(cpu, tlb, pmd, |page| {
            if page == lost {
                let flags = vma.resv_flags().read(cpu);
                vma.resv_flags().write(cpu, flags | HPAGE_RESV_UNMAPPED);
            }
            page == lost
        });
    }

    fn unmap_hugepage(
        &self,
        cpu: &P,
        tlb: &mut MmuGather<'_, P>,
        pmd: Pmd<'_, P>,
        is_meant: impl FnOnce(PageRef<'_, P>) -> bool,
    ) {
        self.pmd_lock(cpu, pmd);
        let value = pmd.read(cpu);
        let page = value.is_huge().then(|| self.page(cpu, self.leaf_of(value).pfn()));
        if let Some(page) = page.filter(|&page| is_meant(page)) {
            cpu.charge(Cost::ZapPage, 1);
            pmd.entry().swap(cpu, PmdVal::NONE, Ordering::Relaxed);
            tlb.remove_tlb_entry();
            self.page_remove_huge_rmap(cpu, page);
            tlb.remove_page(page.ptr());
        }
        spin_unlock(cpu, pmd.ptl());
    }

    /// `hugetlb_change_protection()`. Flushes.
    pub(super) fn hugetlb_change_protection(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
        prot: Pte,
    ) {
        let mm = self.mms.get(cpu, vma.vm_mm().read(cpu));
        self.invalidate_range(cpu, mm, || {
            let file = self.i_mmap_lock_write(cpu, vma).expect("hugetlb has files only");
            let mut address = start;
            while let Some(MappedPmd { pmd, to, .. }) = self.next_pmd(cpu, mm, address, end) {
                address = to;
                self.pmd_lock(cpu, pmd);
                if pmd.read(cpu).is_huge() {
                    // huge_ptep_modify_prot_start: no young or dirty bit of the hardware may be lost.
                    let leaf = self.leaf_of(pmd.entry().swap(cpu, PmdVal::NONE, Ordering::Relaxed));
                    pmd.set(cpu, self.huge_pmd(leaf.modify(prot)));
                }
                spin_unlock(cpu, pmd.ptl());
            }
            self.flush_tlb_mm(cpu, mm);
            file.up_write(cpu);
        });
    }

    /// `copy_hugetlb_page_range()`: the child maps the same pages; private ones both may only
    /// read. DEVIATION: no page tables are shared, as `huge_pmd_share()` does for a GiB.
    pub(super) fn copy_hugetlb_page_range(
        &self,
        cpu: &P,
        dst_mm: MmRef<'_, P>,
        src_mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
    ) -> Result<(), Errno> {
        let flags = vma.vm_flags().read(cpu);
        let cow = is_cow_mapping(flags);
        let (mut address, end) = (vma.vm_start().read(cpu), vma.vm_end().read(cpu));
        while address < end {
            // huge_pte_offset() finds an entry that is none, too: the child gets the table above.
            let (found, next) = self.walk_pmd_until(cpu, src_mm, address, end);
            let Ok(src) = found else {
                address = next;
                continue;
            };
            let dst = self.pmd_alloc(cpu, dst_mm, address).ok_or(Errno::Enomem)?;
            address = self.pmd_addr_end(address, end);
            self.pmd_lock(cpu, dst);
            // Nested: nobody else can reach the child's table yet.
            spin_lock(cpu, src.ptl());
            if src.read(cpu).is_huge() {
                if cow {
                    self.pmdp_clear(cpu, src, Pte::WRITE);
                }
                let value = src.read(cpu);
                let page = self.page(cpu, self.leaf_of(value).pfn());
                self.get_page(cpu, page);
                self.page_dup_huge_rmap(cpu, page);
                dst.set(cpu, value);
            }
            spin_unlock(cpu, src.ptl());
            spin_unlock(cpu, dst.ptl());
        }
        Ok(())
    }

    /// Whether a leaf, at rest, is of hugetlb.
    pub(super) fn is_hugetlb_leaf(&self, value: PmdVal<P>) -> bool {
        let page = self.pages.peek(self.leaf_of(value).pfn());
        page.is_some_and(|page| page.flags().peek() & PG_HUGETLB != 0)
    }
}
