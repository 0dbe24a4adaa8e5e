//! hugetlb: the pool of huge pages, and who has reserved them.
//!
//! Source: `mm/hugetlb.c`, `fs/hugetlbfs/inode.c`, v5.1. A reservation is a count of the pool, and
//! which pages it is for is written down in a map: a file's has the pages that are reserved or
//! there, a private mapping's those that are *not* reserved any more. DEVIATION: the frames of the
//! pool are taken when a page is used.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Mutex;

use super::kernel::Kernel;
use super::objects::{Inode, InodeRef, MmRef, PageRef, VmOps, VmaRef};
use super::page::{PG_HUGETLB, PG_PRIVATE};
use super::types::{Errno, Vaddr, VmFlags};
use crate::design::Design;
use crate::platform::arena::{Lines, Object};
use crate::platform::{Field, Line, Ordering, Platform, Ptr, Ref, Value, Word};
use crate::sync::refcount::{atomic_dec_and_test, atomic_inc};
use crate::sync::spinlock::{spin_lock, spin_unlock};

/// `vma->vm_private_data` has these in its low bits: the mapping's maker, who has its
/// reservations; a page was taken from this mapping, so that its faults fail.
pub(crate) const HPAGE_RESV_OWNER: u64 = 1;
pub(crate) const HPAGE_RESV_UNMAPPED: u64 = 2;

/// Pages that the pool has if nobody says how many.
const ENOUGH_PAGES: u64 = 1 << 40;

/// The pool: `struct hstate`, and what keeps its faults apart.
pub(super) struct Hstate<P: Platform> {
    /// `hugetlb_lock`; under it how many pages are free, and reserved.
    pub(super) lock: Word<P>,
    pub(super) free_huge_pages: Word<P>,
    pub(super) resv_huge_pages: Word<P>,
    /// `hugetlb_fault_mutex_table`
    fault_mutexes: Vec<Word<P>>,
}

impl<P: Platform> Hstate<P> {
    pub(super) fn new(lines: &Lines, nr_cpus: u32) -> Self {
        let hstate = lines.take_named("hstate", 1, |offset| {
            let names = ["lock", "free_huge_pages", "resv_huge_pages"];
            names[offset as usize / 8].to_owned()
        });
        let nr_mutexes = (8 * nr_cpus).next_power_of_two();
        let Line(first) =
            lines.take_named("hugetlb_fault_mutex", nr_mutexes, |_| "held".to_owned());
        Self {
            lock: Word::new(hstate, 0),
            free_huge_pages: Word::new(hstate, 8),
            resv_huge_pages: Word::new(hstate, 16),
            fault_mutexes: (first..first + nr_mutexes).map(|at| Word::new(Line(at), 0)).collect(),
        }
    }

    pub(super) fn reset(&self, pages: Option<u64>) {
        self.lock.poke(0);
        self.free_huge_pages.poke(pages.unwrap_or(ENOUGH_PAGES));
        self.resv_huge_pages.poke(0);
        self.fault_mutexes.iter().for_each(|mutex| mutex.poke(0));
    }
}

/// `struct resv_map`: numbers of huge pages of a file or mapping.
pub struct ResvMap<P: Platform> {
    refs: Word<P>,
    lock: Word<P>,
    /// The kernel's list of regions. Under `lock`.
    regions: Mutex<BTreeSet<u64>>,
}

impl<P: Platform> Object for ResvMap<P> {
    type P = P;
    const NAME: &'static str = "resv_map";
    fn new(line: Line, _shape: u32) -> Self {
        Self { refs: Word::new(line, 0), lock: Word::new(line, 4), regions: Mutex::default() }
    }
    fn lines(_shape: u32) -> u32 {
        1
    }
    fn clear(&self) {
        self.refs.poke(0);
        self.lock.poke(0);
        self.regions.lock().expect("no panic while held").clear();
    }
    fn field_name(offset: u32) -> String {
        if offset == 0 { "refs".to_owned() } else { "lock".to_owned() }
    }
    fn field_text(_arena: &str, _offset: u32, word: u64) -> String {
        u64::text(word)
    }
}

pub type ResvMapRef<'k, P> = Ref<'k, ResvMap<P>>;

