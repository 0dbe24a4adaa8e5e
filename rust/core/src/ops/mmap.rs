//! `mmap`. Source: `mm/mmap.c`, v5.1; P08, P10.

use super::munmap::Downgrade;
use crate::design::Design;
use crate::events::Cost;
use crate::mm::{
    Errno, FileKind, Inode, Kernel, MAX_FILE_BYTES, MergeRequest, MmRef, VM_LOCKED_BOTH,
    VM_SPECIAL, Vaddr, VmFlags, VmOps, VmaLinks, VmaRef,
};
use crate::platform::{Platform, Ptr};

/// Flags of `mmap`, with the values of the array form of programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MapFlags(pub u32);

impl MapFlags {
    pub const PRIVATE: Self = Self(1);
    pub const SHARED: Self = Self(2);
    pub const ANONYMOUS: Self = Self(4);
    pub const FIXED: Self = Self(8);
    pub const FIXED_NOREPLACE: Self = Self(16);
    pub const POPULATE: Self = Self(32);
    pub const LOCKED: Self = Self(64);
    pub const NORESERVE: Self = Self(128);
    /// Means nothing, as on Linux.
    pub const STACK: Self = Self(256);
    pub const GROWSDOWN: Self = Self(512);
    pub const HUGETLB: Self = Self(1024);

    /// Whether all of `flags` are set.
    #[inline(always)]
    pub fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Whether the mapping is shared. Both bits are `MAP_SHARED_VALIDATE`, which is for files and
    /// refuses flags younger than itself; of ours that is `MAP_FIXED_NOREPLACE`.
    fn is_shared(self, of_file: bool) -> Result<bool, Errno> {
        match (self.has(Self::SHARED), self.has(Self::PRIVATE)) {
            (true, true) if !of_file => Err(Errno::Einval),
            (true, true) if self.has(Self::FIXED_NOREPLACE) => Err(Errno::Eopnotsupp),
            (false, false) => Err(Errno::Einval),
            (shared, _) => Ok(shared),
        }
    }
}

/// Arguments of `mmap`.
pub struct MmapArgs<P: Platform> {
    /// The hint, or with a fixed flag the address; 0: none.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// `READ`, `WRITE`, `EXEC`.
    pub prot: VmFlags,
    pub flags: MapFlags,
    /// NULL: anonymous.
    pub file: Ptr<Inode<P>>,
    /// Bytes into the file.
    pub offset: u64,
}

/// A mapping whose place and flags are settled.
struct Region<P: Platform> {
    start: Vaddr,
    length: u64,
    flags: VmFlags,
    file: Ptr<Inode<P>>,
    pgoff: u64,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `mmap`: returns the address. Errors are Linux's, in Linux's order.
    pub fn sys_mmap(&self, cpu: &P, args: &MmapArgs<P>) -> Result<u64, Errno> {
        cpu.charge(Cost::SyscallEntryExit, 1);
        if self.offset_in_page(args.offset) != 0 {
            return Err(Errno::Einval);
        }
        let huge = self.hugetlb_args(cpu, args)?;
        let args = huge.as_ref().unwrap_or(args);
        let mm = self.current_mm(cpu);
        let sem = self.mmap_sem(mm);
        sem.down_write(cpu);
        let result = self.do_mmap(cpu, mm, args);
        sem.up_write(cpu);
        if let Ok(start) = result
            && (args.flags.has(MapFlags::POPULATE) || args.flags.has(MapFlags::LOCKED))
        {
            self.mm_populate(cpu, start, self.page_align(args.length));
        }
        if huge.is_some() {
            self.fput(cpu, args.file);
        }
        result
    }

    /// What `ksys_mmap_pgoff()` makes of a hugetlb mapping: whole pages, of a file with one
    /// reference more. `None`: it is none.
    fn hugetlb_args(&self, cpu: &P, args: &MmapArgs<P>) -> Result<Option<MmapArgs<P>>, Errno> {
        let asked = args.flags.has(MapFlags::HUGETLB);
        let length = self.huge_page_align(args.length);
        let file = match self.inodes.get_opt(cpu, args.file) {
            None if !asked => return Ok(None),
            None => self.inode_new(cpu, length, FileKind::Hugetlb, true).ptr(),
            Some(inode) if self.file_kind(inode) == FileKind::Hugetlb => {
                self.get_file(cpu, args.file);
                args.file
            }
            Some(_) if asked => return Err(Errno::Einval),
            Some(_) => return Ok(None),
        };
        Ok(Some(MmapArgs { length, file, ..*args }))
    }

