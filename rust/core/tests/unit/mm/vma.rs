//! What VMAs are born with, and what their flags mean for PTEs.

use super::*;
use crate::arch::Arch;
use crate::design::Spf;
use crate::platform::native::Cpu;
use crate::support::{PAGE, PRIVATE_RW, RW, World, at};

const EXEC: VmFlags = VmFlags::EXEC;

fn world_on(arch: &str) -> World<Spf> {
    let arch = Arch::builtin().into_iter().find(|profile| profile.name == arch);
    World::boot_with(|config| config.arch = arch.expect("a profile of this name"))
}

#[test]
fn protection_map_of_each_arch() {
    let none = Pte::PROTNONE;
    let read = Pte::PRESENT | Pte::READ;
    let exec_alone = Pte::PRESENT | Pte::EXEC;
    // (flags, private, shared); write implies read, private is never writable.
    let everywhere = [
        (VmFlags::NONE, none, none),
        (VmFlags::READ, read, read),
        (VmFlags::WRITE, read, read | Pte::WRITE),
        (RW, read, read | Pte::WRITE),
        (VmFlags::READ | EXEC, read | Pte::EXEC, read | Pte::EXEC),
        (VmFlags::WRITE | EXEC, read | Pte::EXEC, read | Pte::EXEC | Pte::WRITE),
        (RW | EXEC, read | Pte::EXEC, read | Pte::EXEC | Pte::WRITE),
    ];
    let exec_only = [
        ("x86", read | Pte::EXEC),
        ("powerpc", read | Pte::EXEC),
        ("arm64", exec_alone),
        ("arm64-64k", exec_alone),
    ];
    for (arch, exec) in exec_only {
        let world = world_on(arch);
        for (flags, private, shared) in everywhere.into_iter().chain([(EXEC, exec, exec)]) {
            assert_eq!(world.k.vm_get_page_prot(flags), private, "{arch} {flags:?}");
            let flags = flags | VmFlags::SHARED;
            assert_eq!(world.k.vm_get_page_prot(flags), shared, "{arch} {flags:?}");
        }
    }
}

#[test]
fn only_a_shared_writable_file_on_disk_is_told_of_writes() {
    let world = World::<Spf>::boot();
    let vma = world.k.vm_area_alloc(&world.cpu, world.mm());
    // All of it counts as soft-dirty, so nobody tracks writes.
    let shared_rw = RW | VmFlags::SHARED | VmFlags::SOFTDIRTY;
    let told = |flags: VmFlags, ops: VmOps| {
        vma.vm_flags().poke(flags);
        vma.vm_ops().poke(ops as u64);
        world.k.vma_set_page_prot(&world.cpu, vma);
        let writable = vma.vm_page_prot().peek().has(Pte::WRITE);
        let prot = vma.vm_page_prot().peek();
        (world.k.vma_wants_writenotify(&world.cpu, vma, prot), writable)
    };
    assert_eq!(told(shared_rw, VmOps::File), (true, false));
    assert_eq!(told(shared_rw, VmOps::Shmem), (false, true));
    assert_eq!(told(VmFlags::READ | VmFlags::SHARED, VmOps::File), (false, false));
    assert_eq!(told(RW, VmOps::File), (false, false));
    // Tracked; but a protection without writes is not what the flags give.
    assert_eq!(told(RW | VmFlags::SHARED, VmOps::Shmem), (false, false));
    assert_eq!(told(RW, VmOps::None), (false, false));
    world.k.vm_area_free(&world.cpu, vma);
    world.end();
}

#[test]
fn a_copy_has_its_own_counts_and_is_nowhere() {
    // A26: a copy of the counts would keep speculation out for ever, or free too early.
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 4 * PAGE, RW);
    world.write(at(1).0, 1).expect("writable");
    let orig = world.vma_at(at(0).0);
    begin(&world, orig);
    let copy = world.k.vm_area_dup(&world.cpu, orig);
    assert_eq!(copy.vm_sequence().peek(), 0);
    assert_eq!(copy.vm_ref_count().peek(), 1);
    assert!(world.k.vma_node_empty(&world.cpu, copy));
    assert!(copy.anon_vma_chain().peek().is_null());
    assert_eq!(copy.vm_start().peek(), at(0));
    assert_eq!(copy.vm_end().peek(), at(4));
    assert_eq!(copy.vm_flags().peek(), PRIVATE_RW);
    assert_eq!(copy.vm_pgoff().peek(), at(0).0 / PAGE);
    assert_eq!(copy.anon_vma().peek(), orig.anon_vma().peek());
    assert_eq!(copy.vm_mm().peek(), world.mm().ptr());
    Spf::vm_write_end(&world.cpu, orig);
    world.k.vm_area_free(&world.cpu, copy);
    world.check();
    world.end();
}

/// Makes the VMA odd.
fn begin(world: &World<Spf>, vma: VmaRef<'_, Cpu>) {
    Spf::vm_write_begin(&world.cpu, vma);
    assert_eq!(vma.vm_sequence().peek() % 2, 1);
}

#[test]
fn sizes_round_up_to_pages_and_wrap() {
    let world = World::<Spf>::boot();
    let expect = [(0, 0), (1, PAGE), (PAGE, PAGE), (PAGE + 1, 2 * PAGE), (u64::MAX, 0)];
    for (bytes, aligned) in expect {
        assert_eq!(world.k.page_align(bytes), aligned);
    }
    assert_eq!(world.k.offset_in_page(PAGE + 5), 5);
}

#[test]
fn removing_a_vma_that_is_in_the_tree_is_a_finding() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, PAGE, RW);
    let machine = world.cpu.machine().clone();
    crate::platform::native::catch(&machine, || {
        world.k.remove_vma(&world.cpu, world.vma_at(at(0).0));
    });
    assert_eq!(machine.finding().map(|finding| finding.invariant), Some("vma-tree"));
}
