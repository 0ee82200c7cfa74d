//! Integer arithmetic, logic and bit fields.

use super::operands::Context;
use super::values::{map1, map2, map3, mask, number, signed};
use super::{Carry, Op, Reg, Value};
use crate::count::Class;
use crate::error::Parsed;
use crate::syntax::Type;

/// Which part of a product is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Low,
    High,
    Wide,
}

impl Context<'_, '_> {
    fn value_op(&mut self, f: Value, d: Reg, [a, b, c]: [Reg; 3]) -> Parsed<()> {
        self.push(Class::Integer, Op::Value { f, d, a, b, c })
    }

    /// `d, a` of `bits` bits.
    fn unary(&mut self, bits: u32, out: u32, f: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Parsed<()> {
        self.expect_operands(2)?;
        let (d, a) = (self.dest_bits(0, out)?, self.value(1, bits)?);
        self.value_op(map1(f), d, [a, a, a])
    }

    /// `d, a, b`, the result cut to the width.
    fn binary(&mut self, bits: u32, f: impl Fn(u64, u64) -> u64 + Send + Sync + 'static) -> Parsed<()> {
        self.expect_operands(3)?;
        let (d, a, b) = (self.dest_bits(0, bits)?, self.value(1, bits)?, self.value(2, bits)?);
        let keep = mask(bits);
        self.value_op(map2(move |x, y| f(x, y) & keep), d, [a, b, b])
    }

    pub(super) fn integer(&mut self) -> Parsed<()> {
        let name = self.opcode.name;
        if matches!(name, "add" | "sub" | "mad") && self.opcode.flag("cc") || matches!(name, "addc" | "subc" | "madc") {
            return self.extended();
        }
        match name {
            "mul" | "mad" | "mul24" | "mad24" => return self.product(),
            "dp4a" | "dp2a" => return self.dot(),
            "and" | "or" | "xor" | "not" => return self.logic(),
            "shl" | "shr" | "shf" => return self.shift(),
            "bfe" | "bfi" | "fns" | "szext" | "bmsk" | "lop3" => return self.fields(),
            _ => {}
        }
        let saturate = self.opcode.flag("sat");
        let relu = self.opcode.flag("relu");
        let shift_amount = self.opcode.flag("shiftamt");
        let Some(ty) = self.opcode.ty() else { return self.unknown() };
        let known = match name {
            "add" | "sub" => (!saturate || ty == Type::S32) && !relu && !shift_amount,
            "min" | "max" => (!relu || matches!(ty, Type::S32 | Type::S16x2)) && !saturate && !shift_amount,
            "bfind" => !saturate && !relu,
            _ => !saturate && !relu && !shift_amount,
        };
        if !known {
            return self.unknown();
        }
        if matches!(ty, Type::U16x2 | Type::S16x2) {
            return self.packed(ty, relu);
        }
        let bitwise = matches!(name, "popc" | "clz" | "brev" | "cnot");
        let signed_only = matches!(name, "abs" | "neg");
        if !if bitwise { is_bits(ty) } else { is_numeric(ty) && (ty.is_signed() || !signed_only) } {
            return self.unknown();
        }
        self.plain(ty, saturate, relu, shift_amount)
    }

    /// Instructions that have one type, which is known to suit them, and of whose flags the same is known.
    fn plain(&mut self, ty: Type, saturate: bool, relu: bool, shift_amount: bool) -> Parsed<()> {
        let (bits, sign) = (ty.bits(), ty.is_signed());
        let (low, high) = (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1);
        match self.opcode.name {
            "add" if saturate => {
                self.binary(bits, move |a, b| (number(a, bits, true) + number(b, bits, true)).clamp(low, high) as u64)
            }
            "sub" if saturate => {
                self.binary(bits, move |a, b| (number(a, bits, true) - number(b, bits, true)).clamp(low, high) as u64)
            }
            "add" => self.binary(bits, u64::wrapping_add),
            "sub" => self.binary(bits, u64::wrapping_sub),
            "div" => self.binary(bits, move |a, b| match (number(a, bits, sign), number(b, bits, sign)) {
                (_, 0) => u64::MAX, // unspecified in PTX; this is what devices give
                (a, b) => (a / b) as u64,
            }),
            "rem" => self.binary(bits, move |a, b| match (number(a, bits, sign), number(b, bits, sign)) {
                (a, 0) => a as u64,
                (a, b) => (a % b) as u64,
            }),
            "min" => self.binary(bits, move |a, b| {
                let least = number(a, bits, sign).min(number(b, bits, sign));
                if relu { least.max(0) as u64 } else { least as u64 }
            }),
            "max" => self.binary(bits, move |a, b| {
                let most = number(a, bits, sign).max(number(b, bits, sign));
                if relu { most.max(0) as u64 } else { most as u64 }
            }),
            "abs" => self.unary(bits, bits, move |a| signed(a, bits).unsigned_abs() & mask(bits)),
            "neg" => self.unary(bits, bits, move |a| a.wrapping_neg() & mask(bits)),
            "popc" => self.unary(bits, 32, |a| a.count_ones().into()),
            "clz" => self.unary(bits, 32, move |a| u64::from(a.leading_zeros()) - u64::from(64 - bits)),
            "brev" => self.unary(bits, bits, move |a| a.reverse_bits() >> (64 - bits)),
            "cnot" => self.unary(bits, bits, |a| u64::from(a == 0)),
            "bfind" => self.unary(bits, 32, move |a| {
                let a = if sign && signed(a, bits) < 0 { !a & mask(bits) } else { a };
                match (a.checked_ilog2(), shift_amount) {
                    (None, _) => 0xFFFF_FFFF,
                    (Some(top), false) => top.into(),
                    (Some(top), true) => u64::from(bits - 1 - top),
                }
            }),
            "sad" => {
                let (d, a, b, c) = (self.dest_bits(0, bits)?, self.value(1, bits)?, self.value(2, bits)?, self.value(3, bits)?);
                let f = map3(move |a, b, c| {
                    let distance = number(a, bits, sign).abs_diff(number(b, bits, sign)) as u64;
                    c.wrapping_add(distance) & mask(bits)
                });
                self.value_op(f, d, [a, b, c])
            }
            _ => self.unknown(),
        }
    }

    /// add, min and max on two 16-bit halves (sm_90).
    fn packed(&mut self, ty: Type, relu: bool) -> Parsed<()> {
        let sign = ty == Type::S16x2;
        let f: fn(i128, i128) -> i128 = match self.opcode.name {
            "add" => |a, b| a + b,
            "min" => |a, b| a.min(b),
            "max" => |a, b| a.max(b),
            _ => return self.unknown(),
        };
        self.binary(32, move |a, b| {
            super::values::halves([a, b], |[x, y]| {
                let result = f(number(x.into(), 16, sign), number(y.into(), 16, sign));
                (if relu { result.max(0) } else { result }) as u16
            })
        })
    }

    fn product(&mut self) -> Parsed<()> {
        let name = self.opcode.name;
        let part = self.opcode.choice(&[("lo", Part::Low), ("hi", Part::High), ("wide", Part::Wide)]);
        let saturate = self.opcode.flag("sat");
        let ty = self.opcode.ty().filter(|&ty| is_numeric(ty));
        let (Some(part), Some(ty)) = (part, ty) else { return self.unknown() };
        let (bits, sign) = (ty.bits(), ty.is_signed());
        let narrow = name.ends_with("24");
        let saturates = part == Part::High && ty == Type::S32 && name.starts_with("mad");
        if (part == Part::Wide && (bits == 64 || narrow)) || (narrow && bits != 32) || (saturate && !saturates) {
            return self.unknown();
        }
        let out = if part == Part::Wide { 2 * bits } else { bits };
        let multiply = move |a: u64, b: u64| -> u64 {
            if narrow {
                let product = number(a, 24, sign) * number(b, 24, sign);
                return (if part == Part::High { product >> 16 } else { product }) as u64;
            }
            multiplied(part, a, b, bits, sign)
        };
        let keep = mask(out);
        let (d, a, b) = (self.dest_bits(0, out)?, self.value(1, bits)?, self.value(2, bits)?);
        if name.starts_with("mul") {
            self.expect_operands(3)?;
            return self.value_op(map2(move |a, b| multiply(a, b) & keep), d, [a, b, b]);
        }
        self.expect_operands(4)?;
        let c = self.value(3, out)?;
        let f = map3(move |a, b, c| {
            if saturate {
                let sum = signed(multiply(a, b), bits) as i128 + signed(c, bits) as i128;
                return sum.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1) as u64 & keep;
            }
            multiply(a, b).wrapping_add(c) & keep
        });
        self.value_op(f, d, [a, b, c])
    }

