//! Look-ups and the cache of each task.

use super::*;
use crate::design::Spf;
use crate::support::{PAGE, RW, World, at};

/// PP.QQ
fn two_vmas() -> World<Spf> {
    let world = World::boot();
    world.map_fixed(at(0).0, 2 * PAGE, RW);
    world.map_fixed(at(3).0, 2 * PAGE, RW);
    world
}

fn start_of(vma: Option<VmaRef<'_, crate::platform::native::Cpu>>) -> Option<Vaddr> {
    vma.map(|vma| vma.vm_start().peek())
}

#[test]
fn find_vma_is_the_first_that_ends_above() {
    // PP.QQ
    let world = two_vmas();
    let (k, cpu, mm) = (&world.k, &world.cpu, world.mm());
    let expect = [
        (Vaddr(0), Some(at(0))),
        (at(1), Some(at(0))),
        (at(2), Some(at(3))),
        (at(4).offset(PAGE - 1), Some(at(3))),
        (at(5), None),
    ];
    for (address, start) in expect {
        assert_eq!(start_of(k.find_vma_uncached(cpu, mm, address)), start, "{address:#x}");
        assert_eq!(start_of(k.find_vma(cpu, mm, address)), start, "{address:#x}");
        assert_eq!(start_of(k.find_vma(cpu, mm, address)), start, "{address:#x}, cached");
    }
}

#[test]
fn find_vma_prev_gives_the_last_one_when_nothing_is_above() {
    let world = two_vmas();
    let (k, cpu, mm) = (&world.k, &world.cpu, world.mm());
    let starts = |address| {
        let (vma, prev) = k.find_vma_prev(cpu, mm, address);
        (start_of(vma), start_of(prev))
    };
    assert_eq!(starts(at(0)), (Some(at(0)), None));
    assert_eq!(starts(at(2)), (Some(at(3)), Some(at(0))));
    assert_eq!(starts(at(9)), (None, Some(at(3))));
}

#[test]
fn an_intersection_needs_a_byte_in_common() {
    let world = two_vmas();
    let (k, cpu, mm) = (&world.k, &world.cpu, world.mm());
    let hit = |start, end| start_of(k.find_vma_intersection(cpu, mm, start, end));
    assert_eq!(hit(at(2), at(3)), None);
    assert_eq!(hit(at(2), at(3).offset(1)), Some(at(3)));
    assert_eq!(hit(at(1), at(9)), Some(at(0)));
}

#[test]
fn links_are_refused_where_something_is_in_the_way() {
    let world = two_vmas();
    let (k, cpu, mm) = (&world.k, &world.cpu, world.mm());
    assert!(k.find_vma_links(cpu, mm, at(1), at(3)).is_none());
    assert!(k.find_vma_links(cpu, mm, at(2), at(4)).is_none());
    let links = k.find_vma_links(cpu, mm, at(2), at(3)).expect("the gap");
    assert_eq!(start_of(links.prev), Some(at(0)));
}

#[test]
fn the_cache_answers_until_something_is_unlinked() {
    let world = two_vmas();
    let (k, cpu, mm) = (&world.k, &world.cpu, world.mm());
    let cached = |address| k.vmacache_find(cpu, mm, address).map(|vma| vma.vm_start().peek());
    k.find_vma(cpu, mm, at(0));
    assert_eq!(cached(at(1)), Some(at(0)), "any address in the VMA");
    assert_eq!(cached(at(3)), None, "never seen");
    k.vmacache_invalidate(cpu, mm);
    assert_eq!(cached(at(1)), None);
    k.find_vma(cpu, mm, at(0));
    assert_eq!(cached(at(1)), Some(at(0)));
}

#[test]
fn the_cache_is_of_one_address_space() {
    let world = two_vmas();
    let (k, cpu, mm) = (&world.k, &world.cpu, world.mm());
    k.find_vma(cpu, mm, at(0));
    let other = k.mm_alloc(cpu).expect("memory");
    assert!(k.find_vma(cpu, other, at(0)).is_none());
    assert!(k.vmacache_find(cpu, other, at(0)).is_none());
    k.mmput(cpu, other);
}

#[test]
fn the_slot_of_the_cache_is_that_of_the_pmd_entry() {
    // Two VMAs whose addresses are 4 PMD entries apart share a slot: the later one stays.
    let world = World::<Spf>::boot();
    let (k, cpu, mm) = (&world.k, &world.cpu, world.mm());
    let far = at(4 * 512);
    world.map_fixed(at(0).0, PAGE, RW);
    world.map_fixed(far.0, PAGE, RW);
    k.find_vma(cpu, mm, at(0));
    k.find_vma(cpu, mm, far);
    assert!(k.vmacache_find(cpu, mm, at(0)).is_none());
    assert!(k.vmacache_find(cpu, mm, far).is_some());
}
