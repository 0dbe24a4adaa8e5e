//! Finding VMAs: the tree walk, the cache of each task, the place for a new one.
//!
//! Source: `mm/mmap.c`, `mm/vmacache.c`, v5.1.

use super::kernel::Kernel;
use super::objects::{MmRef, VmaRef};
use super::tree::Side;
use super::types::Vaddr;
use crate::design::Design;
use crate::platform::{Ordering, Platform, Ptr, Value};

/// Where a VMA goes: after which in the list, and under which node of the tree, on which side.
pub(crate) struct VmaLinks<'k, P: Platform> {
    pub(crate) prev: Option<VmaRef<'k, P>>,
    pub(crate) rb_link: Side,
    pub(crate) rb_parent: Option<VmaRef<'k, P>>,
}

impl<'k, P: Platform> VmaLinks<'k, P> {
    /// Behind `last`, the highest VMA there is: how fork fills the tree of the child.
    pub(crate) fn at_end(last: Option<VmaRef<'k, P>>) -> Self {
        Self { prev: last, rb_link: Side::Right, rb_parent: last }
    }
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `find_vma()`: the first VMA that ends above `address`, whether it holds it or not. Looks
    /// into the task's cache first and remembers what the tree said.
    pub fn find_vma(&self, cpu: &P, mm: MmRef<'_, P>, address: Vaddr) -> Option<VmaRef<'_, P>> {
        if let Some(vma) = self.vmacache_find(cpu, mm, address) {
            return Some(vma);
        }
        let vma = self.find_vma_uncached(cpu, mm, address)?;
        self.vmacache_update(cpu, mm, address, vma);
        Some(vma)
    }

    /// `__find_vma()` of the series up to v11: [`Kernel::find_vma`] by the tree alone. Without
    /// `mmap_sem` the caller has `mm_rb_lock`, or is an RCU reader and checks `mm_seq` afterwards.
    #[inline]
    pub fn find_vma_uncached(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        address: Vaddr,
    ) -> Option<VmaRef<'_, P>> {
        // Consume: the fields of the VMA behind the pointer were written before it; pairs with
        // the wmb in `write_seqlock` before `rb_link_node`.
        let mut cursor = mm.mm_rb().load(cpu, Ordering::Consume);
        let mut found = None;
        while !cursor.is_null() {
            let vma = self.vmas.get(cpu, cursor);
            let below = vma.vm_end().read(cpu) > address;
            if below {
                found = Some(vma);
                if vma.vm_start().read(cpu) <= address {
                    break;
                }
            }
            let child = if below { vma.rb_left() } else { vma.rb_right() };
            // Consume: as above.
            cursor = child.load(cpu, Ordering::Consume);
        }
        found
    }

    /// `find_vma_prev()`: [`Kernel::find_vma`], and the VMA before it (the last one if none was
    /// found).
    pub fn find_vma_prev(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        address: Vaddr,
    ) -> (Option<VmaRef<'_, P>>, Option<VmaRef<'_, P>>) {
        if let Some(vma) = self.find_vma(cpu, mm, address) {
            return (Some(vma), self.vm_prev(cpu, vma));
        }
        let mut last = self.vmas.get_opt(cpu, mm.mm_rb().read(cpu));
        while let Some(vma) = last
            && let Some(right) = self.rb_child(cpu, vma, Side::Right)
        {
            last = Some(right);
        }
        (None, last)
    }

