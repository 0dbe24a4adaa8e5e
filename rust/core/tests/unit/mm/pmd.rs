//! What a PMD entry can be.

use super::*;
use crate::platform::native::Cpu;
use crate::platform::{Line, Object};

type Val = PmdVal<Cpu>;

const ORDER: u32 = 9;

#[test]
fn an_entry_is_none_or_a_table_or_a_leaf() {
    let table = Ptr::<Table<Cpu>>::from_word((7 << 32) | 12);
    let leaf = Val::leaf(Pte::new(512, Pte::PRESENT | Pte::READ), ORDER);
    let seen = |value: Val| (value.is_none(), value.table().is_some(), value.is_huge());
    assert_eq!(seen(Val::NONE), (true, false, false));
    assert_eq!(seen(table.into()), (false, true, false));
    assert_eq!(seen(leaf), (false, false, true));
    assert!(Val::from(table).table() == Some(table));
}

#[test]
fn a_leaf_says_what_it_was_made_from() {
    let prot = Pte::PRESENT | Pte::WRITE | Pte::READ | Pte::YOUNG | Pte::SPECIAL;
    for pfn in [0, 512, 512 * (Val::MAX_NUMBER - 1)] {
        assert_eq!(Val::leaf(Pte::new(pfn, prot), ORDER).as_pte(ORDER), Pte::new(pfn, prot));
    }
}

#[test]
fn a_leaf_that_is_being_changed_is_still_one() {
    // pmdp_invalidate() takes away what the hardware looks at.
    assert!(Val::leaf(Pte::new(0, Pte::EMPTY), ORDER).is_huge());
}

#[test]
fn a_timeline_says_what_an_entry_is() {
    let text = |arena, word| <Table<Cpu> as Object>::field_text(arena, Line::BYTES + 8, word);
    let pte = Pte::new(126, Pte::PRESENT | Pte::READ | Pte::WRITE);
    assert_eq!(text("pte", pte.to_word()), "page 126 present write read");
    assert_eq!(text("pte", 0), "none");
    assert_eq!(text("pmd", 0), "none");
    assert_eq!(text("pmd", (7 << 32) | 12), "page table[11]");
    assert_eq!(
        text("pmd", Val::leaf(Pte::new(512, pte), ORDER).to_word()),
        "huge page 1 present write read"
    );
    // Of the lock and the like it is the number.
    assert_eq!(<Table<Cpu> as Object>::field_text("pte", 0x28, 1), "0x1");
}
