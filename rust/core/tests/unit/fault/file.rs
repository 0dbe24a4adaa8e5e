use super::*;
use crate::arch::Arch;
use crate::design::Spf;
use crate::mm::{FaultFlags, FileKind, MmRef, PmdVal, Table, VmaRef};
use crate::platform::native::{Cpu, Machine};
use crate::platform::{Ptr, Value};
use crate::support::system;

type K = Kernel<Cpu, Spf>;

const PAGE: u64 = 4096;
/// Start of a PTE table, and of a fault-around window.
const BASE: u64 = 0x2000_0000;
const WRITE: FaultFlags = FaultFlags::WRITE;
const READ: FaultFlags = FaultFlags::NONE;

struct Mapping<'k> {
    k: &'k K,
    cpu: &'k Cpu,
    mm: MmRef<'k, Cpu>,
    vma: VmaRef<'k, Cpu>,
    inode: InodeRef<'k, Cpu>,
}

impl<'k> Mapping<'k> {
    /// Pages `from..to`, counted from [`BASE`], map the file from page 0 on.
    fn new(
        k: &'k K,
        cpu: &'k Cpu,
        inode: InodeRef<'k, Cpu>,
        (from, to): (u64, u64),
        shared: bool,
    ) -> Self {
        let mm = k.mms.alloc();
        assert!(k.pgd_alloc(cpu, mm));
        k.tasks[0].mm.set(mm.ptr().to_word());
        let vma = k.vmas.alloc();
        vma.vm_mm().poke(mm.ptr());
        vma.vm_start().poke(Vaddr(BASE + from * PAGE));
        vma.vm_end().poke(Vaddr(BASE + to * PAGE));
        vma.vm_file().poke(inode.ptr());
        vma.vm_ops().poke(VmOps::File as u64);
        let shared = if shared { VmFlags::SHARED } else { VmFlags::NONE };
        vma.vm_flags().poke(VmFlags::READ | VmFlags::WRITE | VmFlags::MAYWRITE | shared);
        vma.vm_page_prot().poke(Pte::PRESENT | Pte::READ);
        Self { k, cpu, mm, vma, inode }
    }

    fn fault(&self, page: u64, flags: FaultFlags) -> VmFault {
        let address = Vaddr(BASE + page * PAGE);
        let Some(pmd) = self.k.pmd_alloc(self.cpu, self.mm, address) else { return VmFault::OOM };
        let mut vmf = Vmf {
            vma: self.vma,
            mm: self.mm,
            flags,
            address,
            pgoff: self.k.linear_page_index(self.cpu, self.vma, address),
            vma_flags: self.vma.vm_flags().peek(),
            vma_page_prot: self.vma.vm_page_prot().peek(),
            sequence: 0,
            pmd,
            orig_pmd: PmdVal::NONE,
            pte: None,
            orig_pte: Pte::EMPTY,
            ptl: None,
        };
        let result = self.k.do_fault(self.cpu, &mut vmf);
        assert!(vmf.ptl.is_none(), "the PTE lock is given back");
        result
    }

    /// As [`Mapping::fault`], with `mmap_sem` held as the fault handler holds it.
    fn fault_locked(&self, page: u64, flags: FaultFlags) -> VmFault {
        let sem = self.k.mmap_sem(self.mm);
        sem.down_read(self.cpu);
        let result = self.fault(page, flags);
        if !result.has(VmFault::RETRY) {
            sem.up_read(self.cpu);
        }
        assert!(!sem.is_locked());
        result
    }

    fn table(&self, page: u64) -> Option<Ptr<Table<Cpu>>> {
        let address = Vaddr(BASE + page * PAGE);
        self.k.walk_pmd(self.cpu, self.mm, address)?.read(self.cpu).table()
    }

    fn pte(&self, page: u64) -> Pte {
        let Some(table) = self.table(page) else { return Pte::EMPTY };
        self.k.pte_offset_map(self.cpu, table, Vaddr(BASE + page * PAGE)).pte().peek()
    }

    /// Which of the pages around are mapped.
    fn mapped(&self) -> Vec<u64> {
        (0..1200).filter(|&page| !self.pte(page).is_none()).collect()
    }

