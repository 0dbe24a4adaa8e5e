//! Nodes: every frame belongs to one, and policies say where pages come from.

use super::*;
use crate::arch::Arch;
use crate::design::Spf;
use crate::mm::{MpolMode, Vaddr};
use crate::platform::native::Cpu;
use crate::support::{BASE, PAGE, RW, World};

#[test]
fn frames_are_split_evenly_and_belong_to_one_node_each() {
    for (memory, nodes) in [(64 << 20, 2), (64 << 20, 3), (16 * PAGE, 2), (13 * PAGE, 5), (PAGE, 4)]
    {
        let world = World::<Spf>::boot_with(|config| config.system.nodes = nodes);
        let mut config = world.k.config.clone();
        config.system.memory = memory;
        let k = Kernel::<Cpu, Spf>::new(config);
        let nr_pages = memory / PAGE;
        let mut owners = vec![];
        let mut counts = vec![0; nodes as usize];
        for node in 0..nodes {
            for nth in 0..nr_pages {
                let Some(pfn) = k.nth_of_node(node, nth) else { break };
                assert_eq!(k.pfn_to_nid(pfn), node);
                owners.push(pfn);
                counts[node as usize] += 1;
            }
        }
        owners.sort_unstable();
        assert_eq!(owners, (0..nr_pages as u32).collect::<Vec<_>>(), "{memory} over {nodes}");
        let spread = counts.iter().max().unwrap() - counts.iter().min().unwrap();
        assert!(spread <= 1 << k.node_shift, "{counts:?}");
        world.end();
    }
}

#[test]
fn a_huge_page_lies_on_one_node() {
    for arch in Arch::builtin().into_iter().filter(Arch::has_transparent_hugepage) {
        let world = World::<Spf>::boot_with(|config| {
            config.system.memory = 8 << (arch.page_shift + arch.hpage_pmd_order());
            config.arch = arch;
        });
        for node in [1, 0] {
            let page = world.k.alloc_compound_page(&world.cpu, world.k.on_node(node)).unwrap();
            let nodes = world.k.subpages(&world.cpu, page).map(|part| world.k.page_to_nid(part));
            assert!(nodes.into_iter().all(|of| of == node));
            world.k.put_page(&world.cpu, page);
        }
        world.end();
    }
}

#[test]
fn the_nearest_are_asked_first_and_all_in_the_end() {
    let world = World::<Spf>::boot_with(|config| config.system.nodes = 4);
    let order =
        |first, allowed| -> Vec<_> { world.k.zonelist(Placement { first, allowed }).collect() };
    assert_eq!(order(2, u64::MAX), [2, 3, 0, 1]);
    assert_eq!(order(3, 0b0101), [0, 2, 3, 1]);
    world.end();
}

/// The nodes of four pages that CPU 0, on node 0 of 4, writes to under a policy; then, if there is
/// one, in a cpuset that came after, and did not take the policy with it.
fn nodes_of_pages(mode: MpolMode, nodes: u64, by_task: bool, cpuset: Option<u64>) -> Vec<u32> {
    let world = World::<Spf>::boot_with(|config| config.system.nodes = 4);
    world.map_fixed(BASE, 4 * PAGE, RW);
    if by_task {
        world.k.sys_set_mempolicy(&world.cpu, mode, nodes).unwrap();
    } else {
        world.k.sys_mbind(&world.cpu, BASE, 4 * PAGE, mode, nodes).unwrap();
    }
    if let Some(cpuset) = cpuset {
        world.k.current(&world.cpu).mems_allowed.set(cpuset);
    }
    let on = (0..4).map(|page| {
        world.write(BASE + page * PAGE, 1).unwrap();
        let pfn = world.pte(BASE + page * PAGE).pfn();
        world.k.page_to_nid(world.k.page(&world.cpu, pfn))
    });
    let on = on.collect();
    world.check();
    world.end();
    on
}

#[test]
fn pages_come_from_where_the_policy_says() {
    let table = [
        (MpolMode::Default, 0, [0, 0, 0, 0]),
        (MpolMode::Local, 0, [0, 0, 0, 0]),
        (MpolMode::Preferred, 0b0100, [2, 2, 2, 2]),
        (MpolMode::Bind, 0b1010, [1, 1, 1, 1]),
        // BASE is a multiple of four pages.
        (MpolMode::Interleave, 0b1011, interleaved()),
    ];
    for (mode, nodes, expect) in table {
        for by_task in [false, true] {
            assert_eq!(nodes_of_pages(mode, nodes, by_task, None), expect, "{mode:?}");
        }
    }
}

