use super::*;
use crate::number::format::{bf16_to_f32, f16_to_f32};
use crate::number::half::{Bf16, F16};
use crate::number::testing::Words;

const INF: f32 = f32::INFINITY;
const SUBNORMAL: f32 = f32::from_bits(0x0000_4000);

type Unary = fn(f32, bool) -> f32;

/// A table of the manual: operand, result, result with `.ftz`.
fn table(name: &str, function: Unary, rows: &[(f32, f32, f32)]) {
    for &(operand, plain, flushed) in rows {
        for (ftz, want) in [(false, plain), (true, flushed)] {
            let got = function(operand, ftz);
            let want = if want.is_nan() { 0x7fff_ffff } else { want.to_bits() };
            assert_eq!(got.to_bits(), want, "{name} of {operand:e} ftz {ftz} gave {got:e}");
        }
    }
}

#[test]
fn special_values() {
    let nan = f32::NAN;
    let below_one = f32::from_bits(0x7f80_0000 - 1);
    table(
        "rcp",
        rcp,
        &[
            (-INF, -0.0, -0.0),
            (-0.0, -INF, -INF),
            (0.0, INF, INF),
            (INF, 0.0, 0.0),
            (nan, nan, nan),
            (-nan, nan, nan),
            (-SUBNORMAL, -2f32.powi(127) * 2.0 * 2f32.powi(8), -INF),
            (2.0, 0.5, 0.5),
            (below_one, 2f32.powi(-128), 0.0),
        ],
    );
    table(
        "rsqrt",
        rsqrt,
        &[
            (-INF, nan, nan),
            (-1.0, nan, nan),
            (-SUBNORMAL, nan, -INF),
            (-0.0, -INF, -INF),
            (0.0, INF, INF),
            (SUBNORMAL, 2f32.powf(67.5), INF),
            (INF, 0.0, 0.0),
            (nan, nan, nan),
            (4.0, 0.5, 0.5),
        ],
    );
    table(
        "sqrt",
        sqrt,
        &[
            (-INF, nan, nan),
            (-1.0, nan, nan),
            (-SUBNORMAL, nan, -0.0),
            (-0.0, -0.0, -0.0),
            (0.0, 0.0, 0.0),
            (SUBNORMAL, 2f32.powf(-67.5), 0.0),
            (INF, INF, INF),
            (nan, nan, nan),
            (9.0, 3.0, 3.0),
        ],
    );
    table(
        "sin",
        sin,
        &[
            (-INF, nan, nan),
            (-SUBNORMAL, -SUBNORMAL, -0.0),
            (-0.0, -0.0, -0.0),
            (0.0, 0.0, 0.0),
            (INF, nan, nan),
            (nan, nan, nan),
        ],
    );
    table(
        "cos",
        cos,
        &[(-INF, nan, nan), (-SUBNORMAL, 1.0, 1.0), (-0.0, 1.0, 1.0), (0.0, 1.0, 1.0), (INF, nan, nan), (nan, nan, nan)],
    );
    table(
        "lg2",
        lg2,
        &[
            (-INF, nan, nan),
            (-1.0, nan, nan),
            (-SUBNORMAL, nan, -INF),
            (-0.0, -INF, -INF),
            (0.0, -INF, -INF),
            (SUBNORMAL, -135.0, -INF),
            (INF, INF, INF),
            (nan, nan, nan),
            (8.0, 3.0, 3.0),
            (1.0, 0.0, 0.0),
        ],
    );
    table(
        "ex2",
        ex2,
        &[
            (-INF, 0.0, 0.0),
            (-SUBNORMAL, 1.0, 1.0),
            (-0.0, 1.0, 1.0),
            (0.0, 1.0, 1.0),
            (SUBNORMAL, 1.0, 1.0),
            (INF, INF, INF),
            (nan, nan, nan),
            (-130.0, 2f32.powi(-130), 0.0),
            (128.0, INF, INF),
            (-3.0, 0.125, 0.125),
            (-126.0, 2f32.powi(-126), 2f32.powi(-126)),
        ],
    );
    table(
        "tanh",
        |a, _| tanh(a),
        &[
            (-INF, -1.0, -1.0),
            (-SUBNORMAL, -SUBNORMAL, -SUBNORMAL),
            (-0.0, -0.0, -0.0),
            (0.0, 0.0, 0.0),
            (SUBNORMAL, SUBNORMAL, SUBNORMAL),
            (INF, 1.0, 1.0),
            (nan, nan, nan),
        ],
    );
}

#[test]
fn divisions() {
    for divide in [div, div_full] {
        assert_eq!(divide(1.0, 4.0, false), 0.25);
        assert_eq!(divide(0.0, 0.0, false).to_bits(), 0x7fff_ffff);
        assert_eq!(divide(1.0, -0.0, false), -INF);
        assert_eq!(divide(1.0, SUBNORMAL, true), INF);
        assert_eq!(divide(2f32.powi(-100), 2f32.powi(40), false), 2f32.powi(-140));
        assert_eq!(divide(2f32.powi(-100), -(2f32.powi(40)), true).to_bits(), 0x8000_0000);
    }
    let large = 2f32.powi(127);
    assert_eq!(div(large, large / 2.0, false), 2.0);
    assert_eq!(div(-large, large, false).to_bits(), 0x8000_0000);
    assert_eq!(div(INF, large, false).to_bits(), 0x7fff_ffff);
    assert_eq!(div_full(large, large, false), 1.0);
    assert_eq!(div_full(INF, large, false), INF);
}