    /// add.cc, addc, sub.cc, subc, mad.cc, madc: arithmetic with the carry flag.
    fn extended(&mut self) -> Parsed<()> {
        let name = self.opcode.name;
        let takes = name.ends_with('c');
        let writes = !takes || self.opcode.flag("cc");
        let part = self.opcode.choice(&[("lo", Part::Low), ("hi", Part::High)]);
        let Some(ty) = self.opcode.ty().filter(|&ty| is_numeric(ty) && ty.bits() >= 32) else { return self.unknown() };
        let (bits, sign) = (ty.bits(), ty.is_signed());
        let keep = mask(bits);
        let (d, a, b) = (self.dest_bits(0, bits)?, self.value(1, bits)?, self.value(2, bits)?);
        let add = move |x: u64, y: u64, carry: bool| {
            let sum = u128::from(x) + u128::from(y) + u128::from(carry && takes);
            (sum as u64 & keep, sum >> bits != 0)
        };
        let (f, c): (Carry, Reg) = match (name.trim_end_matches('c'), part) {
            ("add", None) => (Box::new(move |a, b, _, carry| add(a, b, carry)), b),
            ("sub", None) => {
                let subtract = move |a: u64, b: u64, _, borrow: bool| {
                    let result = i128::from(a) - i128::from(b) - i128::from(borrow && takes);
                    (result as u64 & keep, result < 0)
                };
                (Box::new(subtract), b)
            }
            ("mad", Some(part)) => {
                let multiply =
                    move |a: u64, b: u64, c: u64, carry: bool| add(multiplied(part, a, b, bits, sign) & keep, c, carry);
                (Box::new(multiply), self.value(3, bits)?)
            }
            _ => return self.unknown(),
        };
        self.push(Class::Integer, Op::Carry { f, d, a, b, c, writes })
    }

