//! mremap. In the pictures a letter is a page and names the VMA that it is in.

use super::*;
use crate::design::{Classic, Spf};
use crate::mm::{Choice, FileKind, Signal, Variants};
use crate::ops::access::AccessFailure;
use crate::ops::mmap::MapFlags;
use crate::support::{PAGE, R, RW, World, at};

const TASK_SIZE: u64 = 0x7fff_ffff_f000;
const PMD: u64 = 2 << 20;
const MAYMOVE: RemapFlags = RemapFlags::MAYMOVE;
const TO: RemapFlags = RemapFlags(RemapFlags::MAYMOVE.0 | RemapFlags::FIXED.0);
/// In another page table than the pages of the pictures.
const FAR: u64 = 0x7000_0000;

fn remap<D: Design>(
    world: &World<D>,
    address: u64,
    (old_length, new_length): (u64, u64),
    flags: RemapFlags,
    new_address: u64,
) -> Result<u64, Errno> {
    let args = MremapArgs { address, old_length, new_length, flags, new_address };
    world.k.sys_mremap(&world.cpu, args)
}

fn pages(old: u64, new: u64) -> (u64, u64) {
    (old * PAGE, new * PAGE)
}

#[test]
fn errors_are_linuxs_in_its_order() {
    use Errno::{Efault, Einval, Enomem, Eperm};
    let here = at(0).0;
    let table = [
        (here, pages(1, 1), RemapFlags::DONTUNMAP, 0, Err(Einval)),
        (here, pages(1, 1), RemapFlags::FIXED, FAR, Err(Einval)),
        (here + 1, pages(1, 1), MAYMOVE, 0, Err(Einval)),
        (here, pages(1, 0), MAYMOVE, 0, Err(Einval)),
        (here, (PAGE, u64::MAX), MAYMOVE, 0, Err(Einval)),
        (FAR, pages(1, 1), MAYMOVE, 0, Ok(FAR)), // equal lengths: nobody looks
        (FAR, pages(1, 2), MAYMOVE, 0, Err(Efault)),
        (at(4).0, pages(1, 2), MAYMOVE, 0, Err(Efault)), // the hole
        (here, pages(5, 6), MAYMOVE, 0, Err(Efault)),    // beyond the VMA
        (here, pages(0, 1), MAYMOVE, 0, Err(Einval)),    // private memory a second time
        (here, pages(1, 2), RemapFlags::default(), 0, Err(Enomem)),
        (here, pages(4, 6), RemapFlags::default(), 0, Err(Enomem)), // B is in the way
        (here, (4 * PAGE, TASK_SIZE), MAYMOVE, 0, Err(Enomem)),
        (here, pages(4, 4), TO, FAR + 1, Err(Einval)),
        (here, pages(4, 4), TO, TASK_SIZE - PAGE, Err(Einval)),
        (here, (4 * PAGE, TASK_SIZE + PAGE), TO, FAR, Err(Einval)),
        (here, pages(4, 4), TO, here, Err(Einval)),
        (here, pages(4, 4), TO, at(3).0, Err(Einval)),
        (at(2).0, pages(2, 4), TO, at(0).0, Err(Einval)),
        (here, pages(4, 4), TO, PAGE, Err(Eperm)),
        (TASK_SIZE, pages(2, 1), MAYMOVE, 0, Err(Einval)), // munmap's own
    ];
    // AAAA.B
    let world = World::<Spf>::boot();
    world.map_fixed(here, 4 * PAGE, RW);
    world.map_fixed(at(5).0, PAGE, R);
    let before = world.maps();
    for (address, lengths, flags, new_address, expect) in table {
        let result = remap(&world, address, lengths, flags, new_address);
        assert_eq!(result, expect, "{address:#x} {lengths:x?} {flags:?} {new_address:#x}");
        assert_eq!(world.maps(), before);
        world.check();
    }
    world.end();
}

fn moves<D: Design>() {
    // AAAA  →  A..A  and  aaa at FAR, the last page new
    let world = World::<D>::boot();
    world.map_fixed(at(0).0, 4 * PAGE, RW);
    for page in 0..4 {
        world.write(at(page).0, 100 + page).expect("writable");
    }
    assert_eq!(remap(&world, at(1).0, pages(2, 3), TO, FAR), Ok(FAR));
    let maps = [
        "10000000-10001000 rw-p 00000000",
        "10003000-10004000 rw-p 00000000",
        "70000000-70003000 rw-p 00000000",
    ];
    assert_eq!(world.maps(), maps);
    assert_eq!(world.read(at(1).0), Err(AccessFailure::Signal(Signal::MAPERR)));
    let seen = [FAR, FAR + PAGE, FAR + 2 * PAGE].map(|address| world.read(address));
    assert_eq!(seen, [Ok(101), Ok(102), Ok(0)]);
    assert_eq!((world.read(at(0).0), world.read(at(3).0)), (Ok(100), Ok(103)));
    world.check();
    world.end();
}

