//! `copy_vma()`: the VMA at the place that mremap moves to.
//!
//! Source: `mm/mmap.c`, v5.1; P11.

use super::kernel::Kernel;
use super::lookup::VmaLinks;
use super::objects::{MmRef, VmaRef};
use super::types::{Errno, Vaddr};
use super::vma_merge::MergeRequest;
use crate::design::Design;
use crate::platform::{Mutant, Platform};

/// What `copy_vma()` made.
pub(crate) struct CopiedVma<'k, P: Platform> {
    /// Who has the old place now: the VMA that was given, or the one that swallowed it.
    pub(crate) source: VmaRef<'k, P>,
    /// Who has the new place. Odd: the caller ends the section once the pages have moved.
    pub(crate) new_vma: VmaRef<'k, P>,
    /// Whether rmap may come to the new place before the old one, and miss a page on its way.
    pub(crate) need_rmap_locks: bool,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Gives `start..start + length`, which is free, a VMA like `vma`: a neighbour that grows, or a
    /// new one. Caller holds `mmap_sem` for write.
    pub(crate) fn copy_vma<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        vma: VmaRef<'k, P>,
        start: Vaddr,
        length: u64,
        pgoff: u64,
    ) -> Result<CopiedVma<'k, P>, Errno> {
        let source_start = vma.vm_start().read(cpu);
        let end = start.offset(length);
        let anon_vma = vma.anon_vma().read(cpu);
        // Untouched, it may have any offset: that of its new place lets it merge there.
        let pgoff = if self.vma_is_anonymous(cpu, vma) && anon_vma.is_null() {
            start.0 >> self.page_shift()
        } else {
            pgoff
        };
        let Some(links) = self.find_vma_links(cpu, mm, start, end) else {
            cpu.finding("vma-order", format!("mremap to {start:#x}, which is not free"));
        };
        let request = MergeRequest {
            start,
            end,
            flags: vma.vm_flags().read(cpu),
            anon_vma,
            file: vma.vm_file().read(cpu),
            pgoff,
            policy: vma.vm_policy().read(cpu),
        };
        if let Some(new_vma) = self.vma_merge_keep_locked(cpu, mm, links.prev, &request) {
            if cpu.mutant(Mutant::A3) {
                D::vm_write_begin(cpu, new_vma); // __vma_adjust has ended it
            }
            // It may have merged with the very VMA that it comes from.
            let swallowed = source_start >= new_vma.vm_start().read(cpu)
                && source_start < new_vma.vm_end().read(cpu);
            let source = if swallowed { new_vma } else { vma };
            let need_rmap_locks = new_vma.vm_pgoff().read(cpu) <= source.vm_pgoff().read(cpu);
            return Ok(CopiedVma { source, new_vma, need_rmap_locks });
        }
        let new_vma = self.link_copy(cpu, mm, vma, &request, links)?;
        Ok(CopiedVma { source: vma, new_vma, need_rmap_locks: false })
    }

    fn link_copy<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        vma: VmaRef<'k, P>,
        at: &MergeRequest<P>,
        links: VmaLinks<'k, P>,
    ) -> Result<VmaRef<'k, P>, Errno> {
        let new_vma = self.vm_area_dup(cpu, vma);
        new_vma.vm_start().poke(at.start);
        new_vma.vm_end().poke(at.end);
        new_vma.vm_pgoff().poke(at.pgoff);
        if let Err(errno) = self.anon_vma_clone(cpu, new_vma, vma) {
            self.vm_area_free(cpu, new_vma);
            return Err(errno);
        }
        if !at.file.is_null() {
            self.get_file(cpu, at.file);
        }
        // Once it is linked a fault can find it, and it has an anon_vma: not before the pages have
        // moved. Source: P11.
        let late = cpu.mutant(Mutant::A3);
        if !late {
            D::vm_write_begin(cpu, new_vma);
        }
        self.vma_link(cpu, mm, new_vma, links);
        if late {
            D::vm_write_begin(cpu, new_vma);
        }
        Ok(new_vma)
    }
}
