//! Operands as registers.

use super::decode::{Builder, Frame, Placement, Slot};
use super::opcode::Opcode;
use super::{Address, Guard, Inst, Op, Pred, Preset, Reg};
use crate::count::Class;
use crate::error::{Complaint, Parsed};
use crate::syntax::{Function, Operand, Space, Statement, Type};
use std::cell::Cell;

/// One statement being decoded.
pub(super) struct Context<'c, 'm> {
    pub builder: &'c mut Builder<'m>,
    pub frame: &'c Frame,
    pub function: &'m Function,
    pub statement: &'m Statement,
    pub opcode: Opcode<'m>,
    /// Operands that were looked at, one bit each.
    read: Cell<u64>,
}

impl<'c, 'm> Context<'c, 'm> {
    pub(super) fn new(
        builder: &'c mut Builder<'m>,
        frame: &'c Frame,
        function: &'m Function,
        statement: &'m Statement,
        opcode: Opcode<'m>,
    ) -> Context<'c, 'm> {
        Context { builder, frame, function, statement, opcode, read: Cell::new(0) }
    }

    pub(super) fn fail<T>(&self, message: impl Into<String>) -> Parsed<T> {
        Err(Complaint::new(self.statement.line, message))
    }

    /// The error of an instruction that exists in PTX, perhaps, but not here.
    pub(super) fn unknown<T>(&self) -> Parsed<T> {
        self.fail(format!("unknown instruction `{}`", self.statement.opcode))
    }

    /// Takes a modifier that must be there.
    pub(super) fn needs(&mut self, modifier: &str) -> Parsed<()> {
        if self.opcode.flag(modifier) { Ok(()) } else { self.unknown() }
    }

