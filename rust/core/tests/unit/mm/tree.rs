//! The tree against a flat map, and under readers without a lock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering as Std};

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg32;

use super::*;
use crate::design::{Classic, Spf};
use crate::mm::{UnmappedAreaInfo, Vaddr};
use crate::platform::native::{Cpu, catch};
use crate::platform::{Platform, RcuGuard};
use crate::support::{PAGE, PRIVATE_RW, World};
use crate::sync::seqlock::{read_seqbegin, read_seqretry};

const PAGES: u64 = 256;

/// A VMA over pages `start..end`, linked.
fn link<D: Design>(
    k: &Kernel<Cpu, D>,
    cpu: &Cpu,
    mm: MmRef<'_, Cpu>,
    start: u64,
    end: u64,
    flags: VmFlags,
) -> bool {
    let (start, end) = (Vaddr(start * PAGE), Vaddr(end * PAGE));
    let Some(links) = k.find_vma_links(cpu, mm, start, end) else { return false };
    let vma = k.vm_area_alloc(cpu, mm);
    vma.vm_start().poke(start);
    vma.vm_end().poke(end);
    vma.vm_flags().poke(flags);
    k.vma_link(cpu, mm, vma, links);
    true
}

/// Takes a VMA out of tree and list, as munmap does, and drops the owner's reference.
fn unlink<D: Design>(k: &Kernel<Cpu, D>, cpu: &Cpu, mm: MmRef<'_, Cpu>, vma: VmaRef<'_, Cpu>) {
    let prev_end = k.vm_prev(cpu, vma).map_or(Vaddr(0), |prev| prev.vm_end().peek());
    let next = k.vm_next(cpu, vma);
    k.vma_unlink(cpu, mm, vma);
    match next {
        Some(next) => k.vma_gap_update(cpu, next),
        None => mm.highest_vm_end().write(cpu, prev_end),
    }
    k.add_map_count(cpu, mm, -1);
    D::put_vma(k, cpu, vma);
}

fn find_in(model: &BTreeMap<u64, u64>, page: u64) -> Option<u64> {
    model.iter().find(|&(_, &end)| end > page).map(|(&start, _)| start)
}

/// The gaps of `low..high`, from below, in pages.
fn gaps_in(model: &BTreeMap<u64, u64>, low: u64, high: u64) -> Vec<(u64, u64)> {
    let mut below = 0;
    let mut gaps = Vec::new();
    for (&start, &end) in model.iter().chain([(&u64::MAX, &u64::MAX)]) {
        gaps.push((below.max(low), start.min(high)));
        below = end;
    }
    gaps.retain(|(start, end)| start < end);
    gaps
}

fn agrees_with_a_flat_map<D: Design>(seed: u64) {
    let world = World::<D>::boot();
    let (k, cpu, mm) = (&world.k, &world.cpu, world.mm());
    let mut rng = Pcg32::seed_from_u64(seed);
    let mut below = |n: u64| rng.next_u64() % n;
    let mut model = BTreeMap::new();
    // First it fills up, then it drains.
    for step in 0..400 {
        let start = 1 + below(PAGES);
        if below(400) >= step {
            let end = start + 1 + below(4);
            let free = find_in(&model, start).is_none_or(|other| other >= end);
            assert_eq!(link(k, cpu, mm, start, end, PRIVATE_RW), free);
            if free {
                model.insert(start, end);
            }
        } else if let Some(start) = find_in(&model, start) {
            let vma = k.find_vma(cpu, mm, Vaddr(start * PAGE)).expect("it is in the model");
            unlink(k, cpu, mm, vma);
            model.remove(&start);
        }
        world.settle();
        assert_eq!(k.check_vma_tree(mm), Vec::<String>::new(), "seed {seed}, step {step}");

        let page = below(PAGES + 8);
        let found = k.find_vma(cpu, mm, Vaddr(page * PAGE));
        let found = found.map(|vma| vma.vm_start().peek().0 / PAGE);
        assert_eq!(found, find_in(&model, page), "seed {seed}, step {step}, page {page}");

        let (low, length) = (below(PAGES), 1 + below(12));
        let high = low + length + below(PAGES);
        let info = UnmappedAreaInfo {
            length: length * PAGE,
            low_limit: low * PAGE,
            high_limit: high * PAGE,
        };
        let mut gaps = gaps_in(&model, low, high);
        gaps.retain(|(start, end)| end - start >= length);
        let top = k.unmapped_area_topdown(cpu, mm, info);
        assert_eq!(top, gaps.last().map(|(_, end)| (end - length) * PAGE), "{info:?}");
        let bottom = k.unmapped_area(cpu, mm, info);
        assert_eq!(bottom, gaps.first().map(|(start, _)| start * PAGE), "{info:?}");
    }
}

#[test]
fn random_operations_agree_with_a_flat_map() {
    for seed in 0..8 {
        agrees_with_a_flat_map::<Spf>(seed);
    }
    agrees_with_a_flat_map::<Classic>(8);
}

fn depth<'k>(k: &'k Kernel<Cpu, Spf>, cpu: &Cpu, vma: VmaRef<'k, Cpu>) -> u32 {
    k.rb_parent_of(cpu, vma).map_or(0, |parent| depth(k, cpu, parent)) + 1
}

