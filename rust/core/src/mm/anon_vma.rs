//! anon_vmas: which VMAs may map the anonymous pages of which family of processes.
//!
//! A VMA hangs on one anon_vma of its own and, after forks, on those of its ancestors; each link
//! is an `anon_vma_chain`, on two lists. All anon_vmas of a family are locked through their root.
//!
//! | what | written under |
//! |---|---|
//! | `vma->anon_vma`, NULL to a value | `mmap_sem` (read), the root's lock, `page_table_lock` |
//! | the chains of a VMA | `mmap_sem` for writing, or as above |
//! | the chains of an anon_vma, `degree` | the root's lock for writing |
//! | `refcount` | atomically |
//!
//! `degree` counts the VMAs whose `anon_vma` this is and the child anon_vmas (a root is its own
//! child). `refcount` is 1 while any chain hangs here, and 1 more on the root for each other
//! anon_vma of the family, because the lock lives in the root.
//!
//! DEVIATION: the kernel keeps the chains of an anon_vma in an interval tree, here they are a
//! list, and a walk looks at all of it.
//!
//! Source: `mm/rmap.c`, `mm/mmap.c`, v5.1.

use super::kernel::Kernel;
use super::objects::{AnonVmaRef, AvcRef, VmaRef};
use super::types::{Errno, VmFlags};
use crate::design::Design;
use crate::events::Cost;
use crate::platform::{Ordering, Platform, Ptr};
use crate::sync::refcount::{atomic_dec_and_test, atomic_inc};
use crate::sync::spinlock::{spin_lock, spin_unlock};

