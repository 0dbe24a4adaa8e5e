//! The two lists that an `anon_vma_chain` is on: those of its VMA and those of its anon_vma.
//!
//! Source: `mm/rmap.c`, v5.1. Who may change them: `anon_vma.rs`.

use super::kernel::Kernel;
use super::objects::{AnonVmaRef, AvcRef, VmaRef};
use crate::design::Design;
use crate::platform::Platform;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `anon_vma_chain_link()`: puts a fresh chain first on both lists.
    pub(super) fn anon_vma_chain_link(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        avc: AvcRef<'_, P>,
        anon_vma: AnonVmaRef<'_, P>,
    ) {
        avc.vma().poke(vma.ptr());
        avc.anon_vma().poke(anon_vma.ptr());
        let second = vma.anon_vma_chain().read(cpu);
        avc.same_vma_next().poke(second);
        match self.avcs.get_opt(cpu, second) {
            Some(second) => second.same_vma_prev().write(cpu, avc.ptr()),
            None => vma.anon_vma_chain_last().write(cpu, avc.ptr()),
        }
        vma.anon_vma_chain().write(cpu, avc.ptr());
        self.rb_insert(cpu, avc, anon_vma);
    }

    /// `anon_vma_interval_tree_insert()`
    fn rb_insert(&self, cpu: &P, avc: AvcRef<'_, P>, anon_vma: AnonVmaRef<'_, P>) {
        let second = anon_vma.rb_root().read(cpu);
        avc.rb_next().poke(second);
        if let Some(second) = self.avcs.get_opt(cpu, second) {
            second.rb_prev().write(cpu, avc.ptr());
        }
        anon_vma.rb_root().write(cpu, avc.ptr());
    }

    /// `anon_vma_interval_tree_remove()`
    pub(super) fn rb_remove(&self, cpu: &P, avc: AvcRef<'_, P>, anon_vma: AnonVmaRef<'_, P>) {
        let (prev, next) = (avc.rb_prev().read(cpu), avc.rb_next().read(cpu));
        match self.avcs.get_opt(cpu, prev) {
            Some(before) => before.rb_next().write(cpu, next),
            None => anon_vma.rb_root().write(cpu, next),
        }
        if let Some(after) = self.avcs.get_opt(cpu, next) {
            after.rb_prev().write(cpu, prev);
        }
    }

    /// `list_del(&avc->same_vma)`
    pub(super) fn same_vma_del(&self, cpu: &P, vma: VmaRef<'_, P>, avc: AvcRef<'_, P>) {
        let (prev, next) = (avc.same_vma_prev().read(cpu), avc.same_vma_next().read(cpu));
        match self.avcs.get_opt(cpu, prev) {
            Some(before) => before.same_vma_next().write(cpu, next),
            None => vma.anon_vma_chain().write(cpu, next),
        }
        match self.avcs.get_opt(cpu, next) {
            Some(after) => after.same_vma_prev().write(cpu, prev),
            None => vma.anon_vma_chain_last().write(cpu, prev),
        }
    }
}
