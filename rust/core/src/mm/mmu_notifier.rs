//! mmu notifiers: a secondary MMU, as KVM's, is told before and after translations change.
//!
//! It counts the changes that have begun and not ended; while there are any, its own faults wait.
//! So each start needs its end (B6), by the same notifier (B7).
//!
//! Who changes translations has `mmap_sem`, or a lock of rmap; registration takes all of those
//! (`mm_take_all_locks`). Speculative faults have none. Source: `mm/mmu_notifier.c`, `mm/mmap.c`,
//! `virt/kvm/kvm_main.c`, v5.1; Michel Lespinasse's `mmu_notifier_trylock` for B7's cure.

use std::collections::BTreeSet;

use super::kernel::Kernel;
use super::objects::{AnonVma, MmRef};
use super::types::Errno;
use super::variants::Variant;
use crate::design::Design;
use crate::platform::{Fence, Field, Finding, Ordering, Platform, Ptr, Value};
use crate::sync::mutex::{mutex_lock, mutex_unlock};

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `mmu_notifier_invalidate_range_start()`, `change`, `mmu_notifier_invalidate_range_end()`.
    pub(crate) fn invalidate_range<T>(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        change: impl FnOnce() -> T,
    ) -> T {
        self.invalidate_range_start(cpu, mm);
        let changed = change();
        self.invalidate_range_end(cpu, mm);
        changed
    }

    /// `mmu_notifier_invalidate_range_start()`
    #[inline]
    pub(crate) fn invalidate_range_start(&self, cpu: &P, mm: MmRef<'_, P>) {
        let Some(notifier) = self.notifiers.get_opt(cpu, mm.mmu_notifier_mm().read(cpu)) else {
            return;
        };
        if notifier.registered().read(cpu) {
            notifier.count().fetch_add(cpu, 1, Ordering::Relaxed);
        }
    }

    /// `mmu_notifier_invalidate_range_end()`. KVM: `BUG_ON(kvm->mmu_notifier_count < 0)`.
    #[inline]
    pub(crate) fn invalidate_range_end(&self, cpu: &P, mm: MmRef<'_, P>) {
        let Some(notifier) = self.notifiers.get_opt(cpu, mm.mmu_notifier_mm().read(cpu)) else {
            return;
        };
        if notifier.registered().read(cpu) {
            notifier.seq().fetch_add(cpu, 1, Ordering::Relaxed);
            if notifier.count().fetch_add(cpu, -1, Ordering::Relaxed) <= 0 {
                let what = "an invalidation ends that this notifier has not seen begin".to_owned();
                cpu.finding("notifier-balance", what);
            }
        }
    }

    /// `mmu_notifier_register()`. `EEXIST` (ours): there is one.
    pub(crate) fn mmu_notifier_register(&self, cpu: &P, mm: MmRef<'_, P>) -> Result<(), Errno> {
        let _step = cpu.step("mmu_notifier_register");
        let sem = self.mmap_sem(mm);
        sem.down_write(cpu);
        self.keep_speculation_out(cpu, mm);
        let known = self.notifiers.get_opt(cpu, mm.mmu_notifier_mm().read(cpu));
        let result = if known.is_some_and(|known| known.registered().read(cpu)) {
            Err(Errno::Eexist)
        } else {
            self.with_all_locks(cpu, mm, || match known {
                Some(known) => {
                    // Another secondary MMU: it has seen nothing begin.
                    known.count().write(cpu, 0);
                    known.registered().store(cpu, true, Ordering::Release);
                }
                None => {
                    let new = self.notifiers.alloc();
                    new.registered().poke(true);
                    // Release: pairs with the dependent reads of whoever finds it.
                    mm.mmu_notifier_mm().store(cpu, new.ptr(), Ordering::Release);
                }
            });
            Ok(())
        };
        self.let_speculation_in(cpu, mm);
        sem.up_write(cpu);
        result
    }

    /// `mmu_notifier_unregister()`: without a lock that faults have. `ENOENT` (ours): there is none.
    pub(crate) fn mmu_notifier_unregister(&self, cpu: &P, mm: MmRef<'_, P>) -> Result<(), Errno> {
        let known = self.notifiers.get_opt(cpu, mm.mmu_notifier_mm().read(cpu));
        match known {
            Some(known) if known.registered().swap(cpu, false, Ordering::Relaxed) => Ok(()),
            _ => Err(Errno::Enoent),
        }
    }

    /// `mmu_notifier_release()` and `mmu_notifier_mm_destroy()`: the address space goes.
    /// DEVIATION: all locks are taken, so that what has begun has ended; else it never does (B6).
    pub(crate) fn mmu_notifier_release(&self, cpu: &P, mm: MmRef<'_, P>) {
        let Some(known) = self.notifiers.get_opt(cpu, mm.mmu_notifier_mm().read(cpu)) else {
            return;
        };
        self.with_all_locks(cpu, mm, || {
            let left = known.count().read(cpu);
            if known.registered().read(cpu) && left != 0 {
                let what = format!("{left} invalidations have begun and never end");
                cpu.finding("notifier-balance", what);
            }
            mm.mmu_notifier_mm().write(cpu, Ptr::NULL);
        });
        self.notifiers.free(cpu, known);
    }

    /// What is wrong with the notifiers of a system at rest.
    pub(super) fn check_notifiers(&self) -> impl Iterator<Item = Finding> {
        let running = self.notifiers.peek_all().filter(|one| one.registered().peek());
        let counts = running.map(|one| one.count().peek()).filter(|&count| count != 0);
        counts.map(|count| Finding {
            invariant: "notifier-balance",
            what: format!("{count} invalidations have begun and not ended"),
        })
    }

    /// `mm_take_all_locks()`, `then`, `mm_drop_all_locks()`: nobody walks rmap to `mm` meanwhile.
    /// Caller holds `mmap_sem` for write, or has the address space alone.
    fn with_all_locks(&self, cpu: &P, mm: MmRef<'_, P>, then: impl FnOnce()) {
        let mutex = Field::permanent(&self.mm_all_locks_mutex);
        mutex_lock(cpu, mutex);
        let (files, families) = self.rmap_locks_of(cpu, mm);
        let files: Vec<_> = files
            .into_iter()
            .map(|file| self.i_mmap_sem(self.inodes.get(cpu, Ptr::from_word(file))))
            .collect();
        let families: Vec<_> = families
            .into_iter()
            .map(|family| {
                let anon_vma: Ptr<AnonVma<P>> = Ptr::from_word(family);
                self.anon_vma_sem(cpu, self.anon_vmas.get(cpu, anon_vma))
            })
            .collect();
        let locks = || files.iter().chain(&families);
        locks().for_each(|lock| lock.down_write(cpu));
        then();
        locks().for_each(|lock| lock.up_write(cpu));
        mutex_unlock(cpu, mutex);
    }

    /// The files, and the roots of the anon_vmas, of all VMAs.
    fn rmap_locks_of(&self, cpu: &P, mm: MmRef<'_, P>) -> (BTreeSet<u64>, BTreeSet<u64>) {
        let (mut files, mut families) = (BTreeSet::new(), BTreeSet::new());
        for vma in self.each_vma(cpu, mm) {
            let file = vma.vm_file().read(cpu);
            if !file.is_null() {
                files.insert(file.to_word());
            }
            let mut at = vma.anon_vma_chain().read(cpu);
            while let Some(avc) = self.avcs.get_opt(cpu, at) {
                at = avc.same_vma_next().read(cpu);
                let anon_vma = self.anon_vmas.get(cpu, avc.anon_vma().read(cpu));
                families.insert(anon_vma.root().read(cpu).to_word());
            }
        }
        (files, families)
    }

    // --- the cure of B7: a lock for reading by CPU, as a percpu_rw_semaphore -----------------------

    /// `mmu_notifier_trylock()` of a speculative fault: the CPU to give it back for. `None`:
    /// somebody registers a notifier.
    pub(crate) fn mmu_notifier_trylock(&self, cpu: &P, mm: MmRef<'_, P>) -> Option<u32> {
        let id = cpu.id();
        let readers = Field::<_, u64>::permanent(&self.cpus[id as usize].notifier_readers);
        // SeqCst, both: either the writer sees this reader, or this reader the writer.
        readers.fetch_add(cpu, 1, Ordering::SeqCst);
        if !mm.notifier_writer().load(cpu, Ordering::SeqCst) {
            return Some(id);
        }
        self.mmu_notifier_unlock(cpu, id);
        None
    }

    /// `mmu_notifier_unlock()`
    pub(crate) fn mmu_notifier_unlock(&self, cpu: &P, id: u32) {
        let readers = Field::<_, u64>::permanent(&self.cpus[id as usize].notifier_readers);
        // Release: pairs with the wait in keep_speculation_out.
        readers.fetch_add(cpu, -1, Ordering::Release);
    }

    /// `mmu_notifier_write_lock()`. Caller holds `mmap_sem` for write.
    fn keep_speculation_out(&self, cpu: &P, mm: MmRef<'_, P>) {
        if self.v12(Variant::B7) {
            return;
        }
        mm.notifier_writer().store(cpu, true, Ordering::SeqCst);
        cpu.fence(Fence::Full);
        for other in &self.cpus {
            cpu.spin_until(&other.notifier_readers, |readers| readers == 0);
        }
    }

    /// `mmu_notifier_write_unlock()`
    fn let_speculation_in(&self, cpu: &P, mm: MmRef<'_, P>) {
        if !self.v12(Variant::B7) {
            mm.notifier_writer().store(cpu, false, Ordering::Release);
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/mmu_notifier.rs"]
mod tests;
