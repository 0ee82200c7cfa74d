//! "Floating-Point Instructions" of the PTX ISA, on f32 and f64.

use crate::exact::{F32, MODES, Mode, f32_of, f32_sum, flushed, saturated};
use crate::harness::{Word, binary, table, ternary, unary};

#[test]
fn sums_in_every_rounding() {
    for (name, mode) in MODES {
        binary(&format!("add.{name}.f32 %d, %a, %b;"), |a: f32, b: f32| f32_sum(a.into(), b.into(), mode));
        binary(&format!("sub.{name}.f32 %d, %a, %b;"), |a: f32, b: f32| f32_sum(a.into(), (-b).into(), mode));
    }
    binary("add.f32 %d, %a, %b;", |a: f32, b: f32| a + b);
    binary("sub.f32 %d, %a, %b;", |a: f32, b: f32| a - b);
    binary("add.f64 %d, %a, %b;", |a: f64, b: f64| a + b);
    binary("sub.rn.f64 %d, %a, %b;", |a: f64, b: f64| a - b);
}

#[test]
fn products_in_every_rounding() {
    for (name, mode) in MODES {
        binary(&format!("mul.{name}.f32 %d, %a, %b;"), |a: f32, b: f32| f32_of(f64::from(a) * f64::from(b), mode));
    }
    binary("mul.f32 %d, %a, %b;", |a: f32, b: f32| a * b);
    binary("mul.f64 %d, %a, %b;", |a: f64, b: f64| a * b);
}

#[test]
fn fused_products_and_sums() {
    for (name, mode) in MODES {
        ternary(&format!("fma.{name}.f32 %d, %a, %b, %c;"), |a: f32, b: f32, c: f32| {
            f32_sum(f64::from(a) * f64::from(b), c.into(), mode)
        });
    }
    ternary("fma.rn.f32 %d, %a, %b, %c;", f32::mul_add);
    ternary("mad.rn.f32 %d, %a, %b, %c;", f32::mul_add);
    ternary("fma.rn.f64 %d, %a, %b, %c;", f64::mul_add);
    // The product is not rounded: what is left is its low part.
    let rows = [[(1.0f32 + f32::EPSILON).bits(), (1.0f32 - f32::EPSILON).bits(), (-1.0f32).bits()]];
    let left = table("", "fma.rn.f32 %d, %a, %b, %c;", ["b32"; 4], &rows);
    assert_eq!(f32::of(left[0]), -(f32::EPSILON * f32::EPSILON));
}

#[test]
fn flushed_to_zero() {
    binary("add.ftz.f32 %d, %a, %b;", |a, b| flushed(flushed(a) + flushed(b)));
    binary("sub.ftz.f32 %d, %a, %b;", |a, b| flushed(flushed(a) - flushed(b)));
    binary("mul.ftz.f32 %d, %a, %b;", |a, b| flushed(flushed(a) * flushed(b)));
    ternary("fma.rn.ftz.f32 %d, %a, %b, %c;", |a, b, c| flushed(flushed(a).mul_add(flushed(b), flushed(c))));
    binary("min.ftz.f32 %d, %a, %b;", |a, b| least32(flushed(a), flushed(b)));
    unary("abs.ftz.f32 %d, %a;", |a: f32| flushed(a.abs()));
    unary("neg.ftz.f32 %d, %a;", |a: f32| flushed(-a));
}

#[test]
fn saturated_to_one() {
    binary("add.sat.f32 %d, %a, %b;", |a: f32, b: f32| saturated(a + b));
    binary("mul.sat.f32 %d, %a, %b;", |a: f32, b: f32| saturated(a * b));
    ternary("fma.rn.sat.f32 %d, %a, %b, %c;", |a: f32, b, c| saturated(a.mul_add(b, c)));
}

fn least(a: f64, b: f64) -> f64 {
    match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == b => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        _ => {
            if a < b {
                a
            } else {
                b
            }
        }
    }
}

fn least32(a: f32, b: f32) -> f32 {
    least(a.into(), b.into()) as f32
}

