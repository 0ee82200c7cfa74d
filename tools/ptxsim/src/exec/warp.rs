//! A warp: registers of 32 lanes, and the fragments into which divergence splits it.

use super::clock::Clock;
use super::copies::Copies;
use crate::ir::{Guard, Lanes, Pred, Reg, lanes};

/// Lanes that go together. A warp starts as one; a branch that divides a fragment makes two, which run in any order and rejoin at the
/// branch's immediate post-dominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub pc: usize,
    pub mask: u32,
    /// Index of the join where it waits for its other half.
    join: Option<usize>,
    pub state: State,
}

impl Fragment {
    fn ready(pc: usize, mask: u32, join: Option<usize>) -> Fragment {
        Fragment { pc, mask, join, state: State::Ready }
    }
}

/// How some lanes go round in a loop. When they come to a branch backwards, all that decides what they do next is compared with what it
/// was at an earlier one (Brent's cycle detection: at the last whose number is a power of two). If it is the same, and nothing in memory has
/// changed, they will go round for ever.
struct Rounds {
    mask: u32,
    progress: (u64, u64),
    count: u64,
    /// Where the earlier branch led, and what registers, predicates, carry flags and local memory were then.
    target: usize,
    registers: Vec<Lanes>,
    preds: Vec<u32>,
    carry: u32,
    local: Vec<u8>,
    /// A register that differed in the last round: the first to look at, so that a loop that counts costs one comparison a round.
    differed: usize,
    repeats: bool,
}

impl Rounds {
    fn new(mask: u32) -> Rounds {
        Rounds {
            mask,
            progress: (0, 0),
            count: 0,
            target: 0,
            registers: Vec::new(),
            preds: Vec::new(),
            carry: 0,
            local: Vec::new(),
            differed: 0,
            repeats: false,
        }
    }

    /// Whether `warp` is, as far as its lanes of the mask are concerned, as it was.
    fn is_same(&mut self, warp: &Warp, target: usize) -> bool {
        let mask = self.mask;
        let differs = |(was, is): (&Lanes, &Lanes)| was != is && lanes(mask).any(|lane| was[lane] != is[lane]);
        if let (Some(was), Some(is)) = (self.registers.get(self.differed), warp.registers.get(self.differed))
            && differs((was, is))
        {
            return false;
        }
        if let Some(register) = self.registers.iter().zip(&warp.registers).position(differs) {
            self.differed = register;
            return false;
        }
        let bits = |was: u32, is: u32| (was ^ is) & mask == 0;
        let preds = || self.preds.iter().zip(&warp.preds).all(|(&was, &is)| bits(was, is));
        target == self.target && bits(self.carry, warp.carry) && preds() && self.local == warp.local
    }

    fn keep(&mut self, warp: &Warp, target: usize) {
        self.target = target;
        self.registers.clone_from(&warp.registers);
        self.preds.clone_from(&warp.preds);
        self.carry = warp.carry;
        self.local.clone_from(&warp.local);
    }
}

/// Whether a fragment can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    /// Before a barrier that all lanes of the warp must reach together: others may still exit.
    Hesitant,
    /// At a barrier of the block, by its id.
    AtBarrier(usize),
    /// At a warp-wide operation that needs the lanes of this mask.
    AtCollective(u32),
}

/// A point where the parts of a divided fragment become one again.
#[derive(Clone, Copy, Debug)]
struct Join {
    pc: usize,
    parent: Option<usize>,
    expected: u32,
    arrived: u32,
}

/// The state of a warp.
pub(crate) struct Warp {
    pub id: u32,
    /// Lanes that have not exited.
    pub live: u32,
    registers: Vec<Lanes>,
    preds: Vec<u32>,
    /// The carry flag of extended-precision arithmetic.
    pub carry: u32,
    /// Local memory: `local_bytes` for each lane.
    pub local: Vec<u8>,
    pub fragments: Vec<Fragment>,
    joins: Vec<Join>,
    free_joins: Vec<usize>,
    /// Of lanes that go round in loops while nothing happens.
    rounds: Vec<Rounds>,
    /// Strong reads and atomics since lanes at joins were last let go, whether any loop waits for them or not.
    pub polls: u32,
    /// Fragment that runs.
    pub current: usize,
    pub clock: Clock,
    pub copies: Copies,
}

impl Warp {
    pub(crate) fn new(id: u32, live: u32, registers: Vec<Lanes>, preds: usize, local: usize, clock: Clock) -> Warp {
        Warp {
            id,
            live,
            registers,
            preds: vec![0; preds],
            carry: 0,
            local: vec![0; local],
            fragments: vec![Fragment::ready(0, live, None)],
            joins: Vec::new(),
            free_joins: Vec::new(),
            rounds: Vec::new(),
            polls: 0,
            current: 0,
            clock,
            copies: Copies::default(),
        }
    }

