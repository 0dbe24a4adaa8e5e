//! The files that a program maps, made anew for each run and gone with it.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, PipeReader, PipeWriter};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use spfemu_core::mm::FileKind;
use spfemu_core::program::FileSpec;

use super::sys;
use super::tracer::Fail;

/// Bytes of all files together. Their pages are brought into the page cache one by one.
const MAX_BYTES: u64 = 1 << 30;
const PAGE_SIZE: usize = 4096;
/// `TMPFS_MAGIC` and `RAMFS_MAGIC`: file systems whose files are in memory only.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// The files of a run, and a pipe of our own.
pub struct Files {
    files: Vec<File>,
    /// Where system calls that access a task's memory get their word from, or put it. Not a file:
    /// one that is written brings the first byte in beforehand, another way (and, on 6.18, without
    /// a fault at address 0).
    pub word_reader: PipeReader,
    pub word_writer: PipeWriter,
}

impl Files {
    pub fn new(specs: &[FileSpec]) -> Result<Self, Fail> {
        let total = specs.iter().fold(0u64, |sum, spec| sum.saturating_add(spec.length));
        if total > MAX_BYTES {
            return Err(Fail::Refused(format!(
                "files of {total} bytes (allowed on engine kernel: {MAX_BYTES} in all)"
            )));
        }
        let files = specs.iter().map(make).collect::<Result<_, _>>()?;
        let (word_reader, word_writer) = io::pipe().map_err(Fail::of("pipe"))?;
        Ok(Self { files, word_reader, word_writer })
    }

    pub fn fd(&self, file: u32) -> RawFd {
        self.files[file as usize].as_raw_fd()
    }

    pub fn set_len(&self, file: u32, length: u64) -> io::Result<()> {
        self.files[file as usize].set_len(length)
    }

    /// What children need.
    pub fn fds(&self) -> Vec<RawFd> {
        let mut fds: Vec<RawFd> = self.files.iter().map(AsRawFd::as_raw_fd).collect();
        fds.extend([self.word_reader.as_raw_fd(), self.word_writer.as_raw_fd()]);
        fds
    }
}

fn make(spec: &FileSpec) -> Result<File, Fail> {
    match spec.kind {
        FileKind::Shmem => {
            let file = sys::memfd(c"spfemu-file").map_err(Fail::of("memfd_create"))?;
            fill(&file, spec.length).map_err(Fail::of("a file in memory"))?;
            Ok(file)
        }
        FileKind::DevZero => {
            let opened = OpenOptions::new().read(true).write(true).open("/dev/zero");
            opened.map_err(Fail::of("/dev/zero"))
        }
        FileKind::Regular => {
            let file = on_disk()?;
            read_ahead(&file, spec.length).map_err(Fail::of("a temporary file"))?;
            Ok(file)
        }
        kind => {
            Err(Fail::Refused(format!("a file of kind {kind:?} (allowed: one that a program has)")))
        }
    }
}

/// Makes the file's pages, each by itself, so that each is a page by itself for the kernel, too.
fn fill(file: &File, length: u64) -> io::Result<()> {
    let zeroes = [0; PAGE_SIZE];
    for start in (0..length).step_by(PAGE_SIZE) {
        let count = (length - start).min(PAGE_SIZE as u64);
        file.write_all_at(&zeroes[..count as usize], start)?;
    }
    Ok(())
}

/// Brings the file's pages, which were never written, into the page cache one by one.
fn read_ahead(file: &File, length: u64) -> io::Result<()> {
    file.set_len(length)?;
    sys::advise_random(file)?;
    let mut page = [0; PAGE_SIZE];
    for start in (0..length).step_by(PAGE_SIZE) {
        file.read_at(&mut page, start)?;
    }
    Ok(())
}

/// A file with no name on a file system that is not in memory: its pages are notified of writes.
fn on_disk() -> Result<File, Fail> {
    let mut tried = Vec::new();
    for folder in [env::temp_dir(), PathBuf::from("/var/tmp"), PathBuf::from(".")] {
        match unnamed(&folder) {
            Ok(file) => {
                let kind = sys::file_system(&file).map_err(Fail::of("statfs"))?;
                if !IN_MEMORY.contains(&kind) {
                    return Ok(file);
                }
                tried.push(format!("{} is in memory", folder.display()));
            }
            Err(error) => tried.push(format!("{}: {error}", folder.display())),
        }
    }
    let tried = tried.join("; ");
    Err(Fail::Host(format!("no folder on a disk for a temporary file (set TMPDIR): {tried}")))
}

fn unnamed(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.custom_flags(libc::O_TMPFILE).open(folder) {
        Err(error) if error.kind() != ErrorKind::PermissionDenied => {
            // The file system has no O_TMPFILE.
            let path = folder.join(format!(".spfemu-{}-{:p}", std::process::id(), &options));
            let file = options.custom_flags(0).create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        result => result,
    }
}
