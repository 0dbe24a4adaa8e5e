use std::collections::HashMap;

use super::*;
use crate::arch::Arch;
use crate::design::Spf;
use crate::mm::{Config, MpolMode, System, Vaddr, Variants, Vma};
use crate::platform::native::{Cpu, Machine};

type K = Kernel<Cpu, Spf>;

const PAGE: u64 = 4096;
const RW: VmFlags = VmFlags(VmFlags::READ.0 | VmFlags::WRITE.0);

fn system() -> (K, Cpu) {
    let config = Config {
        arch: Arch::builtin().remove(0),
        system: System::default(),
        variants: Variants::outside_explore(),
        nr_cpus: 1,
        nr_tasks: 1,
    };
    (Kernel::new(config), Machine::new(1).cpu(0, 0))
}

/// A VMA over pages `from..to` of the first address space, linked nowhere.
fn vma(k: &K, from: u64, to: u64) -> VmaRef<'_, Cpu> {
    let mm = k.mms.peek(0).unwrap_or_else(|| k.mms.alloc());
    let vma = k.vmas.alloc();
    vma.vm_mm().poke(mm.ptr());
    vma.vm_start().poke(Vaddr(from * PAGE));
    vma.vm_end().poke(Vaddr(to * PAGE));
    vma.vm_pgoff().poke(from);
    vma.vm_flags().poke(RW);
    vma.vm_ref_count().poke(1);
    vma
}

