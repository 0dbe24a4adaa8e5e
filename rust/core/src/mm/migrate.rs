//! Page migration: a page goes to another frame, and migration entries stand for it meanwhile.
//!
//! Who faults on such an entry waits until the page is unlocked, and looks again.
//!
//! Source: `mm/migrate.c`, v5.1. DEVIATION: the pages are small and anonymous, chosen by address or
//! by a hinting fault, and may come from the node that they are to go to.

use std::ops::Range;

use super::kernel::Kernel;
use super::objects::{AnonVmaRef, MmRef, PageRef};
use super::page::{
    LAST_CPUPID, PG_ANON, PG_DIRTY, PG_LOCKED, PG_SWAPBACKED, PG_SWAPCACHE, PG_UPTODATE,
    PG_WRITEBACK,
};
use super::pmd::Pmd;
use super::rmap_walk::{MIGRATION_KEEPS, Unmap};
use super::types::{Pte, Vaddr};
use super::vmscan::Isolated;
use crate::design::Design;
use crate::events::Cost;
use crate::platform::Platform;
use crate::sync::spinlock::spin_unlock;

/// How often `migrate_pages()` comes back to pages that somebody is at.
const PASSES: u32 = 10;

/// Where pages are to go.
#[derive(Clone, Copy)]
struct Target {
    node: u32,
    /// `MIGRATE_ASYNC`: waits for nobody.
    is_async: bool,
    /// What stays of the bits of its PTEs.
    keep: Pte,
}

/// What became of one page.
enum Moved {
    /// It is elsewhere, or nobody needs it any more.
    Done,
    /// `EAGAIN`: somebody is at it.
    Later,
    /// `ENOMEM`
    NoMemory,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Moves the anonymous pages of `range` to a node, as far as memory lasts; the task stands for
    /// compaction, or for what moves a task to another node. No lock is held between.
    pub(crate) fn migrate_range(&self, cpu: &P, mm: MmRef<'_, P>, range: Range<Vaddr>, node: u32) {
        let target = Target { node, is_async: false, keep: Pte::EMPTY };
        let mut address = range.start;
        let mut memory = true;
        while address < range.end && memory {
            let (pages, next) = self.isolate_pages(cpu, mm, address..range.end);
            memory = self.migrate_pages(cpu, pages, target);
            address = next;
        }
    }

    /// `migrate_misplaced_page()`: moves a page that a hinting fault found on the wrong node, unless
    /// somebody is at it. DEVIATION: its PTE stays young and dirty (as since 6.1), so that no outcome
    /// tells which CPU took the fault.
    pub(crate) fn migrate_misplaced_page(&self, cpu: &P, page: Isolated<'_, P>, node: u32) {
        let target = Target { node, is_async: true, keep: MIGRATION_KEEPS };
        self.migrate_pages(cpu, vec![page], target);
    }

    /// `migrate_pages()`. False: there was no memory.
    fn migrate_pages(&self, cpu: &P, mut left: Vec<Isolated<'_, P>>, target: Target) -> bool {
        let mut memory = true;
        for pass in 0..PASSES {
            let mut later = Vec::new();
            for isolated in left {
                let moved = match isolated.anon_vma {
                    // What is in the swap cache alone is not looked for, nor what KSM has merged.
                    None => Moved::Done,
                    Some(_) if !memory => Moved::NoMemory,
                    Some(family) => {
                        let force = pass > 2 && !target.is_async;
                        self.unmap_and_move(cpu, isolated.page, family, target, force)
                    }
                };
                match moved {
                    Moved::Done => self.putback(cpu, isolated),
                    Moved::Later => later.push(isolated),
                    Moved::NoMemory => {
                        memory = false;
                        self.putback(cpu, isolated);
                    }
                }
            }
            left = later;
            if left.is_empty() {
                break;
            }
        }
        for isolated in left {
            self.putback(cpu, isolated);
        }
        memory
    }

    /// `putback_lru_page()`: isolated no more.
    fn putback(&self, cpu: &P, isolated: Isolated<'_, P>) {
        self.put_page(cpu, isolated.page);
        if let Some(anon_vma) = isolated.anon_vma {
            self.put_anon_vma(cpu, anon_vma);
        }
    }

