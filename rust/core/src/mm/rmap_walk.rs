//! Reverse mapping: from a page to the PTEs that map it.
//!
//! An anonymous page names an anon_vma, which leads to every VMA that may map it; the page's
//! index says where. The walk holds the family's semaphore for reading, which keeps those VMAs
//! and their page tables: `free_pgtables` takes a VMA off its anon_vmas before its tables go. That
//! a table stays where it is takes the cure of L5.
//!
//! Source: `mm/rmap.c`, `mm/page_vma_mapped.c`, v5.1.

use super::kernel::Kernel;
use super::objects::{AnonVma, AnonVmaRef, MmRef, PageRef, VmaRef};
use super::page::{PG_DIRTY, PG_SWAPBACKED};
use super::pgtable::PteSlot;
use super::rmap::Rss;
use super::types::{Pte, Vaddr, VmFlags};
use crate::design::Design;
use crate::platform::{Ordering, Platform, Ptr, Value};
use crate::sync::refcount::atomic_inc;
use crate::sync::spinlock::{spin_lock, spin_unlock};

/// Bits that a migration entry may keep.
pub(super) const MIGRATION_KEEPS: Pte = Pte(Pte::YOUNG.0 | Pte::DIRTY.0 | Pte::SOFT_DIRTY.0);

/// What a page is unmapped for (`TTU_*`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unmap {
    /// `only_unused`: it stays where a PTE is young.
    Reclaim { only_unused: bool },
    /// It will be put back, with these bits as they were.
    Migration { keep: Pte },
}

