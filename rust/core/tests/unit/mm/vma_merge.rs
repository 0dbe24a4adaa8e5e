//! Merging and splitting. In the pictures a letter is a page and names the VMA that it is in; the
//! first line is before, `a` marks the range that is asked for, the last line is after.

use super::*;
use crate::design::Spf;
use crate::mm::{FileKind, InodeRef, VmaRef};
use crate::platform::RcuGuard;
use crate::platform::native::Cpu;
use crate::support::{BASE, PAGE, PRIVATE_RW, World, at};

const READ_ONLY: VmFlags = VmFlags(PRIVATE_RW.0 & !VmFlags::WRITE.0);

type Named<'k> = Vec<(char, VmaRef<'k, Cpu>)>;

/// Makes a VMA of each run of a letter: private, anonymous, writable.
fn lay<'k>(world: &'k World<Spf>, picture: &str) -> Named<'k> {
    let pages: Vec<char> = picture.chars().collect();
    let mut named = Vec::new();
    let mut start = 0;
    for run in pages.chunk_by(|a, b| a == b) {
        let end = start + run.len() as u64;
        if run[0] != '.' {
            let vma = world.k.vm_area_alloc(&world.cpu, world.mm());
            vma.vm_start().poke(at(start));
            vma.vm_end().poke(at(end));
            vma.vm_pgoff().poke(BASE / PAGE + start);
            vma.vm_flags().poke(PRIVATE_RW);
            world.k.insert_vm_struct(&world.cpu, world.mm(), vma);
            named.push((run[0], vma));
        }
        start = end;
    }
    named
}

fn named<'k>(named: &Named<'k>, name: char) -> VmaRef<'k, Cpu> {
    named.iter().find(|(other, _)| *other == name).expect("a VMA of this name").1
}

/// What asks for pages 3, 4 and 5 with the flags, on behalf of the VMA that is there.
fn request(world: &World<Spf>, flags: VmFlags) -> MergeRequest<Cpu> {
    let owner = world.k.find_vma_intersection(&world.cpu, world.mm(), at(3), at(6));
    MergeRequest {
        start: at(3),
        end: at(6),
        flags,
        anon_vma: owner.map_or(Ptr::NULL, |vma| vma.anon_vma().peek()),
        file: owner.map_or(Ptr::NULL, |vma| vma.vm_file().peek()),
        pgoff: BASE / PAGE + 3,
        policy: Ptr::NULL,
    }
}

/// `vma_merge` of pages 3, 4 and 5, with `prev` as its callers find it.
fn merge<'k>(world: &'k World<Spf>, flags: VmFlags) -> Option<VmaRef<'k, Cpu>> {
    let (k, cpu, mm) = (&world.k, &world.cpu, world.mm());
    let (vma, prev) = k.find_vma_prev(cpu, mm, at(3));
    let inside = vma.filter(|vma| vma.vm_start().peek() < at(3));
    k.vma_merge(cpu, mm, inside.or(prev), &request(world, flags))
}

/// Merges and compares; whoever is gone must be odd for ever, all others even.
#[track_caller]
fn merges_to(world: &World<Spf>, names: &Named<'_>, flags: VmFlags, into: char, after: &str) {
    // A reader keeps the swallowed alive, to be looked at.
    let reader = RcuGuard::new(&world.cpu);
    let merged = merge(world, flags);
    assert_eq!(merged.map(|vma| vma.ptr()), Some(named(names, into).ptr()));
    assert_eq!(world.picture(after.len(), names), after);
    for (name, vma) in names {
        let swallowed = !after.contains(*name);
        assert_eq!(vma.vm_sequence().peek() % 2 == 1, swallowed, "sequence of {name}");
        assert_eq!(world.k.vma_node_empty(&world.cpu, *vma), swallowed, "node of {name}");
        if !swallowed {
            let page = vma.vm_start().peek().0 / PAGE;
            assert_eq!(vma.vm_pgoff().peek(), page, "vm_pgoff of {name}");
        }
    }
    drop(reader);
    named(names, into).vm_flags().poke(flags);
    world.check();
}

#[track_caller]
fn merges_not(world: &World<Spf>, names: &Named<'_>, flags: VmFlags, before: &str) {
    assert!(merge(world, flags).is_none());
    assert_eq!(world.picture(before.len(), names), before);
    assert!(names.iter().all(|(_, vma)| vma.vm_sequence().peek() % 2 == 0));
    world.check();
}

