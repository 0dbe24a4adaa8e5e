use super::*;

#[test]
fn image_is_one_page_with_its_code() {
    let image = image(0x60_0000_0000);
    assert_eq!(image.len() as u64, SIZE);
    assert_eq!(&image[..4], b"\x7fELF");
    assert_eq!(image[SYSCALL as usize..][..3], [0x0f, 0x05, 0xcc]); // syscall; int3
    assert_eq!(image[24..32], (0x60_0000_0000 + TRAP).to_le_bytes()); // where it begins
    assert_eq!(image[ARGV as usize..][..8], (0x60_0000_0000 + EMPTY).to_le_bytes());
    // Parts do not overlap: what comes after each one is still zero.
    let headers = 64 + 2 * 56;
    assert!(image[headers..SYSCALL as usize].iter().all(|byte| *byte == 0));
    assert!(image[SCRATCH as usize..].iter().all(|byte| *byte == 0));
}

#[test]
fn ranges_meet_the_page_in_whole_pages() {
    let island = 0x10_000;
    assert!(overlaps((0xf000, 0x1001), island));
    assert!(!overlaps((0xf000, 0x1000), island));
    assert!(!overlaps((0xf000, 0), island));
    assert!(overlaps((0x10_fff, 1), island));
    assert!(!overlaps((0x11_000, 1), island));
    assert!(overlaps((0, u64::MAX), island)); // rounds up to 2^64
}

#[test]
fn place_is_one_that_no_range_covers() {
    assert_eq!(place(&[]), FIRST_PLACE);
    assert_eq!(place(&[(FIRST_PLACE - 4096, 8192)]), 2 * FIRST_PLACE);
    // Wherever it is, everything covers it.
    assert_eq!(place(&[(0, u64::MAX)]), FIRST_PLACE);
    // The last one is in user space, too.
    let others: Vec<(u64, u64)> = (0..NR_PLACES - 1).map(|n| (FIRST_PLACE << n, 1)).collect();
    let last = place(&others);
    assert!(last == FIRST_PLACE << (NR_PLACES - 1) && last < 1 << 47);
}
