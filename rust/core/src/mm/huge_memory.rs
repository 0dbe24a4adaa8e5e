//! Transparent huge pages: where they are allowed, and what the writers do with their PMDs.
//!
//! Source: `mm/huge_memory.c`, `mm/pgtable-generic.c`, v5.1. `fault/huge.rs` has the faults. With
//! each leaf a table of PTEs is deposited, so that splitting it never fails for want of memory.

use super::kernel::Kernel;
use super::objects::{MmRef, PageRef, TableRef, VmaRef};
use super::page::ZERO_PFN;
use super::pmd::{Pmd, PmdVal};
use super::types::{Pte, Vaddr, VmFlags};
use super::vma::is_vma_temporary_stack;
use crate::design::Design;
use crate::platform::{Ordering, Platform, Ptr};
use crate::sync::spinlock::{spin_lock, spin_unlock};

/// `/sys/kernel/mm/transparent_hugepage/enabled`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thp {
    Never,
    /// Where `MADV_HUGEPAGE` was given.
    Madvise,
    Always,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `has_transparent_hugepage()`, with the configuration: whether this system can have any.
    #[inline(always)]
    pub(crate) fn has_transparent_hugepage(&self) -> bool {
        self.thp_possible
    }

    /// `__transparent_hugepage_enabled()`, for a VMA with these flags.
    #[inline]
    pub(crate) fn transparent_hugepage_enabled(&self, flags: VmFlags) -> bool {
        self.has_transparent_hugepage()
            && !flags.has(VmFlags::NOHUGEPAGE)
            && !is_vma_temporary_stack(flags)
            && match self.config.system.thp {
                Thp::Never => false,
                Thp::Madvise => flags.has(VmFlags::HUGEPAGE),
                Thp::Always => true,
            }
    }

    /// The start of the huge page that `address` would be in.
    #[inline(always)]
    pub(crate) fn hpage_pmd_start(&self, address: Vaddr) -> Vaddr {
        Vaddr(address.0 & !(self.pmd_size() - 1))
    }

    /// `transhuge_vma_suitable()`: whether the huge page around `address` lies within the VMA.
    pub(crate) fn transhuge_vma_suitable(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        address: Vaddr,
    ) -> bool {
        let haddr = self.hpage_pmd_start(address);
        haddr >= vma.vm_start().read(cpu) && haddr.offset(self.pmd_size()) <= vma.vm_end().read(cpu)
    }

    /// `is_zero_pfn()`: whether the frame is the page of zeroes, or part of the huge one.
    pub(crate) fn is_zero_pfn(&self, pfn: u32) -> bool {
        let huge = self.huge_zero_page.peek() as u32;
        pfn == ZERO_PFN || (huge != 0 && pfn & !(self.hpage_pmd_nr() - 1) == huge)
    }

    /// `get_huge_zero_page()`: the huge page of zeroes, made when first asked for. `None`: out of
    /// memory. DEVIATION: it is never given back.
    pub(crate) fn get_huge_zero_page(&self, cpu: &P) -> Option<PageRef<'_, P>> {
        // Acquire: its content; pairs with the exchange below.
        let known = cpu.load(&self.huge_zero_page, Ordering::Acquire);
        if known != 0 {
            return Some(self.page(cpu, known as u32));
        }
        let page = self.alloc_compound_page(cpu, self.local_placement(cpu))?;
        self.clear_huge_page(cpu, page);
        let pfn = u64::from(page.slot_index());
        match cpu.compare_exchange(&self.huge_zero_page, 0, pfn, Ordering::AcqRel) {
            Ok(_) => Some(page),
            Err(other) => {
                self.put_page(cpu, page);
                Some(self.page(cpu, other as u32))
            }
        }
    }

    /// `is_huge_zero_pmd()`
    pub(crate) fn is_huge_zero(&self, leaf: Pte) -> bool {
        leaf.has(Pte::SPECIAL)
    }

    /// A leaf in the form of a PTE.
    pub(crate) fn leaf_of(&self, value: PmdVal<P>) -> Pte {
        value.as_pte(self.hpage_pmd_order())
    }
    /// `mk_huge_pmd()` and so on: the leaf that this PTE of the first frame says.
    pub(crate) fn huge_pmd(&self, leaf: Pte) -> PmdVal<P> {
        PmdVal::leaf(leaf, self.hpage_pmd_order())
    }

    /// `pmd_lock()`
    pub(crate) fn pmd_lock(&self, cpu: &P, pmd: Pmd<'_, P>) {
        spin_lock(cpu, pmd.ptl());
    }

    /// `__pmd_trans_huge_lock()`: the leaf, with the PMD lock held; `None`, with nothing held:
    /// it is none any more.
    pub(crate) fn pmd_trans_huge_lock(&self, cpu: &P, pmd: Pmd<'_, P>) -> Option<Pte> {
        spin_lock(cpu, pmd.ptl());
        let value = pmd.read(cpu);
        if value.is_huge() {
            return Some(self.leaf_of(value));
        }
        spin_unlock(cpu, pmd.ptl());
        None
    }

    /// `pgtable_trans_huge_deposit()`. Caller holds the PMD lock.
    pub(crate) fn pgtable_trans_huge_deposit(
        &self,
        cpu: &P,
        pmd: Pmd<'_, P>,
        table: TableRef<'_, P>,
    ) {
        let last = pmd.in_table().pmd_huge_pte();
        table.lru().write(cpu, last.read(cpu));
        last.write(cpu, table.ptr());
    }

    /// `pgtable_trans_huge_withdraw()`. Caller holds the PMD lock.
    pub(crate) fn pgtable_trans_huge_withdraw(&self, cpu: &P, pmd: Pmd<'_, P>) -> TableRef<'_, P> {
        let last = pmd.in_table().pmd_huge_pte();
        let table = self.tables[self.pmd_level() + 1].get(cpu, last.read(cpu));
        last.write(cpu, table.lru().read(cpu));
        table.lru().write(cpu, Ptr::NULL);
        table
    }

    /// `zap_deposited_table()`
    pub(super) fn zap_deposited_table(&self, cpu: &P, mm: MmRef<'_, P>, pmd: Pmd<'_, P>) {
        let table = self.pgtable_trans_huge_withdraw(cpu, pmd);
        self.pte_free(cpu, table);
        mm.pgtables().fetch_add(cpu, -1, Ordering::Relaxed);
    }

    /// `set_huge_zero_page()`. Caller holds the lock of `pmd`, which is none.
    pub(crate) fn set_huge_zero_page(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        pmd: Pmd<'_, P>,
        table: TableRef<'_, P>,
        prot: Pte,
    ) {
        let pfn = cpu.load(&self.huge_zero_page, Ordering::Relaxed) as u32;
        self.pgtable_trans_huge_deposit(cpu, pmd, table);
        pmd.set(cpu, self.huge_pmd(Pte::new(pfn, prot | Pte::SPECIAL | Pte::YOUNG)));
        mm.pgtables().fetch_add(cpu, 1, Ordering::Relaxed);
    }

    /// `pmdp_invalidate()`: no CPU uses the leaf any more, but everybody sees that it is there.
    /// Returns it as the hardware left it. Caller holds the PMD lock.
    pub(super) fn pmdp_invalidate(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        pmd: Pmd<'_, P>,
        leaf: Pte,
    ) -> Pte {
        let absent = self.huge_pmd(leaf.without(Pte::PRESENT | Pte::PROTNONE));
        let old = pmd.entry().swap(cpu, absent, Ordering::Relaxed);
        self.flush_tlb_mm(cpu, mm);
        self.leaf_of(old)
    }

    /// `split_huge_pmd()`: small pages where the leaf was, which map the same memory; nothing
    /// when there is no leaf any more.
    pub(crate) fn split_huge_pmd(&self, cpu: &P, vma: VmaRef<'_, P>, pmd: Pmd<'_, P>) {
        let _step = cpu.step("split_huge_pmd");
        let mm = self.mms.get(cpu, vma.vm_mm().read(cpu));
        self.invalidate_range(cpu, mm, || self.split_leaf(cpu, mm, vma, pmd));
    }

    fn split_leaf(&self, cpu: &P, mm: MmRef<'_, P>, vma: VmaRef<'_, P>, pmd: Pmd<'_, P>) {
        let Some(leaf) = self.pmd_trans_huge_lock(cpu, pmd) else { return };
        // What PTEs map of it is not locked in memory.
        self.clear_page_mlock(cpu, self.page(cpu, leaf.pfn()));
        let prot = vma.vm_page_prot().read(cpu);
        if self.is_huge_zero(leaf) {
            self.split_huge_zero_page_pmd(cpu, mm, pmd, prot);
        } else {
            let writable = vma.vm_flags().read(cpu).has(VmFlags::WRITE);
            self.split_huge_pmd_locked(cpu, mm, pmd, leaf, prot, writable);
        }
        spin_unlock(cpu, pmd.ptl());
    }

    /// `__split_huge_pmd_locked()`. Caller holds the PMD lock.
    fn split_huge_pmd_locked(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        pmd: Pmd<'_, P>,
        leaf: Pte,
        prot: Pte,
        writable: bool,
    ) {
        let leaf = self.pmdp_invalidate(cpu, mm, pmd, leaf);
        let head = self.page(cpu, leaf.pfn());
        let nr_pages = self.hpage_pmd_nr();
        // Each PTE has a reference; that of the PMD becomes one of them.
        head.refcount().fetch_add(cpu, i64::from(nr_pages) - 1, Ordering::Relaxed);
        let table = self.pgtable_trans_huge_withdraw(cpu, pmd);
        // DEVIATION: 5.1 moves the dirty bit to the page and leaves the PTEs clean.
        let mut kept = leaf & (Pte::YOUNG | Pte::DIRTY | Pte::SOFT_DIRTY);
        if writable {
            kept |= leaf & Pte::WRITE;
        }
        for (index, page) in (0..).zip(self.subpages(cpu, head)) {
            table.pte(index).write(cpu, Pte::new(page.slot_index(), prot | kept));
            self.page_dup_rmap(cpu, page);
        }
        self.page_remove_huge_rmap(cpu, head);
        pmd.set(cpu, table.ptr().into());
    }

    /// `__split_huge_zero_page_pmd()`. Caller holds the PMD lock.
    fn split_huge_zero_page_pmd(&self, cpu: &P, mm: MmRef<'_, P>, pmd: Pmd<'_, P>, prot: Pte) {
        // pmdp_huge_clear_flush: none until the PTEs are there. What is written to a zero page is
        // copied, so nobody minds who still reads the old one.
        pmd.set(cpu, PmdVal::NONE);
        self.flush_tlb_mm(cpu, mm);
        let table = self.pgtable_trans_huge_withdraw(cpu, pmd);
        let entry = Pte::new(ZERO_PFN, prot | Pte::SPECIAL | Pte::YOUNG);
        for index in 0..self.hpage_pmd_nr() {
            table.pte(index).write(cpu, entry);
        }
        pmd.set(cpu, table.ptr().into());
    }

    /// `vma_adjust_trans_huge()`: a boundary of `vma` is to be at `address`: no huge page may be
    /// there. Caller is in a write section of `vma`.
    pub(super) fn split_huge_pmd_at(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        address: Vaddr,
    ) {
        let inside = address != self.hpage_pmd_start(address);
        if inside
            && self.has_transparent_hugepage()
            && self.transhuge_vma_suitable(cpu, vma, address)
            && let Some(pmd) = self.walk_pmd(cpu, mm, address)
        {
            self.split_huge_pmd(cpu, vma, pmd);
        }
    }
}
