//! Memory cgroups: one, of all processes, with a hard limit on anonymous pages.
//!
//! A page is charged before it is mapped, and uncharged when it is freed; the flag says whether.
//! What fails to be charged is out of memory at once: VM_FAULT_OOM, from a speculative fault, too.
//!
//! Where time counts ([`Platform::KEEPS_LISTS`]) every task is in a cgroup, as one that systemd
//! started, and a charge takes the counter's line as often as in the kernel: each CPU has a stock.
//! What is charged counts at once, so that the limit is the same everywhere.
//!
//! Source: `mm/memcontrol.c`, `mm/page_counter.c`, v5.1. DEVIATION: one level of cgroups, a limit
//! that no stock stretches, no reclaim, and pages of files and page tables cost nothing.

use super::kernel::{Config, Kernel};
use super::objects::PageRef;
use super::page::PG_MEMCG;
use crate::design::Design;
use crate::events::Cost;
use crate::platform::arena::Lines;
use crate::platform::{Field, Finding, Line, Ordering, PaddedWord, Platform, Word};

/// `MEMCG_CHARGE_BATCH`: pages that a CPU charges for at once.
const MEMCG_CHARGE_BATCH: u64 = 32;

/// `struct mem_cgroup`, as far as it counts.
pub(super) struct MemCgroup<P: Platform> {
    /// `memory.usage`, in pages.
    usage: PaddedWord<P>,
    /// `memory.max`; `None`: nobody counts.
    max: Option<u64>,
}

impl<P: Platform> MemCgroup<P> {
    pub(super) fn new(lines: &Lines, config: &Config) -> Self {
        let line: Line = lines.take_named("memcg", 1, |_| "usage".to_owned());
        let max = config.system.memcg.map(|bytes| bytes >> config.arch.page_shift);
        Self { usage: Word::new(line, 0).into(), max }
    }

    pub(super) fn reset(&self) {
        self.usage.poke(0);
    }
}

impl<P: Platform, D: Design> Kernel<P, D> {
    fn memcg_usage(&self) -> Field<'_, P, u64> {
        Field::permanent(&self.memcg.usage)
    }

    /// `mem_cgroup_try_charge()` and `mem_cgroup_commit_charge()` of a page that nobody else knows,
    /// or that the caller has locked. `None`: beyond the limit; else whether it was charged now.
    #[inline]
    pub(crate) fn mem_cgroup_charge(&self, cpu: &P, page: PageRef<'_, P>) -> Option<bool> {
        cpu.charge(Cost::ChargePage, 1);
        if P::KEEPS_LISTS {
            return self.charge_from_stock(cpu, page);
        }
        let Some(max) = self.memcg.max else { return Some(false) };
        if self.page_test(cpu, page, PG_MEMCG) {
            return Some(false); // of the swap cache, and mapped before
        }
        let nr_pages = self.hpage_nr_pages(page);
        // page_counter_try_charge
        let before = self.memcg_usage().fetch_add(cpu, nr_pages, Ordering::Relaxed);
        if before.wrapping_add_signed(nr_pages) > max {
            self.memcg_usage().fetch_add(cpu, -nr_pages, Ordering::Relaxed);
            return None;
        }
        self.page_set(cpu, page, PG_MEMCG);
        Some(true)
    }

    /// `mem_cgroup_uncharge()`, `mem_cgroup_cancel_charge()`: of a page that is being freed, or was
    /// charged in vain.
    pub(crate) fn mem_cgroup_uncharge(&self, cpu: &P, page: PageRef<'_, P>) {
        if P::KEEPS_LISTS {
            return self.mem_cgroup_uncharge_list(cpu, &[page]);
        }
        if self.memcg.max.is_some() && self.page_clear(cpu, page, PG_MEMCG) != 0 {
            let nr_pages = self.hpage_nr_pages(page);
            self.memcg_usage().fetch_add(cpu, -nr_pages, Ordering::Relaxed);
        }
    }

    /// `mem_cgroup_migrate()`: the new page is charged whatever the limit; the old one is freed.
    pub(super) fn mem_cgroup_migrate(&self, cpu: &P, old: PageRef<'_, P>, new: PageRef<'_, P>) {
        if P::KEEPS_LISTS {
            if old.flags().peek() & PG_MEMCG != 0 {
                self.count_charge(new, 1);
                self.take_page_counter(cpu);
            }
            return;
        }
        if self.memcg.max.is_some() && self.page_test(cpu, old, PG_MEMCG) {
            self.memcg_usage().fetch_add(cpu, 1, Ordering::Relaxed);
            self.page_set(cpu, new, PG_MEMCG);
        }
    }

    /// `try_charge()` where time counts: from this CPU's stock or, if that is used up, from the
    /// counter, more than is needed.
    #[inline(always)]
    fn charge_from_stock(&self, cpu: &P, page: PageRef<'_, P>) -> Option<bool> {
        if page.flags().peek() & PG_MEMCG != 0 {
            return Some(false);
        }
        let nr_pages = self.hpage_nr_pages(page);
        let usage = self.memcg.usage.peek().wrapping_add_signed(nr_pages);
        if self.memcg.max.is_some_and(|max| usage > max) {
            self.take_page_counter(cpu);
            return None;
        }
        self.count_charge(page, nr_pages);
        // consume_stock
        let stock = &self.cpus[cpu.id() as usize].memcg_stock;
        let left = stock.get().wrapping_add_signed(-nr_pages);
        if left < MEMCG_CHARGE_BATCH {
            stock.set(left);
        } else {
            self.take_page_counter(cpu);
            // refill_stock; a huge page is charged for alone.
            let more = MEMCG_CHARGE_BATCH.saturating_sub(nr_pages as u64);
            stock.set(stock.get() + more);
        }
        Some(true)
    }

    /// `mem_cgroup_uncharge_list()`: the counter's line is taken once for all of them.
    pub(super) fn mem_cgroup_uncharge_list(&self, cpu: &P, pages: &[PageRef<'_, P>]) {
        let mut uncharged = false;
        for page in pages.iter().filter(|page| page.flags().peek() & PG_MEMCG != 0) {
            page.flags().poke(page.flags().peek() & !PG_MEMCG);
            let usage = self.memcg.usage.peek().wrapping_add_signed(-self.hpage_nr_pages(*page));
            self.memcg.usage.poke(usage);
            uncharged = true;
        }
        if uncharged {
            self.take_page_counter(cpu);
        }
    }

    /// Counts the page as charged for, in no time.
    fn count_charge(&self, page: PageRef<'_, P>, nr_pages: i64) {
        self.memcg.usage.poke(self.memcg.usage.peek().wrapping_add_signed(nr_pages));
        page.flags().poke(page.flags().peek() | PG_MEMCG);
    }

    /// `page_counter_try_charge()`, `page_counter_uncharge()`: their time.
    #[inline(never)]
    fn take_page_counter(&self, cpu: &P) {
        self.memcg_usage().fetch_add(cpu, 0, Ordering::Relaxed);
    }

    /// Whether what is charged is what there is, of a system at rest.
    pub(super) fn check_memcg(&self) -> Option<Finding> {
        let charged = self.pages.peek_all().filter(|page| page.flags().peek() & PG_MEMCG != 0);
        let exist: i64 = charged.map(|page| self.hpage_nr_pages(page)).sum();
        let usage = self.memcg_usage().peek();
        let what = format!("{usage} pages charged, {exist} exist");
        (usage as i64 != exist).then_some(Finding { invariant: "memcg-charge", what })
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/memcontrol.rs"]
mod tests;
