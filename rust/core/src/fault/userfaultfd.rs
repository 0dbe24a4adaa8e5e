//! A missing page that user space brings: `handle_userfault()`, and `UFFDIO_COPY` of zeroes.
//!
//! Source: `fs/userfaultfd.c`, `mm/userfaultfd.c`, `mm/shmem.c`, `mm/hugetlb.c`, v5.1.

use super::Vmf;
use crate::design::Design;
use crate::events::Cost;
use crate::mm::{
    FaultFlags, Kernel, MmRef, PG_CACHE, PG_LOCKED, PG_UPTODATE, Pte, Rss, Table, Vaddr, VmFault,
    VmFlags, VmaRef,
};
use crate::platform::{Ordering, Platform, Ptr};
use crate::sync::mutex::{mutex_lock, mutex_unlock};
use crate::sync::spinlock::spin_unlock;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `userfaultfd_missing()`. A speculative fault does not ask: registering after it took the
    /// PTE lock comes too late for it on purpose. Source: P22.
    pub(super) fn userfaultfd_missing(&self, vmf: &Vmf<'_, P>) -> bool {
        !vmf.is_speculative() && vmf.vma_flags.has(VmFlags::UFFD_MISSING)
    }

    /// `handle_userfault()`: tells user space, and waits until the page is there; only who has waited
    /// had a major fault. Called with `mmap_sem` held for reading, which is gone unless the result is
    /// SIGBUS.
    pub(super) fn handle_userfault(&self, cpu: &P, vmf: &Vmf<'_, P>) -> VmFault {
        let _step = cpu.step("handle_userfault");
        if !vmf.flags.has(FaultFlags::ALLOW_RETRY) {
            return VmFault::SIGBUS;
        }
        let must_wait = self.userfaultfd_must_wait(cpu, vmf);
        self.mmap_sem(vmf.mm).up_read(cpu);
        if !must_wait {
            return VmFault::RETRY;
        }
        self.uffdio_copy(cpu, vmf.mm, vmf.address);
        VmFault::RETRY | VmFault::MAJOR
    }

    /// `userfaultfd_must_wait()`, `userfaultfd_huge_must_wait()`: whether the page is still missing,
    /// or somebody has brought it meanwhile.
    fn userfaultfd_must_wait(&self, cpu: &P, vmf: &Vmf<'_, P>) -> bool {
        let pmd = vmf.pmd.read(cpu);
        match pmd.table() {
            Some(table) => self.pte_offset_map(cpu, table, vmf.address).pte().read(cpu).is_none(),
            None => pmd.is_none(),
        }
    }

    /// `UFFDIO_COPY` by whoever reads the descriptor, here the faulting task itself. If it cannot
    /// bring the page, the second round finds that it is still missing.
    fn uffdio_copy(&self, cpu: &P, mm: MmRef<'_, P>, address: Vaddr) {
        let sem = self.mmap_sem(mm);
        sem.down_read(cpu);
        let registered = |vma: &VmaRef<'_, P>| {
            vma.vm_start().read(cpu) <= address
                && vma.vm_flags().read(cpu).has(VmFlags::UFFD_MISSING)
        };
        if let Some(vma) = self.find_vma(cpu, mm, address).filter(registered) {
            // ENOMEM, EEXIST and EFAULT are nobody's business here.
            let _ = if self.is_vm_hugetlb_page(cpu, vma) {
                self.mcopy_atomic_hugetlb(cpu, mm, vma, address)
            } else {
                self.mcopy_atomic(cpu, mm, vma, address)
            };
        }
        sem.up_read(cpu);
    }

    /// `__mcopy_atomic()`: a zeroed page, writable at once if the VMA is. `None`: out of memory, or
    /// something is there.
    fn mcopy_atomic(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        address: Vaddr,
    ) -> Option<()> {
        let shared = vma.vm_flags().read(cpu).has(VmFlags::SHARED);
        if !shared {
            self.anon_vma_prepare(cpu, vma).ok()?;
        }
        let pmd = self.pmd_alloc(cpu, mm, address)?;
        if !self.pte_alloc(cpu, mm, pmd) {
            return None;
        }
        let table = pmd.read(cpu).table()?;
        if shared {
            self.shmem_mcopy_atomic_pte(cpu, mm, vma, table, address)
        } else {
            self.mcopy_atomic_pte(cpu, mm, vma, table, address)
        }
    }

    /// What maps the page: young, as `vm_page_prot` has it on all three arches, and dirty if it may be
    /// written.
    fn mcopy_entry(&self, cpu: &P, vma: VmaRef<'_, P>, pfn: u32) -> Pte {
        let entry = Pte::new(pfn, vma.vm_page_prot().read(cpu) | Pte::YOUNG);
        let may_write = vma.vm_flags().read(cpu).has(VmFlags::WRITE);
        if may_write { entry | Pte::MKDIRTY | Pte::WRITE } else { entry }
    }

    /// Whether the page is within its file, if that is one in memory. DEVIATION: 5.1 asks for the
    /// length of /dev/zero, too, and brings nothing there.
    fn is_within_file(&self, cpu: &P, vma: VmaRef<'_, P>, address: Vaddr) -> bool {
        let inode = || self.inodes.get(cpu, vma.vm_file().read(cpu));
        self.vma_is_anonymous(cpu, vma)
            || self.pgoff_of(cpu, vma, address) < self.file_pages(cpu, inode())
    }

    /// `mcopy_atomic_pte()`: private memory. Of a file it is a copy from the beginning, and the file
    /// keeps its hole.
    fn mcopy_atomic_pte(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        table: Ptr<Table<P>>,
        address: Vaddr,
    ) -> Option<()> {
        let page = self.alloc_zeroed_page(cpu, self.vma_placement(cpu, vma, address, 0))?;
        page.flags().poke(PG_UPTODATE);
        if self.mem_cgroup_charge(cpu, page).is_none() {
            self.put_page(cpu, page);
            return None;
        }
        let entry = self.mcopy_entry(cpu, vma, page.slot_index());
        let slot = self.pte_offset_map_lock(cpu, table, address);
        let within = self.is_within_file(cpu, vma, address);
        let missing = within && slot.pte().read(cpu).is_none();
        if missing {
            self.add_mm_counter(cpu, mm, Rss::Anon, 1);
            let index = self.stable_page_index(cpu, mm, vma, address);
            self.page_add_new_anon_rmap(cpu, page, vma, index);
            self.lru_cache_add_active_or_unevictable(cpu, page, vma.vm_flags().read(cpu));
            // Release: as in do_anonymous_page.
            slot.pte().store(cpu, entry, Ordering::Release);
        }
        spin_unlock(cpu, slot.ptl());
        if missing {
            return Some(());
        }
        self.put_page(cpu, page);
        None
    }

    /// `shmem_mcopy_atomic_pte()`: shared memory. The page cache gets the page, too.
    fn shmem_mcopy_atomic_pte(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        table: Ptr<Table<P>>,
        address: Vaddr,
    ) -> Option<()> {
        let inode = self.inodes.get(cpu, vma.vm_file().read(cpu));
        let index = self.pgoff_of(cpu, vma, address);
        let page = self.page_cache_alloc_locked(cpu)?;
        cpu.charge(Cost::ClearPage, 1);
        let cached = self.is_within_file(cpu, vma, address)
            && self.add_to_page_cache_lru(cpu, inode, index, page);
        let mut done = false;
        if cached {
            let slot = self.pte_offset_map_lock(cpu, table, address);
            // Truncation has made the file shorter before it looks for pages.
            let within = self.is_within_file(cpu, vma, address);
            done = within && slot.pte().read(cpu).is_none();
            if done {
                self.add_mm_counter(cpu, mm, Rss::File, 1);
                self.page_dup_rmap(cpu, page);
                let entry = self.mcopy_entry(cpu, vma, page.slot_index());
                // Release: as in set_file_pte.
                slot.pte().store(cpu, entry, Ordering::Release);
            }
            spin_unlock(cpu, slot.ptl());
            if !done {
                self.delete_from_page_cache(cpu, inode, page);
            }
        }
        self.unlock_page(cpu, page);
        if done {
            return Some(());
        }
        self.put_page(cpu, page);
        None
    }

    /// `__mcopy_atomic_hugetlb()` and `hugetlb_mcopy_atomic_pte()`: a huge page, of the pool.
    fn mcopy_atomic_hugetlb(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        address: Vaddr,
    ) -> Option<()> {
        let shared = vma.vm_flags().read(cpu).has(VmFlags::SHARED);
        if !shared {
            self.anon_vma_prepare(cpu, vma).ok()?;
        }
        let mutex = self.hugetlb_fault_mutex(cpu, mm, vma, address);
        mutex_lock(cpu, mutex);
        let result = self.hugetlb_mcopy(cpu, mm, vma, address, shared);
        mutex_unlock(cpu, mutex);
        result
    }

    /// Caller holds the mutex of the page.
    fn hugetlb_mcopy(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        address: Vaddr,
        shared: bool,
    ) -> Option<()> {
        let pmd = self.pmd_alloc(cpu, mm, address)?;
        if !pmd.read(cpu).is_none() {
            return None;
        }
        let page = self.alloc_huge_page(cpu, vma, address, false)?;
        self.clear_huge_page(cpu, page);
        page.flags().poke(page.flags().peek() | PG_LOCKED | if shared { PG_CACHE } else { 0 });
        let inode = self.inodes.get(cpu, vma.vm_file().read(cpu));
        let index = self.vma_hugecache_offset(cpu, vma, address);
        let within = index < inode.i_size().read(cpu) / self.pmd_size();
        if !within || shared && !self.add_to_page_cache(cpu, inode, index, page) {
            page.flags().poke(page.flags().peek() & !PG_CACHE);
            self.unlock_page(cpu, page);
            self.restore_reserve_on_error(cpu, vma, address, page);
            self.put_page(cpu, page);
            return None;
        }
        self.clear_page_private(cpu, page);
        self.pmd_lock(cpu, pmd);
        // The mutex keeps all others from making it something.
        if shared {
            self.page_dup_huge_rmap(cpu, page);
        } else {
            let pgoff = self.linear_page_index(cpu, vma, address);
            self.page_add_new_huge_anon_rmap(cpu, page, vma, pgoff);
        }
        let mut entry = Pte::new(page.slot_index(), vma.vm_page_prot().read(cpu) | Pte::YOUNG);
        entry = entry.without(Pte::WRITE);
        if vma.vm_flags().read(cpu).has(VmFlags::WRITE) {
            entry |= Pte::WRITE | Pte::DIRTY;
        }
        pmd.set(cpu, self.huge_pmd(entry));
        spin_unlock(cpu, pmd.ptl());
        self.unlock_page(cpu, page);
        Some(())
    }
}
