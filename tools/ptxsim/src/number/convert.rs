//! `cvt` between floating-point and integer types.
//!
//! Registers are `u64` here: a value of a narrower type is in the low bits, zero- or sign-extended for integers as their type says.

use super::double::canonical;
use super::format::{
    Format, Rounding, bf16_to_f32, decode, encode, f16_to_f32, f32_to_bf16, f32_to_f16, round, rounds_up, split,
};

/// An integer type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Integer {
    /// 8, 16, 32 or 64.
    pub bits: u32,
    /// Whether it is signed.
    pub signed: bool,
}

impl Integer {
    /// Smallest value.
    pub const fn min(self) -> i128 {
        if self.signed { -(1 << (self.bits - 1)) } else { 0 }
    }

    /// Largest value.
    pub const fn max(self) -> i128 {
        (1 << (self.bits - self.signed as u32)) - 1
    }

    /// Low `bits` bits of `register` as a number.
    #[inline]
    pub const fn read(self, register: u64) -> i128 {
        let unused = 64 - self.bits;
        if self.signed { ((register << unused) as i64 >> unused) as i128 } else { (register << unused >> unused) as i128 }
    }

    /// `value` modulo 2^bits, extended to the register as the type says.
    #[inline]
    pub const fn write(self, value: i128) -> u64 {
        self.read(value as u64) as u64
    }
}

/// Decodes any format, f64 included; exact.
#[inline]
pub fn read(register: u64, format: Format) -> f64 {
    if let Format::F64 = format { f64::from_bits(register) } else { decode(register as u32, format) }
}

/// Encodes any format, f64 included, rounded once.
#[inline]
fn write(value: f64, format: Format, rounding: Rounding, satfinite: bool, relu: bool) -> u64 {
    if let Format::F64 = format {
        return canonical(value).to_bits();
    }
    encode(value, format, rounding, satfinite, relu) as u64
}

/// Integral part of a finite number under `rounding`: sign, and magnitude if that is below 2^64.
#[inline]
fn integral(value: f64, rounding: Rounding) -> (bool, Option<u64>) {
    let (negative, exponent, significand) = split(value);
    let magnitude = match exponent {
        64.. => return (negative, None),
        63 => significand,
        -1..63 => {
            let shift = (63 - exponent) as u32;
            let (kept, rest) =
                if shift == 64 { (0, significand) } else { (significand >> shift, significand & ((1 << shift) - 1)) };
            kept + rounds_up(negative, kept & 1 == 1, rest, 1 << (shift - 1), rounding) as u64
        }
        // Less than a half.
        _ => rounds_up(negative, false, (significand != 0) as u64, 2, rounding) as u64,
    };
    (negative, Some(magnitude))
}

/// Modifiers of a conversion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Conversion {
    /// `.rn`, `.rz`, `.rm`, `.rp`, `.rna`, or their integral forms `.rni` and so on.
    pub rounding: Rounding,
    /// `.ftz`: subnormal f32 operands and results become zero, keeping their sign.
    pub ftz: bool,
    /// `.sat`: floating-point results are clamped to 0..=1 (NaN becomes +0), integer results to the range of their type.
    pub sat: bool,
    /// `.satfinite`: what exceeds the largest finite number becomes that.
    pub satfinite: bool,
    /// `.relu`: negative results become +0.
    pub relu: bool,
}

#[inline]
fn flush(value: f64, format: Format, mode: Conversion) -> f64 {
    // `.ftz` speaks of f32 only.
    let subnormal = mode.ftz && format == Format::F32 && value.abs() < f32::MIN_POSITIVE as f64;
    if subnormal { 0f64.copysign(value) } else { value }
}

/// Float to integer: rounded to an integer, clamped to the range of `to`.
///
/// NaN gives 0 if neither is the source f64 nor the destination of 64 bits, else only the top bit of the destination is set.
#[inline]
pub fn float_to_integer(register: u64, from: Format, to: Integer, mode: Conversion) -> u64 {
    let value = flush(read(register, from), from, mode);
    if value.is_nan() {
        return if from == Format::F64 || to.bits == 64 { to.write(1 << (to.bits - 1)) } else { 0 };
    }
    let (negative, magnitude) = if value.is_infinite() { (value < 0.0, None) } else { integral(value, mode.rounding) };
    let limit = if negative { to.min() } else { to.max() };
    let number = magnitude.map_or(limit, |magnitude| if negative { -(magnitude as i128) } else { magnitude as i128 });
    to.write(number.clamp(to.min(), to.max()))
}

