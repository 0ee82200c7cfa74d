//! Who touched which bytes last: the memory of the race detector.
//!
//! Each cell remembers the last write and the reads since then that no later read comes after. An access races with a remembered one
//! of another thread when nothing orders them ([`Order`]); as this depends on barriers and fences alone, a race is found whatever
//! order the threads happen to run in. (Flanagan & Freund, "FastTrack", PLDI 2009, is the model.)

/// Bytes of the coarsest cell: the widest access of a thread that is common.
const COARSEST: u8 = 16;
/// Reads by other blocks that a cell of global memory remembers where flags can order blocks.
const MOST_READS: usize = 256;

/// One access: enough to order it and to name it. 16 bytes, for there is one for every few bytes of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tag {
    /// Block, counted through the grid.
    pub block: u32,
    /// Time of the warp's last synchronisation before the access.
    pub stamp: u32,
    /// The lane; several of them for a broadcast read.
    pub lanes: u32,
    /// Site in the high bits, then five bits of the warp, seven of flags.
    what: u32,
}

const PRESENT: u32 = 1;
const STRONG: u32 = 2;
/// An asynchronous copy that has not been waited for.
const PENDING: u32 = 4;
/// A strong access whose scope is the block.
const NARROW: u32 = 8;
/// A volatile access of shared memory. It is strong, but among lanes of a warp it is no substitute for `__syncwarp`.
const VOLATILE: u32 = 16;
/// A strong write kept among the reads: another strong write came after it, in no order.
const WROTE: u32 = 32;
/// A strong write that hands over what came before it: whoever relies on that comes after the write itself, too.
const RELEASED: u32 = 64;
/// Sites that a tag can tell apart.
pub(crate) const MAX_SITES: usize = 1 << 20;

impl Tag {
    pub(crate) fn new(block: u32, warp: u32, lane: u32, site: u32, stamp: u32) -> Tag {
        Tag { block, stamp, lanes: 1 << lane, what: site << 12 | warp << 7 | PRESENT }
    }

    /// Makes it an access that does not race with others of its kind.
    pub(crate) fn strong(mut self, narrow: bool, volatile: bool) -> Tag {
        self.what |= STRONG | if narrow { NARROW } else { 0 } | if volatile { VOLATILE } else { 0 };
        self
    }

    pub(crate) fn pending(mut self) -> Tag {
        self.what |= PENDING;
        self
    }

    pub(crate) fn released(mut self, released: bool) -> Tag {
        self.what |= if released { RELEASED } else { 0 };
        self
    }

    pub(crate) fn is_released(self) -> bool {
        self.what & RELEASED != 0
    }

    pub(crate) fn is_pending(self) -> bool {
        self.what & PENDING != 0
    }

    pub(crate) fn warp(self) -> u32 {
        self.what >> 7 & 31
    }

    /// Index of the instruction.
    pub(crate) fn site(self) -> u32 {
        self.what >> 12
    }

    /// A hash of it and `seed` (the mixing of MurmurHash3, Appleby, 2011).
    fn mixed(self, seed: u64) -> u64 {
        let parts = [u64::from(self.block) << 32 | u64::from(self.stamp), u64::from(self.lanes) << 32 | u64::from(self.what)];
        parts.iter().fold(seed, |hash, part| {
            let hash = (hash ^ part).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
            (hash ^ hash >> 33).wrapping_mul(0xC4CE_B9FE_1A85_EC53)
        })
    }

    fn wrote(self) -> bool {
        self.what & WROTE != 0
    }

    fn is_present(self) -> bool {
        self.what != 0
    }

    /// Whether two accesses are strong with respect to each other (PTX ISA, "morally strong").
    fn both_strong(self, other: Tag) -> bool {
        let all = self.what & other.what & STRONG != 0;
        let any = self.what | other.what;
        let in_scope = any & NARROW == 0 || self.block == other.block;
        let in_warp = any & VOLATILE != 0 && self.block == other.block && self.warp() == other.warp();
        all && in_scope && !in_warp
    }