#[test]
fn case_1_fills_the_gap_between_two() {
    // PPP...NNN
    //    aaa
    // PPPPPPPPP
    let world = World::boot();
    let names = lay(&world, "PPP...NNN");
    merges_to(&world, &names, PRIVATE_RW, 'P', "PPPPPPPPP");
    world.end();
}

#[test]
fn case_2_grows_the_one_below() {
    // PPP...NNN   N is read-only
    //    aaa
    // PPPPPPNNN
    let world = World::boot();
    let names = lay(&world, "PPP...NNN");
    let next = named(&names, 'N');
    next.vm_flags().poke(READ_ONLY);
    merges_to(&world, &names, PRIVATE_RW, 'P', "PPPPPPNNN");
    // N was odd meanwhile: whoever faults in it gives up.
    assert_eq!(next.vm_sequence().peek(), 2);
    world.end();
}

#[test]
fn case_3_grows_the_one_above() {
    // PPP...NNN   P is read-only
    //    aaa
    // PPPNNNNNN
    let world = World::boot();
    let names = lay(&world, "PPP...NNN");
    named(&names, 'P').vm_flags().poke(READ_ONLY);
    merges_to(&world, &names, PRIVATE_RW, 'N', "PPPNNNNNN");
    assert_eq!(named(&names, 'P').vm_sequence().peek(), 0, "P has no part in it");
    world.end();
}

#[test]
fn case_4_gives_a_tail_to_the_one_above() {
    // PPPPPPNNN   P is read-only, its tail shall be as N
    //    aaa
    // PPPNNNNNN
    let world = World::boot();
    let names = lay(&world, "PPPPPPNNN");
    named(&names, 'P').vm_flags().poke(READ_ONLY);
    merges_to(&world, &names, PRIVATE_RW, 'N', "PPPNNNNNN");
    world.end();
}

#[test]
fn case_5_gives_a_head_to_the_one_below() {
    // PPPXXXXXX   X is read-only, its head shall be as P
    //    aaa
    // PPPPPPXXX
    let world = World::boot();
    let names = lay(&world, "PPPXXXXXX");
    named(&names, 'X').vm_flags().poke(READ_ONLY);
    merges_to(&world, &names, PRIVATE_RW, 'P', "PPPPPPXXX");
    world.end();
}

#[test]
fn case_6_swallows_two() {
    // PPPXXXNNN   X is read-only
    //    aaa
    // PPPPPPPPP
    let world = World::boot();
    let names = lay(&world, "PPPXXXNNN");
    named(&names, 'X').vm_flags().poke(READ_ONLY);
    merges_to(&world, &names, PRIVATE_RW, 'P', "PPPPPPPPP");
    assert_eq!(world.mm().map_count().peek(), 1);
    world.end();
}

#[test]
fn case_6_ends_the_one_behind_both() {
    // PPPXXXNNNZZZ   X and Z are read-only
    //    aaa
    // PPPPPPPPPZZZ
    let world = World::boot();
    let names = lay(&world, "PPPXXXNNNZZZ");
    named(&names, 'X').vm_flags().poke(READ_ONLY);
    named(&names, 'Z').vm_flags().poke(READ_ONLY);
    merges_to(&world, &names, PRIVATE_RW, 'P', "PPPPPPPPPZZZ");
    assert_eq!(named(&names, 'Z').vm_sequence().peek(), 2);
    world.end();
}

#[test]
fn case_7_swallows_one_for_the_one_below() {
    // PPPXXXNNN   X is read-only, N has another file
    //    aaa
    // PPPPPPNNN
    let world = World::boot();
    let names = lay(&world, "PPPXXXNNN");
    named(&names, 'X').vm_flags().poke(READ_ONLY);
    give_file(&world, named(&names, 'N'), world.file(9, FileKind::Regular));
    merges_to(&world, &names, PRIVATE_RW, 'P', "PPPPPPNNN");
    assert_eq!(named(&names, 'N').vm_sequence().peek(), 2);
    world.end();
}

