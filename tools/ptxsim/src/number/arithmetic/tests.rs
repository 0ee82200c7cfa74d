use super::*;
use crate::number::testing::{DIRECTIONS, Fixed, Words, is_rounded};

fn mode(rounding: Rounding) -> Mode {
    Mode { rounding, ..Mode::default() }
}

/// The number where an f32 would be if the format went on past its largest.
fn unbounded(value: f32) -> f64 {
    if value.is_infinite() { 2f64.powi(128).copysign(value as f64) } else { value as f64 }
}

fn check(got: f32, rounding: Rounding, what: &str, against: impl Fn(Fixed) -> i32) {
    let overflow = 2f64.powi(128);
    if got.is_infinite() {
        // Past the largest number, or past the midpoint above it for to nearest.
        let largest = if rounding == Rounding::NearestEven { overflow - 2f64.powi(103) } else { f32::MAX as f64 };
        let side = if got > 0.0 { 1 } else { -1 };
        let past = against(Fixed::from(largest.copysign(got as f64))) * side;
        let allowed = match rounding {
            Rounding::NearestEven => past >= 0,
            Rounding::Down => past > 0 && side < 0,
            Rounding::Up => past > 0 && side > 0,
            _ => false,
        };
        assert!(allowed, "{what} {rounding:?} gave {got:e}");
        return;
    }
    let (mut below, mut above) = (unbounded(got.next_down()), unbounded(got.next_up()));
    if got.abs() == f32::MAX && rounding != Rounding::NearestEven {
        // Directed rounding stays at the largest number however far the exact one is.
        (below, above) = (below.min(-2f64.powi(300)), above.max(2f64.powi(300)));
        if got > 0.0 { below = got.next_down() as f64 } else { above = got.next_up() as f64 }
    }
    let even = got.to_bits() & 1 == 0;
    assert!(is_rounded(got as f64, below, above, even, rounding, against), "{what} {rounding:?} gave {got:e}");
}

#[test]
fn sums_and_products_agree_with_exact_integers() {
    let mut words = Words(11);
    for _ in 0..30_000 {
        let (a, b, mut c) = (words.f32(), words.f32(), words.f32());
        if words.next() & 3 == 0 {
            // Cancellation: c near -a * b.
            let near = (-a as f64 * b as f64) as f32;
            c = if near.is_finite() { f32::from_bits(near.to_bits() ^ (words.next() & 3) as u32) } else { c };
            c = if c.is_finite() { c } else { 0.0 };
        }
        let (fa, fb, fc) = (Fixed::from(a as f64), Fixed::from(b as f64), Fixed::from(c as f64));
        let (product, sum) = (Fixed::product(a as f64, b as f64), fa.plus(fb));
        let (fused, difference) = (product.plus(fc), fa.minus(fb));
        for rounding in DIRECTIONS {
            let m = mode(rounding);
            check(add(a, b, m), rounding, &format!("{a:e} + {b:e}"), |x| sum.minus(x).sign());
            check(sub(a, b, m), rounding, &format!("{a:e} - {b:e}"), |x| difference.minus(x).sign());
            check(mul(a, b, m), rounding, &format!("{a:e} * {b:e}"), |x| product.minus(x).sign());
            check(fma(a, b, c, m), rounding, &format!("{a:e} * {b:e} + {c:e}"), |x| fused.minus(x).sign());
        }
    }
}

#[test]
fn quotients_and_roots_agree_with_exact_products() {
    let mut words = Words(12);
    for _ in 0..30_000 {
        let (a, b) = (words.f32(), words.f32());
        for rounding in DIRECTIONS {
            if b != 0.0 {
                let got = div(a, b, mode(rounding));
                // Results past the ends of the range are tested by hand below.
                if got.is_finite() && got.abs() < f32::MAX {
                    let (below, above) = (unbounded(got.next_down()), unbounded(got.next_up()));
                    let scaled = |x: f64| Fixed::from(a as f64).minus(Fixed::product(x, b as f64)).sign() * b.signum() as i32;
                    let nearest = got as f64;
                    let side = scaled(nearest);
                    let middle = |x: f64| (x + nearest) / 2.0;
                    let positive = (a < 0.0) == (b < 0.0);
                    let good = match rounding {
                        _ if side == 0 => true,
                        Rounding::Down => side > 0 && scaled(above) < 0,
                        Rounding::Up => side < 0 && scaled(below) > 0,
                        Rounding::Zero if positive => side > 0 && scaled(above) < 0,
                        Rounding::Zero => side < 0 && scaled(below) > 0,
                        _ => {
                            let past = scaled(middle(if side > 0 { above } else { below })) * side;
                            past < 0 || past == 0 && got.to_bits() & 1 == 0
                        }
                    };
                    assert!(good, "{a:e} / {b:e} {rounding:?} gave {got:e}");
                }
            }
            if a > 0.0 {
                let got = sqrt(a, mode(rounding));
                let side = |x: f64| Fixed::from(a as f64).minus(Fixed::product(x, x)).sign();
                let (nearest, below, above) = (got as f64, got.next_down() as f64, got.next_up() as f64);
                let good = match rounding {
                    _ if side(nearest) == 0 => true,
                    Rounding::Down | Rounding::Zero => side(nearest) > 0 && side(above) < 0,
                    Rounding::Up => side(nearest) < 0 && side(below) > 0,
                    _ => side((nearest + above) / 2.0) < 0 && side((nearest + below) / 2.0) > 0,
                };
                assert!(good, "sqrt {a:e} {rounding:?} gave {got:e}");
            }
        }
    }
}

