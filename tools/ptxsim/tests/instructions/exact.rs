//! Rounding by definition: a number with as many bits as it needs, to a format.

use half::{bf16, f16};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Ties to even.
    Nearest,
    /// Ties away from zero.
    Away,
    Zero,
    Down,
    Up,
}

/// Names of the rounding modes that arithmetic has.
pub const MODES: [(&str, Mode); 4] = [("rn", Mode::Nearest), ("rz", Mode::Zero), ("rm", Mode::Down), ("rp", Mode::Up)];

#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Bits of the significand that are stored.
    pub significand: u32,
    /// Bits of the exponent.
    pub exponent: u32,
    /// The largest finite code, where too large numbers become that one; else they become infinite as IEEE 754 says.
    pub most: Option<u64>,
}

pub const F16: Format = Format { significand: 10, exponent: 5, most: None };
pub const BF16: Format = Format { significand: 7, exponent: 8, most: None };
pub const TF32: Format = Format { significand: 10, exponent: 8, most: None };
pub const F32: Format = Format { significand: 23, exponent: 8, most: None };
pub const F64: Format = Format { significand: 52, exponent: 11, most: None };
/// With `.satfinite`.
pub const E4M3: Format = Format { significand: 3, exponent: 4, most: Some(0x7e) };
pub const E5M2: Format = Format { significand: 2, exponent: 5, most: Some(0x7b) };

impl Format {
    fn bias(self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }

    fn sign(self, negative: bool) -> u64 {
        u64::from(negative) << (self.significand + self.exponent)
    }

    pub fn infinity(self, negative: bool) -> u64 {
        self.sign(negative) | self.most.unwrap_or(((1 << self.exponent) - 1) << self.significand)
    }

    /// The code of `number * 2^exponent`, and a little more in magnitude if `more`.
    pub fn code(self, negative: bool, number: u128, exponent: i32, more: bool, mode: Mode) -> u64 {
        if number == 0 {
            return self.sign(negative);
        }
        let least = 1 - self.bias();
        let top = (127 - number.leading_zeros() as i32 + exponent).max(least);
        let shift = top - self.significand as i32 - exponent;
        let (mut kept, rest, half) = match shift {
            ..=0 => (number << -shift, 0, 1),
            1..=127 => (number >> shift, number & ((1 << shift) - 1), 1 << (shift - 1)),
            _ => (0, 1, 2),
        };
        // `more` lies below the last bit of `number`, so it breaks ties and never makes one.
        let inexact = rest != 0 || more;
        let up = match mode {
            Mode::Nearest => rest > half || rest == half && (more || kept % 2 == 1),
            Mode::Away => rest >= half,
            Mode::Zero => false,
            Mode::Down => negative && inexact,
            Mode::Up => !negative && inexact,
        };
        kept += u128::from(up);
        let hidden = 1 << self.significand;
        let magnitude =
            if kept < hidden { kept as u64 } else { (((top - least + 1) as u64) << self.significand) + (kept - hidden) as u64 };
        let infinite = ((1 << self.exponent) - 1) << self.significand;
        let magnitude = match self.most {
            Some(most) => magnitude.min(most),
            None if magnitude < infinite => magnitude,
            None => match mode {
                Mode::Zero => infinite - 1,
                Mode::Down if !negative => infinite - 1,
                Mode::Up if negative => infinite - 1,
                _ => infinite,
            },
        };
        self.sign(negative) | magnitude
    }

    /// The code of a number. Not a number: all ones.
    pub fn round(self, x: f64, mode: Mode) -> u64 {
        self.round_more(x, false, mode)
    }

    fn round_more(self, x: f64, more: bool, mode: Mode) -> u64 {
        if x.is_nan() {
            return (1 << (self.significand + self.exponent)) - 1;
        }
        if x.is_infinite() {
            return self.infinity(x < 0.0);
        }
        let (number, exponent) = parts(x);
        self.code(x.is_sign_negative(), number.into(), exponent, more, mode)
    }

    /// The code of a + b, both f64 (and so exact sums of products of narrower formats).
    pub fn sum(self, a: f64, b: f64, mode: Mode) -> u64 {
        let sum = a + b;
        if !sum.is_finite() || sum == 0.0 && a != -b {
            return self.round(sum, mode);
        }
        if sum == 0.0 {
            let negative = if a.is_sign_negative() == b.is_sign_negative() { a.is_sign_negative() } else { mode == Mode::Down };
            return self.sign(negative);
        }
        // Knuth's two-sum: what `sum` lacks.
        let b_part = sum - a;
        let lacks = (a - (sum - b_part)) + (b - b_part);
        let toward_zero = lacks != 0.0 && (lacks < 0.0) != (sum < 0.0);
        let below = if toward_zero { f64::from_bits(sum.to_bits() - 1) } else { sum };
        self.round_more(below, lacks != 0.0, mode)
    }
}

/// A finite number as integer and exponent.
fn parts(x: f64) -> (u64, i32) {
    let stored = (x.to_bits() >> 52 & 0x7ff) as i32;
    let low = x.to_bits() & ((1 << 52) - 1);
    if stored == 0 { (low, -1074) } else { (low | 1 << 52, stored - 1075) }
}

pub fn f32_sum(a: f64, b: f64, mode: Mode) -> f32 {
    f32::from_bits(F32.sum(a, b, mode) as u32)
}

pub fn f32_of(x: f64, mode: Mode) -> f32 {
    f32::from_bits(F32.round(x, mode) as u32)
}

pub fn f16_of(x: f64, mode: Mode) -> f16 {
    f16::from_bits(F16.round(x, mode) as u16)
}

pub fn bf16_of(x: f64, mode: Mode) -> bf16 {
    bf16::from_bits(BF16.round(x, mode) as u16)
}

/// Subnormal numbers become zeros of their sign, as `.ftz` says.
pub fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

/// Into [0, 1], as `.sat` says; not a number becomes +0.
pub fn saturated(x: f32) -> f32 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

#[test]
fn rounding_agrees_with_the_host() {
    for x in [
        0.0,
        -0.0,
        1.0,
        0.1,
        1e-40,
        1.4e-45,
        0.7e-45,
        0.71e-45,
        3.4028235677973366e38,
        3.5e38,
        -1.0 / 3.0,
        16777217.0,
        33554434.0,
    ] {
        assert_eq!(f32_of(x, Mode::Nearest).to_bits(), (x as f32).to_bits(), "{x}");
        assert_eq!(F64.round(x, Mode::Nearest), x.to_bits(), "{x}");
    }
    for (a, b) in [(1.0f32, 1e-10f32), (16777216.0, 1.0), (16777216.0, 1.0000001), (1.5, -1.5), (1e30, -1e-30), (-0.0, -0.0)] {
        assert_eq!(f32_sum(a.into(), b.into(), Mode::Nearest).to_bits(), (a + b).to_bits(), "{a} {b}");
    }
    assert_eq!(f32_sum(1.0, 1e-30, Mode::Up), 1.0 + f32::EPSILON);
    assert_eq!(f32_sum(1.0, -1e-30, Mode::Zero), 1.0 - f32::EPSILON / 2.0);
    assert_eq!(f16_of(65519.0, Mode::Nearest), f16::MAX);
    assert_eq!(f16_of(65520.0, Mode::Nearest), f16::INFINITY);
    assert_eq!(f16_of(1e9, Mode::Zero), f16::MAX);
    assert_eq!(E4M3.round(1e9, Mode::Nearest), 0x7e, "448");
    assert_eq!(TF32.round(1.0 + 1.0 / 2048.0, Mode::Away), (127 << 10) + 1);
}
