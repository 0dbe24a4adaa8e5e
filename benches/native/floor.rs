//! The floor: what a speculative fault cannot do without, and nothing else.
//!
//! A [`Floor::fault`] is exactly this, in this order, with no decision that depends on it:
//!
//! * a pin of the epoch, as `rcu_read_lock`,
//! * a walk of a tree of 64 VMAs between two reads of `mm_seq`,
//! * one more and one less on the VMA's reference count,
//! * two sections with interrupts off: a store, a full fence, a store,
//! * three checks of the VMA's sequence count,
//! * a walk of four levels of page tables,
//! * an attempt at the PTE lock, and its release,
//! * a page from a per-CPU list,
//! * the store of the PTE,
//! * one counter.

use std::cell::Cell;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU64, fence};

use crossbeam_epoch::{Collector, LocalHandle};
use crossbeam_utils::CachePadded;

use crate::layout::{self, NR_VMAS, PAGE};

const LEVEL_BITS: u32 = 9;
const NR_LEVELS: usize = 4;

/// What a VMA needs for a fault; links are positions in the tree's array, from 1.
#[derive(Default)]
struct Vma {
    start: AtomicU64,
    end: AtomicU64,
    left: AtomicU64,
    right: AtomicU64,
    /// In another line than what those read who only pass here.
    counts: CachePadded<Counts>,
}

#[derive(Default)]
struct Counts {
    sequence: AtomicU64,
    ref_count: AtomicU64,
}

struct Table {
    lock: CachePadded<AtomicU64>,
    entries: Box<[AtomicU64]>,
}

