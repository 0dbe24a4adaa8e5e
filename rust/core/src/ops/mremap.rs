//! `mremap`. Source: `mm/mremap.c`, v5.1; P11.

use super::munmap::{Downgrade, Held};
use crate::design::Design;
use crate::events::Cost;
use crate::mm::{
    Bounds, Errno, Kernel, MergeRequest, MmRef, Moving, NewHalf, VM_SPECIAL, Vaddr, Variant,
    VmFlags, VmaRef,
};
use crate::platform::{Mutant, Platform};

/// Flags of `mremap`, with the values of the array form of programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RemapFlags(pub u32);

impl RemapFlags {
    pub const MAYMOVE: Self = Self(1);
    pub const FIXED: Self = Self(2);
    /// Since 5.7; 5.1 does not know it.
    pub const DONTUNMAP: Self = Self(4);

    pub(crate) fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }
}

/// Arguments of `mremap`.
#[derive(Clone, Copy, Debug)]
pub struct MremapArgs {
    pub address: u64,
    /// Bytes.
    pub old_length: u64,
    pub new_length: u64,
    pub flags: RemapFlags,
    /// With `FIXED`: where to.
    pub new_address: u64,
}

/// A range on its way: `length` bytes from `from` go to `to`, where `new_length` bytes will be.
#[derive(Clone, Copy)]
struct Move {
    from: Vaddr,
    length: u64,
    to: Vaddr,
    new_length: u64,
}

/// What became of the call.
#[derive(Clone, Copy)]
struct Remapped {
    address: u64,
    held: Held,
    /// In memory: what it has grown by is brought in.
    locked: bool,
}

