//! A speculative first write to an anonymous page, written by hand: the steps and decisions of
//! `Kernel::do_page_fault` under the design `Spf` on the platform `native`, over `std` atomics, with
//! neither type parameter. What this fault does not come to (the classic handler, pages of files,
//! pages that are there, reads) is a call of [`Twin::elsewhere`], where the core has one too.

mod fault;
mod pte;

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU64, fence};

use crossbeam_epoch::{Collector, Guard, LocalHandle};
use crossbeam_utils::CachePadded;
use spfemu_core::arch::Arch;
use spfemu_core::events::NR_EVENTS;
use spfemu_core::mm::{Pte, System, Variants, VmFlags};

use crate::layout::{self, NR_VMAS};

const FIRST_CHUNK: u32 = 64;
const PG_UPTODATE: u64 = 1 << 3;
const PG_ANON: u64 = 1 << 32;
const RSS_EVENTS: u64 = 64;
const SECTIONS_PER_PIN: u32 = 64;

/// Objects that stay where they are, in chunks that double in size; a pointer is index + 1 and
/// generation.
struct Arena<T> {
    chunks: [OnceLock<Box<[Slot<T>]>>; 32],
}

struct Slot<T> {
    generation: AtomicU64,
    index: u32,
    object: T,
}

impl<T> Arena<T> {
    fn new() -> Self {
        Self { chunks: [const { OnceLock::new() }; 32] }
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> &Slot<T> {
        let biased = index.wrapping_add(FIRST_CHUNK);
        let chunk = (biased | 1).ilog2();
        let slots = self.chunks[chunk as usize].get().expect("used before");
        &slots[(biased & !(1 << chunk)) as usize]
    }

    #[inline(always)]
    fn get(&self, ptr: u64) -> &Slot<T> {
        let slot = self.slot((ptr as u32).wrapping_sub(1));
        assert!(slot.generation.load(Relaxed) == ptr >> 32, "use after free");
        slot
    }

    fn is_used(&self, index: u32) -> bool {
        let chunk = (index + FIRST_CHUNK).ilog2();
        self.chunks[chunk as usize].get().is_some()
            && !self.slot(index).generation.load(Relaxed).is_multiple_of(2)
    }

    /// Brings slot `index` to life; returns its pointer.
    fn make(&self, index: u32, new: impl Fn() -> T) -> u64 {
        let chunk = (index + FIRST_CHUNK).ilog2();
        let first = (1 << chunk) - FIRST_CHUNK;
        let slot = |i| Slot { generation: AtomicU64::new(0), index: first + i, object: new() };
        self.chunks[chunk as usize].get_or_init(|| (0..1 << chunk).map(slot).collect());
        let generation = self.slot(index).generation.fetch_add(1, Relaxed) + 1;
        generation << 32 | u64::from(index + 1)
    }
}

#[derive(Default)]
struct Mm {
    mm_rb: AtomicU64,
    mm_seq: AtomicU64,
    mm_users: AtomicU64,
    pgd: AtomicU64,
    file_pages: AtomicU64,
    anon_pages: AtomicU64,
}

#[derive(Default)]
struct Vma {
    vm_start: AtomicU64,
    vm_end: AtomicU64,
    rb_parent: AtomicU64,
    rb_right: AtomicU64,
    rb_left: AtomicU64,
    vm_page_prot: AtomicU64,
    vm_flags: AtomicU64,
    anon_vma: AtomicU64,
    vm_ops: AtomicU64,
    vm_pgoff: AtomicU64,
    vm_sequence: AtomicU64,
    vm_ref_count: AtomicU64,
}

#[derive(Default)]
struct Page {
    flags: AtomicU64,
    compound_mapcount: AtomicU64,
    mapping: AtomicU64,
    index: AtomicU64,
    mapcount: AtomicU64,
    refcount: AtomicU64,
    content: AtomicU64,
}

struct Table {
    ptl: AtomicU64,
    entries: Box<[AtomicU64]>,
}

/// The tables of one level.
struct Level {
    tables: Arena<Table>,
    shift: u32,
    entries: u32,
}

impl Level {
    #[inline(always)]
    fn index(&self, address: u64) -> usize {
        ((address >> self.shift) as u32 & (self.entries - 1)) as usize
    }
}

#[derive(Default)]
struct Task {
    mm: AtomicU64,
    rss: [AtomicU64; 2],
    rss_events: AtomicU64,
    counters: [AtomicU64; NR_EVENTS],
}

struct PerCpu {
    nr_free: AtomicU64,
    free: Box<[AtomicU64]>,
}

/// What the CPUs share.
pub struct Twin {
    arch: Arch,
    variants: Variants,
    system: System,
    sysctl: AtomicU64,
    collector: Collector,
    interrupts: Box<[CachePadded<AtomicU64>]>,
    mms: Arena<Mm>,
    vmas: Arena<Vma>,
    pages: Arena<Page>,
    levels: Vec<Level>,
    cpus: Vec<PerCpu>,
    tasks: Vec<Task>,
}

/// One CPU, used on one thread. Its pin is kept as the core keeps it.
pub struct Cpu<'t> {
    id: u32,
    task: u32,
    interrupts: &'t AtomicU64,
    depth: Cell<u32>,
    sections_left: Cell<u32>,
    pin: Cell<Option<Guard>>,
    local: LocalHandle,
}

