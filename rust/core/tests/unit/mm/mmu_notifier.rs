use super::*;
use crate::design::Spf;
use crate::mm::{MmuNotifierMm, Vaddr};
use crate::ops::madvise::Advice;
use crate::platform::Ref;
use crate::platform::native::Cpu;
use crate::support::{BASE, PAGE, R, RW, World};

fn registered(w: &World<Spf>) -> Ref<'_, MmuNotifierMm<Cpu>> {
    w.k.mmu_notifier_register(&w.cpu, w.mm()).unwrap();
    w.k.notifiers.get(&w.cpu, w.mm().mmu_notifier_mm().peek())
}

#[test]
fn each_change_of_translations_is_told_of_and_ended() {
    let w = World::<Spf>::boot();
    w.map_fixed(BASE, 8 * PAGE, RW);
    (0..8).for_each(|page| assert_eq!(w.write(BASE + page * PAGE, page), Ok(0)));
    let notifier = registered(&w);
    let told = |what: &str, change: &dyn Fn()| {
        let before = notifier.seq().peek();
        change();
        assert_eq!(notifier.count().peek(), 0, "{what}");
        notifier.seq().peek() - before
    };
    let advise = |advice| w.k.sys_madvise(&w.cpu, BASE, PAGE, advice).unwrap();
    assert_eq!(told("mprotect", &|| w.k.sys_mprotect(&w.cpu, BASE, PAGE, R).unwrap()), 1);
    assert_eq!(told("mprotect", &|| w.k.sys_mprotect(&w.cpu, BASE, PAGE, RW).unwrap()), 1);
    assert_eq!(told("free", &|| advise(Advice::Free)), 1);
    assert_eq!(told("dontneed", &|| advise(Advice::Dontneed)), 1);
    assert_eq!(told("clear_refs", &|| w.k.clear_refs(&w.cpu, 4).unwrap()), 1);
    assert_eq!(told("clear_refs", &|| w.k.clear_refs(&w.cpu, 1).unwrap()), 0);
    assert_eq!(told("migrate", &|| w.k.migrate(&w.cpu, BASE + PAGE, PAGE, 1).unwrap()), 1);
    assert_eq!(told("reuse", &|| assert_eq!(w.write(BASE + PAGE, 1), Ok(0))), 0);
    // One of two equal pages is made read-only; then the other one, too, and replaced.
    let advise_all = |advice| w.k.sys_madvise(&w.cpu, BASE, 8 * PAGE, advice).unwrap();
    advise_all(Advice::Mergeable);
    assert_eq!(w.write(BASE, 7), Ok(0));
    assert_eq!(told("ksm", &|| w.k.ksm_scan(&w.cpu, BASE, 8 * PAGE).unwrap()), 3);
    assert_eq!(told("break_ksm", &|| advise_all(Advice::Unmergeable)), 2);
    assert_eq!(told("munmap", &|| w.k.sys_munmap(&w.cpu, BASE, PAGE).unwrap()), 1);
    assert_eq!(told("reaper", &|| w.k.oom_reap(&w.cpu)), 1);
    w.check();
    w.end();
}

#[test]
fn a_change_of_protection_is_told_of_only_where_something_is_mapped() {
    let w = World::<Spf>::boot();
    w.k.sys_clone_vm(&w.cpu, 1);
    w.map_fixed(BASE, 8 * PAGE, RW);
    let notifier = registered(&w);
    let told = |change: &dyn Fn()| {
        let before = notifier.seq().peek();
        change();
        assert_eq!(notifier.count().peek(), 0);
        notifier.seq().peek() - before
    };
    let protect = |prot| move |w: &World<Spf>| w.k.sys_mprotect(&w.cpu, BASE, 8 * PAGE, prot);
    let scan = |w: &World<Spf>| w.k.numa_scan(&w.cpu, BASE, 8 * PAGE);
    for expect in [0, 1] {
        assert_eq!(told(&|| protect(R)(&w).unwrap()), expect);
        assert_eq!(told(&|| protect(RW)(&w).unwrap()), expect);
        assert_eq!(told(&|| scan(&w).unwrap()), expect);
        assert_eq!(w.write(BASE + PAGE, 1), Ok(0));
    }
    w.check();
    w.k.exit_mm(&w.cpu.machine().cpu(1, 1));
    w.end();
}

#[test]
fn a_copy_is_told_of() {
    let w = World::<Spf>::boot();
    w.map_fixed(BASE, PAGE, RW);
    assert_eq!(w.read(BASE), Ok(0));
    let notifier = registered(&w);
    assert_eq!(w.write(BASE, 1), Ok(0));
    assert_eq!((notifier.count().peek(), notifier.seq().peek()), (0, 1));
    w.check();
    w.end();
}

#[test]
fn there_is_one_and_after_it_another_that_has_seen_nothing() {
    let w = World::<Spf>::boot();
    let (k, cpu, mm) = (&w.k, &w.cpu, w.mm());
    w.map_fixed(BASE, PAGE, RW);
    assert_eq!(k.mmu_notifier_unregister(cpu, mm), Err(Errno::Enoent));
    let notifier = registered(&w);
    assert_eq!(k.mmu_notifier_register(cpu, mm), Err(Errno::Eexist));
    k.invalidate_range_start(cpu, mm);
    assert_eq!(notifier.count().peek(), 1);
    assert_eq!(k.mmu_notifier_unregister(cpu, mm), Ok(()));
    k.invalidate_range_end(cpu, mm);
    assert_eq!(k.mmu_notifier_unregister(cpu, mm), Err(Errno::Enoent));
    assert_eq!(k.mmu_notifier_register(cpu, mm), Ok(()));
    assert_eq!(notifier.count().peek(), 0);
    assert!(k.find_vma_uncached(cpu, mm, Vaddr(BASE)).is_some());
    w.check();
    w.end();
}

#[test]
fn a_speculative_copy_keeps_notifiers_as_they_are_or_gives_up() {
    let w = World::<Spf>::boot();
    let (k, cpu, mm) = (&w.k, &w.cpu, w.mm());
    let id = k.mmu_notifier_trylock(cpu, mm).unwrap();
    assert_eq!(k.cpus[id as usize].notifier_readers.peek(), 1);
    k.mmu_notifier_unlock(cpu, id);
    k.keep_speculation_out(cpu, mm);
    assert_eq!(k.mmu_notifier_trylock(cpu, mm), None);
    k.let_speculation_in(cpu, mm);
    assert_eq!(k.cpus[id as usize].notifier_readers.peek(), 0);
    w.end();
}