    pub(super) fn operand(&self, index: usize) -> Parsed<&'m Operand> {
        match self.statement.operands.get(index) {
            Some(operand) => {
                self.read.set(self.read.get() | 1 << index.min(63));
                Ok(operand)
            }
            None => self.fail(format!("`{}` needs more than {index} operands", self.statement.opcode)),
        }
    }

    /// Fails if there are operands that the instruction does not take.
    pub(super) fn check_operands(&self) -> Parsed<()> {
        let taken = self.read.get().trailing_ones() as usize;
        if taken >= self.count() { Ok(()) } else { self.expect_operands(taken) }
    }

    pub(super) fn count(&self) -> usize {
        self.statement.operands.len()
    }

    /// Fails unless there are exactly this many operands.
    pub(super) fn expect_operands(&self, count: usize) -> Parsed<()> {
        if self.count() == count {
            return Ok(());
        }
        self.fail(format!("`{}` takes {count} operands, not {}", self.statement.opcode, self.count()))
    }

    /// Adds an instruction.
    pub(super) fn push(&mut self, class: Class, op: Op) -> Parsed<()> {
        let guard = match self.statement.guard {
            None => None,
            Some((register, negated)) => Some(Guard { pred: self.pred_register(register)?, negated }),
        };
        self.builder.push(self.statement, Inst { guard, op }, class);
        Ok(())
    }

    fn pred_register(&self, register: usize) -> Parsed<Pred> {
        match self.frame.registers.get(register) {
            Some(Slot::Pred(pred)) => Ok(*pred),
            _ => self.fail("a predicate is needed here, not a value"),
        }
    }

    /// A source value of `bits` bits.
    pub(super) fn value(&mut self, index: usize, bits: u32) -> Parsed<Reg> {
        let operand = self.operand(index)?;
        self.value_of(operand, Some(bits))
    }

    /// A source value of any width: of ld, st, cvt, which take wider registers than their type.
    pub(super) fn loose(&mut self, index: usize) -> Parsed<Reg> {
        let operand = self.operand(index)?;
        self.value_of(operand, None)
    }

    pub(super) fn value_of(&mut self, operand: &Operand, bits: Option<u32>) -> Parsed<Reg> {
        let keep = bits.map_or(u64::MAX, super::values::mask);
        match operand {
            Operand::Register(register) => match self.frame.registers.get(*register) {
                Some(&Slot::Value(register, width)) => match bits {
                    Some(bits) if bits != width => {
                        self.fail(format!("a register of {width} bits where `{}` takes {bits}", self.statement.opcode))
                    }
                    _ => Ok(register),
                },
                Some(Slot::Pred(_)) => self.fail("a value is needed here, not a predicate"),
                _ => self.fail("128-bit registers are not supported"),
            },
            Operand::Int(value) => Ok(self.builder.preset(Preset::Constant(value & keep))),
            Operand::F32(_) | Operand::F64(_) if !self.takes_floats() => {
                self.fail(format!("`{}` takes integers", self.statement.opcode))
            }
            Operand::F32(_) if bits.is_some_and(|bits| bits != 32) => {
                self.fail(format!("a number of 32 bits where `{}` takes {}", self.statement.opcode, bits.unwrap_or(0)))
            }
            Operand::F32(value) => Ok(self.builder.preset(Preset::Constant((*value).into()))),
            Operand::F64(value) if bits == Some(32) => {
                let narrow = (f64::from_bits(*value) as f32).to_bits();
                Ok(self.builder.preset(Preset::Constant(narrow.into())))
            }
            Operand::F64(_) if bits.is_some_and(|bits| bits != 64) => {
                self.fail(format!("a number of 64 bits where `{}` takes {}", self.statement.opcode, bits.unwrap_or(0)))
            }
            Operand::F64(value) => Ok(self.builder.preset(Preset::Constant(*value))),
            Operand::Special(name) => match special(name) {
                Some(_) if bits.is_some_and(|bits| bits < 32) => {
                    self.fail(format!("`{name}` has 32 bits, and `{}` takes fewer", self.statement.opcode))
                }
                Some(preset) => Ok(self.builder.preset(preset)),
                None => self.fail(format!("unknown register `{name}`")),
            },
            Operand::Local(_) | Operand::Global(_) => self.variable(operand, 0, bits),
            Operand::Offset(base, offset) => match **base {
                Operand::Local(_) | Operand::Global(_) => self.variable(base, *offset, bits),
                _ => self.fail("an offset outside brackets is only for variables"),
            },
            Operand::Label(_) => self.fail("an undeclared name"),
            _ => self.fail(format!("`{}` does not take an operand of this form", self.statement.opcode)),
        }
    }

    /// Whether a number with a point can stand in the instruction.
    fn takes_floats(&self) -> bool {
        let mut types = self.statement.opcode.split('.').filter_map(Type::parse);
        types.any(|ty| !ty.is_integer() || matches!(ty, Type::B16 | Type::B32 | Type::B64))
    }

    /// The address of a variable in its own space, plus an offset, as a value of `bits` bits.
    fn variable(&mut self, operand: &Operand, offset: i64, bits: Option<u32>) -> Parsed<Reg> {
        let (space, preset) = self.place(operand, offset)?;
        let fits = match preset {
            // Only addresses in global memory need more than 32 bits.
            Preset::Constant(address) => address <= u64::from(u32::MAX),
            _ => space == Space::Shared && (0..=i64::from(u32::MAX >> 1)).contains(&offset),
        };
        if bits.is_some_and(|bits| bits < 32 || (bits == 32 && !fits)) {
            return self.fail(format!("this address does not fit what `{}` takes", self.statement.opcode));
        }
        Ok(self.builder.preset(preset))
    }

    /// The space of a variable and its address there.
    fn place(&mut self, operand: &Operand, offset: i64) -> Parsed<(Space, Preset)> {
        let placement = match operand {
            Operand::Local(index) => match self.frame.variables.get(*index) {
                Some(&placement) => placement,
                None => return self.fail("a variable that is not declared"),
            },
            Operand::Global(index) => self.builder.module_variable(*index),
            _ => return self.fail("not a variable"),
        };
        let at = |start: u64| Preset::Constant(start.wrapping_add_signed(offset));
        Ok(match placement {
            Placement::Shared(start) => (Space::Shared, at(start)),
            Placement::DynamicShared => (Space::Shared, Preset::DynamicBase(offset)),
            Placement::Local(start) => (Space::Local, at(start)),
            Placement::Parameter(start) => (Space::Param, at(start)),
            Placement::Module(index) => (Space::Global, Preset::Variable(index, offset)),
        })
    }

    /// A destination of exactly `bits` bits; `_` is a register that nobody reads.
    pub(super) fn dest_bits(&mut self, index: usize, bits: u32) -> Parsed<Reg> {
        let operand = self.operand(index)?;
        self.dest_exactly(operand, bits)
    }

    /// The same of an operand.
    pub(super) fn dest_exactly(&mut self, operand: &Operand, bits: u32) -> Parsed<Reg> {
        match self.dest_of(operand)? {
            (register, width) if width == bits || *operand == Operand::Sink => Ok(register),
            (_, width) => self.fail(format!("a destination of {width} bits where `{}` gives {bits}", self.statement.opcode)),
        }
    }

    /// A destination and its width.
    pub(super) fn dest_of(&mut self, operand: &Operand) -> Parsed<(Reg, u32)> {
        match operand {
            Operand::Register(register) => match self.frame.registers.get(*register) {
                Some(&Slot::Value(register, width)) => Ok((register, width)),
                Some(Slot::Pred(_)) => self.fail("the destination must be a value, not a predicate"),
                _ => self.fail("128-bit registers are not supported"),
            },
            Operand::Sink => Ok((self.builder.fresh(), 64)),
            _ => self.fail("the destination must be a register"),
        }
    }

    /// Bits of an operand that is a register with a value.
    pub(super) fn width(&self, index: usize) -> Parsed<u32> {
        match self.operand(index)? {
            Operand::Register(register) => match self.frame.registers.get(*register) {
                Some(Slot::Value(_, width)) => Ok(*width),
                _ => self.fail("a value is needed here"),
            },
            _ => self.fail("a register is needed here"),
        }
    }

    /// Whether an operand is a predicate register.
    pub(super) fn is_pred(&self, operand: &Operand) -> bool {
        let slot = |register: &usize| matches!(self.frame.registers.get(*register), Some(Slot::Pred(_)));
        match operand {
            Operand::Register(register) => slot(register),
            Operand::NotRegister(_) => true,
            _ => false,
        }
    }

    /// A predicate read by an instruction, perhaps negated. Constants are allowed: 0 and 1 as false and true.
    pub(super) fn guard(&mut self, index: usize) -> Parsed<Guard> {
        match self.operand(index)? {
            Operand::Register(register) => Ok(Guard { pred: self.pred_register(*register)?, negated: false }),
            Operand::NotRegister(register) => Ok(Guard { pred: self.pred_register(*register)?, negated: true }),
            Operand::Int(value @ (0 | 1 | u64::MAX)) => Ok(Guard { pred: self.builder.never(), negated: *value != 0 }),
            _ => self.fail("a predicate is needed here"),
        }
    }

    /// A predicate written by an instruction; `None` for `_`.
    pub(super) fn pred_dest(&mut self, operand: &Operand) -> Parsed<Option<Pred>> {
        match operand {
            Operand::Register(register) => self.pred_register(*register).map(Some),
            Operand::Sink => Ok(None),
            _ => self.fail("the destination must be a predicate"),
        }
    }

    /// One or two predicates: `p` or `p|q`.
    pub(super) fn pred_pair(&mut self, index: usize) -> Parsed<(Option<Pred>, Option<Pred>)> {
        match self.operand(index)? {
            Operand::Pair(p, q) => Ok((self.pred_dest(p)?, self.pred_dest(q)?)),
            p => Ok((self.pred_dest(p)?, None)),
        }
    }

    /// A value of 32 bits and perhaps a predicate: `d` or `d|p`.
    pub(super) fn value_and_pred(&mut self, index: usize) -> Parsed<(Reg, Option<Pred>)> {
        match self.operand(index)? {
            Operand::Pair(d, p) => Ok((self.dest_exactly(d, 32)?, self.pred_dest(p)?)),
            d => Ok((self.dest_exactly(d, 32)?, None)),
        }
    }

    /// `[base + offset]` in `space`, or in the space of the variable it names.
    pub(super) fn address(&mut self, index: usize, space: Space) -> Parsed<Address> {
        let Operand::Address(base, offset) = self.operand(index)? else {
            return self.fail("an address in brackets is needed here");
        };
        match &**base {
            operand @ (Operand::Local(_) | Operand::Global(_)) => {
                let (found, preset) = self.place(operand, *offset)?;
                // Argument slots of calls are local memory here, and constants global, whatever the instruction calls them.
                let space = match space {
                    Space::Param | Space::Generic => found,
                    Space::Const if found == Space::Global => Space::Const,
                    space if space == found => space,
                    _ => return self.fail(format!("`{}` of a variable that is in other memory", self.statement.opcode)),
                };
                Ok(Address { space, base: self.builder.preset(preset), offset: 0 })
            }
            Operand::Register(register)
                if matches!(space, Space::Global | Space::Generic)
                    && matches!(self.frame.registers.get(*register), Some(Slot::Value(_, width)) if *width < 64) =>
            {
                self.fail("an address in global memory, or a generic one, has 64 bits")
            }
            operand => Ok(Address { space, base: self.value_of(operand, None)?, offset: *offset }),
        }
    }

    /// The elements of `{a, b, ...}`, or the operand itself.
    pub(super) fn elements(&self, index: usize) -> Parsed<&'m [Operand]> {
        Ok(match self.operand(index)? {
            Operand::Vector(all) => all,
            one => std::slice::from_ref(one),
        })
    }

    /// Source registers of a vector, 32 bits each.
    pub(super) fn registers(&mut self, index: usize) -> Parsed<Vec<Reg>> {
        let elements = self.elements(index)?;
        elements.iter().map(|operand| self.value_of(operand, Some(32))).collect()
    }

    /// Destination registers of a vector, 32 bits each.
    pub(super) fn dests(&mut self, index: usize) -> Parsed<Vec<Reg>> {
        let elements = self.elements(index)?;
        elements.iter().map(|operand| self.dest_exactly(operand, 32)).collect()
    }

    /// An integer that must be a literal.
    pub(super) fn literal(&self, index: usize) -> Parsed<u64> {
        match self.operand(index)? {
            Operand::Int(value) => Ok(*value),
            _ => self.fail("a number is needed here, not a register"),
        }
    }

    /// A register that holds a number.
    pub(super) fn constant(&mut self, value: u64) -> Reg {
        self.builder.preset(Preset::Constant(value))
    }
}

