use super::*;
use crate::number::testing::{ROUNDINGS, Words};

const SMALL: [Format; 4] = [Format::F16, Format::Bf16, Format::E4m3, Format::E5m2];

/// Value of a finite, non-negative pattern by the definition of the format.
fn by_definition(bits: u64, format: Format) -> f64 {
    let (bias, fraction_bits) = match format {
        Format::F16 => (15, 10),
        Format::Bf16 => (127, 7),
        Format::E4m3 => (7, 3),
        Format::E5m2 => (15, 2),
        _ => unreachable!(),
    };
    let fraction = (bits & ((1 << fraction_bits) - 1)) as f64 / (1u64 << fraction_bits) as f64;
    match (bits >> fraction_bits) as i32 {
        0 => fraction * 2f64.powi(1 - bias),
        exponent => (1.0 + fraction) * 2f64.powi(exponent - bias),
    }
}

/// Rounding by search among all finite numbers of a format.
struct Search {
    format: Format,
    values: Vec<f64>,
}

impl Search {
    fn new(format: Format) -> Search {
        let last: u64 = match format {
            Format::F16 => 0x7bff,
            Format::Bf16 => 0x7f7f,
            Format::E4m3 => 0x7e,
            Format::E5m2 => 0x7b,
            _ => unreachable!(),
        };
        // One more than the largest, where the next number would be: the midpoint below it decides overflow.
        let values = (0..=last + 1).map(|bits| by_definition(bits, format)).collect();
        Search { format, values }
    }

    fn encode(&self, value: f64, rounding: Rounding, saturate: bool) -> u32 {
        let negative = value.is_sign_negative();
        let magnitude = value.abs();
        let overflow = self.values.len() - 1;
        let above = self.values.partition_point(|&v| v < magnitude);
        let index = if above >= overflow && magnitude > self.values[overflow] {
            match rounding {
                Rounding::Zero => overflow - 1,
                Rounding::Down if !negative => overflow - 1,
                Rounding::Up if negative => overflow - 1,
                _ => overflow,
            }
        } else if self.values[above] == magnitude {
            above
        } else {
            let (low, high) = (above - 1, above);
            let middle = (self.values[low] + self.values[high]) / 2.0;
            match rounding {
                Rounding::Zero => low,
                Rounding::Down => {
                    if negative {
                        high
                    } else {
                        low
                    }
                }
                Rounding::Up => {
                    if negative {
                        low
                    } else {
                        high
                    }
                }
                Rounding::NearestEven if magnitude == middle => low + low % 2,
                Rounding::NearestAway if magnitude == middle => high,
                _ => {
                    if magnitude < middle {
                        low
                    } else {
                        high
                    }
                }
            }
        };
        // Exactly the overflow threshold under a mode that stays inside.
        let inside = matches!((rounding, negative), (Rounding::Zero, _) | (Rounding::Down, false) | (Rounding::Up, true));
        let index = if index == overflow && (saturate || inside) { overflow - 1 } else { index };
        index as u32 | (negative as u32) << (self.format.bits() - 1)
    }
}

#[test]
fn every_pattern_decodes_by_definition() {
    for format in SMALL {
        for bits in 0..1u64 << format.bits() {
            let got = decode(bits as u32, format);
            let magnitude = bits & (format.sign() - 1);
            if format.is_nan(bits) {
                assert!(got.is_nan(), "{format:?} {bits:#x}");
                continue;
            }
            assert_eq!(got.is_sign_negative(), bits >= format.sign(), "{format:?} {bits:#x}");
            let want = if magnitude > format.max_finite() { f64::INFINITY } else { by_definition(magnitude, format) };
            assert_eq!(got.abs(), want, "{format:?} {bits:#x}");
        }
    }
}

#[test]
fn halves_agree_with_the_half_crate() {
    for bits in 0..=u16::MAX {
        let (f16, bf16) = (half::f16::from_bits(bits), half::bf16::from_bits(bits));
        assert!(f16.is_nan() == f16_to_f32(bits).is_nan() && (f16.is_nan() || f16.to_f32() == f16_to_f32(bits)));
        assert!(bf16.is_nan() == bf16_to_f32(bits).is_nan() && (bf16.is_nan() || bf16.to_f32() == bf16_to_f32(bits)));
    }
    let mut words = Words(1);
    // All upper halves of an f32, so every exponent, with lower halves at and around ties.
    for upper in 0..=u16::MAX as u32 {
        for lower in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, words.next() as u32 & 0xffff] {
            let value = f32::from_bits(upper << 16 | lower);
            let (got16, got_b16) = (f32_to_f16(value), f32_to_bf16(value));
            if value.is_nan() {
                assert_eq!((got16, got_b16), (0x7fff, 0x7fff));
            } else {
                assert_eq!(got16, half::f16::from_f32(value).to_bits(), "{value:e}");
                assert_eq!(got_b16, half::bf16::from_f32(value).to_bits(), "{value:e}");
            }
        }
    }
}

