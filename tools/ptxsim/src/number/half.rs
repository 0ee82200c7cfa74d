//! f16 and bf16 arithmetic, one number or two packed in a register (`x2`).
//!
//! Add, sub and mul are computed in f32 and rounded to the 16-bit format. Rounding twice is rounding once here: f32 has more than
//! twice the bits plus two (24 >= 2 * 11 + 2), which makes it innocuous for these operations (Figueroa 1995), and where f32 itself
//! is subnormal a sum is exact, while a bf16 product (at most 16 bits) is exact wherever a midpoint of bf16 is representable.

use super::arithmetic::{Extremum, extremum, sum_to_odd};
use super::format::{Format, bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16, f64_to_bf16, f64_to_f16};

/// A 16-bit floating-point type.
pub trait Half {
    /// Which one.
    const FORMAT: Format;
    /// Decodes; exact.
    fn to_f32(bits: u16) -> f32;
    /// Rounds to nearest even.
    fn from_f32(value: f32) -> u16;
    /// Rounds to nearest even, once.
    fn from_f64(value: f64) -> u16;
}

/// IEEE binary16.
#[derive(Clone, Copy, Debug)]
pub enum F16 {}

/// The upper half of an f32.
#[derive(Clone, Copy, Debug)]
pub enum Bf16 {}

impl Half for F16 {
    const FORMAT: Format = Format::F16;

    #[inline]
    fn to_f32(bits: u16) -> f32 {
        f16_to_f32(bits)
    }

    #[inline]
    fn from_f32(value: f32) -> u16 {
        f32_to_f16(value)
    }

    #[inline]
    fn from_f64(value: f64) -> u16 {
        f64_to_f16(value)
    }
}

impl Half for Bf16 {
    const FORMAT: Format = Format::Bf16;

    #[inline]
    fn to_f32(bits: u16) -> f32 {
        bf16_to_f32(bits)
    }

    #[inline]
    fn from_f32(value: f32) -> u16 {
        f32_to_bf16(value)
    }

    #[inline]
    fn from_f64(value: f64) -> u16 {
        f64_to_bf16(value)
    }
}

/// Modifiers of a 16-bit instruction. All round to nearest even.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HalfMode {
    /// `.ftz`: subnormal operands and results become zero, keeping their sign.
    pub ftz: bool,
    /// `.sat`: the result is clamped to 0..=1, and NaN becomes +0.
    pub sat: bool,
    /// `.relu`: a negative result becomes +0; NaN stays NaN.
    pub relu: bool,
}

/// Zero with the sign of `bits` if that is subnormal, else `bits`.
#[inline]
pub fn flush<H: Half>(bits: u16) -> u16 {
    if H::FORMAT.is_subnormal(bits as u64) { bits & 0x8000 } else { bits }
}

#[inline]
fn operand<H: Half>(bits: u16, mode: HalfMode) -> u16 {
    if mode.ftz { flush::<H>(bits) } else { bits }
}

#[inline]
fn finish<H: Half>(bits: u16, mode: HalfMode) -> u16 {
    let bits = operand::<H>(bits, mode);
    let nan = H::FORMAT.is_nan(bits as u64);
    if mode.sat {
        let one = H::from_f32(1.0);
        return if nan || bits >= 0x8000 { 0 } else { bits.min(one) };
    }
    if mode.relu && bits >= 0x8000 && !nan { 0 } else { bits }
}

/// `a + b`.
#[inline]
pub fn add<H: Half>(a: u16, b: u16, mode: HalfMode) -> u16 {
    let (a, b) = (operand::<H>(a, mode), operand::<H>(b, mode));
    finish::<H>(H::from_f32(H::to_f32(a) + H::to_f32(b)), mode)
}

/// `a - b`.
#[inline]
pub fn sub<H: Half>(a: u16, b: u16, mode: HalfMode) -> u16 {
    let (a, b) = (operand::<H>(a, mode), operand::<H>(b, mode));
    finish::<H>(H::from_f32(H::to_f32(a) - H::to_f32(b)), mode)
}

/// `a * b`.
#[inline]
pub fn mul<H: Half>(a: u16, b: u16, mode: HalfMode) -> u16 {
    let (a, b) = (operand::<H>(a, mode), operand::<H>(b, mode));
    finish::<H>(H::from_f32(H::to_f32(a) * H::to_f32(b)), mode)
}

/// `a * b + c`, rounded once.
///
/// The product is exact in f64. The sum is rounded to odd, because for bf16 it can be a tie plus something beyond the bits of an f64
/// (for f16 it cannot: either all bits of the sum lie within 2^-48..2^16 and 53 bits, or the product is below 2^-31 of `c`).
#[inline]
pub fn fma<H: Half>(a: u16, b: u16, c: u16, mode: HalfMode) -> u16 {
    let (a, b, c) = (operand::<H>(a, mode), operand::<H>(b, mode), operand::<H>(c, mode));
    let product = H::to_f32(a) as f64 * H::to_f32(b) as f64;
    finish::<H>(H::from_f64(sum_to_odd(product, H::to_f32(c) as f64)), mode)
}

#[inline]
fn extremum_half<H: Half>(a: u16, b: u16, larger: bool, mode: Extremum) -> u16 {
    let (a, b) = if mode.ftz { (flush::<H>(a), flush::<H>(b)) } else { (a, b) };
    extremum(a as u64, b as u64, 0x8000, H::FORMAT.infinity(), 0x7fff, larger, mode) as u16
}

/// `min`: a NaN operand yields the other one, two yield 0x7fff; -0 is below +0.
#[inline]
pub fn min<H: Half>(a: u16, b: u16, mode: Extremum) -> u16 {
    extremum_half::<H>(a, b, false, mode)
}

/// `max`, as [`min`].
#[inline]
pub fn max<H: Half>(a: u16, b: u16, mode: Extremum) -> u16 {
    extremum_half::<H>(a, b, true, mode)
}

/// Applies an operation to both halves of packed registers: `x2(|[a, b]| add::<F16>(a, b, mode), [a, b])`.
#[inline]
pub fn x2<const N: usize>(operation: impl Fn([u16; N]) -> u16, operands: [u32; N]) -> u32 {
    let low = operation(operands.map(|bits| bits as u16));
    let high = operation(operands.map(|bits| (bits >> 16) as u16));
    (high as u32) << 16 | low as u32
}

#[cfg(test)]
mod tests;
