//! `mmu_gather`: collects pages and tables that go, flushes, and only then frees them.
//!
//! Source: `mm/mmu_gather.c`, `include/asm-generic/tlb.h`, v5.1.

use super::kernel::Kernel;
use super::objects::{MmRef, Page, Table, Vma};
use crate::arch::Family;
use crate::design::Design;
use crate::platform::{Platform, Ptr, RcuCallback, Value};

/// `MMU_GATHER_BUNDLE`: pages in the batch that is on the stack.
const MMU_GATHER_BUNDLE: usize = 8;

/// Pages and tables on their way out of one address space.
pub(crate) struct MmuGather<'k, P: Platform> {
    mm: MmRef<'k, P>,
    /// A translation was removed: flush before anything is freed.
    need_flush: bool,
    pages: Vec<Ptr<Page<P>>>,
    tables: Vec<(u8, Ptr<Table<P>>)>,
}

impl<'k, P: Platform> MmuGather<'k, P> {
    pub(crate) fn mm(&self) -> MmRef<'k, P> {
        self.mm
    }
    /// `tlb_remove_tlb_entry()`
    pub(crate) fn remove_tlb_entry(&mut self) {
        self.need_flush = true;
    }
    /// `__tlb_remove_page()`
    pub(crate) fn remove_page(&mut self, page: Ptr<Page<P>>) {
        self.pages.push(page);
    }
    /// `tlb_remove_table()`
    pub(crate) fn remove_table(&mut self, level: usize, table: Ptr<Table<P>>) {
        self.need_flush = true;
        self.tables.push((level as u8, table));
    }
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `tlb_gather_mmu()`. Until `tlb_finish_mmu` a flush of `mm` is pending.
    pub(crate) fn tlb_gather_mmu<'k>(&self, cpu: &P, mm: MmRef<'k, P>) -> MmuGather<'k, P> {
        self.inc_tlb_flush_pending(cpu, mm);
        MmuGather { mm, need_flush: false, pages: Vec::new(), tables: Vec::new() }
    }

    /// `tlb_finish_mmu()`: flushes, then frees what was gathered.
    pub(crate) fn tlb_finish_mmu(&self, cpu: &P, tlb: MmuGather<'_, P>) {
        // Beside another who removes translations: a page that we found gone may be one that he
        // took out and has not flushed yet.
        if tlb.need_flush || self.mm_tlb_flush_nested(cpu, tlb.mm) {
            self.flush_tlb_mm_range(cpu, tlb.mm, !tlb.tables.is_empty());
        }
        self.tlb_flush_mmu_free(cpu, tlb.pages);
        for (level, table) in tlb.tables {
            // x86: the flush above interrupted every CPU that could walk this table without a
            // lock. Elsewhere a broadcast instruction flushes, and walkers are RCU readers.
            match self.config.arch.family {
                Family::X86 => self.free_table_ptr(cpu, level, table),
                Family::Powerpc | Family::Arm64 => {
                    cpu.call_rcu(RcuCallback::FreeTable { level, table: table.to_word() });
                }
            }
        }
        self.dec_tlb_flush_pending(cpu, tlb.mm);
    }

    /// `tlb_flush_mmu_free()`: batch by batch. Where no lists are kept nothing is gained by freeing
    /// several at once.
    fn tlb_flush_mmu_free(&self, cpu: &P, pages: Vec<Ptr<Page<P>>>) {
        if P::KEEPS_LISTS {
            let (bundle, more) = pages.split_at(pages.len().min(MMU_GATHER_BUNDLE));
            let batches = more.chunks(self.max_gather_batch());
            [bundle].into_iter().chain(batches).for_each(|batch| {
                self.free_pages_and_swap_cache(cpu, batch);
            });
            return;
        }
        for page in pages {
            let page = self.pages.get(cpu, page);
            self.free_swap_cache(cpu, page);
            self.put_page(cpu, page);
        }
    }

    /// `MAX_GATHER_BATCH`: pointers in what a page has left of a batch's head.
    fn max_gather_batch(&self) -> usize {
        (self.page_size() as usize - 16) / 8
    }

    fn free_table_ptr(&self, cpu: &P, level: u8, table: Ptr<Table<P>>) {
        let table = self.tables[level as usize].get(cpu, table);
        self.free_table(cpu, level as usize, table);
    }

    /// Runs what waited for a grace period that has ended. Called between two operations, and before
    /// memory runs out.
    pub fn run_rcu_callbacks(&self, cpu: &P) {
        while let Some(callback) = cpu.rcu_ready() {
            self.run_rcu_callback(cpu, callback);
        }
    }

    /// One of them.
    fn run_rcu_callback(&self, cpu: &P, callback: RcuCallback) {
        match callback {
            RcuCallback::PutVma(vma) => {
                D::put_vma(self, cpu, self.vmas.get(cpu, Ptr::<Vma<P>>::from_word(vma)));
            }
            RcuCallback::PutPolicy(policy) => self.mpol_put(cpu, Ptr::from_word(policy)),
            RcuCallback::FreeTable { level, table } => {
                self.free_table_ptr(cpu, level, Ptr::from_word(table));
            }
        }
    }
}