#[test]
fn every_rounding_agrees_with_search_round_every_number() {
    for format in SMALL {
        let search = Search::new(format);
        let always = matches!(format, Format::E4m3 | Format::E5m2);
        for index in 0..search.values.len() {
            let low = search.values[index];
            let high = search.values.get(index + 1).copied().unwrap_or(low * 1.5);
            let middle = (low + high) / 2.0;
            let near = |v: f64| [v.next_down(), v, v.next_up()];
            for magnitude in near(low).into_iter().chain(near(middle)) {
                for value in [magnitude, -magnitude] {
                    for rounding in ROUNDINGS {
                        for saturate in [always, true] {
                            let want = search.encode(value, rounding, saturate);
                            let got = encode(value, format, rounding, saturate, false);
                            assert_eq!(got, want, "{value:e} {format:?} {rounding:?} saturate {saturate}");
                        }
                    }
                    let want = search.encode(value, Rounding::NearestEven, false);
                    match format {
                        Format::F16 => assert_eq!(f64_to_f16(value) as u32, want, "{value:e}"),
                        Format::Bf16 => assert_eq!(f64_to_bf16(value) as u32, want, "{value:e}"),
                        _ => {}
                    }
                }
            }
        }
    }
}

#[test]
fn f32_and_tf32_agree_with_native_and_with_integer_rounding() {
    let mut words = Words(2);
    for _ in 0..200_000 {
        let word = words.next();
        // Exponents of f32 and a little more on both sides.
        let exponent = 1023 - 155 + words.next() % 290;
        let value = f64::from_bits(word & 0x800f_ffff_ffff_ffff | exponent << 52);
        assert_eq!(encode(value, Format::F32, Rounding::NearestEven, false, false), (value as f32).to_bits(), "{value:e}");
        let single = value as f32;
        if single.is_finite() {
            // rna.tf32 is addition of half a unit to the pattern, then truncation.
            let want = single.to_bits().wrapping_add(0x1000) & 0xffff_e000;
            assert_eq!(encode(single as f64, Format::Tf32, Rounding::NearestAway, false, false), want, "{single:e}");
        }
        let down = f32::from_bits(encode(value, Format::F32, Rounding::Down, false, false));
        let up = f32::from_bits(encode(value, Format::F32, Rounding::Up, false, false));
        assert!(down as f64 <= value && value <= up as f64, "{value:e}");
        assert!(down == up || down.next_up() == up, "{value:e} between {down:e} and {up:e}");
    }
}

#[test]
fn sixty_four_bits_round_trip() {
    let mut words = Words(3);
    for _ in 0..100_000 {
        let value = f64::from_bits(words.next() >> (words.next() % 12));
        if value.is_finite() {
            let (negative, exponent, significand) = split(value);
            for rounding in ROUNDINGS {
                assert_eq!(round(negative, exponent, significand, Format::F64, rounding), value.to_bits());
            }
        }
    }
}

#[test]
fn special_values() {
    let nearest = Rounding::NearestEven;
    for format in [Format::F16, Format::Bf16, Format::Tf32, Format::E4m3, Format::E5m2, Format::F32] {
        assert_eq!(encode(f64::NAN, format, nearest, true, true) as u64, format.nan());
        assert_eq!(encode(-f64::NAN, format, nearest, false, false) as u64, format.nan());
        assert_eq!(encode(-0.0, format, nearest, false, false) as u64, format.sign());
        assert_eq!(encode(-0.0, format, nearest, false, true), 0);
        assert_eq!(encode(-1.0, format, nearest, false, true), 0);
        assert_eq!(encode(f64::NEG_INFINITY, format, nearest, true, false) as u64, format.sign() | format.max_finite());
        assert_eq!(decode(format.max_finite() as u32, format), decode(encode(1e300, format, nearest, true, false), format));
        assert!(format.is_nan(format.nan()));
    }
    for (value, f16, bf16) in [
        (f64::NAN, 0x7fff, 0x7fff),
        (-f64::NAN, 0x7fff, 0x7fff),
        (f64::NEG_INFINITY, 0xfc00, 0xff80),
        (-1e300, 0xfc00, 0xff80),
        (-1e-300, 0x8000, 0x8000),
        (-0.0, 0x8000, 0x8000),
    ] {
        assert_eq!((f64_to_f16(value), f64_to_bf16(value)), (f16, bf16), "{value:e}");
    }
    assert_eq!(encode(f64::INFINITY, Format::F16, nearest, false, false), 0x7c00);
    assert_eq!(encode(65520.0, Format::F16, nearest, false, false), 0x7c00);
    assert_eq!(encode(65519.0, Format::F16, nearest, false, false), 0x7bff);
    assert_eq!(encode(65520.0, Format::F16, Rounding::Zero, false, false), 0x7bff);
    assert_eq!(encode(1e9, Format::E4m3, nearest, false, false), 0x7e);
    assert_eq!(encode(-1e9, Format::E5m2, nearest, false, false), 0xfb);
    assert_eq!(decode(0x7e, Format::E4m3), 448.0);
    assert_eq!(decode(0x7b, Format::E5m2), 57344.0);
    assert!(Format::F16.is_subnormal(0x83ff) && !Format::F16.is_subnormal(0x400) && !Format::F16.is_subnormal(0));
}
