use super::*;
use crate::number::testing::{ROUNDINGS, Words};

const S8: Integer = Integer { bits: 8, signed: true };
const U8: Integer = Integer { bits: 8, signed: false };
const S16: Integer = Integer { bits: 16, signed: true };
const U16: Integer = Integer { bits: 16, signed: false };
const S32: Integer = Integer { bits: 32, signed: true };
const U32: Integer = Integer { bits: 32, signed: false };
const S64: Integer = Integer { bits: 64, signed: true };
const U64: Integer = Integer { bits: 64, signed: false };
const INTEGERS: [Integer; 8] = [S8, U8, S16, U16, S32, U32, S64, U64];

fn mode(rounding: Rounding) -> Conversion {
    Conversion { rounding, ..Conversion::default() }
}

fn f32_to(value: f32, to: Integer, rounding: Rounding) -> u64 {
    float_to_integer(value.to_bits() as u64, Format::F32, to, mode(rounding))
}

/// The integer next to a number, by std's functions.
fn rounded(value: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::NearestEven => value.round_ties_even(),
        Rounding::NearestAway => value.round(),
        Rounding::Zero => value.trunc(),
        Rounding::Down => value.floor(),
        Rounding::Up => value.ceil(),
    }
}

#[test]
fn floats_to_integers_agree_with_std() {
    let mut words = Words(51);
    for i in 0..100_000 {
        let value = match i % 4 {
            0 => words.f64(),
            1 => (words.next() as i64 >> (words.next() % 64)) as f64 / 2.0,
            2 => [f64::INFINITY, f64::NEG_INFINITY, 0.5, -0.5, 1.5, -1.5, 2.5, -0.0, 127.5, -128.5, 1e300]
                [words.next() as usize % 11],
            _ => words.f32() as f64,
        };
        for rounding in ROUNDINGS {
            let whole = rounded(value, rounding);
            for to in INTEGERS {
                // `as` truncates, which changes nothing here, and saturates.
                let want = match (to.bits, to.signed) {
                    (8, true) => whole as i8 as u64,
                    (8, false) => whole as u8 as u64,
                    (16, true) => whole as i16 as u64,
                    (16, false) => whole as u16 as u64,
                    (32, true) => whole as i32 as u64,
                    (32, false) => whole as u32 as u64,
                    (64, true) => whole as i64 as u64,
                    _ => whole as u64,
                };
                assert_eq!(
                    float_to_integer(value.to_bits(), Format::F64, to, mode(rounding)),
                    want,
                    "{value:e} {rounding:?} {to:?}"
                );
                let single = value as f32;
                if single as f64 == value {
                    assert_eq!(f32_to(single, to, rounding), want, "{value:e} {rounding:?} {to:?} from f32");
                }
            }
        }
    }
}

#[test]
fn nan_to_integers() {
    for (to, from_f32, from_f64) in [
        (S32, 0, i32::MIN as i64 as u64),
        (U32, 0, 0x8000_0000),
        (S16, 0, i16::MIN as i64 as u64),
        (S64, 1 << 63, 1 << 63),
        (U64, 1 << 63, 1 << 63),
    ] {
        assert_eq!(f32_to(f32::NAN, to, Rounding::Zero), from_f32, "{to:?}");
        assert_eq!(float_to_integer(f64::NAN.to_bits(), Format::F64, to, mode(Rounding::Zero)), from_f64, "{to:?}");
        assert_eq!(float_to_integer(0x7e00, Format::F16, to, mode(Rounding::Zero)), from_f32, "{to:?}");
    }
}

#[test]
fn ftz_flushes_before_rounding_to_integers() {
    let tiny = f32::from_bits(1);
    assert_eq!(f32_to(tiny, S32, Rounding::Up), 1);
    let ftz = Conversion { ftz: true, ..mode(Rounding::Up) };
    assert_eq!(float_to_integer(1, Format::F32, S32, ftz), 0);
    assert_eq!(float_to_integer(1, Format::F64, S32, ftz), 1);
}

