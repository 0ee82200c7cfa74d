//! Branches, barriers, fences, warp-wide operations, and the instructions that do nothing here.

use super::operands::Context;
use super::values::number;
use super::{BarrierKind, Collective, Op, ShuffleMode, VoteMode, VoteOut};
use crate::count::Class;
use crate::error::Parsed;
use crate::syntax::{Operand, Type};

impl<'m> Context<'_, 'm> {
    /// Decodes one statement; `in_call` if its function was expanded into another.
    pub(super) fn decode(&mut self, in_call: bool) -> Parsed<()> {
        if self.opcode.flag("b128") {
            return self.fail("values of 128 bits are not supported");
        }
        match self.opcode.name {
            "bra" => self.branch(),
            "brx" => self.branch_table(),
            "ret" if in_call => {
                self.opcode.flag("uni");
                self.push(Class::Control, Op::Branch { target: 0, rejoin: 0 })?;
                self.builder.branch_to(0, usize::MAX);
                Ok(())
            }
            "ret" | "exit" => {
                self.opcode.flag("uni");
                self.push(Class::Control, Op::Exit)
            }
            "trap" => self.push(Class::Control, Op::Trap),
            "brkpt" => self.push(Class::Control, Op::Nothing),
            "nanosleep" => {
                self.needs("u32")?;
                self.value(0, 32)?;
                self.push(Class::Control, Op::Nothing)
            }
            "pmevent" => {
                self.opcode.flag("mask");
                self.literal(0)?;
                self.push(Class::Control, Op::Nothing)
            }
            "bar" | "barrier" => self.barrier(),
            "membar" | "fence" => self.fence(),
            "shfl" => self.shuffle(),
            "vote" => self.vote(),
            "match" => self.matching(),
            "redux" => self.reduce(),
            "elect" => {
                self.needs("sync")?;
                let (out, elected) = self.value_and_pred(0)?;
                let Some(elected) = elected else { return self.fail("elect.sync needs a predicate: `d|p`") };
                let mask = self.value(1, 32)?;
                self.push(Class::Collective, Op::Collective { what: Collective::Elect { out, elected }, mask })
            }
            "activemask" => {
                self.needs("b32")?;
                let d = self.dest_bits(0, 32)?;
                self.push(Class::Collective, Op::ActiveMask { d })
            }
            "ld" | "ldu" | "st" | "atom" | "red" | "cp" | "prefetch" | "prefetchu" | "discard" | "applypriority"
            | "createpolicy" => self.memory(),
            "mma" | "ldmatrix" | "stmatrix" | "movmatrix" => self.tensor(),
            "mov" | "cvt" | "cvta" | "isspacep" | "setp" | "set" | "selp" | "slct" | "prmt" => self.moves(),
            _ => self.arithmetic(),
        }
    }

    fn arithmetic(&mut self) -> Parsed<()> {
        // The last type in the name is the operands'. Integer and floating-point forms share most names.
        let ty = self.statement.opcode.split('.').rev().find_map(Type::parse);
        match ty {
            Some(ty) if ty.is_integer() || matches!(ty, Type::Pred | Type::U16x2 | Type::S16x2) => self.integer(),
            Some(_) => self.float(),
            None => self.unknown(),
        }
    }

    fn branch(&mut self) -> Parsed<()> {
        self.opcode.flag("uni");
        self.expect_operands(1)?;
        let Operand::Label(label) = self.operand(0)? else { return self.fail("a branch needs a label") };
        let Some(target) = self.function.labels[*label] else { return self.fail("a branch to a label that is not there") };
        self.push(Class::Control, Op::Branch { target: 0, rejoin: 0 })?;
        self.builder.branch_to(0, target);
        Ok(())
    }

    fn branch_table(&mut self) -> Parsed<()> {
        if !self.opcode.flag("idx") {
            return self.unknown();
        }
        self.opcode.flag("uni");
        let index = self.value(0, 32)?;
        let Operand::Table(table) = self.operand(1)? else { return self.fail("brx.idx needs a table of branch targets") };
        let labels = &self.function.tables[*table];
        if labels.is_empty() {
            return self.fail("an empty table of branch targets");
        }
        self.push(Class::Control, Op::BranchTable { index, targets: vec![0; labels.len()], rejoin: 0 })?;
        for (i, &label) in labels.iter().enumerate() {
            match self.function.labels[label] {
                Some(target) => self.builder.branch_to(i, target),
                None => return self.fail("a branch to a label that is not there"),
            }
        }
        Ok(())
    }

    fn barrier(&mut self) -> Parsed<()> {
        let named = self.opcode.name == "barrier";
        if named {
            self.opcode.flag("cta");
        }
        if self.opcode.flag("warp") {
            if !self.opcode.flag("sync") {
                return self.unknown();
            }
            let mask = self.value(0, 32)?;
            return self.push(Class::Sync, Op::Collective { what: Collective::Barrier, mask });
        }
        let sync = self.opcode.flag("sync");
        let arrive = !sync && self.opcode.flag("arrive");
        let reduce = !sync && !arrive && self.opcode.flag("red");
        let aligned = !named || self.opcode.flag("aligned"); // bar is barrier.aligned
        let (kind, first) = match (sync, arrive, reduce) {
            (true, ..) => (BarrierKind::Sync, 0),
            (_, true, _) => (BarrierKind::Arrive, 0),
            (.., true) => {
                if self.count() < 3 {
                    return self.expect_operands(3);
                }
                let input = self.guard(self.count() - 1)?;
                let which = self.opcode.choice(&[("popc", 0), ("and", 1), ("or", 2)]);
                let kind = match (which, self.opcode.ty()) {
                    (Some(0), Some(Type::U32)) => BarrierKind::Popc { input, out: self.dest_bits(0, 32)? },
                    (Some(which @ 1..), Some(Type::Pred)) => {
                        let operand = self.operand(0)?;
                        let Some(out) = self.pred_dest(operand)? else { return self.fail("bar.red needs a destination") };
                        if which == 1 { BarrierKind::And { input, out } } else { BarrierKind::Or { input, out } }
                    }
                    _ => return self.unknown(),
                };
                (kind, 1)
            }
            _ => return self.unknown(),
        };
        let operands = self.count().saturating_sub(first + usize::from(first == 1));
        let id = self.value(first, 32)?;
        let threads = if operands > 1 { Some(self.value(first + 1, 32)?) } else { None };
        if arrive && threads.is_none() {
            return self.fail("bar.arrive needs a number of threads");
        }
        self.push(Class::Sync, Op::Barrier { kind, id, threads, aligned })
    }

    fn fence(&mut self) -> Parsed<()> {
        if self.opcode.flag("proxy") {
            // There is no other proxy here than the generic one.
            let Some(to_async) = self.opcode.choice(&[("async", true), ("alias", false)]) else { return self.unknown() };
            if to_async {
                self.opcode.choice(&[("global", ()), ("shared::cta", ()), ("shared::cluster", ())]);
            }
            return self.push(Class::Sync, Op::Nothing);
        }
        let narrow = if self.opcode.name == "membar" {
            self.opcode.choice(&[("cta", true), ("gl", false), ("sys", false)])
        } else {
            self.opcode.choice(&[("sc", ()), ("acq_rel", ()), ("acquire", ()), ("release", ())]);
            self.opcode.choice(&[("cta", true), ("cluster", false), ("gpu", false), ("sys", false)])
        };
        let Some(narrow) = narrow else { return self.unknown() };
        self.push(Class::Sync, Op::Fence { wide: !narrow })
    }

    fn shuffle(&mut self) -> Parsed<()> {
        if !self.opcode.flag("sync") {
            return self.fail("shfl without .sync is not in the PTX ISA since 6.4");
        }
        let modes =
            [("up", ShuffleMode::Up), ("down", ShuffleMode::Down), ("bfly", ShuffleMode::Butterfly), ("idx", ShuffleMode::Index)];
        let (Some(mode), true) = (self.opcode.choice(&modes), self.opcode.flag("b32")) else { return self.unknown() };
        self.expect_operands(5)?;
        let (out, valid) = self.value_and_pred(0)?;
        let (value, lane, clamp) = (self.value(1, 32)?, self.value(2, 32)?, self.value(3, 32)?);
        let mask = self.value(4, 32)?;
        let what = Collective::Shuffle { mode, value, lane, clamp, out, valid };
        self.push(Class::Collective, Op::Collective { what, mask })
    }

    fn vote(&mut self) -> Parsed<()> {
        if !self.opcode.flag("sync") {
            return self.fail("vote without .sync is not in the PTX ISA since 6.4");
        }
        let modes = [("all", VoteMode::All), ("any", VoteMode::Any), ("uni", VoteMode::Uniform), ("ballot", VoteMode::Ballot)];
        let Some(mode) = self.opcode.choice(&modes) else { return self.unknown() };
        let ty = if mode == VoteMode::Ballot { "b32" } else { "pred" };
        self.needs(ty)?;
        self.expect_operands(3)?;
        let out = match (mode, self.operand(0)?) {
            (VoteMode::Ballot, _) => VoteOut::Value(self.dest_bits(0, 32)?),
            (_, operand) => match self.pred_dest(operand)? {
                Some(pred) => VoteOut::Pred(pred),
                None => VoteOut::Value(self.builder.fresh()),
            },
        };
        let (input, mask) = (self.guard(1)?, self.value(2, 32)?);
        self.push(Class::Collective, Op::Collective { what: Collective::Vote { mode, input, out }, mask })
    }

    fn matching(&mut self) -> Parsed<()> {
        let any = self.opcode.flag("any");
        let all = !any && self.opcode.flag("all");
        let ty = self.opcode.ty().filter(|ty| matches!(ty, Type::B32 | Type::B64));
        let (Some(ty), true, true) = (ty, any || all, self.opcode.flag("sync")) else { return self.unknown() };
        self.expect_operands(3)?;
        let (out, pred) = self.value_and_pred(0)?;
        if any && pred.is_some() {
            return self.fail("match.any has no predicate");
        }
        let (value, mask) = (self.value(1, ty.bits())?, self.value(2, 32)?);
        let what = if any { Collective::MatchAny { value, out } } else { Collective::MatchAll { value, out, all: pred } };
        self.push(Class::Collective, Op::Collective { what, mask })
    }

    fn reduce(&mut self) -> Parsed<()> {
        self.needs("sync")?;
        let signed_min: fn(u64, u64) -> u64 = |a, b| if number(a, 32, true) < number(b, 32, true) { a } else { b };
        let signed_max: fn(u64, u64) -> u64 = |a, b| if number(a, 32, true) > number(b, 32, true) { a } else { b };
        let add: fn(u64, u64) -> u64 = |a, b| (a + b) & 0xFFFF_FFFF;
        let Some(name) = self.opcode.choice(&[("add", 0), ("min", 1), ("max", 2), ("and", 3), ("or", 4), ("xor", 5)]) else {
            return self.unknown();
        };
        let Some(ty) = self.opcode.ty() else { return self.unknown() };
        let arithmetic = name < 3;
        if !matches!((ty, arithmetic), (Type::U32 | Type::S32, true) | (Type::B32, false)) {
            return self.unknown();
        }
        let f: fn(u64, u64) -> u64 = match (name, ty.is_signed()) {
            (0, _) => add,
            (1, true) => signed_min,
            (2, true) => signed_max,
            (1, false) => |a, b| a.min(b),
            (2, false) => |a, b| a.max(b),
            (3, _) => |a, b| a & b,
            (4, _) => |a, b| a | b,
            _ => |a, b| a ^ b,
        };
        let (out, value, mask) = (self.dest_bits(0, 32)?, self.value(1, 32)?, self.value(2, 32)?);
        self.push(Class::Collective, Op::Collective { what: Collective::Reduce { f, value, out }, mask })
    }
}
