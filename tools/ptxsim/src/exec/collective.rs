//! Warp-wide operations: shuffles, votes, matches, reductions, barriers of a warp.

use super::block::Core;
use super::step::Step;
use super::warp::{State, Warp};
use crate::fault::FaultKind;
use crate::ir::{Collective, LANES, Lanes, Op, Reg, ShuffleMode, VoteMode, VoteOut, lanes};

impl Core<'_> {
    /// The running fragment comes to a collective operation; it runs when all lanes that its mask names have come.
    pub(crate) fn collective(&mut self, warp: &mut Warp, active: u32, what: &Collective, mask: Reg) -> Step {
        let here = *warp.fragment();
        if active != here.mask {
            // A guard holds back some lanes: they go past.
            warp.diverge(&[(here.pc, active), (here.pc + 1, here.mask & !active)], here.pc + 1, 0);
        }
        let Some(named) = self.split_by_mask(warp, active, what, mask) else { return Step::Next };
        let wanted = named & warp.live;
        if wanted & !active == 0 {
            self.execute(warp, active, wanted & active, here.pc, what);
            warp.fragment().pc += 1;
            return Step::Next;
        }
        warp.fragment().state = State::AtCollective(named);
        let program = self.grid.program;
        let barrier = matches!(what, Collective::Barrier);
        let same = |pc: usize| {
            let at = &program.insts[pc].op;
            pc == here.pc || barrier && matches!(at, Op::Collective { what: Collective::Barrier, .. })
        };
        let arrived = |f: &super::warp::Fragment| f.state == State::AtCollective(named) && same(f.pc);
        let union = warp.fragments.iter().filter(|f| arrived(f)).fold(0, |union, f| union | f.mask);
        if wanted & !union == 0 {
            self.execute(warp, union, wanted, here.pc, what);
            for fragment in warp.fragments.iter_mut().filter(|f| arrived(f)) {
                fragment.state = State::Ready;
                fragment.pc += 1;
            }
        }
        Step::Switch
    }

    /// The mask that all active lanes name. Where they name several, as tiles of a warp do, the groups part: those that are complete
    /// do their part at once, the others come back one by one.
    fn split_by_mask(&mut self, warp: &mut Warp, active: u32, what: &Collective, mask: Reg) -> Option<u32> {
        let pc = warp.fragment().pc;
        let names = *warp.get(mask);
        let mut groups: Vec<(u32, u32)> = Vec::new();
        for lane in lanes(active) {
            match groups.iter_mut().find(|(named, _)| *named == names[lane] as u32) {
                Some((_, members)) => *members |= 1 << lane,
                None => groups.push((names[lane] as u32, 1 << lane)),
            }
        }
        for &(named, members) in groups.iter().filter(|(named, members)| members & !named != 0) {
            let lane = (members & !named).trailing_zeros();
            let message = format!("lane {lane} executes it, and the mask {named:#010x} does not name that lane");
            self.fault(FaultKind::DivergentBarrier, warp, lane, pc as u32, 0, None, message);
        }
        if let [(named, _)] = groups[..] {
            return Some(named);
        }
        let live = warp.live;
        let (complete, waiting): (Vec<_>, Vec<_>) = groups.into_iter().partition(|(named, members)| named & live & !members == 0);
        for &(named, members) in &complete {
            self.execute(warp, members, named & live & members, pc, what);
        }
        let done = complete.iter().fold(0, |done, (_, members)| done | members);
        if waiting.is_empty() {
            warp.fragment().pc += 1;
            return None;
        }
        let mut parts: Vec<(usize, u32)> = waiting.iter().map(|&(_, members)| (pc, members)).collect();
        if done != 0 {
            parts.push((pc + 1, done));
        }
        warp.diverge(&parts, pc + 1, 0);
        None
    }

    fn execute(&mut self, warp: &mut Warp, active: u32, together: u32, pc: usize, what: &Collective) {
        match *what {
            Collective::Barrier => {
                warp.clock.sync_lanes(together, warp.live, &mut self.time);
                self.event();
            }
            Collective::Shuffle { mode, value, lane, clamp, out, valid } => {
                let (values, sources, found) = shuffle(mode, warp.get(value), warp.get(lane), warp.get(clamp));
                let absent = |&l: &usize| found >> l & 1 == 1 && active >> sources[l] & 1 == 0;
                if let Some(lane) = lanes(active).find(absent) {
                    let message = format!("lane {lane} reads from lane {}, which does not take part", sources[lane]);
                    self.fault(FaultKind::DivergentBarrier, warp, lane as u32, pc as u32, 0, None, message);
                }
                warp.set(out, active, &values);
                if let Some(valid) = valid {
                    warp.set_pred(valid, active, found);
                }
            }
            Collective::Vote { mode, input, out } => {
                let holds = warp.test(input) & together;
                let all = holds == together;
                let result = match mode {
                    VoteMode::All => all,
                    VoteMode::Any => holds != 0,
                    VoteMode::Uniform => all || holds == 0,
                    VoteMode::Ballot => false,
                };
                match out {
                    VoteOut::Pred(pred) => warp.set_pred(pred, active, if result { u32::MAX } else { 0 }),
                    VoteOut::Value(register) => warp.set(register, active, &[u64::from(holds); LANES]),
                }
            }
            Collective::MatchAny { value, out } => {
                let values = *warp.get(value);
                let alike = |lane: usize| lanes(together).filter(|&l| values[l] == values[lane]).fold(0u64, |m, l| m | 1 << l);
                warp.set(out, active, &std::array::from_fn(alike));
            }
            Collective::MatchAll { value, out, all } => {
                let values = warp.get(value);
                let first = values[together.trailing_zeros() as usize % LANES];
                let same = lanes(together).all(|lane| values[lane] == first);
                warp.set(out, active, &[if same { u64::from(together) } else { 0 }; LANES]);
                if let Some(all) = all {
                    warp.set_pred(all, active, if same { u32::MAX } else { 0 });
                }
            }
            Collective::Reduce { f, value, out } => {
                let values = warp.get(value);
                let result = lanes(together).map(|lane| values[lane]).reduce(f).unwrap_or(0);
                warp.set(out, active, &[result; LANES]);
            }
            Collective::Elect { out, elected } => {
                let leader = together.trailing_zeros();
                warp.set(out, active, &[u64::from(leader); LANES]);
                warp.set_pred(elected, active, 1u32.checked_shl(leader).unwrap_or(0));
            }
        }
    }
}

/// PTX ISA, shfl.sync: values, the lanes they come from, and where the source was in range.
fn shuffle(mode: ShuffleMode, values: &Lanes, offsets: &Lanes, clamps: &Lanes) -> (Lanes, [usize; LANES], u32) {
    let mut sources = [0; LANES];
    let mut found = 0;
    for lane in 0..LANES {
        let (b, c) = (offsets[lane] as usize & 31, clamps[lane] as usize);
        let (clamp, segment) = (c & 31, c >> 8 & 31);
        let most = lane & segment | clamp & !segment;
        let least = lane & segment;
        let (source, valid) = match mode {
            ShuffleMode::Up => (lane.wrapping_sub(b), lane as isize - b as isize >= most as isize),
            ShuffleMode::Down => (lane + b, lane + b <= most),
            ShuffleMode::Butterfly => (lane ^ b, lane ^ b <= most),
            ShuffleMode::Index => (least | b & !segment, least | b & !segment <= most),
        };
        sources[lane] = if valid { source } else { lane };
        found |= u32::from(valid) << lane;
    }
    (std::array::from_fn(|lane| values[sources[lane]]), sources, found)
}