    /// Whether forgetting this access for a later one by a thread that is ordered after it loses nothing: a strong access does not stand
    /// for a weak one, as it races with less.
    fn gives_way_to(self, later: Tag, order: &impl Order) -> bool {
        let weaker = self.what & STRONG == 0 && later.what & STRONG != 0;
        !weaker && (self.same_thread(later) || order.is_before(self, later))
    }

    fn same_but_lanes(self, other: Tag) -> bool {
        (self.block, self.stamp, self.what) == (other.block, other.stamp, other.what)
    }

    /// Whether no lane but `other`'s had a part.
    fn same_thread(self, other: Tag) -> bool {
        self.block == other.block && self.warp() == other.warp() && self.lanes & !other.lanes == 0
    }
}

/// What comes before what.
pub(crate) trait Order {
    /// Whether the remembered access is ordered before whatever `now`'s thread does now.
    fn is_before(&self, earlier: Tag, now: Tag) -> bool;

    /// Whether accesses of another block can ever be ordered before those of this thread.
    fn may_know_others(&self) -> bool;
}

/// An access that nothing orders before the present one, or a copy that has not been waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub with: Tag,
    /// The other access wrote (else it read, and the present one writes).
    pub wrote: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    write: Tag,
    read: Tag,
}

/// The history of one page, in cells as coarse as the accesses to it allow.
#[derive(Debug)]
pub(crate) struct Shadow {
    bytes: usize,
    /// Nothing is remembered, so nothing is found.
    blind: bool,
    grain: u8,
    cells: Vec<Cell>,
    /// Reads of each cell beyond the one it holds; empty as long as no cell has any.
    more: Vec<Vec<Tag>>,
}

impl Shadow {
    pub(crate) fn new(bytes: usize) -> Shadow {
        Shadow { bytes, blind: false, grain: COARSEST, cells: Vec::new(), more: Vec::new() }
    }

    /// Whether to remember accesses from here on.
    pub(crate) fn watch(&mut self, races: bool) {
        self.blind = !races;
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.cells.clear();
        self.more.clear();
        self.grain = COARSEST;
    }

    /// The cells of a range, split as finely as it needs.
    fn range(&mut self, offset: usize, bytes: usize) -> std::ops::Range<usize> {
        if self.blind {
            return 0..0;
        }
        if self.cells.is_empty() {
            self.cells.resize(self.bytes / usize::from(self.grain), Cell::default());
        }
        let fits = 1u8 << (offset | bytes | usize::from(COARSEST)).trailing_zeros();
        if fits < self.grain {
            let copies = usize::from(self.grain / fits);
            self.cells = self.cells.iter().flat_map(|&cell| std::iter::repeat_n(cell, copies)).collect();
            self.more = self.more.iter().flat_map(|more| std::iter::repeat_n(more.clone(), copies)).collect();
            self.grain = fits;
        }
        let grain = usize::from(self.grain);
        offset / grain..(offset + bytes) / grain
    }

    /// A read by `tag`'s thread: checks it against the last write and remembers it.
    pub(crate) fn read(&mut self, offset: usize, bytes: usize, tag: Tag, order: &impl Order) -> Option<Conflict> {
        let mut conflict: Option<Conflict> = None;
        for index in self.range(offset, bytes) {
            let kept = || self.reads(index).filter(|read| read.wrote()).find_map(|write| against(write, tag, order));
            let write = || against(self.cells[index].write, tag, order).or_else(kept);
            conflict = conflict.or_else(|| write().map(|with| Conflict { with, wrote: true }));
            self.remember(index, tag, order);
        }
        conflict
    }

    fn reads(&self, index: usize) -> impl Iterator<Item = Tag> {
        [self.cells[index].read].into_iter().chain(self.more.get(index).into_iter().flatten().copied())
    }