#[test]
fn ascending_and_descending_inserts_stay_balanced() {
    // 255 nodes: a red-black tree is at most 2 log2(n + 1) = 16 deep.
    for descending in [false, true] {
        let world = World::<Spf>::boot();
        let (k, cpu, mm) = (&world.k, &world.cpu, world.mm());
        for nth in 0..255 {
            let page = if descending { 1000 - 2 * nth } else { 2 + 2 * nth };
            assert!(link(k, cpu, mm, page, page + 1, PRIVATE_RW));
        }
        assert_eq!(k.check_vma_tree(mm), Vec::<String>::new());
        let depths = k.peek_vmas(mm).map(|vma| depth(k, cpu, vma));
        assert!(depths.max().is_some_and(|deepest| deepest <= 16));
    }
}

#[test]
fn linking_takes_the_trees_reference_and_unlinking_gives_it_back_later() {
    let world = World::<Spf>::boot();
    let (k, cpu, mm) = (&world.k, &world.cpu, world.mm());
    assert!(link(k, cpu, mm, 1, 2, PRIVATE_RW));
    let vma = k.find_vma(cpu, mm, Vaddr(PAGE)).expect("just linked");
    assert_eq!(vma.vm_ref_count().peek(), 2);
    assert!(!k.vma_node_empty(cpu, vma));
    let reader = RcuGuard::new(cpu);
    unlink(k, cpu, mm, vma);
    // The owner is gone; the reader keeps the tree's reference.
    assert_eq!(vma.vm_ref_count().peek(), 1);
    assert!(k.vma_node_empty(cpu, vma));
    drop(reader);
    world.settle();
    assert_eq!(k.vmas.live(), 0);
}

#[test]
fn the_tree_is_bracketed_by_mm_seq_once_for_each_change() {
    let world = World::<Spf>::boot();
    let (k, cpu, mm) = (&world.k, &world.cpu, world.mm());
    assert!(link(k, cpu, mm, 1, 2, PRIVATE_RW));
    assert_eq!(mm.mm_seq().peek(), 2);
    let vma = k.find_vma(cpu, mm, Vaddr(PAGE)).expect("just linked");
    unlink(k, cpu, mm, vma);
    assert_eq!(mm.mm_seq().peek(), 4);
    assert_eq!(vma.vm_sequence().peek(), 0, "detaching bumps no vm_sequence");
}

#[test]
fn a_vma_that_grows_down_keeps_its_guard_gap_free() {
    //  ....GGGG    a gap of 256 pages and 3 more below a stack: 3 pages can be had, 4 cannot
    let world = World::<Spf>::boot();
    let (k, cpu, mm) = (&world.k, &world.cpu, world.mm());
    let start = STACK_GUARD_PAGES + 3;
    assert!(link(k, cpu, mm, start, start + 4, PRIVATE_RW | VmFlags::GROWSDOWN));
    assert_eq!(k.check_vma_tree(mm), Vec::<String>::new());
    let room = |pages: u64| {
        let high_limit = start * PAGE;
        let info = UnmappedAreaInfo { length: pages * PAGE, low_limit: 0, high_limit };
        k.unmapped_area_topdown(cpu, mm, info)
    };
    assert_eq!(room(3), Some(0));
    assert_eq!(room(4), None);
}

/// Readers without a lock, while a writer links and unlinks every odd page. Even pages stay: a
/// walk that `mm_seq` confirms finds them, always. No walk goes round for ever.
#[test]
fn readers_under_rcu_find_what_stays() {
    const NR_STAYING: u64 = 64;
    let world = World::<Spf>::boot();
    let (k, cpu, mm) = (&world.k, &world.cpu, world.mm());
    for nth in 0..NR_STAYING {
        assert!(link(k, cpu, mm, 2 + 2 * nth, 3 + 2 * nth, PRIVATE_RW));
    }
    let machine = cpu.machine().clone();
    let confirmed = AtomicU32::new(0);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let cpu = machine.cpu(1, 1);
            catch(&machine, || read_until_the_end(&confirmed, k, &cpu, mm, NR_STAYING));
        });
        catch(&machine, || {
            let mut rng = Pcg32::seed_from_u64(1);
            let mut rounds = 0;
            while cpu.operation_boundary() && (rounds < 2000 || confirmed.load(Std::Relaxed) < 1000)
            {
                let page = 3 + 2 * (rng.next_u64() % NR_STAYING);
                if !link(k, cpu, mm, page, page + 1, PRIVATE_RW) {
                    let vma = k.find_vma(cpu, mm, Vaddr(page * PAGE)).expect("in the way");
                    unlink(k, cpu, mm, vma);
                }
                k.run_rcu_callbacks(cpu);
                rounds += 1;
            }
        });
        machine.stop();
    });
    assert_eq!(machine.finding(), None);
    assert_eq!(k.check_vma_tree(mm), Vec::<String>::new());
}

fn read_until_the_end(
    confirmed: &AtomicU32,
    k: &Kernel<Cpu, Spf>,
    cpu: &Cpu,
    mm: MmRef<'_, Cpu>,
    nr_staying: u64,
) {
    let mut rng = Pcg32::seed_from_u64(2);
    while cpu.operation_boundary() {
        let address = Vaddr((2 + 2 * (rng.next_u64() % nr_staying)) * PAGE);
        let seq = read_seqbegin(cpu, mm.mm_seq());
        let _rcu = RcuGuard::new(cpu);
        let found = k.find_vma_uncached(cpu, mm, address);
        if !read_seqretry(cpu, mm.mm_seq(), seq) {
            let start = found.map(|vma| vma.vm_start().read(cpu));
            assert_eq!(start, Some(address));
            confirmed.fetch_add(1, Std::Relaxed);
        }
    }
}
