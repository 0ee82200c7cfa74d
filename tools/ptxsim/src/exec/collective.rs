//! Warp-wide operations: shuffles, votes, matches, reductions, barriers of a warp.

use super::access::lanes;
use super::block::Core;
use super::step::Step;
use super::warp::{State, Warp};
use crate::fault::FaultKind;
use crate::ir::{Collective, LANES, Lanes, Op, Reg, ShuffleMode, VoteMode, VoteOut};

impl Core<'_> {
    /// The running fragment comes to a collective operation; it runs when all lanes that its mask names have come.
    pub(crate) fn collective(&mut self, warp: &mut Warp, active: u32, what: &Collective, mask: Reg) -> Step {
        let here = *warp.fragment();
        if active != here.mask {
            // A guard holds back some lanes: they go past.
            warp.diverge(&[(here.pc, active), (here.pc + 1, here.mask & !active)], here.pc + 1, 0);
        }
        let first = active.trailing_zeros() as usize;
        let named = warp.get(mask)[first] as u32;
        if active & !named != 0 {
            let lane = (active & !named).trailing_zeros();
            let message = format!("lane {lane} executes it, and the mask {named:#010x} does not name that lane");
            self.fault(FaultKind::DivergentBarrier, warp, lane, here.pc as u32, 0, None, message);
        }
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
