//! What an access costs: its line has to be here.

use super::cpu::Cpu;
use super::task::State;
use crate::platform::{Line, Word};

/// Where a word is: its line, and how many bytes from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    pub(super) line: u32,
    pub(super) offset: u32,
}

/// A word of the program's own that is looked at between any two operations.
const SEEN_SOON: Site = Site { line: Line::FREE.0, offset: Line::SOON };

/// What an access does to its line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Load,
    Store,
    /// A locked read-modify-write.
    Atomic,
}

impl Cpu {
    /// What comes before an access: the line is brought here, and the clock pays for it. Whether
    /// somebody spins on a word of the line.
    #[inline(always)]
    pub(super) fn access(&self, word: &Word<Self>, kind: Kind) -> bool {
        !self.hits(word, kind) && self.access_slowly(word.site(), kind)
    }

    /// The usual load: of the line that the last one was of. Whether it was.
    #[inline(always)]
    pub(super) fn hits_at_hand(&self, word: &Word<Self>) -> bool {
        let (clock, line) = (self.clock.get(), word.site().line);
        let hits = line == self.at_hand.get() && clock < self.world.limit.get();
        if hits {
            self.clock.set(clock + self.world.machine.line_ns[0]);
        }
        hits
    }

    /// The usual access: of a line that is here, with nobody far behind or looking. Whether it was.
    #[inline(always)]
    pub(super) fn hits(&self, word: &Word<Self>, kind: Kind) -> bool {
        let world = &*self.world;
        let line = word.site().line;
        let atomic_ns = if kind == Kind::Atomic { world.machine.atomic_ns } else { 0 };
        let clock = self.clock.get() + atomic_ns;
        let hits = clock < world.limit.get()
            && world.lines.hits_unwatched(line, self.id, kind != Kind::Load);
        if hits {
            self.clock.set(clock + world.machine.line_ns[0]);
            self.at_hand.set(line);
        }
        hits
    }

    #[inline(never)]
    pub(super) fn load_slowly(&self, word: &Word<Self>) -> u64 {
        // Ahead of others all the same no farther than by the slack.
        if word.site() != SEEN_SOON || self.clock.get() >= self.world.limit.get() {
            self.access_slowly(word.site(), Kind::Load);
        }
        word.peek()
    }
    #[inline(never)]
    pub(super) fn store_slowly(&self, word: &Word<Self>, value: u64) {
        let watched = self.access_slowly(word.site(), Kind::Store);
        word.poke(value);
        if watched {
            self.stored(word);
        }
    }

    /// An access that others must not see too early, or that is of no line, or before which there
    /// is something to do: they go first, or the line has to come.
    #[inline(never)]
    pub(super) fn access_slowly(&self, site: Site, kind: Kind) -> bool {
        let (world, line) = (&*self.world, site.line);
        if line == Line::FREE.0 {
            return self.access_free();
        }
        if !self.counts() {
            return false;
        }
        let in_no_turn = self.in_no_turn();
        // What a transfer takes was measured with an atomic operation.
        let atomic_ns = if kind == Kind::Atomic { world.machine.atomic_ns } else { 0 };
        let hit_ns = world.machine.line_ns[0] + atomic_ns;
        let (clock, writes) = (self.clock.get(), kind != Kind::Load);
        let is_near = in_no_turn && clock < world.limit.get()
            || world.is_first(self.task, clock.saturating_sub(world.slack_ns));
        if is_near && let Some(watched) = world.lines.hit(line, self.id, writes) {
            self.advance(hit_ns);
            return watched;
        }
        // Strict order among those who leave their cache.
        if is_near && world.is_first(self.task, clock) {
            self.this.clock.set(clock);
            if world.ask(&self.this, line, writes) {
                self.clock.set(self.this.clock.get());
            } else {
                self.give_control_away();
                self.take_clock();
            }
        } else {
            self.this.state.set(State::AsksForLine { line, writes, ahead: !is_near, hit_ns });
            self.let_others_go_first();
            self.take_clock();
        }
        if world.records {
            self.record(|recorder, at| recorder.fetched(at, site, world.machine.line_ns[0]));
        }
        world.lines.is_watched(line)
    }

    /// An access to a word of no line: what one task of the program tells another is still told in
    /// order of time.
    #[cold]
    fn access_free(&self) -> bool {
        if self.counts() {
            self.in_no_turn();
            self.sync();
        }
        true
    }
}
