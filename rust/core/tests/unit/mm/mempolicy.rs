//! Memory policies: what is one, which are equal, and who frees them.

use super::*;
use crate::design::Spf;
use crate::support::{PAGE, RW, World, at};
use MpolMode::{Bind, Default, Interleave, Local, Preferred};

#[test]
fn what_a_mode_makes_of_nodes() {
    // Two nodes: 0 and 1.
    let table = [
        (Default, 0b1, Ok(None)),
        (Local, 0b1, Ok(Some((Preferred, 0)))),
        (Preferred, 0, Ok(Some((Preferred, 0)))),
        (Preferred, 0b11, Ok(Some((Preferred, 0b01)))),
        (Preferred, 0b110, Ok(Some((Preferred, 0b10)))),
        (Preferred, 0b100, Err(Errno::Einval)),
        (Bind, 0b111, Ok(Some((Bind, 0b11)))),
        (Bind, 0b100, Err(Errno::Einval)),
        (Interleave, 0, Err(Errno::Einval)),
        (Interleave, 0b10, Ok(Some((Interleave, 0b10)))),
    ];
    let world = World::<Spf>::boot();
    for (mode, nodes, expect) in table {
        let made = world.k.mpol_new(&world.cpu, mode, nodes);
        let seen = made.map(|made| made.map(|p| (p.mode().peek(), p.nodes().peek())));
        let expect = expect.map(|e| e.map(|(mode, nodes)| (mode as u64, nodes)));
        assert_eq!(seen, expect, "{mode:?} {nodes:#b}");
        made.into_iter().flatten().for_each(|p| world.k.mpol_put(&world.cpu, p.ptr()));
    }
    world.end();
}

#[test]
fn as_many_nodes_as_the_system_has() {
    for (nodes, mask) in [(1, 1), (3, 0b111), (64, u64::MAX)] {
        let world = World::<Spf>::boot_with(|config| config.system.nodes = nodes);
        assert_eq!(world.k.online_nodes(), mask);
        world.end();
    }
}

#[test]
fn policies_are_equal_that_say_the_same() {
    let world = World::<Spf>::boot();
    let (k, cpu) = (&world.k, &world.cpu);
    let new = |mode, nodes| k.mpol_new(cpu, mode, nodes).expect("nodes").expect("one").ptr();
    let ptrs = [new(Bind, 1), new(Bind, 2), new(Interleave, 1), Ptr::NULL];
    for (n, &one) in ptrs.iter().enumerate() {
        let again = k.mpol_dup(cpu, one);
        for (m, &other) in ptrs.iter().enumerate() {
            assert_eq!(k.mpol_equal(cpu, again, other), n == m);
        }
        k.mpol_put(cpu, again);
    }
    ptrs.into_iter().for_each(|policy| k.mpol_put(cpu, policy));
    world.end();
}

#[test]
fn a_policy_changes_with_the_vma_odd_and_is_put_after_it() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 4 * PAGE, RW);
    let vma = world.vma_at(at(0).0);
    let policy = world.policy();
    for round in 1..=2 {
        world.k.vma_replace_policy(&world.cpu, vma, policy);
        world.settle();
        assert_eq!(vma.vm_sequence().peek() % 2, 0);
        assert_ne!(vma.vm_policy().peek(), policy, "its own");
        assert_eq!(world.k.policies.live(), 2, "round {round}: the old one is gone");
    }
    world.k.mpol_put(&world.cpu, policy);
    world.end();
}

#[test]
fn nodes_are_renamed_by_their_places_in_turn() {
    for (nodes, old, new, expect) in [
        (0b01, 0b11, 0b10, 0b10),
        (0b10, 0b11, 0b10, 0b10),
        (0b11, 0b11, 0b01, 0b01),
        (0b0101, 0b0111, 0b1100, 0b0100),
        (0b0110, 0b0111, 0b1100, 0b1100),
        (1 << 63, u64::MAX, 0b0110, 0b0100),
        (u64::MAX, u64::MAX, 1 << 63, 1 << 63),
    ] {
        assert_eq!(nodes_remap(nodes, old, new), expect, "{nodes:b} {old:b} {new:b}");
    }
}