fn special(name: &str) -> Option<Preset> {
    if let Some((base, axis)) = name.rsplit_once('.') {
        let axis = ["x", "y", "z"].iter().position(|a| *a == axis)?;
        return Some(match base {
            "%tid" => Preset::Tid(axis),
            "%ntid" => Preset::Ntid(axis),
            "%ctaid" => Preset::Ctaid(axis),
            "%nctaid" => Preset::Nctaid(axis),
            // A block is a cluster of its own.
            "%clusterid" => Preset::Ctaid(axis),
            "%nclusterid" => Preset::Nctaid(axis),
            "%cluster_ctaid" => Preset::Constant(0),
            "%cluster_nctaid" => Preset::Constant(1),
            _ => return None,
        });
    }
    Some(match name {
        "%laneid" => Preset::LaneId,
        "%warpid" => Preset::WarpId,
        "%nwarpid" => Preset::NumWarps,
        "%lanemask_eq" => Preset::LaneMask(0),
        "%lanemask_lt" => Preset::LaneMask(1),
        "%lanemask_le" => Preset::LaneMask(2),
        "%lanemask_gt" => Preset::LaneMask(3),
        "%lanemask_ge" => Preset::LaneMask(4),
        "%dynamic_smem_size" => Preset::DynamicShared,
        "%total_smem_size" => Preset::TotalShared,
        "%smid" | "%gridid" | "%cluster_ctarank" => Preset::Constant(0),
        // Upper halves of counters that never come so far.
        "%clock_hi" | "%globaltimer_hi" => Preset::Constant(0),
        "%nsmid" | "%cluster_nctarank" => Preset::Constant(1),
        _ => return None,
    })
}