/// Where a page is mapped, with the PTE lock held.
struct Mapped<'k, P: Platform> {
    mm: MmRef<'k, P>,
    address: Vaddr,
    slot: PteSlot<'k, P>,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `page_get_anon_vma()`: a reference to the anon_vma of a page that stays mapped meanwhile,
    /// for the caller holds the lock of its PTE, or the family's semaphore.
    /// `None`: it is KSM's now, which takes no PTE lock for that.
    pub(super) fn page_get_anon_vma(
        &self,
        cpu: &P,
        page: PageRef<'_, P>,
    ) -> Option<AnonVmaRef<'_, P>> {
        let anon_vma = Ptr::<AnonVma<P>>::from_word(page.mapping().read(cpu));
        let anon_vma = self.anon_vmas.get_opt(cpu, anon_vma)?;
        atomic_inc(cpu, anon_vma.refcount());
        Some(anon_vma)
    }

    /// `page_get_anon_vma()` of a page that the caller has locked, if it is mapped. `family` is
    /// held, and of the page's family. DEVIATION: under the family's semaphore; the kernel takes
    /// it by RCU and looks again.
    pub(super) fn mapped_anon_vma(
        &self,
        cpu: &P,
        page: PageRef<'_, P>,
        family: AnonVmaRef<'_, P>,
    ) -> Option<AnonVmaRef<'_, P>> {
        let rmap = self.anon_vma_sem(cpu, family);
        rmap.down_read(cpu);
        let mapped = page.mapcount().read(cpu) != 0;
        let found = mapped.then(|| self.page_get_anon_vma(cpu, page)).flatten();
        rmap.up_read(cpu);
        found
    }

    pub(super) fn page_anon_vma(&self, cpu: &P, page: PageRef<'_, P>) -> AnonVmaRef<'_, P> {
        let anon_vma = Ptr::<AnonVma<P>>::from_word(page.mapping().read(cpu));
        self.anon_vmas.get(cpu, anon_vma)
    }

    /// The VMAs that may map a page, with their addresses for it, by their offsets and then by
    /// age: mremap counts on it that a page which moves is met at one place at least. Caller holds
    /// the family's semaphore, and found the page mapped since: so its anon_vma is still the one
    /// that it names.
    ///
    /// DEVIATION: the age is first that of the address space, and then of the link; the kernel's
    /// tree knows only when a VMA last came to its place in it.
    fn vmas_of(&self, cpu: &P, page: PageRef<'_, P>) -> Vec<(VmaRef<'_, P>, Vaddr)> {
        let index = page.index().read(cpu);
        let mut found = Vec::new();
        let mut cursor = self.page_anon_vma(cpu, page).rb_root().read(cpu);
        while let Some(avc) = self.avcs.get_opt(cpu, cursor) {
            cursor = avc.rb_next().read(cpu);
            let vma = self.vmas.get(cpu, avc.vma().read(cpu));
            if let Some(address) = self.vma_address(cpu, vma, index) {
                let mm = self.mms.get(cpu, vma.vm_mm().read(cpu));
                found.push(((vma.vm_pgoff().read(cpu), mm.birth().peek()), vma, address));
            }
        }
        found.reverse();
        found.sort_by_key(|&(order, ..)| order);
        found.into_iter().map(|(_, vma, address)| (vma, address)).collect()
    }

    /// `vma_address()`: where the VMA has the page of this index.
    fn vma_address(&self, cpu: &P, vma: VmaRef<'_, P>, index: u64) -> Option<Vaddr> {
        let start = vma.vm_start().read(cpu);
        let nth = index.checked_sub(vma.vm_pgoff().read(cpu))?;
        let nr_pages = vma.vm_end().read(cpu).since(start) >> self.page_shift();
        (nth < nr_pages).then(|| start.offset(nth << self.page_shift()))
    }

    /// [`Kernel::page_vma_mapped_walk`] in the VMA's address space.
    fn mapped_at<'k>(
        &'k self,
        cpu: &P,
        vma: VmaRef<'k, P>,
        address: Vaddr,
        sync: bool,
        wanted: impl Fn(Pte) -> bool,
    ) -> Option<Mapped<'k, P>> {
        let mm = self.mms.get(cpu, vma.vm_mm().read(cpu));
        let slot = self.page_vma_mapped_walk(cpu, mm, address, sync, wanted)?;
        Some(Mapped { mm, address, slot })
    }

    /// `page_vma_mapped_walk()`: the PTE at `address`, locked, if `wanted` accepts it. `sync`: only
    /// what is seen with the lock held counts, for mremap may have the PTE in its hands.
    pub(super) fn page_vma_mapped_walk<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        address: Vaddr,
        sync: bool,
        wanted: impl Fn(Pte) -> bool,
    ) -> Option<PteSlot<'k, P>> {
        let table = self.walk_pmd(cpu, mm, address)?.read(cpu).table()?;
        let slot = self.pte_offset_map(cpu, table, address);
        if !sync && !wanted(slot.pte().read(cpu)) {
            return None;
        }
        spin_lock(cpu, slot.ptl());
        if !wanted(slot.pte().read(cpu)) {
            spin_unlock(cpu, slot.ptl());
            return None;
        }
        Some(slot)
    }

    /// `try_to_unmap()`: replaces every PTE that maps the page by its swap entry, or (for what
    /// MADV_FREE gave up and nobody wrote to since) by nothing; or by its migration entry. Caller
    /// has locked the page, and holds a reference to an anon_vma of the family. False: it is still
    /// mapped.
    pub(super) fn try_to_unmap(
        &self,
        cpu: &P,
        page: PageRef<'_, P>,
        family: AnonVmaRef<'_, P>,
        why: Unmap,
    ) -> bool {
        let _step = cpu.step("try_to_unmap");
        let rmap = self.anon_vma_sem(cpu, family);
        rmap.down_read(cpu);
        if page.mapcount().read(cpu) != 0 {
            for (vma, address) in self.vmas_of(cpu, page) {
                let mm = self.mms.get(cpu, vma.vm_mm().read(cpu));
                let unmap = || self.try_to_unmap_one(cpu, page, vma, address, why);
                if !self.invalidate_range(cpu, mm, unmap) {
                    break;
                }
            }
        }
        rmap.up_read(cpu);
        page.mapcount().read(cpu) == 0
    }

    /// `try_to_munlock()`: marks the page as locked in memory if a VMA that maps it is. Caller has
    /// locked the page, and knows that an anon_vma of the family stays. Returns whether.
    pub(super) fn try_to_munlock(
        &self,
        cpu: &P,
        page: PageRef<'_, P>,
        family: AnonVmaRef<'_, P>,
    ) -> bool {
        let rmap = self.anon_vma_sem(cpu, family);
        rmap.down_read(cpu);
        let locked = page.mapcount().read(cpu) != 0
            && self
                .vmas_of(cpu, page)
                .into_iter()
                .any(|(vma, at)| self.is_locked(cpu, page, vma, at));
        rmap.up_read(cpu);
        locked
    }

    /// Whether a locked VMA maps the page; then the page is marked.
    fn is_locked(&self, cpu: &P, page: PageRef<'_, P>, vma: VmaRef<'_, P>, at: Vaddr) -> bool {
        let is_locked = || vma.vm_flags().read(cpu).has(VmFlags::LOCKED);
        let maps = |pte: Pte| pte.is_present() && pte.pfn() == page.slot_index();
        if !is_locked() {
            return false;
        }
        let Some(Mapped { slot, .. }) = self.mapped_at(cpu, vma, at, false, maps) else {
            return false;
        };
        // Again, with the PTE lock: who unlocks the VMA takes that lock for each page after.
        let locked = is_locked();
        if locked {
            self.mlock_vma_page(cpu, page);
        }
        spin_unlock(cpu, slot.ptl());
        locked
    }

    /// `try_to_unmap_one()`. False: the page has to stay.
    fn try_to_unmap_one(
        &self,
        cpu: &P,
        page: PageRef<'_, P>,
        vma: VmaRef<'_, P>,
        address: Vaddr,
        why: Unmap,
    ) -> bool {
        let pfn = page.slot_index();
        let maps = |pte: Pte| pte.is_present() && pte.pfn() == pfn;
        let Some(Mapped { mm, address, slot }) = self.mapped_at(cpu, vma, address, false, maps)
        else {
            return true;
        };
        let only_unused = why == Unmap::Reclaim { only_unused: true };
        let is_moving = matches!(why, Unmap::Migration { .. });
        let locked = !is_moving && vma.vm_flags().read(cpu).has(VmFlags::LOCKED);
        if locked {
            self.mlock_vma_page(cpu, page);
        }
        let stays = locked
            || (only_unused && self.test_clear_young(cpu, mm, address, slot))
            || !self.unmap_pte(cpu, page, mm, address, slot, why);
        spin_unlock(cpu, slot.ptl());
        if !stays {
            // The mapping's reference.
            self.put_page(cpu, page);
        }
        !stays
    }

    /// `ptep_clear_flush_young()`. DEVIATION: it flushes on all arches; x86 and powerpc let a
    /// translation that is in use hide that the page is.
    fn test_clear_young(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        address: Vaddr,
        slot: PteSlot<'_, P>,
    ) -> bool {
        let young = slot.pte().read(cpu).has(Pte::YOUNG);
        if young {
            // Only who holds the lock clears the bit: subtracting it does, whatever the hardware
            // sets meanwhile.
            slot.pte().fetch_add(cpu, -(Pte::YOUNG.0 as i64), Ordering::Relaxed);
            self.flush_tlb_page(cpu, mm, address);
        }
        young
    }

    /// `page_referenced()`: whether the page was used, by any of its PTEs, since that was made
    /// old; they are old again now. Not through a mapping that is read in sequence, and never if
    /// one is locked: `try_to_unmap` will see. Caller as for [`Kernel::try_to_unmap`].
    pub(super) fn page_referenced(
        &self,
        cpu: &P,
        page: PageRef<'_, P>,
        family: AnonVmaRef<'_, P>,
    ) -> bool {
        let pfn = page.slot_index();
        let maps = |pte: Pte| pte.is_present() && pte.pfn() == pfn;
        let rmap = self.anon_vma_sem(cpu, family);
        rmap.down_read(cpu);
        let mut used = false;
        let vmas = if page.mapcount().read(cpu) == 0 { vec![] } else { self.vmas_of(cpu, page) };
        for (vma, address) in vmas {
            let Some(Mapped { mm, address, slot }) = self.mapped_at(cpu, vma, address, false, maps)
            else {
                continue;
            };
            let flags = vma.vm_flags().read(cpu);
            let locked = flags.has(VmFlags::LOCKED);
            if !locked && self.test_clear_young(cpu, mm, address, slot) {
                used |= !flags.has(VmFlags::SEQ_READ);
            }
            spin_unlock(cpu, slot.ptl());
            if locked {
                used = false;
                break;
            }
        }
        rmap.up_read(cpu);
        used
    }

    /// Takes one PTE away. Caller holds its lock. False: it was put back.
    fn unmap_pte(
        &self,
        cpu: &P,
        page: PageRef<'_, P>,
        mm: MmRef<'_, P>,
        address: Vaddr,
        slot: PteSlot<'_, P>,
        why: Unmap,
    ) -> bool {
        // ptep_clear_flush: from here on no CPU writes to the page, and none is about to set the
        // dirty bit.
        let old = slot.pte().swap(cpu, Pte::EMPTY, Ordering::Relaxed);
        self.flush_tlb_page(cpu, mm, address);
        let keeps_dirty = matches!(why, Unmap::Migration { keep } if keep.has(Pte::DIRTY));
        if old.has(Pte::DIRTY) && !keeps_dirty {
            self.page_set(cpu, page, PG_DIRTY);
        }
        if let Unmap::Migration { keep } = why {
            // The address space goes on counting it.
            self.add_mm_counter(cpu, mm, Rss::Anon, 1);
            let entry = Pte::migration(page.slot_index(), old.has(Pte::WRITE));
            slot.pte().write(cpu, entry | old & keep);
            self.page_remove_rmap(cpu, mm, page);
            return true;
        }
        let flags = page.flags().read(cpu);
        if flags & PG_SWAPBACKED == 0 {
            if flags & PG_DIRTY != 0 {
                // Written since MADV_FREE: it counts again.
                slot.pte().write(cpu, old);
                self.page_set(cpu, page, PG_SWAPBACKED);
                return false;
            }
            self.page_remove_rmap(cpu, mm, page);
            return true;
        }
        let entry = page.private().read(cpu) as u32;
        self.swap_duplicate(cpu, entry);
        self.add_mm_counter(cpu, mm, Rss::Swap, 1);
        slot.pte().write(cpu, Pte::swap(entry));
        self.page_remove_rmap(cpu, mm, page);
        true
    }
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `remove_migration_ptes()`: maps `new` wherever a migration entry of `old` is left. Caller
    /// has locked both, and holds a reference to the anon_vma that they name.
    pub(super) fn remove_migration_ptes(
        &self,
        cpu: &P,
        old: PageRef<'_, P>,
        new: PageRef<'_, P>,
        family: AnonVmaRef<'_, P>,
    ) {
        let _step = cpu.step("remove_migration_ptes");
        let left = old.slot_index();
        let rmap = self.anon_vma_sem(cpu, family);
        rmap.down_read(cpu);
        for (vma, address) in self.vmas_of(cpu, new) {
            let wanted = |pte: Pte| pte.migration_pfn() == Some(left);
            let Some(Mapped { slot, .. }) = self.mapped_at(cpu, vma, address, true, wanted) else {
                continue;
            };
            // Old and clean, unless the entry says so: the page knows whether it is dirty.
            let mut pte = Pte::new(new.slot_index(), vma.vm_page_prot().read(cpu));
            let entry = slot.pte().read(cpu);
            pte |= entry & MIGRATION_KEEPS;
            if entry.has(Pte::WRITE) && vma.vm_flags().read(cpu).has(VmFlags::WRITE) {
                pte |= Pte::WRITE;
            }
            self.get_page(cpu, new);
            self.page_add_anon_rmap(
                cpu,
                new,
                vma,
                self.linear_page_index(cpu, vma, address),
                false,
            );
            if vma.vm_flags().read(cpu).has(VmFlags::LOCKED) {
                self.mlock_vma_page(cpu, new);
            }
            // Release: the content was copied before; pairs with the dependent access.
            slot.pte().store(cpu, pte, Ordering::Release);
            spin_unlock(cpu, slot.ptl());
        }
        rmap.up_read(cpu);
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/rmap_walk.rs"]
mod tests;
