use super::*;
use crate::design::Spf;
use crate::mm::{Choice, FileKind, Variant};
use crate::ops::mmap::MapFlags;
use crate::support::{BASE, PAGE, RW, World};

#[test]
fn soft_dirty_pages_are_read_only_and_every_vma_even() {
    let w = World::<Spf>::boot();
    w.map_fixed(BASE, 2 * PAGE, RW);
    assert_eq!(w.write(BASE, 1), Ok(0));
    assert!(w.pte(BASE).has(Pte::SOFT_DIRTY));
    assert!(w.vma_at(BASE).vm_flags().peek().has(VmFlags::SOFTDIRTY));
    w.k.clear_refs(&w.cpu, 4).unwrap();
    assert!(!w.pte(BASE).has(Pte::SOFT_DIRTY | Pte::WRITE));
    assert!(w.pte(BASE).has(Pte::DIRTY));
    assert!(!w.vma_at(BASE).vm_flags().peek().has(VmFlags::SOFTDIRTY));
    // Begun and ended once: mmap's tail, the first write's anon_vma has no part in it.
    let sequence = w.vma_at(BASE).vm_sequence().peek();
    w.k.clear_refs(&w.cpu, 4).unwrap();
    assert_eq!(w.vma_at(BASE).vm_sequence().peek(), sequence, "nothing to clear, no bracket");
    assert_eq!((w.write(BASE, 2), w.read(BASE)), (Ok(0), Ok(2)));
    assert!(w.pte(BASE).has(Pte::SOFT_DIRTY));
    w.check();
    w.end();
}

#[test]
fn where_l1_is_cured_nobody_faults_before_the_flush() {
    let w = World::<Spf>::boot_with(|config| config.variants.set(Variant::L1, Choice::Fixed));
    w.map_fixed(BASE, PAGE, RW);
    assert_eq!(w.write(BASE, 1), Ok(0));
    for _ in 0..2 {
        let sequence = w.vma_at(BASE).vm_sequence().peek();
        w.k.clear_refs(&w.cpu, 4).unwrap();
        assert!(!w.pte(BASE).has(Pte::SOFT_DIRTY | Pte::WRITE));
        assert_eq!(w.vma_at(BASE).vm_sequence().peek(), sequence + 2, "also with no flag to clear");
    }
    assert_eq!((w.write(BASE, 2), w.read(BASE)), (Ok(0), Ok(2)));
    w.check();
    w.end();
}

#[test]
fn old_pages_become_young_again_by_the_next_access() {
    let w = World::<Spf>::boot();
    w.map_fixed(BASE, PAGE, RW);
    assert_eq!(w.write(BASE, 1), Ok(0));
    w.k.clear_refs(&w.cpu, 1).unwrap();
    assert!(!w.pte(BASE).has(Pte::YOUNG));
    assert!(w.pte(BASE).has(Pte::WRITE));
    assert_eq!(w.read(BASE), Ok(1));
    assert!(w.pte(BASE).has(Pte::YOUNG), "no translation was left");
    w.check();
    w.end();
}

#[test]
fn shared_memory_asks_for_a_fault_at_the_first_write() {
    let w = World::<Spf>::boot();
    let file = w.file(2, FileKind::Shmem);
    let mut args = w.anonymous(BASE, 2 * PAGE);
    args.flags = MapFlags(MapFlags::SHARED.0 | MapFlags::FIXED.0);
    args.file = file.ptr();
    w.k.sys_mmap(&w.cpu, &args).unwrap();
    assert!(w.vma_at(BASE).vm_page_prot().peek().has(Pte::WRITE));
    w.k.clear_refs(&w.cpu, 4).unwrap();
    assert!(!w.vma_at(BASE).vm_page_prot().peek().has(Pte::WRITE));
    w.close(&[file]);
    w.check();
    w.end();
}
