//! Asynchronous copies in flight. They land as late as the rules allow: when the thread that issued them waits.
//!
//! What is particular to cp.async is how a copy is waited for: by groups of the issuing thread. A copy that a barrier object
//! completes (mbarrier, the bulk copies of sm_90) is the same thing with another way to wait: [`Copies::wait`] is where it would
//! be asked for, and [`Core::land`] what would then be done.

use super::access::{Access, Cursor, Location};
use super::block::Core;
use super::warp::Warp;
use crate::fault::{Fault, FaultKind};
use crate::ir::{CopyAsync, LANES, lanes, mask_of};
use crate::memory::Tag;
use crate::syntax::Space;

/// A cp.async that was issued and not waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copy {
    pub lane: u32,
    /// Commit group of its thread, counted from 0.
    group: u64,
    /// Offset in shared memory.
    pub to: u64,
    /// Address in global memory.
    pub from: u64,
    pub bytes: usize,
    /// Bytes to read; the rest becomes zero.
    pub source_bytes: usize,
    /// Version of the source at the time of issue: nobody may write there until the copy was waited for.
    version: u64,
    /// Its mark on the bytes that it will write.
    pub tag: Tag,
}

/// The copies of a warp's threads.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    pending: Vec<Copy>,
    /// Groups committed by each lane.
    committed: [u64; LANES],
}

impl Copies {
    /// Adds a copy to the open group of its lane.
    pub(crate) fn issue(&mut self, copy: Copy) {
        let group = self.committed[copy.lane as usize];
        self.pending.push(Copy { group, ..copy });
    }

    /// Closes the open group of each active lane, even an empty one.
    pub(crate) fn commit(&mut self, active: u32) {
        lanes(active).for_each(|lane| self.committed[lane] += 1);
    }

    /// Takes out what the active lanes now wait for: all copies, or all but those of their `newest` committed groups and of the
    /// group still open.
    pub(crate) fn wait(&mut self, active: u32, newest: Option<u64>) -> Vec<Copy> {
        let committed = self.committed;
        let done = |copy: &Copy| {
            let waits = active >> copy.lane & 1 == 1;
            waits && newest.is_none_or(|n| copy.group.saturating_add(n) < committed[copy.lane as usize])
        };
        let (landed, pending) = std::mem::take(&mut self.pending).into_iter().partition(done);
        self.pending = pending;
        landed
    }
}

