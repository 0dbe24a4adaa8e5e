//! `/proc/PID/maps`: one line for each VMA.

use super::kernel::Kernel;
use super::objects::{MmRef, VmaRef};
use super::types::VmFlags;
use crate::design::Design;
use crate::platform::Platform;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// The VMAs of `mm` in order, as `start-end perms offset`: hexadecimal, at least 8 digits;
    /// the offset in bytes into the file, 0 without one. For a system at rest.
    ///
    /// Source: `show_map_vma()` in `fs/proc/task_mmu.c`, v5.1, without device and name.
    pub fn maps(&self, mm: MmRef<'_, P>) -> Vec<String> {
        self.peek_vmas(mm).map(|vma| self.map_line(vma)).collect()
    }

    /// The VMAs in the list of `mm`, as nobody's access. Ends early at one that was freed.
    pub(crate) fn peek_vmas(&self, mm: MmRef<'_, P>) -> impl Iterator<Item = VmaRef<'_, P>> {
        let mut cursor = mm.mmap().peek();
        std::iter::from_fn(move || {
            let ptr = cursor;
            let vma = (!ptr.is_null()).then(|| self.vmas.peek(ptr.index())).flatten()?;
            cursor = vma.vm_next().peek();
            (vma.ptr() == ptr).then_some(vma)
        })
    }

    fn map_line(&self, vma: VmaRef<'_, P>) -> String {
        let flags = vma.vm_flags().peek();
        let letter = |flag, letter| if flags.has(flag) { letter } else { '-' };
        let offset = if vma.vm_file().peek().is_null() {
            0
        } else {
            vma.vm_pgoff().peek() << self.page_shift()
        };
        format!(
            "{:08x}-{:08x} {}{}{}{} {offset:08x}",
            vma.vm_start().peek(),
            vma.vm_end().peek(),
            letter(VmFlags::READ, 'r'),
            letter(VmFlags::WRITE, 'w'),
            letter(VmFlags::EXEC, 'x'),
            if flags.has(VmFlags::MAYSHARE) { 's' } else { 'p' },
        )
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/maps.rs"]
mod tests;
