//! Moves, conversions, comparisons and selections.

use super::operands::Context;
use super::values::{halves, map1, map2, map3, mask, number, test2};
use super::{BoolOp, Guard, LOCAL_WINDOW, Op, PARAM_WINDOW, SHARED_WINDOW, Test, Value};
use crate::count::Class;
use crate::error::Parsed;
use crate::number::convert::{self, Conversion, Integer};
use crate::number::format::{Format, Rounding, bf16_to_f32, f16_to_f32};
use crate::syntax::{Operand, Space, Type};

impl Context<'_, '_> {
    pub(super) fn moves(&mut self) -> Parsed<()> {
        match self.opcode.name {
            "mov" => self.mov(),
            "cvt" => self.convert(),
            "cvta" => self.convert_address(),
            "isspacep" => self.is_space(),
            "setp" => self.set_pred(),
            "set" => self.set(),
            "selp" => self.select(),
            "slct" => self.select_by_sign(),
            _ => self.permute(),
        }
    }

    fn mov(&mut self) -> Parsed<()> {
        let Some(ty) = self.opcode.ty().filter(|&ty| ty == Type::Pred || is_plain(ty)) else { return self.unknown() };
        self.expect_operands(2)?;
        if ty == Type::Pred {
            let operand = self.operand(0)?;
            let a = self.guard(1)?;
            let Some(d) = self.pred_dest(operand)? else { return self.push(Class::Integer, Op::Nothing) };
            return self.push(Class::Integer, Op::PredLogic { f: |a, _, _| a, d, a, b: a, c: a });
        }
        let bits = ty.bits();
        if let Operand::Special(name) = self.operand(1)?
            && let Some(counter) = counter_bits(name)
        {
            if counter != bits {
                return self.fail(format!("`{name}` has {counter} bits"));
            }
            let d = self.dest_bits(0, bits)?;
            return self.push(Class::Integer, Op::Clock { d });
        }
        match (self.operand(0)?, self.operand(1)?) {
            (Operand::Vector(parts), _) => {
                let width = bits / parts.len().max(1) as u32;
                let a = self.value(1, bits)?;
                if !matches!(parts.len(), 2 | 4) {
                    return self.unknown();
                }
                let dest = |context: &mut Self, part: &Operand| match part {
                    Operand::Sink => Ok(None),
                    part => context.dest_exactly(part, width).map(Some),
                };
                let parts = parts.iter().map(|part| dest(self, part)).collect::<Parsed<Vec<_>>>()?;
                self.push(Class::Integer, Op::Unpack { parts, a, bits: width })
            }
            (_, Operand::Vector(parts)) => {
                let width = bits / parts.len().max(1) as u32;
                if !matches!(parts.len(), 2 | 4) {
                    return self.unknown();
                }
                let parts = parts.iter().map(|part| self.value_of(part, Some(width))).collect::<Parsed<Vec<_>>>()?;
                let d = self.dest_bits(0, bits)?;
                self.push(Class::Integer, Op::Pack { parts, d, bits: width })
            }
            _ => {
                let (d, a) = (self.dest_bits(0, bits)?, self.value(1, bits)?);
                self.push(Class::Integer, Op::Value { f: Box::new(|a, _, _| *a), d, a, b: a, c: a })
            }
        }
    }