    /// dp4a and dp2a: dot products of bytes.
    fn dot(&mut self) -> Parsed<()> {
        let four = self.opcode.name == "dp4a";
        let high = self.opcode.choice(&[("lo", false), ("hi", true)]);
        let (Some(at), Some(bt)) = (self.opcode.ty(), self.opcode.ty()) else { return self.unknown() };
        let known = |ty: Type| matches!(ty, Type::U32 | Type::S32);
        if four == high.is_some() || !known(at) || !known(bt) {
            return self.unknown();
        }
        let (d, a, b, c) = (self.dest_bits(0, 32)?, self.value(1, 32)?, self.value(2, 32)?, self.value(3, 32)?);
        let f = map3(move |a, b, c| {
            let byte = |x: u64, i: u32, ty: Type| number(x >> (8 * i), 8, ty.is_signed());
            let sum: i128 = if four {
                (0..4).map(|i| byte(a, i, at) * byte(b, i, bt)).sum()
            } else {
                let first = if high == Some(true) { 2 } else { 0 };
                (0..2).map(|i| number(a >> (16 * i), 16, at.is_signed()) * byte(b, first + i, bt)).sum()
            };
            (sum as u64).wrapping_add(c) & 0xFFFF_FFFF
        });
        self.value_op(f, d, [a, b, c])
    }