impl Cpu<'_> {
    #[inline(always)]
    fn enter(&self) {
        self.depth.set(self.depth.get() + 1);
        if self.sections_left.get() == 0 {
            self.pin.set(Some(self.local.pin()));
            self.sections_left.set(SECTIONS_PER_PIN);
        }
    }
    #[inline(always)]
    fn leave(&self) {
        let depth = self.depth.get() - 1;
        self.depth.set(depth);
        if depth == 0 {
            let left = self.sections_left.get() - 1;
            self.sections_left.set(left);
            if left == 0 {
                self.pin.set(None);
            }
        }
    }
    #[inline(always)]
    fn irq_disable(&self) {
        self.enter();
        self.interrupts.store(self.interrupts.load(Relaxed) + 1, Relaxed);
        fence(SeqCst);
    }
    #[inline(always)]
    fn irq_enable(&self) {
        self.interrupts.store(self.interrupts.load(Relaxed) + 1, Release);
        self.leave();
    }
}

impl Twin {
    /// A process like [`crate::process::Process`], of one CPU and with `nr_pages` free pages.
    pub fn new(nr_pages: usize) -> Self {
        let arch = Arch::builtin().remove(0);
        let level = |level: &spfemu_core::arch::Level| Level {
            tables: Arena::new(),
            shift: level.shift,
            entries: level.entries,
        };
        let twin = Self {
            levels: arch.levels.iter().map(level).collect(),
            arch,
            variants: Variants::outside_explore(),
            system: System::default(),
            sysctl: AtomicU64::new(1),
            collector: Collector::new(),
            interrupts: [CachePadded::default()].into(),
            mms: Arena::new(),
            vmas: Arena::new(),
            pages: Arena::new(),
            cpus: vec![PerCpu {
                nr_free: AtomicU64::new(nr_pages as u64),
                free: (0..nr_pages as u64).map(AtomicU64::new).collect(),
            }],
            tasks: vec![Task::default()],
        };
        for page in 0..nr_pages as u32 {
            // Made, and free again.
            twin.pages.make(page, Page::default);
            twin.pages.slot(page).generation.fetch_add(1, Relaxed);
        }
        twin.make_mm();
        twin
    }

    fn make_mm(&self) {
        let mm_word = self.mms.make(0, Mm::default);
        self.tasks[0].mm.store(mm_word, Relaxed);
        let mm = &self.mms.get(mm_word).object;
        mm.mm_users.store(2, Relaxed);
        mm.pgd.store(self.new_table(0), Relaxed);
        let ptrs: Vec<u64> =
            (0..NR_VMAS as u32).map(|number| self.vmas.make(number, Vma::default)).collect();
        mm.mm_rb.store(ptrs[layout::root()], Relaxed);
        for (number, (left, right)) in layout::children().into_iter().enumerate() {
            let vma = &self.vmas.get(ptrs[number]).object;
            for (link, child) in [(&vma.rb_left, left), (&vma.rb_right, right)] {
                let Some(child) = child else { continue };
                link.store(ptrs[child], Relaxed);
                self.vmas.get(ptrs[child]).object.rb_parent.store(ptrs[number], Relaxed);
            }
        }
        for (range, ptr) in layout::vmas().zip(ptrs) {
            let vma = &self.vmas.get(ptr).object;
            vma.vm_start.store(range.start, Relaxed);
            vma.vm_end.store(range.end, Relaxed);
            vma.vm_page_prot.store((Pte::PRESENT | Pte::READ).0, Relaxed);
            vma.vm_flags.store((VmFlags::READ | VmFlags::WRITE).0, Relaxed);
            vma.anon_vma.store(1, Relaxed);
            vma.vm_ref_count.store(2, Relaxed);
            self.make_tables(mm, range.start);
        }
    }

    fn new_table(&self, level: usize) -> u64 {
        let Level { tables, entries, .. } = &self.levels[level];
        let words = || (0..*entries).map(|_| AtomicU64::new(0)).collect();
        let index = (0..).find(|&index| !tables.is_used(index)).expect("a free table");
        tables.make(index, || Table { ptl: AtomicU64::new(0), entries: words() })
    }

    fn make_tables(&self, mm: &Mm, address: u64) {
        let mut table = mm.pgd.load(Relaxed);
        for (number, level) in self.levels.iter().enumerate().take(self.levels.len() - 1) {
            let entry = &level.tables.get(table).object.entries[level.index(address)];
            if entry.load(Relaxed) == 0 {
                entry.store(self.new_table(number + 1), Relaxed);
            }
            table = entry.load(Relaxed);
        }
    }

    /// The one CPU, with the one task.
    pub fn cpu(&self) -> Cpu<'_> {
        Cpu {
            id: 0,
            task: 0,
            interrupts: &self.interrupts[0],
            depth: Cell::new(0),
            sections_left: Cell::new(0),
            pin: Cell::new(None),
            local: self.collector.register(),
        }
    }

    /// Takes the pages at `addresses` away again.
    pub fn reset(&self, cpu: &Cpu<'_>, addresses: &[u64]) {
        let mm = self.tasks[cpu.task as usize].mm.load(Relaxed);
        let mine = &self.cpus[cpu.id as usize];
        for &address in addresses {
            let pmd = self.walk_pmd(mm, address).expect("a table");
            let (_, pte) = self.pte(pmd.load(Relaxed), address);
            let page = Pte(pte.swap(0, Relaxed)).pfn();
            self.pages.slot(page).generation.fetch_add(1, Relaxed);
            mine.free[mine.nr_free.load(Relaxed) as usize].store(u64::from(page), Relaxed);
            mine.nr_free.fetch_add(1, Relaxed);
        }
    }
}