/// What mprotect may change without keeping two neighbours from ever merging again.
const IGNORED_BY_ANON_VMA: VmFlags =
    VmFlags(VmFlags::READ.0 | VmFlags::WRITE.0 | VmFlags::EXEC.0 | VmFlags::SOFTDIRTY.0);

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `anon_vma_prepare()`: makes sure that the VMA has an anon_vma. Caller holds `mmap_sem` at
    /// least for reading; several may be here at once for one VMA.
    #[inline]
    pub(crate) fn anon_vma_prepare(&self, cpu: &P, vma: VmaRef<'_, P>) -> Result<(), Errno> {
        if !vma.anon_vma().read(cpu).is_null() {
            return Ok(());
        }
        self.anon_vma_prepare_slow(cpu, vma).ok_or(Errno::Enomem)
    }

    /// `__anon_vma_prepare()`: takes a neighbour's, or a new one. `None`: out of memory.
    #[cold]
    fn anon_vma_prepare_slow(&self, cpu: &P, vma: VmaRef<'_, P>) -> Option<()> {
        let _step = cpu.step("__anon_vma_prepare");
        let mm = self.mms.get(cpu, vma.vm_mm().read(cpu));
        let avc = self.anon_vma_chain_alloc(cpu)?;
        let mergeable = self.find_mergeable_anon_vma(cpu, vma);
        let Some(anon_vma) = mergeable.or_else(|| self.anon_vma_alloc(cpu)) else {
            self.avcs.free(cpu, avc);
            return None;
        };
        self.anon_vma_lock_write(cpu, anon_vma);
        // Keeps threads apart that brought different anon_vmas, and so hold different locks.
        spin_lock(cpu, mm.page_table_lock());
        let first = vma.anon_vma().read(cpu).is_null();
        if first {
            // Release: a neighbour that finds it without a lock sees its root; pairs with the
            // Consume in reusable_anon_vma. (The kernel stores it plainly.)
            vma.anon_vma().store(cpu, anon_vma.ptr(), Ordering::Release);
            self.anon_vma_chain_link(cpu, vma, avc, anon_vma);
            // The VMA's, or for a new root its own: it is born with the VMA's.
            self.add_degree(cpu, anon_vma, 1);
        }
        spin_unlock(cpu, mm.page_table_lock());
        self.anon_vma_unlock_write(cpu, anon_vma);
        if !first {
            if mergeable.is_none() {
                self.put_anon_vma(cpu, anon_vma);
            }
            self.avcs.free(cpu, avc);
        }
        Some(())
    }

    /// `anon_vma_clone()`: links `dst` to everything that `src` hangs on. At fork, when `dst` has
    /// no anon_vma yet, it takes over one that has lost its VMA and has only one child, so that
    /// a chain of forks does not grow for ever; never `src`'s own, or the first child always
    /// would, and never a root, which is its own child.
    ///
    /// Caller holds `mmap_sem` of both for writing.
    pub(crate) fn anon_vma_clone(
        &self,
        cpu: &P,
        dst: VmaRef<'_, P>,
        src: VmaRef<'_, P>,
    ) -> Result<(), Errno> {
        let mut root = None;
        // Oldest first, so that the copy has the same order.
        let mut cursor = src.anon_vma_chain_last().read(cpu);
        while let Some(pavc) = self.avcs.get_opt(cpu, cursor) {
            let Some(avc) = self.anon_vma_chain_alloc(cpu) else {
                self.unlock_anon_vma_root(cpu, root);
                // Not counted in any degree yet: unlink_anon_vmas must not count it down.
                dst.anon_vma().write(cpu, Ptr::NULL);
                self.unlink_anon_vmas(cpu, dst);
                return Err(Errno::Enomem);
            };
            let anon_vma = self.anon_vmas.get(cpu, pavc.anon_vma().read(cpu));
            root = self.lock_anon_vma_root(cpu, root, anon_vma);
            self.anon_vma_chain_link(cpu, dst, avc, anon_vma);
            if dst.anon_vma().read(cpu).is_null()
                && anon_vma.ptr() != src.anon_vma().read(cpu)
                && anon_vma.degree().read(cpu) < 2
            {
                dst.anon_vma().write(cpu, anon_vma.ptr());
            }
            cursor = pavc.same_vma_prev().read(cpu);
        }
        if let Some(own) = self.anon_vmas.get_opt(cpu, dst.anon_vma().read(cpu)) {
            self.add_degree(cpu, own, 1);
        }
        self.unlock_anon_vma_root(cpu, root);
        Ok(())
    }

    /// `anon_vma_fork()`: attaches the child's copy `vma` of `pvma` to the family, with an
    /// anon_vma of its own for the pages that it will copy.
    pub(crate) fn anon_vma_fork(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        pvma: VmaRef<'_, P>,
    ) -> Result<(), Errno> {
        let parent = pvma.anon_vma().read(cpu);
        if parent.is_null() {
            return Ok(());
        }
        // Inherited by the copy of the struct; it was never counted.
        vma.anon_vma().write(cpu, Ptr::NULL);
        self.anon_vma_clone(cpu, vma, pvma)?;
        if !vma.anon_vma().read(cpu).is_null() {
            return Ok(());
        }
        let parent = self.anon_vmas.get(cpu, parent);
        self.add_own_anon_vma(cpu, vma, parent).ok_or_else(|| {
            self.unlink_anon_vmas(cpu, vma);
            Errno::Enomem
        })
    }

    /// The second half of `anon_vma_fork()`. `None`: out of memory.
    fn add_own_anon_vma(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        parent: AnonVmaRef<'_, P>,
    ) -> Option<()> {
        let anon_vma = self.anon_vma_alloc(cpu)?;
        let Some(avc) = self.anon_vma_chain_alloc(cpu) else {
            self.put_anon_vma(cpu, anon_vma);
            return None;
        };
        let root = self.anon_vmas.get(cpu, parent.root().read(cpu));
        anon_vma.root().poke(root.ptr());
        anon_vma.parent().poke(parent.ptr());
        // It may outlive every other of the family, and its lock is in the root.
        atomic_inc(cpu, root.refcount());
        vma.anon_vma().write(cpu, anon_vma.ptr());
        self.anon_vma_lock_write(cpu, anon_vma);
        self.anon_vma_chain_link(cpu, vma, avc, anon_vma);
        self.add_degree(cpu, parent, 1);
        self.anon_vma_unlock_write(cpu, anon_vma);
        Some(())
    }

    /// `unlink_anon_vmas()`: takes the VMA off every anon_vma, and frees those that it leaves
    /// empty. `vma->anon_vma` keeps its value, as in the kernel: the VMA is going.
    pub(crate) fn unlink_anon_vmas(&self, cpu: &P, vma: VmaRef<'_, P>) {
        let mut root = None;
        let mut cursor = vma.anon_vma_chain().read(cpu);
        while let Some(avc) = self.avcs.get_opt(cpu, cursor) {
            cursor = avc.same_vma_next().read(cpu);
            let anon_vma = self.anon_vmas.get(cpu, avc.anon_vma().read(cpu));
            root = self.lock_anon_vma_root(cpu, root, anon_vma);
            self.rb_remove(cpu, avc, anon_vma);
            if anon_vma.rb_root().read(cpu).is_null() {
                // Stays on the list: it is freed outside of the lock, which may be in it.
                let parent = self.anon_vmas.get(cpu, anon_vma.parent().read(cpu));
                self.add_degree(cpu, parent, -1);
                continue;
            }
            self.same_vma_del(cpu, vma, avc);
            self.avcs.free(cpu, avc);
        }
        if let Some(own) = self.anon_vmas.get_opt(cpu, vma.anon_vma().read(cpu)) {
            self.add_degree(cpu, own, -1);
        }
        self.unlock_anon_vma_root(cpu, root);
        self.free_empty_anon_vmas(cpu, vma);
    }

    /// The second pass of `unlink_anon_vmas()`: what is still on the list is empty. Newest first,
    /// so that the root goes last.
    fn free_empty_anon_vmas(&self, cpu: &P, vma: VmaRef<'_, P>) {
        while let Some(avc) = self.avcs.get_opt(cpu, vma.anon_vma_chain().read(cpu)) {
            let anon_vma = self.anon_vmas.get(cpu, avc.anon_vma().read(cpu));
            let degree = anon_vma.degree().read(cpu);
            if degree != 0 {
                cpu.finding("anon-vma-degree", format!("an empty anon_vma has degree {degree}"));
            }
            self.put_anon_vma(cpu, anon_vma);
            self.same_vma_del(cpu, vma, avc);
            self.avcs.free(cpu, avc);
        }
    }

    /// `find_mergeable_anon_vma()`: a neighbour's anon_vma, if the two could ever merge. Caller
    /// holds `mmap_sem`, so that neighbours stay; the kernel looks at the next one first.
    pub(crate) fn find_mergeable_anon_vma(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
    ) -> Option<AnonVmaRef<'_, P>> {
        let next = self.vmas.get_opt(cpu, vma.vm_next().read(cpu));
        let prev = || self.vmas.get_opt(cpu, vma.vm_prev().read(cpu));
        next.and_then(|near| self.reusable_anon_vma(cpu, near, vma, near))
            .or_else(|| prev().and_then(|near| self.reusable_anon_vma(cpu, near, near, vma)))
    }

    /// `reusable_anon_vma()`: that of `old`, which is `a` or `b`, unless it came through a fork.
    fn reusable_anon_vma(
        &self,
        cpu: &P,
        old: VmaRef<'_, P>,
        a: VmaRef<'_, P>,
        b: VmaRef<'_, P>,
    ) -> Option<AnonVmaRef<'_, P>> {
        if !self.anon_vma_compatible(cpu, a, b) {
            return None;
        }
        // Consume: another thread may just be giving `old` its anon_vma; pairs with the Release
        // in anon_vma_prepare_slow.
        let anon_vma = old.anon_vma().load(cpu, Ordering::Consume);
        let anon_vma = self.anon_vmas.get_opt(cpu, anon_vma)?;
        self.anon_vma_chain_is_singular(cpu, old).then_some(anon_vma)
    }

    /// `anon_vma_compatible()`: whether `b` follows `a` and only mprotect keeps them apart.
    fn anon_vma_compatible(&self, cpu: &P, a: VmaRef<'_, P>, b: VmaRef<'_, P>) -> bool {
        let (a_flags, b_flags) = (a.vm_flags().read(cpu), b.vm_flags().read(cpu));
        let differ = a_flags.0 ^ b_flags.0;
        let pages = || self.vma_pages(cpu, a);
        a.vm_end().read(cpu) == b.vm_start().read(cpu)
            && self.mpol_equal(cpu, a.vm_policy().read(cpu), b.vm_policy().read(cpu))
            && a.vm_file().read(cpu) == b.vm_file().read(cpu)
            && VmFlags(differ) & !IGNORED_BY_ANON_VMA == VmFlags::NONE
            && self.has_pkey(a_flags) == self.has_pkey(b_flags)
            && b.vm_pgoff().read(cpu) == a.vm_pgoff().read(cpu).wrapping_add(pages())
    }

    /// `list_is_singular(&vma->anon_vma_chain)`: the VMA hangs on exactly one anon_vma.
    pub(crate) fn anon_vma_chain_is_singular(&self, cpu: &P, vma: VmaRef<'_, P>) -> bool {
        let first = vma.anon_vma_chain().read(cpu);
        !first.is_null() && first == vma.anon_vma_chain_last().read(cpu)
    }

    /// `anon_vma_chain_alloc()`
    fn anon_vma_chain_alloc(&self, cpu: &P) -> Option<AvcRef<'_, P>> {
        cpu.charge(Cost::SlabAlloc, 1);
        self.avcs.try_alloc_on(cpu)
    }

    /// `anon_vma_alloc()`: its own root and parent, with one reference, and counting the VMA
    /// that it is for.
    fn anon_vma_alloc(&self, cpu: &P) -> Option<AnonVmaRef<'_, P>> {
        cpu.charge(Cost::SlabAlloc, 1);
        let anon_vma = self.anon_vmas.try_alloc_on(cpu)?;
        anon_vma.refcount().poke(1);
        anon_vma.degree().poke(1);
        anon_vma.parent().poke(anon_vma.ptr());
        anon_vma.root().poke(anon_vma.ptr());
        Some(anon_vma)
    }

    /// `put_anon_vma()`: drops a reference; the last one frees it, and drops its reference to
    /// the root.
    pub(super) fn put_anon_vma(&self, cpu: &P, anon_vma: AnonVmaRef<'_, P>) {
        if !atomic_dec_and_test(cpu, anon_vma.refcount()) {
            return;
        }
        let root = self.anon_vmas.get(cpu, anon_vma.root().read(cpu));
        self.anon_vma_free(cpu, anon_vma, root);
        if root != anon_vma && atomic_dec_and_test(cpu, root.refcount()) {
            self.anon_vma_free(cpu, root, root);
        }
    }

    /// `anon_vma_free()`: waits for whoever still holds the root's lock, who may have come from
    /// a page and not from a reference.
    fn anon_vma_free(&self, cpu: &P, anon_vma: AnonVmaRef<'_, P>, root: AnonVmaRef<'_, P>) {
        if root.sem_count().read(cpu) != 0 {
            self.anon_vma_lock_write(cpu, anon_vma);
            self.anon_vma_unlock_write(cpu, anon_vma);
        }
        self.anon_vmas.free(cpu, anon_vma);
    }

    fn anon_vma_lock_write(&self, cpu: &P, anon_vma: AnonVmaRef<'_, P>) {
        self.anon_vma_sem(cpu, anon_vma).down_write(cpu);
    }
    fn anon_vma_unlock_write(&self, cpu: &P, anon_vma: AnonVmaRef<'_, P>) {
        self.anon_vma_sem(cpu, anon_vma).up_write(cpu);
    }

    /// `lock_anon_vma_root()`: locks the family of `anon_vma` unless `held` is it already. All
    /// chains of one VMA are of one family; another is a finding.
    fn lock_anon_vma_root<'k>(
        &'k self,
        cpu: &P,
        held: Option<AnonVmaRef<'k, P>>,
        anon_vma: AnonVmaRef<'_, P>,
    ) -> Option<AnonVmaRef<'k, P>> {
        let root = self.anon_vmas.get(cpu, anon_vma.root().read(cpu));
        match held {
            Some(held) if held == root => {}
            Some(_) => cpu.finding("anon-vma-root", "one VMA hangs on two families".to_owned()),
            None => self.anon_vma_lock_write(cpu, root),
        }
        Some(root)
    }

    fn unlock_anon_vma_root(&self, cpu: &P, root: Option<AnonVmaRef<'_, P>>) {
        if let Some(root) = root {
            self.anon_vma_unlock_write(cpu, root);
        }
    }

    /// Changes `degree`. Caller holds the root's lock for writing.
    fn add_degree(&self, cpu: &P, anon_vma: AnonVmaRef<'_, P>, add: i64) {
        let degree = anon_vma.degree().read(cpu);
        if degree == 0 && add < 0 {
            cpu.finding("anon-vma-degree", "a degree falls below 0".to_owned());
        }
        anon_vma.degree().write(cpu, degree.wrapping_add_signed(add));
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/anon_vma.rs"]
mod tests;