    fn logic(&mut self) -> Parsed<()> {
        let name = self.opcode.name;
        let Some(ty) = self.opcode.ty() else { return self.unknown() };
        if ty == Type::Pred {
            let f: fn(u32, u32, u32) -> u32 = match name {
                "and" => |a, b, _| a & b,
                "or" => |a, b, _| a | b,
                "xor" => |a, b, _| a ^ b,
                _ => |a, _, _| !a,
            };
            let operand = self.operand(0)?;
            let Some(d) = self.pred_dest(operand)? else { return self.push(Class::Integer, Op::Nothing) };
            let a = self.guard(1)?;
            let b = if name == "not" { a } else { self.guard(2)? };
            return self.push(Class::Integer, Op::PredLogic { f, d, a, b, c: b });
        }
        let bits = ty.bits();
        if !is_bits(ty) {
            return self.unknown();
        }
        match name {
            "and" => self.binary(bits, |a, b| a & b),
            "or" => self.binary(bits, |a, b| a | b),
            "xor" => self.binary(bits, |a, b| a ^ b),
            _ => self.unary(bits, bits, move |a| !a & mask(bits)),
        }
    }

    fn shift(&mut self) -> Parsed<()> {
        let name = self.opcode.name;
        let left = name == "shl" || (name == "shf" && self.opcode.flag("l"));
        let right = !left && name == "shf" && self.opcode.flag("r");
        if name == "shf" {
            let wrap = self.opcode.choice(&[("wrap", true), ("clamp", false)]);
            let (Some(wrap), true, true) = (wrap, self.opcode.flag("b32"), left || right) else { return self.unknown() };
            let (d, a, b, c) = (self.dest_bits(0, 32)?, self.value(1, 32)?, self.value(2, 32)?, self.value(3, 32)?);
            let f = map3(move |low, high, count| {
                let count = if wrap { count & 31 } else { count.min(32) };
                let pair = high << 32 | low;
                (if left { (pair << count) >> 32 } else { pair >> count }) & 0xFFFF_FFFF
            });
            return self.value_op(f, d, [a, b, c]);
        }
        let known = |&ty: &Type| is_bits(ty) || (is_numeric(ty) && !left);
        let Some(ty) = self.opcode.ty().filter(known) else { return self.unknown() };
        let (bits, sign) = (ty.bits(), ty.is_signed());
        self.expect_operands(3)?;
        let (d, a, b) = (self.dest_bits(0, bits)?, self.value(1, bits)?, self.value(2, 32)?);
        let keep = mask(bits);
        let f = if left {
            map2(move |a, n| if n >= u64::from(bits) { 0 } else { a << n & keep })
        } else if sign {
            map2(move |a, n| (signed(a, bits) >> n.min(u64::from(bits) - 1)) as u64 & keep)
        } else {
            map2(move |a, n| if n >= u64::from(bits) { 0 } else { a >> n })
        };
        self.value_op(f, d, [a, b, b])
    }

