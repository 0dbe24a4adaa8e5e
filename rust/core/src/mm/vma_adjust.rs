//! `__vma_adjust()`: moves the boundaries between neighbouring VMAs, and removes or inserts one.
//!
//! Every merge and every split comes down to this. `vma` and the VMA after it are odd from
//! beginning to end (P09), so a fault in either gives up; one that a merge swallows stays odd
//! for ever. Source: `mm/mmap.c`, v5.1; P09, P11, P12, P20.

use super::kernel::Kernel;
use super::objects::{MmRef, VmaRef};
use super::types::{Errno, Vaddr};
use crate::design::Design;
use crate::platform::{Mutant, Platform, Ptr};

/// What `vma` shall be.
pub(crate) struct Bounds<'k, P: Platform> {
    pub(crate) start: Vaddr,
    pub(crate) end: Vaddr,
    pub(crate) pgoff: u64,
    /// The other half of a split: linked as soon as there is room.
    pub(crate) insert: Option<VmaRef<'k, P>>,
    /// Which VMA grows in a merge.
    pub(crate) expand: Option<VmaRef<'k, P>>,
}

/// What becomes of the VMA after `vma`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Stays,
    /// Its start moves by this many bytes, up or down (cases 4 and 5).
    Moves(i64),
    /// `vma` swallows it (cases 1 and 7).
    Removed,
    /// `vma` swallows it, and then the one after it too (case 6).
    RemovedThenNext,
    /// It swallowed `vma`, and the two have changed names (case 8).
    RemovedSwapped,
}

impl Fate {
    fn is_removed(self) -> bool {
        matches!(self, Self::Removed | Self::RemovedThenNext | Self::RemovedSwapped)
    }
}

