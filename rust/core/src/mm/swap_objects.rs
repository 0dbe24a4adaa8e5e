//! What the swap device consists of, as words: see `swap.rs` and `swap_state.rs`.

use crate::object;
use crate::platform::{Field, Line, Local, Object, Platform, Ref, Value, Word};

object! {
    /// The swap device.
    pub struct SwapInfo of Word = "swap_info_struct", 256 {
        /// Slots in use.
        inuse_pages: u64 = 0x6c,
        /// Where the search for a free slot begins.
        cluster_next: u64 = 0x70,
        lock: u64 = 0xd4,
    }
}

object! {
    /// Variables of `mm/swapfile.c` and `mm/swap_state.c`.
    pub struct SwapStatics of Word = "swap", 128 {
        /// Free slots.
        nr_swap_pages: u64 = 0x00,
        /// Pages that were read ahead and have been used since the last look.
        swapin_readahead_hits: u64 = 0x40,
        /// `last_readahead_pages` and `prev_offset` of `swapin_nr_pages()`.
        last_readahead_pages: u64 = 0x44,
        prev_offset: u64 = 0x48,
    }
}

object! {
    /// A part of the swap cache: its lock. The pages are in [`SwapCluster`].
    pub struct SwapperSpace of Word = "address_space", 192 {
        i_pages_lock: u64 = 0x08,
    }
}

/// 64 neighbouring slots of the swap device.
pub struct SwapCluster<P: Platform> {
    /// `swap_map`: one byte a slot in the kernel.
    swap_map: Box<[Word<P>]>,
    /// The node of the swap cache: the page of each slot, as its frame's number + 1.
    cache: Box<[Word<P>]>,
    /// What the device holds: no memory of any CPU.
    content: Box<[Local]>,
}

impl<P: Platform> Object for SwapCluster<P> {
    type P = P;
    const NAME: &'static str = "swap slots";
    fn new(line: Line, shape: u32) -> Self {
        Self {
            swap_map: (0..shape).map(|i| Word::new(line, i)).collect(),
            cache: (0..shape).map(|i| Word::new(line, Line::BYTES + i * 8)).collect(),
            content: (0..shape).map(|_| Local::default()).collect(),
        }
    }
    fn lines(shape: u32) -> u32 {
        1 + (shape * 8).div_ceil(Line::BYTES)
    }
    fn clear(&self) {
        self.swap_map.iter().chain(&self.cache).for_each(|word| word.poke(0));
        self.content.iter().for_each(|word| word.set(0));
    }
    fn field_name(offset: u32) -> String {
        match offset.checked_sub(Line::BYTES) {
            Some(entry) => format!("cache[{}]", entry / 8),
            None => format!("swap_map[{offset}]"),
        }
    }
    fn field_text(_arena: &str, _offset: u32, word: u64) -> String {
        u64::text(word)
    }
}

impl<'k, P: Platform> Ref<'k, SwapCluster<P>> {
    /// The `swap_map` word of slot `index` of these.
    #[inline(always)]
    pub fn swap_map(self, index: u32) -> Field<'k, P, u64> {
        let (generation, expect) = self.stamp();
        Field::new(&self.object().swap_map[index as usize], generation, expect)
    }
    /// The page in the swap cache of slot `index`, as its frame's number + 1; 0: none.
    #[inline(always)]
    pub fn cache(self, index: u32) -> Field<'k, P, u64> {
        let (generation, expect) = self.stamp();
        Field::new(&self.object().cache[index as usize], generation, expect)
    }
    /// What the device holds in slot `index`.
    pub fn content(self, index: u32) -> &'k Local {
        &self.object().content[index as usize]
    }
}
