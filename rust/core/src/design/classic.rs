//! The handler of the kernel without the series: everything under `mmap_sem`.

use super::Design;
use crate::mm::{FaultFlags, Kernel, MmRef, Vaddr, VmFault, VmaRef};
use crate::platform::Platform;

/// No speculation: nothing is bumped, counted or deferred.
pub enum Classic {}

impl Design for Classic {
    const NAME: &'static str = "classic";
    const LINKED_REFS: u64 = 1; // the owner

    #[inline(always)]
    fn fault_before_mmap_sem<P: Platform>(
        _k: &Kernel<P, Self>,
        _cpu: &P,
        _mm: MmRef<'_, P>,
        _address: Vaddr,
        _flags: FaultFlags,
    ) -> VmFault {
        VmFault::RETRY
    }
    fn vm_write_begin<P: Platform>(_cpu: &P, _vma: VmaRef<'_, P>) {}
    fn vm_write_end<P: Platform>(_cpu: &P, _vma: VmaRef<'_, P>) {}
    fn tree_write_begin<P: Platform>(_cpu: &P, _mm: MmRef<'_, P>) {}
    fn tree_write_end<P: Platform>(_cpu: &P, _mm: MmRef<'_, P>) {}
    fn get_vma<P: Platform>(_cpu: &P, _vma: VmaRef<'_, P>) {}
    fn put_unlinked_vma<P: Platform>(_k: &Kernel<P, Self>, _cpu: &P, _vma: VmaRef<'_, P>) {}
    /// The owner's is the only reference.
    fn put_vma<P: Platform>(k: &Kernel<P, Self>, cpu: &P, vma: VmaRef<'_, P>) {
        k.vm_area_free(cpu, vma);
    }
}
