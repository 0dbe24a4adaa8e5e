//! Files and their page caches.
//!
//! A page cache is a radix tree: nodes of [`NODE_ENTRIES`], as many levels as the file's length needs,
//! made on demand. Look-ups take no lock: nodes leave only with the whole file, to which whoever
//! looks holds a reference; a page may leave meanwhile, so its reference is taken only if there
//! is one left. Who changes the tree holds `i_pages_lock`.
//!
//! A file is there as long as it is open (the files of a program stay open until the system
//! ends) or mapped. What is in its cache at the beginning depends on the kind:
//!
//! | file | pages at the beginning | the first access to a page that is not there |
//! |---|---|---|
//! | cached | all, as zeroes; the frame is taken at the first use | - |
//! | not cached | none | a read: a major fault |
//! | shared anonymous memory | none | a zeroed page: a minor fault |
//!
//! What truncation has cut off, and what a file grows by, is a hole: its pages are read from a
//! file on disk, and made for one in memory.
//!
//! Source: `mm/filemap.c`, `mm/shmem.c`, `lib/radix-tree.c`, v5.1.

use std::ops::Range;

use super::kernel::Kernel;
use super::objects::{Inode, InodeRef, PageRef, Table, TableRef};
use super::page::{PG_CACHE, PG_LOCKED, PG_UPTODATE};
use super::types::Pte;
use crate::design::Design;
use crate::platform::{Field, Ordering, Platform, Ptr, Value};
use crate::sync::refcount::{atomic_dec_and_test, atomic_inc};
use crate::sync::spinlock::{spin_lock, spin_unlock};

/// log2 of the entries of a node.
const NODE_SHIFT: u32 = 9;
pub(super) const NODE_ENTRIES: u32 = 1 << NODE_SHIFT;

/// `MAX_LFS_FILESIZE`: where a file on disk or in memory must end.
pub(crate) const MAX_FILE_BYTES: u64 = i64::MAX as u64;

/// What kind of file an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum FileKind {
    /// A file on disk.
    Regular = 0,
    /// A file in memory: memfd, tmpfs.
    Shmem = 1,
    /// /dev/zero. It has no pages of its own.
    DevZero = 2,
    /// The file behind one piece of shared anonymous memory.
    ShmemZero = 3,
    /// A file of hugetlbfs, or behind one anonymous hugetlb mapping.
    Hugetlb = 4,
}

