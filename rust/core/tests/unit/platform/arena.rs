//! Arenas: which pointers are followed, and which are found to be bad.

use std::sync::Arc;
use std::sync::atomic::Ordering as Std;

use super::{Arena, Lines, NR_CHUNKS, Ptr, place};
use crate::mm::{Page, Vma};
use crate::platform::Value;
use crate::platform::native::{Cpu, Machine, catch};

fn arena() -> Arena<Page<Cpu>> {
    Arena::new(&Arc::new(Lines::default()), 0)
}

/// What the run that follows `ptr` ends with.
fn finding_of(arena: &Arena<Page<Cpu>>, ptr: Ptr<Page<Cpu>>) -> String {
    let machine = Machine::new(1);
    let cpu = machine.cpu(0, 0);
    assert!(catch(&machine, || arena.get(&cpu, ptr).slot_index()).is_none());
    machine.finding().expect("one").what
}

#[test]
fn every_index_has_a_place_of_its_own() {
    // Chunks follow each other without gap or overlap, and none is beyond the last.
    let mut next = (6, 0);
    for index in 0..1 << 16 {
        assert_eq!(place(index), next, "{index}");
        next = if next.1 + 1 == 1 << next.0 { (next.0 + 1, 0) } else { (next.0, next.1 + 1) };
    }
    assert!(place(u32::MAX - 64).0 < NR_CHUNKS);
}

#[test]
fn null_and_slots_never_handed_out_are_not_followed() {
    let arena = arena();
    arena.alloc();
    assert_eq!(finding_of(&arena, Ptr::NULL), "a NULL page is dereferenced");
    assert_eq!(finding_of(&arena, Ptr::new(64, 1)), "page 64 was never allocated");
    assert_eq!(finding_of(&arena, Ptr::new(1, 1)), "page[1] of generation 1 was freed (now 0)");
}

#[test]
fn a_frame_comes_back_more_often_than_a_pointer_can_count() {
    // As after 2^31 lives of one frame: the next one is found by its pointer all the same.
    let arena = arena();
    let cpu = Machine::new(1).cpu(0, 0);
    let first = arena.alloc_at(0);
    first.slot.generation.store(u64::from(u32::MAX), Std::Relaxed);
    let last = arena.at(&cpu, 0);
    arena.kill(&cpu, last);
    let again = arena.alloc_at(0);
    assert!(arena.get(&cpu, again.ptr()) == again);
    assert!(!arena.is_live(last.ptr()));
}

#[test]
fn systems_beside_each_other_have_the_same_lines_whichever_grew_first() {
    let lines = Lines::default();
    let system = || {
        let lines = Arc::new(lines.beside());
        [Arena::<Vma<Cpu>>::new(&lines, 0), Arena::new(&lines, 0)]
    };
    let (one, other) = (system(), system());
    let first_lines =
        |arena: &Arena<Vma<Cpu>>| [0, 64, 192].map(|nth| arena.alloc_at(nth).slot.line);
    let of_one = [first_lines(&one[0]), first_lines(&one[1])];
    let of_other = [first_lines(&other[1]), first_lines(&other[0])];
    assert_eq!([of_other[1], of_other[0]], of_one);
    // In the other system too a line stands for what it has.
    let line = of_other[1][1];
    assert_eq!(other[0].lines().name_of(line, 0x20), "vm_area_struct[64].rb_parent");
}

#[test]
fn a_timeline_says_what_a_word_is_and_what_it_holds() {
    let lines = Arc::new(Lines::default());
    let vmas = Arena::<Vma<Cpu>>::new(&lines, 0);
    let vma = vmas.alloc();
    let line = vma.slot.line;
    assert_eq!(lines.name_of(line, 0x20), "vm_area_struct[0].rb_parent");
    assert_eq!(lines.text_of(line, 0x20, vma.ptr().to_word()), "vm_area_struct[0]");
    assert_eq!(lines.text_of(line, 0x20, 0), "NULL");
    assert_eq!(lines.text_of(line, 0x50, 0x13), "read write mayread");
    assert_eq!(lines.text_of(line, 0x50, 0), "0x0");
    assert_eq!(lines.text_of(line, 0x08, 0x1000), "0x1000");
}