    /// bfe, bfi, fns, szext, bmsk, lop3.
    fn fields(&mut self) -> Parsed<()> {
        let name = self.opcode.name;
        let clamp = self.opcode.choice(&[("clamp", true), ("wrap", false)]);
        let Some(ty) = self.opcode.ty() else { return self.unknown() };
        let (bits, sign) = (ty.bits(), ty.is_signed());
        let clamps = matches!(name, "szext" | "bmsk");
        let known = if matches!(name, "bfe" | "szext") { is_numeric(ty) } else { is_bits(ty) };
        let width = bits == 32 || (bits == 64 && matches!(name, "bfe" | "bfi"));
        if clamps != clamp.is_some() || !known || !width {
            return self.unknown();
        }
        let d = self.dest_bits(0, bits)?;
        let a = self.value(1, bits)?;
        match name {
            "lop3" => {
                let (b, c, table) = (self.value(2, 32)?, self.value(3, 32)?, self.literal(4)?);
                let f = map3(move |a, b, c| {
                    (0..8).filter(|i| table >> i & 1 == 1).fold(0, |out, i| {
                        let pick = |x: u64, bit: u32| if i >> bit & 1 == 1 { x } else { !x };
                        out | pick(a, 2) & pick(b, 1) & pick(c, 0)
                    }) & 0xFFFF_FFFF
                });
                self.value_op(f, d, [a, b, c])
            }
            "bfe" => {
                let (b, c) = (self.value(2, 32)?, self.value(3, 32)?);
                self.value_op(map3(move |a, start, length| extract(a, start, length, bits, sign)), d, [a, b, c])
            }
            "bfi" => {
                let (into, start, length) = (self.value(2, bits)?, self.value(3, 32)?, self.value(4, 32)?);
                // Four sources: start and length share a register.
                let both = self.builder.fresh();
                let join = map2(|start, length| (start & 0xFF) << 8 | length & 0xFF);
                self.value_op(join, both, [start, length, length])?;
                let f = map3(move |a, into, both| {
                    let (start, length) = (both >> 8, both & 0xFF);
                    let field = if length >= 64 { u64::MAX } else { (1 << length) - 1 };
                    let field = if start >= u64::from(bits) { 0 } else { field << start & mask(bits) };
                    into & !field | a.checked_shl(start as u32).unwrap_or(0) & field
                });
                self.value_op(f, d, [a, into, both])
            }
            "fns" => {
                let (b, c) = (self.value(2, 32)?, self.value(3, 32)?);
                self.value_op(map3(find_nth_set), d, [a, b, c])
            }
            "szext" => {
                let b = self.value(2, 32)?;
                let Some(clamp) = clamp else { return self.unknown() };
                let f = map2(move |a, n| match if clamp { n.min(32) } else { n & 31 } {
                    0 => 0,
                    n if sign => signed(a, n as u32) as u64 & 0xFFFF_FFFF,
                    n => a & mask(n as u32),
                });
                self.value_op(f, d, [a, b, b])
            }
            "bmsk" => {
                let b = self.value(2, 32)?;
                let Some(clamp) = clamp else { return self.unknown() };
                let f = map2(move |start, length| {
                    let cut = |n: u64| if clamp { n.min(32) } else { n & 31 };
                    ((1u64 << cut(length)) - 1) << cut(start) & 0xFFFF_FFFF
                });
                self.value_op(f, d, [a, b, b])
            }
            _ => self.unknown(),
        }
    }
}

/// Types without a sign, of the instructions that see bits and not numbers.
fn is_bits(ty: Type) -> bool {
    matches!(ty, Type::B16 | Type::B32 | Type::B64)
}

/// Types of integer arithmetic.
fn is_numeric(ty: Type) -> bool {
    ty.is_integer() && ty.bits() >= 16 && !is_bits(ty)
}

/// A part of the product of two numbers of `bits` bits; what stands above it is not cut off.
fn multiplied(part: Part, a: u64, b: u64, bits: u32, sign: bool) -> u64 {
    let wide = || if sign { (number(a, bits, true) * number(b, bits, true)) as u128 } else { u128::from(a) * u128::from(b) };
    match part {
        Part::Low => a.wrapping_mul(b), // the frequent case, without 128-bit numbers
        Part::High => (wide() >> bits) as u64,
        Part::Wide => wide() as u64,
    }
}

/// bfe (PTX ISA): `length` bits from `start`, filled with zero or, if signed, with the field's top bit.
fn extract(a: u64, start: u64, length: u64, bits: u32, sign: bool) -> u64 {
    let (start, length, top) = (start & 0xFF, length & 0xFF, u64::from(bits) - 1);
    let fill = sign && length > 0 && a >> (start + length - 1).min(top) & 1 == 1;
    let present = (u64::from(bits)).saturating_sub(start).min(length);
    let field = if present == 0 { 0 } else { a >> start & mask(present as u32) };
    if !fill || present >= 64 {
        return field;
    }
    (field | u64::MAX << present) & mask(bits)
}

/// fns (PTX ISA): the position of the n-th set bit from `base`, upwards or downwards.
fn find_nth_set(bits: u64, base: u64, offset: u64) -> u64 {
    const NONE: u64 = 0xFFFF_FFFF;
    let offset = signed(offset, 32);
    let at = |position: i64| (0..32).contains(&position) && bits >> position & 1 == 1;
    if offset == 0 {
        return if at(base as i64) { base } else { NONE };
    }
    let (mut position, mut left) = (base as i64, offset.unsigned_abs());
    while (0..32).contains(&position) {
        left -= u64::from(at(position));
        if left == 0 {
            return position as u64;
        }
        position += offset.signum();
    }
    NONE
}
