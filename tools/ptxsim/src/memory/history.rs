//! What is known to have happened: vector clocks of threads, and the flags that hand them on.

use crate::ir::{LANES, lanes};
use std::collections::HashMap;
use std::sync::Arc;

/// Up to which stamp the accesses of each thread of a block are known to come before.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Threads {
    /// Of all lanes of each warp.
    warps: Vec<u32>,
    /// Of single lanes of a warp, where more is known of some than of all.
    lanes: Vec<(u32, [u32; LANES])>,
}

impl Threads {
    /// Whether accesses of all lanes of `mask` with a stamp are known.
    pub(crate) fn cover(&self, warp: u32, mask: u32, stamp: u32) -> bool {
        self.warps.get(warp as usize).is_some_and(|&known| stamp <= known)
            || self
                .lanes
                .iter()
                .find(|(of, _)| *of == warp)
                .is_some_and(|(_, known)| lanes(mask).all(|lane| stamp <= known[lane]))
    }

    pub(crate) fn raise_warp(&mut self, warp: u32, stamp: u32) {
        if self.warps.len() <= warp as usize {
            self.warps.resize(warp as usize + 1, 0);
        }
        let known = &mut self.warps[warp as usize];
        *known = stamp.max(*known);
        let known = *known;
        self.lanes.retain(|(of, single)| *of != warp || single.iter().any(|&single| single > known));
    }

    pub(crate) fn raise_lanes(&mut self, warp: u32, mask: u32, stamp: u32) {
        let known = self.lanes_of(warp);
        lanes(mask).for_each(|lane| known[lane] = stamp.max(known[lane]));
    }

    fn lanes_of(&mut self, warp: u32) -> &mut [u32; LANES] {
        let index = self.lanes.iter().position(|(of, _)| *of == warp).unwrap_or_else(|| {
            self.lanes.push((warp, [0; LANES]));
            self.lanes.len() - 1
        });
        &mut self.lanes[index].1
    }

    pub(crate) fn join(&mut self, other: &Threads) {
        self.warps.resize(self.warps.len().max(other.warps.len()), 0);
        raise(&mut self.warps, &other.warps);
        for (warp, theirs) in &other.lanes {
            raise(self.lanes_of(*warp), theirs);
        }
    }
}

fn raise(ours: &mut [u32], theirs: &[u32]) {
    ours.iter_mut().zip(theirs).for_each(|(a, &b)| *a = b.max(*a));
}

/// Bits of a block's number that each level of [`Blocks`] looks at.
const LEVEL: u32 = 4;
/// Where the topmost level's bits begin.
const TOP: u32 = 28;

/// What is known of the threads of many blocks. A tree whose parts are shared: a copy costs nothing, an insertion one path, and a
/// join only what differs, so that a barrier of a whole grid stays cheap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blocks(Option<Arc<Node>>);

#[derive(Clone, Debug)]
enum Node {
    Inner([Option<Arc<Node>>; 1 << LEVEL]),
    Leaf(Threads),
}

impl Blocks {
    pub(crate) fn get(&self, block: u32) -> Option<&Threads> {
        let mut node = self.0.as_ref()?;
        for shift in (0..=TOP).rev().step_by(LEVEL as usize) {
            let Node::Inner(children) = &**node else { return None };
            node = children[child(block, shift)].as_ref()?;
        }
        match &**node {
            Node::Leaf(threads) => Some(threads),
            Node::Inner(_) => None,
        }
    }

    pub(crate) fn add(&mut self, block: u32, threads: Threads) {
        let mut path = Arc::new(Node::Leaf(threads));
        for shift in (0..=TOP).step_by(LEVEL as usize) {
            let mut children = std::array::from_fn(|_| None);
            children[child(block, shift)] = Some(path);
            path = Arc::new(Node::Inner(children));
        }
        join(&mut self.0, Some(&path));
    }

    pub(crate) fn join(&mut self, other: &Blocks) {
        join(&mut self.0, other.0.as_ref());
    }
}