    fn frame(&self, page: u64) -> PageRef<'k, Cpu> {
        self.k.page(self.cpu, self.pte(page).pfn())
    }

    /// Unmaps by hand, so that what is left is what the file has.
    fn unmap(&self) {
        for page in self.mapped() {
            let frame = self.frame(page);
            let table = self.table(page).expect("mapped");
            let slot = self.k.pte_offset_map(self.cpu, table, Vaddr(BASE + page * PAGE));
            slot.pte().poke(Pte::EMPTY);
            self.k.page_remove_rmap(self.cpu, self.mm, frame);
            self.k.put_page(self.cpu, frame);
        }
        self.k.unlink_anon_vmas(self.cpu, self.vma);
    }
}

fn cached<'k>(k: &'k K, cpu: &Cpu, pages: u64) -> InodeRef<'k, Cpu> {
    k.inode_new(cpu, pages * PAGE, FileKind::Regular, true)
}

#[test]
fn a_read_maps_the_aligned_window_clipped_to_vma_and_file() {
    // pages   0        5             16            32       ; window 0..16
    // VMA              [ f0 … f10 |  f11 …
    let (k, cpu) = system(1 << 30);
    let m = Mapping::new(&k, &cpu, cached(&k, &cpu, 64), (5, 40), true);
    assert_eq!(m.fault(12, READ), VmFault::NOPAGE);
    // The window begins at the VMA's start and is still 64 KiB long.
    assert_eq!(m.mapped(), (5..21).collect::<Vec<_>>());
    assert_eq!(m.frame(12).index().peek(), 7);
    assert_eq!(m.pte(12), Pte::new(m.pte(12).pfn(), Pte::PRESENT | Pte::READ | Pte::YOUNG));

    let m = Mapping::new(&k, &cpu, cached(&k, &cpu, 3), (0, 40), true);
    assert_eq!(m.fault(1, READ), VmFault::NOPAGE);
    assert_eq!(m.mapped(), [0, 1, 2], "the file has 3 pages");

    let m = Mapping::new(&k, &cpu, cached(&k, &cpu, 64), (0, 9), true);
    assert_eq!(m.fault(8, READ), VmFault::NOPAGE);
    assert_eq!(m.mapped(), (0..9).collect::<Vec<_>>());
}

#[test]
fn a_window_does_not_reach_into_the_next_page_table() {
    // The VMA begins 3 pages below the edge at page 512: its window would go to page 525.
    let (k, cpu) = system(1 << 30);
    let m = Mapping::new(&k, &cpu, cached(&k, &cpu, 64), (509, 540), true);
    assert_eq!(m.fault(510, READ), VmFault::NOPAGE);
    assert_eq!(m.mapped(), [509, 510, 511]);
    assert!(m.table(512).is_none());
}

#[test]
fn what_is_mapped_or_locked_stays_as_it_is() {
    let (k, cpu) = system(1 << 30);
    let m = Mapping::new(&k, &cpu, cached(&k, &cpu, 64), (0, 16), false);
    assert_eq!(m.fault(2, WRITE), VmFault::NONE);
    let copy = m.pte(2);
    let busy = k.find_get_page(&cpu, m.inode, 3).unwrap();
    assert!(k.trylock_page(&cpu, busy));
    assert_eq!(m.fault(0, READ), VmFault::NOPAGE);
    assert_eq!(m.pte(2), copy);
    assert_eq!(m.mapped(), (0..16).filter(|&page| page != 3).collect::<Vec<_>>());
    k.unlock_page(&cpu, busy);
    assert_eq!(busy.refcount().peek(), 2, "the page cache and this test");
}

#[test]
fn pages_of_64k_are_mapped_one_by_one() {
    let mut config = system(1 << 30).0.config;
    config.arch = Arch::builtin().into_iter().find(|arch| arch.name == "arm64-64k").unwrap();
    let k: K = Kernel::new(config);
    let cpu = Machine::new(1).cpu(0, 0);
    let inode = k.inode_new(&cpu, 1 << 20, FileKind::Regular, true);
    let m = Mapping::new(&k, &cpu, inode, (0, 256), true);
    assert_eq!(m.fault(16, READ), VmFault::NONE);
    assert_eq!(m.mapped().len(), 16, "16 of this test's pages are one of theirs");
}

