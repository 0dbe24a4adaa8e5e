use super::*;
use crate::design::Spf;
use crate::platform::native::{Cpu, Machine};
use crate::support::system;

type K = Kernel<Cpu, Spf>;

/// A page at `index` of the file, with only the page cache's reference.
fn add(k: &K, cpu: &Cpu, inode: InodeRef<'_, Cpu>, index: u64) -> bool {
    let page = k.page_cache_alloc(cpu, 0).unwrap();
    let added = k.add_to_page_cache(cpu, inode, index, page);
    k.put_page(cpu, page);
    added
}

#[test]
fn a_cached_file_has_every_page_from_the_beginning() {
    let (k, cpu) = system(1 << 30);
    let inode = k.inode_new(&cpu, 16 << 12, FileKind::Regular, true);
    let page = k.find_get_page(&cpu, inode, 3).unwrap();
    assert_eq!((page.content().peek(), page.index().peek(), page.refcount().peek()), (0, 3, 2));
    page.content().poke(7);
    let again = k.find_get_page(&cpu, inode, 3).unwrap();
    assert!(again == page);
    assert_eq!(page.refcount().peek(), 3);
    assert_eq!(k.pages_to_read(&cpu, inode), 16..u64::MAX);
}

#[test]
fn only_a_cached_file_has_pages_that_nobody_made() {
    let (k, cpu) = system(1 << 30);
    let disk = k.inode_new(&cpu, 16 << 12, FileKind::Regular, false);
    let zero = k.inode_new(&cpu, 16 << 12, FileKind::ShmemZero, false);
    assert!(k.find_get_page(&cpu, disk, 3).is_none());
    assert!(k.find_get_page(&cpu, zero, 3).is_none());
    assert_eq!((k.pages_to_read(&cpu, disk), k.pages_to_read(&cpu, zero)), (0..u64::MAX, 0..0));
}

#[test]
fn a_large_file_has_as_many_levels_as_it_needs() {
    // Goal: pages at both edges of each level, alone and together.
    for (length, levels) in
        [(0, 1), (1, 1), (512 << 12, 1), ((512 << 12) + 1, 2), (512 << 21, 2), (1 << 50, 5)]
    {
        let (k, cpu) = system(1 << 30);
        let inode = k.inode_new(&cpu, length, FileKind::Regular, false);
        assert_eq!(inode.i_pages_levels().peek(), levels, "{length:#x}");
        let beyond = k.file_pages(&cpu, inode);
        let mut indices = vec![0, 1, 511, 512, 513, 262_143, 262_144, beyond.saturating_sub(1)];
        indices.retain(|&index| index < beyond);
        indices.sort_unstable();
        indices.dedup();
        for &index in &indices {
            assert!(k.find_get_page(&cpu, inode, index).is_none());
            assert!(add(&k, &cpu, inode, index));
            assert!(!add(&k, &cpu, inode, index), "a second page at one index");
        }
        for &index in &indices {
            let page = k.find_get_page(&cpu, inode, index).unwrap();
            assert_eq!(page.index().peek(), index);
            k.put_page(&cpu, page);
        }
        k.fput(&cpu, inode.ptr());
        assert_eq!((k.inodes.live(), k.cache_nodes.live(), k.pages.live()), (0, 0, 1));
    }
}

#[test]
fn the_last_reference_frees_the_file_with_its_pages() {
    let (k, cpu) = system(1 << 30);
    let open = k.inode_new(&cpu, 4 << 12, FileKind::Shmem, true);
    let other = k.inode_new(&cpu, 4 << 12, FileKind::DevZero, true);
    k.put_page(&cpu, k.find_get_page(&cpu, open, 0).unwrap());
    k.get_file(&cpu, open.ptr());
    k.files_release(&cpu, &[open.ptr(), other.ptr()]);
    assert_eq!((k.inodes.live(), k.pages.live()), (1, 2), "a mapping keeps it");
    k.fput(&cpu, open.ptr());
    assert_eq!((k.inodes.live(), k.pages.live()), (0, 1));
    assert_eq!(k.check_at_rest(), []);
}

#[test]
fn without_memory_a_page_is_not_there() {
    let (k, cpu) = system(4 << 12);
    let inode = k.inode_new(&cpu, 16 << 12, FileKind::Regular, true);
    // Frame 0 is the zero page.
    let found = (0..16).filter(|&index| k.find_get_page(&cpu, inode, index).is_some()).count();
    assert_eq!(found, 3);
    assert_eq!(k.pages.live(), 4);
}

#[test]
fn threads_that_miss_at_once_get_one_page() {
    const THREADS: u32 = 4;
    let mut config = system(1 << 30).0.config;
    (config.nr_cpus, config.nr_tasks) = (THREADS, THREADS);
    let k: K = Kernel::new(config);
    let machine = Machine::new(THREADS);
    let cpu = machine.cpu(0, 0);
    let inode = k.inode_new(&cpu, 4096 << 12, FileKind::Regular, true).ptr();
    std::thread::scope(|scope| {
        for id in 0..THREADS {
            let (k, machine) = (&k, &machine);
            scope.spawn(move || {
                let cpu = machine.cpu(id, id);
                let inode = k.inodes.get(&cpu, inode);
                for index in 0..2048 {
                    let page = k.find_get_page(&cpu, inode, index).unwrap();
                    assert_eq!(page.index().peek(), index);
                    k.put_page(&cpu, page);
                }
            });
        }
    });
    assert_eq!(machine.finding(), None);
    assert_eq!(k.pages.live(), 2049);
    k.fput(&cpu, inode);
    assert_eq!((k.cache_nodes.live(), k.pages.live()), (0, 1));
}
