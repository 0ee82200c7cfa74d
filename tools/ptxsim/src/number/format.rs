//! Bit patterns of the floating-point formats of PTX: f16, bf16, tf32, e4m3, e5m2, f32, f64.
//!
//! [`round`] is the one place where a number is rounded; the dedicated functions for f16 and bf16 exist because every load and
//! store of a kernel goes through them.

/// A floating-point format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// IEEE binary16.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// An f32 whose low 13 bits are zero (in a 32-bit container).
    Tf32,
    /// 4 bits of exponent, 3 of fraction; no infinity, NaN is 0x7f and 0xff.
    E4m3,
    /// 5 bits of exponent, 2 of fraction; infinities and NaN as in IEEE formats.
    E5m2,
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
}

/// How to choose between the two representable neighbours of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// `.rn`: to nearest, ties to even.
    #[default]
    NearestEven,
    /// `.rz`: towards zero.
    Zero,
    /// `.rm`: towards negative infinity.
    Down,
    /// `.rp`: towards positive infinity.
    Up,
    /// `.rna`: to nearest, ties away from zero.
    NearestAway,
}

impl Format {
    /// Bits of the stored fraction.
    #[inline]
    pub const fn fraction_bits(self) -> u32 {
        match self {
            Format::F16 | Format::Tf32 => 10,
            Format::Bf16 => 7,
            Format::E4m3 => 3,
            Format::E5m2 => 2,
            Format::F32 => 23,
            Format::F64 => 52,
        }
    }

    /// Exponent of the smallest normal number.
    #[inline]
    pub const fn minimum_exponent(self) -> i32 {
        match self {
            Format::F16 | Format::E5m2 => -14,
            Format::E4m3 => -6,
            Format::Bf16 | Format::Tf32 | Format::F32 => -126,
            Format::F64 => -1022,
        }
    }

    /// Pattern of the largest finite number, counted in units of the last stored fraction bit.
    ///
    /// For tf32 that is without the 13 zero bits of its container.
    #[inline]
    const fn largest(self) -> u64 {
        match self {
            Format::F16 => 0x7bff,
            Format::Bf16 => 0x7f7f,
            Format::Tf32 => 0x3_fbff,
            Format::E4m3 => 0x7e,
            Format::E5m2 => 0x7b,
            Format::F32 => 0x7f7f_ffff,
            Format::F64 => 0x7fef_ffff_ffff_ffff,
        }
    }

    /// Zero bits below the fraction in the container.
    #[inline]
    const fn padding(self) -> u32 {
        if matches!(self, Format::Tf32) { 13 } else { 0 }
    }

    /// Bits of the container: 8, 16, 32 or 64.
    #[inline]
    pub const fn bits(self) -> u32 {
        match self {
            Format::E4m3 | Format::E5m2 => 8,
            Format::F16 | Format::Bf16 => 16,
            Format::Tf32 | Format::F32 => 32,
            Format::F64 => 64,
        }
    }

    /// Pattern of the largest finite number.
    #[inline]
    pub const fn max_finite(self) -> u64 {
        self.largest() << self.padding()
    }

    /// Pattern of positive infinity; the largest finite number for e4m3, which has none.
    #[inline]
    pub const fn infinity(self) -> u64 {
        if matches!(self, Format::E4m3) { self.max_finite() } else { (self.largest() + 1) << self.padding() }
    }

    /// The NaN that instructions produce: all bits below the sign set, except for f64, whose default NaN is 0xfff8000000000000.
    #[inline]
    pub const fn nan(self) -> u64 {
        match self {
            Format::F16 | Format::Bf16 => 0x7fff,
            Format::E4m3 | Format::E5m2 => 0x7f,
            Format::Tf32 | Format::F32 => 0x7fff_ffff,
            Format::F64 => 0xfff8_0000_0000_0000,
        }
    }

    /// Whether `bits` is a NaN of this format.
    #[inline]
    pub const fn is_nan(self, bits: u64) -> bool {
        let magnitude = bits & (self.sign() - 1);
        match self {
            Format::E4m3 => magnitude == 0x7f,
            // The tensor units ignore the padding of a tf32, but as an f32 any set bit makes a NaN.
            _ => magnitude > self.infinity(),
        }
    }

    /// Whether `bits` is a number below the smallest normal one, other than zero.
    #[inline]
    pub const fn is_subnormal(self, bits: u64) -> bool {
        let magnitude = bits & (self.sign() - 1);
        magnitude != 0 && magnitude < 1 << (self.fraction_bits() + self.padding())
    }

