//! What comes before what: vector clocks, made by barriers and by fences with flags.
//!
//! All lanes of a warp know the same most of the time, and it is kept once; what single lanes learn beyond that, from flags and from
//! barriers of part of the warp, is kept apart until a barrier of the whole warp brings it together.

use crate::ir::{LANES, Strength, lanes};
use crate::memory::{Fenced, History, Order, Release, Tag};
use std::sync::Arc;

/// What one lane has beyond what its warp has.
#[derive(Clone, Debug, Default)]
struct Lane {
    known: History,
    /// What it hands over by its next flags.
    fenced: Fenced,
    /// What flags said, not in force until a fence or barrier.
    heard: Option<Arc<Release>>,
    /// What was put in force last.
    told: Option<Arc<Release>>,
}

/// The clocks of the lanes of one warp.
#[derive(Debug)]
pub(crate) struct Clock {
    block: u32,
    warp: u32,
    /// Time of the last synchronisation: accesses carry it.
    pub stamp: u32,
    /// What all lanes know.
    known: History,
    /// Present once lanes differ.
    single: Option<Box<[Lane; LANES]>>,
    /// Whether threads of other blocks can ever be ordered before one of this.
    hands_over: bool,
}

impl Clock {
    /// The clock of a warp of a kernel that has fences or releases (`hands_over`), or none.
    pub(crate) fn new(block: u32, warp: u32, hands_over: bool) -> Clock {
        Clock { block, warp, stamp: 1, known: History::default(), single: None, hands_over }
    }

    /// Begins a new stamp: accesses from now on can be told from those before.
    pub(crate) fn tick(&mut self, time: &mut u32) {
        *time += 1;
        self.stamp = *time;
    }

    fn lane(&mut self, lane: usize) -> &mut Lane {
        &mut self.single.get_or_insert_default()[lane]
    }

    /// All that comes before what a lane does next.
    fn now(&self, lane: usize) -> History {
        let mut known = self.known.clone();
        known.own.raise_lanes(self.warp, 1 << lane, self.stamp);
        if let Some(single) = &self.single {
            known.join(&single[lane].known);
        }
        known
    }

    /// A barrier among lanes of the warp, of which `live` have not exited.
    pub(crate) fn sync_lanes(&mut self, mask: u32, live: u32, time: &mut u32) {
        if self.single.is_none() && mask == u32::MAX {
            self.known.own.raise_warp(self.warp, self.stamp);
            self.tick(time);
        } else {
            let mut meeting = Meeting::default();
            meeting.arrive(self, mask, time);
            meeting.leave(self, mask, live);
        }
    }

    /// A fence of some lanes: what came before can be handed over by flags from now on, and what flags said is in force.
    pub(crate) fn fence(&mut self, active: u32, wide: bool, time: &mut u32) {
        for lane in lanes(active) {
            self.take_heard(lane, wide);
            let now = Arc::new(self.now(lane));
            let fenced = &mut self.lane(lane).fenced;
            fenced.near = Some(now.clone());
            if wide {
                fenced.wide = Some(now);
            }
        }
        self.tick(time);
    }

    /// Puts in force what flags said to a lane; of what other blocks said only if `wide`, the rest waits for a wider fence.
    fn take_heard(&mut self, lane: usize, wide: bool) {
        let block = self.block;
        let Some(single) = &mut self.single else { return };
        let Lane { known, heard, told, .. } = &mut single[lane];
        if let Some(release) = heard.as_ref() {
            release.tell(block, wide, known);
        }
        if wide && heard.is_some() {
            *told = heard.take();
        }
    }

