//! The VMA tree: a red-black tree over words; each node knows the largest gap in its subtree.
//!
//! Writers hold `mmap_sem` for write and bracket structural changes with the design's
//! `tree_write_begin` and `tree_write_end`. A reader without `mmap_sem` follows only the child
//! words, from the root down. It is promised that these never form a cycle, at whatever moment
//! it loads them, so that it arrives somewhere; but it can miss a VMA while a rotation is half
//! done, and has to look again when `mm_seq` says so (P19). An erased node keeps its children
//! for those who stand on it.
//!
//! Source: `lib/rbtree.c`, `mm/mmap.c`, v5.1; P19, P21.

use super::kernel::Kernel;
use super::objects::{MmRef, Vma, VmaRef};
use super::types::VmFlags;
use crate::design::Design;
use crate::platform::{Field, Platform, Ptr};

/// `stack_guard_gap`, in pages: kept free below a VMA that grows down.
pub(super) const STACK_GUARD_PAGES: u64 = 256;

/// Which child of its parent a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// The word that holds the child of `node` on `side`.
#[inline(always)]
pub(super) fn child_word<'k, P: Platform>(
    node: VmaRef<'k, P>,
    side: Side,
) -> Field<'k, P, Ptr<Vma<P>>> {
    match side {
        Side::Left => node.rb_left(),
        Side::Right => node.rb_right(),
    }
}

/// The pointer to `node`, or NULL.
fn ptr_of<P: Platform>(node: Option<VmaRef<'_, P>>) -> Ptr<Vma<P>> {
    node.map_or(Ptr::NULL, |node| node.ptr())
}

