//! NUMA hinting faults: the PTE was made protnone to see who uses the page.
//!
//! Source: `mm/memory.c`, v5.1; P06, P13. DEVIATION: nothing is counted for the scheduler.

use super::Vmf;
use crate::design::Design;
use crate::mm::{Kernel, Pte, VmFault};
use crate::platform::{Ordering, Platform};

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `do_numa_page()`: the page is there again, with the protection of the cached VMA; if its place
    /// is on another node, it moves.
    #[cold]
    pub(super) fn do_numa_page<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> VmFault {
        let _step = cpu.step("do_numa_page");
        if !self.pte_spinlock(cpu, vmf) {
            return VmFault::RETRY;
        }
        let mut moves = None;
        if self.pte_same(cpu, vmf) {
            let slot = vmf.pte.expect("present").pte();
            let old = slot.swap(cpu, Pte::EMPTY, Ordering::Relaxed);
            let mut pte = old.modify(vmf.vma_page_prot) | Pte::YOUNG;
            // pte_savedwrite
            if vmf.orig_pte.has(Pte::WRITE) {
                pte |= Pte::WRITE;
            }
            slot.write(cpu, pte);
            // numa_migrate_prep
            let page = self.small_anon_page(cpu, pte);
            // DEVIATION: 5.1 moves pages that others map, too, and takes the hints off their PTEs.
            moves = page.filter(|page| page.mapcount().read(cpu) == 1).and_then(|page| {
                let node = self.mpol_misplaced(cpu, page, vmf.vma)?;
                Some((self.isolate(cpu, page), node))
            });
        }
        self.pte_unmap_unlock(cpu, vmf);
        if let Some((page, node)) = moves {
            self.migrate_misplaced_page(cpu, page, node);
        }
        VmFault::NONE
    }
}

#[cfg(test)]
#[path = "../../tests/unit/fault/numa.rs"]
mod tests;