#[test]
fn integers_to_floats_are_rounded_once() {
    let mut words = Words(52);
    for i in 0..100_000 {
        let mut word = words.next() >> (words.next() % 64);
        if i % 3 == 0 {
            // At, just below and just above ties of every format.
            let top = words.next() % 64;
            let low = [8, 9, 11, 12, 24, 25, 53, 54][words.next() as usize % 8];
            word = (1 << top | (1u64 << top).checked_shr(low - 1).unwrap_or(0)).wrapping_add(words.next() % 3).wrapping_sub(1);
        }
        for from in INTEGERS {
            let value = from.read(word);
            assert_eq!(integer_to_float(word, from, Format::F32, mode(Rounding::NearestEven)) as u32, (value as f32).to_bits());
            assert_eq!(integer_to_float(word, from, Format::F64, mode(Rounding::NearestEven)), (value as f64).to_bits());
            for format in [Format::F16, Format::Bf16, Format::F32, Format::F64] {
                let [nearest, zero, down, up, _] = ROUNDINGS.map(|rounding| {
                    let got = read(integer_to_float(word, from, format, mode(rounding)), format);
                    // All finite results are integers below 2^65.
                    if got.is_finite() { got as i128 } else { i128::MAX.wrapping_mul(got.signum() as i128) }
                });
                let what = format!("{value} to {format:?}");
                assert!(down <= value && value <= up, "{what}");
                assert_eq!(zero, if value < 0 { up } else { down }, "{what}");
                assert!(nearest == down || nearest == up, "{what}");
                if up < i128::MAX && down > -i128::MAX {
                    let (below, above) = (value - down, up - value);
                    assert!(below == above || nearest == if below < above { down } else { up }, "{what}");
                    // Neighbours: nothing representable lies between them.
                    if down != up {
                        let bits = write(down as f64, format, Rounding::NearestEven, false, false);
                        let next = if down < 0 { bits - 1 } else { bits + 1 };
                        assert_eq!(read(next, format) as i128, up, "{what}");
                    }
                }
            }
        }
    }
    assert_eq!(integer_to_float(70_000, U32, Format::F16, mode(Rounding::NearestEven)), 0x7c00);
    assert_eq!(integer_to_float(70_000, U32, Format::F16, mode(Rounding::Zero)), 0x7bff);
    assert_eq!(integer_to_float(0, S32, Format::F32, mode(Rounding::Down)), 0);
    let sat = Conversion { sat: true, ..Conversion::default() };
    assert_eq!(integer_to_float(5, S32, Format::F32, sat) as u32, 1f32.to_bits());
    assert_eq!(integer_to_float(-5i64 as u64, S32, Format::F32, sat), 0);
}

#[test]
fn integers_to_integers() {
    let sat = Conversion { sat: true, ..Conversion::default() };
    let plain = Conversion::default();
    for (value, from, to, wrapped, clamped) in [
        (300, S32, U8, 44, 255),
        (300, S32, S8, 44, 127),
        (-5i64 as u64, S32, U32, 0xffff_fffb, 0),
        (0xffff_ffff, U32, S32, u64::MAX, 0x7fff_ffff),
        (0xffff_fffb, S32, S64, -5i64 as u64, -5i64 as u64),
        (0xffff_fffb, U32, U64, 0xffff_fffb, 0xffff_fffb),
        (-300i64 as u64, S16, S8, -44i64 as u64, -128i64 as u64),
        (u64::MAX, U64, S64, u64::MAX, i64::MAX as u64),
    ] {
        assert_eq!(integer_to_integer(value, from, to, plain), wrapped, "{value:#x} {from:?} {to:?}");
        assert_eq!(integer_to_integer(value, from, to, sat), clamped, "{value:#x} {from:?} {to:?}");
    }
}

#[test]
fn floats_to_floats() {
    let plain = Conversion::default();
    let formats = [Format::F16, Format::Bf16, Format::Tf32, Format::E4m3, Format::E5m2, Format::F32, Format::F64];
    let mut words = Words(53);
    for _ in 0..20_000 {
        let value = words.f32();
        for from in formats {
            let bits = write(value as f64, from, Rounding::NearestEven, false, false);
            let exact = read(bits, from);
            for to in formats {
                for rounding in ROUNDINGS {
                    let got = float_to_float(bits, from, to, mode(rounding));
                    assert_eq!(got, write(exact, to, rounding, false, false), "{exact:e} {from:?} to {to:?} {rounding:?}");
                }
            }
        }
    }
    for from in formats {
        for to in formats {
            assert_eq!(float_to_float(from.nan(), from, to, plain), to.nan());
            assert_eq!(float_to_float(from.nan(), from, to, Conversion { sat: true, ..plain }), 0);
        }
    }
    // A f64 just past a tie of f16 but a tie after rounding to f32.
    let value = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
    assert_eq!(float_to_float(value.to_bits(), Format::F64, Format::F16, plain), 0x3c01);
}