    /// What a strong write of a lane hands over: what came before its last fence, or before now if the write itself releases.
    pub(crate) fn release(&mut self, lane: usize, strength: Strength, time: &mut u32) -> Option<Release> {
        if strength.release {
            let mut fenced = self.single.as_ref().map_or_else(Fenced::default, |single| single[lane].fenced.clone());
            let now = Arc::new(self.now(lane));
            fenced.near = Some(now.clone());
            if !strength.narrow {
                fenced.wide = Some(now);
            }
            self.tick(time);
            return fenced.release(self.block);
        }
        self.single.as_ref()?[lane].fenced.release(self.block)
    }

    /// A strong read of a flag by a lane. What it says is in force at once if the read acquires, else from the next fence or barrier.
    pub(crate) fn hear(&mut self, lane: usize, release: &Arc<Release>, acquires: bool) {
        if self.relies_on(lane, Some(release)) {
            return; // most flags are read many times
        }
        let block = self.block;
        let Lane { known, heard, told, .. } = self.lane(lane);
        if acquires {
            release.tell(block, true, known);
            *told = Some(release.clone());
            return;
        }
        match heard {
            Some(heard) if Arc::ptr_eq(heard, release) => {}
            Some(heard) => Arc::make_mut(heard).join(release),
            None => *heard = Some(release.clone()),
        }
    }

    /// The order for an access of a lane to bytes of which `flag` says who made them what they are.
    pub(crate) fn behind<'c>(&'c self, lane: usize, flag: Option<&Arc<Release>>) -> BehindFlag<'c> {
        BehindFlag { clock: self, relies: self.relies_on(lane, flag) }
    }

    /// Whether the last flag that a lane relies on still says what it said.
    fn relies_on(&self, lane: usize, flag: Option<&Arc<Release>>) -> bool {
        let told = self.single.as_ref().and_then(|single| single[lane].told.as_ref());
        told.zip(flag).is_some_and(|(told, flag)| Arc::ptr_eq(told, flag))
    }
}

/// The order as a lane sees it that accesses a flag on which it relies: the writes that made the flag's value come before, too.
pub(crate) struct BehindFlag<'c> {
    clock: &'c Clock,
    relies: bool,
}

impl Order for BehindFlag<'_> {
    fn is_before(&self, earlier: Tag, now: Tag) -> bool {
        self.relies && earlier.is_released() || self.clock.is_before(earlier, now)
    }

    fn may_know_others(&self) -> bool {
        self.clock.hands_over
    }
}

impl Order for Clock {
    fn is_before(&self, earlier: Tag, now: Tag) -> bool {
        let own = earlier.block == self.block;
        if !own && !self.hands_over {
            return false;
        }
        let others = if own && earlier.warp() == self.warp { earlier.lanes & !now.lanes } else { earlier.lanes };
        let covers = |history: &History, mask: u32| {
            let threads = if own { Some(&history.own) } else { history.others.get(earlier.block) };
            threads.is_some_and(|threads| threads.cover(earlier.warp(), mask, earlier.stamp))
        };
        if covers(&self.known, others) {
            return true;
        }
        let Some(single) = &self.single else { return false };
        let single = &single[now.lanes.trailing_zeros() as usize % LANES].known;
        lanes(others).all(|of| covers(&self.known, 1 << of) || covers(single, 1 << of))
    }

    fn may_know_others(&self) -> bool {
        self.hands_over
    }
}

/// What arrivals at a barrier bring together.
#[derive(Debug, Default)]
pub(crate) struct Meeting {
    known: History,
    fenced: Fenced,
}

impl Meeting {
    /// The lanes of `mask` arrive.
    pub(crate) fn arrive(&mut self, clock: &mut Clock, mask: u32, time: &mut u32) {
        self.known.join(&clock.known);
        if mask == u32::MAX {
            self.known.own.raise_warp(clock.warp, clock.stamp);
        } else {
            // Not of lanes that have exited either: a barrier orders those that take part in it.
            self.known.own.raise_lanes(clock.warp, mask, clock.stamp);
        }
        if clock.single.is_some() {
            for lane in lanes(mask) {
                clock.take_heard(lane, true);
                let Lane { known, fenced, .. } = clock.lane(lane);
                self.known.join(known);
                self.fenced.join(fenced);
            }
        }
        clock.tick(time);
    }

