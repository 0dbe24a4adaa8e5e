//! The page that each child process has: its only code, as an ELF file of one page.
//!
//! It lies at an address that the program does not name, see [`place`]. Nothing in it ever changes
//! but the words at [`SCRATCH`], which the tracer writes as arguments of system calls.

/// Bytes of the page, and of the file.
pub const SIZE: u64 = 4096;

/// Offset of `syscall; int3`.
pub const SYSCALL: u64 = 0x200;
/// Offset of the `int3` of [`SYSCALL`]: a thread that is resumed here stops at once.
pub const TRAP: u64 = SYSCALL + 2;
/// Offset of `mov rax, [rdi]; int3`.
pub const READ: u64 = 0x210;
/// Offset of `mov [rdi], rsi; int3`.
pub const WRITE: u64 = 0x220;
/// Offset of an empty text.
pub const EMPTY: u64 = 0x300;
/// Offset of an argument vector: the empty text.
pub const ARGV: u64 = 0x308;
/// Offset of words for arguments of system calls.
pub const SCRATCH: u64 = 0x400;

const CODE: [(u64, &[u8]); 3] = [
    (SYSCALL, &[0x0f, 0x05, 0xcc]),
    (READ, &[0x48, 0x8b, 0x07, 0xcc]),
    (WRITE, &[0x48, 0x89, 0x37, 0xcc]),
];

/// Where it may lie: above what a gigabyte from the lowest address covers, each twice as high as
/// the one before.
const NR_PLACES: u32 = 8;
const FIRST_PLACE: u64 = 0x60_0000_0000;

/// The first place that no range covers, or the first of all.
pub fn place(ranges: &[(u64, u64)]) -> u64 {
    let free = |place: &u64| !ranges.iter().any(|range| overlaps(*range, *place));
    let places = (0..NR_PLACES).map(|power| FIRST_PLACE << power);
    places.clone().find(free).unwrap_or(FIRST_PLACE)
}

/// Whether `length` bytes from `start`, in whole pages, meet the page at `island`.
pub fn overlaps((start, length): (u64, u64), island: u64) -> bool {
    let end = u128::from(start) + u128::from(length).next_multiple_of(SIZE.into());
    length > 0 && u128::from(start) < u128::from(island + SIZE) && end > u128::from(island)
}

/// The file that a process executes to have the page at `island`.
///
/// Source: `elf(5)`. The second header says that the stack is not executable: without it the
/// kernel would make everything that is readable executable, too.
pub fn image(island: u64) -> Vec<u8> {
    let mut image = Vec::with_capacity(SIZE as usize);
    image.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let (executable, x86_64): (u16, u16) = (2, 62);
    image.extend(executable.to_le_bytes());
    image.extend(x86_64.to_le_bytes());
    image.extend(1u32.to_le_bytes()); // version
    for word in [island + TRAP, 64, 0] {
        image.extend(u64::to_le_bytes(word)); // entry, program headers, no section headers
    }
    image.extend(0u32.to_le_bytes()); // flags
    for half in [64u16, 56, 2, 64, 0, 0] {
        image.extend(half.to_le_bytes()); // sizes and numbers of headers
    }
    let (load, gnu_stack): (u32, u32) = (1, 0x6474_e551);
    let (x, w, r) = (1u32, 2, 4);
    for (kind, flags, sizes, align) in
        [(load, r | x, [0, island, island, SIZE, SIZE], SIZE), (gnu_stack, r | w, [0; 5], 16)]
    {
        image.extend(kind.to_le_bytes());
        image.extend(flags.to_le_bytes());
        sizes.iter().for_each(|word| image.extend(word.to_le_bytes()));
        image.extend(align.to_le_bytes());
    }
    image.resize(SIZE as usize, 0);
    for (offset, code) in CODE {
        image[offset as usize..][..code.len()].copy_from_slice(code);
    }
    image[ARGV as usize..][..8].copy_from_slice(&(island + EMPTY).to_le_bytes());
    image
}

#[cfg(test)]
#[path = "../../tests/unit/island.rs"]
mod tests;
