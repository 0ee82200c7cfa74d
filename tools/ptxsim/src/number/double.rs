//! f64 arithmetic: add, sub, mul, fma, div, rcp, sqrt with every rounding, min and max.
//!
//! To-nearest results are the CPU's own. Directed ones are worked out in integers, where the exact value, or its leading bits
//! and whether anything follows, is at hand.

use super::arithmetic::{Extremum, Mode, extremum};
use super::format::{Format, Rounding, round, split};

/// The NaN that f64 instructions produce.
pub const NAN_F64: f64 = f64::from_bits(0xfff8_0000_0000_0000);

/// Replaces any NaN by [`NAN_F64`]; on patterns, as [`super::arithmetic::canonical`].
#[inline]
pub fn canonical(value: f64) -> f64 {
    let bits = value.to_bits();
    f64::from_bits(if bits & (u64::MAX >> 1) > 0x7ff0 << 48 { NAN_F64.to_bits() } else { bits })
}

/// A number +-(significand / 2^125) * 2^exponent, the significand's top bit at 125 unless it is 0; its lowest bit may be sticky.
#[derive(Clone, Copy)]
struct Wide {
    negative: bool,
    exponent: i32,
    significand: u128,
}

/// `value >> shift`, with the lowest bit set if any set bit fell out.
#[inline]
fn shift_right_sticky(value: u128, shift: u32) -> u128 {
    match shift {
        0 => value,
        1..128 => value >> shift | (value << (128 - shift) != 0) as u128,
        _ => (value != 0) as u128,
    }
}

impl Wide {
    /// Moves the top bit to 125; `exponent` belongs to bit 125 of the given significand.
    fn normalised(negative: bool, exponent: i32, significand: u128) -> Wide {
        if significand == 0 {
            return Wide { negative, exponent, significand };
        }
        let zeros = significand.leading_zeros() as i32 - 2;
        let significand = if zeros >= 0 { significand << zeros } else { shift_right_sticky(significand, zeros.unsigned_abs()) };
        Wide { negative, exponent: exponent - zeros, significand }
    }

    fn from_f64(value: f64) -> Wide {
        let (negative, exponent, significand) = split(value);
        Wide { negative, exponent, significand: (significand as u128) << 62 }
    }

    fn product(a: f64, b: f64) -> Wide {
        let ((a_negative, a_exponent, a), (b_negative, b_exponent, b)) = (split(a), split(b));
        // Two significands of 53 bits: 1.x * 1.y has its leading bit at 126 or 125 after shifting out the 11 + 11 zeros.
        let significand = (a >> 11) as u128 * (b >> 11) as u128;
        Wide::normalised(a_negative != b_negative, a_exponent + b_exponent, significand << 21)
    }

    fn sum(self, other: Wide, rounding: Rounding) -> Wide {
        let (high, low) = if other.significand == 0 || (self.significand != 0 && self.exponent >= other.exponent) {
            (self, other)
        } else {
            (other, self)
        };
        // No precision is lost where it matters: the one with few bits has at least 20 zero bits below them, so that a sticky
        // bit arises only when the exponents differ by more than one and at most one leading bit can cancel.
        let shifted = shift_right_sticky(low.significand, high.exponent.abs_diff(low.exponent));
        if high.negative == low.negative {
            return Wide::normalised(high.negative, high.exponent, high.significand + shifted);
        }
        if high.significand == shifted {
            return Wide { negative: rounding == Rounding::Down, exponent: 0, significand: 0 };
        }
        let negative = if high.significand > shifted { high.negative } else { low.negative };
        Wide::normalised(negative, high.exponent, high.significand.abs_diff(shifted))
    }

    fn round(self, rounding: Rounding) -> f64 {
        let significand = shift_right_sticky(self.significand, 62) as u64;
        f64::from_bits(round(self.negative, self.exponent, significand, Format::F64, rounding))
    }
}

/// `a + b`.
#[inline]
pub fn add(a: f64, b: f64, mode: Mode) -> f64 {
    if mode.rounding == Rounding::NearestEven || !a.is_finite() || !b.is_finite() {
        return canonical(a + b);
    }
    Wide::from_f64(a).sum(Wide::from_f64(b), mode.rounding).round(mode.rounding)
}

/// `a - b`.
#[inline]
pub fn sub(a: f64, b: f64, mode: Mode) -> f64 {
    add(a, -b, mode)
}

/// `a * b`.
#[inline]
pub fn mul(a: f64, b: f64, mode: Mode) -> f64 {
    if mode.rounding == Rounding::NearestEven || !a.is_finite() || !b.is_finite() {
        return canonical(a * b);
    }
    Wide::product(a, b).round(mode.rounding)
}

/// `a * b + c`, rounded once.
#[inline]
pub fn fma(a: f64, b: f64, c: f64, mode: Mode) -> f64 {
    if mode.rounding == Rounding::NearestEven || !a.is_finite() || !b.is_finite() || !c.is_finite() {
        return canonical(a.mul_add(b, c));
    }
    Wide::product(a, b).sum(Wide::from_f64(c), mode.rounding).round(mode.rounding)
}

/// `a / b`, correctly rounded.
#[inline]
pub fn div(a: f64, b: f64, mode: Mode) -> f64 {
    if mode.rounding == Rounding::NearestEven || !a.is_finite() || !b.is_finite() || a == 0.0 || b == 0.0 {
        return canonical(a / b);
    }
    let ((a_negative, a_exponent, a), (b_negative, b_exponent, b)) = (split(a), split(b));
    let (dividend, divisor) = ((a >> 11) as u128 * (1 << 72), (b >> 11) as u128);
    let sticky = (dividend % divisor != 0) as u128;
    // A quotient of 1.0 is 2^72 here, and belongs at bit 125.
    let quotient = (dividend / divisor) << 53 | sticky;
    Wide::normalised(a_negative != b_negative, a_exponent - b_exponent, quotient).round(mode.rounding)
}

/// `1 / a`, correctly rounded.
#[inline]
pub fn rcp(a: f64, mode: Mode) -> f64 {
    div(1.0, a, mode)
}

/// Square root, correctly rounded.
#[inline]
pub fn sqrt(a: f64, mode: Mode) -> f64 {
    if mode.rounding == Rounding::NearestEven || !a.is_finite() || a <= 0.0 {
        return canonical(a.sqrt());
    }
    let (_, exponent, significand) = split(a);
    // An even exponent, and 2^126 for 1.0, whose root is 2^63.
    let radicand = (significand as u128) << (63 + exponent.rem_euclid(2));
    let root = radicand.isqrt();
    let sticky = (root * root != radicand) as u128;
    Wide::normalised(false, exponent.div_euclid(2), root << 62 | sticky).round(mode.rounding)
}

#[inline]
fn extremum_f64(a: f64, b: f64, larger: bool) -> f64 {
    let mode = Extremum::default();
    f64::from_bits(extremum(a.to_bits(), b.to_bits(), 1 << 63, 0x7ff0 << 48, NAN_F64.to_bits(), larger, mode))
}

/// `min`: a NaN operand yields the other one, two yield [`NAN_F64`]; -0 is below +0.
#[inline]
pub fn min(a: f64, b: f64) -> f64 {
    extremum_f64(a, b, false)
}

/// `max`, as [`min`].
#[inline]
pub fn max(a: f64, b: f64) -> f64 {
    extremum_f64(a, b, true)
}

#[cfg(test)]
mod tests;
