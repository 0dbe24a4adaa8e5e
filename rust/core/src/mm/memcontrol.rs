//! Memory cgroups: one, of all processes, with a hard limit on anonymous pages.
//!
//! A page is charged before it is mapped, and uncharged when it is freed; the flag says whether.
//! What fails to be charged is out of memory at once: VM_FAULT_OOM, from a speculative fault, too.
//!
//! Source: `mm/memcontrol.c`, `mm/page_counter.c`, v5.1. DEVIATION: no stock of charges for each
//! CPU, no reclaim, and pages of files and page tables cost nothing.

use super::kernel::{Config, Kernel};
use super::objects::PageRef;
use super::page::PG_MEMCG;
use crate::design::Design;
use crate::events::Cost;
use crate::platform::arena::Lines;
use crate::platform::{Field, Finding, Line, Ordering, PaddedWord, Platform, Word};

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
        let Some(max) = self.memcg.max else { return Some(false) };
        if self.page_test(cpu, page, PG_MEMCG) {
            return Some(false); // of the swap cache, and mapped before
        }
        let nr_pages = self.nr_charged(page);
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
        if self.memcg.max.is_some() && self.page_clear(cpu, page, PG_MEMCG) != 0 {
            let nr_pages = self.nr_charged(page);
            self.memcg_usage().fetch_add(cpu, -nr_pages, Ordering::Relaxed);
        }
    }

    /// `mem_cgroup_migrate()`: the new page is charged whatever the limit; the old one is freed.
    pub(super) fn mem_cgroup_migrate(&self, cpu: &P, old: PageRef<'_, P>, new: PageRef<'_, P>) {
        if self.memcg.max.is_some() && self.page_test(cpu, old, PG_MEMCG) {
            self.memcg_usage().fetch_add(cpu, 1, Ordering::Relaxed);
            self.page_set(cpu, new, PG_MEMCG);
        }
    }

    fn nr_charged(&self, page: PageRef<'_, P>) -> i64 {
        if self.page_is_compound(page) { i64::from(self.hpage_pmd_nr()) } else { 1 }
    }

    /// Whether what is charged is what there is, of a system at rest.
    pub(super) fn check_memcg(&self) -> Option<Finding> {
        let charged = self.pages.peek_all().filter(|page| page.flags().peek() & PG_MEMCG != 0);
        let exist: i64 = charged.map(|page| self.nr_charged(page)).sum();
        let usage = self.memcg_usage().peek();
        let what = format!("{usage} pages charged, {exist} exist");
        (usage as i64 != exist).then_some(Finding { invariant: "memcg-charge", what })
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/memcontrol.rs"]
mod tests;
