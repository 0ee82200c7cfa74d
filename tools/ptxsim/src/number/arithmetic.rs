//! f32 arithmetic: add, sub, mul, fma, div, rcp, sqrt with every rounding, min and max.
//!
//! Results are rounded once from the exact value. They come from f64 arithmetic: a product of two f32 is exact there; a sum is
//! made exact enough by rounding it to odd (see [`sum_to_odd`]); quotients and roots of 24-bit numbers stay further from
//! any 25-bit number than the last bit of an f64, unless they are equal to it, so rounding them twice is rounding them once.

use super::format::{Format, Rounding, round, split};

/// Modifiers of an f32 or f64 instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mode {
    /// `.rn`, `.rz`, `.rm` or `.rp`.
    pub rounding: Rounding,
    /// `.ftz`: subnormal operands and results become zero, keeping their sign.
    pub ftz: bool,
    /// `.sat`: the result is clamped to 0..=1, and NaN becomes +0.
    pub sat: bool,
}

/// The NaN that f32 instructions produce.
pub const NAN_F32: f32 = f32::from_bits(0x7fff_ffff);

/// Replaces any NaN by [`NAN_F32`].
///
/// On patterns, because LLVM takes all NaN for one: it folds "if x is NaN then this NaN else x" on floats to x.
#[inline]
pub fn canonical(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 { NAN_F32.to_bits() } else { bits })
}

/// Zero with the sign of `value` if `value` is subnormal, else `value`.
#[inline]
pub fn flush(value: f32) -> f32 {
    if value.abs() < f32::MIN_POSITIVE { f32::from_bits(value.to_bits() & 0x8000_0000) } else { value }
}

/// Applies `.sat`: clamps to 0..=1, NaN to +0.
#[inline]
pub fn saturate(value: f32) -> f32 {
    // `-0.0 > 0.0` and `NaN > 0.0` are false, so both give +0.
    if value > 0.0 { value.min(1.0) } else { 0.0 }
}

#[inline]
fn operand(value: f32, mode: Mode) -> f32 {
    if mode.ftz { flush(value) } else { value }
}

/// Applies the modifiers of the result: canonical NaN, flush, clamp.
#[inline]
pub(crate) fn finish(value: f32, mode: Mode) -> f32 {
    let value = operand(canonical(value), mode);
    if mode.sat { saturate(value) } else { value }
}

/// Rounds an f64 to an f32. Infinities and NaN stay.
#[inline]
pub fn round_to_f32(value: f64, rounding: Rounding) -> f32 {
    if rounding == Rounding::NearestEven || !value.is_finite() {
        return value as f32;
    }
    let (negative, exponent, significand) = split(value);
    f32::from_bits(round(negative, exponent, significand, Format::F32, rounding) as u32)
}

/// `x + y` in f64; if that is not exact, the one of its two neighbours whose last bit is 1.
///
/// Rounding such a number to a format with at least two bits less gives what rounding the exact sum would give: the odd bit
/// says that something is left, and is never a tie (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
/// The operands must be far from overflow, as products of f32 are.
#[inline]
pub fn sum_to_odd(x: f64, y: f64) -> f64 {
    let sum = x + y;
    let y_part = sum - x;
    let error = (x - (sum - y_part)) + (y - y_part);
    // Without branches, so that loops over lanes vectorise. The error is NaN when an operand is infinite, and then nothing is stepped.
    let bits = sum.to_bits();
    let step = if (error > 0.0) == (sum > 0.0) { 1 } else { u64::MAX };
    let inexact = (error.abs() > 0.0) & (bits & 1 == 0);
    f64::from_bits(bits.wrapping_add(if inexact { step } else { 0 }))
}

/// The sign of an exact zero sum: + unless both terms are -0, or the rounding is down and they differ.
#[inline]
fn zero_sign(sum: f64, x: f64, y: f64, rounding: Rounding) -> f64 {
    let cancelled = sum == 0.0 && rounding == Rounding::Down && (x.is_sign_negative() || y.is_sign_negative());
    if cancelled { -0.0 } else { sum }
}

#[inline]
fn sum_directed(x: f64, y: f64, mode: Mode) -> f32 {
    let sum = zero_sign(sum_to_odd(x, y), x, y, mode.rounding);
    finish(round_to_f32(sum, mode.rounding), mode)
}

