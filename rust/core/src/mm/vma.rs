//! VMAs: their life, the list and tree they are linked in, and what their flags mean for PTEs.
//!
//! Source: `kernel/fork.c`, `mm/mmap.c`, v5.1; P08, P20, P21.

use super::kernel::Kernel;
use super::lookup::VmaLinks;
use super::objects::{MmRef, VmOps, VmaRef};
use super::types::{Pte, Vaddr, VmFlags};
use crate::design::Design;
use crate::events::Cost;
use crate::platform::{Mutant, Platform, Ptr};

/// `VM_SPECIAL`: flags of VMAs that never merge.
pub(crate) const VM_SPECIAL: VmFlags = VmFlags(VmFlags::DONTEXPAND.0 | VmFlags::PFNMAP.0);
/// `can_madv_dontneed_vma()`, `can_madv_lru_vma()`: whether pages may be taken from the VMA.
pub(crate) fn can_madv_dontneed_vma(flags: VmFlags) -> bool {
    !flags.has(VmFlags::LOCKED | VmFlags::HUGETLB | VmFlags::PFNMAP)
}
/// Of a stack that exec is not done with. No other VMA is to be read both ways.
pub(crate) const VM_STACK_INCOMPLETE_SETUP: VmFlags =
    VmFlags(VmFlags::RAND_READ.0 | VmFlags::SEQ_READ.0);
