//! What happened before what: vector clocks of warps, made by barriers and by fences with flags.

use crate::memory::{Order, Tag};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Stamps up to which accesses of each warp of a block are known to come before.
type Known = Vec<u32>;

/// What a warp knows of its block and of others.
#[derive(Clone, Debug, Default)]
struct Knowledge {
    own: Known,
    /// Of other blocks, by their number: learnt through flags in global memory.
    foreign: Option<Arc<BTreeMap<u32, Known>>>,
}

impl Knowledge {
    fn join(&mut self, other: &Knowledge) {
        raise(&mut self.own, &other.own);
        if let Some(theirs) = &other.foreign {
            self.join_foreign(theirs, u32::MAX);
        }
    }

    /// Takes in what is known of blocks other than `own_block`.
    fn join_foreign(&mut self, theirs: &Arc<BTreeMap<u32, Known>>, own_block: u32) {
        match &mut self.foreign {
            Some(ours) if Arc::ptr_eq(ours, theirs) => {}
            None if !theirs.contains_key(&own_block) => self.foreign = Some(theirs.clone()),
            ours => {
                let ours = Arc::make_mut(ours.get_or_insert_default());
                for (&block, known) in theirs.iter().filter(|(block, _)| **block != own_block) {
                    raise(ours.entry(block).or_default(), known);
                }
            }
        }
    }
}

fn raise(ours: &mut Known, theirs: &Known) {
    ours.resize(ours.len().max(theirs.len()), 0);
    ours.iter_mut().zip(theirs).for_each(|(a, &b)| *a = b.max(*a));
}

/// The clock of one warp.
#[derive(Debug)]
pub(crate) struct Clock {
    block: u32,
    warp: u32,
    /// Time of the last synchronisation: accesses carry it.
    pub stamp: u32,
    known: Knowledge,
    /// Accesses of this warp's own lanes up to this stamp come before.
    lanes_known: u32,
    /// The same for pairs of lanes, once a barrier of part of the warp was passed: `[lane][of lane]`.
    pairs: Option<Box<[[u32; 32]; 32]>>,
    /// What came before the last fence, and whether that reaches other blocks.
    fenced: Option<(Knowledge, bool)>,
    /// What flags said, not in force until a fence or barrier.
    heard: Option<Release>,
}

impl Clock {
    pub(crate) fn new(block: u32, warp: u32, warps: usize) -> Clock {
        let known = Knowledge { own: vec![0; warps], foreign: None };
        Clock { block, warp, stamp: 1, known, lanes_known: 0, pairs: None, fenced: None, heard: None }
    }

    /// All that comes before now, this warp's own accesses included.
    fn now(&self) -> Knowledge {
        let mut known = self.known.clone();
        known.own[self.warp as usize] = self.stamp;
        known
    }

    /// A barrier among lanes of the warp.
    pub(crate) fn sync_lanes(&mut self, mask: u32, live: u32, time: &mut u32) {
        if mask & live == live {
            self.lanes_known = self.stamp;
        } else {
            let pairs = self.pairs.get_or_insert_with(|| Box::new([[0; 32]; 32]));
            let lanes = || (0..32).filter(|lane| mask >> lane & 1 == 1);
            let mut joined = [0; 32];
            for lane in lanes() {
                (0..32).for_each(|of| joined[of] = pairs[lane][of].max(joined[of]));
            }
            lanes().for_each(|of| joined[of] = self.stamp);
            lanes().for_each(|lane| pairs[lane] = joined);
        }
        *time += 1;
        self.stamp = *time;
    }

    /// A fence: what came before can be handed over by flags from now on, and what flags said is in force.
    pub(crate) fn fence(&mut self, wide: bool, time: &mut u32) {
        self.take_heard();
        self.fenced = Some((self.now(), wide));
        *time += 1;
        self.stamp = *time;
    }

    fn take_heard(&mut self) {
        if let Some(release) = self.heard.take() {
            self.hear(&release);
        }
    }