impl Core<'_> {
    /// Issues an asynchronous copy for each active lane.
    pub(crate) fn copy_async(&mut self, warp: &mut Warp, active: u32, site: u32, op: &CopyAsync) {
        let (to, from) = (self.addresses(warp, op.to), self.addresses(warp, op.from));
        let n = op.size as usize;
        let active = self.aligned(warp, active, &to, op.size, site);
        let active = self.aligned(warp, active, &from, op.size, site);
        let ignored = op.ignore.map_or(0, |guard| warp.test(guard));
        let source_bytes: [usize; LANES] = std::array::from_fn(|lane| match op.source_bytes {
            _ if ignored >> lane & 1 == 1 => 0,
            Some(register) => warp.get(register)[lane] as u32 as usize,
            None => n,
        });
        let active = self.sized(warp, active, &source_bytes, n, site);
        let reading = mask_of(lanes(active).filter(|&lane| source_bytes[lane] > 0));
        self.count(site, reading, &from, Space::Global, n);
        self.count_wavefronts(site, active, &to, n);
        let access = Access { copies: true, ..Access::plain(site, n) };
        let active = self.check_stores(warp, active, &to, Space::Shared, access);
        let grid = self.grid;
        let mut cursor = Cursor::new(grid);
        for lane in lanes(active) {
            let (to, from) = (to[lane], from[lane]);
            let mut ignored = [0; 16];
            if self.read_pieces(&mut cursor, warp, lane, access, from, &mut ignored[..source_bytes[lane]]).is_none() {
                self.out_of_bounds(warp, lane, site, Location::Global(from), source_bytes[lane] as u64);
                continue;
            }
            let tag = self.tag(warp, lane, access, Location::Shared(to)).pending();
            if let Some((page, offset)) = self.shared.at(to, op.size) {
                page.shadow.write(offset, n, tag, &warp.clock);
            }
            let source_bytes = source_bytes[lane];
            let version = cursor.at(from, source_bytes as u64).map_or(0, |(page, at)| page.version(at, source_bytes));
            warp.copies.issue(Copy { lane: lane as u32, group: 0, to, from, bytes: n, source_bytes, version, tag });
        }
        warp.clock.tick(&mut self.time); // what is written from now on is written while the copy may read
    }

    /// The active lanes that read no more bytes than they copy; reports the others, for which nothing is defined (PTX ISA, cp.async).
    fn sized(&mut self, warp: &Warp, active: u32, source_bytes: &[usize; LANES], bytes: usize, site: u32) -> u32 {
        let over = mask_of(lanes(active).filter(|&lane| source_bytes[lane] > bytes));
        if over != 0 {
            let lane = over.trailing_zeros();
            let message = format!("a copy of {bytes} bytes that reads {} from its source", source_bytes[lane as usize]);
            self.fault(FaultKind::OutOfBounds, warp, lane, site, 0, None, message);
        }
        active & !over
    }

    /// Reads a range of any length up to 16 from global memory, in aligned pieces.
    fn read_pieces(
        &mut self,
        cursor: &mut Cursor<'_>,
        warp: &mut Warp,
        lane: usize,
        access: Access,
        from: u64,
        out: &mut [u8],
    ) -> Option<()> {
        let mut done = 0;
        while done < out.len() {
            let left = out.len() - done;
            let piece = if left >= 16 { 16 } else { 1 << left.ilog2() };
            let access = Access { bytes: piece, ..access };
            self.read(cursor, warp, lane, access, Location::Global(from + done as u64), &mut out[done..done + piece])?;
            done += piece;
        }
        Some(())
    }

    /// Waits for asynchronous copies of the active lanes: now they land.
    pub(crate) fn copy_wait(&mut self, warp: &mut Warp, active: u32, newest: Option<u64>) {
        for copy in warp.copies.wait(active, newest) {
            self.land(warp, copy);
        }
    }

    fn land(&mut self, warp: &mut Warp, copy: Copy) {
        let Copy { lane, to, from, bytes, source_bytes, tag: issued, .. } = copy;
        let access = Access::plain(issued.site(), bytes);
        let mut value = [0; 16];
        let grid = self.grid;
        let mut cursor = Cursor::new(grid);
        // Read again: the copy may as well read now, so a write since the issue races with it.
        let read = self.read_pieces(&mut cursor, warp, lane as usize, access, from, &mut value[..source_bytes]);
        let tag = self.tag(warp, lane as usize, access, Location::Shared(to));
        self.check_source(&mut cursor, warp, copy, tag);
        if let (Some(()), Some((page, offset))) = (read, self.shared.at(to, bytes as u64)) {
            page.data[offset..offset + bytes].copy_from_slice(&value[..bytes]);
            page.mark_written(offset, bytes);
            page.shadow.land(offset, bytes, issued, tag);
            self.progressed(true);
        }
    }

    /// Whether the source was written since the copy was issued, also by its own thread or one ordered after the issue: others are
    /// seen by the read.
    fn check_source(&mut self, cursor: &mut Cursor<'_>, warp: &Warp, copy: Copy, now: Tag) {
        let Copy { lane, from, source_bytes, version, .. } = copy;
        let Some((page, at)) = cursor.at(from, source_bytes as u64) else { return };
        if page.version(at, source_bytes) == version {
            return;
        }
        let Some(write) = page.shadow.writes(at, source_bytes).find(|&write| self.comes_before(warp, write, now)) else { return };
        let writer = write.lanes.trailing_zeros();
        let message = format!("writes bytes at {from:#x} that an asynchronous copy may still read: wait for it first");
        let place = self.grid.place(write.site(), write.block, write.warp(), writer);
        let other = Some(self.grid.place(copy.tag.site(), self.index, warp.id, lane));
        let kind = FaultKind::UnwaitedCopy;
        self.grid.report(Fault { kind, kernel: String::new(), place, address: from, other, message });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_land_oldest_first_and_open_ones_not_at_all() {
        let mut copies = Copies::default();
        let copy = |lane, to| Copy { lane, group: 0, to, from: 0, bytes: 16, source_bytes: 16, version: 0, tag: Tag::default() };
        for group in 0..3 {
            copies.issue(copy(0, group * 16));
            copies.issue(copy(1, group * 16));
            copies.commit(0b11);
        }
        copies.issue(copy(0, 99));
        let landed = |copies: &mut Copies, active, newest| copies.wait(active, newest).iter().map(|c| c.to).collect::<Vec<_>>();
        assert_eq!(landed(&mut copies, 0b01, Some(2)), [0]);
        assert_eq!(landed(&mut copies, 0b01, Some(0)), [16, 32]);
        assert_eq!(landed(&mut copies, 0b11, None), [0, 16, 32, 99], "lane 1's groups and lane 0's open one");
    }
}
