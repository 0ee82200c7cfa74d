//! The `.approx` and `.full` instructions: computed in f64 and rounded once, so well inside the errors that the PTX manual allows.
//!
//! Hardware differs from this in the last bits; code that relies on more than the manual's bounds is not portable anyway. What the
//! manual fixes exactly, the tables of special values, is exact here. `ftz` makes subnormal operands and results zero, keeping signs.

use super::arithmetic::{canonical, flush};
use super::double::canonical as canonical_f64;
use super::half::{Half, flush as flush_half};

#[inline]
fn unary(a: f32, ftz: bool, function: impl Fn(f64) -> f64) -> f32 {
    let a = if ftz { flush(a) } else { a };
    finish(function(a as f64), ftz)
}

#[inline]
fn finish(value: f64, ftz: bool) -> f32 {
    let value = canonical(value as f32);
    if ftz { flush(value) } else { value }
}

/// `ex2.approx`: 2^a.
#[inline]
pub fn ex2(a: f32, ftz: bool) -> f32 {
    unary(a, ftz, f64::exp2)
}

/// `lg2.approx`: log2 a; -infinity at both zeros, NaN below.
#[inline]
pub fn lg2(a: f32, ftz: bool) -> f32 {
    unary(a, ftz, f64::log2)
}

/// `rcp.approx`: 1 / a.
#[inline]
pub fn rcp(a: f32, ftz: bool) -> f32 {
    unary(a, ftz, |a| 1.0 / a)
}

/// `rsqrt.approx`: 1 / sqrt(a); infinity with the sign of a at zeros, NaN below.
#[inline]
pub fn rsqrt(a: f32, ftz: bool) -> f32 {
    // sqrt(-0) is -0, so the sign of zeros comes out right.
    unary(a, ftz, |a| 1.0 / a.sqrt())
}

/// `sqrt.approx`: square root; zeros keep their sign, NaN below.
#[inline]
pub fn sqrt(a: f32, ftz: bool) -> f32 {
    unary(a, ftz, f64::sqrt)
}

/// `sin.approx` of an angle in radians; NaN at infinities.
#[inline]
pub fn sin(a: f32, ftz: bool) -> f32 {
    unary(a, ftz, f64::sin)
}

/// `cos.approx` of an angle in radians; NaN at infinities.
#[inline]
pub fn cos(a: f32, ftz: bool) -> f32 {
    unary(a, ftz, f64::cos)
}

/// `tanh.approx`. Subnormal operands are their own result: it has no `.ftz`.
#[inline]
pub fn tanh(a: f32) -> f32 {
    unary(a, false, f64::tanh)
}

/// `div.approx`: a * (1 / b). Where 2^126 < |b| < 2^128 the reciprocal is lost, so the result is 0, or NaN for infinite `a`.
#[inline]
pub fn div(a: f32, b: f32, ftz: bool) -> f32 {
    const LARGEST_DIVISOR: f32 = f32::from_bits(0x7e80_0000);
    let (a, b) = if ftz { (flush(a), flush(b)) } else { (a, b) };
    if b.abs() > LARGEST_DIVISOR { finish(a as f64 * 0f64.copysign(b as f64), ftz) } else { finish(a as f64 / b as f64, ftz) }
}

/// `div.full`: a / b over the whole range.
#[inline]
pub fn div_full(a: f32, b: f32, ftz: bool) -> f32 {
    let (a, b) = if ftz { (flush(a), flush(b)) } else { (a, b) };
    finish(a as f64 / b as f64, ftz)
}

#[inline]
fn unary_half<H: Half>(a: u16, ftz: bool, function: impl Fn(f64) -> f64) -> u16 {
    let a = if ftz { flush_half::<H>(a) } else { a };
    let result = H::from_f64(function(H::to_f32(a) as f64));
    if ftz { flush_half::<H>(result) } else { result }
}

/// `ex2.approx` of f16, which keeps subnormal numbers, or `ex2.approx.ftz` of bf16.
#[inline]
pub fn ex2_half<H: Half>(a: u16, ftz: bool) -> u16 {
    unary_half::<H>(a, ftz, f64::exp2)
}

/// `tanh.approx` of f16 or bf16. Subnormal numbers are kept.
#[inline]
pub fn tanh_half<H: Half>(a: u16) -> u16 {
    unary_half::<H>(a, false, f64::tanh)
}

/// The upper word of a function of the f64 with upper word `high` and lower word 0; the result's lower word is 0 too.
#[inline]
fn upper_word(high: u32, function: impl Fn(f64) -> f64) -> u32 {
    let flush = |value: f64| if value.abs() < f64::MIN_POSITIVE { 0f64.copysign(value) } else { value };
    let value = flush(function(flush(f64::from_bits((high as u64) << 32))));
    // To nearest: half of the error that the manual allows. A carry moves to the next exponent, at most to infinity.
    ((canonical_f64(value).to_bits() + (1 << 31)) >> 32) as u32
}

/// `rcp.approx.ftz.f64`: upper word of 1 / a, from the upper word of a.
#[inline]
pub fn rcp_f64(high: u32) -> u32 {
    upper_word(high, |a| 1.0 / a)
}

/// `rsqrt.approx.ftz.f64`: upper word of 1 / sqrt(a), from the upper word of a.
#[inline]
pub fn rsqrt_f64(high: u32) -> u32 {
    upper_word(high, |a| 1.0 / a.sqrt())
}

#[cfg(test)]
mod tests;