/// Distance in units of the last place of f32.
fn ulps(got: f32, want: f64) -> f64 {
    let want32 = want as f32;
    let unit = (want32.abs().next_up() - want32.abs()) as f64;
    (got as f64 - want).abs() / unit
}

#[test]
fn results_are_within_the_bounds_of_the_manual() {
    let mut words = Words(61);
    for _ in 0..50_000 {
        let a = words.f32();
        let x = a as f64;
        if a > 0.0 {
            assert!(ulps(rsqrt(a, false), 1.0 / x.sqrt()) < 1.0);
            assert!(ulps(sqrt(a, false), x.sqrt()) < 1.0);
            // The bound is absolute in 0.5..2 (2^-22.6), relative elsewhere.
            assert!((lg2(a, false) as f64 - x.ln() / 2f64.ln()).abs() < 2f64.powi(-22) * (x.ln() / 2f64.ln()).abs().max(1.0));
        }
        if a.abs() < 100.0 {
            assert!((ex2(a, false) as f64 / (x * 2f64.ln()).exp() - 1.0).abs() < 2f64.powi(-22));
            assert!(
                (sin(a, false) as f64 - x.sin()).abs() < 2f64.powi(-20)
                    && (cos(a, false) as f64 - x.cos()).abs() < 2f64.powi(-20)
            );
            let tanh_of_x = 1.0 - 2.0 / ((2.0 * x).exp() + 1.0);
            assert!((tanh(a) as f64 - tanh_of_x).abs() < 2f64.powi(-11));
        }
    }
}

/// Whether no neighbour of the finite pattern `got` is nearer to `exact`.
fn is_nearest(got: u16, exact: f64, decode: fn(u16) -> f32) -> bool {
    let distance = |bits: u16| (decode(bits) as f64 - exact).abs();
    let mut neighbours = vec![got + 1];
    neighbours.extend(if got & 0x7fff == 0 { vec![got ^ 0x8000 | 1] } else { vec![got - 1] });
    neighbours.into_iter().all(|bits| decode(bits).is_nan() || distance(got) <= distance(bits))
}

#[test]
fn halves() {
    for bits in 0..=u16::MAX {
        let (f16, bf16) = (f16_to_f32(bits), bf16_to_f32(bits));
        let (exponential, tangent) = (ex2_half::<F16>(bits, false), tanh_half::<F16>(bits));
        if f16.is_nan() {
            assert_eq!((exponential, tangent), (0x7fff, 0x7fff));
        } else {
            let exact = 2f64.powf(f16 as f64);
            assert!(if exact >= 65520.0 { exponential == 0x7c00 } else { is_nearest(exponential, exact, f16_to_f32) }, "{f16:e}");
            assert!(is_nearest(tangent, (f16 as f64).tanh(), f16_to_f32) && tangent >> 15 == bits >> 15, "{f16:e}");
        }
        let (exponential, tangent) = (ex2_half::<Bf16>(bits, true), tanh_half::<Bf16>(bits));
        if bf16.is_nan() {
            assert_eq!((exponential, tangent), (0x7fff, 0x7fff));
        } else {
            let exact = 2f64.powf(bf16 as f64);
            let good = match exponential {
                0x7f80 => exact > 3.39e38,
                0 => exact < f32::MIN_POSITIVE as f64,
                _ => is_nearest(exponential, exact, bf16_to_f32) && exponential >= 0x80,
            };
            assert!(good, "{bf16:e}");
            assert!(is_nearest(tangent, (bf16 as f64).tanh(), bf16_to_f32) && tangent >> 15 == bits >> 15, "{bf16:e}");
        }
    }
    assert_eq!(ex2_half::<F16>(0xcb00, false), 0x0400);
    assert_eq!(tanh_half::<F16>(0x8001), 0x8001);
    assert_eq!(tanh_half::<Bf16>(0xff80), 0xbf80);
}

#[test]
fn upper_words_of_f64() {
    let high = |value: f64| (value.to_bits() >> 32) as u32;
    let nan = 0xfff8_0000;
    let subnormal = high(2f64.powi(-1030));
    for (a, reciprocal, root) in [
        (high(f64::NEG_INFINITY), high(-0.0), nan),
        (subnormal | 1 << 31, high(f64::NEG_INFINITY), high(f64::NEG_INFINITY)),
        (high(-0.0), high(f64::NEG_INFINITY), high(f64::NEG_INFINITY)),
        (0, high(f64::INFINITY), high(f64::INFINITY)),
        (subnormal, high(f64::INFINITY), high(f64::INFINITY)),
        (high(f64::INFINITY), 0, 0),
        (high(f64::NAN), nan, nan),
        (high(4.0), high(0.25), high(0.5)),
        (high(-4.0), high(-0.25), nan),
        (high(1.5 * 2f64.powi(1023)), 0, high(1.0 / (1.5 * 2f64.powi(1023)).sqrt()) + 1),
    ] {
        assert_eq!(rcp_f64(a), reciprocal, "{a:#x}");
        let got = rsqrt_f64(a);
        assert!(got == root || got + 1 == root, "{a:#x} gave {got:#x}");
    }
    let mut words = Words(62);
    for _ in 0..10_000 {
        let a = high(words.f64().abs()).clamp(high(2f64.powi(-1000)), high(2f64.powi(1000)));
        let x = f64::from_bits((a as u64) << 32);
        let value = |word: u32| f64::from_bits((word as u64) << 32);
        assert!((value(rcp_f64(a)) * x - 1.0).abs() < 2f64.powi(-20));
        assert!((value(rsqrt_f64(a)) * x.sqrt() - 1.0).abs() < 2f64.powi(-20));
    }
}
