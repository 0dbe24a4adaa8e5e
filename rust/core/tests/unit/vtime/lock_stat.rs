//! What counts as one contention, whose time it is, and what the kernel calls each word.

use super::*;
use crate::design::Spf;
use crate::mm::{Config, Kernel, System, Variants};
use crate::vtime::Cpu;

const LOCK: Site = Site { line: 3, offset: 0 };
const OTHER: Site = Site { line: 4, offset: 0 };

fn counts(stat: &LockStat, word: Site) -> (u64, u64, u64) {
    let counts = &stat.words[&word];
    (counts.acquisitions, counts.contended, counts.wait_ns)
}

#[test]
fn sleeping_twice_for_one_acquisition_is_one_contention() {
    let mut stat = LockStat::new(2);
    stat.waited(0, LOCK, 10);
    stat.waited(0, LOCK, 5);
    stat.acquired(0, LOCK);
    assert_eq!(counts(&stat, LOCK), (1, 1, 15));
    stat.waited(0, LOCK, 1);
    stat.waited(1, LOCK, 2);
    stat.acquired(1, LOCK);
    assert_eq!(counts(&stat, LOCK), (2, 3, 18));
    // Another lock in between was waited for, too.
    stat.waited(0, OTHER, 1);
    stat.waited(0, LOCK, 1);
    assert_eq!(counts(&stat, LOCK), (2, 4, 19));
}

#[test]
fn the_time_of_tasks_is_from_their_first_operation_to_their_last() {
    let mut stat = LockStat::new(3);
    for (task, now) in [(0, 5), (1, 100), (0, 50), (1, 130)] {
        stat.works(task, now);
    }
    let mut course = Course::default();
    stat.finish(&Lines::default(), &mut course);
    assert_eq!(course.task_ns, 45 + 30);
}

/// What the kernel calls the words of the struct `object`, by field.
fn names(object: &str) -> BTreeMap<String, String> {
    let arch = crate::arch::Arch::builtin().remove(0);
    let (system, variants) = (System::default(), Variants::outside_explore());
    let kernel =
        Kernel::<Cpu, Spf>::new(Config { arch, system, variants, nr_cpus: 2, nr_tasks: 2 });
    kernel.mms.alloc();
    kernel.vmas.alloc();
    let lines = kernel.lines();
    let blocks = lines.blocks();
    let block = blocks.iter().find(|block| block.name == object).unwrap();
    let words = (0..block.per_object * Line::BYTES).step_by(4).map(|offset| {
        let site =
            Site { line: block.first.0 + offset / Line::BYTES, offset: offset % Line::BYTES };
        ((block.field_name)(offset), kernel_name(lines, site))
    });
    words.collect()
}

#[test]
fn words_are_called_what_the_kernel_calls_them() {
    let mm = names("mm_struct");
    for (field, name) in [
        ("sem_count", "mmap_sem"),
        ("sem_owner", "mmap_sem.owner"),
        ("sem_wait_lock", "mmap_sem.wait_lock"),
        ("mm_seq", "mm_seq"),
        ("mm_seq_lock", "mm_seq.lock"),
        ("mm_rb_lock", "mm_rb_lock"),
        ("page_table_lock", "page_table_lock"),
        ("anon_pages", "mm->anon_pages"),
    ] {
        assert_eq!(mm[field], name);
    }
    let vma = names("vm_area_struct");
    assert_eq!(vma["vm_sequence"], "vm_sequence");
    assert_eq!(vma["vm_ref_count"], "vm_ref_count");
    assert_eq!(vma["vm_end"], "vma->vm_end");
    assert_eq!(names("zone")["lock"], "zone->lock");
    let pgdat = names("pglist_data");
    assert_eq!(pgdat["lru_lock"], "lru_lock");
    assert_eq!(pgdat["lru_zone_size"], "lruvec->lru_zone_size");
    assert_eq!(names("memcg")["usage"], "memcg->usage");
}