    /// `unmap_and_move()`. `force`: waits for whoever is at the page.
    fn unmap_and_move(
        &self,
        cpu: &P,
        page: PageRef<'_, P>,
        family: AnonVmaRef<'_, P>,
        target: Target,
        force: bool,
    ) -> Moved {
        let _step = cpu.step("unmap_and_move");
        let Some(new) = self.alloc_page_at(cpu, self.on_node(target.node)) else {
            return Moved::NoMemory;
        };
        let freed = page.refcount().read(cpu) == 1;
        let moved = !freed && self.move_locked(cpu, [page, new], family, target.keep, force);
        if moved {
            self.lru_cache_add(cpu, new);
        }
        // Its mappings have references of their own, if it is mapped.
        self.put_page(cpu, new);
        if moved || freed { Moved::Done } else { Moved::Later }
    }

    /// `__unmap_and_move()`
    fn move_locked(
        &self,
        cpu: &P,
        [page, new]: [PageRef<'_, P>; 2],
        family: AnonVmaRef<'_, P>,
        keep: Pte,
        force: bool,
    ) -> bool {
        if !self.trylock_page(cpu, page) {
            if !force {
                return false;
            }
            self.lock_page(cpu, page);
        }
        // KSM has merged it since it was isolated.
        if self.page_is_ksm(cpu, page) {
            self.unlock_page(cpu, page);
            return false;
        }
        if self.page_test(cpu, page, PG_WRITEBACK) {
            if !force {
                self.unlock_page(cpu, page);
                return false;
            }
            // wait_on_page_writeback
            cpu.sleep_until(page.flags().word(), |flags| flags & PG_WRITEBACK == 0);
        }
        new.flags().poke(PG_LOCKED);
        let anon_vma = self.mapped_anon_vma(cpu, page, family);
        if let Some(anon_vma) = anon_vma {
            self.try_to_unmap(cpu, page, anon_vma, Unmap::Migration { keep });
        }
        let moved = page.mapcount().read(cpu) == 0 && self.move_to_new_page(cpu, page, new);
        if let Some(anon_vma) = anon_vma {
            let target = if moved { new } else { page };
            self.remove_migration_ptes(cpu, page, target, anon_vma);
            self.put_anon_vma(cpu, anon_vma);
        }
        self.unlock_page(cpu, new);
        self.unlock_page(cpu, page);
        moved
    }

    /// `move_to_new_page()`, `migrate_page()`: what the page is and holds, if nobody else has a
    /// reference. Caller has locked both.
    fn move_to_new_page(&self, cpu: &P, page: PageRef<'_, P>, new: PageRef<'_, P>) -> bool {
        new.index().write(cpu, page.index().read(cpu));
        new.mapping().write(cpu, page.mapping().read(cpu));
        let kept = PG_ANON | PG_UPTODATE | PG_SWAPBACKED | PG_DIRTY | LAST_CPUPID;
        self.page_set(cpu, new, page.flags().read(cpu) & kept);
        let alone = if self.page_test(cpu, page, PG_SWAPCACHE) {
            self.replace_in_swap_cache(cpu, page, new)
        } else {
            page.refcount().read(cpu) == 1
        };
        if alone {
            cpu.charge(Cost::CopyPage, 1);
            new.content().write(cpu, page.content().read(cpu));
            self.mem_cgroup_migrate(cpu, page, new);
        }
        alone
    }

    /// `migration_entry_wait()`: waits until the page that an entry stands for is unlocked.
    pub(crate) fn migration_entry_wait(&self, cpu: &P, pmd: Pmd<'_, P>, address: Vaddr) {
        let _step = cpu.step("migration_entry_wait");
        let Some(table) = pmd.read(cpu).table() else {
            cpu.finding("use-after-free", "the PTE lock of a PMD that became none".into());
        };
        let slot = self.pte_offset_map_lock(cpu, table, address);
        let entry = slot.pte().read(cpu);
        let Some(pfn) = entry.migration_pfn() else {
            spin_unlock(cpu, slot.ptl());
            return;
        };
        let page = self.page(cpu, pfn);
        let got = self.get_page_unless_zero(cpu, page);
        spin_unlock(cpu, slot.ptl());
        if !got {
            // DEVIATION: the kernel faults again until the references are not frozen any more.
            cpu.spin_until(slot.pte().word(), |now| now != entry.0);
        } else {
            // put_and_wait_on_page_locked: who waits must not be the one that keeps it from going.
            let flags = page.flags().word();
            self.put_page(cpu, page);
            cpu.sleep_until(flags, |flags| flags & PG_LOCKED == 0);
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/migrate.rs"]
mod tests;
