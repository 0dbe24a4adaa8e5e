//! brk: growing, shrinking, where the heap begins, what is in its way.

use super::*;
use crate::arch::Arch;
use crate::design::{Classic, Spf};
use crate::support::{PAGE, RW, World};

const START: u64 = DEFAULT_START_BRK;

fn brk<D: Design>(world: &World<D>, delta: i64) -> Result<u64, Errno> {
    world.k.sys_brk(&world.cpu, delta, None)
}

fn pages(n: i64) -> i64 {
    n * PAGE as i64
}

fn grows_and_shrinks<D: Design>() {
    let world = World::<D>::boot();
    assert_eq!(brk(&world, 0), Ok(START));
    assert_eq!(world.maps(), Vec::<String>::new());
    assert_eq!(brk(&world, pages(2)), Ok(START + 2 * PAGE));
    assert_eq!(world.write(START + PAGE, 7), Ok(0));
    // Grown again it is the same VMA.
    assert_eq!(brk(&world, pages(3)), Ok(START + 5 * PAGE));
    assert_eq!(world.maps(), ["555555800000-555555805000 rw-p 00000000"]);
    assert_eq!(world.read(START + PAGE), Ok(7));
    assert_eq!(brk(&world, pages(-4)), Ok(START + PAGE));
    assert_eq!(brk(&world, pages(1)), Ok(START + 2 * PAGE));
    assert_eq!(world.read(START + PAGE), Ok(0), "a fresh page");
    assert_eq!(brk(&world, pages(-2)), Ok(START));
    assert_eq!(world.maps(), Vec::<String>::new());
    world.check();
    world.end();
}

#[test]
fn the_heap_grows_and_shrinks() {
    grows_and_shrinks::<Spf>();
    grows_and_shrinks::<Classic>();
}

#[test]
fn the_break_is_in_bytes_the_memory_in_pages() {
    let world = World::<Spf>::boot();
    assert_eq!(brk(&world, 1), Ok(START + 1));
    assert_eq!(world.maps(), ["555555800000-555555801000 rw-p 00000000"]);
    assert_eq!(brk(&world, pages(1) - 1), Ok(START + PAGE));
    assert_eq!(world.mm().map_count().peek(), 1);
    assert_eq!(brk(&world, -1), Ok(START + PAGE - 1));
    assert_eq!(brk(&world, 2), Ok(START + PAGE + 1));
    assert_eq!(world.maps(), ["555555800000-555555802000 rw-p 00000000"]);
    world.check();
}

#[test]
fn below_its_start_or_beyond_everything_there_is_no_heap() {
    let world = World::<Spf>::boot();
    brk(&world, pages(1)).expect("room");
    for delta in [pages(-2), i64::MIN, i64::MAX, 1 << 47] {
        assert_eq!(brk(&world, delta), Err(Errno::Enomem), "{delta:#x}");
        assert_eq!(brk(&world, 0), Ok(START + PAGE), "the break is where it was");
    }
    world.check();
}

#[test]
fn a_page_stays_free_below_what_comes_next() {
    // hh..XX   the heap can have one page more, not two
    let world = World::<Spf>::boot();
    brk(&world, pages(2)).expect("room");
    world.map_fixed(START + 4 * PAGE, PAGE, RW);
    assert_eq!(brk(&world, pages(2)), Err(Errno::Enomem));
    assert_eq!(brk(&world, pages(1)), Ok(START + 3 * PAGE));
    assert_eq!(brk(&world, 1), Err(Errno::Enomem));
    world.check();
}

#[test]
fn the_heap_begins_where_the_first_call_says() {
    let world = World::<Spf>::boot();
    let start = 0x123_4567;
    assert_eq!(world.k.sys_brk(&world.cpu, pages(1), Some(start)), Ok(start + PAGE));
    assert_eq!(world.maps(), ["01235000-01236000 rw-p 00000000"]);
    // Later ones have no say.
    assert_eq!(world.k.sys_brk(&world.cpu, 0, Some(START)), Ok(start + PAGE));
    // A refused first call has placed it, too.
    let world = World::<Spf>::boot();
    assert_eq!(world.k.sys_brk(&world.cpu, -1, Some(0)), Err(Errno::Enomem));
    assert_eq!(brk(&world, 0), Ok(0));
    assert_eq!(brk(&world, pages(1)), Err(Errno::Enomem), "below mmap_min_addr");
}

#[test]
fn where_user_space_is_small_the_heap_begins_at_two_thirds() {
    let expect = [
        ("x86", START),
        ("x86-5level", START),
        ("powerpc", START),
        ("powerpc-4k", 0x2aaa_aac0_0000),
        ("arm64", START),
        ("arm64-64k", START),
    ];
    for (name, start) in expect {
        let world = World::<Spf>::boot_with(|config| {
            let arch = Arch::builtin().into_iter().find(|arch| arch.name == name);
            config.arch = arch.expect("a profile of this name");
        });
        assert_eq!(brk(&world, 0), Ok(start), "{name}");
        assert!(brk(&world, 1).is_ok(), "{name}");
        world.check();
        world.end();
    }
}

#[test]
fn the_heap_merges_with_anonymous_memory_below_it() {
    // The rules of mmap: same flags, no file, offsets that follow.
    let world = World::<Spf>::boot();
    world.map_fixed(START - PAGE, PAGE, RW);
    brk(&world, pages(1)).expect("room");
    assert_eq!(world.maps(), ["5555557ff000-555555801000 rw-p 00000000"]);
    world.check();
}

#[test]
fn too_many_vmas_leave_the_break_where_it_is() {
    let world = World::<Spf>::boot();
    world.k.sysctl_max_map_count.poke(1);
    world.map_fixed(START + 16 * PAGE, PAGE, RW);
    world.map_fixed(START + 18 * PAGE, PAGE, RW);
    assert_eq!(brk(&world, pages(1)), Err(Errno::Enomem));
    assert_eq!(brk(&world, 0), Ok(START));
    world.check();
}

#[test]
fn a_heap_that_something_was_cut_out_of_shrinks_over_the_hole() {
    // hh.h   munmap in the middle, then the whole is given back
    let world = World::<Spf>::boot();
    brk(&world, pages(4)).expect("room");
    world.k.sys_munmap(&world.cpu, START + 2 * PAGE, PAGE).expect("mapped");
    assert_eq!(brk(&world, pages(-4)), Ok(START));
    assert_eq!(world.maps(), Vec::<String>::new());
    world.check();
    world.end();
}

#[test]
fn a_cut_that_cannot_be_made_leaves_the_break_where_it_is() {
    // The heap is one VMA with memory above it, and the limit is reached: to shrink it by its
    // middle a split is needed.
    let world = World::<Spf>::boot();
    brk(&world, pages(4)).expect("room");
    world.map_fixed(START + 4 * PAGE, PAGE, RW);
    assert_eq!(world.maps(), ["555555800000-555555805000 rw-p 00000000"]);
    world.k.sysctl_max_map_count.poke(1);
    assert_eq!(brk(&world, pages(-2)), Err(Errno::Enomem));
    assert_eq!(brk(&world, 0), Ok(START + 4 * PAGE));
    world.check();
}
