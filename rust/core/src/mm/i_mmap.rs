//! `i_mmap`: which VMAs map a file.
//!
//! The kernel keeps them in a tree by their offsets. Here it is a list in the order in which that
//! tree is walked, by `vm_pgoff` and then by age: whoever moves or copies pages to a VMA that
//! comes later is sure that a walk meets them there, if not before. `i_mmap_rwsem` guards the list,
//! and bounds and offsets of the VMAs on it.
//!
//! Source: `mm/mmap.c`, `mm/interval_tree.c`, v5.1.

use std::ops::Range;

use super::kernel::Kernel;
use super::objects::{InodeRef, VmaRef};
use super::types::Vaddr;
use crate::design::Design;
use crate::platform::{Finding, Platform, Ptr};
use crate::sync::rwsem::RwSem;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// The file that `vma` maps: the same as long as it is linked.
    fn file_of(&self, cpu: &P, vma: VmaRef<'_, P>) -> Option<InodeRef<'_, P>> {
        self.inodes.get_opt(cpu, vma.vm_file().peek())
    }

    /// `i_mmap_lock_write()` of the file that `vma` maps; `None`: it maps none.
    pub(super) fn i_mmap_lock_write(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
    ) -> Option<RwSem<'_, P, Self>> {
        let sem = self.i_mmap_sem(self.file_of(cpu, vma)?);
        sem.down_write(cpu);
        Some(sem)
    }

    /// `__vma_link_file()`: behind those with the same offset. Caller holds `i_mmap_rwsem`.
    pub(super) fn vma_link_file(&self, cpu: &P, vma: VmaRef<'_, P>) {
        let Some(file) = self.file_of(cpu, vma) else { return };
        let pgoff = vma.vm_pgoff().read(cpu);
        let mut prev = self.vmas.get_opt(cpu, file.i_mmap_last().read(cpu));
        while let Some(other) = prev.filter(|other| other.vm_pgoff().read(cpu) > pgoff) {
            prev = self.vmas.get_opt(cpu, other.i_mmap_prev().read(cpu));
        }
        self.i_mmap_insert(cpu, file, vma, prev);
    }

    /// `vma_interval_tree_insert_after()`: right behind `prev`, which maps the same file. Takes
    /// `i_mmap_rwsem`.
    pub(crate) fn vma_link_file_after(&self, cpu: &P, vma: VmaRef<'_, P>, prev: VmaRef<'_, P>) {
        let Some(sem) = self.i_mmap_lock_write(cpu, prev) else { return };
        if let Some(file) = self.file_of(cpu, vma) {
            self.i_mmap_insert(cpu, file, vma, Some(prev));
        }
        sem.up_write(cpu);
    }

    fn i_mmap_insert(
        &self,
        cpu: &P,
        file: InodeRef<'_, P>,
        vma: VmaRef<'_, P>,
        prev: Option<VmaRef<'_, P>>,
    ) {
        let link = prev.map_or(file.i_mmap(), |prev| prev.i_mmap_next());
        let next = link.read(cpu);
        vma.i_mmap_prev().write(cpu, prev.map_or(Ptr::NULL, |prev| prev.ptr()));
        vma.i_mmap_next().write(cpu, next);
        link.write(cpu, vma.ptr());
        let back = self.vmas.get_opt(cpu, next).map(|next| next.i_mmap_prev());
        back.unwrap_or(file.i_mmap_last()).write(cpu, vma.ptr());
    }

    /// `__remove_shared_vm_struct()`. Caller holds `i_mmap_rwsem`.
    pub(super) fn remove_shared_vm_struct(&self, cpu: &P, vma: VmaRef<'_, P>) {
        let Some(file) = self.file_of(cpu, vma) else { return };
        let (prev, next) = (vma.i_mmap_prev().read(cpu), vma.i_mmap_next().read(cpu));
        let link = self.vmas.get_opt(cpu, prev).map(|prev| prev.i_mmap_next());
        link.unwrap_or(file.i_mmap()).write(cpu, next);
        let back = self.vmas.get_opt(cpu, next).map(|next| next.i_mmap_prev());
        back.unwrap_or(file.i_mmap_last()).write(cpu, prev);
    }

    /// `vma_interval_tree_foreach()`: the VMAs that map some of the pages `first..=last` of a file,
    /// and where. Caller holds `i_mmap_rwsem`.
    pub(crate) fn vma_interval_tree_foreach<'k>(
        &'k self,
        cpu: &'k P,
        file: InodeRef<'k, P>,
        first: u64,
        last: u64,
    ) -> impl Iterator<Item = (VmaRef<'k, P>, Range<Vaddr>)> {
        let mut cursor = file.i_mmap().read(cpu);
        std::iter::from_fn(move || {
            loop {
                let vma = self.vmas.get_opt(cpu, cursor)?;
                cursor = vma.i_mmap_next().read(cpu);
                let start = vma.vm_pgoff().read(cpu);
                let end = start + self.vma_pages(cpu, vma);
                let (from, to) = (first.max(start), last.saturating_add(1).min(end));
                if from < to {
                    let vm_start = vma.vm_start().read(cpu);
                    let at = |page: u64| vm_start.offset((page - start) << self.page_shift());
                    return Some((vma, at(from)..at(to)));
                }
            }
        })
    }

    /// `unlink_file_vma()`: nobody finds the VMA by its file any more, before its tables go.
    pub(super) fn unlink_file_vma(&self, cpu: &P, vma: VmaRef<'_, P>) {
        let Some(sem) = self.i_mmap_lock_write(cpu, vma) else { return };
        self.remove_shared_vm_struct(cpu, vma);
        sem.up_write(cpu);
    }

    /// What is wrong with the lists, and their locks, of a system at rest.
    pub(super) fn check_files(&self) -> impl Iterator<Item = Finding> {
        let check = move |file: InodeRef<'_, P>| {
            let expect = self.vmas.peek_all().filter(|vma| vma.vm_file().peek() == file.ptr());
            let (found, expect) = (self.check_i_mmap(file)?, expect.count());
            if found != expect {
                return Err(format!("{found} VMAs on the list of a file that {expect} map"));
            }
            if file.i_mmap_sem_count().peek() != 0 || file.sem_count().peek() != 0 {
                return Err("a lock of a file is held".to_owned());
            }
            Ok(())
        };
        let wrong = self.inodes.peek_all().filter_map(move |file| check(file).err());
        wrong.map(|what| Finding { invariant: "i-mmap", what })
    }

    /// Files that more refer to than map them and the program, which has them open.
    pub(crate) fn check_files_closed(&self) -> impl Iterator<Item = Finding> {
        self.inodes.peek_all().filter_map(|file| {
            let (count, mapped) = (file.count().peek(), self.check_i_mmap(file).ok()?);
            (count > mapped as u64 + 1).then(|| Finding {
                invariant: "file-open",
                what: format!("{count} references to a file that {mapped} VMAs map"),
            })
        })
    }

    /// How many VMAs are on the list of a file, in order.
    fn check_i_mmap(&self, file: InodeRef<'_, P>) -> Result<usize, String> {
        let (mut prev, mut at) = (Ptr::NULL, file.i_mmap().peek());
        let (mut count, mut pgoff) = (0, 0);
        while !at.is_null() {
            let vma = self.vmas.peek(at.index()).filter(|vma| vma.ptr() == at);
            let Some(vma) = vma else { return Err(format!("{at:?} is freed")) };
            if vma.vm_file().peek() != file.ptr() || vma.i_mmap_prev().peek() != prev {
                return Err(format!("{at:?} does not belong on the list of its file"));
            }
            if vma.vm_pgoff().peek() < pgoff {
                return Err(format!("{at:?} is not where its offset says"));
            }
            pgoff = vma.vm_pgoff().peek();
            (prev, at, count) = (at, vma.i_mmap_next().peek(), count + 1);
        }
        if file.i_mmap_last().peek() != prev {
            return Err("the list of a file ends elsewhere".to_owned());
        }
        Ok(count)
    }
}
