//! Where the kernel's locks live: the words of objects, as locks.

use super::kernel::Kernel;
use super::objects::{AnonVmaRef, InodeRef, MmRef};
use crate::arch::Family;
use crate::design::Design;
use crate::platform::{Platform, TaskId};
use crate::sync::rwlock::RwLock;
use crate::sync::rwsem::{FastPath, RwSem, Waiter, Waiters};

impl<P: Platform, D: Design> Waiters<P> for Kernel<P, D> {
    #[inline(always)]
    fn waiter(&self, task: TaskId) -> &Waiter<P> {
        &self.tasks[task as usize].waiter
    }
}

/// `mm->mm_rb_lock` of v11.
#[inline(always)]
pub(crate) fn mm_rb_lock<P: Platform>(mm: MmRef<'_, P>) -> RwLock<'_, P> {
    RwLock { cnts: mm.mm_rb_lock(), wait_lock: mm.mm_rb_lock_wait() }
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `mm->mmap_sem`
    #[inline(always)]
    pub(crate) fn mmap_sem<'k>(&'k self, mm: MmRef<'k, P>) -> RwSem<'k, P, Self> {
        RwSem {
            count: mm.sem_count(),
            wait_head: mm.sem_wait_head(),
            wait_tail: mm.sem_wait_tail(),
            wait_lock: mm.sem_wait_lock(),
            osq: mm.sem_osq(),
            owner: mm.sem_owner(),
            waiters: self,
            fast_path: self.rwsem_fast_path(),
            policy: self.config.system.rwsem,
        }
    }

    /// `anon_vma->root->rwsem`: one semaphore for a whole family of anon_vmas.
    pub(crate) fn anon_vma_sem<'k>(
        &'k self,
        cpu: &P,
        anon_vma: AnonVmaRef<'k, P>,
    ) -> RwSem<'k, P, Self> {
        let root = self.anon_vmas.get(cpu, anon_vma.root().read(cpu));
        RwSem {
            count: root.sem_count(),
            wait_head: root.sem_wait_head(),
            wait_tail: root.sem_wait_tail(),
            wait_lock: root.sem_wait_lock(),
            osq: root.sem_osq(),
            owner: root.sem_owner(),
            waiters: self,
            fast_path: self.rwsem_fast_path(),
            policy: self.config.system.rwsem,
        }
    }

    /// `mapping->i_mmap_rwsem` of a file.
    pub(crate) fn i_mmap_sem<'k>(&'k self, inode: InodeRef<'k, P>) -> RwSem<'k, P, Self> {
        RwSem {
            count: inode.i_mmap_sem_count(),
            wait_head: inode.i_mmap_sem_wait_head(),
            wait_tail: inode.i_mmap_sem_wait_tail(),
            wait_lock: inode.i_mmap_sem_wait_lock(),
            osq: inode.i_mmap_sem_osq(),
            owner: inode.i_mmap_sem_owner(),
            waiters: self,
            fast_path: self.rwsem_fast_path(),
            policy: self.config.system.rwsem,
        }
    }

    /// `inode->i_rwsem`
    pub(crate) fn inode_rwsem<'k>(&'k self, inode: InodeRef<'k, P>) -> RwSem<'k, P, Self> {
        RwSem {
            count: inode.sem_count(),
            wait_head: inode.sem_wait_head(),
            wait_tail: inode.sem_wait_tail(),
            wait_lock: inode.sem_wait_lock(),
            osq: inode.sem_osq(),
            owner: inode.sem_owner(),
            waiters: self,
            fast_path: self.rwsem_fast_path(),
            policy: self.config.system.rwsem,
        }
    }

    /// Only x86 has its own instructions in 5.1, which steal.
    #[inline(always)]
    fn rwsem_fast_path(&self) -> FastPath {
        match self.config.arch.family {
            Family::X86 if self.config.system.rwsem.stealing => FastPath::X86,
            _ => FastPath::Generic,
        }
    }
}