    /// The sign bit.
    #[inline]
    pub const fn sign(self) -> u64 {
        1 << (self.bits() - 1)
    }
}

/// Whether a truncated magnitude must be stepped up, given what was cut off relative to half a unit.
#[inline]
pub(crate) fn rounds_up(negative: bool, odd: bool, rest: u64, half: u64, rounding: Rounding) -> bool {
    match rounding {
        Rounding::NearestEven => rest > half || (rest == half && odd),
        Rounding::NearestAway => rest >= half,
        Rounding::Zero => false,
        Rounding::Down => negative && rest != 0,
        Rounding::Up => !negative && rest != 0,
    }
}

/// The pattern of the number +-(significand / 2^63) * 2^exponent, rounded once.
///
/// `significand` has its top bit set, or is 0. Its lowest bit may stand for anything below it ("sticky"), because no format keeps
/// more than 53 bits. Overflow gives infinity or the largest finite number, as `rounding` says.
#[inline]
pub fn round(negative: bool, exponent: i32, significand: u64, format: Format, rounding: Rounding) -> u64 {
    let sign = if negative { format.sign() } else { 0 };
    if significand == 0 {
        return sign;
    }
    let fraction_bits = format.fraction_bits();
    // Steps below the normal range cost one bit each; past 63 the number is less than half of the smallest one, as it is at 63.
    let below = (format.minimum_exponent() - exponent).max(0) as u32;
    let above = (exponent - format.minimum_exponent()).max(0) as u64;
    let shift = 63 - fraction_bits + below;
    let (kept, rest, half) = match shift {
        0..64 => (significand >> shift, significand & ((1 << shift) - 1), 1 << (shift - 1)),
        64 => (0, significand, 1 << 63),
        _ => (0, 1, 2),
    };
    let kept = kept + rounds_up(negative, kept & 1 == 1, rest, half, rounding) as u64;
    // A carry out of the fraction becomes the next exponent by itself.
    let magnitude = (above << fraction_bits) + kept;
    if magnitude > format.largest() {
        let towards_zero = match rounding {
            Rounding::NearestEven | Rounding::NearestAway => false,
            Rounding::Zero => true,
            Rounding::Down => !negative,
            Rounding::Up => negative,
        };
        return sign | if towards_zero { format.max_finite() } else { format.infinity() };
    }
    sign | (magnitude << format.padding())
}

/// Sign, exponent and significand (top bit at 63) of a finite f64, as [`round`] takes them.
#[inline]
pub(crate) fn split(value: f64) -> (bool, i32, u64) {
    let bits = value.to_bits();
    let negative = bits >> 63 == 1;
    let fraction = bits & 0x000f_ffff_ffff_ffff;
    match (bits >> 52 & 0x7ff) as i32 {
        0 => {
            let zeros = fraction.leading_zeros();
            (negative, -1011 - zeros as i32, fraction.checked_shl(zeros).unwrap_or(0))
        }
        biased => (negative, biased - 1023, 1 << 63 | fraction << 11),
    }
}

/// Encodes `value`, rounded once, in a format of at most 32 bits.
///
/// `saturate` is `.satfinite`: what exceeds the largest finite number, infinity included, becomes that number with its sign; for the 8-bit
/// formats it holds always, since PTX has no other conversion to them. `relu` turns negative results into +0. NaN becomes [`Format::nan`].
///
/// `format` must not be [`Format::F64`], whose patterns do not fit the result.
#[inline]
pub fn encode(value: f64, format: Format, rounding: Rounding, saturate: bool, relu: bool) -> u32 {
    debug_assert!(format != Format::F64);
    if value.is_nan() {
        return format.nan() as u32;
    }
    if relu && value.is_sign_negative() {
        return 0;
    }
    let sign = if value.is_sign_negative() { format.sign() } else { 0 };
    let bits = if value.is_infinite() {
        sign | format.infinity()
    } else {
        let (negative, exponent, significand) = split(value);
        round(negative, exponent, significand, format, rounding)
    };
    let saturate = saturate || matches!(format, Format::E4m3 | Format::E5m2);
    (if saturate && bits & !format.sign() == format.infinity() { sign | format.max_finite() } else { bits }) as u32
}