    /// Lanes that waited go on; of their warp, `live` have not exited.
    pub(crate) fn leave(&self, clock: &mut Clock, mask: u32, live: u32) {
        let whole = live & !mask == 0;
        if whole {
            clock.known.join(&self.known);
            if let Some(single) = &mut clock.single {
                single.iter_mut().for_each(|lane| lane.known = History::default());
            }
        }
        if whole && self.fenced.near.is_none() {
            return;
        }
        for lane in lanes(mask) {
            let Lane { known, fenced, .. } = clock.lane(lane);
            if !whole {
                known.join(&self.known);
            }
            fenced.join(&self.fenced);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u32 = u32::MAX;

    fn access(clock: &Clock, lane: u32) -> Tag {
        Tag::new(clock.block, clock.warp, lane, 0, clock.stamp)
    }

    #[test]
    fn a_barrier_of_some_lanes_orders_those() {
        let (mut clock, mut time) = (Clock::new(0, 0, true), 1);
        let tags: Vec<Tag> = (0..4).map(|lane| access(&clock, lane)).collect();
        clock.sync_lanes(0b0110, ALL, &mut time);
        let before = |of: usize, lane: u32| clock.is_before(tags[of], access(&clock, lane));
        assert!(before(1, 2) && before(2, 1) && before(3, 3));
        assert!(!before(0, 1) && !before(1, 0) && !before(1, 3));
        clock.sync_lanes(ALL, ALL, &mut time);
        assert!((0..4).all(|of| clock.is_before(tags[of], access(&clock, 3))));
    }

    #[test]
    fn a_flag_is_heard_by_the_lane_that_reads_it_once_it_has_fenced() {
        let (mut writer, mut reader) = (Clock::new(0, 0, true), Clock::new(1, 0, true));
        let (mut time, mut later) = (1, 1);
        let [own, neighbour] = [3, 4].map(|lane| access(&writer, lane));
        assert!(writer.release(3, Strength::default(), &mut time).is_none(), "no fence, nothing handed over");
        writer.fence(1 << 3, true, &mut time);
        let after = access(&writer, 3);
        let release = Arc::new(writer.release(3, Strength::default(), &mut time).unwrap());
        assert!(writer.release(4, Strength::default(), &mut time).is_none(), "the fence was another lane's");
        reader.hear(7, &release, false);
        assert!(!reader.is_before(own, access(&reader, 7)));
        reader.fence(1 << 7, true, &mut later);
        assert!(reader.is_before(own, access(&reader, 7)));
        assert!(!reader.is_before(own, access(&reader, 8)), "the other lanes have not seen the flag");
        assert!(!reader.is_before(neighbour, access(&reader, 7)) && !reader.is_before(after, access(&reader, 7)));
        reader.sync_lanes(ALL, ALL, &mut later);
        assert!(reader.is_before(own, access(&reader, 8)));
    }

    #[test]
    fn a_barrier_hands_on_what_its_threads_fenced() {
        let (mut one, mut two, mut time) = (Clock::new(0, 0, true), Clock::new(0, 1, true), 1);
        let written = access(&one, 5);
        one.fence(ALL, true, &mut time);
        let mut meeting = Meeting::default();
        meeting.arrive(&mut one, ALL, &mut time);
        meeting.arrive(&mut two, ALL, &mut time);
        meeting.leave(&mut two, ALL, ALL);
        let release = Arc::new(two.release(0, Strength::default(), &mut time).unwrap());
        let mut reader = Clock::new(9, 0, true);
        reader.hear(0, &release, true);
        assert!(reader.is_before(written, access(&reader, 0)));
        let acquired_by_another_block_only = access(&two, 0);
        assert!(!reader.is_before(acquired_by_another_block_only, access(&reader, 0)));
    }
}