    fn convert(&mut self) -> Parsed<()> {
        if self.opcode.flag("pack") {
            return self.convert_pack();
        }
        let integral = [("rni", Rounding::NearestEven), ("rzi", Rounding::Zero), ("rmi", Rounding::Down), ("rpi", Rounding::Up)];
        let to_integral = self.opcode.choice(&integral);
        let rounding = to_integral.or_else(|| self.opcode.rounding());
        let rounding = rounding.or_else(|| self.opcode.flag("rna").then_some(Rounding::NearestAway));
        let mode = Conversion {
            rounding: rounding.unwrap_or_default(),
            ftz: self.opcode.flag("ftz"),
            sat: self.opcode.flag("sat"),
            satfinite: self.opcode.flag("satfinite"),
            relu: self.opcode.flag("relu"),
        };
        let (Some(to), Some(from)) = (self.opcode.ty(), self.opcode.ty()) else { return self.unknown() };
        if !converts(to, from, rounding, to_integral.is_some(), mode) {
            return self.unknown();
        }
        let pair = match (to, from) {
            (Type::F16x2, Type::F32) => Some((Format::F16, 32)),
            (Type::Bf16x2, Type::F32) => Some((Format::Bf16, 32)),
            (Type::E4m3x2, Type::F32) => Some((Format::E4m3, 16)),
            (Type::E5m2x2, Type::F32) => Some((Format::E5m2, 16)),
            _ => None,
        };
        if let Some((format, bits)) = pair {
            self.expect_operands(3)?;
            let (d, a, b) = (self.dest_bits(0, bits)?, self.value(1, 32)?, self.value(2, 32)?);
            let f = map2(move |high, low| convert::f32_pair(high as u32, low as u32, format, mode).into());
            return self.push(Class::Convert, Op::Value { f, d, a, b, c: b });
        }
        self.expect_operands(2)?;
        let Some(f) = conversion(to, from, mode, to_integral.is_some()) else { return self.unknown() };
        let operand = self.operand(0)?;
        let (d, width) = self.dest_of(operand)?;
        // Integers may come from, and go to, wider registers than their type.
        let fits = |width: u32, ty: Type| width == ty.bits() || (width > ty.bits() && ty.is_integer());
        if !fits(width, to) && *operand != Operand::Sink {
            return self.fail(format!("{} bits are converted into a register of {width}", to.bits()));
        }
        if let Operand::Register(_) = self.operand(1)? {
            let from_width = self.width(1)?;
            if !fits(from_width, from) {
                return self.fail(format!("{} bits are converted from a register of {from_width}", from.bits()));
            }
        }
        let a = self.loose(1)?;
        // Cut to the type, and extended to the register as the type says.
        let (bits, is_signed) = (to.bits(), to.is_signed());
        let f: Value = Box::new(move |a, b, c| f(a, b, c).map(|x| number(x, bits, is_signed) as u64 & mask(width)));
        self.push(Class::Convert, Op::Value { f, d, a, b: a, c: a })
    }

    /// cvt.pack.sat: two integers to a saturated pair, over the upper half of a third.
    fn convert_pack(&mut self) -> Parsed<()> {
        let (true, Some(to), Some(Type::S32)) = (self.opcode.flag("sat"), self.opcode.ty(), self.opcode.ty()) else {
            return self.unknown();
        };
        let third = self.opcode.flag("b32");
        let integer = Integer { bits: to.bits(), signed: to.is_signed() };
        if !matches!((to, third), (Type::S16 | Type::U16, false) | (Type::S8 | Type::U8, true)) {
            return self.unknown();
        }
        let (d, a, b) = (self.dest_bits(0, 32)?, self.value(1, 32)?, self.value(2, 32)?);
        let c = if third { self.value(3, 32)? } else { b };
        let bits = to.bits();
        let f = map3(move |a, b, c| {
            let cut = |x: u64| number(x, 32, true).clamp(integer.min(), integer.max()) as u64 & mask(bits);
            let rest = if third { c << (2 * bits) } else { 0 };
            (rest | cut(a) << bits | cut(b)) & 0xFFFF_FFFF
        });
        self.push(Class::Convert, Op::Value { f, d, a, b, c })
    }

    fn convert_address(&mut self) -> Parsed<()> {
        let back = self.opcode.flag("to");
        let space = self.opcode.space();
        self.needs("u64")?;
        let window = match space {
            Space::Shared => SHARED_WINDOW,
            Space::Local => LOCAL_WINDOW,
            Space::Param => PARAM_WINDOW,
            Space::Global | Space::Const => 0,
            Space::Generic => return self.unknown(),
        };
        let (d, a) = (self.dest_bits(0, 64)?, self.value(1, 64)?);
        let f = map1(move |a| if back { a.wrapping_sub(window) } else { a.wrapping_add(window) });
        self.push(Class::Integer, Op::Value { f, d, a, b: a, c: a })
    }