#[test]
fn a_page_on_disk_is_read_without_mmap_sem_and_the_fault_begins_again() {
    for (flags, after) in [(READ, VmFault::NOPAGE), (WRITE, VmFault::NONE)] {
        let (k, cpu) = system(1 << 30);
        let inode = k.inode_new(&cpu, 64 * PAGE, FileKind::Regular, false);
        let m = Mapping::new(&k, &cpu, inode, (0, 64), true);
        let first = m.fault_locked(4, flags | FaultFlags::ALLOW_RETRY);
        assert_eq!(first, VmFault::MAJOR | VmFault::RETRY);
        assert_eq!((m.mapped(), inode.count().peek()), (vec![], 1));
        let page = k.find_get_page(&cpu, inode, 4).expect("it was read");
        assert_eq!(page.refcount().peek(), 2, "the page cache and this test");
        assert!(k.trylock_page(&cpu, page));
        k.unlock_page(&cpu, page);
        // A read maps it with what is around.
        assert_eq!(m.fault_locked(4, flags | FaultFlags::TRIED), after);
        assert_eq!(m.mapped(), [4]);
    }
}

#[test]
fn shmem_and_a_second_round_keep_mmap_sem() {
    for (ops, flags) in [(VmOps::Shmem, FaultFlags::ALLOW_RETRY), (VmOps::File, FaultFlags::TRIED)]
    {
        let (k, cpu) = system(1 << 30);
        let inode = k.inode_new(&cpu, 64 * PAGE, FileKind::Regular, false);
        let m = Mapping::new(&k, &cpu, inode, (0, 64), true);
        m.vma.vm_ops().poke(ops as u64);
        assert_eq!(m.fault_locked(4, flags), VmFault::MAJOR);
        assert_eq!(m.mapped(), [4]);
    }
}

#[test]
fn without_memory_to_read_into_the_second_round_is_out_of_memory() {
    let (k, cpu) = system(8 * PAGE);
    let inode = k.inode_new(&cpu, 64 * PAGE, FileKind::Regular, false);
    let m = Mapping::new(&k, &cpu, inode, (0, 64), true);
    m.fault(4, READ);
    let hoard: Vec<_> = std::iter::from_fn(|| k.alloc_page(&cpu)).collect();
    let first = m.fault_locked(5, READ | FaultFlags::ALLOW_RETRY);
    assert_eq!(first, VmFault::MAJOR | VmFault::RETRY);
    assert_eq!(m.fault_locked(5, READ | FaultFlags::TRIED), VmFault::OOM);
    assert!(!hoard.is_empty());
}

#[test]
fn only_pages_in_the_cache_are_mapped_around() {
    let (k, cpu) = system(1 << 30);
    let inode = k.inode_new(&cpu, 64 * PAGE, FileKind::Regular, false);
    let m = Mapping::new(&k, &cpu, inode, (0, 64), true);
    assert_eq!(m.fault(4, READ), VmFault::MAJOR);
    assert_eq!(m.mapped(), [4]);
    assert_eq!(m.fault(6, READ), VmFault::MAJOR);
    m.unmap();
    assert_eq!(m.fault(6, READ), VmFault::NOPAGE);
    assert_eq!(m.mapped(), [4, 6]);
    assert_eq!(k.tasks[0].counters.snapshot()[Event::Pgmajfault as usize], 2);
}

#[test]
fn shared_anonymous_memory_is_made_page_by_page() {
    let (k, cpu) = system(1 << 30);
    let inode = k.inode_new(&cpu, 64 * PAGE, FileKind::ShmemZero, false);
    let m = Mapping::new(&k, &cpu, inode, (0, 64), true);
    m.vma.vm_ops().poke(VmOps::Shmem as u64);
    m.vma.vm_page_prot().poke(Pte::PRESENT | Pte::READ | Pte::WRITE);
    assert_eq!(m.fault(4, READ), VmFault::NONE);
    assert_eq!(m.mapped(), [4]);
    assert!(m.pte(4).has(Pte::WRITE), "no write notification: writable at once");
    assert!(!m.pte(4).has(Pte::DIRTY));
}

#[test]
fn a_write_to_a_private_page_gets_a_copy() {
    let (k, cpu) = system(1 << 30);
    let m = Mapping::new(&k, &cpu, cached(&k, &cpu, 64), (0, 64), false);
    let original = k.find_get_page(&cpu, m.inode, 9).unwrap();
    original.content().poke(77);
    assert_eq!(m.fault(9, WRITE), VmFault::NONE);
    assert_eq!(m.mapped(), [9]);
    let copy = m.frame(9);
    assert!(copy != original);
    assert!(k.page_is_anon(&cpu, copy));
    assert_eq!(copy.content().peek(), 77);
    assert_eq!((copy.refcount().peek(), copy.mapcount().peek()), (1, 1));
    assert!(m.pte(9).has(Pte::WRITE) && m.pte(9).has(Pte::DIRTY));
    assert_eq!((original.refcount().peek(), original.mapcount().peek()), (2, 0));
    assert!(!m.vma.anon_vma().peek().is_null());
}

