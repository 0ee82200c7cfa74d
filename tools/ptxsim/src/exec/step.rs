//! One instruction of one warp.

use super::barrier::Arrival;
use super::block::Core;
use super::warp::{Fragment, State, Warp};
use crate::fault::FaultKind;
use crate::ir::{LANES, Lanes, Op, Reg, lanes};

/// Strong reads and atomics after which lanes that go round in a loop may wait for lanes of their warp at a join, even if they change
/// memory each time round: these are let go, see [`Warp::release_joins`].
const MOST_POLLS: u32 = 500;

/// What an instruction means for its warp's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Next,
    /// The running fragment waits, or gives way to others.
    Switch,
    /// A fragment came to a barrier of the block.
    Arrived(usize),
    /// Lanes exited.
    Exited,
}

impl Core<'_> {
    /// Executes the next instruction of the running fragment.
    pub(crate) fn step(&mut self, warp: &mut Warp) -> Step {
        let program = self.grid.program;
        let here = *warp.fragment();
        self.issued += 1;
        let Some(inst) = program.insts.get(here.pc) else {
            warp.exit(here.mask);
            return Step::Exited;
        };
        let holds = inst.guard.map_or(u32::MAX, |guard| warp.test(guard));
        let mut active = here.mask & holds;
        if inst.op.needs_whole_warp() && here.mask != warp.live && active != 0 {
            if warp.others_ready() {
                warp.fragment().state = State::Hesitant;
                return Step::Switch;
            }
            warp.gather();
            active = warp.fragment().mask & holds;
        }
        let site = here.pc as u32;
        let counts = &mut self.counts[here.pc];
        counts.warps += 1;
        counts.lanes += u64::from(active.count_ones());
        warp.polls += u32::from(inst.op.polls());
        if let Some(step) = self.control(warp, here.pc, active, &inst.op) {
            return step;
        }
        if active != 0 {
            if let Op::Collective { what, mask } = &inst.op {
                return self.collective(warp, active, what, *mask);
            }
            if let Op::Barrier { kind, id, threads, aligned } = inst.op {
                let lane = active.trailing_zeros() as usize;
                let differs = |register: Reg| lanes(active).any(|l| warp.get(register)[l] != warp.get(register)[lane]);
                if differs(id) || threads.is_some_and(differs) {
                    let message = "lanes of a warp name different barriers, or numbers of threads".to_string();
                    return self.broken_barrier(warp, active, message);
                }
                let threads = threads.map(|register| warp.get(register)[lane]);
                return self.arrive(warp, active, Arrival { kind, id: warp.get(id)[lane], threads, aligned });
            }
            self.compute(warp, active, site, &inst.op);
        }
        warp.fragment().pc += 1;
        Step::Next
    }

    /// Branches and exits; `None` for any other instruction.
    fn control(&mut self, warp: &mut Warp, pc: usize, active: u32, op: &Op) -> Option<Step> {
        let mask = warp.fragment().mask;
        match op {
            Op::Branch { target, rejoin } => {
                if active == mask {
                    if *target <= pc && warp.polls > MOST_POLLS {
                        warp.release_joins();
                    }
                    if *target <= pc && self.is_suspicious() {
                        warp.go_round(*target, self.progress());
                        if self.is_fruitless() {
                            warp.release_joins();
                        }
                    }
                    warp.fragment().pc = *target;
                } else if active == 0 {
                    warp.fragment().pc += 1;
                } else {
                    let first = (self.next_random() & 1) as usize;
                    warp.diverge(&[(*target, active), (pc + 1, mask & !active)], *rejoin, first);
                }
                Some(Step::Next)
            }
            Op::BranchTable { index, targets, rejoin } => Some(self.branch_table(warp, active, *index, targets, *rejoin)),
            Op::Exit if active != 0 => {
                if active != mask {
                    warp.fragment().pc += 1;
                }
                warp.exit(active);
                Some(Step::Exited)
            }
            Op::Trap if active != 0 => {
                let message = "the kernel executes `trap`: it found something wrong itself".to_string();
                self.fault(FaultKind::Deadlock, warp, active.trailing_zeros(), pc as u32, 0, None, message);
                self.broken = true;
                Some(Step::Switch)
            }
            _ => None,
        }
    }

    fn branch_table(&mut self, warp: &mut Warp, active: u32, index: Reg, targets: &[usize], rejoin: usize) -> Step {
        let Fragment { pc, mask, .. } = *warp.fragment();
        let indices = *warp.get(index);
        let mut parts: Vec<(usize, u32)> = Vec::new();
        for lane in lanes(active) {
            let Some(&target) = targets.get(indices[lane] as usize) else {
                let message = format!("a branch by index {} of a table of {} targets", indices[lane], targets.len());
                self.fault(FaultKind::OutOfBounds, warp, lane as u32, pc as u32, indices[lane], None, message);
                self.broken = true; // what follows is undefined (PTX ISA, brx.idx)
                return Step::Switch;
            };
            match parts.iter_mut().find(|part| part.0 == target) {
                Some(part) => part.1 |= 1 << lane,
                None => parts.push((target, 1 << lane)),
            }
        }
        if mask & !active != 0 {
            parts.push((pc + 1, mask & !active));
        }
        match parts[..] {
            [(target, _)] => warp.fragment().pc = target,
            _ => {
                let first = (self.next_random() % parts.len() as u64) as usize;
                warp.diverge(&parts, rejoin, first);
            }
        }
        Step::Next
    }

    fn compute(&mut self, warp: &mut Warp, active: u32, site: u32, op: &Op) {
        match op {
            Op::Value { f, d, a, b, c } => {
                let out = f(warp.get(*a), warp.get(*b), warp.get(*c));
                warp.set(*d, active, &out);
            }
            Op::Carry { f, d, a, b, c, writes } => {
                let mut carry = warp.carry;
                let (x, y, z) = (warp.get(*a), warp.get(*b), warp.get(*c));
                let out: Lanes = std::array::from_fn(|lane| {
                    let (value, over) = f(x[lane], y[lane], z[lane], carry >> lane & 1 == 1);
                    carry = carry & !(1 << lane) | u32::from(over) << lane;
                    value
                });
                if *writes {
                    warp.carry = warp.carry & !active | carry & active;
                }
                warp.set(*d, active, &out);
            }
            Op::SetPred { f, a, b, combine, d, q } => {
                let test = f(warp.get(*a), warp.get(*b));
                let with = |bits: u32| combine.map_or(bits, |(op, guard)| op.apply(bits, warp.test(guard)));
                let (yes, no) = (with(test), with(!test));
                for (pred, bits) in [(d, yes), (q, no)] {
                    if let Some(pred) = pred {
                        warp.set_pred(*pred, active, bits);
                    }
                }
            }
            Op::Set { f, a, b, combine, d, truth } => {
                let test = f(warp.get(*a), warp.get(*b));
                let bits = combine.map_or(test, |(op, guard)| op.apply(test, warp.test(guard)));
                let out = std::array::from_fn(|lane| if bits >> lane & 1 == 1 { *truth } else { 0 });
                warp.set(*d, active, &out);
            }
            Op::Select { p, d, a, b } => {
                let bits = warp.test(*p);
                let (x, y) = (warp.get(*a), warp.get(*b));
                let out = std::array::from_fn(|lane| if bits >> lane & 1 == 1 { x[lane] } else { y[lane] });
                warp.set(*d, active, &out);
            }
            Op::PredLogic { f, d, a, b, c } => {
                let bits = f(warp.test(*a), warp.test(*b), warp.test(*c));
                warp.set_pred(*d, active, bits);
            }
            Op::Unpack { parts, a, bits } => {
                let value = *warp.get(*a);
                for (i, part) in parts.iter().enumerate() {
                    let Some(register) = part else { continue };
                    let keep = u64::MAX >> (64 - bits);
                    warp.set(*register, active, &value.map(|x| x >> (i as u32 * bits) & keep));
                }
            }
            Op::Pack { parts, d, bits } => {
                let keep = u64::MAX >> (64 - bits);
                let joined = |lane: usize| {
                    let part = |(i, register): (usize, &Reg)| (warp.get(*register)[lane] & keep) << (i as u32 * bits);
                    parts.iter().enumerate().map(part).fold(0, |all, part| all | part)
                };
                let out = std::array::from_fn(joined);
                warp.set(*d, active, &out);
            }
            Op::Clock { d } => warp.set(*d, active, &[self.issued; LANES]),
            Op::ActiveMask { d } => warp.set(*d, active, &[u64::from(active); LANES]),
            Op::Load(load) => self.load(warp, active, site, load),
            Op::Store(store) => self.store(warp, active, site, store),
            Op::Atomic(atomic) => self.atomic(warp, active, site, atomic),
            Op::CopyAsync(copy) => self.copy_async(warp, active, site, copy),
            Op::CopyCommit => warp.copies.commit(active),
            Op::CopyWait { newest } => self.copy_wait(warp, active, *newest),
            Op::Fence { wide } => {
                warp.clock.fence(active, *wide, &mut self.time);
            }
            Op::LoadMatrix { .. } | Op::StoreMatrix { .. } | Op::MoveMatrix { .. } | Op::Mma { .. } => {
                if self.whole(warp, active, site) {
                    self.matrix(warp, site, op);
                }
            }
            Op::Branch { .. } | Op::BranchTable { .. } | Op::Collective { .. } | Op::Barrier { .. } => {}
            Op::Exit | Op::Trap | Op::Nothing => {}
        }
    }
}
