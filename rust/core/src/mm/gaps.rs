//! The address choice of mmap: the highest (or lowest) gap that is long enough.
//!
//! Both directions are one walk: nodes in order from one end, without the subtrees that hold
//! no gap of the length or lie outside the limits. Source: `mm/mmap.c`, v5.1.

use super::kernel::Kernel;
use super::objects::{MmRef, VmaRef};
use super::tree::{Side, child_word};
use crate::design::Design;
use crate::platform::Platform;

/// `struct vm_unmapped_area_info`: what is looked for, in `low..high`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnmappedAreaInfo {
    pub(crate) length: u64,
    pub(crate) low_limit: u64,
    pub(crate) high_limit: u64,
}

impl UnmappedAreaInfo {
    /// Whether a gap lies well within the limits at its end on `side`: on the left, it begins
    /// low enough below the high limit; on the right, it ends high enough above the low one.
    fn reaches(self, (start, end): (u64, u64), side: Side) -> bool {
        match side {
            Side::Left => start <= self.high_limit - self.length,
            Side::Right => end >= self.low_limit + self.length,
        }
    }

    /// Whether there is room at all; the other methods rely on it.
    fn is_sound(self) -> bool {
        self.high_limit.checked_sub(self.length).is_some_and(|limit| self.low_limit <= limit)
    }

    /// The part of a gap within the limits, if it is long enough.
    fn clip(self, (start, end): (u64, u64)) -> Option<(u64, u64)> {
        let (start, end) = (start.max(self.low_limit), end.min(self.high_limit));
        (end >= start && end - start >= self.length).then_some((start, end))
    }
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `unmapped_area_topdown()`: the highest address with room. Caller holds `mmap_sem`.
    pub(crate) fn unmapped_area_topdown(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        info: UnmappedAreaInfo,
    ) -> Option<u64> {
        if !info.is_sound() {
            return None;
        }
        let above_all = (mm.highest_vm_end().read(cpu).0, info.high_limit);
        let (_, end) =
            info.clip(above_all).or_else(|| self.first_gap_from(cpu, mm, info, Side::Right))?;
        Some(end - info.length)
    }

    /// `unmapped_area()`: the lowest address with room. Caller holds `mmap_sem`.
    pub(crate) fn unmapped_area(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        info: UnmappedAreaInfo,
    ) -> Option<u64> {
        if !info.is_sound() {
            return None;
        }
        let (start, _) = self
            .first_gap_from(cpu, mm, info, Side::Left)
            .or_else(|| info.clip((mm.highest_vm_end().read(cpu).0, info.high_limit)))?;
        Some(start)
    }

    /// The first gap with room, coming from the end of the address space that is on side
    /// `from`, among the gaps that lie before a VMA.
    fn first_gap_from(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        info: UnmappedAreaInfo,
        from: Side,
    ) -> Option<(u64, u64)> {
        let root = self.vmas.get_opt(cpu, mm.mm_rb().read(cpu));
        let mut node = root.filter(|root| root.rb_subtree_gap().read(cpu) >= info.length)?;
        let mut seen_near_side = false;
        loop {
            let gap = self.gap_before(cpu, node);
            // Beyond this node lie only gaps further on side `from`.
            if !seen_near_side
                && info.reaches(gap, from.other())
                && let Some(near) = self.promising_child(cpu, node, from, info)
            {
                node = near;
                continue;
            }
            if !info.reaches(gap, from) {
                return None;
            }
            if let Some(room) = info.clip(gap) {
                return Some(room);
            }
            if let Some(far) = self.promising_child(cpu, node, from.other(), info) {
                node = far;
                seen_near_side = false;
                continue;
            }
            node = self.climb_from(cpu, node, from)?;
            seen_near_side = true;
        }
    }

    /// The child on `side`, if a gap of the length is somewhere in its subtree.
    fn promising_child(
        &self,
        cpu: &P,
        node: VmaRef<'_, P>,
        side: Side,
        info: UnmappedAreaInfo,
    ) -> Option<VmaRef<'_, P>> {
        let child = self.rb_child(cpu, node, side)?;
        (child.rb_subtree_gap().read(cpu) >= info.length).then_some(child)
    }

    /// The nearest node above whose subtree on `side` has now been seen.
    fn climb_from(&self, cpu: &P, node: VmaRef<'_, P>, side: Side) -> Option<VmaRef<'_, P>> {
        let mut below = node;
        loop {
            let above = self.rb_parent_of(cpu, below)?;
            if child_word(above, side).read(cpu) == below.ptr() {
                return Some(above);
            }
            below = above;
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/gaps.rs"]
mod tests;