/// `a + b`.
#[inline]
pub fn add(a: f32, b: f32, mode: Mode) -> f32 {
    let (a, b) = (operand(a, mode), operand(b, mode));
    if mode.rounding == Rounding::NearestEven {
        return finish(a + b, mode);
    }
    sum_directed(a as f64, b as f64, mode)
}

/// `a - b`.
#[inline]
pub fn sub(a: f32, b: f32, mode: Mode) -> f32 {
    add(a, -b, mode)
}

/// `a * b`.
#[inline]
pub fn mul(a: f32, b: f32, mode: Mode) -> f32 {
    let (a, b) = (operand(a, mode), operand(b, mode));
    if mode.rounding == Rounding::NearestEven {
        return finish(a * b, mode);
    }
    finish(round_to_f32(a as f64 * b as f64, mode.rounding), mode)
}

/// `a * b + c`, rounded once.
#[inline]
pub fn fma(a: f32, b: f32, c: f32, mode: Mode) -> f32 {
    let (a, b, c) = (operand(a, mode), operand(b, mode), operand(c, mode));
    let product = a as f64 * b as f64;
    if mode.rounding == Rounding::NearestEven {
        // Same as `f32::mul_add`, which is a call into the C library unless the target is known to have the instruction.
        return finish(sum_to_odd(product, c as f64) as f32, mode);
    }
    sum_directed(product, c as f64, mode)
}

/// `a / b`, correctly rounded (`div.rn` and so on).
#[inline]
pub fn div(a: f32, b: f32, mode: Mode) -> f32 {
    let (a, b) = (operand(a, mode), operand(b, mode));
    finish(round_to_f32(a as f64 / b as f64, mode.rounding), mode)
}

/// `1 / a`, correctly rounded.
#[inline]
pub fn rcp(a: f32, mode: Mode) -> f32 {
    div(1.0, a, mode)
}

/// Square root, correctly rounded.
#[inline]
pub fn sqrt(a: f32, mode: Mode) -> f32 {
    finish(round_to_f32((operand(a, mode) as f64).sqrt(), mode.rounding), mode)
}

/// Modifiers of a minimum or maximum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extremum {
    /// `.ftz`.
    pub ftz: bool,
    /// `.NaN`: one NaN operand makes the result NaN. Without it the other operand is the result.
    pub nan: bool,
    /// `.xorsign.abs`: compares magnitudes; the sign of the result is the exclusive or of the operands' signs.
    pub xorsign_abs: bool,
}

/// Picks the smaller (or larger) of two patterns of a binary format with the sign on top. -0 is below +0.
///
/// `infinity` and `nan` are the patterns of that format. `.ftz` is up to the caller.
#[inline]
pub(crate) fn extremum(a: u64, b: u64, sign: u64, infinity: u64, nan: u64, larger: bool, mode: Extremum) -> u64 {
    let magnitude = sign - 1;
    let (a_nan, b_nan) = (a & magnitude > infinity, b & magnitude > infinity);
    if (a_nan && b_nan) || (mode.nan && (a_nan || b_nan)) {
        return nan;
    }
    let result_sign = (a ^ b) & sign;
    let (a, b) = if mode.xorsign_abs { (a & magnitude, b & magnitude) } else { (a, b) };
    // Order of patterns as integers: negative ones run backwards.
    let key = |bits: u64| if bits & sign != 0 { magnitude - (bits & magnitude) } else { bits | sign };
    let a_wins = if a_nan || b_nan { b_nan } else { (key(a) < key(b)) != larger };
    let winner = if a_wins { a } else { b };
    if mode.xorsign_abs { winner & magnitude | result_sign } else { winner }
}

#[inline]
fn extremum_f32(a: f32, b: f32, larger: bool, mode: Extremum) -> f32 {
    let (a, b) = if mode.ftz { (flush(a), flush(b)) } else { (a, b) };
    let bits = extremum(a.to_bits() as u64, b.to_bits() as u64, 1 << 31, 0x7f80_0000, 0x7fff_ffff, larger, mode);
    f32::from_bits(bits as u32)
}

/// `min`: a NaN operand yields the other one, two yield [`NAN_F32`]; -0 is below +0.
#[inline]
pub fn min(a: f32, b: f32, mode: Extremum) -> f32 {
    extremum_f32(a, b, false, mode)
}

/// `max`, as [`min`].
#[inline]
pub fn max(a: f32, b: f32, mode: Extremum) -> f32 {
    extremum_f32(a, b, true, mode)
}

#[cfg(test)]
mod tests;