impl<'k, P: Platform> Ref<'k, ResvMap<P>> {
    fn refs(self) -> Field<'k, P, u64> {
        let (generation, expect) = self.stamp();
        Field::new(&self.object().refs, generation, expect)
    }
    fn lock(self) -> Field<'k, P, u64> {
        let (generation, expect) = self.stamp();
        Field::new(&self.object().lock, generation, expect)
    }
    /// Looks at the regions, or changes them, under the lock.
    fn with<T>(self, cpu: &P, look: impl FnOnce(&mut BTreeSet<u64>) -> T) -> T {
        spin_lock(cpu, self.lock());
        let found = look(&mut self.object().regions.lock().expect("no panic while held"));
        spin_unlock(cpu, self.lock());
        found
    }
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `is_vm_hugetlb_page()`
    pub(crate) fn is_vm_hugetlb_page(&self, cpu: &P, vma: VmaRef<'_, P>) -> bool {
        vma.vm_flags().read(cpu).has(VmFlags::HUGETLB)
    }

    /// Rounds up to whole huge pages; wraps to 0 as the kernel's does.
    pub(crate) fn huge_page_align(&self, bytes: u64) -> u64 {
        let mask = self.pmd_size() - 1;
        bytes.wrapping_add(mask) & !mask
    }

    /// `vma_hugecache_offset()`: which huge page of its file `address` is in.
    pub(crate) fn vma_hugecache_offset(&self, cpu: &P, vma: VmaRef<'_, P>, address: Vaddr) -> u64 {
        self.linear_page_index(cpu, vma, address) >> self.hpage_pmd_order()
    }

    fn huge_pages_of(&self, cpu: &P, vma: VmaRef<'_, P>) -> Range<u64> {
        let (start, end) = (vma.vm_start().read(cpu), vma.vm_end().read(cpu));
        self.vma_hugecache_offset(cpu, vma, start)..self.vma_hugecache_offset(cpu, vma, end)
    }

    /// `vma_resv_map()`: the file's for a shared mapping, its maker's for a private one.
    fn vma_resv_map(&self, cpu: &P, vma: VmaRef<'_, P>) -> Option<ResvMapRef<'_, P>> {
        let map = if vma.vm_flags().read(cpu).has(VmFlags::MAYSHARE) {
            self.inodes.get(cpu, vma.vm_file().read(cpu)).resv_map().read(cpu)
        } else {
            vma.vm_private_data().read(cpu)
        };
        self.resv_maps.get_opt(cpu, map)
    }

    /// `resv_map_alloc()`
    pub(super) fn resv_map_alloc(&self) -> ResvMapRef<'_, P> {
        let map = self.resv_maps.alloc();
        map.refs().poke(1);
        map
    }

    /// `kref_put(…, resv_map_release)`
    fn put_resv_map(&self, cpu: &P, map: ResvMapRef<'_, P>) {
        if atomic_dec_and_test(cpu, map.refs()) {
            self.resv_maps.free(cpu, map);
        }
    }

    /// `hugetlbfs_file_mmap()`: reserves pages for a new mapping, and makes the file as long as a
    /// writable one needs.
    pub(crate) fn hugetlbfs_file_mmap(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        inode: InodeRef<'_, P>,
    ) -> Result<(), Errno> {
        let flags = vma.vm_flags().peek() | VmFlags::HUGETLB | VmFlags::DONTEXPAND;
        vma.vm_flags().poke(flags);
        vma.vm_ops().poke(VmOps::Hugetlb as u64);
        let offset = vma.vm_pgoff().peek() << self.page_shift();
        if offset & (self.pmd_size() - 1) != 0 {
            return Err(Errno::Einval);
        }
        // inode_lock(): inside mmap_sem, as only hugetlbfs has it.
        let lock = self.inode_rwsem(inode);
        lock.down_write(cpu);
        let reserved = self.hugetlb_reserve_pages(cpu, vma, inode);
        let end = offset + vma.vm_end().peek().since(vma.vm_start().peek());
        if reserved.is_ok() && flags.has(VmFlags::WRITE) && inode.i_size().read(cpu) < end {
            inode.i_size().write(cpu, end);
        }
        lock.up_write(cpu);
        reserved
    }

    /// `hugetlb_reserve_pages()`
    fn hugetlb_reserve_pages(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        inode: InodeRef<'_, P>,
    ) -> Result<(), Errno> {
        let flags = vma.vm_flags().peek();
        if flags.has(VmFlags::NORESERVE) {
            return Ok(());
        }
        let pages = self.huge_pages_of(cpu, vma);
        if !flags.has(VmFlags::MAYSHARE) {
            self.hugetlb_acct_memory(cpu, (pages.end - pages.start) as i64)?;
            vma.vm_private_data().poke(self.resv_map_alloc().ptr());
            vma.resv_flags().poke(HPAGE_RESV_OWNER);
            return Ok(());
        }
        let map = self.resv_maps.get(cpu, inode.resv_map().peek());
        // region_chg(), then region_add(): faults without a reservation may add some in between.
        let missing = map.with(cpu, |regions| {
            pages.clone().filter(|page| !regions.contains(page)).count() as u64
        });
        self.hugetlb_acct_memory(cpu, missing as i64)?;
        let added =
            map.with(cpu, |regions| pages.filter(|&page| regions.insert(page)).count() as u64);
        self.return_unused_surplus_pages(cpu, missing - added);
        Ok(())
    }

    /// `hugetlb_acct_memory()`: reserves so many pages more of those that are free, or fewer.
    fn hugetlb_acct_memory(&self, cpu: &P, pages: i64) -> Result<(), Errno> {
        spin_lock(cpu, Field::permanent(&self.hstate.lock));
        let reserved = cpu.load(&self.hstate.resv_huge_pages, Ordering::Relaxed);
        let free = cpu.load(&self.hstate.free_huge_pages, Ordering::Relaxed);
        let wanted = reserved.wrapping_add_signed(pages);
        let result = if pages > 0 && wanted > free { Err(Errno::Enomem) } else { Ok(()) };
        if result.is_ok() {
            cpu.store(&self.hstate.resv_huge_pages, wanted, Ordering::Relaxed);
        }
        spin_unlock(cpu, Field::permanent(&self.hstate.lock));
        result
    }

    /// `hugetlb_vm_op_split()`: whether a hugetlb mapping may be cut there.
    pub(crate) fn may_split(&self, cpu: &P, vma: VmaRef<'_, P>, address: Vaddr) -> bool {
        address == self.hpage_pmd_start(address) || !self.is_vm_hugetlb_page(cpu, vma)
    }

    /// `hugetlb_vm_op_open()`: one mapping more has the reservations of its maker.
    pub(super) fn hugetlb_vm_op_open(&self, cpu: &P, vma: VmaRef<'_, P>) {
        if let Some(map) = self.resv_maps.get_opt(cpu, vma.vm_private_data().read(cpu)) {
            atomic_inc(cpu, map.refs());
        }
    }

    /// `hugetlb_vm_op_close()`: gives back what is reserved and was never used.
    pub(crate) fn hugetlb_vm_op_close(&self, cpu: &P, vma: VmaRef<'_, P>) {
        let Some(map) = self.resv_maps.get_opt(cpu, vma.vm_private_data().read(cpu)) else {
            return;
        };
        let pages = self.huge_pages_of(cpu, vma);
        let consumed = map.with(cpu, |regions| regions.range(pages.clone()).count() as u64);
        self.put_resv_map(cpu, map);
        self.return_unused_surplus_pages(cpu, pages.end - pages.start - consumed);
    }

    /// `reset_vma_resv_huge_pages()`: a child has no reservations.
    pub(crate) fn reset_vma_resv_huge_pages(&self, vma: VmaRef<'_, P>) {
        vma.vm_private_data().poke(Ptr::NULL);
        vma.resv_flags().poke(0);
    }

    /// `hugetlb_unreserve_pages()`: of a file that goes, of whose pages `freed` were there.
    pub(super) fn hugetlb_unreserve_pages(&self, cpu: &P, inode: InodeRef<'_, P>, freed: u64) {
        let Some(map) = self.resv_maps.get_opt(cpu, inode.resv_map().peek()) else { return };
        let known = map.with(cpu, |regions| regions.len() as u64);
        self.put_resv_map(cpu, map);
        self.return_unused_surplus_pages(cpu, known - freed);
    }

    fn return_unused_surplus_pages(&self, cpu: &P, pages: u64) {
        if pages != 0 {
            self.hugetlb_acct_memory(cpu, -(pages as i64)).expect("giving back never fails");
        }
    }

    /// `vma_needs_reservation()`: whether nothing is reserved for this page of the mapping.
    fn vma_needs_reservation(&self, cpu: &P, vma: VmaRef<'_, P>, index: u64) -> bool {
        let Some(map) = self.vma_resv_map(cpu, vma) else { return true };
        let known = map.with(cpu, |regions| regions.contains(&index));
        known != vma.vm_flags().read(cpu).has(VmFlags::MAYSHARE)
    }

    /// `vma_has_reserves()`: whether the page comes out of a reservation. `needs_page`: nothing is
    /// reserved for it.
    fn vma_has_reserves(&self, cpu: &P, vma: VmaRef<'_, P>, needs_page: bool) -> bool {
        let flags = vma.vm_flags().read(cpu);
        let is_owner = vma.resv_flags().read(cpu) & HPAGE_RESV_OWNER != 0;
        !needs_page && (flags.has(VmFlags::MAYSHARE) || is_owner && !flags.has(VmFlags::NORESERVE))
    }

    /// `alloc_huge_page()`: a page of the pool for `address` of the mapping, with undefined
    /// content. `None`: there is none that nobody else has reserved.
    pub(crate) fn alloc_huge_page(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        address: Vaddr,
        avoid_reserve: bool,
    ) -> Option<PageRef<'_, P>> {
        let index = self.vma_hugecache_offset(cpu, vma, address);
        let needs_reservation = self.vma_needs_reservation(cpu, vma, index);
        let from_reserve = self.vma_has_reserves(cpu, vma, needs_reservation || avoid_reserve);
        if !self.dequeue_huge_page(cpu, from_reserve) {
            return None;
        }
        let private = if from_reserve { PG_PRIVATE } else { 0 };
        let place = self.vma_placement(cpu, vma, address, self.hpage_pmd_order());
        let Some(page) = self.take_compound_page(cpu, place) else {
            self.enqueue_huge_page(cpu, from_reserve);
            return None;
        };
        page.flags().poke(page.flags().peek() | PG_HUGETLB | private);
        // vma_commit_reservation
        if let Some(map) = self.vma_resv_map(cpu, vma) {
            let added = map.with(cpu, |regions| regions.insert(index));
            if needs_reservation && !added && vma.vm_flags().read(cpu).has(VmFlags::MAYSHARE) {
                // Somebody has reserved it meanwhile, and gets this page.
                self.return_unused_surplus_pages(cpu, 1);
            }
        }
        Some(page)
    }

    /// `dequeue_huge_page_vma()`: takes one page of the pool, if it has one for this purpose.
    fn dequeue_huge_page(&self, cpu: &P, from_reserve: bool) -> bool {
        spin_lock(cpu, Field::permanent(&self.hstate.lock));
        let free = cpu.load(&self.hstate.free_huge_pages, Ordering::Relaxed);
        let reserved = cpu.load(&self.hstate.resv_huge_pages, Ordering::Relaxed);
        let found = free > 0 && (from_reserve || free > reserved);
        if found {
            cpu.store(&self.hstate.free_huge_pages, free - 1, Ordering::Relaxed);
            cpu.store(
                &self.hstate.resv_huge_pages,
                reserved - u64::from(from_reserve),
                Ordering::Relaxed,
            );
        }
        spin_unlock(cpu, Field::permanent(&self.hstate.lock));
        found
    }

    /// `free_huge_page()`: the pool has one page more, and with `restore_reserve` one that is
    /// reserved.
    pub(super) fn enqueue_huge_page(&self, cpu: &P, restore_reserve: bool) {
        spin_lock(cpu, Field::permanent(&self.hstate.lock));
        let free = cpu.load(&self.hstate.free_huge_pages, Ordering::Relaxed);
        cpu.store(&self.hstate.free_huge_pages, free + 1, Ordering::Relaxed);
        if restore_reserve {
            let reserved = cpu.load(&self.hstate.resv_huge_pages, Ordering::Relaxed);
            cpu.store(&self.hstate.resv_huge_pages, reserved + 1, Ordering::Relaxed);
        }
        spin_unlock(cpu, Field::permanent(&self.hstate.lock));
    }

    /// `restore_reserve_on_error()`: a page that was allocated is not mapped after all.
    pub(crate) fn restore_reserve_on_error(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        address: Vaddr,
        page: PageRef<'_, P>,
    ) {
        if page.flags().peek() & PG_PRIVATE == 0 || vma.vm_flags().read(cpu).has(VmFlags::MAYSHARE)
        {
            return;
        }
        let index = self.vma_hugecache_offset(cpu, vma, address);
        if let Some(map) = self.vma_resv_map(cpu, vma) {
            map.with(cpu, |regions| regions.remove(&index));
        }
    }

    /// `ClearPagePrivate()`: the page is used, and its reservation with it.
    pub(crate) fn clear_page_private(&self, cpu: &P, page: PageRef<'_, P>) {
        self.page_clear(cpu, page, PG_PRIVATE);
    }

    /// `hugetlb_fault_mutex_hash()`: the mutex that keeps faults on one page apart, of a file or
    /// of an address space.
    pub(crate) fn hugetlb_fault_mutex<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        address: Vaddr,
    ) -> Field<'k, P, u64> {
        let (whose, number) = if vma.vm_flags().read(cpu).has(VmFlags::SHARED) {
            let file: Ptr<Inode<P>> = vma.vm_file().read(cpu);
            (file.index(), self.vma_hugecache_offset(cpu, vma, address))
        } else {
            (mm.slot_index(), address.0 / self.pmd_size())
        };
        let nth = u64::from(whose).wrapping_add(number) as usize % self.hstate.fault_mutexes.len();
        Field::permanent(&self.hstate.fault_mutexes[nth])
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/hugetlb.rs"]
mod tests;
