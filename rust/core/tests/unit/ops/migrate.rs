use super::*;
use crate::design::Spf;
use crate::support::{BASE, PAGE, RW, World};

#[test]
fn a_range_that_is_not_aligned_and_a_node_that_is_not_there_are_refused() {
    let w = World::<Spf>::boot();
    w.map_fixed(BASE, PAGE, RW);
    assert_eq!(w.write(BASE, 7), Ok(0));
    let migrate = |start, length, node| w.k.migrate(&w.cpu, start, length, node);
    assert_eq!(migrate(BASE + 1, PAGE, 0), Err(Errno::Einval));
    assert_eq!(migrate(BASE, PAGE, 2), Err(Errno::Enodev));
    assert_eq!(migrate(u64::MAX - PAGE + 1, u64::MAX, 0), Ok(()));
    let pfn = w.pte(BASE).pfn();
    assert_eq!(migrate(0, u64::MAX, 1), Ok(()));
    assert_ne!(w.pte(BASE).pfn(), pfn);
    assert_eq!(w.read(BASE), Ok(7));
    w.check();
    w.end();
}

#[test]
fn without_memory_pages_stay_where_they_are() {
    let w = World::<Spf>::boot_with(|config| config.system.memory = 16 * PAGE);
    let mut pages = 0;
    w.map_fixed(BASE, 32 * PAGE, RW);
    while w.write(BASE + pages * PAGE, pages).is_ok() {
        pages += 1;
    }
    w.k.migrate(&w.cpu, BASE, pages * PAGE, 1).unwrap();
    (0..pages).for_each(|nth| assert_eq!(w.read(BASE + nth * PAGE), Ok(nth)));
    w.check();
    w.end();
}