/// Integer to float, rounded once.
#[inline]
pub fn integer_to_float(register: u64, from: Integer, to: Format, mode: Conversion) -> u64 {
    let value = from.read(register);
    let magnitude = value.unsigned_abs() as u64;
    let zeros = magnitude.leading_zeros();
    // Shifting out all 64 bits happens for 0 alone.
    let significand = magnitude.checked_shl(zeros).unwrap_or(0);
    let bits = round(value < 0, 63 - zeros as i32, significand, to, mode.rounding);
    let number = read(bits, to);
    if mode.sat && !(0.0..=1.0).contains(&number) {
        return write(number.clamp(0.0, 1.0), to, mode.rounding, false, false);
    }
    bits
}

/// Integer to integer: wraps, or with `.sat` clamps to the range of `to`. The result is extended to the register as `to` says.
#[inline]
pub fn integer_to_integer(register: u64, from: Integer, to: Integer, mode: Conversion) -> u64 {
    let value = from.read(register);
    to.write(if mode.sat { value.clamp(to.min(), to.max()) } else { value })
}

/// Float to float, rounded once. NaN becomes [`Format::nan`].
#[inline]
pub fn float_to_float(register: u64, from: Format, to: Format, mode: Conversion) -> u64 {
    if mode == Conversion::default() {
        // What every load and store of a 16-bit kernel does.
        let widened = match (from, to) {
            (Format::F32, Format::F16) => return f32_to_f16(f32::from_bits(register as u32)) as u64,
            (Format::F32, Format::Bf16) => return f32_to_bf16(f32::from_bits(register as u32)) as u64,
            (Format::F16, Format::F32) => Some(f16_to_f32(register as u16)),
            (Format::Bf16, Format::F32) => Some(bf16_to_f32(register as u16)),
            _ => None,
        };
        if let Some(value) = widened {
            return if value.is_nan() { Format::F32.nan() } else { value.to_bits() as u64 };
        }
    }
    let value = flush(read(register, from), from, mode);
    let value = if mode.sat { clamp(value) } else { value };
    let bits = write(value, to, mode.rounding, mode.satfinite, mode.relu);
    // Whether a result is subnormal is known only after rounding.
    if mode.ftz && to == Format::F32 && to.is_subnormal(bits) { bits & to.sign() } else { bits }
}

/// Float to a float of the same format that is an integer (`cvt.rni.f32.f32` and so on). Infinities stay; zeros keep their sign.
#[inline]
pub fn float_to_integral(register: u64, format: Format, mode: Conversion) -> u64 {
    let value = flush(read(register, format), format, mode);
    let value = match mode.rounding {
        Rounding::NearestEven => value.round_ties_even(),
        Rounding::NearestAway => value.round(),
        Rounding::Zero => value.trunc(),
        Rounding::Down => value.floor(),
        Rounding::Up => value.ceil(),
    };
    let value = if mode.sat { clamp(value) } else { value };
    write(value, format, Rounding::NearestEven, false, false)
}

/// `.sat` of a number on its way to any format: clamping before rounding gives the same, as 0 and 1 are in all of them.
#[inline]
fn clamp(value: f64) -> f64 {
    if value > 0.0 { value.min(1.0) } else { 0.0 }
}

/// `cvt.*.tf32.f32`: rounding is `.rna`, `.rn` or `.rz`.
#[inline]
pub fn f32_to_tf32(bits: u32, mode: Conversion) -> u32 {
    float_to_float(bits as u64, Format::F32, Format::Tf32, mode) as u32
}

/// Two f32 to a packed pair: `high` goes to the upper half, as the first operand of `cvt.rn.f16x2.f32 d, a, b` does.
///
/// `to` is f16 or bf16 (32 bits), or e4m3 or e5m2 (16 bits).
#[inline]
pub fn f32_pair(high: u32, low: u32, to: Format, mode: Conversion) -> u32 {
    let convert = |bits: u32| float_to_float(bits as u64, Format::F32, to, mode) as u32;
    convert(high) << to.bits() | convert(low)
}

/// `cvt.rn.satfinite{.relu}.e4m3x2.f16x2` and the like: two f16 to two 8-bit floats.
#[inline]
pub fn f16x2_to_8bit(pair: u32, to: Format, mode: Conversion) -> u16 {
    let convert = |bits: u32| float_to_float((bits & 0xffff) as u64, Format::F16, to, mode) as u16;
    convert(pair >> 16) << 8 | convert(pair)
}

/// `cvt.rn{.relu}.f16x2.e4m3x2` and the like: two 8-bit floats to two f16; exact.
#[inline]
pub fn f16x2_from_8bit(pair: u16, from: Format, mode: Conversion) -> u32 {
    let convert = |bits: u16| float_to_float((bits & 0xff) as u64, from, Format::F16, mode) as u32;
    convert(pair >> 8) << 16 | convert(pair)
}

#[cfg(test)]
mod tests;