    /// What a write by `tag`'s thread would conflict with.
    pub(crate) fn check_write(&mut self, offset: usize, bytes: usize, tag: Tag, order: &impl Order) -> Option<Conflict> {
        let mut cells = self.range(offset, bytes);
        let conflict = |index: usize| {
            let write = against(self.cells[index].write, tag, order).map(|with| Conflict { with, wrote: true });
            let read = || self.reads(index).find_map(|read| against(read, tag, order));
            write.or_else(|| read().map(|with| Conflict { with, wrote: with.wrote() }))
        };
        cells.find_map(conflict)
    }

    /// Remembers a write. The reads before it are forgotten, as whoever is ordered after the write is ordered after them; so is the
    /// write before it, unless the new one is strong: then what comes later may race with the old one only.
    pub(crate) fn write(&mut self, offset: usize, bytes: usize, tag: Tag, order: &impl Order) {
        for index in self.range(offset, bytes) {
            let earlier = std::mem::replace(&mut self.cells[index].write, tag);
            let keeps = |read: Tag| read.wrote() && !read.gives_way_to(tag, order);
            if let Some(more) = self.more.get_mut(index) {
                more.retain(|&read| keeps(read));
            }
            if !keeps(self.cells[index].read) {
                self.cells[index].read = self.more.get_mut(index).and_then(Vec::pop).unwrap_or_default();
            }
            let races = || !earlier.both_strong(tag) && !earlier.same_thread(tag) && !order.is_before(earlier, tag);
            if earlier.is_present() && !earlier.is_pending() && !earlier.gives_way_to(tag, order) && !races() {
                self.remember(index, Tag { what: earlier.what | WROTE, ..earlier }, order);
            }
        }
    }

    /// Adds a read to those of a cell, replacing what comes before it.
    fn remember(&mut self, index: usize, tag: Tag, order: &impl Order) {
        let first = &mut self.cells[index].read;
        if first.same_but_lanes(tag) {
            first.lanes |= tag.lanes;
            return;
        }
        let mut more = self.more.get_mut(index).filter(|more| !more.is_empty());
        if let Some(same) = more.iter_mut().flat_map(|more| more.iter_mut()).find(|read| read.same_but_lanes(tag)) {
            same.lanes |= tag.lanes;
            return;
        }
        let replaced = !first.is_present() || first.gives_way_to(tag, order);
        if let Some(more) = &mut more {
            more.retain(|&read| !read.gives_way_to(tag, order));
        }
        if replaced {
            *first = tag;
            return;
        }
        if !self.has_enough(index, tag.block, order) {
            self.more.resize(self.cells.len(), Vec::new());
            self.more[index].push(tag);
        }
    }

    /// Whether a cell remembers so many reads of other blocks that one more, by `block`, is left out.
    fn has_enough(&self, index: usize, block: u32, order: &impl Order) -> bool {
        let mut others = self.reads(index).map(|read| read.block).filter(|&of| of != block);
        if order.may_know_others() {
            return others.count() >= MOST_READS;
        }
        // Any writer is in another block than one of two, and nothing orders blocks: more would find nothing more.
        others.next().is_some_and(|first| others.any(|of| of != first))
    }

    /// A copy lands: what `issued` marked becomes a write of `landed`, except where a later copy to the same bytes is still to come.
    pub(crate) fn land(&mut self, offset: usize, bytes: usize, issued: Tag, landed: Tag) {
        for index in self.range(offset, bytes) {
            let cell = &mut self.cells[index];
            if !cell.write.is_pending() || cell.write == issued {
                *cell = Cell { write: landed, read: Tag::default() };
                if let Some(more) = self.more.get_mut(index) {
                    more.clear();
                }
            }
        }
    }

    /// A write to the range by another lane of the very instruction that `tag` is of.
    pub(crate) fn clash(&mut self, offset: usize, bytes: usize, tag: Tag) -> Option<Tag> {
        let other = |write: &Tag| write.same_but_lanes(tag) && write.lanes != tag.lanes;
        self.range(offset, bytes).map(|index| self.cells[index].write).find(other)
    }

