//! "Half Precision Floating-Point Instructions" of the PTX ISA: f16, bf16, and pairs of them.

use crate::exact::{BF16, F16, Mode, bf16_of, f16_of};
use crate::harness::{Word, binary, table, ternary, unary};
use half::{bf16, f16};

const RN: Mode = Mode::Nearest;

fn f16_sum(a: f64, b: f64) -> f16 {
    f16::from_bits(F16.sum(a, b, RN) as u16)
}

fn bf16_sum(a: f64, b: f64) -> bf16 {
    bf16::from_bits(BF16.sum(a, b, RN) as u16)
}

fn f16_saturated(x: f16) -> f16 {
    if x > f16::ZERO { x.min(f16::ONE) } else { f16::ZERO }
}

#[test]
fn f16_arithmetic() {
    let (wide, neg) = (f16::to_f64, |x: f16| -x);
    binary("add.f16 %d, %a, %b;", |a: f16, b: f16| f16_sum(wide(a), wide(b)));
    binary("add.rn.f16 %d, %a, %b;", |a: f16, b: f16| f16_sum(wide(a), wide(b)));
    binary("sub.f16 %d, %a, %b;", |a: f16, b: f16| f16_sum(wide(a), wide(neg(b))));
    binary("mul.f16 %d, %a, %b;", |a: f16, b: f16| f16_of(wide(a) * wide(b), RN));
    binary("add.sat.f16 %d, %a, %b;", |a: f16, b: f16| f16_saturated(f16_sum(wide(a), wide(b))));
    ternary("fma.rn.f16 %d, %a, %b, %c;", |a: f16, b: f16, c: f16| f16_sum(wide(a) * wide(b), wide(c)));
    ternary("fma.rn.relu.f16 %d, %a, %b, %c;", |a: f16, b: f16, c: f16| {
        let sum = f16_sum(wide(a) * wide(b), wide(c));
        if sum.is_nan() || sum > f16::ZERO { sum } else { f16::ZERO }
    });
    unary("neg.f16 %d, %a;", neg);
    unary("abs.f16 %d, %a;", |a: f16| f16::from_bits(a.to_bits() & 0x7fff));
}

#[test]
fn f16_pairs() {
    let wide = f16::to_f64;
    binary("add.f16x2 %d, %a, %b;", |a: [f16; 2], b: [f16; 2]| [0, 1].map(|i| f16_sum(wide(a[i]), wide(b[i]))));
    binary("sub.f16x2 %d, %a, %b;", |a: [f16; 2], b: [f16; 2]| [0, 1].map(|i| f16_sum(wide(a[i]), -wide(b[i]))));
    binary("mul.f16x2 %d, %a, %b;", |a: [f16; 2], b: [f16; 2]| [0, 1].map(|i| f16_of(wide(a[i]) * wide(b[i]), RN)));
    ternary("fma.rn.f16x2 %d, %a, %b, %c;", |a: [f16; 2], b: [f16; 2], c: [f16; 2]| {
        [0, 1].map(|i| f16_sum(wide(a[i]) * wide(b[i]), wide(c[i])))
    });
    unary("neg.f16x2 %d, %a;", |a: [f16; 2]| a.map(|half| -half));
    unary("abs.f16x2 %d, %a;", |a: [f16; 2]| a.map(|half| f16::from_bits(half.to_bits() & 0x7fff)));
}

/// bf16 has no add or mul of its own before sm_90: there it has.
#[test]
fn bf16_arithmetic() {
    let wide = bf16::to_f64;
    ternary("fma.rn.bf16 %d, %a, %b, %c;", |a: bf16, b: bf16, c: bf16| bf16_sum(wide(a) * wide(b), wide(c)));
    ternary("fma.rn.bf16x2 %d, %a, %b, %c;", |a: [bf16; 2], b: [bf16; 2], c: [bf16; 2]| {
        [0, 1].map(|i| bf16_sum(wide(a[i]) * wide(b[i]), wide(c[i])))
    });
    binary("add.bf16 %d, %a, %b;", |a: bf16, b: bf16| bf16_sum(wide(a), wide(b)));
    binary("add.bf16x2 %d, %a, %b;", |a: [bf16; 2], b: [bf16; 2]| [0, 1].map(|i| bf16_sum(wide(a[i]), wide(b[i]))));
    binary("mul.bf16x2 %d, %a, %b;", |a: [bf16; 2], b: [bf16; 2]| [0, 1].map(|i| bf16_of(wide(a[i]) * wide(b[i]), RN)));
    unary("neg.bf16 %d, %a;", |a: bf16| -a);
    unary("abs.bf16x2 %d, %a;", |a: [bf16; 2]| a.map(|half| bf16::from_bits(half.to_bits() & 0x7fff)));
}

#[test]
fn least_and_greatest() {
    fn least<T: Word + PartialOrd>(a: T, b: T, top: u64) -> T {
        let nan = |x: T| x.partial_cmp(&x).is_none();
        match (nan(a), nan(b)) {
            (true, _) => b,
            (_, true) => a,
            _ if a == b => {
                if a.bits() & top != 0 {
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
    let top = 0x8000;
    binary("min.f16 %d, %a, %b;", |a: f16, b: f16| least(a, b, top));
    binary("max.f16 %d, %a, %b;", |a: f16, b: f16| -least(-a, -b, top));
    binary("max.f16x2 %d, %a, %b;", |a: [f16; 2], b: [f16; 2]| [0, 1].map(|i| -least(-a[i], -b[i], top)));
    binary("max.NaN.f16 %d, %a, %b;", |a: f16, b: f16| if a.is_nan() || b.is_nan() { f16::NAN } else { -least(-a, -b, top) });
    binary("min.bf16 %d, %a, %b;", |a: bf16, b: bf16| least(a, b, top));
    binary("max.bf16x2 %d, %a, %b;", |a: [bf16; 2], b: [bf16; 2]| [0, 1].map(|i| -least(-a[i], -b[i], top)));
}

/// Relative error at most 2^-9.9 for ex2 and 2^-10.987 for tanh (manual).
#[test]
fn approximations() {
    let numbers: Vec<f16> = (-80..=80).map(|i| f16::from_f32(i as f32 / 10.0)).collect();
    let rows: Vec<[u64; 3]> = numbers.iter().map(|x| [x.bits(), 0, 0]).collect();
    for (body, exact) in
        [("ex2.approx.f16 %d, %a;", f64::exp2 as fn(f64) -> f64), ("tanh.approx.f16 %d, %a;", f64::tanh as fn(f64) -> f64)]
    {
        for (x, result) in numbers.iter().zip(table("", body, ["b16", "b16", "b32", "b32"], &rows)) {
            let (result, exact) = (f16::of(result).to_f64(), exact(x.to_f64()));
            // One rounding to f16 besides.
            assert!(
                (result - exact).abs() <= exact.abs() * 2f64.powf(-9.9) + exact.abs() * 2f64.powi(-11) + 1e-7,
                "{body} {x}: {result}"
            );
        }
    }
}