#[test]
fn nearest_agrees_with_the_cpu() {
    let mut words = Words(13);
    let plain = Mode::default();
    let same = |x: f32, y: f32| x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan());
    let specials = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.0, -0.0];
    for i in 0..300_000 {
        let mut pick = || if i % 8 == 0 { specials[words.next() as usize % 5] } else { words.f32() };
        let (a, b, c) = (pick(), pick(), pick());
        assert!(same(fma(a, b, c, plain), a.mul_add(b, c)), "{a:e} * {b:e} + {c:e}");
        assert!(same(div(a, b, plain), a / b), "{a:e} / {b:e}");
        assert!(same(sqrt(a, plain), a.sqrt()), "sqrt {a:e}");
        assert!(same(rcp(a, plain), 1.0 / a), "1 / {a:e}");
    }
}

#[test]
fn special_values() {
    let nan = 0x7fff_ffff;
    for rounding in DIRECTIONS {
        let m = mode(rounding);
        let minus_zero = if rounding == Rounding::Down { 0x8000_0000 } else { 0 };
        assert_eq!(add(1.0, -1.0, m).to_bits(), minus_zero);
        assert_eq!(fma(1.0, 1.0, -1.0, m).to_bits(), minus_zero);
        assert_eq!(add(-0.0, -0.0, m).to_bits(), 0x8000_0000);
        assert_eq!(add(0.0, 0.0, m).to_bits(), 0);
        assert_eq!(add(f32::INFINITY, f32::NEG_INFINITY, m).to_bits(), nan);
        assert_eq!(mul(f32::INFINITY, 0.0, m).to_bits(), nan);
        assert_eq!(fma(f32::INFINITY, 1.0, f32::NEG_INFINITY, m).to_bits(), nan);
        assert_eq!(fma(-f32::NAN, 1.0, 1.0, m).to_bits(), nan);
        assert_eq!(sqrt(-1.0, m).to_bits(), nan);
        assert_eq!(sqrt(-0.0, m).to_bits(), 0x8000_0000);
        assert_eq!(rcp(-0.0, m), f32::NEG_INFINITY);
        assert_eq!(div(0.0, 0.0, m).to_bits(), nan);
        assert_eq!(add(f32::INFINITY, 1.0, m), f32::INFINITY);
    }
    assert_eq!(mul(f32::MAX, 2.0, mode(Rounding::Zero)), f32::MAX);
    assert_eq!(mul(f32::MAX, 2.0, mode(Rounding::Up)), f32::INFINITY);
    assert_eq!(mul(f32::MAX, -2.0, mode(Rounding::Up)), -f32::MAX);
    assert_eq!(mul(f32::MAX, -2.0, mode(Rounding::Down)), f32::NEG_INFINITY);
    assert_eq!(div(1e-38, 1e38, mode(Rounding::Up)), f32::from_bits(1));
}

#[test]
fn flush_and_saturate() {
    let ftz = Mode { ftz: true, ..Mode::default() };
    let sat = Mode { sat: true, ..Mode::default() };
    let subnormal = f32::from_bits(0x8000_0001);
    assert_eq!(add(subnormal, 0.0, Mode::default()).to_bits(), 0x8000_0001);
    assert_eq!(add(subnormal, -0.0, ftz).to_bits(), 0x8000_0000);
    assert_eq!(mul(f32::MIN_POSITIVE, -0.5, ftz).to_bits(), 0x8000_0000);
    assert_eq!(mul(f32::MIN_POSITIVE, 1.0, ftz), f32::MIN_POSITIVE);
    assert_eq!(rcp(f32::from_bits(1), ftz), f32::INFINITY);
    assert_eq!(fma(2.0, 3.0, 1.0, sat), 1.0);
    assert_eq!(add(-2.0, 1.0, sat).to_bits(), 0);
    assert_eq!(mul(-0.0, 1.0, sat).to_bits(), 0);
    assert_eq!(add(f32::NAN, 1.0, sat).to_bits(), 0);
    assert_eq!(add(0.25, 0.5, sat), 0.75);
}

#[test]
fn extrema() {
    let plain = Extremum::default();
    assert_eq!(min(0.0, -0.0, plain).to_bits(), 0x8000_0000);
    assert_eq!(min(-0.0, 0.0, plain).to_bits(), 0x8000_0000);
    assert_eq!(max(0.0, -0.0, plain).to_bits(), 0);
    assert_eq!(max(-0.0, 0.0, plain).to_bits(), 0);
    assert_eq!(min(f32::NAN, 3.0, plain), 3.0);
    assert_eq!(max(3.0, -f32::NAN, plain), 3.0);
    assert_eq!(min(-f32::NAN, f32::NAN, plain).to_bits(), 0x7fff_ffff);
    assert_eq!(max(1.0, f32::NAN, Extremum { nan: true, ..plain }).to_bits(), 0x7fff_ffff);
    assert_eq!(min(f32::NEG_INFINITY, f32::MIN, plain), f32::NEG_INFINITY);
    let xorsign = Extremum { xorsign_abs: true, ..plain };
    assert_eq!(min(-2.0, 3.0, xorsign), -2.0);
    assert_eq!(max(-2.0, 3.0, xorsign), -3.0);
    assert_eq!(max(-2.0, -3.0, xorsign), 3.0);
    let ftz = Extremum { ftz: true, ..plain };
    assert_eq!(max(f32::from_bits(5), -1.0, ftz).to_bits(), 0);
    let mut words = Words(14);
    for _ in 0..10_000 {
        let (a, b) = (words.f32(), words.f32());
        if a != b {
            assert_eq!(min(a, b, plain), if a < b { a } else { b });
            assert_eq!(max(a, b, plain), if a < b { b } else { a });
        }
    }
}
