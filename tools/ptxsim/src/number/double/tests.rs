use super::*;
use crate::number::testing::{Fixed, Words, is_rounded};

const DIRECTED: [Rounding; 3] = [Rounding::Zero, Rounding::Down, Rounding::Up];

fn mode(rounding: Rounding) -> Mode {
    Mode { rounding, ..Mode::default() }
}

fn check(got: f64, rounding: Rounding, what: &str, against: impl Fn(Fixed) -> i32) {
    if got.is_infinite() || got.abs() == f64::MAX {
        let side = if got > 0.0 { 1 } else { -1 };
        let past = against(Fixed::from(f64::MAX.copysign(got))) * side;
        let outward = matches!((rounding, side), (Rounding::Down, -1) | (Rounding::Up, 1));
        assert!(
            if got.is_infinite() { past > 0 && outward } else { past == 0 || (past > 0) != outward },
            "{what} {rounding:?} gave {got:e}"
        );
        return;
    }
    let even = got.to_bits() & 1 == 0;
    let (below, above) = (got.next_down().max(f64::MIN), got.next_up().min(f64::MAX));
    assert!(is_rounded(got, below, above, even, rounding, against), "{what} {rounding:?} gave {got:e}");
}

#[test]
fn directed_sums_and_products_agree_with_exact_integers() {
    let mut words = Words(21);
    for _ in 0..20_000 {
        let (a, b, mut c) = (words.f64(), words.f64(), words.f64());
        if words.next() & 1 == 0 && (a * b).is_finite() {
            c = f64::from_bits((-a * b).to_bits() ^ (words.next() & 3));
            c = if c.is_finite() { c } else { 0.0 };
        }
        let (fa, fb) = (Fixed::from(a), Fixed::from(b));
        let (product, sum) = (Fixed::product(a, b), fa.plus(fb));
        let (fused, difference) = (product.plus(Fixed::from(c)), fa.minus(fb));
        for rounding in DIRECTED {
            let m = mode(rounding);
            check(add(a, b, m), rounding, &format!("{a:e} + {b:e}"), |x| sum.minus(x).sign());
            check(sub(a, b, m), rounding, &format!("{a:e} - {b:e}"), |x| difference.minus(x).sign());
            check(mul(a, b, m), rounding, &format!("{a:e} * {b:e}"), |x| product.minus(x).sign());
            check(fma(a, b, c, m), rounding, &format!("{a:e} * {b:e} + {c:e}"), |x| fused.minus(x).sign());
        }
    }
}

#[test]
fn directed_quotients_and_roots_agree_with_exact_products() {
    let mut words = Words(22);
    for _ in 0..20_000 {
        let (a, b) = (words.f64(), words.f64());
        for rounding in DIRECTED {
            let got = div(a, b, mode(rounding));
            if b != 0.0 && got.abs() < f64::MAX {
                let side = |x: f64| Fixed::from(a).minus(Fixed::product(x, b)).sign() * b.signum() as i32;
                let upward = side(got) < 0 && side(got.next_down()) > 0;
                let downward = side(got) > 0 && side(got.next_up()) < 0;
                let good = match rounding {
                    _ if side(got) == 0 => true,
                    Rounding::Down => downward,
                    Rounding::Up => upward,
                    _ => {
                        if (a < 0.0) == (b < 0.0) {
                            downward
                        } else {
                            upward
                        }
                    }
                };
                assert!(good, "{a:e} / {b:e} {rounding:?} gave {got:e}");
            }
            if a > 0.0 {
                let got = sqrt(a, mode(rounding));
                let side = |x: f64| Fixed::from(a).minus(Fixed::product(x, x)).sign();
                let good = match rounding {
                    _ if side(got) == 0 => true,
                    Rounding::Up => side(got) < 0 && side(got.next_down()) > 0,
                    _ => side(got) > 0 && side(got.next_up()) < 0,
                };
                assert!(good, "sqrt {a:e} {rounding:?} gave {got:e}");
            }
        }
    }
}

#[test]
fn special_values() {
    let nan = 0xfff8_0000_0000_0000;
    for rounding in [Rounding::NearestEven, Rounding::Zero, Rounding::Down, Rounding::Up] {
        let m = mode(rounding);
        let minus_zero = if rounding == Rounding::Down { 1 << 63 } else { 0 };
        assert_eq!(add(1.5, -1.5, m).to_bits(), minus_zero);
        assert_eq!(fma(2.0, 2.0, -4.0, m).to_bits(), minus_zero);
        assert_eq!(add(0.0, 0.0, m).to_bits(), 0);
        assert_eq!(add(-0.0, -0.0, m).to_bits(), 1 << 63);
        assert_eq!(mul(-0.0, 3.0, m).to_bits(), 1 << 63);
        assert_eq!(add(f64::INFINITY, f64::NEG_INFINITY, m).to_bits(), nan);
        assert_eq!(fma(f64::NAN, 1.0, 1.0, m).to_bits(), nan);
        assert_eq!(sqrt(-1.0, m).to_bits(), nan);
        assert_eq!(rcp(0.0, m), f64::INFINITY);
        assert_eq!(div(0.0, -1.0, m).to_bits(), 1 << 63);
        assert_eq!(sqrt(4.0, m), 2.0);
        assert_eq!(rcp(4.0, m), 0.25);
    }
    assert_eq!(mul(f64::MAX, 2.0, mode(Rounding::Zero)), f64::MAX);
    assert_eq!(add(f64::MAX, f64::MAX, mode(Rounding::Up)), f64::INFINITY);
    assert_eq!(min(0.0, -0.0).to_bits(), 1 << 63);
    assert_eq!(max(f64::NAN, -3.0), -3.0);
    assert_eq!(max(f64::NAN, f64::NAN).to_bits(), nan);
    assert_eq!(min(-1.0, 2.0), -1.0);
}