fn child(block: u32, shift: u32) -> usize {
    (block >> shift) as usize % (1 << LEVEL)
}

fn join(ours: &mut Option<Arc<Node>>, theirs: Option<&Arc<Node>>) {
    let Some(theirs) = theirs else { return };
    let Some(node) = ours else {
        *ours = Some(theirs.clone());
        return;
    };
    if Arc::ptr_eq(node, theirs) {
        return;
    }
    match (Arc::make_mut(node), &**theirs) {
        (Node::Inner(a), Node::Inner(b)) => a.iter_mut().zip(b).for_each(|(a, b)| join(a, b.as_ref())),
        (Node::Leaf(a), Node::Leaf(b)) => {
            a.join(b);
            if a == b {
                *node = theirs.clone(); // one copy is enough, and the next join sees that it is the same
            }
        }
        _ => unreachable!("leaves are all equally deep"),
    }
}

/// What a thread knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// Of its block.
    pub own: Threads,
    /// Of other blocks; an entry for its own does not count.
    pub others: Blocks,
}

impl History {
    pub(crate) fn join(&mut self, other: &History) {
        self.own.join(&other.own);
        self.others.join(&other.others);
    }

    /// The same for threads of any block.
    fn published(&self, block: u32) -> Blocks {
        let mut all = self.others.clone();
        all.add(block, self.own.clone());
        all
    }
}

/// What a thread hands over by a flag: what came before its last fence, as far as that fence reaches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fenced {
    /// To threads of the block.
    pub near: Option<Arc<History>>,
    /// To all threads.
    pub wide: Option<Arc<History>>,
}

impl Fenced {
    pub(crate) fn join(&mut self, other: &Fenced) {
        for (ours, theirs) in [(&mut self.near, &other.near), (&mut self.wide, &other.wide)] {
            match (ours, theirs) {
                (Some(ours), Some(theirs)) if !Arc::ptr_eq(ours, theirs) => Arc::make_mut(ours).join(theirs),
                (ours @ None, Some(theirs)) => *ours = Some(theirs.clone()),
                _ => {}
            }
        }
    }

    /// What a flag of `block` then says; `None` if no fence came before.
    pub(crate) fn release(&self, block: u32) -> Option<Release> {
        let near = self.near.as_ref()?;
        let wide = self.wide.as_ref().map_or_else(Blocks::default, |wide| wide.published(block));
        let nothing_more = self.wide.as_ref().is_some_and(|wide| Arc::ptr_eq(wide, near));
        let near = if nothing_more { Vec::new() } else { vec![(block, near.published(block))] };
        Some(Release { wide, near })
    }
}

/// What a flag hands over to those who see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Release {
    wide: Blocks,
    /// To threads of single blocks.
    near: Vec<(u32, Blocks)>,
}

impl Release {
    pub(crate) fn join(&mut self, other: &Release) {
        self.wide.join(&other.wide);
        for (block, theirs) in &other.near {
            match self.near.iter_mut().find(|(of, _)| of == block) {
                Some((_, ours)) => ours.join(theirs),
                None => self.near.push((*block, theirs.clone())),
            }
        }
    }

    /// Adds to `known` what a thread of `block` may rely on; of what other blocks released, only if its own fence is `wide`.
    pub(crate) fn tell(&self, block: u32, wide: bool, known: &mut History) {
        let near = self.near.iter().filter(|(of, _)| *of == block).map(|(_, all)| (all, true));
        for (all, others_too) in near.chain([(&self.wide, wide)]) {
            if let Some(own) = all.get(block) {
                known.own.join(own);
            }
            if others_too {
                known.others.join(all);
            }
        }
    }
}

/// The flags of a page, by their offsets: what the value that stands there hands over.
#[derive(Debug, Default)]
pub(crate) struct Flags(HashMap<usize, Arc<Release>>);

impl Flags {
    pub(crate) fn get(&self, offset: usize) -> Option<&Arc<Release>> {
        self.0.get(&offset)
    }

