//! The address space that every contestant has: 64 VMAs with holes between them, in a tree of the
//! same shape.

use std::ops::Range;

pub const PAGE: u64 = 4096;
pub const NR_VMAS: usize = 64;
/// So few that all of them fit into a per-CPU list of free pages when they are taken away: else a
/// part would go through the zone, and to another CPU.
pub const PAGES_PER_VMA: u64 = 5;
/// Half the VMAs take whole page tables, so that two threads need not share one.
const SPACING: u64 = 32 * PAGE;
const BASE: u64 = 0x1000_0000_0000;

/// The VMAs, in the order of their addresses.
pub fn vmas() -> impl Iterator<Item = Range<u64>> {
    (0..NR_VMAS as u64).map(|number| {
        let start = BASE + number * SPACING;
        start..start + PAGES_PER_VMA * PAGE
    })
}

/// The pages of VMA `number` that are free to fault on. The last one stays, so that the VMA keeps
/// its anon_vma and its page table.
pub fn pages(number: usize) -> impl Iterator<Item = u64> {
    let start = BASE + number as u64 * SPACING;
    (0..PAGES_PER_VMA - 1).map(move |page| start + page * PAGE)
}

/// The pages of all VMAs that are free to fault on.
pub fn all_pages() -> Vec<u64> {
    (0..NR_VMAS).flat_map(pages).collect()
}

/// The VMAs of thread 0 or 1: one half, with page tables of its own.
pub fn half(thread: u32) -> Range<usize> {
    let half = NR_VMAS / 2;
    thread as usize * half..(thread as usize + 1) * half
}

/// The last page of VMA `number`.
pub fn last_page(number: usize) -> u64 {
    BASE + number as u64 * SPACING + (PAGES_PER_VMA - 1) * PAGE
}

/// The VMAs so ordered that a red-black tree which they enter one by one needs no rotation: its
/// shape is that of [`children`].
pub fn insertion_order() -> Vec<usize> {
    let mut order = vec![root()];
    let children = children();
    for next in 0..NR_VMAS {
        let (left, right) = children[order[next]];
        order.extend(left.into_iter().chain(right));
    }
    order
}

/// The VMA at the root of the tree.
pub fn root() -> usize {
    middle(0..NR_VMAS)
}

/// The children of each VMA in the tree: as balanced as 64 VMAs can be.
pub fn children() -> Vec<(Option<usize>, Option<usize>)> {
    let mut children = vec![(None, None); NR_VMAS];
    fill(0..NR_VMAS, &mut children);
    children
}

fn middle(range: Range<usize>) -> usize {
    range.start + range.len() / 2
}

fn fill(range: Range<usize>, children: &mut [(Option<usize>, Option<usize>)]) -> Option<usize> {
    if range.is_empty() {
        return None;
    }
    let node = middle(range.clone());
    children[node] = (fill(range.start..node, children), fill(node + 1..range.end, children));
    Some(node)
}