#[test]
fn a_write_to_a_shared_page_maps_the_files_own() {
    let (k, cpu) = system(1 << 30);
    let m = Mapping::new(&k, &cpu, cached(&k, &cpu, 64), (0, 64), true);
    assert_eq!(m.fault(9, WRITE), VmFault::NONE);
    assert_eq!(m.mapped(), [9]);
    assert_eq!(m.frame(9).mapping().peek(), m.inode.ptr().to_word());
    assert!(m.pte(9).has(Pte::WRITE) && m.pte(9).has(Pte::DIRTY));
    assert!(m.vma.anon_vma().peek().is_null());
}

#[test]
fn beyond_the_end_is_sigbus_and_leaves_no_page_table() {
    for (shared, flags) in [(true, READ), (true, WRITE), (false, READ), (false, WRITE)] {
        let (k, cpu) = system(1 << 30);
        // 3 pages and a byte: page 3 is there.
        let inode = k.inode_new(&cpu, 3 * PAGE + 1, FileKind::Regular, true);
        let m = Mapping::new(&k, &cpu, inode, (0, 1024), shared);
        let live = k.pages.live();
        assert_eq!(m.fault(600, flags), VmFault::SIGBUS);
        assert!(m.table(600).is_none());
        // PUD and PMD tables stay.
        assert_eq!(k.pages.live(), live + 2);
        assert_eq!(m.fault(3, flags) & VmFault::ERROR, VmFault::NONE);
    }
}

#[test]
fn a_read_beyond_the_end_maps_what_is_around_before_sigbus() {
    let (k, cpu) = system(1 << 30);
    let m = Mapping::new(&k, &cpu, cached(&k, &cpu, 3), (0, 40), true);
    assert_eq!(m.fault(5, READ), VmFault::SIGBUS);
    assert_eq!(m.mapped(), [0, 1, 2]);
    assert_eq!(m.fault(20, READ), VmFault::SIGBUS);
    assert_eq!(m.mapped(), [0, 1, 2]);
}

#[test]
fn operations_without_fault_are_sigbus() {
    let (k, cpu) = system(1 << 30);
    let m = Mapping::new(&k, &cpu, cached(&k, &cpu, 64), (0, 64), true);
    m.vma.vm_ops().poke(VmOps::Dummy as u64);
    assert_eq!(m.fault(1, READ), VmFault::SIGBUS);
    m.vma.vm_ops().poke(VmOps::File as u64);
    assert_eq!(m.fault(1, READ), VmFault::NOPAGE);
    m.vma.vm_ops().poke(VmOps::Dummy as u64);
    // Somebody put the PTE back meanwhile.
    assert_eq!(m.fault(1, READ), VmFault::NOPAGE);
}

#[test]
fn without_memory_a_fault_gives_everything_back() {
    // Goal: whichever allocation of a fault fails, nothing of that fault is left.
    for (shared, flags, cached) in [
        (true, READ, true),
        (true, READ, false),
        (true, WRITE, true),
        (true, WRITE, false),
        (false, WRITE, true),
        (false, WRITE, false),
    ] {
        let mut failures = 0;
        for frames in 2.. {
            let (k, cpu) = system(frames * PAGE);
            let inode = k.inode_new(&cpu, 64 * PAGE, FileKind::Regular, cached);
            let m = Mapping::new(&k, &cpu, inode, (0, 64), shared);
            let result = m.fault(0, flags);
            if !result.has(VmFault::OOM) {
                break;
            }
            failures += 1;
            assert_eq!(m.mapped(), []);
            m.unmap();
            k.fput(&cpu, m.inode.ptr());
            assert_eq!((k.anon_vmas.live(), k.avcs.live()), (0, 0));
            // The zero page, and tables: those of the upper levels, and the PTE table at most.
            assert!(k.pages.live() <= 5, "{} frames are in use", k.pages.live());
            let tables: u32 = k.tables.iter().map(|level| level.live()).sum();
            assert_eq!(k.pages.live(), 1 + tables);
        }
        assert!(failures >= 4, "{failures} of the allocations can fail");
    }
}