    /// A write. What the old value handed over ends with it, unless the new one was made of the old by an atomic (`extends`).
    pub(crate) fn set(&mut self, offset: usize, release: Option<Release>, extends: bool) {
        match release {
            Some(release) if extends => Arc::make_mut(self.0.entry(offset).or_default()).join(&release),
            Some(release) => _ = self.0.insert(offset, Arc::new(release)),
            None if extends || self.0.is_empty() => {}
            None => _ = self.0.remove(&offset),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(warp: u32, stamp: u32) -> Threads {
        let mut threads = Threads::default();
        threads.raise_warp(warp, stamp);
        threads
    }

    #[test]
    fn single_lanes_are_known_better_than_their_warp() {
        let mut known = threads(1, 3);
        known.raise_lanes(1, 0b110, 5);
        assert!(known.cover(1, u32::MAX, 3) && known.cover(1, 0b110, 5) && !known.cover(1, 0b111, 4) && !known.cover(0, 1, 1));
        let mut other = threads(0, 2);
        other.raise_lanes(1, 0b1, 4);
        known.join(&other);
        assert!(known.cover(1, 0b111, 4) && !known.cover(1, 0b111, 5) && known.cover(0, u32::MAX, 2));
        known.raise_warp(1, 5);
        assert!(known.lanes.is_empty(), "of single lanes no more is known now");
    }

    #[test]
    fn blocks_anywhere_are_found_again_and_joins_share_what_is_the_same() {
        let numbers = [0, 1, 31, 32, 1 << 20, u32::MAX];
        let mut all = Blocks::default();
        for block in numbers {
            assert!(all.get(block).is_none());
            all.add(block, threads(0, block / 2 + 1));
        }
        for block in numbers {
            assert_eq!(all.get(block), Some(&threads(0, block / 2 + 1)));
        }
        let before = all.clone();
        let mut few = Blocks::default();
        few.add(32, threads(0, 5));
        few.join(&all);
        assert_eq!(few.get(32), Some(&threads(0, 17)));
        let leaf = |blocks: &Blocks| std::ptr::from_ref(blocks.get(32).unwrap());
        assert_eq!(leaf(&few), leaf(&before), "the greater leaf is taken as it is");
        all.add(32, threads(0, 100));
        assert_eq!((all.get(32), before.get(32)), (Some(&threads(0, 100)), Some(&threads(0, 17))), "copies are apart");
    }

    #[test]
    fn a_flag_tells_what_its_value_stands_for() {
        let history = |stamp| Arc::new(History { own: threads(0, stamp), others: Blocks::default() });
        let wide = |stamp| Fenced { near: Some(history(stamp)), wide: Some(history(stamp)) };
        let knows = |flags: &Flags, block: u32| {
            let mut known = History::default();
            if let Some(release) = flags.get(0) {
                release.tell(block, true, &mut known);
            }
            [1, 2].map(|of| {
                if of == block { known.own.cover(0, 1, 1) } else { known.others.get(of).is_some_and(|t| t.cover(0, 1, 1)) }
            })
        };
        let mut flags = Flags::default();
        flags.set(0, wide(1).release(1), false);
        assert_eq!((knows(&flags, 1), knows(&flags, 2)), ([true, false], [true, false]));
        flags.set(0, wide(1).release(2), true);
        assert_eq!(knows(&flags, 3), [true, true], "an atomic adds");
        flags.set(0, None, true);
        assert_eq!(knows(&flags, 3), [true, true], "also one that hands over nothing itself");
        flags.set(0, wide(1).release(2), false);
        assert_eq!(knows(&flags, 3), [false, true], "a store begins anew");
        flags.set(0, None, false);
        assert_eq!(knows(&flags, 3), [false, false], "without a fence it hands over nothing");
        flags.set(0, Fenced { near: Some(history(1)), wide: None }.release(1), false);
        assert_eq!(
            (knows(&flags, 1), knows(&flags, 2)),
            ([true, false], [false, false]),
            "a fence of the block reaches the block"
        );
    }
}