#[test]
fn a_part_moves_with_its_pages() {
    moves::<Spf>();
    moves::<Classic>();
}

#[test]
fn the_stale_translation_of_the_old_place_is_gone() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, PAGE, RW);
    world.write(at(0).0, 5).expect("writable");
    assert_eq!(world.read(at(0).0), Ok(5));
    assert_eq!(remap(&world, at(0).0, pages(1, 1), TO, FAR), Ok(FAR));
    assert_eq!(world.read(at(0).0), Err(AccessFailure::Signal(Signal::MAPERR)));
    assert_eq!(world.read(FAR), Ok(5));
    world.end();
}

#[test]
fn growing_in_place_does_not_merge_and_leaves_the_counts_even() {
    // AA..B  →  AAAAB
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 2 * PAGE, RW);
    world.map_fixed(at(4).0, PAGE, RW);
    world.write(at(0).0, 1).expect("writable");
    let (a, b) = (world.vma_at(at(0).0), world.vma_at(at(4).0));
    let total = world.mm().total_vm().peek();
    assert_eq!(remap(&world, at(0).0, pages(2, 4), MAYMOVE, 0), Ok(at(0).0));
    assert_eq!(world.picture(5, &[('A', a), ('B', b)]), "AAAAB");
    assert_eq!(world.mm().total_vm().peek(), total + 2);
    world.write(at(3).0, 2).expect("writable");
    world.check();
    world.end();
}

#[test]
fn shrinking_downgrades_the_semaphore_and_frees_it() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 4 * PAGE, RW);
    world.write(at(3).0, 1).expect("writable");
    assert_eq!(remap(&world, at(0).0, pages(4, 1), MAYMOVE, 0), Ok(at(0).0));
    assert_eq!(world.mm().sem_count().peek(), 0);
    assert_eq!(world.maps(), ["10000000-10001000 rw-p 00000000"]);
    world.check();
    world.end();
}

#[test]
fn both_vmas_are_bracketed_once_each_whether_the_target_is_new_or_grows() {
    // SS at 8; its first page goes behind DD at 0, which grows, or to where nothing is.
    for (to, vmas) in [(at(2).0, 2), (FAR, 3)] {
        let world = World::<Spf>::boot();
        world.map_fixed(at(0).0, 2 * PAGE, RW);
        world.map_fixed(at(8).0, 2 * PAGE, RW);
        let source = world.vma_at(at(8).0);
        let neighbour = world.vma_at(at(0).0);
        let before = [source, neighbour].map(|vma| vma.vm_sequence().peek());
        assert_eq!(remap(&world, at(8).0, pages(1, 1), TO, to), Ok(to));
        assert_eq!(world.maps().len(), vmas);
        // The source: in move_vma, and for the split that cuts its first page off; also, when the
        // neighbour grows, as what that meets. The target: in move_vma, and, when it lies above,
        // as what the split meets.
        let target = world.vma_at(to);
        let (grew, times) = if vmas == 2 { (true, [3, 1]) } else { (false, [2, 2]) };
        assert_eq!(target == neighbour, grew);
        assert_eq!(source.vm_sequence().peek() - before[0], 2 * times[0]);
        let started = if grew { before[1] } else { 0 };
        assert_eq!(target.vm_sequence().peek() - started, 2 * times[1]);
        world.check();
        world.end();
    }
}

#[test]
fn memory_that_moves_back_becomes_one_vma_again() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 4 * PAGE, RW);
    for page in 0..4 {
        world.write(at(page).0, page).expect("writable");
    }
    let whole = world.maps();
    assert_eq!(remap(&world, at(1).0, pages(2, 2), TO, FAR), Ok(FAR));
    world.check();
    assert_eq!(remap(&world, FAR, pages(2, 2), TO, at(1).0), Ok(at(1).0));
    assert_eq!(world.maps(), whole);
    assert_eq!(world.read(at(2).0), Ok(2));
    world.check();
    world.end();
}

#[test]
fn untouched_memory_merges_with_the_very_vma_that_it_comes_from() {
    // AAAA  →  .AAAA
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 4 * PAGE, RW);
    let vma = world.vma_at(at(0).0);
    assert_eq!(remap(&world, at(0).0, pages(1, 1), TO, at(4).0), Ok(at(4).0));
    assert_eq!(world.picture(5, &[('A', vma)]), ".AAAA");
    world.check();
    world.end();
}