    /// A register.
    pub(crate) fn get(&self, register: Reg) -> &Lanes {
        &self.registers[register as usize]
    }

    /// Sets the active lanes of a register.
    pub(crate) fn set(&mut self, register: Reg, active: u32, value: &Lanes) {
        let out = &mut self.registers[register as usize];
        if active == u32::MAX {
            *out = *value;
        } else {
            lanes(active).for_each(|lane| out[lane] = value[lane]);
        }
    }

    /// The lanes where a predicate holds.
    pub(crate) fn test(&self, guard: Guard) -> u32 {
        let bits = self.preds[guard.pred as usize];
        if guard.negated { !bits } else { bits }
    }

    pub(crate) fn set_pred(&mut self, pred: Pred, active: u32, bits: u32) {
        let out = &mut self.preds[pred as usize];
        *out = *out & !active | bits & active;
    }

    /// The running fragment.
    pub(crate) fn fragment(&mut self) -> &mut Fragment {
        &mut self.fragments[self.current]
    }

    /// Whether some fragment can go on. One that hesitated can when no other can.
    pub(crate) fn is_ready(&mut self) -> bool {
        if self.fragments.iter().any(|f| f.state == State::Ready) {
            return true;
        }
        let hesitant = self.fragments.iter_mut().find(|f| f.state == State::Hesitant);
        hesitant.map(|fragment| fragment.state = State::Ready).is_some()
    }

    /// Whether a fragment other than the running one can go on.
    pub(crate) fn others_ready(&self) -> bool {
        self.fragments.iter().enumerate().any(|(i, f)| i != self.current && f.state == State::Ready)
    }

    /// Brings together what came to the instruction of the running fragment by other ways, where only the exit would have joined them
    /// again, and waits there for the whole warp.
    pub(crate) fn gather(&mut self) {
        let here = self.fragments[self.current];
        let alike = |f: &Fragment| f.pc == here.pc && f.join == here.join && f.state == State::Hesitant;
        let mask = self.fragments.iter().filter(|f| alike(f)).fold(here.mask, |mask, f| mask | f.mask);
        self.fragments[self.current].mask = mask;
        let own = self.fragments[self.current];
        self.fragments.retain(|f| !alike(f));
        self.current = self.fragments.iter().position(|f| *f == own).unwrap_or(0);
    }

    /// Lets lanes that wait at joins go on without those they wait for, which go round in loops: these may be what the loops wait
    /// for (independent thread scheduling, CUDA programming guide). Whether there were any.
    pub(crate) fn release_joins(&mut self) -> bool {
        let mut any = false;
        self.polls = 0;
        for index in (0..self.joins.len()).filter(|index| !self.free_joins.contains(index)) {
            let join = &mut self.joins[index];
            if join.arrived != 0 {
                any = true;
                join.expected &= !join.arrived;
                let mask = std::mem::take(&mut join.arrived);
                self.fragments.push(Fragment::ready(join.pc, mask, join.parent));
            }
        }
        any
    }

    /// Makes another ready fragment the running one, if there is one; the present one if it alone is ready.
    pub(crate) fn switch(&mut self) -> bool {
        if !self.is_ready() {
            return false;
        }
        let count = self.fragments.len();
        let next = (1..=count).map(|i| (self.current + i) % count.max(1)).find(|&i| self.fragments[i].state == State::Ready);
        self.current = next.unwrap_or(0);
        next.is_some()
    }

    /// Lets the running fragment arrive at its join if it stands there. False if it has to wait for others: then it is gone.
    pub(crate) fn rejoin(&mut self) -> bool {
        loop {
            let Fragment { pc, mask, join: Some(index), .. } = self.fragments[self.current] else { return true };
            let join = &mut self.joins[index];
            if join.pc != pc {
                return true;
            }
            join.arrived |= mask;
            if join.arrived != join.expected {
                self.fragments.swap_remove(self.current);
                return false;
            }
            let (mask, parent) = (join.arrived, join.parent);
            self.fragments[self.current] = Fragment::ready(pc, mask, parent);
            self.free_joins.push(index);
        }
    }

    /// Divides the running fragment into parts, each with where it goes on; the `first` runs first. `rejoin` is where they meet.
    pub(crate) fn diverge(&mut self, parts: &[(usize, u32)], rejoin: usize, first: usize) {
        let here = self.fragments[self.current];
        let shared = here.join.is_some_and(|index| self.joins[index].pc == rejoin);
        let join = if shared || rejoin == usize::MAX {
            here.join
        } else {
            let join = Join { pc: rejoin, parent: here.join, expected: here.mask, arrived: 0 };
            Some(match self.free_joins.pop() {
                Some(index) => {
                    self.joins[index] = join;
                    index
                }
                None => {
                    self.joins.push(join);
                    self.joins.len() - 1
                }
            })
        };
        for (i, &(pc, mask)) in parts.iter().enumerate() {
            let fragment = Fragment::ready(pc, mask, join);
            if i == first {
                self.fragments[self.current] = fragment;
            } else {
                self.fragments.push(fragment);
            }
        }
    }

