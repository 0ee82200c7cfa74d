use super::*;
use crate::number::format::{Rounding, encode};
use crate::number::testing::Words;

/// Patterns that cover every exponent with edges of the fraction, in both signs.
fn patterns(format: Format) -> Vec<u16> {
    let fraction = 1u16 << format.fraction_bits();
    let last = format.infinity() as u16;
    let mut list: Vec<u16> = (0..=last)
        .step_by(fraction as usize)
        .flat_map(|base| [base, base + 1, base + fraction / 2, base + fraction / 2 + 1, base + fraction - 1])
        .filter(|&bits| bits <= last)
        .collect();
    list.push(0x7fff);
    let negative: Vec<u16> = list.iter().map(|bits| bits | 0x8000).collect();
    list.extend(negative);
    list
}

fn reference<H: Half>(exact: f64) -> u16 {
    encode(exact, H::FORMAT, Rounding::NearestEven, false, false) as u16
}

/// The binary operations against one rounding of the f64 result, which is itself exact or rounded to odd.
fn binary_operations<H: Half>() {
    let list = patterns(H::FORMAT);
    let plain = HalfMode::default();
    let mut words = Words(31);
    let random: Vec<u16> = (0..600).map(|_| words.next() as u16).collect();
    for set in [&list, &random] {
        for &a in set {
            for &b in set {
                let (x, y) = (H::to_f32(a) as f64, H::to_f32(b) as f64);
                assert_eq!(add::<H>(a, b, plain), reference::<H>(sum_to_odd(x, y)), "{a:#x} + {b:#x}");
                assert_eq!(sub::<H>(a, b, plain), reference::<H>(sum_to_odd(x, -y)), "{a:#x} - {b:#x}");
                assert_eq!(mul::<H>(a, b, plain), reference::<H>(x * y), "{a:#x} * {b:#x}");
            }
        }
    }
}

#[test]
fn f16_operations() {
    binary_operations::<F16>();
}

#[test]
fn bf16_operations() {
    binary_operations::<Bf16>();
}

#[test]
fn fused_ties_are_broken_by_what_lies_far_below() {
    let plain = HalfMode::default();
    // 1.0078125 * 1.5 = 1.51171875 is halfway between two bf16; a tiny addend of either sign decides.
    let (a, b) = (f32_to_bf16(1.0078125), f32_to_bf16(1.5));
    let tiny = f32_to_bf16(1e-30);
    assert_eq!(bf16_to_f32(fma::<Bf16>(a, b, tiny, plain)), 1.515625);
    assert_eq!(bf16_to_f32(fma::<Bf16>(a, b, tiny | 0x8000, plain)), 1.5078125);
    assert_eq!(bf16_to_f32(fma::<Bf16>(a, b, 0, plain)), 1.515625);
    // In f16: (1 + 2^-10) * 1.5 is halfway as well.
    let (a, b) = (0x3c01, 0x3e00);
    assert_eq!(fma::<F16>(a, b, 0x0001, plain), 0x3e02);
    assert_eq!(fma::<F16>(a, b, 0x8001, plain), 0x3e01);
    assert_eq!(fma::<F16>(a, b, 0, plain), 0x3e02);
}

#[test]
fn fused_agrees_with_f64_where_that_is_exact() {
    let mut words = Words(32);
    let plain = HalfMode::default();
    for _ in 0..200_000 {
        let word = words.next();
        let (a, b, c) = (word as u16, (word >> 16) as u16, (word >> 32) as u16);
        let exact = F16::to_f32(a) as f64 * F16::to_f32(b) as f64 + F16::to_f32(c) as f64;
        assert_eq!(fma::<F16>(a, b, c, plain), reference::<F16>(exact));
    }
}

#[test]
fn modifiers() {
    let [ftz, sat, relu] =
        [(true, false, false), (false, true, false), (false, false, true)].map(|(ftz, sat, relu)| HalfMode { ftz, sat, relu });
    assert_eq!(add::<F16>(0x8001, 0x8000, ftz), 0x8000);
    assert_eq!(mul::<F16>(0x0400, 0x3800, ftz), 0);
    assert_eq!(mul::<F16>(0x0400, 0x3800, HalfMode::default()), 0x0200);
    assert_eq!(add::<F16>(0x3c00, 0x3c00, sat), 0x3c00);
    assert_eq!(add::<F16>(0xbc00, 0x8000, sat), 0);
    assert_eq!(add::<F16>(0x7e00, 0, sat), 0);
    assert_eq!(add::<F16>(0xfe00, 0, HalfMode::default()), 0x7fff);
    assert_eq!(fma::<F16>(0xbc00, 0x3c00, 0, relu), 0);
    assert_eq!(fma::<F16>(0x7e00, 0x3c00, 0, relu), 0x7fff);
    assert_eq!(fma::<Bf16>(0xbf80, 0x3f80, 0, relu), 0);
    assert_eq!(add::<Bf16>(0x7f7f, 0x7f7f, HalfMode::default()), 0x7f80);
}

#[test]
fn extrema_and_packed() {
    let plain = Extremum::default();
    assert_eq!(min::<F16>(0, 0x8000, plain), 0x8000);
    assert_eq!(max::<F16>(0x7e00, 0xbc00, plain), 0xbc00);
    assert_eq!(max::<Bf16>(0x7f81, 0xffc0, plain), 0x7fff);
    assert_eq!(max::<Bf16>(0x7fc0, 0x3f80, Extremum { nan: true, ..plain }), 0x7fff);
    // 0x7c01 is a NaN of f16 but a number of bf16.
    assert_eq!(max::<F16>(0x7c01, 0x3c00, plain), 0x3c00);
    assert_eq!(max::<Bf16>(0x7c01, 0x3c00, plain), 0x7c01);
    assert_eq!(min::<F16>(0xc000, 0x3c00, Extremum { xorsign_abs: true, ..plain }), 0xbc00);
    let sums = x2(|[a, b]| add::<F16>(a, b, HalfMode::default()), [0x3c00_4000, 0x3c00_bc00]);
    assert_eq!(sums, 0x4000_3c00);
}