/// A number wins over not a number, except with .NaN; -0 is less than +0.
#[test]
fn least_and_greatest() {
    let any_nan = |a: f32, b: f32, other: f32| if a.is_nan() || b.is_nan() { f32::NAN } else { other };
    binary("min.f32 %d, %a, %b;", least32);
    binary("max.f32 %d, %a, %b;", |a: f32, b: f32| -least32(-a, -b));
    binary("min.NaN.f32 %d, %a, %b;", |a, b| any_nan(a, b, least32(a, b)));
    binary("max.NaN.f32 %d, %a, %b;", |a, b| any_nan(a, b, -least32(-a, -b)));
    binary("min.f64 %d, %a, %b;", least);
    binary("max.f64 %d, %a, %b;", |a: f64, b: f64| -least(-a, -b));
}

#[test]
fn signs() {
    unary("abs.f32 %d, %a;", f32::abs);
    unary("neg.f32 %d, %a;", |a: f32| -a);
    unary("abs.f64 %d, %a;", f64::abs);
    unary("neg.f64 %d, %a;", |a: f64| -a);
    // The sign of the first, the magnitude of the second.
    binary("copysign.f32 %d, %a, %b;", |a: f32, b: f32| b.copysign(a));
    binary("copysign.f64 %d, %a, %b;", |a: f64, b: f64| b.copysign(a));
}

#[test]
fn quotients_and_roots() {
    binary("div.rn.f32 %d, %a, %b;", |a: f32, b: f32| a / b);
    binary("div.rn.ftz.f32 %d, %a, %b;", |a, b| flushed(flushed(a) / flushed(b)));
    binary("div.rn.f64 %d, %a, %b;", |a: f64, b: f64| a / b);
    unary("rcp.rn.f32 %d, %a;", |a: f32| 1.0 / a);
    unary("rcp.rn.f64 %d, %a;", |a: f64| 1.0 / a);
    unary("sqrt.rn.f32 %d, %a;", f32::sqrt);
    unary("sqrt.rn.f64 %d, %a;", f64::sqrt);
}

/// Kinds of numbers.
#[test]
fn classes() {
    unary("testp.finite.f32 %d, %a;", f32::is_finite);
    unary("testp.infinite.f32 %d, %a;", f32::is_infinite);
    unary("testp.number.f32 %d, %a;", |a: f32| !a.is_nan());
    unary("testp.notanumber.f32 %d, %a;", f32::is_nan);
    unary("testp.normal.f32 %d, %a;", |a: f32| a.is_normal() || a == 0.0);
    unary("testp.subnormal.f32 %d, %a;", f32::is_subnormal);
    unary("testp.notanumber.f64 %d, %a;", f64::is_nan);
}

/// Compares `%d` of many arguments with `expected`: within `ulps` units in the last place of the expected value, or `absolute`.
fn approximate(body: &str, arguments: &[f32], expected: impl Fn(f64) -> f64, ulps: f64, absolute: f64) {
    let rows: Vec<[u64; 3]> = arguments.iter().map(|a| [a.bits(), 0, 0]).collect();
    for (&a, result) in arguments.iter().zip(table("", body, ["b32"; 4], &rows)) {
        let (result, expected) = (f32::of(result), expected(a.into()));
        let rounded = f32::of(F32.round(expected, Mode::Nearest));
        if result.same(rounded) {
            continue;
        }
        let unit = f64::from(rounded.abs()).max(f64::from(f32::MIN_POSITIVE)) * f64::from(f32::EPSILON);
        let error = (f64::from(result) - expected).abs();
        assert!(error <= (ulps * unit).max(absolute), "{body} {a:?}: {result:?}, not {expected:?}");
    }
}

/// Numbers from 2^low to 2^high, of one sign.
fn spread(low: i32, high: i32) -> Vec<f32> {
    (0..512).map(|i| 2f32.powf(low as f32 + (high - low) as f32 * i as f32 / 511.0)).collect()
}