    /// The running fragment jumps backwards while nothing happens: notices if it has been here before, in the same state.
    pub(crate) fn go_round(&mut self, target: usize, progress: (u64, u64)) {
        let mask = self.fragments[self.current].mask;
        let mut rounds = match self.rounds.iter().position(|rounds| rounds.mask == mask) {
            Some(index) => self.rounds.swap_remove(index),
            None => {
                let fragments = &self.fragments;
                self.rounds.retain(|rounds| fragments.iter().any(|f| f.mask == rounds.mask));
                Rounds::new(mask)
            }
        };
        if rounds.progress != progress {
            (rounds.progress, rounds.count, rounds.repeats) = (progress, 0, false);
        }
        rounds.count += 1;
        rounds.repeats = rounds.repeats || rounds.count > 1 && rounds.is_same(self, target);
        if rounds.count.is_power_of_two() && !rounds.repeats {
            rounds.keep(self, target);
        }
        self.rounds.push(rounds);
    }

    /// Whether every fragment that can go on repeats itself as long as progress is `now`.
    pub(crate) fn repeats(&self, now: (u64, u64)) -> bool {
        let repeats = |f: &Fragment| self.rounds.iter().any(|r| r.mask == f.mask && r.repeats && r.progress == now);
        self.fragments.iter().filter(|f| f.state == State::Ready).all(repeats)
    }

    /// Lanes of the running fragment exit.
    pub(crate) fn exit(&mut self, lanes: u32) {
        self.live &= !lanes;
        let fragment = &mut self.fragments[self.current];
        fragment.mask &= !lanes;
        if fragment.mask == 0 {
            self.fragments.swap_remove(self.current);
        }
        // Whoever waited for them waits no more.
        for index in 0..self.joins.len() {
            let join = &mut self.joins[index];
            if join.expected & lanes == 0 || self.free_joins.contains(&index) {
                continue;
            }
            join.expected &= !lanes;
            if join.expected == join.arrived {
                if join.arrived != 0 {
                    self.fragments.push(Fragment::ready(join.pc, join.arrived, join.parent));
                }
                self.free_joins.push(index);
            }
        }
        self.current = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::LANES;

    fn warp() -> Warp {
        Warp::new(0, u32::MAX, vec![[0; LANES]; 2], 1, 0, Clock::new(0, 0, false))
    }

    #[test]
    fn halves_rejoin_where_they_were_told() {
        let mut warp = warp();
        warp.diverge(&[(10, 0xFFFF), (5, 0xFFFF_0000)], 20, 0);
        assert_eq!((warp.fragment().pc, warp.fragment().mask, warp.fragments.len()), (10, 0xFFFF, 2));
        assert!(warp.rejoin());
        warp.fragment().pc = 20;
        assert!(!warp.rejoin());
        assert!(warp.switch());
        warp.fragment().pc = 20;
        assert!(warp.rejoin());
        assert_eq!((warp.fragment().mask, warp.fragments.len()), (u32::MAX, 1));
    }

    #[test]
    fn a_cycle_of_any_length_is_noticed_and_a_count_is_not() {
        for period in [1, 3, 8, 1000] {
            let mut warp = warp();
            let mut noticed = (0..4 * period).filter(|round| {
                warp.set(1, u32::MAX, &[round % period; LANES]);
                warp.go_round(3, (1, 1));
                warp.repeats((1, 1))
            });
            let first = noticed.next().unwrap_or_else(|| panic!("a cycle of {period} rounds"));
            assert!((period..3 * period).contains(&first), "{period}: {first}");
            drop(noticed);
            assert!(!warp.repeats((2, 1)), "something has changed");
            warp.go_round(3, (2, 1));
            assert!(!warp.repeats((2, 1)));
        }
        let mut warp = warp();
        for round in 0..5000 {
            warp.set(0, 0x10, &[round; LANES]);
            warp.go_round(3, (1, 1));
            assert!(!warp.repeats((1, 1)));
        }
    }

    #[test]
    fn exited_lanes_are_not_waited_for() {
        let mut warp = warp();
        warp.diverge(&[(10, 0xFF), (5, !0xFF)], 20, 0);
        warp.diverge(&[(11, 0xF), (12, 0xF0)], 15, 1); // lanes 4-7 run
        warp.exit(0xF0);
        warp.current = warp.fragments.iter().position(|f| f.mask == 0xF).unwrap();
        warp.fragment().pc = 15;
        assert!(warp.rejoin(), "the other half is gone");
        assert_eq!(warp.fragment().mask, 0xF);
        warp.exit(0xF);
        assert_eq!(warp.live, !0xFF);
        warp.fragment().pc = 20;
        assert!(warp.rejoin());
        assert_eq!((warp.fragment().mask, warp.fragments.len()), (!0xFF, 1));
    }
}
