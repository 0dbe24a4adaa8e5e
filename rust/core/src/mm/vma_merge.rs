//! Merging and splitting VMAs.
//!
//! Source: `mm/mmap.c`, v5.1.

use std::ops::Range;

use super::kernel::Kernel;
use super::mempolicy::Mempolicy;
use super::objects::{AnonVma, Inode, MmRef, VmaRef};
use super::types::{Errno, Vaddr, VmFlags};
use super::vma::VM_SPECIAL;
use super::vma_adjust::Bounds;
use crate::design::Design;
use crate::platform::{Ordering, Platform, Ptr};

/// What is, or is going to be, at `start..end`.
pub(crate) struct MergeRequest<P: Platform> {
    pub(crate) start: Vaddr,
    pub(crate) end: Vaddr,
    pub(crate) flags: VmFlags,
    pub(crate) anon_vma: Ptr<AnonVma<P>>,
    pub(crate) file: Ptr<Inode<P>>,
    pub(crate) pgoff: u64,
    pub(crate) policy: Ptr<Mempolicy<P>>,
}

/// Which part of a split VMA the new one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NewHalf {
    Below,
    Above,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `vma_merge()`: tries to make `request` part of `prev`, of the VMA after it, or of both.
    /// Returns the VMA that then holds it. Caller holds `mmap_sem` for write; `prev` is the
    /// last VMA that begins below `request.start`.
    ///
    /// The cases, with `P` the VMA `prev`, `N` the one after the range, `X` another one in the
    /// range, `a` the range:
    /// ```text
    ///  1  PPaaNN  →  PPPPPP     5  PPaXXX  →  PPPXXX   (a is the head of X)
    ///  2  PPaa..  →  PPPP..     6  PPaaNN  →  PPPPPP   (a is X, which goes with N)
    ///  3  ..aaNN  →  ..NNNN     7  PPaaNN  →  PPPPNN   (a is X, which goes)
    ///  4  PPPaNN  →  PPPNNN     8  PPaaNN  →  PPNNNN   (a is X, which goes)
    ///        (a is the tail of P)
    /// ```
    pub(crate) fn vma_merge<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        prev: Option<VmaRef<'k, P>>,
        request: &MergeRequest<P>,
    ) -> Option<VmaRef<'k, P>> {
        self.merge(cpu, mm, prev, request, false)
    }

    /// `__vma_merge(…, keep_locked)`: as [`Kernel::vma_merge`] into a place that is free, but the
    /// VMA comes back odd, for the caller to end. Source: P11.
    pub(super) fn vma_merge_keep_locked<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        prev: Option<VmaRef<'k, P>>,
        request: &MergeRequest<P>,
    ) -> Option<VmaRef<'k, P>> {
        self.merge(cpu, mm, prev, request, true)
    }

    fn merge<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        prev: Option<VmaRef<'k, P>>,
        request: &MergeRequest<P>,
        keep_locked: bool,
    ) -> Option<VmaRef<'k, P>> {
        if request.flags.has(VM_SPECIAL) || !self.config.system.merging {
            return None;
        }
        // `area` is what the range is or lies in, unless nothing is there yet; then, and when
        // the range is the head of `area`, it is the VMA that follows, too.
        let area = self.vma_after(cpu, mm, prev);
        let next = match area {
            Some(area) if area.vm_end().read(cpu) == request.end => self.vm_next(cpu, area),
            _ => area,
        };
        let next = next.filter(|&next| self.can_vma_merge_before(cpu, next, request));
        if let Some(prev) = prev
            && self.can_vma_merge_after(cpu, prev, request)
        {
            return self.merge_after(cpu, prev, next, request, keep_locked);
        }
        self.merge_before(cpu, prev, area?, next?, request, keep_locked)
    }

    /// Cases 1, 2, 5, 6, 7: `prev` grows, over `next` too if it may.
    fn merge_after<'k>(
        &'k self,
        cpu: &P,
        prev: VmaRef<'k, P>,
        next: Option<VmaRef<'k, P>>,
        request: &MergeRequest<P>,
        keep_locked: bool,
    ) -> Option<VmaRef<'k, P>> {
        let with_next = next.filter(|next| {
            let (ours, theirs) = (prev.anon_vma().read(cpu), next.anon_vma().read(cpu));
            self.is_mergeable_anon_vma(cpu, ours, theirs, None)
        });
        let bounds = Bounds {
            start: prev.vm_start().read(cpu),
            end: with_next.map_or(request.end, |next| next.vm_end().read(cpu)),
            pgoff: prev.vm_pgoff().read(cpu),
            insert: None,
            expand: Some(prev),
        };
        self.vma_adjust_keeping(cpu, prev, bounds, keep_locked).ok().map(|()| prev)
    }

    /// Cases 3, 4, 8: `next` grows downwards.
    fn merge_before<'k>(
        &'k self,
        cpu: &P,
        prev: Option<VmaRef<'k, P>>,
        area: VmaRef<'k, P>,
        next: VmaRef<'k, P>,
        request: &MergeRequest<P>,
        keep_locked: bool,
    ) -> Option<VmaRef<'k, P>> {
        let pages = request.end.since(request.start) >> self.page_shift();
        let shrinking = prev.filter(|prev| request.start < prev.vm_end().read(cpu));
        let (vma, start, end, pgoff) = match shrinking {
            Some(prev) => {
                let start = prev.vm_start().read(cpu);
                (prev, start, request.start, prev.vm_pgoff().read(cpu))
            }
            // In case 3 `area` is `next`, in case 8 it is what `next` swallows.
            None => {
                let pgoff = next.vm_pgoff().read(cpu) - pages;
                (area, request.start, next.vm_end().read(cpu), pgoff)
            }
        };
        let bounds = Bounds { start, end, pgoff, insert: None, expand: Some(next) };
        self.vma_adjust_keeping(cpu, vma, bounds, keep_locked).ok().map(|()| next)
    }

    /// `can_vma_merge_before()`, and whether `vma` begins where the range ends.
    fn can_vma_merge_before(&self, cpu: &P, vma: VmaRef<'_, P>, request: &MergeRequest<P>) -> bool {
        let pages = request.end.since(request.start) >> self.page_shift();
        vma.vm_start().read(cpu) == request.end
            && self.is_mergeable_vma(cpu, vma, request)
            && vma.vm_pgoff().read(cpu) == request.pgoff.wrapping_add(pages)
    }

    /// `can_vma_merge_after()`, and whether `vma` ends where the range begins.
    fn can_vma_merge_after(&self, cpu: &P, vma: VmaRef<'_, P>, request: &MergeRequest<P>) -> bool {
        let end = vma.vm_end().read(cpu);
        end == request.start
            && self.is_mergeable_vma(cpu, vma, request)
            && self.pgoff_of(cpu, vma, end) == request.pgoff
    }

    /// `is_mergeable_vma()`, `mpol_equal()` and `is_mergeable_anon_vma()` of one neighbour.
    /// (Of our `vm_ops` hugetlb's alone have `close`, which forbids it, and so does `VM_SPECIAL`.)
    fn is_mergeable_vma(&self, cpu: &P, vma: VmaRef<'_, P>, request: &MergeRequest<P>) -> bool {
        let difference = vma.vm_flags().read(cpu).0 ^ request.flags.0;
        let theirs = vma.anon_vma().read(cpu);
        difference & !VmFlags::SOFTDIRTY.0 == 0
            && vma.vm_file().read(cpu) == request.file
            && self.mpol_equal(cpu, vma.vm_policy().read(cpu), request.policy)
            && self.is_mergeable_anon_vma(cpu, request.anon_vma, theirs, Some(vma))
    }

    /// `is_mergeable_anon_vma()`: the same, or one of them none. With `vma` the latter only if
    /// that VMA has exactly one chain: merging with what came from a parent would lengthen the
    /// chains. (A VMA with none at all does not count as single in 5.1, so an untouched VMA
    /// merges with a touched range only in the other direction.)
    fn is_mergeable_anon_vma(
        &self,
        cpu: &P,
        one: Ptr<AnonVma<P>>,
        other: Ptr<AnonVma<P>>,
        vma: Option<VmaRef<'_, P>>,
    ) -> bool {
        let one_is_none = one.is_null() || other.is_null();
        one == other
            || one_is_none && vma.is_none_or(|vma| self.anon_vma_chain_is_singular(cpu, vma))
    }

    /// `split_vma()`: makes two VMAs of one, unless that would be one too many (`ENOMEM`).
    pub(crate) fn split_vma(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        address: Vaddr,
        new_half: NewHalf,
    ) -> Result<(), Errno> {
        if mm.map_count().read(cpu) >= self.max_map_count(cpu) {
            return Err(Errno::Enomem);
        }
        self.split_vma_unlimited(cpu, vma, address, new_half)
    }

    /// `__split_vma()`: [`Kernel::split_vma`] without the limit. `vma` stays the half that
    /// `new_half` is not.
    pub(crate) fn split_vma_unlimited(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        address: Vaddr,
        new_half: NewHalf,
    ) -> Result<(), Errno> {
        let _step = cpu.step("split_vma");
        if !self.may_split(cpu, vma, address) {
            return Err(Errno::Einval);
        }
        let new = self.vm_area_dup(cpu, vma);
        let (start, end) = (vma.vm_start().read(cpu), vma.vm_end().read(cpu));
        let pgoff_above = self.pgoff_of(cpu, vma, address);
        match new_half {
            NewHalf::Below => new.vm_end().poke(address),
            NewHalf::Above => {
                new.vm_start().poke(address);
                new.vm_pgoff().poke(pgoff_above);
            }
        }
        if let Err(errno) = self.anon_vma_clone(cpu, new, vma) {
            self.vm_area_free(cpu, new);
            return Err(errno);
        }
        let file = vma.vm_file().read(cpu);
        if !file.is_null() {
            self.get_file(cpu, file);
        }
        self.hugetlb_vm_op_open(cpu, new);
        let (start, end, pgoff) = match new_half {
            NewHalf::Below => (address, end, pgoff_above),
            NewHalf::Above => (start, address, vma.vm_pgoff().read(cpu)),
        };
        let bounds = Bounds { start, end, pgoff, insert: Some(new), expand: None };
        // With `insert` no anon_vma is imported, so this cannot fail.
        self.vma_adjust(cpu, vma, bounds)
    }

    /// The loop of mprotect and of mlock: `fixup` gives the part of `start..end` that is in a VMA
    /// what `new_flags` makes of its flags, and returns the VMA that holds it afterwards. A hole
    /// ends it with `ENOMEM`; what comes before stays done.
    pub(crate) fn change_flags_of_range<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        start: Vaddr,
        end: Vaddr,
        new_flags: impl Fn(VmFlags) -> Result<VmFlags, Errno>,
        fixup: impl Fn(
            VmaRef<'k, P>,
            Option<VmaRef<'k, P>>,
            Range<Vaddr>,
            VmFlags,
        ) -> Result<VmaRef<'k, P>, Errno>,
    ) -> Result<(), Errno> {
        let mut vma = self.find_vma(cpu, mm, start).ok_or(Errno::Enomem)?;
        let vm_start = vma.vm_start().read(cpu);
        if vm_start > start {
            return Err(Errno::Enomem);
        }
        let mut prev = if start > vm_start { Some(vma) } else { self.vm_prev(cpu, vma) };
        let mut at = start;
        loop {
            // Here `at` is inside `vma`.
            let flags = new_flags(vma.vm_flags().read(cpu))?;
            let to = vma.vm_end().read(cpu).min(end);
            let done = fixup(vma, prev, at..to, flags)?;
            // A merge may have gone further than asked.
            at = to.max(done.vm_end().read(cpu));
            if at >= end {
                return Ok(());
            }
            prev = Some(done);
            vma = self
                .vm_next(cpu, done)
                .filter(|next| next.vm_start().read(cpu) == at)
                .ok_or(Errno::Enomem)?;
        }
    }

    /// Stores `vm_flags`, in a section of its own. Source: P10.
    pub(crate) fn set_vm_flags(&self, cpu: &P, vma: VmaRef<'_, P>, flags: VmFlags) {
        D::vm_write_begin(cpu, vma);
        vma.vm_flags().write(cpu, flags);
        D::vm_write_end(cpu, vma);
    }

    /// Makes the range, which is in `vma`, a VMA of its own, or part of a neighbour that has
    /// `flags` already. Fails with `ENOMEM` when there would be too many VMAs.
    ///
    /// The common part of `mprotect_fixup()` and `madvise_behavior()`.
    pub(crate) fn merge_or_split<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        vma: VmaRef<'k, P>,
        prev: Option<VmaRef<'k, P>>,
        range: Range<Vaddr>,
        flags: VmFlags,
    ) -> Result<VmaRef<'k, P>, Errno> {
        let request = MergeRequest {
            start: range.start,
            end: range.end,
            flags,
            anon_vma: vma.anon_vma().read(cpu),
            file: vma.vm_file().read(cpu),
            pgoff: self.pgoff_of(cpu, vma, range.start),
            policy: vma.vm_policy().read(cpu),
        };
        if let Some(merged) = self.vma_merge(cpu, mm, prev, &request) {
            return Ok(merged);
        }
        if range.start != vma.vm_start().read(cpu) {
            self.split_vma(cpu, mm, vma, range.start, NewHalf::Below)?;
        }
        if range.end != vma.vm_end().read(cpu) {
            self.split_vma(cpu, mm, vma, range.end, NewHalf::Above)?;
        }
        Ok(vma)
    }

    /// `sysctl_max_map_count`
    pub(crate) fn max_map_count(&self, cpu: &P) -> u64 {
        cpu.load(&self.sysctl_max_map_count, Ordering::Relaxed)
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/vma_merge.rs"]
mod tests;