/// One adjustment on its way. `vma` stays, `next` is what it meets.
struct Adjustment<'k, P: Platform> {
    vma: VmaRef<'k, P>,
    next: Option<VmaRef<'k, P>>,
    to: Bounds<'k, P>,
    fate: Fate,
    /// Whose anon_vma covers pages that change hands, and who gets them.
    exporter: Option<VmaRef<'k, P>>,
    importer: VmaRef<'k, P>,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `vma_adjust()`: as [`Kernel::vma_adjust_keeping`], all ended.
    pub(crate) fn vma_adjust(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        to: Bounds<'_, P>,
    ) -> Result<(), Errno> {
        self.vma_adjust_keeping(cpu, vma, to, false)
    }

    /// `__vma_adjust()`. Caller holds `mmap_sem` for write. Fails (`ENOMEM`) only before
    /// anything has changed. With `keep_locked` the VMA that stays is still odd afterwards (P11);
    /// on failure it is not.
    pub(super) fn vma_adjust_keeping(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        to: Bounds<'_, P>,
        keep_locked: bool,
    ) -> Result<(), Errno> {
        let _step = cpu.step("vma_adjust");
        let mm = self.mms.get(cpu, vma.vm_mm().read(cpu));
        let next = self.vm_next(cpu, vma);
        D::vm_write_begin(cpu, vma);
        if let Some(next) = next {
            D::vm_write_begin(cpu, next);
        }
        let mut change = self.plan_adjust(cpu, vma, next, to);
        if let Err(errno) = self.import_anon_vma(cpu, &change) {
            // P11: odd for ever otherwise.
            if !cpu.mutant(Mutant::A27) {
                self.end_next(cpu, next);
                D::vm_write_end(cpu, vma);
            }
            return Err(errno);
        }
        loop {
            self.vma_adjust_trans_huge(cpu, mm, vma, &change);
            self.move_boundaries(cpu, mm, &change);
            if !change.fate.is_removed() {
                break;
            }
            self.free_swallowed(cpu, mm, &change);
            let again = change.fate == Fate::RemovedThenNext;
            self.meet_new_next(cpu, &mut change);
            if !again {
                if let Some(next) = change.next {
                    self.vma_gap_update(cpu, next);
                }
                break;
            }
            change.fate = Fate::Removed;
        }
        self.end_next(cpu, change.next.filter(|&next| next != change.vma));
        if !keep_locked || cpu.mutant(Mutant::A3) {
            D::vm_write_end(cpu, change.vma);
        }
        Ok(())
    }

    fn end_next(&self, cpu: &P, next: Option<VmaRef<'_, P>>) {
        if let Some(next) = next {
            D::vm_write_end(cpu, next);
        }
    }

    /// Tells the merge cases apart by where the new end lies.
    fn plan_adjust<'k>(
        &'k self,
        cpu: &P,
        vma: VmaRef<'k, P>,
        next: Option<VmaRef<'k, P>>,
        to: Bounds<'k, P>,
    ) -> Adjustment<'k, P> {
        let (new_end, expand, inserts) = (to.end, to.expand, to.insert.is_some());
        let mut change =
            Adjustment { vma, next, to, fate: Fate::Stays, exporter: None, importer: vma };
        let Some(next) = next.filter(|_| !inserts) else { return change };
        let next_start = next.vm_start().read(cpu);
        let next_end = next.vm_end().read(cpu);
        let old_end = vma.vm_end().read(cpu);
        if new_end >= next_end {
            change.exporter = Some(next);
            if expand == Some(next) {
                // Case 8: the lower one goes. From here on `vma` names the one that stays.
                change.fate = Fate::RemovedSwapped;
                change.exporter = Some(vma);
                change.importer = next;
                (change.vma, change.next) = (next, Some(vma));
            } else if new_end > next_end {
                // Case 6: the second of two goes in a second round.
                change.fate = Fate::RemovedThenNext;
                change.to.end = next_end;
                if next.anon_vma().read(cpu).is_null() {
                    change.exporter = self.vm_next(cpu, next);
                }
            } else {
                change.fate = Fate::Removed;
            }
        } else if new_end > next_start {
            change.fate = Fate::Moves(new_end.since(next_start) as i64);
            change.exporter = Some(next);
        } else if new_end < old_end {
            change.fate = Fate::Moves(-(old_end.since(new_end) as i64));
            change.exporter = Some(vma);
            change.importer = next;
        }
        change
    }

    /// The VMA that grows needs the anon_vma of the pages it takes over. The change from NULL
    /// needs no bracket: to a fault NULL means "give up". Source: P12.
    fn import_anon_vma(&self, cpu: &P, change: &Adjustment<'_, P>) -> Result<(), Errno> {
        let Some(exporter) = change.exporter else { return Ok(()) };
        let anon_vma = exporter.anon_vma().read(cpu);
        if anon_vma.is_null() || !change.importer.anon_vma().read(cpu).is_null() {
            return Ok(());
        }
        change.importer.anon_vma().write(cpu, anon_vma);
        self.anon_vma_clone(cpu, change.importer, exporter)
    }

    /// `vma_adjust_trans_huge()`: no huge page may lie across a new boundary of `vma`, the VMA
    /// that was to be adjusted, or of the one after it.
    fn vma_adjust_trans_huge(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        change: &Adjustment<'_, P>,
    ) {
        self.split_huge_pmd_at(cpu, mm, vma, change.to.start);
        self.split_huge_pmd_at(cpu, mm, vma, change.to.end);
        if let (Fate::Moves(bytes @ 1..), Some(next)) = (change.fate, change.next) {
            self.split_huge_pmd_at(cpu, mm, next, next.vm_start().read(cpu).offset(bytes as u64));
        }
    }

    /// Stores the new boundaries, and unlinks or links whom they concern, with rmap kept out.
    fn move_boundaries(&self, cpu: &P, mm: MmRef<'_, P>, change: &Adjustment<'_, P>) {
        let vma = change.vma;
        let mut anon_vma = vma.anon_vma().read(cpu);
        if let (Fate::Moves(_), Some(next), true) = (change.fate, change.next, anon_vma.is_null()) {
            anon_vma = next.anon_vma().read(cpu);
        }
        let file = self.i_mmap_lock_write(cpu, vma);
        if let (Some(_), Some(insert)) = (&file, change.to.insert) {
            self.vma_link_file(cpu, insert);
        }
        // anon_vma_lock_write(): rmap must not look for a page by half-moved boundaries.
        let anon_vma = self.anon_vmas.get_opt(cpu, anon_vma);
        let rmap = anon_vma.map(|anon_vma| self.anon_vma_sem(cpu, anon_vma));
        if let Some(rmap) = &rmap {
            rmap.down_write(cpu);
        }
        let (start_changed, end_changed) = self.store_boundaries(cpu, change);
        if let (Some(_), Some(next)) = (&file, change.next.filter(|_| change.fate.is_removed())) {
            self.remove_shared_vm_struct(cpu, next);
        }
        match (change.next.filter(|_| change.fate.is_removed()), change.to.insert) {
            (Some(next), _) => self.vma_unlink(cpu, mm, next),
            (None, Some(insert)) => self.insert_vm_struct(cpu, mm, insert),
            (None, None) => {
                if start_changed {
                    self.vma_gap_update(cpu, vma);
                }
                match change.next {
                    None if end_changed => mm.highest_vm_end().write(cpu, change.to.end),
                    // When the start of `next` moved too, the gap between stays nothing.
                    Some(next) if end_changed && change.fate == Fate::Stays => {
                        self.vma_gap_update(cpu, next);
                    }
                    _ => {}
                }
            }
        }
        if let Some(rmap) = &rmap {
            rmap.up_write(cpu);
        }
        if let Some(file) = file {
            file.up_write(cpu);
        }
    }

    /// Returns whether start and end of `vma` changed. Their place among those that map the same
    /// file goes by their offsets.
    fn store_boundaries(&self, cpu: &P, change: &Adjustment<'_, P>) -> (bool, bool) {
        let (vma, to) = (change.vma, &change.to);
        let moved = change.next.filter(|_| matches!(change.fate, Fate::Moves(_)));
        [Some(vma), moved].into_iter().flatten().for_each(|vma| {
            self.remove_shared_vm_struct(cpu, vma);
        });
        let start_changed = vma.vm_start().read(cpu) != to.start;
        if start_changed {
            vma.vm_start().write(cpu, to.start);
        }
        let end_changed = vma.vm_end().read(cpu) != to.end;
        if end_changed {
            vma.vm_end().write(cpu, to.end);
        }
        vma.vm_pgoff().write(cpu, to.pgoff);
        if let (Fate::Moves(bytes), Some(next)) = (change.fate, change.next) {
            let start = next.vm_start().read(cpu);
            next.vm_start().write(cpu, Vaddr(start.0.wrapping_add_signed(bytes)));
            let pages = bytes >> self.page_shift();
            let pgoff = next.vm_pgoff().read(cpu);
            next.vm_pgoff().write(cpu, pgoff.wrapping_add_signed(pages));
        }
        [moved, Some(vma)].into_iter().flatten().for_each(|vma| self.vma_link_file(cpu, vma));
        (start_changed, end_changed)
    }

    /// Drops what the swallowed VMA had. It is unlinked, and odd for ever: a fault that still
    /// holds it must not take it for stable. Source: P09, P20.
    fn free_swallowed(&self, cpu: &P, mm: MmRef<'_, P>, change: &Adjustment<'_, P>) {
        let Some(swallowed) = change.next else { return };
        let file = swallowed.vm_file().read(cpu);
        if file != Ptr::NULL {
            self.fput(cpu, file);
        }
        if !swallowed.anon_vma().read(cpu).is_null() {
            // anon_vma_merge(): `vma` has the same anon_vma.
            self.unlink_anon_vmas(cpu, swallowed);
        }
        self.add_map_count(cpu, mm, -1);
        D::put_vma(self, cpu, swallowed);
    }

    /// After a removal `vma` meets another VMA, whose write section begins here so that the end
    /// at the bottom finds it open.
    fn meet_new_next<'k>(&'k self, cpu: &P, change: &mut Adjustment<'k, P>) {
        if change.fate == Fate::RemovedSwapped {
            // The one that grew downwards: the gap that changed is the one before it.
            change.next = Some(change.vma);
            return;
        }
        change.next = self.vm_next(cpu, change.vma);
        if let Some(next) = change.next {
            if !cpu.mutant(Mutant::A28) {
                D::vm_write_begin(cpu, next);
            }
            if change.fate == Fate::RemovedThenNext {
                change.to.end = next.vm_end().read(cpu);
            }
        }
    }
}