#[test]
fn modifiers_of_float_conversions() {
    let plain = Conversion::default();
    let ftz = Conversion { ftz: true, ..plain };
    let f32_bits = |value: f32| value.to_bits() as u64;
    assert_eq!(float_to_float((-1e-40f64).to_bits(), Format::F64, Format::F32, ftz), 0x8000_0000);
    assert_eq!(float_to_float(1e-40f64.to_bits(), Format::F64, Format::F32, plain), f32_bits(1e-40));
    assert_eq!(float_to_float(f32_bits(1e-40), Format::F32, Format::F64, ftz), 0);
    // Subnormal in f16 only: `.ftz` leaves it.
    assert_eq!(float_to_float(f32_bits(2f32.powi(-20)), Format::F32, Format::F16, ftz), 0x0010);
    assert_eq!(float_to_float(0x0001, Format::F16, Format::F32, ftz), f32_bits(2f32.powi(-24)));
    let sat = Conversion { sat: true, ..plain };
    assert_eq!(float_to_float(f32_bits(-3.0), Format::F32, Format::F32, sat), 0);
    assert_eq!(float_to_float(f32_bits(3.0), Format::F32, Format::F16, sat), 0x3c00);
    let relu = Conversion { relu: true, ..plain };
    assert_eq!(f32_pair((-2f32).to_bits(), 2f32.to_bits(), Format::F16, relu), 0x0000_4000);
    assert_eq!(f32_pair(1f32.to_bits(), (-2f32).to_bits(), Format::Bf16, plain), 0x3f80_c000);
    let satfinite = Conversion { satfinite: true, ..plain };
    assert_eq!(f32_pair(1e30f32.to_bits(), f32::NAN.to_bits(), Format::F16, satfinite), 0x7bff_7fff);
    assert_eq!(f32_pair(1e30f32.to_bits(), (-500f32).to_bits(), Format::E4m3, satfinite), 0x7efe);
    assert_eq!(f32_pair(1f32.to_bits(), 0.5f32.to_bits(), Format::E5m2, satfinite), 0x3c38);
    assert_eq!(f16x2_to_8bit(0x3c00_b800, Format::E4m3, satfinite), 0x38b0);
    assert_eq!(f16x2_to_8bit(0x7c00_3800, Format::E5m2, satfinite), 0x7b38);
    assert_eq!(f16x2_from_8bit(0x38b0, Format::E4m3, plain), 0x3c00_b800);
    assert_eq!(f16x2_from_8bit(0xb87f, Format::E4m3, relu), 0x0000_7fff);
    assert_eq!(f32_to_tf32(0x3f80_1000, mode(Rounding::NearestAway)), 0x3f80_2000);
    assert_eq!(f32_to_tf32(0x3f80_1000, mode(Rounding::NearestEven)), 0x3f80_0000);
    assert_eq!(f32_to_tf32(0x3f80_1fff, mode(Rounding::Zero)), 0x3f80_0000);
    assert_eq!(f32_to_tf32(f32::MAX.to_bits(), Conversion { satfinite: true, ..mode(Rounding::NearestAway) }), 0x7f7f_e000);
}

#[test]
fn integral_floats() {
    let mut words = Words(54);
    for _ in 0..50_000 {
        let (single, double) = (words.f32(), words.f64());
        for rounding in ROUNDINGS {
            let got = float_to_integral(single.to_bits() as u64, Format::F32, mode(rounding)) as u32;
            assert_eq!(got, (rounded(single as f64, rounding) as f32).to_bits(), "{single:e} {rounding:?}");
            let got = float_to_integral(double.to_bits(), Format::F64, mode(rounding));
            assert_eq!(got, rounded(double, rounding).to_bits());
        }
    }
    let at = |value: f32, conversion| f32::from_bits(float_to_integral(value.to_bits() as u64, Format::F32, conversion) as u32);
    assert_eq!(at(-0.25, mode(Rounding::NearestEven)).to_bits(), 0x8000_0000);
    assert_eq!(at(f32::INFINITY, mode(Rounding::Zero)), f32::INFINITY);
    assert_eq!(at(1e-40, Conversion { ftz: true, ..mode(Rounding::Up) }), 0.0);
    assert_eq!(at(1e-40, mode(Rounding::Up)), 1.0);
    assert_eq!(at(f32::NAN, mode(Rounding::Zero)).to_bits(), 0x7fff_ffff);
    assert_eq!(float_to_integral(0x3e00, Format::F16, mode(Rounding::NearestEven)), 0x4000);
}