/// Decodes a pattern of any format of at most 32 bits; exact. NaN payloads are not kept.
#[inline]
pub fn decode(bits: u32, format: Format) -> f64 {
    match format {
        Format::F16 => f16_to_f32(bits as u16) as f64,
        Format::Bf16 => bf16_to_f32(bits as u16) as f64,
        Format::Tf32 => f32::from_bits(tf32_significant(bits)) as f64,
        Format::E4m3 => e4m3_to_f32(bits as u8) as f64,
        Format::E5m2 => e5m2_to_f32(bits as u8) as f64,
        Format::F32 => f32::from_bits(bits) as f64,
        Format::F64 => f64::NAN,
    }
}

/// Decodes an f16; exact, NaN payloads kept.
#[inline]
pub const fn f16_to_f32(bits: u16) -> f32 {
    let magnitude = (bits & 0x7fff) as u32;
    let shifted = magnitude << 13;
    // Below the normal range the fraction counts units of 2^-24: put it under a leading 2^-14, then take that away.
    let subnormal = f32::from_bits(shifted + (113 << 23)) - f32::from_bits(113 << 23);
    let rebias = if magnitude >= 0x7c00 { 224 << 23 } else { 112 << 23 };
    let unsigned = if magnitude < 0x400 { subnormal.to_bits() } else { shifted + rebias };
    f32::from_bits(unsigned | (bits as u32 & 0x8000) << 16)
}

/// Rounds an f32 to the nearest f16, ties to even; NaN becomes 0x7fff.
#[inline]
pub const fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let sign = (bits >> 16 & 0x8000) as u16;
    if magnitude >= 0x4780_0000 {
        return if magnitude > 0x7f80_0000 { 0x7fff } else { sign | 0x7c00 };
    }
    let rounded = if magnitude < 0x3880_0000 {
        // Adding 0.5, whose last bit is 2^-24, lets the f32 unit round to the subnormal grid.
        (f32::from_bits(magnitude) + 0.5).to_bits() - 0x3f00_0000
    } else {
        (magnitude - (112 << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13
    };
    sign | rounded as u16
}

/// Decodes a bf16; exact, NaN payloads kept.
#[inline]
pub const fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// Rounds an f32 to the nearest bf16, ties to even; NaN becomes 0x7fff.
#[inline]
pub const fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        return 0x7fff;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The bits of a tf32 operand that a tensor unit looks at.
#[inline]
pub const fn tf32_significant(bits: u32) -> u32 {
    bits & 0xffff_e000
}

const fn eight_bit_table(e4m3: bool) -> [f32; 256] {
    let mut table = [0.0; 256];
    let mut bits = 0;
    while bits < 256 {
        // Both are f16 patterns but for position and bias: e5m2 is its upper half, e4m3 has a bias smaller by 8.
        let magnitude = (bits & 0x7f) as u16;
        let value = if !e4m3 {
            f16_to_f32(magnitude << 8)
        } else if magnitude == 0x7f {
            f32::from_bits(0x7fff_ffff)
        } else {
            f16_to_f32(magnitude << 7) * 256.0
        };
        table[bits] = if bits >= 128 { -value } else { value };
        bits += 1;
    }
    table
}

static E4M3: [f32; 256] = eight_bit_table(true);
static E5M2: [f32; 256] = eight_bit_table(false);

/// Decodes an e4m3; exact.
#[inline]
pub fn e4m3_to_f32(bits: u8) -> f32 {
    E4M3[bits as usize]
}

/// Decodes an e5m2; exact.
#[inline]
pub fn e5m2_to_f32(bits: u8) -> f32 {
    E5M2[bits as usize]
}

/// The f32 with an odd last bit next to `value`, or `value` itself if it is an f32. NaN stays NaN.
///
/// Rounding that again, to a format with at least two bits less, gives what rounding `value` once would give.
#[inline]
fn f64_to_f32_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let back = nearest as f64;
    let bits = nearest.to_bits();
    let step = if back.abs() < value.abs() { 1 } else { u32::MAX };
    f32::from_bits(bits.wrapping_add(if (back != value) & (bits & 1 == 0) { step } else { 0 }))
}

/// Rounds an f64 once to the nearest f16, ties to even; NaN becomes 0x7fff.
#[inline]
pub fn f64_to_f16(value: f64) -> u16 {
    f32_to_f16(f64_to_f32_odd(value))
}

/// Rounds an f64 once to the nearest bf16, ties to even; NaN becomes 0x7fff.
#[inline]
pub fn f64_to_bf16(value: f64) -> u16 {
    f32_to_bf16(f64_to_f32_odd(value))
}

#[cfg(test)]
mod tests;