    /// A number that is another one once the range was written; 0 before that.
    pub(crate) fn version(&mut self, offset: usize, bytes: usize) -> u64 {
        let (mut version, mut last) = (0, Tag::default());
        for index in self.range(offset, bytes) {
            let write = self.cells[index].write;
            if write != last {
                version = write.mixed(version);
                last = write; // cells that were split since have the same write
            }
        }
        version
    }

    /// The last writes to a range.
    pub(crate) fn writes(&mut self, offset: usize, bytes: usize) -> impl Iterator<Item = Tag> {
        self.range(offset, bytes).map(|index| self.cells[index].write).filter(|write| write.is_present())
    }
}

fn against(earlier: Tag, now: Tag, order: &impl Order) -> Option<Tag> {
    let races =
        || earlier.is_present() && !earlier.both_strong(now) && !earlier.same_thread(now) && !order.is_before(earlier, now);
    (earlier.is_pending() || races()).then_some(earlier)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stamps below the bound are before everything.
    struct Barrier(u32);

    impl Order for Barrier {
        fn is_before(&self, earlier: Tag, _now: Tag) -> bool {
            earlier.stamp < self.0
        }
        fn may_know_others(&self) -> bool {
            true
        }
    }

    fn tag(warp: u32, lane: u32, stamp: u32) -> Tag {
        Tag::new(0, warp, lane, 7, stamp)
    }

    #[test]
    fn unordered_accesses_conflict_and_ordered_ones_do_not() {
        let mut shadow = Shadow::new(1024);
        assert_eq!(shadow.check_write(16, 4, tag(0, 0, 1), &Barrier(0)), None);
        shadow.write(16, 4, tag(0, 0, 1), &Barrier(0));
        assert_eq!(shadow.read(16, 4, tag(0, 0, 1), &Barrier(0)), None, "the same thread");
        let conflict = Some(Conflict { with: tag(0, 0, 1), wrote: true });
        assert_eq!(shadow.read(16, 4, tag(0, 1, 1), &Barrier(0)), conflict, "another lane");
        assert_eq!(shadow.read(16, 4, tag(1, 0, 2), &Barrier(2)), None, "after a barrier");
        assert_eq!(shadow.read(20, 4, tag(1, 0, 1), &Barrier(0)), None, "the next word");
    }

    #[test]
    fn every_unordered_reader_is_remembered() {
        let mut shadow = Shadow::new(1024);
        for warp in 0..8 {
            for lane in 0..32 {
                assert_eq!(shadow.read(0, 4, tag(warp, lane, 1), &Barrier(0)), None);
            }
        }
        let writer = tag(3, 5, 1);
        let conflict = shadow.check_write(0, 4, writer, &Barrier(0)).unwrap();
        assert!(!conflict.wrote && conflict.with.warp() == 0 && conflict.with.lanes == u32::MAX);
        assert_eq!(shadow.check_write(0, 4, tag(3, 5, 2), &Barrier(2)), None);
        // One reader that a later one does not replace.
        struct Only;
        impl Order for Only {
            fn is_before(&self, earlier: Tag, _now: Tag) -> bool {
                earlier.warp() != 6
            }
            fn may_know_others(&self) -> bool {
                true
            }
        }
        assert_eq!(shadow.check_write(0, 4, writer, &Only).unwrap().with.warp(), 6);
    }

    #[test]
    fn neighbouring_bytes_are_told_apart() {
        let mut shadow = Shadow::new(1024);
        shadow.write(0, 16, tag(0, 0, 1), &Barrier(0));
        shadow.read(32, 16, tag(0, 1, 1), &Barrier(0));
        shadow.read(32, 16, tag(1, 1, 1), &Barrier(0));
        shadow.write(1, 1, tag(1, 0, 1), &Barrier(0));
        assert_eq!(shadow.read(0, 1, tag(0, 0, 1), &Barrier(0)), None);
        assert_eq!(shadow.read(1, 1, tag(0, 0, 1), &Barrier(0)).unwrap().with.warp(), 1);
        assert_eq!(shadow.read(2, 2, tag(1, 0, 1), &Barrier(0)).unwrap().with.warp(), 0);
        shadow.write(32, 4, tag(0, 1, 1), &Barrier(0));
        assert_eq!(shadow.check_write(40, 4, tag(0, 1, 1), &Barrier(0)).unwrap().with.warp(), 1, "lists are split too");
    }

    #[test]
    fn strong_accesses_do_not_race_with_each_other() {
        let mut shadow = Shadow::new(64);
        let plain = |block| Tag::new(block, 0, 0, 1, 0);
        shadow.write(0, 4, plain(0).strong(false, false), &Barrier(0));
        assert_eq!(shadow.check_write(0, 4, plain(1).strong(false, false), &Barrier(0)), None);
        assert!(shadow.read(0, 4, plain(1), &Barrier(0)).is_some());
        assert!(shadow.check_write(0, 4, plain(1).strong(true, false), &Barrier(0)).is_some(), "the scope is another block's");
        shadow.clear();
        shadow.write(0, 4, plain(0).strong(false, false), &Barrier(0));
        let other = Tag::new(0, 0, 1, 1, 0);
        assert_eq!(shadow.check_write(0, 4, other.strong(true, false), &Barrier(0)), None);
        shadow.clear();
        shadow.write(0, 4, plain(0).strong(false, true), &Barrier(0));
        assert!(shadow.check_write(0, 4, other.strong(false, true), &Barrier(0)).is_some(), "volatile does not order lanes");
    }

    #[test]
    fn every_unordered_atomic_is_remembered() {
        let mut shadow = Shadow::new(64);
        let atomic = |warp| tag(warp, 0, 1).strong(false, false);
        for warp in [0, 1, 2, 3, 2, 2] {
            assert_eq!(shadow.check_write(0, 4, atomic(warp), &Barrier(0)), None);
            shadow.write(0, 4, atomic(warp), &Barrier(0));
        }
        // The last of them is the reader's own.
        let conflict = shadow.read(0, 4, tag(2, 0, 1), &Barrier(0)).unwrap();
        assert!(conflict.wrote && conflict.with.warp() != 2);
        assert_eq!(shadow.read(0, 4, tag(2, 0, 2), &Barrier(2)), None);
    }

    #[test]
    fn a_strong_access_does_not_hide_the_weak_one_before_it() {
        let mut shadow = Shadow::new(64);
        let strong = |warp, stamp| tag(warp, 0, stamp).strong(false, false);
        shadow.write(0, 4, tag(0, 0, 1), &Barrier(0));
        shadow.write(0, 4, strong(0, 1), &Barrier(0));
        assert!(shadow.check_write(0, 4, strong(1, 1), &Barrier(0)).is_some());
        assert_eq!(shadow.check_write(0, 4, strong(1, 2), &Barrier(2)), None);
        shadow.clear();
        assert_eq!(shadow.read(0, 4, tag(0, 0, 1), &Barrier(0)), None);
        assert_eq!(shadow.read(0, 4, strong(0, 1), &Barrier(0)), None);
        assert!(shadow.check_write(0, 4, strong(1, 1), &Barrier(0)).is_some());
    }

    #[test]
    fn a_copy_that_lands_leaves_a_later_one_pending() {
        let mut shadow = Shadow::new(64);
        let (first, second) = (tag(0, 0, 1).pending(), tag(0, 0, 2).pending());
        shadow.write(0, 16, first, &Barrier(0));
        shadow.write(0, 16, second, &Barrier(2));
        shadow.land(0, 16, first, tag(0, 0, 3));
        assert_eq!(shadow.read(0, 16, tag(0, 0, 3), &Barrier(9)).map(|c| c.with), Some(second));
        shadow.land(0, 16, second, tag(0, 0, 4));
        assert_eq!(shadow.read(0, 16, tag(0, 0, 4), &Barrier(9)), None);
    }
}