    /// `is_file_hugepages()`
    fn is_file_hugepages(&self, cpu: &P, file: Ptr<Inode<P>>) -> bool {
        let inode = self.inodes.get_opt(cpu, file);
        inode.is_some_and(|inode| self.file_kind(inode) == FileKind::Hugetlb)
    }

    /// `do_mmap()`
    fn do_mmap(&self, cpu: &P, mm: MmRef<'_, P>, args: &MmapArgs<P>) -> Result<u64, Errno> {
        if args.length == 0 {
            return Err(Errno::Einval);
        }
        let fixed = args.flags.has(MapFlags::FIXED) || args.flags.has(MapFlags::FIXED_NOREPLACE);
        let hint = if fixed { args.address } else { self.round_hint_to_min(args.address) };
        let length = self.page_align(args.length);
        if length == 0 {
            return Err(Errno::Enomem);
        }
        let pgoff = args.offset >> self.page_shift();
        // With the offset in bytes a 64-bit word, `pgoff` plus pages cannot overflow.
        if mm.map_count().read(cpu) > self.max_map_count(cpu) {
            return Err(Errno::Enomem);
        }
        let start = if self.is_file_hugepages(cpu, args.file) {
            self.hugetlb_get_unmapped_area(cpu, mm, hint, length, fixed)?
        } else {
            self.get_unmapped_area(cpu, mm, hint, length, fixed)?
        };
        if args.flags.has(MapFlags::FIXED_NOREPLACE)
            && self.find_vma_intersection(cpu, mm, start, start.offset(length)).is_some()
        {
            return Err(Errno::Eexist);
        }
        let (flags, pgoff) = self.mapping_flags(cpu, args, start, length, pgoff)?;
        self.mmap_region(cpu, mm, Region { start, length, flags, file: args.file, pgoff })
    }

    /// The `vm_flags` and the page offset that the arguments ask for.
    fn mapping_flags(
        &self,
        cpu: &P,
        args: &MmapArgs<P>,
        start: Vaddr,
        length: u64,
        pgoff: u64,
    ) -> Result<(VmFlags, u64), Errno> {
        let mut flags = args.prot | VmFlags::MAYREAD | VmFlags::MAYWRITE | VmFlags::MAYEXEC;
        if !args.file.is_null() && !self.file_mmap_ok(cpu, args.file, pgoff, length) {
            return Err(Errno::Eoverflow);
        }
        let shared = args.flags.is_shared(!args.file.is_null())?;
        if shared {
            flags |= VmFlags::SHARED | VmFlags::MAYSHARE;
        }
        let grows = args.flags.has(MapFlags::GROWSDOWN);
        if grows && (shared || !args.file.is_null()) {
            return Err(Errno::Einval);
        }
        let pgoff = match (args.file.is_null(), shared) {
            (false, _) => pgoff,
            (true, true) => 0,
            // For anon_vma: the page offset of a page never changes while it lives.
            (true, false) => start.0 >> self.page_shift(),
        };
        if grows {
            flags |= VmFlags::GROWSDOWN;
        }
        if args.flags.has(MapFlags::LOCKED) {
            flags |= VmFlags::LOCKED;
        }
        if args.flags.has(MapFlags::NORESERVE) {
            flags |= VmFlags::NORESERVE;
        }
        Ok((flags, pgoff))
    }

    /// `file_mmap_ok()`: whether the mapping ends where a file of this kind can.
    fn file_mmap_ok(&self, cpu: &P, file: Ptr<Inode<P>>, pgoff: u64, length: u64) -> bool {
        let max_bytes = match self.file_kind(self.inodes.get(cpu, file)) {
            FileKind::DevZero => u64::MAX, // a device may have any
            FileKind::Regular | FileKind::Shmem | FileKind::ShmemZero | FileKind::Hugetlb => {
                MAX_FILE_BYTES
            }
        };
        max_bytes
            .checked_sub(length)
            .is_some_and(|max_offset| pgoff <= max_offset >> self.page_shift())
    }

    /// `round_hint_to_min()`
    fn round_hint_to_min(&self, hint: u64) -> u64 {
        let hint = hint - self.offset_in_page(hint);
        if hint != 0 && hint < self.config.system.mmap_min_addr {
            self.page_align(self.config.system.mmap_min_addr)
        } else {
            hint
        }
    }