#[test]
fn what_is_left_is_charged_as_before() {
    // AAAA  →  A..A: both pieces, and the moved one
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 4 * PAGE, RW);
    assert_eq!(remap(&world, at(1).0, pages(2, 2), TO, FAR), Ok(FAR));
    for address in [at(0).0, at(3).0, FAR] {
        assert!(world.vma_at(address).vm_flags().peek().has(VmFlags::ACCOUNT), "{address:#x}");
    }
    world.end();
}

#[test]
fn a_length_of_0_maps_shared_memory_a_second_time() {
    let world = World::<Spf>::boot();
    let mut args = world.anonymous(at(0).0, 2 * PAGE);
    args.flags = MapFlags(MapFlags::SHARED.0 | MapFlags::ANONYMOUS.0 | MapFlags::FIXED.0);
    world.k.sys_mmap(&world.cpu, &args).expect("room");
    world.write(at(1).0, 9).expect("writable");
    assert_eq!(remap(&world, at(1).0, pages(0, 1), TO, FAR), Ok(FAR));
    assert_eq!(world.read(FAR), Ok(9));
    world.write(FAR, 8).expect("writable");
    assert_eq!(world.read(at(1).0), Ok(8));
    world.check();
    world.end();
}

#[test]
fn a_file_is_counted_once_for_each_vma() {
    let world = World::<Spf>::boot();
    let file = world.file(8, FileKind::Regular);
    let mut args = world.anonymous(at(0).0, 4 * PAGE);
    args.flags = MapFlags(MapFlags::PRIVATE.0 | MapFlags::FIXED.0);
    args.file = file.ptr();
    world.k.sys_mmap(&world.cpu, &args).expect("room");
    assert_eq!(remap(&world, at(1).0, pages(1, 2), TO, FAR), Ok(FAR));
    assert_eq!(file.count().peek(), 1 + 3);
    let moved = "70000000-70002000 rw-p 00001000";
    assert_eq!(world.maps().last().map(String::as_str), Some(moved));
    world.k.exit_mm(&world.cpu);
    world.settle();
    assert_eq!(file.count().peek(), 1);
}

#[test]
fn without_memory_for_the_anon_vmas_nothing_moves() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 2 * PAGE, RW);
    world.write(at(1).0, 3).expect("writable");
    let before = world.maps();
    world.k.avcs.fail_after(0);
    assert_eq!(remap(&world, at(0).0, pages(2, 2), TO, FAR), Err(Errno::Enomem));
    assert_eq!(world.maps(), before);
    assert_eq!(world.read(at(1).0), Ok(3));
    world.check();
    world.end();
}

#[test]
fn without_memory_to_cut_off_what_is_left_it_stays_mapped_and_uncharged() {
    // The page has moved, but the old VMA cannot be split: as in Linux, both are mapped.
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 3 * PAGE, RW);
    world.write(at(1).0, 3).expect("writable");
    world.k.avcs.fail_after(1);
    assert_eq!(remap(&world, at(1).0, pages(1, 1), TO, FAR), Ok(FAR));
    assert_eq!((world.read(FAR), world.read(at(1).0)), (Ok(3), Ok(0)));
    assert!(!world.vma_at(at(1).0).vm_flags().peek().has(VmFlags::ACCOUNT));
    world.check();
    world.end();
}

/// Two page tables have to move, and memory ends at the one or the other.
fn runs_out_of_memory(choice: Choice) {
    let mut seen = [0; 2];
    for spare in 0..8 {
        let world = World::<Spf>::boot_with(|config| {
            config.variants = Variants::all(choice);
            config.system.memory = (8 + spare) * PAGE;
            config.system.have_move_pmd = Some(false);
        });
        world.map_fixed(FAR, 2 * PMD, RW);
        let first = world.write(FAR, 1);
        let second = world.write(FAR + PMD, 2);
        if first.is_err() || second.is_err() {
            continue;
        }
        let to = 0x4_0000_0000;
        let moved = remap(&world, FAR, (2 * PMD, 2 * PMD), TO, to);
        seen[usize::from(moved.is_ok())] += 1;
        let at = if moved.is_ok() { to } else { FAR };
        assert!(matches!(moved, Ok(_) | Err(Errno::Enomem)), "{moved:?}");
        assert_eq!((world.read(at), world.read(at + PMD)), (Ok(1), Ok(2)));
        assert_eq!(world.maps().len(), 1);
        world.check();
        world.end();
    }
    assert!(seen.iter().all(|&count| count > 0), "{seen:?}");
}

#[test]
fn without_memory_for_page_tables_all_comes_back() {
    runs_out_of_memory(Choice::Fixed);
    runs_out_of_memory(Choice::V12);
}