#[test]
fn case_8_swallows_one_for_the_one_above() {
    // PPPXXXNNN   P and X are read-only
    //    aaa
    // PPPNNNNNN
    let world = World::boot();
    let names = lay(&world, "PPPXXXNNN");
    named(&names, 'P').vm_flags().poke(READ_ONLY);
    named(&names, 'X').vm_flags().poke(READ_ONLY);
    merges_to(&world, &names, PRIVATE_RW, 'N', "PPPNNNNNN");
    assert_eq!(named(&names, 'N').vm_sequence().peek(), 2, "begun and ended once");
    world.end();
}

/// Lets a VMA map a file, with the reference that the caller has.
fn give_file(world: &World<Spf>, vma: VmaRef<'_, Cpu>, file: InodeRef<'_, Cpu>) {
    vma.vm_file().poke(file.ptr());
    world.k.vma_link_file(&world.cpu, vma);
}

type Change = fn(&World<Spf>, VmaRef<'_, Cpu>);

/// How a neighbour differs from what is asked for.
const DIFFERENCES: [Change; 4] = [
    |_, vma| vma.vm_flags().poke(vma.vm_flags().peek() | VmFlags::DONTCOPY),
    |world, vma| give_file(world, vma, world.file(9, FileKind::Regular)),
    |_, vma| vma.vm_pgoff().poke(vma.vm_pgoff().peek() + 1),
    |world, vma| vma.vm_policy().poke(world.policy()),
];

#[test]
fn every_combination_of_neighbours() {
    // Each of P and N is missing, fits, or differs in one way; the place is free or X.
    let variants: Vec<Option<Option<usize>>> = [None, Some(None)]
        .into_iter()
        .chain((0..DIFFERENCES.len()).map(|n| Some(Some(n))))
        .collect();
    for (below, above) in variants.iter().flat_map(|b| variants.iter().map(move |a| (b, a))) {
        for middle in ["...", "XXX"] {
            let picture = |name: &'static str, there: bool| if there { name } else { "..." };
            let before =
                [picture("PPP", below.is_some()), middle, picture("NNN", above.is_some())].concat();
            let world = World::boot();
            let names = lay(&world, &before);
            for (name, neighbour) in [('P', below), ('N', above)] {
                if let Some(Some(difference)) = neighbour {
                    DIFFERENCES[*difference](&world, named(&names, name));
                }
            }
            let below_fits = *below == Some(None);
            let above_fits = *above == Some(None);
            let after = match (below_fits, above_fits) {
                (true, true) => "PPPPPPPPP".to_owned(),
                (true, false) => ["PPPPPP", &before[6..]].concat(),
                (false, true) => [&before[..3], "NNNNNN"].concat(),
                (false, false) => before.clone(),
            };
            let merged = merge(&world, PRIVATE_RW);
            assert_eq!(merged.is_some(), below_fits || above_fits);
            assert_eq!(world.picture(9, &names), after, "{before} with {below:?} and {above:?}");
            world.check();
        }
    }
}

#[test]
fn special_flags_forbid_merging_and_soft_dirty_does_not_matter() {
    let world = World::boot();
    let names = lay(&world, "PPP......");
    merges_not(&world, &names, PRIVATE_RW | VmFlags::DONTEXPAND, "PPP......");
    let never_cleaned = PRIVATE_RW & !VmFlags::SOFTDIRTY;
    merges_to(&world, &names, never_cleaned, 'P', "PPPPPP...");
    world.end();
}

/// Gives the VMA an anon_vma that it shares with nobody.
fn touch(world: &World<Spf>, vma: VmaRef<'_, Cpu>) {
    let policy = world.policy();
    vma.vm_policy().poke(policy); // so that no neighbour's anon_vma is taken
    world.k.anon_vma_prepare(&world.cpu, vma).expect("memory");
    vma.vm_policy().poke(Ptr::NULL);
    world.k.mpol_put(&world.cpu, policy);
}

/// Gives `vma` the anon_vma of `with`, as a split does.
fn share(world: &World<Spf>, vma: VmaRef<'_, Cpu>, with: VmaRef<'_, Cpu>) {
    vma.anon_vma().poke(with.anon_vma().peek());
    world.k.anon_vma_clone(&world.cpu, vma, with).expect("memory");
}

/// `anon_vmas`: for P, X and N in turn a letter, the same for the same anon_vma, `-` for none.
#[track_caller]
fn with_anon_vmas(anon_vmas: &str, into: Option<char>, after: &str) {
    let world = World::boot();
    let names = lay(&world, "PPPXXXNNN");
    let mut first: Vec<(char, VmaRef<'_, Cpu>)> = Vec::new();
    for (letter, (_, vma)) in anon_vmas.chars().zip(&names) {
        match first.iter().find(|(other, _)| *other == letter) {
            Some((_, with)) => share(&world, *vma, *with),
            None if letter == '-' => {}
            None => {
                touch(&world, *vma);
                first.push((letter, *vma));
            }
        }
    }
    match into {
        Some(into) => merges_to(&world, &names, PRIVATE_RW, into, after),
        None => merges_not(&world, &names, PRIVATE_RW, after),
    }
    world.end();
}

#[test]
fn an_anon_vma_may_be_had_by_one_side_only() {
    //               P X N
    with_anon_vmas("---", Some('P'), "PPPPPPPPP");
    with_anon_vmas("AAA", Some('P'), "PPPPPPPPP");
    // An untouched range goes to a touched neighbour …
    with_anon_vmas("A--", Some('P'), "PPPPPPPPP");
    with_anon_vmas("--A", Some('P'), "PPPPPPPPP");
    with_anon_vmas("A-A", Some('P'), "PPPPPPPPP");
    // … and never brings two different anon_vmas together …
    with_anon_vmas("A-B", Some('P'), "PPPPPPNNN");
    with_anon_vmas("ABA", None, "PPPXXXNNN");
    with_anon_vmas("ABB", Some('N'), "PPPNNNNNN");
    with_anon_vmas("AAB", Some('P'), "PPPPPPNNN");
    // … but a touched range does not go to an untouched neighbour: that has no chain at all,
    // and 5.1 asks for exactly one.
    with_anon_vmas("-A-", None, "PPPXXXNNN");
    with_anon_vmas("-AA", Some('N'), "PPPNNNNNN");
    with_anon_vmas("AA-", Some('P'), "PPPPPPNNN");
}

#[test]
fn what_came_through_a_fork_takes_no_untouched_range() {
    // PPPXXXNNN   P hangs on its parent's anon_vma and on its own; X and N on none
    //    aaa
    // PPPNNNNNN
    let world = World::<Spf>::boot();
    let names = lay(&world, "PPPXXXNNN");
    let parents = world.k.vm_area_alloc(&world.cpu, world.mm());
    touch(&world, parents);
    world.k.anon_vma_fork(&world.cpu, named(&names, 'P'), parents).expect("memory");
    assert!(!world.k.anon_vma_chain_is_singular(&world.cpu, named(&names, 'P')));
    let reader = RcuGuard::new(&world.cpu);
    let merged = merge(&world, PRIVATE_RW).map(|vma| vma.ptr());
    assert_eq!(merged, Some(named(&names, 'N').ptr()));
    assert_eq!(world.picture(9, &names), "PPPNNNNNN");
    drop(reader);
    world.k.unlink_anon_vmas(&world.cpu, parents);
    world.k.vm_area_free(&world.cpu, parents);
    world.end();
}

#[test]
fn the_one_that_grows_gets_the_anon_vma_of_what_it_takes() {
    // Case 4 (P's tail goes to N) and case 8 (X goes to N), where only the loser has one; by
    // mprotect an untouched neighbour could not get there, so the adjustment is asked directly.
    for picture in ["PPPPPPNNN", "PPPXXXNNN"] {
        let world = World::<Spf>::boot();
        let names = lay(&world, picture);
        let loser = world.vma_at(at(3).0);
        let next = named(&names, 'N');
        touch(&world, loser);
        let tail = picture == "PPPPPPNNN";
        let (start, end) = if tail { (at(0), at(3)) } else { (at(3), at(9)) };
        let bounds = Bounds { start, end, pgoff: start.0 / PAGE, insert: None, expand: Some(next) };
        let anon_vma = loser.anon_vma().peek();
        world.k.vma_adjust(&world.cpu, loser, bounds).expect("memory");
        assert_eq!(next.anon_vma().peek(), anon_vma);
        assert!(world.k.anon_vma_chain_is_singular(&world.cpu, next));
        assert_eq!(world.picture(9, &names), "PPPNNNNNN");
        world.check();
        world.end();
    }
}

#[test]
fn without_memory_for_a_chain_nothing_changes_and_nothing_stays_odd() {
    // PPPXXXNNN   only N has an anon_vma, which P would need (A27)
    let world = World::<Spf>::boot();
    let names = lay(&world, "PPPXXXNNN");
    touch(&world, named(&names, 'N'));
    world.k.avcs.fail_after(0);
    merges_not(&world, &names, PRIVATE_RW, "PPPXXXNNN");
    assert!(named(&names, 'P').anon_vma().peek().is_null());
    assert_eq!(named(&names, 'X').vm_sequence().peek(), 2);
    world.end();
}

#[test]
fn a_swallowed_vma_gives_its_file_back() {
    // PPPXXX   both map the same file
    //    aaa
    // PPPPPP
    let world = World::<Spf>::boot();
    let names = lay(&world, "PPPXXX...");
    let file = world.file(600_000, FileKind::Regular);
    for (_, vma) in &names {
        world.k.get_file(&world.cpu, file.ptr());
        give_file(&world, *vma, file);
    }
    named(&names, 'X').vm_flags().poke(READ_ONLY);
    assert_eq!(file.count().peek(), 3);
    merges_to(&world, &names, PRIVATE_RW, 'P', "PPPPPP...");
    assert_eq!(file.count().peek(), 2);
    world.close(&[file]);
    world.end();
}

/// Splits P (touched, of a file) at page 3, and compares the halves.
fn splits(new_half: NewHalf, after: &str) {
    let world = World::<Spf>::boot();
    let names = lay(&world, "PPPPPP.NNN");
    let (old, mm) = (named(&names, 'P'), world.mm());
    let file = world.file(600_000, FileKind::Regular);
    world.k.get_file(&world.cpu, file.ptr());
    give_file(&world, old, file);
    touch(&world, old);
    let policy = world.policy();
    old.vm_policy().poke(policy);
    world.k.split_vma(&world.cpu, mm, old, at(3), new_half).expect("room for one more");
    let other = if new_half == NewHalf::Below { at(0) } else { at(3) };
    let new = world.vma_at(other.0);
    assert_eq!(world.picture(10, &[('P', old), ('Q', new), names[1]]), after);
    for vma in [old, new] {
        assert_eq!(vma.vm_pgoff().peek(), vma.vm_start().peek().0 / PAGE);
        assert!(world.k.mpol_equal(&world.cpu, vma.vm_policy().peek(), policy));
        assert!(world.k.anon_vma_chain_is_singular(&world.cpu, vma));
    }
    assert_eq!(new.anon_vma().peek(), old.anon_vma().peek());
    assert_eq!(old.vm_sequence().peek(), 2);
    assert_eq!(new.vm_sequence().peek(), 0, "the new half is born even, and never begun");
    assert_eq!(named(&names, 'N').vm_sequence().peek(), 2, "the one above gives up, too");
    assert_eq!(file.count().peek(), 3);
    world.check();
    world.close(&[file]);
    world.end();
}

#[test]
fn a_split_makes_the_new_vma_below_or_above() {
    // PPPPPP.NNN
    //    ^
    splits(NewHalf::Below, "QQQPPP.NNN");
    splits(NewHalf::Above, "PPPQQQ.NNN");
}

#[test]
fn a_split_keeps_to_the_limit_unless_told_not_to() {
    let world = World::<Spf>::boot();
    let names = lay(&world, "PPPPPP");
    let vma = named(&names, 'P');
    world.k.sysctl_max_map_count.poke(1);
    let limited = world.k.split_vma(&world.cpu, world.mm(), vma, at(3), NewHalf::Above);
    assert_eq!(limited, Err(Errno::Enomem));
    assert_eq!(world.mm().map_count().peek(), 1);
    assert_eq!(world.k.split_vma_unlimited(&world.cpu, vma, at(3), NewHalf::Above), Ok(()));
    assert_eq!(world.mm().map_count().peek(), 2);
    world.check();
    world.end();
}

#[test]
fn a_split_without_memory_leaves_nothing_behind() {
    let world = World::<Spf>::boot();
    let names = lay(&world, "PPPPPP");
    let vma = named(&names, 'P');
    touch(&world, vma);
    world.k.avcs.fail_after(0);
    let split = world.k.split_vma(&world.cpu, world.mm(), vma, at(3), NewHalf::Below);
    assert_eq!(split, Err(Errno::Enomem));
    assert_eq!(world.picture(6, &names), "PPPPPP");
    world.check();
    world.end();
}