impl FileKind {
    fn of(word: u64) -> Self {
        match word {
            0 => Self::Regular,
            1 => Self::Shmem,
            2 => Self::DevZero,
            3 => Self::ShmemZero,
            _ => Self::Hugetlb,
        }
    }
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// A file of `length` bytes with one reference, the opener's. `cached`: all of it is in the
    /// page cache.
    pub fn inode_new(
        &self,
        _cpu: &P,
        length: u64,
        kind: FileKind,
        cached: bool,
    ) -> InodeRef<'_, P> {
        let inode = self.inodes.alloc();
        inode.i_size().poke(length);
        inode.count().poke(1);
        inode.kind().poke(kind as u64);
        inode.uncached().poke(!cached);
        inode.nr_original().poke(length.div_ceil(self.page_size()));
        if kind == FileKind::Hugetlb {
            inode.resv_map().poke(self.resv_map_alloc().ptr());
            // Indexed by huge pages; a mapping may make it longer.
            self.inode_prepare_for(inode, MAX_FILE_BYTES >> self.hpage_pmd_order());
        } else {
            self.inode_prepare_for(inode, length);
        }
        inode
    }

    /// Before the first use of a file: it will be of up to `length` bytes. DEVIATION: the kernel
    /// raises the tree when it has to.
    pub fn inode_prepare_for(&self, inode: InodeRef<'_, P>, length: u64) {
        let pages = length.div_ceil(self.page_size()).max(1);
        let bits = u64::BITS - (pages - 1).leading_zeros();
        let levels = u64::from(bits.div_ceil(NODE_SHIFT).max(1));
        inode.i_pages_levels().poke(levels.max(inode.i_pages_levels().peek()));
    }

    /// What kind of file `inode` is.
    pub fn file_kind(&self, inode: InodeRef<'_, P>) -> FileKind {
        FileKind::of(inode.kind().peek())
    }

    /// Pages of the file, the last one perhaps partly used.
    pub(crate) fn file_pages(&self, cpu: &P, inode: InodeRef<'_, P>) -> u64 {
        inode.i_size().read(cpu).div_ceil(self.page_size())
    }

    /// Which pages have to be read if they are not in the page cache. No others are there: those
    /// of a file on disk are, holes included; of one in memory only what was not cached.
    pub(crate) fn pages_to_read(&self, cpu: &P, inode: InodeRef<'_, P>) -> Range<u64> {
        let original = || inode.nr_original().read(cpu);
        match (self.file_kind(inode), inode.uncached().peek()) {
            (FileKind::Regular, true) => 0..u64::MAX,
            (FileKind::Regular, false) => original()..u64::MAX,
            (FileKind::Shmem, true) => 0..original(),
            _ => 0..0,
        }
    }

    /// `get_file()`: one more mapping. Caller has a reference.
    pub(crate) fn get_file(&self, cpu: &P, file: Ptr<Inode<P>>) {
        atomic_inc(cpu, self.inodes.get(cpu, file).count());
    }

    /// `fput()`: drops a reference; the last one frees the file with its page cache.
    pub(crate) fn fput(&self, cpu: &P, file: Ptr<Inode<P>>) {
        let inode = self.inodes.get(cpu, file);
        if !atomic_dec_and_test(cpu, inode.count()) {
            return;
        }
        let root = self.cache_nodes.get_opt(cpu, inode.i_pages().peek());
        let levels = inode.i_pages_levels().peek();
        let freed = root.map_or(0, |root| self.evict_node(cpu, root, levels));
        self.hugetlb_unreserve_pages(cpu, inode, freed);
        self.inodes.free(cpu, inode);
    }

    /// Closes the program's files, when the system ends and nothing is mapped any more.
    pub fn files_release(&self, cpu: &P, files: &[Ptr<Inode<P>>]) {
        for &file in files {
            self.fput(cpu, file);
        }
    }

    /// Frees a node and what is below it: how many pages. Nobody else has a reference to the file.
    fn evict_node(&self, cpu: &P, node: TableRef<'_, P>, levels: u64) -> u64 {
        let mut freed = 0;
        for index in 0..node.len() {
            let word = node.pte(index).peek().to_word();
            if word == 0 {
                continue;
            }
            if levels > 1 {
                let below = self.cache_nodes.get(cpu, Ptr::from_word(word));
                freed += self.evict_node(cpu, below, levels - 1);
            } else {
                freed += 1;
                let page = self.page(cpu, pfn_of(word));
                page.mapping().write(cpu, 0);
                page.flags().fetch_add(cpu, -(PG_CACHE as i64), Ordering::Relaxed);
                self.put_page(cpu, page);
            }
        }
        self.cache_nodes.free(cpu, node);
        freed
    }

    /// `find_get_page()`: the page at `index` with a reference for the caller; `None` when it is
    /// not in the page cache (or, for a cached file's first use, when memory is out). `index` is
    /// within the file, and the caller has a reference to that.
    pub(crate) fn find_get_page(
        &self,
        cpu: &P,
        inode: InodeRef<'_, P>,
        index: u64,
    ) -> Option<PageRef<'_, P>> {
        loop {
            let Some(slot) = self.lookup(cpu, inode, index) else {
                return self.first_use(cpu, inode, index);
            };
            // Consume: the page was initialised before it was linked; pairs with the Release in
            // add_to_page_cache.
            let word = slot.load(cpu, Ordering::Consume).to_word();
            if word == 0 {
                return self.first_use(cpu, inode, index);
            }
            // page_cache_get_speculative(): it may leave, and the frame be somebody else's.
            let Some(page) = self.get_frame_unless_free(cpu, pfn_of(word)) else { continue };
            if slot.read(cpu).to_word() == word {
                return Some(page);
            }
            self.put_page(cpu, page);
        }
    }

    /// A page of a cached file that nobody has used yet, with a reference: it was there all the
    /// time, so nothing is charged.
    #[cold]
    fn first_use(&self, cpu: &P, inode: InodeRef<'_, P>, index: u64) -> Option<PageRef<'_, P>> {
        let all_cached = !inode.uncached().peek()
            && matches!(self.file_kind(inode), FileKind::Regular | FileKind::Shmem);
        if !all_cached || index >= inode.nr_original().read(cpu) {
            return None;
        }
        let page = self.page_cache_alloc(cpu, 0)?;
        if self.add_to_page_cache_lru(cpu, inode, index, page) {
            return Some(page);
        }
        // Another CPU was first.
        self.put_page(cpu, page);
        self.find_get_page(cpu, inode, index)
    }

    /// A page for the page cache, read and zero, with one reference and more `flags`. `None`:
    /// out of memory.
    pub(crate) fn page_cache_alloc(&self, cpu: &P, flags: u64) -> Option<PageRef<'_, P>> {
        let page = self.alloc_page(cpu)?;
        page.content().poke(0);
        page.flags().poke(PG_UPTODATE | PG_CACHE | flags);
        Some(page)
    }

    /// A page as [`Kernel::page_cache_alloc`], locked by the caller.
    pub(crate) fn page_cache_alloc_locked(&self, cpu: &P) -> Option<PageRef<'_, P>> {
        self.page_cache_alloc(cpu, PG_LOCKED)
    }

    /// `add_to_page_cache()`: puts a page that nobody knows yet at `index`, with a reference for
    /// the page cache. False, with nothing changed: there is one already (EEXIST).
    pub(crate) fn add_to_page_cache(
        &self,
        cpu: &P,
        inode: InodeRef<'_, P>,
        index: u64,
        page: PageRef<'_, P>,
    ) -> bool {
        page.mapping().poke(inode.ptr().to_word());
        page.index().poke(index);
        spin_lock(cpu, inode.i_pages_lock());
        let slot = self.slot_create(cpu, inode, index);
        let free = slot.read(cpu).is_none();
        if free {
            self.get_page(cpu, page);
            // Release: the page is initialised; pairs with the Consume in find_get_page.
            slot.store(cpu, Pte(word_of(page.slot_index())), Ordering::Release);
        }
        spin_unlock(cpu, inode.i_pages_lock());
        free
    }

    /// `add_to_page_cache_lru()`
    pub(crate) fn add_to_page_cache_lru(
        &self,
        cpu: &P,
        inode: InodeRef<'_, P>,
        index: u64,
        page: PageRef<'_, P>,
    ) -> bool {
        let added = self.add_to_page_cache(cpu, inode, index, page);
        if added {
            self.lru_cache_add(cpu, page);
        }
        added
    }

    /// `delete_from_page_cache()`: the page that the caller has locked, and has a reference to,
    /// belongs to the file no more.
    pub(crate) fn delete_from_page_cache(
        &self,
        cpu: &P,
        inode: InodeRef<'_, P>,
        page: PageRef<'_, P>,
    ) {
        spin_lock(cpu, inode.i_pages_lock());
        self.slot_create(cpu, inode, page.index().read(cpu)).write(cpu, Pte::EMPTY);
        page.mapping().write(cpu, 0);
        self.page_clear(cpu, page, PG_CACHE);
        spin_unlock(cpu, inode.i_pages_lock());
        self.put_page(cpu, page);
    }

    /// Whether the page, which the caller has locked, is still this file's: truncation takes
    /// pages out under their locks.
    pub(crate) fn is_page_of(&self, cpu: &P, page: PageRef<'_, P>, inode: InodeRef<'_, P>) -> bool {
        // An anon_vma may have the same number.
        page.mapping().read(cpu) == inode.ptr().to_word() && self.page_test(cpu, page, PG_CACHE)
    }

    /// The frames of the pages in the page cache from page `first` on.
    pub(super) fn cached_from(&self, cpu: &P, inode: InodeRef<'_, P>, first: u64) -> Vec<u32> {
        let mut found = Vec::new();
        // DEVIATION: the kernel looks without a lock.
        spin_lock(cpu, inode.i_pages_lock());
        if let Some(root) = self.cache_nodes.get_opt(cpu, inode.i_pages().read(cpu)) {
            self.cached_below(
                cpu,
                root,
                inode.i_pages_levels().peek() as u32,
                0,
                first,
                &mut found,
            );
        }
        spin_unlock(cpu, inode.i_pages_lock());
        found
    }

    /// As above, of a node that is `levels` above nothing and begins with page `base`.
    fn cached_below(
        &self,
        cpu: &P,
        node: TableRef<'_, P>,
        levels: u32,
        base: u64,
        first: u64,
        found: &mut Vec<u32>,
    ) {
        let shift = (levels - 1) * NODE_SHIFT;
        for entry in node.peek_used() {
            let index = base + (u64::from(entry) << shift);
            if index + (1 << shift) <= first {
                continue;
            }
            let word = node.pte(entry).peek().to_word();
            if levels == 1 {
                found.push(pfn_of(word));
            } else {
                let below = self.cache_nodes.get(cpu, Ptr::from_word(word));
                self.cached_below(cpu, below, levels - 1, index, first, found);
            }
        }
    }

    /// The entry for `index` if there is one, without a lock.
    fn lookup<'k>(
        &'k self,
        cpu: &P,
        inode: InodeRef<'k, P>,
        index: u64,
    ) -> Option<Field<'k, P, Pte>> {
        // Consume, here and below: nodes were initialised before they were linked; pairs with the
        // Release in node_create.
        let mut node = inode.i_pages().load(cpu, Ordering::Consume);
        for level in (1..inode.i_pages_levels().peek() as u32).rev() {
            let table = self.cache_nodes.get_opt(cpu, node)?;
            node = table.entry(node_index(index, level)).load(cpu, Ordering::Consume);
        }
        Some(self.cache_nodes.get_opt(cpu, node)?.pte(node_index(index, 0)))
    }

    /// The entry for `index`, with the nodes above it. Caller holds `i_pages_lock`.
    fn slot_create<'k>(&'k self, cpu: &P, inode: InodeRef<'k, P>, index: u64) -> Field<'k, P, Pte> {
        let mut node = self.node_create(cpu, inode.i_pages());
        for level in (1..inode.i_pages_levels().peek() as u32).rev() {
            node = self.node_create(cpu, node.entry(node_index(index, level)));
        }
        node.pte(node_index(index, 0))
    }

    /// The node that `link` points to, made if there is none.
    fn node_create(&self, cpu: &P, link: Field<'_, P, Ptr<Table<P>>>) -> TableRef<'_, P> {
        if let Some(node) = self.cache_nodes.get_opt(cpu, link.read(cpu)) {
            return node;
        }
        let node = self.cache_nodes.alloc();
        // Release: its entries are zero; pairs with the Consume in lookup.
        link.store(cpu, node.ptr(), Ordering::Release);
        node
    }
}

/// Index in a node `level` levels above the pages.
fn node_index(index: u64, level: u32) -> u32 {
    (index >> (level * NODE_SHIFT)) as u32 & (NODE_ENTRIES - 1)
}

/// How a leaf names a frame: 0 is no page.
fn word_of(pfn: u32) -> u64 {
    u64::from(pfn) + 1
}
fn pfn_of(word: u64) -> u32 {
    (word - 1) as u32
}

#[cfg(test)]
#[path = "../../tests/unit/mm/file.rs"]
mod tests;