impl Table {
    fn new() -> Self {
        Self {
            lock: CachePadded::default(),
            entries: (0..1 << LEVEL_BITS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

/// What the CPUs share.
pub struct Floor {
    collector: Collector,
    mm_seq: CachePadded<AtomicU64>,
    root: u64,
    vmas: Box<[CachePadded<Vma>]>,
    /// The first is the top one; entries are positions here.
    tables: Vec<Table>,
    interrupts: Box<[CachePadded<AtomicU64>]>,
}

/// One CPU, used on one thread.
pub struct Cpu<'f> {
    interrupts: &'f AtomicU64,
    local: LocalHandle,
    free_pages: Box<[Cell<u64>]>,
    nr_free: Cell<usize>,
    counter: Cell<u64>,
}

impl Floor {
    pub fn new(nr_cpus: usize) -> Self {
        let vmas: Box<[CachePadded<Vma>]> = (0..NR_VMAS).map(|_| CachePadded::default()).collect();
        for (vma, range) in vmas.iter().zip(layout::vmas()) {
            vma.start.store(range.start, Relaxed);
            vma.end.store(range.end, Relaxed);
        }
        for (number, (left, right)) in layout::children().into_iter().enumerate() {
            vmas[number].left.store(left.map_or(0, |child| child as u64 + 1), Relaxed);
            vmas[number].right.store(right.map_or(0, |child| child as u64 + 1), Relaxed);
        }
        let mut floor = Self {
            collector: Collector::new(),
            mm_seq: CachePadded::default(),
            root: layout::root() as u64 + 1,
            vmas,
            tables: vec![Table::new()],
            interrupts: (0..nr_cpus).map(|_| CachePadded::default()).collect(),
        };
        layout::vmas().for_each(|vma| floor.make_tables(vma.start));
        floor
    }

    fn make_tables(&mut self, address: u64) {
        let mut table = 0;
        for level in 0..NR_LEVELS - 1 {
            let entry = &self.tables[table].entries[index(level, address)];
            if entry.load(Relaxed) == 0 {
                entry.store(self.tables.len() as u64, Relaxed);
                table = self.tables.len();
                self.tables.push(Table::new());
            } else {
                table = entry.load(Relaxed) as usize;
            }
        }
    }

    /// The CPU with this number, with as many free pages as may be asked for.
    pub fn cpu(&self, number: usize, nr_pages: usize) -> Cpu<'_> {
        Cpu {
            interrupts: &self.interrupts[number],
            local: self.collector.register(),
            free_pages: (0..nr_pages as u64).map(Cell::new).collect(),
            nr_free: Cell::new(nr_pages),
            counter: Cell::new(0),
        }
    }

    /// Gives the pages back that faults at `addresses` took.
    pub fn reset(&self, cpu: &Cpu<'_>, addresses: &[u64]) {
        for &address in addresses {
            let table = &self.tables[self.pte_table(address)];
            table.entries[index(NR_LEVELS - 1, address)].store(0, Relaxed);
        }
        cpu.nr_free.set(cpu.free_pages.len());
    }

    #[inline(always)]
    fn pte_table(&self, address: u64) -> usize {
        let mut table = 0;
        for level in 0..NR_LEVELS - 1 {
            let entry = &self.tables[table].entries[index(level, address)];
            table = entry.load(Acquire) as usize;
        }
        table
    }

    /// The walk of the tree, to the first VMA that ends above `address`.
    #[inline(always)]
    fn find_vma(&self, address: u64) -> &Vma {
        let mut cursor = self.root;
        loop {
            let vma = &self.vmas[cursor as usize - 1];
            let below = vma.end.load(Relaxed) > address;
            if below && vma.start.load(Relaxed) <= address {
                return vma;
            }
            let child = if below { &vma.left } else { &vma.right };
            cursor = child.load(Acquire);
        }
    }

    /// Returns whether anything had changed, which nothing has.
    #[inline(never)]
    pub fn fault(&self, cpu: &Cpu<'_>, address: u64) -> bool {
        let mut changed = false;
        let mm_seq = self.mm_seq.load(Relaxed);
        fence(Acquire);
        let pin = cpu.local.pin();
        let vma = self.find_vma(address);
        vma.counts.ref_count.fetch_add(1, Relaxed);
        drop(pin);
        fence(Acquire);
        changed |= self.mm_seq.load(Relaxed) != mm_seq;

        let sequence = vma.counts.sequence.load(Relaxed);
        fence(Acquire);
        cpu.irq_disable();
        let table = &self.tables[self.pte_table(address)];
        let pte = &table.entries[index(NR_LEVELS - 1, address)];
        changed |= pte.load(Relaxed) != 0;
        cpu.irq_enable();
        fence(Acquire);
        changed |= vma.counts.sequence.load(Relaxed) != sequence;

        let page = cpu.take_page();
        cpu.irq_disable();
        changed |= vma.counts.sequence.load(Relaxed) != sequence;
        fence(Acquire);
        changed |= table.lock.compare_exchange(0, 1, Acquire, Relaxed).is_err();
        changed |= vma.counts.sequence.load(Relaxed) != sequence;
        fence(Acquire);
        cpu.irq_enable();
        pte.store(page << 12 | 0x67, Release);
        table.lock.store(0, Release);

        cpu.counter.set(cpu.counter.get() + 1);
        vma.counts.ref_count.fetch_sub(1, AcqRel);
        changed
    }
}

impl Cpu<'_> {
    #[inline(always)]
    fn irq_disable(&self) {
        self.interrupts.store(self.interrupts.load(Relaxed) + 1, Relaxed);
        fence(SeqCst);
    }
    #[inline(always)]
    fn irq_enable(&self) {
        self.interrupts.store(self.interrupts.load(Relaxed) + 1, Release);
    }
    #[inline(always)]
    fn take_page(&self) -> u64 {
        let left = self.nr_free.get() - 1;
        self.nr_free.set(left);
        self.free_pages[left].get()
    }
}

#[inline(always)]
fn index(level: usize, address: u64) -> usize {
    let shift = PAGE.trailing_zeros() + LEVEL_BITS * (NR_LEVELS - 1 - level) as u32;
    (address >> shift) as usize & ((1 << LEVEL_BITS) - 1)
}