/// As where another task has named the policy's nodes.
#[test]
fn pages_come_from_the_cpuset_whatever_the_policy_says() {
    let table = [
        (MpolMode::Default, 0, 0b1100, [2, 2, 2, 2]),
        (MpolMode::Local, 0, 0b1000, [3, 3, 3, 3]),
        (MpolMode::Preferred, 0b0010, 0b1001, [3, 3, 3, 3]),
        (MpolMode::Preferred, 0b1000, 0b1001, [3, 3, 3, 3]),
        (MpolMode::Bind, 0b1010, 0b1100, [3, 3, 3, 3]),
        (MpolMode::Bind, 0b0010, 0b1100, [2, 2, 2, 2]),
        (MpolMode::Interleave, 0b1011, 0b0100, [2, 2, 2, 2]),
    ];
    for (mode, nodes, cpuset, expect) in table {
        for by_task in [false, true] {
            let on = nodes_of_pages(mode, nodes, by_task, Some(cpuset));
            assert_eq!(on, expect, "{mode:?} {cpuset:#b} {by_task}");
        }
    }
}

#[test]
fn huge_pages_take_turns_by_the_huge_page() {
    let world = World::<Spf>::boot_with(|config| {
        config.system.nodes = 2;
        config.system.memory = 64 << 20;
        config.system.thp = crate::mm::Thp::Always;
    });
    let huge = world.k.pmd_size();
    world.map_fixed(BASE, 4 * huge, RW);
    world.k.sys_mbind(&world.cpu, BASE, 4 * huge, MpolMode::Interleave, 0b11).unwrap();
    let first = BASE.next_multiple_of(huge);
    let on: Vec<_> = (0..3)
        .map(|nth| {
            // Whichever of its base pages is touched first.
            world.write(first + nth * huge + (nth + 1) * PAGE, 1).unwrap();
            let pmd = world.k.walk_pmd(&world.cpu, world.mm(), Vaddr(first + nth * huge)).unwrap();
            world.k.pfn_to_nid(world.k.leaf_of(pmd.read(&world.cpu)).pfn())
        })
        .collect();
    assert!(on == [0, 1, 0] || on == [1, 0, 1], "{on:?}");
    world.end();
}

/// Private anonymous memory has its address as offset, so that decides where the turn begins.
fn interleaved() -> [u32; 4] {
    [0, 1, 2, 3].map(|page| [0, 1, 3][(((BASE / PAGE) + page) % 3) as usize])
}

#[test]
fn a_node_without_pages_is_helped_by_the_others() {
    let world = World::<Spf>::boot_with(|config| config.system.memory = 64 * PAGE);
    world.map_fixed(BASE, 64 * PAGE, RW);
    world.k.sys_mbind(&world.cpu, BASE, 64 * PAGE, MpolMode::Bind, 0b10).unwrap();
    let mut on = [0; 2];
    for page in 0..48 {
        world.write(BASE + page * PAGE, page).unwrap();
        let pfn = world.pte(BASE + page * PAGE).pfn();
        on[world.k.pfn_to_nid(pfn) as usize] += 1;
    }
    assert_eq!(on, [16, 32]);
    (0..48).for_each(|page| assert_eq!(world.read(BASE + page * PAGE), Ok(page)));
    world.check();
    world.end();
}

#[test]
fn what_belongs_to_no_vma_takes_the_nodes_of_an_interleaving_task_in_turn() {
    let world = World::<Spf>::boot_with(|config| config.system.nodes = 4);
    world.k.sys_set_mempolicy(&world.cpu, MpolMode::Interleave, 0b1011).unwrap();
    let pages: Vec<_> = (0..5).map(|_| world.k.alloc_page(&world.cpu).unwrap()).collect();
    let on: Vec<_> = pages.iter().map(|&page| world.k.page_to_nid(page)).collect();
    assert_eq!(on, [0, 1, 3, 0, 1]);
    pages.into_iter().for_each(|page| world.k.put_page(&world.cpu, page));
    assert!(world.k.find_vma(&world.cpu, world.mm(), Vaddr(0)).is_none());
    world.end();
}