/// What a move leaves to be unmapped: `length` bytes of `vma`.
struct Rest<'k, P: Platform> {
    vma: VmaRef<'k, P>,
    from: Vaddr,
    length: u64,
    /// The same VMA, if its section is to end once it is unlinked.
    odd: Option<VmaRef<'k, P>>,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `mremap`: returns the address. An equal length without `FIXED` succeeds whatever is, or is
    /// not, at the address.
    pub fn sys_mremap(&self, cpu: &P, args: MremapArgs) -> Result<u64, Errno> {
        cpu.charge(Cost::SyscallEntryExit, 1);
        let known = RemapFlags::MAYMOVE.0 | RemapFlags::FIXED.0;
        if args.flags.0 & !known != 0
            || args.flags == RemapFlags::FIXED
            || self.offset_in_page(args.address) != 0
        {
            return Err(Errno::Einval);
        }
        let old_length = self.page_align(args.old_length);
        let new_length = self.page_align(args.new_length);
        // A zero old length asks for a second mapping; a zero new one is nonsense.
        if new_length == 0 {
            return Err(Errno::Einval);
        }
        let args = MremapArgs { old_length, new_length, ..args };
        let mm = self.current_mm(cpu);
        self.mmap_sem(mm).down_write(cpu);
        let result = self.do_mremap(cpu, mm, args);
        self.release_mmap_sem(cpu, mm, result.map_or(Held::Write, |done| done.held));
        let done = result?;
        if done.locked && new_length > old_length {
            self.mm_populate(cpu, done.address + old_length, new_length - old_length);
        }
        Ok(done.address)
    }

    /// The system call below `mmap_sem`.
    fn do_mremap(&self, cpu: &P, mm: MmRef<'_, P>, args: MremapArgs) -> Result<Remapped, Errno> {
        let MremapArgs { address, old_length, new_length, flags, .. } = args;
        if flags.has(RemapFlags::FIXED) {
            return self.mremap_to(cpu, mm, args);
        }
        let done = |address: u64, held, locked| Remapped { address, held, locked };
        if old_length >= new_length {
            // munmap of nothing is an error, which nobody looks at.
            let rest = address.wrapping_add(new_length);
            let length = old_length - new_length;
            return match self.do_munmap(cpu, mm, rest, length, Downgrade::Allowed) {
                Err(errno) if length != 0 => Err(errno),
                held => Ok(done(address, held.unwrap_or(Held::Write), false)),
            };
        }
        let from = Vaddr(address);
        let vma = self.vma_to_resize(cpu, mm, from, old_length, new_length)?;
        let to_end = vma.vm_end().read(cpu).since(from);
        if old_length == to_end && self.vma_expandable(cpu, mm, vma, new_length - old_length) {
            let growth = new_length - old_length;
            let locked = self.expand_in_place(cpu, mm, vma, from.offset(new_length), growth)?;
            return Ok(done(address, Held::Write, locked));
        }
        if !flags.has(RemapFlags::MAYMOVE) {
            return Err(Errno::Enomem);
        }
        let to = self.get_unmapped_area(cpu, mm, 0, new_length, false)?;
        let range = Move { from, length: old_length, to, new_length };
        let locked = self.move_vma(cpu, mm, vma, range)?;
        Ok(done(to.0, Held::Write, locked))
    }

    /// `mremap_to()`: to a place that the caller chose. What is there goes first.
    fn mremap_to(&self, cpu: &P, mm: MmRef<'_, P>, args: MremapArgs) -> Result<Remapped, Errno> {
        let MremapArgs { address, mut old_length, new_length, new_address, .. } = args;
        let task_size = self.config.arch.task_size;
        if self.offset_in_page(new_address) != 0
            || new_length > task_size
            || new_address > task_size - new_length
        {
            return Err(Errno::Einval);
        }
        let (end, new_end) = (address.wrapping_add(old_length), new_address + new_length);
        if end > new_address && new_end > address {
            return Err(Errno::Einval);
        }
        // Unmapping may cut VMAs in three at both places, and move_vma wants room for three more:
        // better refuse now than with both places unmapped.
        if mm.map_count().read(cpu) + 5 >= self.max_map_count(cpu) {
            return Err(Errno::Enomem);
        }
        self.do_munmap(cpu, mm, new_address, new_length, Downgrade::Never)?;
        if old_length > new_length {
            let rest = address.wrapping_add(new_length);
            self.do_munmap(cpu, mm, rest, old_length - new_length, Downgrade::Never)?;
            old_length = new_length;
        }
        let from = Vaddr(address);
        let vma = self.vma_to_resize(cpu, mm, from, old_length, new_length)?;
        let to = self.get_unmapped_area(cpu, mm, new_address, new_length, true)?;
        let range = Move { from, length: old_length, to, new_length };
        let locked = self.move_vma(cpu, mm, vma, range)?;
        Ok(Remapped { address: to.0, held: Held::Write, locked })
    }

    /// `vma_to_resize()`: the VMA that holds the whole old range, if it may get the new length.
    fn vma_to_resize<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        address: Vaddr,
        old_length: u64,
        new_length: u64,
    ) -> Result<VmaRef<'k, P>, Errno> {
        let vma = self.find_vma(cpu, mm, address).ok_or(Errno::Efault)?;
        if vma.vm_start().read(cpu) > address {
            return Err(Errno::Efault);
        }
        let flags = vma.vm_flags().read(cpu);
        // A second mapping of private memory would be a new one, and have nothing of the first.
        if old_length == 0 && !flags.has(VmFlags::SHARED | VmFlags::MAYSHARE) {
            return Err(Errno::Einval);
        }
        if flags.has(VmFlags::HUGETLB) {
            return Err(Errno::Einval);
        }
        if old_length > vma.vm_end().read(cpu).since(address) {
            return Err(Errno::Efault);
        }
        if new_length != old_length && flags.has(VM_SPECIAL) {
            return Err(Errno::Efault);
        }
        Ok(vma)
    }

    /// `vma_expandable()`: whether `vma` may end so many bytes later.
    fn vma_expandable(&self, cpu: &P, mm: MmRef<'_, P>, vma: VmaRef<'_, P>, delta: u64) -> bool {
        let (start, end) = (vma.vm_start().read(cpu), vma.vm_end().read(cpu));
        let Some(new_end) = end.0.checked_add(delta) else { return false };
        let free = self.vm_next(cpu, vma).is_none_or(|next| next.vm_start().read(cpu).0 >= new_end);
        let length = new_end - start.0;
        free && self.get_unmapped_area(cpu, mm, start.0, length, true).is_ok()
    }

    /// Lets `vma` end later. It does not merge with a neighbour that it then meets. Returns whether
    /// it is locked in memory.
    fn expand_in_place(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        end: Vaddr,
        delta: u64,
    ) -> Result<bool, Errno> {
        let start = vma.vm_start().read(cpu);
        let pgoff = vma.vm_pgoff().read(cpu);
        let bounds = Bounds { start, end, pgoff, insert: None, expand: None };
        self.vma_adjust(cpu, vma, bounds)?;
        let pages = (delta >> self.page_shift()) as i64;
        self.vm_stat_account(cpu, mm, pages);
        let locked = vma.vm_flags().read(cpu).has(VmFlags::LOCKED);
        if locked {
            self.add_locked_vm(cpu, mm, pages);
        }
        Ok(locked)
    }

    /// `move_vma()`: moves a part of `vma` to a place that is free, and unmaps what it leaves.
    /// Returns whether it is locked in memory.
    fn move_vma(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        range: Move,
    ) -> Result<bool, Errno> {
        let _step = cpu.step("move_vma");
        self.prepare_move(cpu, mm, vma, range)?;
        let vm_flags = vma.vm_flags().read(cpu);
        let pgoff = self.pgoff_of(cpu, vma, range.from);
        let cut_out = self.cut_out(cpu, vma, range);
        let copied = self.copy_vma(cpu, mm, vma, range.to, range.new_length, pgoff);
        let copied = copied.inspect_err(|_| self.rejoin(cpu, mm, vma, cut_out))?;
        let (vma, new_vma) = (copied.source, copied.new_vma);
        // copy_vma returned it odd: nobody is to fault at the new place before the pages are there
        // (A3), and nobody at the old one while they are moved (A4). Source: P11.
        let source_odd = vma != new_vma && !cpu.mutant(Mutant::A4);
        if source_odd {
            D::vm_write_begin(cpu, vma);
        }
        let moving = Moving { mm, vma, rmap_locks: copied.need_rmap_locks };
        let moved = self.move_page_tables(cpu, &moving, range.from, range.to, range.length);
        let failed = moved < range.length;
        if failed {
            let back = Moving { mm, vma: new_vma, rmap_locks: true };
            if self.move_page_tables(cpu, &back, range.to, range.from, moved) != moved {
                // It needs no memory: the old place's tables are still there.
                cpu.finding("lost-pages", format!("mremap did not move {:#x} back", range.from));
            }
        } else {
            self.mremap_userfaultfd_prep(cpu, new_vma);
        }
        let stays_odd = (source_odd && cut_out && !failed).then_some(vma);
        if source_odd && stays_odd.is_none() {
            D::vm_write_end(cpu, vma);
        }
        D::vm_write_end(cpu, new_vma);
        let pages = (range.new_length >> self.page_shift()) as i64;
        self.vm_stat_account(cpu, mm, pages);
        let locked = vm_flags.has(VmFlags::LOCKED);
        if locked {
            // 5.1 counts it once the rest is unmapped, and so counted off.
            self.add_locked_vm(cpu, mm, pages);
        }
        let charged = vm_flags.has(VmFlags::ACCOUNT);
        if !failed {
            let rest = Rest { vma, from: range.from, length: range.length, odd: stays_odd };
            self.unmap_uncharged(cpu, mm, rest, charged);
            return Ok(locked);
        }
        self.rejoin(cpu, mm, vma, cut_out);
        let rest = Rest { vma: new_vma, from: range.to, length: range.new_length, odd: None };
        self.unmap_uncharged(cpu, mm, rest, charged);
        Err(Errno::Enomem)
    }

    /// What has to hold before anything moves.
    fn prepare_move(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        range: Move,
    ) -> Result<(), Errno> {
        // do_munmap may cut one VMA in three before it unmaps.
        if mm.map_count().read(cpu) + 3 >= self.max_map_count(cpu) {
            return Err(Errno::Enomem);
        }
        // Merged pages would turn up where others may have been merged.
        self.unmerge_ksm_pages(cpu, mm, vma, range.from, range.from.offset(range.length))
    }

    /// The cure of N1: makes what moves, which is in `vma`, all of it, while no section is open
    /// that a split would disturb. (5.1 cuts off the rest when it unmaps the old place.) False:
    /// it has not, or for want of memory not wholly.
    fn cut_out(&self, cpu: &P, vma: VmaRef<'_, P>, range: Move) -> bool {
        // Without an anon_vma no fault is speculative, and the VMA may merge with itself.
        if self.v12(Variant::N1) || range.length == 0 || vma.anon_vma().read(cpu).is_null() {
            return false;
        }
        let end = range.from.offset(range.length);
        (range.from == vma.vm_start().read(cpu)
            || self.split_vma_unlimited(cpu, vma, range.from, NewHalf::Below).is_ok())
            && (end == vma.vm_end().read(cpu)
                || self.split_vma_unlimited(cpu, vma, end, NewHalf::Above).is_ok())
    }

    /// Undoes [`Kernel::cut_out`].
    fn rejoin(&self, cpu: &P, mm: MmRef<'_, P>, vma: VmaRef<'_, P>, cut_out: bool) {
        if !cut_out {
            return;
        }
        let request = MergeRequest {
            start: vma.vm_start().read(cpu),
            end: vma.vm_end().read(cpu),
            flags: vma.vm_flags().read(cpu),
            anon_vma: vma.anon_vma().read(cpu),
            file: vma.vm_file().read(cpu),
            pgoff: vma.vm_pgoff().read(cpu),
            policy: vma.vm_policy().read(cpu),
        };
        self.vma_merge(cpu, mm, self.vm_prev(cpu, vma), &request);
    }

    /// The end of `move_vma()`: unmaps `rest`, without the accounting of what is promised. What is
    /// left of the VMA gets `VM_ACCOUNT` back, unless unmapping failed.
    fn unmap_uncharged(&self, cpu: &P, mm: MmRef<'_, P>, rest: Rest<'_, P>, charged: bool) {
        let Rest { vma, from, length, odd } = rest;
        let left_below = from > vma.vm_start().read(cpu);
        let left_above = from.offset(length) < vma.vm_end().read(cpu);
        let flags = |vma: VmaRef<'_, P>| vma.vm_flags().read(cpu);
        if charged {
            vma.vm_flags().write(cpu, flags(vma) & !VmFlags::ACCOUNT);
        }
        // Fails for a length of 0, too: a second mapping leaves the first one.
        let unmapped = self.do_munmap_odd(cpu, mm, from.0, length, Downgrade::Never, odd);
        if unmapped.is_err() || !charged {
            return;
        }
        if left_below || left_above {
            vma.vm_flags().write(cpu, flags(vma) | VmFlags::ACCOUNT);
        }
        if left_below
            && left_above
            && let Some(above) = self.vm_next(cpu, vma)
        {
            above.vm_flags().write(cpu, flags(above) | VmFlags::ACCOUNT);
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/mremap.rs"]
mod tests;