/// The bounds of the manual: "The maximum relative/absolute error" of each instruction.
#[test]
fn approximations_are_near() {
    let signed = |numbers: Vec<f32>| numbers.iter().flat_map(|&x| [x, -x]).collect::<Vec<f32>>();
    approximate("rcp.approx.ftz.f32 %d, %a;", &signed(spread(-120, 120)), |x| 1.0 / x, 1.0, 0.0);
    let units = |exponent: f64| 2f64.powf(exponent + 23.0);
    approximate("rsqrt.approx.ftz.f32 %d, %a;", &spread(-120, 120), |x| 1.0 / x.sqrt(), units(-22.9), 0.0);
    approximate("rsqrt.approx.f32 %d, %a;", &spread(-120, 120), |x| 1.0 / x.sqrt(), units(-22.9), 0.0);
    approximate("sqrt.approx.f32 %d, %a;", &spread(-120, 120), f64::sqrt, units(-23.0), 0.0);
    approximate("ex2.approx.ftz.f32 %d, %a;", &signed(spread(-20, 6)), f64::exp2, 2.0, 0.0);
    approximate("lg2.approx.ftz.f32 %d, %a;", &spread(-100, 100), f64::log2, units(-22.0), 2f64.powf(-22.6));
    approximate("sin.approx.ftz.f32 %d, %a;", &signed(spread(-10, 1)), f64::sin, 0.0, 2f64.powf(-20.5));
    approximate("cos.approx.ftz.f32 %d, %a;", &signed(spread(-10, 1)), f64::cos, 0.0, 2f64.powf(-20.5));
    approximate("tanh.approx.f32 %d, %a;", &signed(spread(-10, 5)), f64::tanh, units(-11.0), 0.0);
}

#[test]
fn approximations_of_special_numbers() {
    let of = |body: &str, a: f32| f32::of(table("", body, ["b32"; 4], &[[a.bits(), 0, 0]])[0]);
    let same = |body: &str, a: f32, expected: f32| {
        let result = of(body, a);
        assert!(result.same(expected), "{body} {a:?}: {result:?}, not {expected:?}");
    };
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for (a, expected) in [(0.0, inf), (-0.0, -inf), (inf, 0.0), (-inf, -0.0), (nan, nan), (1e-40, inf), (1.0, 1.0)] {
        same("rcp.approx.ftz.f32 %d, %a;", a, expected);
    }
    for (a, expected) in [(0.0, inf), (-0.0, -inf), (inf, 0.0), (-1.0, nan), (-inf, nan), (nan, nan), (1.0, 1.0)] {
        same("rsqrt.approx.f32 %d, %a;", a, expected);
    }
    for (a, expected) in [(0.0, 1.0), (-0.0, 1.0), (inf, inf), (-inf, 0.0), (nan, nan), (3.0, 8.0), (-200.0, 0.0), (128.0, inf)] {
        same("ex2.approx.ftz.f32 %d, %a;", a, expected);
    }
    for (a, expected) in [(0.0, -inf), (-0.0, -inf), (inf, inf), (-1.0, nan), (nan, nan), (1.0, 0.0), (1024.0, 10.0)] {
        same("lg2.approx.f32 %d, %a;", a, expected);
    }
    for (a, expected) in [(0.0, 0.0), (-0.0, -0.0), (inf, nan), (-inf, nan), (nan, nan)] {
        same("sin.approx.f32 %d, %a;", a, expected);
    }
    for (a, expected) in [(0.0, 0.0), (inf, 1.0), (-inf, -1.0), (nan, nan)] {
        same("tanh.approx.f32 %d, %a;", a, expected);
    }
}

/// div.approx and div.full: two units in the last place for divisors up to 2^126.
#[test]
fn approximate_quotients() {
    for body in [
        "div.approx.f32 %d, %a, %b;",
        "div.full.f32 %d, %a, %b;",
        "div.approx.ftz.f32 %d, %a, %b;",
        "div.full.ftz.f32 %d, %a, %b;",
    ] {
        let dividends = spread(-30, 30);
        let rows: Vec<[u64; 3]> =
            dividends.iter().enumerate().map(|(i, a)| [a.bits(), dividends[(i * 37 + 11) % 512].bits(), 0]).collect();
        for (row, result) in rows.iter().zip(table("", body, ["b32"; 4], &rows)) {
            let (a, b, result) = (f32::of(row[0]), f32::of(row[1]), f32::of(result));
            let exact = f64::from(a) / f64::from(b);
            assert!((f64::from(result) / exact - 1.0).abs() <= 2.0 * f64::from(f32::EPSILON), "{body} {a} {b}: {result}");
        }
    }
}

#[test]
fn immediates() {
    unary("add.f32 %d, %a, 0f3F800000;", |a: f32| a + 1.0);
    unary("mul.f64 %d, %a, 0d4000000000000000;", |a: f64| a * 2.0);
    unary("add.f64 %d, %a, 0.5;", |a: f64| a + 0.5);
    unary("mov.f32 %d, 0fC0490FDB;", |_: f32| -std::f32::consts::PI);
}
