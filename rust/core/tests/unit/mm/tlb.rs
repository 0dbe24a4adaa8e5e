use super::*;

/// Whether the TLB would take what is in the page's place for its translation.
fn holds(tlb: &Tlb, page_number: u64) -> bool {
    tlb.entry(page_number).tag.get() == tlb.tag(page_number)
}

#[test]
fn a_reset_drops_everything_and_it_stays_dropped() {
    // A reset touches no entry, so what it dropped must not match after any number of later ones.
    let tlb = Tlb::new();
    for page_number in [0, 5, (1 << 52) - 1] {
        tlb.entry(page_number).tag.set(tlb.tag(page_number));
        assert!(holds(&tlb, page_number));
        for resets in 1..10_000 {
            tlb.reset();
            assert!(!holds(&tlb, page_number), "{page_number}, {resets} resets");
        }
    }
}

#[test]
fn every_page_has_a_tag_of_its_own_whenever_it_is_filled() {
    let tlb = Tlb::new();
    let pages = [0, 1, (1 << 52) - 2, (1 << 52) - 1];
    let mut seen = std::collections::BTreeSet::from([0]);
    for _ in 0..2_000 {
        tlb.reset();
        assert!(pages.iter().all(|&page_number| seen.insert(tlb.tag(page_number))));
    }
}

#[test]
fn the_flush_of_a_page_leaves_its_neighbours_alone() {
    let tlb = Tlb::new();
    tlb.reset();
    for page_number in [7, 8] {
        tlb.entry(page_number).tag.set(tlb.tag(page_number));
    }
    tlb.drop_page(7);
    // That has the place of page 8, and is not there.
    tlb.drop_page(8 + NR_ENTRIES as u64);
    assert!(!holds(&tlb, 7) && holds(&tlb, 8));
}