/// `is_vma_temporary_stack()`, by the flags.
pub(super) fn is_vma_temporary_stack(flags: VmFlags) -> bool {
    flags.has(VmFlags::GROWSDOWN) && flags & VM_STACK_INCOMPLETE_SETUP == VM_STACK_INCOMPLETE_SETUP
}
/// What `mprotect` sets: the three access rights.
pub(crate) const VM_ACCESS_FLAGS: VmFlags =
    VmFlags(VmFlags::READ.0 | VmFlags::WRITE.0 | VmFlags::EXEC.0);

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `PAGE_ALIGN()`: up to whole pages; wraps to 0 as the kernel's does.
    #[inline(always)]
    pub(crate) fn page_align(&self, bytes: u64) -> u64 {
        let mask = self.page_size() - 1;
        bytes.wrapping_add(mask) & !mask
    }

    /// `offset_in_page()`
    #[inline(always)]
    pub(crate) fn offset_in_page(&self, address: u64) -> u64 {
        address & (self.page_size() - 1)
    }

    /// `vm_area_alloc()`: a VMA that its creator owns and nobody else sees yet.
    pub(crate) fn vm_area_alloc(&self, cpu: &P, mm: MmRef<'_, P>) -> VmaRef<'_, P> {
        cpu.charge(Cost::SlabAlloc, 1);
        let vma = self.vmas.alloc_on(cpu);
        vma.vm_mm().poke(mm.ptr());
        // DEVIATION: the kernel starts with dummy operations and has its callers clear them.
        vma.vm_ops().poke(VmOps::None as u64);
        self.init_vma(vma);
        vma
    }

    /// `vm_area_dup()`: a copy of `orig` with its own sequence and reference count. It is in no
    /// list, no tree and on no anon_vma.
    pub(crate) fn vm_area_dup(&self, cpu: &P, orig: VmaRef<'_, P>) -> VmaRef<'_, P> {
        cpu.charge(Cost::SlabAlloc, 1);
        let new = self.vmas.alloc_on(cpu);
        new.vm_start().poke(orig.vm_start().read(cpu));
        new.vm_end().poke(orig.vm_end().read(cpu));
        new.vm_mm().poke(orig.vm_mm().read(cpu));
        new.vm_page_prot().poke(orig.vm_page_prot().read(cpu));
        new.vm_flags().poke(orig.vm_flags().read(cpu));
        new.anon_vma().poke(orig.anon_vma().read(cpu));
        new.vm_ops().poke(orig.vm_ops().read(cpu));
        new.vm_pgoff().poke(orig.vm_pgoff().read(cpu));
        new.vm_file().poke(orig.vm_file().read(cpu));
        if self.swap.is_some() {
            new.swap_readahead_info().poke(orig.swap_readahead_info().read(cpu));
        }
        new.vm_private_data().poke(orig.vm_private_data().read(cpu));
        new.resv_flags().poke(orig.resv_flags().read(cpu));
        // vma_dup_policy()
        new.vm_policy().poke(self.mpol_dup(cpu, orig.vm_policy().read(cpu)));
        self.init_vma(new);
        if cpu.mutant(Mutant::A26) {
            new.vm_sequence().poke(orig.vm_sequence().read(cpu));
            new.vm_ref_count().poke(orig.vm_ref_count().read(cpu));
        }
        new
    }

    /// `INIT_VMA()`: no chain, sequence 0, the owner's reference, in no tree. Source: P08, P20.
    fn init_vma(&self, vma: VmaRef<'_, P>) {
        vma.anon_vma_chain().poke(Ptr::NULL);
        vma.vm_sequence().poke(0);
        vma.vm_ref_count().poke(1);
        vma.rb_parent().poke(vma.ptr());
    }

    /// `__free_vma()`, `vm_area_free()`: of a VMA that is in no tree.
    pub(crate) fn vm_area_free(&self, cpu: &P, vma: VmaRef<'_, P>) {
        if vma.rb_parent().peek() != vma.ptr() {
            cpu.finding("vma-freed-in-tree", format!("VMA {} is still linked", vma.slot_index()));
        }
        if cpu.mutant(Mutant::A29) && !vma.vm_file().peek().is_null() {
            self.fput(cpu, vma.vm_file().peek());
        }
        self.mpol_put(cpu, vma.vm_policy().peek());
        self.vmas.free(cpu, vma);
    }

    /// `RB_EMPTY_NODE(&vma->vm_rb)`: whether the VMA is in no tree (any more).
    #[inline(always)]
    pub(crate) fn vma_node_empty(&self, cpu: &P, vma: VmaRef<'_, P>) -> bool {
        vma.rb_parent().read(cpu) == vma.ptr()
    }

    /// `vma_is_anonymous()`
    #[inline(always)]
    pub(crate) fn vma_is_anonymous(&self, cpu: &P, vma: VmaRef<'_, P>) -> bool {
        vma.vm_ops().read(cpu) == VmOps::None as u64
    }

    /// `vma_is_accessible()`, by the flags as they are now.
    pub(crate) fn vma_is_accessible(&self, cpu: &P, vma: VmaRef<'_, P>) -> bool {
        vma.vm_flags().read(cpu).has(VM_ACCESS_FLAGS)
    }

    /// `vma_pages()`
    pub(crate) fn vma_pages(&self, cpu: &P, vma: VmaRef<'_, P>) -> u64 {
        vma.vm_end().read(cpu).since(vma.vm_start().read(cpu)) >> self.page_shift()
    }

    /// The page offset that `address` has, or would have, in the mapping of `vma`.
    pub(crate) fn pgoff_of(&self, cpu: &P, vma: VmaRef<'_, P>, address: Vaddr) -> u64 {
        let pages = address.since(vma.vm_start().read(cpu)) >> self.page_shift();
        vma.vm_pgoff().read(cpu) + pages
    }

    /// `vm_stat_account()`: `pages` more (or fewer) are mapped.
    pub(crate) fn vm_stat_account(&self, cpu: &P, mm: MmRef<'_, P>, pages: i64) {
        let total = mm.total_vm().read(cpu);
        mm.total_vm().write(cpu, total.wrapping_add_signed(pages));
    }

    /// `__vma_link_list()`: puts `vma` behind `prev` into the list.
    fn vma_link_list(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        prev: Option<VmaRef<'_, P>>,
    ) {
        let next = self.vma_after(cpu, mm, prev);
        vma.vm_prev().write(cpu, prev.map_or(Ptr::NULL, |prev| prev.ptr()));
        vma.vm_next().write(cpu, next.map_or(Ptr::NULL, |next| next.ptr()));
        prev.map_or(mm.mmap(), |prev| prev.vm_next()).write(cpu, vma.ptr());
        if let Some(next) = next {
            next.vm_prev().write(cpu, vma.ptr());
        }
    }

    /// `vma_link()`: list, tree, file, `map_count`. Caller holds `mmap_sem` for write.
    pub(crate) fn vma_link(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        links: VmaLinks<'_, P>,
    ) {
        let file = self.i_mmap_lock_write(cpu, vma);
        self.vma_link_mm(cpu, mm, vma, links);
        if let Some(file) = file {
            self.vma_link_file(cpu, vma);
            file.up_write(cpu);
        }
    }

    /// `__vma_link()`: list, tree and `map_count`, not the file.
    pub(crate) fn vma_link_mm(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        links: VmaLinks<'_, P>,
    ) {
        let _step = cpu.step("vma_link");
        self.vma_link_list(cpu, mm, vma, links.prev);
        self.vma_link_rb(cpu, mm, vma, links.rb_link, links.rb_parent);
        self.add_map_count(cpu, mm, 1);
    }

    /// `__insert_vm_struct()`: links a VMA where nothing is in its way, but not to its file.
    pub(super) fn insert_vm_struct(&self, cpu: &P, mm: MmRef<'_, P>, vma: VmaRef<'_, P>) {
        let (start, end) = (vma.vm_start().read(cpu), vma.vm_end().read(cpu));
        let Some(links) = self.find_vma_links(cpu, mm, start, end) else {
            cpu.finding("vma-order", format!("{start:#x}..{end:#x} overlaps another VMA"));
        };
        self.vma_link_mm(cpu, mm, vma, links);
    }

    /// `mm->map_count += change`; under `mmap_sem`, so no atomic operation.
    pub(crate) fn add_map_count(&self, cpu: &P, mm: MmRef<'_, P>, change: i64) {
        let count = mm.map_count().read(cpu);
        mm.map_count().write(cpu, count.wrapping_add_signed(change));
    }

    /// `vma_rb_erase()`: takes `vma` out of the tree; a fault that holds a reference sees so in
    /// the node, and the tree's own reference goes a grace period later. Source: P19, P21.
    pub(crate) fn vma_rb_erase(&self, cpu: &P, mm: MmRef<'_, P>, vma: VmaRef<'_, P>) {
        let _step = cpu.step("vma_rb_erase");
        D::tree_write_begin(cpu, mm);
        self.rb_erase(cpu, mm, vma);
        D::tree_write_end(cpu, mm);
        // RB_CLEAR_NODE, after the wmb in `tree_write_end`: whoever sees the node empty can no
        // longer find the VMA; pairs with the load in `vma_has_changed`.
        vma.rb_parent().write(cpu, vma.ptr());
        D::put_unlinked_vma(self, cpu, vma);
    }

    /// `__vma_unlink_common()`: takes `vma` out of tree and list.
    pub(super) fn vma_unlink(&self, cpu: &P, mm: MmRef<'_, P>, vma: VmaRef<'_, P>) {
        self.vma_rb_erase(cpu, mm, vma);
        let prev = self.vm_prev(cpu, vma);
        let next = self.vm_next(cpu, vma);
        let next_ptr = next.map_or(Ptr::NULL, |next| next.ptr());
        prev.map_or(mm.mmap(), |prev| prev.vm_next()).write(cpu, next_ptr);
        if let Some(next) = next {
            next.vm_prev().write(cpu, prev.map_or(Ptr::NULL, |prev| prev.ptr()));
        }
        self.vmacache_invalidate(cpu, mm);
    }

    /// `remove_vma()`: closes the file and drops the owner's reference of an unlinked VMA.
    /// Returns the one that came after it.
    pub(crate) fn remove_vma(&self, cpu: &P, vma: VmaRef<'_, P>) -> Option<VmaRef<'_, P>> {
        let _step = cpu.step("remove_vma");
        if !self.vma_node_empty(cpu, vma) {
            cpu.finding("vma-tree", format!("{:?} is removed while in the tree", vma.ptr()));
        }
        let next = self.vm_next(cpu, vma);
        self.vm_ops_close(cpu, vma);
        let file = vma.vm_file().read(cpu);
        if !file.is_null() && !cpu.mutant(Mutant::A29) {
            // At once, not after a grace period: whoever unmaps may count on it. Source: P21.
            self.fput(cpu, file);
            vma.vm_file().write(cpu, Ptr::NULL);
        }
        D::put_vma(self, cpu, vma);
        next
    }

    /// `vm_ops->close()`: only hugetlbfs has one.
    pub(crate) fn vm_ops_close(&self, cpu: &P, vma: VmaRef<'_, P>) {
        if self.is_vm_hugetlb_page(cpu, vma) {
            self.hugetlb_vm_op_close(cpu, vma);
        }
    }

    /// `vm_get_page_prot()`: `protection_map` of the arch. What is private is never writable
    /// here: the first write copies. Source: `asm/pgtable*.h` of each arch, v5.1.
    pub(crate) fn vm_get_page_prot(&self, flags: VmFlags) -> Pte {
        if !flags.has(VM_ACCESS_FLAGS) {
            return Pte::PROTNONE;
        }
        let mut prot = Pte::PRESENT;
        // Write implies read on every arch, and execute does where it cannot be had alone.
        if flags.has(VmFlags::READ | VmFlags::WRITE) || !self.config.arch.exec_only {
            prot |= Pte::READ;
        }
        if flags.has(VmFlags::EXEC) {
            prot |= Pte::EXEC;
        }
        if flags.has(VmFlags::SHARED) && flags.has(VmFlags::WRITE) {
            prot |= Pte::WRITE;
        }
        prot
    }

    /// Whether a VMA with these flags has a protection key. (The kernel has its number among the
    /// flags.)
    pub(crate) fn has_pkey(&self, flags: VmFlags) -> bool {
        self.config.arch.has_execute_only_pkey() && flags & VM_ACCESS_FLAGS == VmFlags::EXEC
    }

    /// `vma_wants_writenotify()`: whether somebody is told of the first write to each page. A file
    /// on disk has `page_mkwrite` and accounts dirty pages; shmem has neither, and is tracked only
    /// if `vm_page_prot` is what the flags give: mprotect's, from before, never is. DEVIATION: writes
    /// to hugetlb are not tracked (5.1 takes its tracked shared pages for private ones).
    pub(crate) fn vma_wants_writenotify(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        vm_page_prot: Pte,
    ) -> bool {
        let flags = vma.vm_flags().read(cpu);
        if !(flags.has(VmFlags::SHARED) && flags.has(VmFlags::WRITE)) {
            return false;
        }
        if vma.vm_ops().read(cpu) == VmOps::File as u64 {
            return true;
        }
        vm_page_prot == self.vm_get_page_prot(flags)
            && self.config.arch.has_soft_dirty()
            && !flags.has(VmFlags::SOFTDIRTY | VmFlags::HUGETLB)
    }

    /// `vma_set_page_prot()`: makes `vm_page_prot` follow `vm_flags`. Caller is in a write
    /// section of `vma`.
    pub(crate) fn vma_set_page_prot(&self, cpu: &P, vma: VmaRef<'_, P>) {
        let flags = vma.vm_flags().read(cpu);
        let mut vm_page_prot = self.vm_get_page_prot(flags);
        if self.vma_wants_writenotify(cpu, vma, vm_page_prot) {
            vm_page_prot = self.vm_get_page_prot(flags & !VmFlags::SHARED);
        }
        vma.vm_page_prot().write(cpu, vm_page_prot);
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/vma.rs"]
mod tests;
