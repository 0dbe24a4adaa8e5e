//! `ftruncate`. Source: `fs/open.c`, v5.1.

use crate::design::Design;
use crate::events::Cost;
use crate::mm::{Errno, FileKind, Inode, Kernel, MAX_FILE_BYTES};
use crate::platform::{Platform, Ptr};

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Gives a file another length, in bytes. /dev/zero has none.
    pub fn sys_ftruncate(&self, cpu: &P, file: Ptr<Inode<P>>, length: u64) -> Result<(), Errno> {
        cpu.charge(Cost::SyscallEntryExit, 1);
        let inode = self.inodes.get(cpu, file);
        if length > MAX_FILE_BYTES || self.file_kind(inode) == FileKind::DevZero {
            return Err(Errno::Einval);
        }
        // do_truncate(): inode_lock()
        let lock = self.inode_rwsem(inode);
        lock.down_write(cpu);
        self.setattr_size(cpu, inode, length);
        lock.up_write(cpu);
        Ok(())
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/truncate.rs"]
mod tests;
