//! Floating-point arithmetic: f32, f64, f16, bf16 and packed pairs.

use super::operands::Context;
use super::values::{halves, map1, map2, map3};
use super::{Op, Reg, Value};
use crate::count::Class;
use crate::error::Parsed;
use crate::number::arithmetic::{self, Extremum, Mode};
use crate::number::format::Rounding;
use crate::number::half::{self, Bf16, F16, Half, HalfMode};
use crate::number::{approx, double};
use crate::syntax::Type;

fn f(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn u(value: f32) -> u64 {
    value.to_bits().into()
}

/// A closure on f32 with modifiers: a plain one where there are none, which the compiler turns into vector code.
macro_rules! with_mode {
    ($mode:expr, $map:ident, |$($x:ident),+; $m:ident| $body:expr) => {
        if $mode == Mode::default() {
            $map(|$($x),+| { let $m = Mode::default(); $body })
        } else {
            let $m = $mode;
            $map(move |$($x),+| $body)
        }
    };
}

impl Context<'_, '_> {
    pub(super) fn float(&mut self) -> Parsed<()> {
        if self.opcode.name == "testp" {
            return self.test_property();
        }
        let approximate = self.opcode.flag("approx");
        let full = self.opcode.flag("full");
        let rounding = self.opcode.rounding();
        let (ftz, sat, relu) = (self.opcode.flag("ftz"), self.opcode.flag("sat"), self.opcode.flag("relu"));
        let (nan, xorsign_abs) = (self.opcode.flag("NaN"), self.opcode.flag("xorsign"));
        if xorsign_abs {
            self.needs("abs")?;
        }
        let extremum = Extremum { ftz, nan, xorsign_abs };
        let Some(ty) = self.opcode.ty() else { return self.unknown() };
        let name = self.opcode.name;
        let (half, rough) = (matches!(ty, Type::F16 | Type::F16x2), approximate || full);
        let sums = matches!(name, "add" | "sub" | "mul" | "fma" | "mad");
        let flushes = match ty {
            Type::F64 => approximate,
            Type::Bf16 | Type::Bf16x2 => name == "ex2",
            _ => !(matches!(name, "tanh" | "copysign") || half && name == "ex2"),
        };
        let known = [
            rounding.is_none_or(|_| !rough && (sums || matches!(name, "div" | "rcp" | "sqrt"))),
            rounding.is_none_or(|rounding| matches!(ty, Type::F32 | Type::F64) || rounding == Rounding::NearestEven),
            rounding.is_some() || rough || !matches!(name, "fma" | "mad" | "div" | "rcp" | "sqrt"),
            !full || (name == "div" && ty == Type::F32 && !approximate),
            !sat || (sums && (half || ty == Type::F32)),
            !relu || (name == "fma" && !sat),
            !(nan || xorsign_abs) || (matches!(name, "min" | "max") && ty != Type::F64),
            !ftz || flushes,
        ];
        if known.contains(&false) {
            return self.unknown();
        }
        let mode = Mode { rounding: rounding.unwrap_or_default(), ftz, sat };
        let found = match ty {
            Type::F32 if approximate || full => approximate_f32(self.opcode.name, full, ftz),
            Type::F32 if !relu => exact_f32(self.opcode.name, mode, extremum),
            Type::F64 if approximate => approximate_f64(self.opcode.name),
            Type::F64 if !relu && !sat => exact_f64(self.opcode.name, mode),
            Type::F16 | Type::F16x2 => {
                half_op::<F16>(self.opcode.name, ty == Type::F16x2, HalfMode { ftz, sat, relu }, extremum, approximate)
            }
            Type::Bf16 | Type::Bf16x2 => {
                half_op::<Bf16>(self.opcode.name, ty == Type::Bf16x2, HalfMode { ftz, sat, relu }, extremum, approximate)
            }
            _ => None,
        };
        let Some((operands, value)) = found else { return self.unknown() };
        let special = approximate || full || matches!(self.opcode.name, "div" | "rcp" | "sqrt");
        let class = match ty {
            Type::F64 => Class::Double,
            _ if special => Class::Special,
            Type::F32 => Class::Float,
            _ => Class::Half,
        };
        self.expect_operands(operands + 1)?;
        let bits = ty.bits();
        let d = self.dest_bits(0, bits)?;
        let sources = (1..=operands).map(|i| self.value(i, bits)).collect::<Parsed<Vec<Reg>>>()?;
        let at = |i: usize| sources[i.min(operands - 1)];
        self.push(class, Op::Value { f: value, d, a: at(0), b: at(1), c: at(2) })
    }

    /// testp: a predicate of one number.
    fn test_property(&mut self) -> Parsed<()> {
        let names = ["finite", "infinite", "number", "notanumber", "normal", "subnormal"];
        let names: Vec<(&str, &'static str)> = names.iter().map(|&name| (name, name)).collect();
        let (Some(name), Some(ty)) = (self.opcode.choice(&names), self.opcode.ty()) else { return self.unknown() };
        let test = move |x: f64, subnormal: bool| match name {
            "finite" => x.is_finite(),
            "infinite" => x.is_infinite(),
            "number" => !x.is_nan(),
            "notanumber" => x.is_nan(),
            "normal" => x.is_finite() && !subnormal, // zeros too
            _ => subnormal,
        };
        let single = ty == Type::F32;
        if !single && ty != Type::F64 {
            return self.unknown();
        }
        let a = self.value(1, ty.bits())?;
        let operand = self.operand(0)?;
        let d = self.pred_dest(operand)?;
        let f = super::values::test2(move |a, _| match single {
            true => test(f(a).into(), f(a).is_subnormal()),
            false => test(f64::from_bits(a), f64::from_bits(a).is_subnormal()),
        });
        self.push(Class::Float, Op::SetPred { f, a, b: a, combine: None, d, q: None })
    }
}

type Found = Option<(usize, Value)>;

fn exact_f32(name: &str, mode: Mode, extremum: Extremum) -> Found {
    use arithmetic as on;
    let ftz = mode.ftz;
    Some(match name {
        "add" => (2, with_mode!(mode, map2, |a, b; m| u(on::add(f(a), f(b), m)))),
        "sub" => (2, with_mode!(mode, map2, |a, b; m| u(on::sub(f(a), f(b), m)))),
        "mul" => (2, with_mode!(mode, map2, |a, b; m| u(on::mul(f(a), f(b), m)))),
        "fma" | "mad" => (3, with_mode!(mode, map3, |a, b, c; m| u(on::fma(f(a), f(b), f(c), m)))),
        "div" => (2, with_mode!(mode, map2, |a, b; m| u(on::div(f(a), f(b), m)))),
        "rcp" => (1, with_mode!(mode, map1, |a; m| u(on::rcp(f(a), m)))),
        "sqrt" => (1, with_mode!(mode, map1, |a; m| u(on::sqrt(f(a), m)))),
        "min" => (2, map2(move |a, b| u(on::min(f(a), f(b), extremum)))),
        "max" => (2, map2(move |a, b| u(on::max(f(a), f(b), extremum)))),
        "abs" => (1, map1(move |a| u(if ftz { on::flush(f(a)) } else { f(a) }) & 0x7FFF_FFFF)),
        "neg" => (1, map1(move |a| u(if ftz { on::flush(f(a)) } else { f(a) }) ^ 0x8000_0000)),
        // copysign d, a, b: the sign of a on the magnitude of b.
        "copysign" => (2, map2(|a, b| a & 0x8000_0000 | b & 0x7FFF_FFFF)),
        _ => return None,
    })
}

fn approximate_f32(name: &str, full: bool, ftz: bool) -> Found {
    let unary = |g: fn(f32, bool) -> f32| (1, map1(move |a| u(g(f(a), ftz))));
    Some(match name {
        "div" if full => (2, map2(move |a, b| u(approx::div_full(f(a), f(b), ftz)))),
        "div" => (2, map2(move |a, b| u(approx::div(f(a), f(b), ftz)))),
        _ if full => return None,
        "ex2" => unary(approx::ex2),
        "lg2" => unary(approx::lg2),
        "rcp" => unary(approx::rcp),
        "rsqrt" => unary(approx::rsqrt),
        "sqrt" => unary(approx::sqrt),
        "sin" => unary(approx::sin),
        "cos" => unary(approx::cos),
        "tanh" => (1, map1(|a| u(approx::tanh(f(a))))),
        _ => return None,
    })
}

fn exact_f64(name: &str, mode: Mode) -> Found {
    let (d, r) = (f64::from_bits, f64::to_bits);
    Some(match name {
        "add" => (2, map2(move |a, b| r(double::add(d(a), d(b), mode)))),
        "sub" => (2, map2(move |a, b| r(double::sub(d(a), d(b), mode)))),
        "mul" => (2, map2(move |a, b| r(double::mul(d(a), d(b), mode)))),
        "fma" | "mad" => (3, map3(move |a, b, c| r(double::fma(d(a), d(b), d(c), mode)))),
        "div" => (2, map2(move |a, b| r(double::div(d(a), d(b), mode)))),
        "rcp" => (1, map1(move |a| r(double::rcp(d(a), mode)))),
        "sqrt" => (1, map1(move |a| r(double::sqrt(d(a), mode)))),
        "min" => (2, map2(move |a, b| r(double::min(d(a), d(b))))),
        "max" => (2, map2(move |a, b| r(double::max(d(a), d(b))))),
        "abs" => (1, map1(|a| a & (u64::MAX >> 1))),
        "neg" => (1, map1(|a| a ^ 1 << 63)),
        "copysign" => (2, map2(|a, b| a & 1 << 63 | b & (u64::MAX >> 1))),
        _ => return None,
    })
}

fn approximate_f64(name: &str) -> Found {
    let upper = |g: fn(u32) -> u32| (1, map1(move |a| u64::from(g((a >> 32) as u32)) << 32));
    match name {
        "rcp" => Some(upper(approx::rcp_f64)),
        "rsqrt" => Some(upper(approx::rsqrt_f64)),
        _ => None,
    }
}

/// An operation on one 16-bit float or on both halves of a pair.
fn half_op<H: Half + 'static>(name: &str, pair: bool, mode: HalfMode, extremum: Extremum, approximate: bool) -> Found {
    let one = move |g: fn(u16, HalfMode) -> u16| -> Value {
        if pair { map1(move |a| halves([a], |[a]| g(a, mode))) } else { map1(move |a| g(a as u16, mode).into()) }
    };
    let two = move |g: fn(u16, u16, HalfMode) -> u16| -> Value {
        match pair {
            true => map2(move |a, b| halves([a, b], |[a, b]| g(a, b, mode))),
            false => map2(move |a, b| g(a as u16, b as u16, mode).into()),
        }
    };
    let pick = move |g: fn(u16, u16, Extremum) -> u16| -> Value {
        match pair {
            true => map2(move |a, b| halves([a, b], |[a, b]| g(a, b, extremum))),
            false => map2(move |a, b| g(a as u16, b as u16, extremum).into()),
        }
    };
    let flushed = |a: u16, mode: HalfMode| if mode.ftz { half::flush::<H>(a) } else { a };
    Some(match (name, approximate) {
        ("add", false) => (2, two(half::add::<H>)),
        ("sub", false) => (2, two(half::sub::<H>)),
        ("mul", false) => (2, two(half::mul::<H>)),
        ("fma", false) => {
            let value: Value = match pair {
                true => map3(move |a, b, c| halves([a, b, c], |[a, b, c]| half::fma::<H>(a, b, c, mode))),
                false => map3(move |a, b, c| half::fma::<H>(a as u16, b as u16, c as u16, mode).into()),
            };
            (3, value)
        }
        ("min", false) => (2, pick(half::min::<H>)),
        ("max", false) => (2, pick(half::max::<H>)),
        ("abs", false) => {
            let value: Value = match pair {
                true => map1(move |a| halves([a], |[a]| flushed(a, mode) & 0x7FFF)),
                false => map1(move |a| u64::from(flushed(a as u16, mode) & 0x7FFF)),
            };
            (1, value)
        }
        ("neg", false) => {
            let value: Value = match pair {
                true => map1(move |a| halves([a], |[a]| flushed(a, mode) ^ 0x8000)),
                false => map1(move |a| u64::from(flushed(a as u16, mode) ^ 0x8000)),
            };
            (1, value)
        }
        ("ex2", true) => (1, one(|a, mode| approx::ex2_half::<H>(a, mode.ftz))),
        ("tanh", true) => (1, one(|a, _| approx::tanh_half::<H>(a))),
        _ => return None,
    })
}