    fn is_space(&mut self) -> Parsed<()> {
        let window = match self.opcode.space() {
            Space::Shared => SHARED_WINDOW,
            Space::Local => LOCAL_WINDOW,
            Space::Param => PARAM_WINDOW,
            Space::Global => 0,
            _ => return self.unknown(),
        };
        let a = self.value(1, 64)?;
        let operand = self.operand(0)?;
        let d = self.pred_dest(operand)?;
        let f = test2(move |a, _| a >> 60 << 60 == window);
        self.push(Class::Integer, Op::SetPred { f, a, b: a, combine: None, d, q: None })
    }

    /// The comparison, connective and flags of set and setp.
    fn comparison(&mut self) -> Option<(&'static str, Option<BoolOp>, bool)> {
        const NAMES: [&str; 18] =
            ["eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"];
        let names: Vec<(&str, &'static str)> = NAMES.iter().map(|&name| (name, name)).collect();
        let name = self.opcode.choice(&names)?;
        let connective = self.opcode.choice(&[("and", BoolOp::And), ("or", BoolOp::Or), ("xor", BoolOp::Xor)]);
        Some((name, connective, self.opcode.flag("ftz")))
    }

    fn combine(&mut self, connective: Option<BoolOp>, index: usize) -> Parsed<Option<(BoolOp, Guard)>> {
        match connective {
            Some(op) => Ok(Some((op, self.guard(index)?))),
            None => Ok(None),
        }
    }

    fn set_pred(&mut self) -> Parsed<()> {
        let Some((name, connective, ftz)) = self.comparison() else { return self.unknown() };
        let Some(ty) = self.opcode.ty().filter(|&ty| compares(name, ty, ftz)) else { return self.unknown() };
        let (d, q) = self.pred_pair(0)?;
        let (a, b) = (self.value(1, ty.bits())?, self.value(2, ty.bits())?);
        let combine = self.combine(connective, 3)?;
        if matches!(ty, Type::F16x2 | Type::Bf16x2) {
            // One predicate for each half.
            let single = if ty == Type::F16x2 { Type::F16 } else { Type::Bf16 };
            for (pred, shift) in [(d, 0), (q, 16)] {
                let Some(test) = scalar_test(name, single, ftz) else { return self.unknown() };
                let f = test2(move |a, b| test(a >> shift & 0xFFFF, b >> shift & 0xFFFF));
                self.push(Class::Integer, Op::SetPred { f, a, b, combine, d: pred, q: None })?;
            }
            return Ok(());
        }
        let Some(f) = comparison_of(name, ty, ftz) else { return self.unknown() };
        self.push(Class::Integer, Op::SetPred { f, a, b, combine, d, q })
    }

    fn set(&mut self) -> Parsed<()> {
        let Some((name, connective, ftz)) = self.comparison() else { return self.unknown() };
        let (Some(to), Some(ty)) = (self.opcode.ty(), self.opcode.ty()) else { return self.unknown() };
        if !compares(name, ty, ftz) {
            return self.unknown();
        }
        let packed = |ty: Type| matches!(ty, Type::F16x2 | Type::Bf16x2);
        if packed(to) && to != ty {
            return self.unknown();
        }
        let truth = match to {
            Type::U32 | Type::S32 => 0xFFFF_FFFF,
            Type::U16 | Type::S16 => 0xFFFF,
            Type::F32 => 1f32.to_bits().into(),
            Type::F16 | Type::F16x2 => 0x3C00,
            Type::Bf16 | Type::Bf16x2 => 0x3F80,
            _ => return self.unknown(),
        };
        let d = self.dest_bits(0, to.bits())?;
        let (a, b) = (self.value(1, ty.bits())?, self.value(2, ty.bits())?);
        let combine = self.combine(connective, 3)?;
        if matches!(ty, Type::F16x2 | Type::Bf16x2) {
            let single = if ty == Type::F16x2 { Type::F16 } else { Type::Bf16 };
            let (Some(test), None) = (scalar_test(name, single, ftz), combine) else { return self.unknown() };
            let truth = if matches!(to, Type::U32 | Type::S32) { 0xFFFF } else { truth as u16 };
            let f = map2(move |a, b| halves([a, b], |[a, b]| if test(a.into(), b.into()) { truth } else { 0 }));
            return self.push(Class::Half, Op::Value { f, d, a, b, c: b });
        }
        let Some(f) = comparison_of(name, ty, ftz) else { return self.unknown() };
        self.push(Class::Integer, Op::Set { f, a, b, combine, d, truth })
    }

    fn select(&mut self) -> Parsed<()> {
        let Some(ty) = self.opcode.ty().filter(|&ty| is_plain(ty)) else { return self.unknown() };
        self.expect_operands(4)?;
        let bits = ty.bits();
        let (d, a, b) = (self.dest_bits(0, bits)?, self.value(1, bits)?, self.value(2, bits)?);
        let p = self.guard(3)?;
        self.push(Class::Integer, Op::Select { p, d, a, b })
    }

    fn select_by_sign(&mut self) -> Parsed<()> {
        let ftz = self.opcode.flag("ftz");
        let (Some(ty), Some(by)) = (self.opcode.ty(), self.opcode.ty()) else { return self.unknown() };
        if !is_plain(ty) || (ftz && by != Type::F32) {
            return self.unknown();
        }
        let bits = ty.bits();
        let (d, a, b, c) = (self.dest_bits(0, bits)?, self.value(1, bits)?, self.value(2, bits)?, self.value(3, 32)?);
        let f = match by {
            Type::S32 => map3(|a, b, c| if number(c, 32, true) >= 0 { a } else { b }),
            Type::F32 => map3(move |a, b, c| {
                let x = f32::from_bits(c as u32);
                if x >= 0.0 || (ftz && x.is_subnormal()) { a } else { b }
            }),
            _ => return self.unknown(),
        };
        self.push(Class::Integer, Op::Value { f, d, a, b, c })
    }

    fn permute(&mut self) -> Parsed<()> {
        self.needs("b32")?;
        let modes = [("f4e", 0), ("b4e", 1), ("rc8", 2), ("ecl", 3), ("ecr", 4), ("rc16", 5)];
        let mode = self.opcode.choice(&modes);
        self.expect_operands(4)?;
        let (d, a, b, c) = (self.dest_bits(0, 32)?, self.value(1, 32)?, self.value(2, 32)?, self.value(3, 32)?);
        let f = map3(move |a, b, selector| {
            let bytes = b << 32 | a;
            let n = selector as usize & 3;
            let pick = |i: usize| -> u64 {
                let Some(mode) = mode else {
                    let nibble = selector >> (4 * i) & 15;
                    let byte = bytes >> (8 * (nibble & 7)) & 0xFF;
                    return if nibble < 8 { byte } else { (byte >> 7) * 0xFF };
                };
                let index = match mode {
                    0 => n + i,
                    1 => (8 + n - i) % 8,
                    2 => n,
                    3 => n.max(i),
                    4 => n.min(i),
                    _ => (n & 1) * 2 + i % 2,
                };
                bytes >> (8 * index) & 0xFF
            };
            (0..4).fold(0, |out, i| out | pick(i) << (8 * i))
        });
        self.push(Class::Integer, Op::Value { f, d, a, b, c })
    }
}

/// Types of the instructions that only move values.
fn is_plain(ty: Type) -> bool {
    (ty.is_integer() && ty.bits() > 8) || matches!(ty, Type::F32 | Type::F64)
}

/// Whether there is a conversion from one type to another with these modifiers (PTX ISA, cvt).
fn converts(to: Type, from: Type, rounding: Option<Rounding>, to_integral: bool, mode: Conversion) -> bool {
    use Rounding::{NearestAway, NearestEven, Zero};
    use Type::{Bf16, Bf16x2, E4m3x2, E5m2x2, F16, F16x2, F32, F64, Tf32};
    let plain = rounding.is_none() && !to_integral;
    let numeric = |ty: Type| ty.is_integer() && !matches!(ty, Type::B8 | Type::B16 | Type::B32 | Type::B64);
    let Conversion { ftz, sat, satfinite, relu, .. } = mode;
    let finite = satfinite && !sat && !ftz;
    match (to, from) {
        (E4m3x2 | E5m2x2, F32 | F16x2) => rounding == Some(NearestEven) && finite,
        (F16x2, E4m3x2 | E5m2x2) => rounding == Some(NearestEven) && !(ftz || sat || satfinite),
        (F16x2 | Bf16x2, F32) => matches!(rounding, Some(NearestEven | Zero)) && !(to_integral || ftz || sat),
        (Tf32, F32) => match rounding {
            Some(NearestAway) => !(ftz || sat || relu),
            Some(NearestEven | Zero) => !(to_integral || ftz || sat),
            _ => false,
        },
        (F16 | Bf16, F32) if relu || satfinite => matches!(rounding, Some(NearestEven | Zero)) && !(to_integral || ftz || sat),
        _ if satfinite || relu || rounding == Some(NearestAway) => false,
        _ if numeric(to) && numeric(from) => plain && !ftz,
        (to, F16 | Bf16 | F32 | F64) if numeric(to) => to_integral && (!ftz || from == F32),
        (F16 | Bf16 | F32 | F64, from) if numeric(from) => rounding.is_some() && !to_integral && !ftz,
        (F16 | Bf16 | F32 | F64, _) if to == from => (plain || to_integral) && (!ftz || to == F32),
        (F32 | F64, F16) | (F64, F32) | (F32 | F64, Bf16) => plain && !(sat && from == Bf16),
        (F16 | Bf16, F32 | F64) | (F32, F64) | (F16, Bf16) | (Bf16, F16) => rounding.is_some() && !to_integral,
        _ => false,
    }
}

/// Whether values of a type can be compared so.
fn compares(name: &str, ty: Type, ftz: bool) -> bool {
    match name {
        _ if !ty.is_integer() => !(ftz && ty == Type::F64),
        _ if ftz => false,
        "eq" | "ne" => true,
        "lo" | "ls" | "hi" | "hs" => matches!(ty, Type::U16 | Type::U32 | Type::U64),
        _ => !matches!(ty, Type::B8 | Type::B16 | Type::B32 | Type::B64),
    }
}

/// Bits of a register that counts time.
fn counter_bits(name: &str) -> Option<u32> {
    match name {
        "%clock" | "%globaltimer_lo" => Some(32),
        "%clock64" | "%globaltimer" => Some(64),
        _ => None,
    }
}

fn format(ty: Type) -> Option<Format> {
    Some(match ty {
        Type::F16 => Format::F16,
        Type::Bf16 => Format::Bf16,
        Type::Tf32 => Format::Tf32,
        Type::F32 => Format::F32,
        Type::F64 => Format::F64,
        Type::E4m3 | Type::E4m3x2 => Format::E4m3,
        Type::E5m2 | Type::E5m2x2 => Format::E5m2,
        _ => return None,
    })
}

fn conversion(to: Type, from: Type, mode: Conversion, to_integral: bool) -> Option<Value> {
    let integer = |ty: Type| ty.is_integer().then_some(Integer { bits: ty.bits(), signed: ty.is_signed() });
    if let (Some(to), Some(from)) = (integer(to), integer(from)) {
        if mode == Conversion::default() {
            // Frequent, and on the way of every address.
            return Some(map1(move |a| super::values::number(a, from.bits, from.signed) as u64));
        }
        return Some(map1(move |a| convert::integer_to_integer(a, from, to, mode)));
    }
    match (to, from) {
        (Type::E4m3x2 | Type::E5m2x2, Type::F16x2) => {
            let to = format(to)?;
            return Some(map1(move |a| convert::f16x2_to_8bit(a as u32, to, mode).into()));
        }
        (Type::F16x2, Type::E4m3x2 | Type::E5m2x2) => {
            let from = format(from)?;
            return Some(map1(move |a| convert::f16x2_from_8bit(a as u16, from, mode).into()));
        }
        _ => {}
    }
    if let (Some(to), Some(from)) = (integer(to), format(from)) {
        return Some(map1(move |a| convert::float_to_integer(a, from, to, mode)));
    }
    if let (Some(to), Some(from)) = (format(to), integer(from)) {
        return Some(map1(move |a| convert::integer_to_float(a, from, to, mode)));
    }
    let (to, from) = (format(to)?, format(from)?);
    if to == from && to_integral {
        return Some(map1(move |a| convert::float_to_integral(a, to, mode)));
    }
    Some(match (to, from, mode == Conversion::default()) {
        (Format::F32, Format::F16, true) => map1(|a| convert::float_to_float(a, Format::F16, Format::F32, Conversion::default())),
        (Format::F16, Format::F32, true) => map1(|a| convert::float_to_float(a, Format::F32, Format::F16, Conversion::default())),
        (Format::F32, Format::Bf16, true) => {
            map1(|a| convert::float_to_float(a, Format::Bf16, Format::F32, Conversion::default()))
        }
        (Format::Bf16, Format::F32, true) => {
            map1(|a| convert::float_to_float(a, Format::F32, Format::Bf16, Conversion::default()))
        }
        _ => map1(move |a| convert::float_to_float(a, from, to, mode)),
    })
}

type Scalar = Box<dyn Fn(u64, u64) -> bool + Send + Sync>;

/// A comparison of two values of a type.
fn scalar_test(name: &'static str, ty: Type, ftz: bool) -> Option<Scalar> {
    let half = matches!(ty, Type::F16 | Type::Bf16);
    if half || matches!(ty, Type::F32 | Type::F64) {
        let read = move |bits: u64| -> f64 {
            let value = match ty {
                Type::F16 => f16_to_f32(bits as u16).into(),
                Type::Bf16 => bf16_to_f32(bits as u16).into(),
                Type::F32 => f32::from_bits(bits as u32).into(),
                _ => f64::from_bits(bits),
            };
            let smallest = if ty == Type::F16 { 6.103_515_625e-5 } else { f64::from(f32::MIN_POSITIVE) };
            if ftz && value.abs() < smallest { 0.0 } else { value }
        };
        let (ordered, unordered): (fn(f64, f64) -> bool, bool) = match name {
            "eq" => (|a, b| a == b, false),
            "ne" => (|a, b| a != b, false),
            "lt" => (|a, b| a < b, false),
            "le" => (|a, b| a <= b, false),
            "gt" => (|a, b| a > b, false),
            "ge" => (|a, b| a >= b, false),
            "equ" => (|a, b| a == b, true),
            "neu" => (|a, b| a != b, true),
            "ltu" => (|a, b| a < b, true),
            "leu" => (|a, b| a <= b, true),
            "gtu" => (|a, b| a > b, true),
            "geu" => (|a, b| a >= b, true),
            "num" => (|_, _| true, false),
            "nan" => (|_, _| false, true),
            _ => return None,
        };
        return Some(Box::new(move |a, b| {
            let (a, b) = (read(a), read(b));
            if a.is_nan() || b.is_nan() { unordered } else { ordered(a, b) }
        }));
    }
    if !ty.is_integer() {
        return None;
    }
    let (bits, sign) = (ty.bits(), ty.is_signed());
    let read = move |x: u64| if sign { super::values::signed(x, bits) as u64 ^ 1 << 63 } else { x & mask(bits) };
    Some(match name {
        "eq" => Box::new(move |a, b| read(a) == read(b)),
        "ne" => Box::new(move |a, b| read(a) != read(b)),
        "lt" => Box::new(move |a, b| read(a) < read(b)),
        "le" => Box::new(move |a, b| read(a) <= read(b)),
        "gt" => Box::new(move |a, b| read(a) > read(b)),
        "ge" => Box::new(move |a, b| read(a) >= read(b)),
        "lo" => Box::new(|a, b| a < b),
        "ls" => Box::new(|a, b| a <= b),
        "hi" => Box::new(|a, b| a > b),
        "hs" => Box::new(|a, b| a >= b),
        _ => return None,
    })
}

fn comparison_of(name: &'static str, ty: Type, ftz: bool) -> Option<Test> {
    // Loops compare 32-bit integers most of all.
    match (name, ty) {
        ("lt", Type::S32) => return Some(test2(|a, b| (a as u32 as i32) < b as u32 as i32)),
        ("ge", Type::S32) => return Some(test2(|a, b| a as u32 as i32 >= b as u32 as i32)),
        ("eq", Type::S32 | Type::U32 | Type::B32) => return Some(test2(|a, b| a as u32 == b as u32)),
        ("ne", Type::S32 | Type::U32 | Type::B32) => return Some(test2(|a, b| a as u32 != b as u32)),
        _ => {}
    }
    let test = scalar_test(name, ty, ftz)?;
    Some(test2(test))
}