impl<P: Platform, D: Design> Kernel<P, D> {
    pub(super) fn rb_child(
        &self,
        cpu: &P,
        node: VmaRef<'_, P>,
        side: Side,
    ) -> Option<VmaRef<'_, P>> {
        self.vmas.get_opt(cpu, child_word(node, side).read(cpu))
    }

    pub(super) fn rb_parent_of(&self, cpu: &P, node: VmaRef<'_, P>) -> Option<VmaRef<'_, P>> {
        self.vmas.get_opt(cpu, node.rb_parent().read(cpu))
    }

    /// `vm_start_gap()`: where the gap before `vma` must end.
    pub(crate) fn vm_start_gap(&self, cpu: &P, vma: VmaRef<'_, P>) -> u64 {
        let start = vma.vm_start().read(cpu).0;
        if vma.vm_flags().read(cpu).has(VmFlags::GROWSDOWN) {
            start.saturating_sub(STACK_GUARD_PAGES << self.page_shift())
        } else {
            start
        }
    }

    /// The gap before `vma`: where the VMA before it ends, and where it begins itself.
    pub(super) fn gap_before(&self, cpu: &P, vma: VmaRef<'_, P>) -> (u64, u64) {
        let prev = self.vmas.get_opt(cpu, vma.vm_prev().read(cpu));
        (prev.map_or(0, |prev| prev.vm_end().read(cpu).0), self.vm_start_gap(cpu, vma))
    }

    /// `vma_compute_subtree_gap()`
    fn compute_subtree_gap(&self, cpu: &P, vma: VmaRef<'_, P>) -> u64 {
        let (start, end) = self.gap_before(cpu, vma);
        [Side::Left, Side::Right]
            .into_iter()
            .filter_map(|side| self.rb_child(cpu, vma, side))
            .map(|child| child.rb_subtree_gap().read(cpu))
            .fold(end.saturating_sub(start), u64::max)
    }

    /// Recomputes the gaps from `node` up, to `stop` (exclusive) or where nothing changes.
    fn propagate_gap(&self, cpu: &P, node: Option<VmaRef<'_, P>>, stop: Option<VmaRef<'_, P>>) {
        let mut cursor = node;
        while let Some(vma) = cursor {
            if cursor == stop {
                return;
            }
            let gap = self.compute_subtree_gap(cpu, vma);
            if vma.rb_subtree_gap().read(cpu) == gap {
                return;
            }
            vma.rb_subtree_gap().write(cpu, gap);
            cursor = self.rb_parent_of(cpu, vma);
        }
    }

    /// `vma_gap_update()`: after the gap before `vma` changed. Gaps alone may change outside the
    /// tree's bracket: no reader without `mmap_sem` looks at them.
    pub(crate) fn vma_gap_update(&self, cpu: &P, vma: VmaRef<'_, P>) {
        self.propagate_gap(cpu, Some(vma), None);
    }

    /// Makes `new` (or nothing) the child of `parent` (or the root) where `old` was.
    fn change_child(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        parent: Option<VmaRef<'_, P>>,
        old: VmaRef<'_, P>,
        new: Option<VmaRef<'_, P>>,
    ) {
        let word = match parent {
            None => mm.mm_rb(),
            Some(parent) if parent.rb_left().read(cpu) == old.ptr() => parent.rb_left(),
            Some(parent) => parent.rb_right(),
        };
        word.write(cpu, ptr_of(new));
    }

    /// Makes `new` the child of `node` on `side`.
    fn set_child(&self, cpu: &P, node: VmaRef<'_, P>, side: Side, new: Option<VmaRef<'_, P>>) {
        child_word(node, side).write(cpu, ptr_of(new));
        if let Some(new) = new {
            new.rb_parent().write(cpu, node.ptr());
        }
    }

    /// Turns the tree at `top` so that it goes down on `side` and its child on the other side
    /// takes its place.
    ///
    /// ```text
    ///      top              up
    ///     /   \            /  \
    ///    a     up   →   top    c        (side: left)
    ///         /  \      /  \
    ///        b    c    a    b
    /// ```
    /// The stores go from `top` down to the word above it: a reader sees `b` at two places for
    /// a while and may miss what is under `up`, but no cycle.
    fn rotate(&self, cpu: &P, mm: MmRef<'_, P>, top: VmaRef<'_, P>, side: Side) {
        let Some(up) = self.rb_child(cpu, top, side.other()) else {
            cpu.finding("vma-tree", format!("{:?} turns {side:?} without a child", top.ptr()));
        };
        let above = self.rb_parent_of(cpu, top);
        let inner = self.rb_child(cpu, up, side);
        self.set_child(cpu, top, side.other(), inner);
        self.set_child(cpu, up, side, Some(top));
        up.rb_parent().write(cpu, ptr_of(above));
        self.change_child(cpu, mm, above, top, Some(up));
        // The subtree as a whole has the gap it had.
        up.rb_subtree_gap().write(cpu, top.rb_subtree_gap().read(cpu));
        top.rb_subtree_gap().write(cpu, self.compute_subtree_gap(cpu, top));
    }

    /// `rb_link_node()`: hangs `vma` in as a red leaf.
    fn rb_link_node(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        side: Side,
        parent: Option<VmaRef<'_, P>>,
    ) {
        vma.rb_parent().write(cpu, ptr_of(parent));
        vma.rb_red().write(cpu, true);
        vma.rb_left().write(cpu, Ptr::NULL);
        vma.rb_right().write(cpu, Ptr::NULL);
        // Plain, as in the kernel: the fields of the VMA come first by the wmb that
        // `write_seqlock` did after them; pairs with the Consume in `find_vma_uncached`.
        let word = parent.map_or(mm.mm_rb(), |parent| child_word(parent, side));
        word.write(cpu, vma.ptr());
    }

    /// `__vma_link_rb()`: puts `vma`, already in the list, into the tree under `parent`.
    pub(crate) fn vma_link_rb(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        side: Side,
        parent: Option<VmaRef<'_, P>>,
    ) {
        match self.vmas.get_opt(cpu, vma.vm_next().read(cpu)) {
            Some(next) => self.vma_gap_update(cpu, next),
            None => mm.highest_vm_end().write(cpu, vma.vm_end().read(cpu)),
        }
        D::tree_write_begin(cpu, mm);
        self.rb_link_node(cpu, mm, vma, side, parent);
        // Its parents do not know of it yet: 0 is what they assume.
        vma.rb_subtree_gap().write(cpu, 0);
        self.vma_gap_update(cpu, vma);
        D::get_vma(cpu, vma);
        self.rb_insert_color(cpu, mm, vma);
        D::tree_write_end(cpu, mm);
    }

    /// Restores the colours after the red leaf `vma` was hung in.
    fn rb_insert_color(&self, cpu: &P, mm: MmRef<'_, P>, vma: VmaRef<'_, P>) {
        let mut node = vma;
        loop {
            let Some(parent) = self.rb_parent_of(cpu, node) else {
                node.rb_red().write(cpu, false);
                return;
            };
            if !parent.rb_red().read(cpu) {
                return;
            }
            let Some(grand) = self.rb_parent_of(cpu, parent) else {
                cpu.finding("vma-tree", "the root is red".to_owned());
            };
            let side = self.side_of(cpu, grand, parent);
            let uncle = self.rb_child(cpu, grand, side.other());
            if let Some(uncle) = uncle.filter(|uncle| uncle.rb_red().read(cpu)) {
                // Two reds below a black one change places with it; go on above.
                uncle.rb_red().write(cpu, false);
                parent.rb_red().write(cpu, false);
                grand.rb_red().write(cpu, true);
                node = grand;
                continue;
            }
            let mut upper = parent;
            if self.side_of(cpu, parent, node) != side {
                self.rotate(cpu, mm, parent, side);
                upper = node;
            }
            self.rotate(cpu, mm, grand, side.other());
            upper.rb_red().write(cpu, false);
            grand.rb_red().write(cpu, true);
            return;
        }
    }

    /// On which side of `parent` the node hangs.
    fn side_of(&self, cpu: &P, parent: VmaRef<'_, P>, node: VmaRef<'_, P>) -> Side {
        if parent.rb_left().read(cpu) == node.ptr() { Side::Left } else { Side::Right }
    }

    /// `rb_erase_augmented()`. The node's own words stay as they are.
    pub(super) fn rb_erase(&self, cpu: &P, mm: MmRef<'_, P>, vma: VmaRef<'_, P>) {
        let left = self.rb_child(cpu, vma, Side::Left);
        let right = self.rb_child(cpu, vma, Side::Right);
        let (Some(left), Some(right)) = (left, right) else {
            return self.erase_with_one_child(cpu, mm, vma, left.or(right));
        };
        let mut successor = right;
        while let Some(lower) = self.rb_child(cpu, successor, Side::Left) {
            successor = lower;
        }
        let orphan = self.rb_child(cpu, successor, Side::Right);
        let lost_black = !successor.rb_red().read(cpu) && orphan.is_none();
        // Where a subtree lost a node: below the successor when it was the right child itself.
        // The successor takes over the gap, for that is what the nodes above reckon with.
        let mut hole = (successor, Side::Right);
        successor.rb_subtree_gap().write(cpu, vma.rb_subtree_gap().read(cpu));
        if successor != right
            && let Some(above) = self.rb_parent_of(cpu, successor)
        {
            hole = (above, Side::Left);
            self.set_child(cpu, above, Side::Left, orphan);
            self.set_child(cpu, successor, Side::Right, Some(right));
            self.propagate_gap(cpu, Some(above), Some(successor));
        }
        self.set_child(cpu, successor, Side::Left, Some(left));
        let parent = self.rb_parent_of(cpu, vma);
        self.change_child(cpu, mm, parent, vma, Some(successor));
        successor.rb_parent().write(cpu, ptr_of(parent));
        successor.rb_red().write(cpu, vma.rb_red().read(cpu));
        if let Some(orphan) = orphan {
            orphan.rb_red().write(cpu, false);
        }
        self.propagate_gap(cpu, Some(successor), None);
        if lost_black {
            self.rb_erase_color(cpu, mm, hole.0, hole.1);
        }
    }

    /// Erases a node that has at most one child, which then is red and takes its place.
    fn erase_with_one_child(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        child: Option<VmaRef<'_, P>>,
    ) {
        let parent = self.rb_parent_of(cpu, vma);
        let side = parent.map(|parent| self.side_of(cpu, parent, vma));
        let was_red = vma.rb_red().read(cpu);
        self.change_child(cpu, mm, parent, vma, child);
        if let Some(child) = child {
            child.rb_parent().write(cpu, ptr_of(parent));
            child.rb_red().write(cpu, was_red);
        }
        self.propagate_gap(cpu, parent, None);
        if let (None, false, Some(parent), Some(side)) = (child, was_red, parent, side) {
            self.rb_erase_color(cpu, mm, parent, side);
        }
    }

    /// Restores the colours where the subtree of `parent` on `side` is one black node short.
    fn rb_erase_color(&self, cpu: &P, mm: MmRef<'_, P>, parent: VmaRef<'_, P>, side: Side) {
        let is_red = |node: Option<VmaRef<'_, P>>| node.is_some_and(|n| n.rb_red().read(cpu));
        let (mut parent, mut side) = (parent, side);
        loop {
            let mut sibling = self.sibling(cpu, parent, side);
            if sibling.rb_red().read(cpu) {
                self.rotate(cpu, mm, parent, side);
                sibling.rb_red().write(cpu, false);
                parent.rb_red().write(cpu, true);
                sibling = self.sibling(cpu, parent, side);
            }
            let inner = self.rb_child(cpu, sibling, side);
            let outer = self.rb_child(cpu, sibling, side.other());
            if !is_red(inner) && !is_red(outer) {
                // The sibling gives up a black one too; the shortage is the parent's now.
                sibling.rb_red().write(cpu, true);
                if parent.rb_red().read(cpu) {
                    parent.rb_red().write(cpu, false);
                    return;
                }
                let Some(above) = self.rb_parent_of(cpu, parent) else { return };
                side = self.side_of(cpu, above, parent);
                parent = above;
                continue;
            }
            if let (Some(inner), false) = (inner, is_red(outer)) {
                self.rotate(cpu, mm, sibling, side.other());
                inner.rb_red().write(cpu, false);
                sibling.rb_red().write(cpu, true);
                sibling = inner;
            }
            self.rotate(cpu, mm, parent, side);
            sibling.rb_red().write(cpu, parent.rb_red().read(cpu));
            parent.rb_red().write(cpu, false);
            if let Some(outer) = self.rb_child(cpu, sibling, side.other()) {
                outer.rb_red().write(cpu, false);
            }
            return;
        }
    }

    /// The child of `parent` opposite to the side that is short: it exists, being a black node
    /// higher.
    fn sibling(&self, cpu: &P, parent: VmaRef<'_, P>, side: Side) -> VmaRef<'_, P> {
        self.rb_child(cpu, parent, side.other()).unwrap_or_else(|| {
            cpu.finding("vma-tree", format!("{:?} has no child to borrow from", parent.ptr()))
        })
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/tree.rs"]
mod tests;
