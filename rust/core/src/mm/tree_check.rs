//! What must hold of a VMA tree at rest: `validate_mm_rb()` and more, as nobody's access.

use super::kernel::Kernel;
use super::objects::{MmRef, Vma, VmaRef};
use super::types::VmFlags;
use crate::design::Design;
use crate::platform::{Platform, Ptr};

impl<P: Platform, D: Design> Kernel<P, D> {
    /// What is wrong with the tree of `mm`, one sentence each: order, parents, colours, gaps,
    /// the list, `highest_vm_end`.
    pub fn check_vma_tree(&self, mm: MmRef<'_, P>) -> Vec<String> {
        let mut check = TreeCheck { kernel: self, wrong: Vec::new(), in_order: Vec::new() };
        check.subtree(Ptr::NULL, mm.mm_rb().peek());
        if check.node(mm.mm_rb().peek()).is_some_and(|root| root.rb_red().peek()) {
            check.wrong.push("the root is red".to_owned());
        }
        check.list(mm);
        check.wrong
    }
}

struct TreeCheck<'k, P: Platform, D: Design> {
    kernel: &'k Kernel<P, D>,
    wrong: Vec<String>,
    /// The nodes from left to right.
    in_order: Vec<Ptr<Vma<P>>>,
}

/// What a subtree has.
struct Subtree {
    nr_black: u32,
    gap: u64,
    is_red: bool,
}

impl<'k, P: Platform, D: Design> TreeCheck<'k, P, D> {
    fn node(&self, ptr: Ptr<Vma<P>>) -> Option<VmaRef<'k, P>> {
        (!ptr.is_null())
            .then(|| self.kernel.vmas.peek(ptr.index()))
            .flatten()
            .filter(|vma| vma.ptr() == ptr)
    }

    fn subtree(&mut self, parent: Ptr<Vma<P>>, ptr: Ptr<Vma<P>>) -> Subtree {
        let nothing = Subtree { nr_black: 0, gap: 0, is_red: false };
        if ptr.is_null() {
            return nothing;
        }
        let Some(vma) = self.node(ptr) else {
            self.wrong.push(format!("{ptr:?}, below {parent:?}, was freed"));
            return nothing;
        };
        if vma.rb_parent().peek() != parent {
            let told = vma.rb_parent().peek();
            self.wrong.push(format!("{ptr:?}, below {parent:?}, has the parent {told:?}"));
            return nothing;
        }
        let left = self.subtree(ptr, vma.rb_left().peek());
        self.in_order.push(ptr);
        let right = self.subtree(ptr, vma.rb_right().peek());
        let is_red = vma.rb_red().peek();
        if is_red && (left.is_red || right.is_red) {
            self.wrong.push(format!("{ptr:?} is red and has a red child"));
        }
        if left.nr_black != right.nr_black {
            let (left, right) = (left.nr_black, right.nr_black);
            self.wrong.push(format!("{ptr:?} has {left} black nodes on the left, {right} right"));
        }
        let gap = self.gap_before(vma).max(left.gap).max(right.gap);
        if vma.rb_subtree_gap().peek() != gap {
            let told = vma.rb_subtree_gap().peek();
            self.wrong.push(format!("{ptr:?} says its gap is {told:#x}, it is {gap:#x}"));
        }
        Subtree { nr_black: left.nr_black + u32::from(!is_red), gap, is_red }
    }

    fn gap_before(&self, vma: VmaRef<'k, P>) -> u64 {
        let prev_end = self.node(vma.vm_prev().peek()).map_or(0, |prev| prev.vm_end().peek().0);
        let guard = if vma.vm_flags().peek().has(VmFlags::GROWSDOWN) {
            super::tree::STACK_GUARD_PAGES << self.kernel.page_shift()
        } else {
            0
        };
        vma.vm_start().peek().0.saturating_sub(guard).saturating_sub(prev_end)
    }

    /// The list has the same VMAs in the same order, in both directions.
    fn list(&mut self, mm: MmRef<'_, P>) {
        let listed: Vec<_> = self.kernel.peek_vmas(mm).collect();
        if !listed.iter().map(|vma| vma.ptr()).eq(self.in_order.iter().copied()) {
            let (tree, list) = (self.in_order.len(), listed.len());
            self.wrong.push(format!("tree ({tree} VMAs) and list ({list}) differ"));
        }
        let mut prev = Ptr::NULL;
        for vma in &listed {
            if vma.vm_prev().peek() != prev {
                self.wrong.push(format!("{:?} does not follow {prev:?}", vma.ptr()));
            }
            prev = vma.ptr();
        }
        let highest = listed.last().map_or(0, |last| last.vm_end().peek().0);
        if mm.highest_vm_end().peek().0 != highest {
            let told = mm.highest_vm_end().peek();
            self.wrong.push(format!("highest_vm_end is {told:#x}, the last ends at {highest:#x}"));
        }
    }
}
