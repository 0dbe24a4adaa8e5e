//! The look-up without `mmap_sem`. Source: P21.

use crate::design::{Design, Spf};
use crate::mm::{Kernel, MmRef, Vaddr, Variant, VmaRef};
use crate::platform::{Mutant, Platform, RcuGuard};
use crate::sync::seqlock::{read_seqbegin, read_seqretry};

impl<P: Platform> Kernel<P, Spf> {
    /// `find_vma_rcu()`: the first VMA that ends above `address`, with a reference that the
    /// caller puts. `None` only after a round in which the tree did not change.
    pub(crate) fn find_vma_rcu<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        address: Vaddr,
    ) -> Option<VmaRef<'k, P>> {
        let _step = cpu.step("find_vma_rcu");
        loop {
            let seq = if cpu.mutant(Mutant::A23) { 0 } else { read_seqbegin(cpu, mm.mm_seq()) };
            let vma = {
                let _rcu = RcuGuard::new(cpu);
                // C1: v12 asks the task's vmacache first, which may still name a VMA whose grace
                // period began before this section.
                let found = if self.v12(Variant::C1) {
                    self.find_vma(cpu, mm, address)
                } else {
                    self.find_vma_uncached(cpu, mm, address)
                };
                if let Some(vma) = found
                    && !cpu.mutant(Mutant::A24Get)
                {
                    // Inside the section: the tree's reference is dropped a grace period after
                    // the unlink, so the count is not 0 yet (I2).
                    Spf::get_vma(cpu, vma);
                }
                found
            };
            if let Some(vma) = vma
                && cpu.mutant(Mutant::A24Get)
            {
                Spf::get_vma(cpu, vma);
            }
            if cpu.mutant(Mutant::A23) || !read_seqretry(cpu, mm.mm_seq(), seq) {
                return vma;
            }
            if let Some(vma) = vma {
                self.put_before_retry(cpu, vma);
            }
        }
    }

    /// The tree changed: gives the reference back.
    fn put_before_retry(&self, cpu: &P, vma: VmaRef<'_, P>) {
        if !cpu.mutant(Mutant::A25Kept) {
            Spf::put_vma(self, cpu, vma);
        }
        if cpu.mutant(Mutant::A25Twice) {
            Spf::put_vma(self, cpu, vma);
        }
    }
}