    /// `find_vma_intersection()`: the first VMA with a byte in `start..end`.
    pub fn find_vma_intersection(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
    ) -> Option<VmaRef<'_, P>> {
        self.find_vma(cpu, mm, start).filter(|vma| vma.vm_start().read(cpu) < end)
    }

    /// `vma->vm_next`
    pub(crate) fn vm_next(&self, cpu: &P, vma: VmaRef<'_, P>) -> Option<VmaRef<'_, P>> {
        self.vmas.get_opt(cpu, vma.vm_next().read(cpu))
    }
    /// `vma->vm_prev`
    pub(crate) fn vm_prev(&self, cpu: &P, vma: VmaRef<'_, P>) -> Option<VmaRef<'_, P>> {
        self.vmas.get_opt(cpu, vma.vm_prev().read(cpu))
    }
    /// `prev ? prev->vm_next : mm->mmap`
    pub(crate) fn vma_after(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        prev: Option<VmaRef<'_, P>>,
    ) -> Option<VmaRef<'_, P>> {
        let word = prev.map_or(mm.mmap(), |prev| prev.vm_next());
        self.vmas.get_opt(cpu, word.read(cpu))
    }

    /// All VMAs from `mm->mmap` on: `vm_next` of each is read when the next is asked for, so the
    /// caller may do to it what leaves the list alone. Caller holds `mmap_sem`.
    pub(crate) fn each_vma<'k>(
        &'k self,
        cpu: &'k P,
        mm: MmRef<'k, P>,
    ) -> impl Iterator<Item = VmaRef<'k, P>> {
        let mut at = None;
        std::iter::from_fn(move || {
            at = self.vma_after(cpu, mm, at);
            at
        })
    }

    /// `find_vma_links()`: where a VMA at `start..end` goes; `None` if another is in its way.
    pub(crate) fn find_vma_links(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
    ) -> Option<VmaLinks<'_, P>> {
        let mut links = VmaLinks { prev: None, rb_link: Side::Left, rb_parent: None };
        let mut cursor = self.vmas.get_opt(cpu, mm.mm_rb().read(cpu));
        while let Some(vma) = cursor {
            links.rb_parent = cursor;
            if vma.vm_end().read(cpu) > start {
                if vma.vm_start().read(cpu) < end {
                    return None;
                }
                links.rb_link = Side::Left;
            } else {
                links.prev = cursor;
                links.rb_link = Side::Right;
            }
            cursor = self.rb_child(cpu, vma, links.rb_link);
        }
        Some(links)
    }

    /// `VMACACHE_HASH()`: the slot by the PMD entry that the address belongs to.
    fn vmacache_hash(&self, address: Vaddr) -> usize {
        let levels = &self.config.arch.levels;
        let pmd_shift = levels[levels.len() - 2].shift;
        (address.0 >> pmd_shift) as usize & 3
    }

    /// `vmacache_find()`. The cache holds only while nothing was unlinked from the mm.
    fn vmacache_find(&self, cpu: &P, mm: MmRef<'_, P>, address: Vaddr) -> Option<VmaRef<'_, P>> {
        let task = self.current(cpu);
        if task.mm.get() != mm.ptr().to_word() {
            return None;
        }
        let seqnum = mm.vmacache_seqnum().read(cpu);
        if task.vmacache_seqnum.get() != seqnum {
            task.vmacache_seqnum.set(seqnum);
            self.vmacache_flush(cpu);
            return None;
        }
        let first = self.vmacache_hash(address);
        (first..first + task.vmacache.len()).find_map(|slot| {
            let entry = task.vmacache[slot % task.vmacache.len()].get();
            let vma = self.vmas.get_opt(cpu, Ptr::from_word(entry))?;
            let holds = vma.vm_start().read(cpu) <= address && vma.vm_end().read(cpu) > address;
            holds.then_some(vma)
        })
    }

    /// `vmacache_update()`
    fn vmacache_update(&self, cpu: &P, mm: MmRef<'_, P>, address: Vaddr, vma: VmaRef<'_, P>) {
        let task = self.current(cpu);
        if task.mm.get() == mm.ptr().to_word() {
            task.vmacache[self.vmacache_hash(address)].set(vma.ptr().to_word());
        }
    }

    /// `vmacache_flush()`: forgets what the current task remembers. Whoever changes `task->mm`
    /// calls this: the entries are of the old one.
    pub(crate) fn vmacache_flush(&self, cpu: &P) {
        self.current(cpu).vmacache.iter().for_each(|entry| entry.set(0));
    }

    /// `vmacache_invalidate()`: no task may trust its cache after a VMA was unlinked.
    pub(crate) fn vmacache_invalidate(&self, cpu: &P, mm: MmRef<'_, P>) {
        let seqnum = mm.vmacache_seqnum().read(cpu);
        mm.vmacache_seqnum().write(cpu, seqnum + 1);
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/lookup.rs"]
mod tests;