    /// `mmap_region()`: clears the place, then grows a neighbour or makes a VMA.
    fn mmap_region(&self, cpu: &P, mm: MmRef<'_, P>, mut region: Region<P>) -> Result<u64, Errno> {
        let start = region.start;
        let links = self.munmap_links(cpu, mm, start, region.length)?;
        // accountable_mapping(): private and writable. Memory is never short of promises here
        // (overcommit), but the flag decides about merging.
        let promises = VmFlags::NORESERVE | VmFlags::SHARED | VmFlags::WRITE;
        if region.flags & promises == VmFlags::WRITE && !self.is_file_hugepages(cpu, region.file) {
            region.flags |= VmFlags::ACCOUNT;
        }
        let request = MergeRequest {
            start,
            end: start.offset(region.length),
            flags: region.flags,
            anon_vma: Ptr::NULL,
            file: region.file,
            pgoff: region.pgoff,
            policy: Ptr::NULL,
        };
        let vma = match self.vma_merge(cpu, mm, links.prev, &request) {
            Some(vma) => vma,
            None => {
                let vma = self.new_mapping(cpu, mm, &region)?;
                self.vma_link(cpu, mm, vma, links);
                vma
            }
        };
        let pages = (region.length >> self.page_shift()) as i64;
        self.vm_stat_account(cpu, mm, pages);
        D::vm_write_begin(cpu, vma);
        if region.flags.has(VmFlags::LOCKED) {
            let flags = vma.vm_flags().read(cpu);
            if flags.has(VM_SPECIAL | VmFlags::HUGETLB) {
                vma.vm_flags().write(cpu, flags & !VM_LOCKED_BOTH);
            } else {
                self.add_locked_vm(cpu, mm, pages);
            }
        }
        // New or grown, it counts as dirty for whoever tracks soft-dirty pages.
        vma.vm_flags().write(cpu, vma.vm_flags().read(cpu) | VmFlags::SOFTDIRTY);
        self.vma_set_page_prot(cpu, vma);
        D::vm_write_end(cpu, vma);
        Ok(start.0)
    }

    /// Where a VMA at the range goes, after everything there was unmapped.
    pub(super) fn munmap_links<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        start: Vaddr,
        length: u64,
    ) -> Result<VmaLinks<'k, P>, Errno> {
        loop {
            if let Some(links) = self.find_vma_links(cpu, mm, start, start.offset(length)) {
                return Ok(links);
            }
            self.do_munmap(cpu, mm, start.0, length, Downgrade::Never)
                .map_err(|_| Errno::Enomem)?;
        }
    }

    /// A VMA for the region, with its file's operations.
    fn new_mapping(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        region: &Region<P>,
    ) -> Result<VmaRef<'_, P>, Errno> {
        let vma = self.vm_area_alloc(cpu, mm);
        vma.vm_start().poke(region.start);
        vma.vm_end().poke(region.start.offset(region.length));
        vma.vm_flags().poke(region.flags);
        vma.vm_page_prot().poke(self.vm_get_page_prot(region.flags));
        vma.vm_pgoff().poke(region.pgoff);
        if !region.file.is_null() {
            self.get_file(cpu, region.file);
            vma.vm_file().poke(region.file);
            if let Err(errno) = self.call_mmap(cpu, vma, region.file) {
                self.fput(cpu, region.file);
                self.vm_area_free(cpu, vma);
                return Err(errno);
            }
        } else if region.flags.has(VmFlags::SHARED) {
            self.shmem_zero_setup(cpu, vma);
        }
        Ok(vma)
    }

    /// `call_mmap()`: what the file does to a new mapping of it.
    fn call_mmap(&self, cpu: &P, vma: VmaRef<'_, P>, file: Ptr<Inode<P>>) -> Result<(), Errno> {
        let inode = self.inodes.get(cpu, file);
        match self.file_kind(inode) {
            FileKind::Hugetlb => return self.hugetlbfs_file_mmap(cpu, vma, inode),
            FileKind::Regular => vma.vm_ops().poke(VmOps::File as u64),
            FileKind::Shmem | FileKind::ShmemZero => vma.vm_ops().poke(VmOps::Shmem as u64),
            // mmap_zero(): a shared mapping of /dev/zero is shmem, a private one anonymous
            // memory that keeps its file.
            FileKind::DevZero if vma.vm_flags().peek().has(VmFlags::SHARED) => {
                self.shmem_zero_setup(cpu, vma);
            }
            FileKind::DevZero => {}
        }
        Ok(())
    }

    /// `shmem_zero_setup()`: a file of its own for a shared mapping, instead of what it has.
    fn shmem_zero_setup(&self, cpu: &P, vma: VmaRef<'_, P>) {
        let length = vma.vm_end().peek().since(vma.vm_start().peek());
        let file = self.inode_new(cpu, length, FileKind::ShmemZero, false);
        let old = vma.vm_file().peek();
        if !old.is_null() {
            self.fput(cpu, old);
        }
        vma.vm_file().poke(file.ptr());
        vma.vm_ops().poke(VmOps::Shmem as u64);
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/mmap.rs"]
mod tests;
