//! Asynchronous copies in flight. They land as late as the rules allow: when the thread that issued them waits.

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
    /// The instruction.
    pub site: u32,
}

/// The copies of a warp's threads.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    pending: Vec<Copy>,
    /// Groups committed by each lane.
    committed: [u64; 32],
}

impl Copies {
    pub(crate) fn issue(&mut self, lane: u32, to: u64, from: u64, bytes: usize, source_bytes: usize, site: u32) {
        let group = self.committed[lane as usize];
        self.pending.push(Copy { lane, group, to, from, bytes, source_bytes, site });
    }

    /// Closes the open group of each active lane, even an empty one.
    pub(crate) fn commit(&mut self, active: u32) {
        (0..32).filter(|lane| active >> lane & 1 == 1).for_each(|lane| self.committed[lane] += 1);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_land_oldest_first_and_open_ones_not_at_all() {
        let mut copies = Copies::default();
        for group in 0..3 {
            copies.issue(0, group * 16, 0, 16, 16, 0);
            copies.issue(1, group * 16, 0, 16, 16, 0);
            copies.commit(0b11);
        }
        copies.issue(0, 99, 0, 16, 16, 0);
        let landed = |copies: &mut Copies, active, newest| copies.wait(active, newest).iter().map(|c| c.to).collect::<Vec<_>>();
        assert_eq!(landed(&mut copies, 0b01, Some(2)), [0]);
        assert_eq!(landed(&mut copies, 0b01, Some(0)), [16, 32]);
        assert_eq!(landed(&mut copies, 0b11, None), [0, 16, 32, 99], "lane 1's groups and lane 0's open one");
    }
}