    fn hear(&mut self, release: &Release) {
        for (&block, (known, wide)) in release {
            if block == self.block {
                self.known.join(known);
            } else if *wide {
                let mut theirs = known.foreign.as_deref().cloned().unwrap_or_default();
                raise(theirs.entry(block).or_default(), &known.own);
                if let Some(ours) = theirs.remove(&self.block) {
                    raise(&mut self.known.own, &ours);
                }
                self.known.join_foreign(&Arc::new(theirs), self.block);
            }
        }
    }
}

impl Order for Clock {
    fn is_before(&self, earlier: Tag, now: Tag) -> bool {
        if earlier.block != self.block {
            let foreign = self.known.foreign.as_ref().and_then(|blocks| blocks.get(&earlier.block));
            return foreign.is_some_and(|known| known.get(earlier.warp() as usize).is_some_and(|&k| earlier.stamp <= k));
        }
        if earlier.warp() != self.warp {
            return earlier.stamp <= self.known.own[earlier.warp() as usize];
        }
        // What a fence and a flag, or a barrier, handed to the warp from one of its own lanes counts for all of them.
        if earlier.stamp <= self.lanes_known.max(self.known.own[self.warp as usize]) {
            return true;
        }
        let Some(pairs) = &self.pairs else { return false };
        let others = earlier.lanes & !now.lanes;
        let lane = now.lanes.trailing_zeros() as usize % 32;
        (0..32).filter(|of| others >> of & 1 == 1).all(|of| earlier.stamp <= pairs[lane][of])
    }
}

/// What arrivals at a barrier of the block bring together.
#[derive(Debug, Default)]
pub(crate) struct Meeting {
    known: Knowledge,
    fenced: Option<(Knowledge, bool)>,
}

impl Meeting {
    /// A warp arrives.
    pub(crate) fn arrive(&mut self, clock: &mut Clock, time: &mut u32) {
        clock.take_heard();
        self.known.join(&clock.now());
        if let Some((known, wide)) = &clock.fenced {
            let (all, any_wide) = self.fenced.get_or_insert_default();
            all.join(known);
            *any_wide |= wide;
        }
        *time += 1;
        clock.stamp = *time;
    }

    /// A warp that waited goes on; `whole` if all its lanes waited.
    pub(crate) fn leave(&self, clock: &mut Clock, whole: bool) {
        let own = clock.warp as usize;
        let before = clock.known.own[own];
        clock.known.join(&self.known);
        if !whole {
            clock.known.own[own] = before;
        }
        if let Some((known, wide)) = &self.fenced {
            let (all, any_wide) = clock.fenced.get_or_insert_default();
            all.join(known);
            *any_wide |= wide;
        }
    }
}

/// What a flag hands over, by the block that set it, and whether other blocks may rely on it.
type Release = BTreeMap<u32, (Knowledge, bool)>;

/// Flags of a launch: addresses written by strong accesses after a fence.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    any: AtomicBool,
    flags: Mutex<HashMap<u64, Release>>,
}

impl Flags {
    /// A strong write. `at_once` for one that releases without a fence before it.
    pub(crate) fn write(&self, address: u64, clock: &mut Clock, at_once: bool, time: &mut u32) {
        if at_once {
            clock.fence(true, time);
        }
        let Some((known, wide)) = &clock.fenced else { return };
        self.any.store(true, Ordering::Release);
        let mut flags = self.flags.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, any_wide) = flags.entry(address).or_default().entry(clock.block).or_default();
        all.join(known);
        *any_wide |= wide;
    }

    /// A strong read. What it says is in force `at_once` for atomics and acquiring loads, else from the next fence or barrier.
    pub(crate) fn read(&self, address: u64, clock: &mut Clock, at_once: bool) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let flags = self.flags.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(release) = flags.get(&address) else { return };
        if at_once {
            clock.hear(release);
            return;
        }
        let heard = clock.heard.get_or_insert_default();
        for (&block, (known, wide)) in release {
            let (all, any_wide) = heard.entry(block).or_default();
            all.join(known);
            *any_wide |= wide;
        }
    }
}