/// Makes `vmas` neighbours in the list, in this order.
fn chain(vmas: &[VmaRef<'_, Cpu>]) {
    for pair in vmas.windows(2) {
        pair[0].vm_next().poke(pair[1].ptr());
        pair[1].vm_prev().poke(pair[0].ptr());
    }
}

/// What fork or a split makes of `src`, before it has its anon_vmas.
fn copy<'k>(k: &'k K, src: VmaRef<'k, Cpu>) -> VmaRef<'k, Cpu> {
    let (start, end) = (src.vm_start().peek().0 / PAGE, src.vm_end().peek().0 / PAGE);
    let new = vma(k, start, end);
    new.anon_vma().poke(src.anon_vma().peek());
    new
}

/// The anon_vmas that `vma` hangs on, newest first, as slot numbers.
fn hangs_on(k: &K, cpu: &Cpu, vma: VmaRef<'_, Cpu>) -> Vec<u32> {
    let mut list = Vec::new();
    let mut cursor = vma.anon_vma_chain().peek();
    let mut last = Ptr::NULL;
    while let Some(avc) = k.avcs.get_opt(cpu, cursor) {
        assert_eq!(avc.vma().peek(), vma.ptr());
        assert_eq!(avc.same_vma_prev().peek(), last);
        list.push(avc.anon_vma().peek().index());
        (last, cursor) = (cursor, avc.same_vma_next().peek());
    }
    assert_eq!(vma.anon_vma_chain_last().peek(), last);
    list
}

/// Recounts every degree and reference from the VMAs in use.
fn check(k: &K, cpu: &Cpu, vmas: &[VmaRef<'_, Cpu>]) {
    let mut chains: HashMap<u32, u32> = HashMap::new();
    let mut degree: HashMap<u32, u64> = HashMap::new();
    for &vma in vmas {
        let hangs = hangs_on(k, cpu, vma);
        hangs.iter().for_each(|&on| *chains.entry(on).or_default() += 1);
        let own = vma.anon_vma().peek();
        assert_eq!(own.is_null(), hangs.is_empty());
        if !own.is_null() {
            assert!(hangs.contains(&own.index()), "a VMA does not hang on its own anon_vma");
            *degree.entry(own.index()).or_default() += 1;
        }
    }
    let live: Vec<_> = (0..k.anon_vmas.used()).filter_map(|i| k.anon_vmas.peek(i)).collect();
    let mut pins: HashMap<u32, u64> = HashMap::new();
    for &anon_vma in &live {
        assert!(!anon_vma.rb_root().peek().is_null(), "an anon_vma without a VMA");
        *degree.entry(anon_vma.parent().peek().index()).or_default() += 1;
        *pins.entry(anon_vma.slot_index()).or_default() += 1;
        if anon_vma.root().peek() != anon_vma.ptr() {
            *pins.entry(anon_vma.root().peek().index()).or_default() += 1;
        }
        assert!(!k.anon_vma_sem(cpu, anon_vma).is_locked());
    }
    for anon_vma in live {
        let slot = anon_vma.slot_index();
        assert_eq!(anon_vma.degree().peek(), degree.get(&slot).copied().unwrap_or(0), "degree");
        assert_eq!(anon_vma.refcount().peek(), pins[&slot], "refcount");
        chains.remove(&slot).expect("some VMA hangs on it");
    }
    assert!(chains.is_empty());
    let links: usize = vmas.iter().map(|&vma| hangs_on(k, cpu, vma).len()).sum();
    assert_eq!(k.avcs.live() as usize, links);
}

fn free(k: &K, cpu: &Cpu, vma: VmaRef<'_, Cpu>) {
    k.unlink_anon_vmas(cpu, vma);
    k.vmas.free(cpu, vma);
}

#[test]
fn a_first_fault_makes_a_root_that_is_its_own_child() {
    let (k, cpu) = system();
    let a = vma(&k, 16, 20);
    assert_eq!(k.anon_vma_prepare(&cpu, a), Ok(()));
    let root = k.anon_vmas.get(&cpu, a.anon_vma().peek());
    assert_eq!((root.degree().peek(), root.refcount().peek()), (2, 1));
    assert!(k.anon_vma_chain_is_singular(&cpu, a));
    // A second fault finds it.
    assert_eq!(k.anon_vma_prepare(&cpu, a), Ok(()));
    check(&k, &cpu, &[a]);
    free(&k, &cpu, a);
    assert_eq!((k.anon_vmas.live(), k.avcs.live()), (0, 0));
}

#[test]
fn neighbours_that_mprotect_parted_share_one() {
    // 16   20   24   28     b has an anon_vma, a and c take it: both could merge with b again.
    // | a r | b rw | c none |
    let (k, cpu) = system();
    let [a, b, c] = [vma(&k, 16, 20), vma(&k, 20, 24), vma(&k, 24, 28)];
    a.vm_flags().poke(VmFlags::READ);
    c.vm_flags().poke(VmFlags::SOFTDIRTY);
    chain(&[a, b, c]);
    for vma in [b, a, c] {
        assert_eq!(k.anon_vma_prepare(&cpu, vma), Ok(()));
    }
    assert!(!b.anon_vma().peek().is_null());
    assert_eq!(a.anon_vma().peek(), b.anon_vma().peek());
    assert_eq!(c.anon_vma().peek(), b.anon_vma().peek());
    check(&k, &cpu, &[a, b, c]);
}

#[test]
fn neighbours_that_never_merge_have_their_own() {
    // Goal: each condition of anon_vma_compatible counts. `a` ends where `b` begins.
    type Change = fn(&Kernel<Cpu, Spf>, &Cpu, VmaRef<'_, Cpu>);
    let changes: [Change; 4] = [
        |_, _, b| b.vm_start().poke(Vaddr(21 * PAGE)),
        |_, _, b| b.vm_flags().poke(RW | VmFlags::DONTCOPY),
        |k, cpu, b| {
            let policy = k.mpol_new(cpu, MpolMode::Bind, 1).expect("node 0 is there");
            b.vm_policy().poke(policy.expect("not the default").ptr());
        },
        |_, _, b| b.vm_pgoff().poke(21),
    ];
    for change in changes {
        let (k, cpu) = system();
        let [a, b] = [vma(&k, 16, 20), vma(&k, 20, 24)];
        change(&k, &cpu, b);
        chain(&[a, b]);
        k.anon_vma_prepare(&cpu, a).unwrap();
        k.anon_vma_prepare(&cpu, b).unwrap();
        assert_ne!(a.anon_vma().peek(), b.anon_vma().peek());
        check(&k, &cpu, &[a, b]);
    }
}

#[test]
fn a_neighbour_that_came_through_a_fork_keeps_its_anon_vma_to_itself() {
    let (k, cpu) = system();
    let parent = vma(&k, 16, 20);
    k.anon_vma_prepare(&cpu, parent).unwrap();
    let [a, b] = [copy(&k, parent), vma(&k, 20, 24)];
    k.anon_vma_fork(&cpu, a, parent).unwrap();
    chain(&[a, b]);
    assert!(k.find_mergeable_anon_vma(&cpu, b).is_none());
    k.anon_vma_prepare(&cpu, b).unwrap();
    assert_ne!(a.anon_vma().peek(), b.anon_vma().peek());
    check(&k, &cpu, &[parent, a, b]);
}

#[test]
fn a_child_hangs_on_its_own_and_on_its_ancestors() {
    let (k, cpu) = system();
    let parent = vma(&k, 16, 20);
    k.anon_vma_prepare(&cpu, parent).unwrap();
    let root = k.anon_vmas.get(&cpu, parent.anon_vma().peek());
    let child = copy(&k, parent);
    k.anon_vma_fork(&cpu, child, parent).unwrap();
    let own = k.anon_vmas.get(&cpu, child.anon_vma().peek());
    assert_eq!(hangs_on(&k, &cpu, child), [own.slot_index(), root.slot_index()]);
    assert_eq!((own.root().peek(), own.parent().peek()), (root.ptr(), root.ptr()));
    assert_eq!((own.degree().peek(), own.refcount().peek()), (1, 1));
    assert_eq!((root.degree().peek(), root.refcount().peek()), (3, 2));
    check(&k, &cpu, &[parent, child]);
    // The parent ends first: the root stays for its lock, and because the child hangs on it.
    free(&k, &cpu, parent);
    check(&k, &cpu, &[child]);
    free(&k, &cpu, child);
    assert_eq!((k.anon_vmas.live(), k.avcs.live()), (0, 0));
}

#[test]
fn a_child_of_a_vma_without_pages_has_none() {
    let (k, cpu) = system();
    let parent = vma(&k, 16, 20);
    let child = copy(&k, parent);
    assert_eq!(k.anon_vma_fork(&cpu, child, parent), Ok(()));
    assert!(child.anon_vma().peek().is_null());
    assert_eq!(k.avcs.live(), 0);
}

#[test]
fn a_long_line_of_forks_does_not_grow_the_chains() {
    // Goal: the reuse by degree. Each process forks once and ends.
    let (k, cpu) = system();
    let mut current = vma(&k, 16, 20);
    k.anon_vma_prepare(&cpu, current).unwrap();
    for _ in 0..50 {
        let child = copy(&k, current);
        k.anon_vma_fork(&cpu, child, current).unwrap();
        free(&k, &cpu, current);
        current = child;
        check(&k, &cpu, &[current]);
        assert!(hangs_on(&k, &cpu, current).len() <= 3, "the chain grows");
    }
    assert_eq!(k.anon_vmas.live() as usize, hangs_on(&k, &cpu, current).len());
}

#[test]
fn only_an_anon_vma_without_a_vma_and_with_one_child_is_reused() {
    // a - b - c - d, each forked by the one before: a, the root, and b have ended.
    //   degree   root: itself, b's    b's: c's    c's: c
    let (k, cpu) = system();
    let a = vma(&k, 16, 20);
    k.anon_vma_prepare(&cpu, a).unwrap();
    let [b, c, d] = [copy(&k, a), copy(&k, a), copy(&k, a)];
    k.anon_vma_fork(&cpu, b, a).unwrap();
    let (root, of_b) = (a.anon_vma().peek(), b.anon_vma().peek());
    free(&k, &cpu, a);
    k.anon_vma_fork(&cpu, c, b).unwrap();
    assert!(![root, of_b].contains(&c.anon_vma().peek()), "b still has its own, a's is the root");
    free(&k, &cpu, b);
    k.anon_vma_fork(&cpu, d, c).unwrap();
    assert_eq!(d.anon_vma().peek(), of_b);
    assert_eq!(hangs_on(&k, &cpu, d), hangs_on(&k, &cpu, c));
    check(&k, &cpu, &[c, d]);
}

#[test]
fn failed_allocations_leave_nothing_behind() {
    // Goal: every failure of a fork from a grandchild unwinds: 2 or 3 chains, 1 anon_vma.
    let (k, cpu) = system();
    let root = vma(&k, 16, 20);
    k.anon_vma_prepare(&cpu, root).unwrap();
    let parent = copy(&k, root);
    k.anon_vma_fork(&cpu, parent, root).unwrap();
    let sibling = copy(&k, root);
    k.anon_vma_fork(&cpu, sibling, root).unwrap();
    let vmas = [root, parent, sibling];
    for nth in 0..3 {
        let child = copy(&k, parent);
        k.avcs.fail_after(nth);
        assert_eq!(k.anon_vma_fork(&cpu, child, parent), Err(Errno::Enomem));
        assert!(child.anon_vma().peek().is_null());
        k.vmas.free(&cpu, child);
        check(&k, &cpu, &vmas);
    }
    let child = copy(&k, parent);
    k.anon_vmas.fail_after(0);
    assert_eq!(k.anon_vma_fork(&cpu, child, parent), Err(Errno::Enomem));
    check(&k, &cpu, &vmas);

    let fresh = vma(&k, 32, 36);
    k.avcs.fail_after(0);
    assert_eq!(k.anon_vma_prepare(&cpu, fresh), Err(Errno::Enomem));
    k.anon_vmas.fail_after(0);
    assert_eq!(k.anon_vma_prepare(&cpu, fresh), Err(Errno::Enomem));
    check(&k, &cpu, &vmas);
    assert_eq!(k.anon_vma_fork(&cpu, child, parent), Ok(()));
    assert_eq!(k.anon_vma_prepare(&cpu, fresh), Ok(()));
}

#[test]
fn any_sequence_of_forks_splits_and_exits_keeps_the_counts() {
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let (k, cpu) = system();
    let mut vmas: Vec<VmaRef<'_, Cpu>> = Vec::new();
    for step in 0..2000 {
        match random(4) {
            _ if vmas.is_empty() => vmas.push(vma(&k, 16, 20)),
            0 => k.anon_vma_prepare(&cpu, vmas[random(vmas.len())]).unwrap(),
            1 if vmas.len() < 12 => {
                let src = vmas[random(vmas.len())];
                let child = copy(&k, src);
                k.anon_vma_fork(&cpu, child, src).unwrap();
                vmas.push(child);
            }
            2 if vmas.len() < 12 => {
                let src = vmas[random(vmas.len())];
                let half = copy(&k, src);
                k.anon_vma_clone(&cpu, half, src).unwrap();
                vmas.push(half);
            }
            _ => free(&k, &cpu, vmas.swap_remove(random(vmas.len()))),
        }
        if step % 7 == 0 {
            check(&k, &cpu, &vmas);
        }
    }
    vmas.drain(..).for_each(|vma| free(&k, &cpu, vma));
    assert_eq!((k.anon_vmas.live(), k.avcs.live()), (0, 0));
}

#[test]
fn threads_that_fault_at_once_agree_on_one() {
    // Goal: page_table_lock decides, and the loser gives everything back.
    const THREADS: u32 = 4;
    let mut config = system().0.config;
    (config.nr_cpus, config.nr_tasks) = (THREADS, THREADS);
    let k: K = Kernel::new(config);
    let machine = Machine::new(THREADS);
    for _ in 0..200 {
        let (a, b) = (vma(&k, 16, 20), vma(&k, 20, 24));
        chain(&[a, b]);
        let (a, b): (Ptr<Vma<Cpu>>, Ptr<Vma<Cpu>>) = (a.ptr(), b.ptr());
        std::thread::scope(|scope| {
            for id in 0..THREADS {
                let (k, machine) = (&k, &machine);
                scope.spawn(move || {
                    let cpu = machine.cpu(id, id);
                    let mine = if id % 2 == 0 { a } else { b };
                    k.anon_vma_prepare(&cpu, k.vmas.get(&cpu, mine)).unwrap();
                });
            }
        });
        let cpu = machine.cpu(0, 0);
        let vmas = [k.vmas.get(&cpu, a), k.vmas.get(&cpu, b)];
        check(&k, &cpu, &vmas);
        vmas.into_iter().for_each(|vma| free(&k, &cpu, vma));
    }
    assert_eq!(machine.finding(), None);
    assert_eq!((k.anon_vmas.live(), k.avcs.live()), (0, 0));
}
