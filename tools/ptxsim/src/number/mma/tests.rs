// Lanes and elements index maps and registers alike.
#![allow(clippy::needless_range_loop)]

use super::*;
use crate::number::format::{Format, Rounding, decode as decode_format, encode, f32_to_f16};
use crate::number::testing::Words;

fn kind(k: u32, a: Operand, b: Operand, accumulator: Accumulator) -> MmaKind {
    MmaKind { k, a, b, accumulator }
}

/// Every product that [`MmaKind::is_valid`] accepts.
fn all_kinds() -> Vec<MmaKind> {
    use Operand::*;
    let operands = [F16, Bf16, Tf32, E4m3, E5m2, S8, U8];
    let accumulators =
        [Accumulator::F32, Accumulator::F16, Accumulator::S32 { saturate: false }, Accumulator::S32 { saturate: true }];
    let mut kinds = Vec::new();
    for k in [4, 8, 16, 32] {
        for a in operands {
            for b in operands {
                kinds.extend(
                    accumulators.map(|accumulator| kind(k, a, b, accumulator)).into_iter().filter(|kind| kind.is_valid()),
                );
            }
        }
    }
    kinds
}

/// The manual's fragment figures, written out per lane rather than by formula: element i of lane's A, as (row, column).
fn manual_a(kind: MmaKind, lane: usize, i: usize) -> (usize, usize) {
    let (group, within) = (lane >> 2, lane % 4);
    match (kind.a.per_register(), kind.k) {
        (2, 16) => {
            let row = if (0..2).contains(&i) || (4..6).contains(&i) { group } else { group + 8 };
            (row, within * 2 + (i & 1) + if i >= 4 { 8 } else { 0 })
        }
        (2, 8) => (if i < 2 { group } else { group + 8 }, within * 2 + (i & 1)),
        (1, 4) => (if i == 0 { group } else { group + 8 }, within),
        (1, 8) => (if i == 0 || i == 2 { group } else { group + 8 }, if i < 2 { within } else { within + 4 }),
        (4, 16) => (if i < 4 { group } else { group + 8 }, within * 4 + (i & 3)),
        (4, 32) => {
            let row = if (0..4).contains(&i) || (8..12).contains(&i) { group } else { group + 8 };
            (row, within * 4 + (i & 3) + if i >= 8 { 16 } else { 0 })
        }
        other => unreachable!("{other:?}"),
    }
}

fn manual_b(kind: MmaKind, lane: usize, i: usize) -> (usize, usize) {
    let (group, within) = (lane >> 2, lane % 4);
    let k = match (kind.b.per_register(), kind.k) {
        (2, 16) => {
            if i < 2 {
                within * 2 + (i & 1)
            } else {
                within * 2 + (i & 1) + 8
            }
        }
        (2, 8) => within * 2 + i,
        (1, 4) => within,
        (1, 8) => {
            if i == 0 {
                within
            } else {
                within + 4
            }
        }
        (4, 16) => within * 4 + i,
        (4, 32) => {
            if i < 4 {
                within * 4 + (i & 3)
            } else {
                within * 4 + (i & 3) + 16
            }
        }
        other => unreachable!("{other:?}"),
    };
    (k, group)
}

fn manual_c(lane: usize, i: usize) -> (usize, usize) {
    let (group, within) = (lane >> 2, lane % 4);
    (if i < 2 { group } else { group + 8 }, within * 2 + (i & 1))
}

fn encode_operand(value: f64, operand: Operand) -> u32 {
    let format = match operand {
        Operand::F16 => Format::F16,
        Operand::Bf16 => Format::Bf16,
        Operand::Tf32 => Format::Tf32,
        Operand::E4m3 => Format::E4m3,
        Operand::E5m2 => Format::E5m2,
        Operand::S8 => return value as i8 as u8 as u32,
        Operand::U8 => return value as u8 as u32,
    };
    encode(value, format, Rounding::NearestEven, false, false)
}

type Maker<'a> = &'a mut dyn FnMut(usize, usize) -> f64;

/// Packs an A or B fragment by the manual's map; `value(row, column)` must be representable.
fn pack(kind: MmaKind, is_a: bool, value: Maker) -> Vec<Register> {
    let (operand, count) = if is_a { (kind.a, kind.a_registers()) } else { (kind.b, kind.b_registers()) };
    let per_register = operand.per_register() as usize;
    let mut registers = vec![[0; 32]; count];
    for lane in 0..32 {
        for i in 0..count * per_register {
            let (row, column) = if is_a { manual_a(kind, lane, i) } else { manual_b(kind, lane, i) };
            let bits = encode_operand(value(row, column), operand);
            registers[i / per_register][lane] |= bits << (32 / per_register * (i % per_register)) as u32;
        }
    }
    registers
}

fn pack_c(kind: MmaKind, value: Maker) -> Vec<Register> {
    let mut registers = vec![[0; 32]; kind.c_registers()];
    for lane in 0..32 {
        for i in 0..4 {
            let (row, column) = manual_c(lane, i);
            let value = value(row, column);
            match kind.accumulator {
                Accumulator::F32 => registers[i][lane] = (value as f32).to_bits(),
                Accumulator::F16 => registers[i / 2][lane] |= (f32_to_f16(value as f32) as u32) << (16 * (i % 2)),
                Accumulator::S32 { .. } => registers[i][lane] = value as i32 as u32,
            }
        }
    }
    registers
}

fn read_d(kind: MmaKind, registers: &[Register], lane: usize, i: usize) -> f64 {
    match kind.accumulator {
        Accumulator::F32 => f32::from_bits(registers[i][lane]) as f64,
        Accumulator::F16 => decode_format(registers[i / 2][lane] >> (16 * (i % 2)) & 0xffff, Format::F16),
        Accumulator::S32 { .. } => registers[i][lane] as i32 as f64,
    }
}

/// Small integers that differ with row and column and are representable in every operand type.
fn small(words: &mut Words, unsigned: bool) -> f64 {
    let value = (words.next() % 7) as f64;
    if unsigned { value } else { value - 3.0 }
}

#[test]
fn every_product_of_asymmetric_integers_is_exact() {
    let mut words = Words(41);
    for kind in all_kinds() {
        let k = kind.k as usize;
        let a: Vec<f64> = (0..16 * k).map(|_| small(&mut words, kind.a == Operand::U8)).collect();
        let b: Vec<f64> = (0..k * 8).map(|_| small(&mut words, kind.b == Operand::U8)).collect();
        let c: Vec<f64> = (0..16 * 8).map(|_| small(&mut words, false)).collect();
        let a_registers = pack(kind, true, &mut |row, column| a[row * k + column]);
        let b_registers = pack(kind, false, &mut |row, column| b[row * 8 + column]);
        let c_registers = pack_c(kind, &mut |row, column| c[row * 8 + column]);
        let mut d = vec![[0xdead_beef; 32]; kind.c_registers()];
        mma(kind, &a_registers, &b_registers, &c_registers, &mut d);
        for lane in 0..32 {
            for i in 0..4 {
                let (row, column) = manual_c(lane, i);
                let products: f64 = (0..k).map(|j| a[row * k + j] * b[j * 8 + column]).sum();
                assert_eq!(read_d(kind, &d, lane, i), c[row * 8 + column] + products, "{kind:?} lane {lane} element {i}");
            }
        }
    }
}

#[test]
fn lane_maps_cover_each_element_once_and_follow_the_manual() {
    for kind in all_kinds() {
        let k = kind.k as usize;
        let (per_a, per_b) = (kind.a.per_register() as usize, kind.b.per_register() as usize);
        let (mut seen_a, mut seen_b, mut seen_c) = (vec![0; 16 * k], vec![0; 8 * k], vec![0; 128]);
        for lane in 0..32 {
            for i in 0..kind.a_registers() * per_a {
                let (row, column) = a_element(lane, i / per_a, i % per_a, per_a);
                assert_eq!((row, column), manual_a(kind, lane, i), "{kind:?} A lane {lane} element {i}");
                seen_a[row * k + column] += 1;
            }
            for i in 0..kind.b_registers() * per_b {
                let (row, column) = b_element(lane, i / per_b, i % per_b, per_b);
                assert_eq!((row, column), manual_b(kind, lane, i), "{kind:?} B lane {lane} element {i}");
                seen_b[row * 8 + column] += 1;
            }
            for i in 0..4 {
                let (row, column) = c_element(lane, i);
                assert_eq!((row, column), manual_c(lane, i));
                seen_c[row * 8 + column] += 1;
            }
        }
        assert!([seen_a, seen_b, seen_c].iter().flatten().all(|&count| count == 1), "{kind:?}");
    }
}

fn uniform(kind: MmaKind, a: f64, b: f64, c: f64) -> f64 {
    let mut d = vec![[0; 32]; kind.c_registers()];
    let a = pack(kind, true, &mut |_, _| a);
    let b = pack(kind, false, &mut |_, _| b);
    mma(kind, &a, &b, &pack_c(kind, &mut |_, _| c), &mut d);
    let first = read_d(kind, &d, 0, 0);
    assert!((0..128).all(|i| read_d(kind, &d, i / 4, i % 4).to_bits() == first.to_bits()));
    first
}

#[test]
fn rounds_once_at_the_end() {
    let f32_sum = kind(16, Operand::F16, Operand::F16, Accumulator::F32);
    // 16 products of 2^-24 onto 1: each alone would be lost in f32, together they are 8 units of its last place.
    assert_eq!(uniform(f32_sum, 2f64.powi(-12), 2f64.powi(-12), 1.0), 1.0 + 2f64.powi(-20));
    let f16_sum = kind(16, Operand::F16, Operand::F16, Accumulator::F16);
    assert_eq!(uniform(f16_sum, 2f64.powi(-7), 2f64.powi(-7), 1.0), 1.0 + 2f64.powi(-10));
    assert_eq!(uniform(f16_sum, 200.0, 200.0, 0.0), f64::INFINITY);
    let huge = kind(8, Operand::Bf16, Operand::Bf16, Accumulator::F32);
    assert_eq!(uniform(huge, 2f64.powi(100), 2f64.powi(100), 0.0), f64::INFINITY);
}

#[test]
fn subnormals_infinities_and_nans() {
    let f16 = kind(8, Operand::F16, Operand::F16, Accumulator::F32);
    assert_eq!(uniform(f16, 2f64.powi(-24), 1.0, 0.0), 2f64.powi(-21));
    assert_eq!(uniform(f16, f64::INFINITY, 1.0, 0.0), f64::INFINITY);
    let mut d = vec![[0; 32]; 4];
    let a = pack(f16, true, &mut |row, _| if row == 3 { f64::INFINITY } else { 1.0 });
    let b = pack(f16, false, &mut |_, column| if column == 5 { 0.0 } else { 1.0 });
    mma(f16, &a, &b, &[[0; 32]; 4], &mut d);
    for lane in 0..32 {
        for i in 0..4 {
            let want = match c_element(lane, i) {
                (3, 5) => 0x7fff_ffff,
                (3, _) => f32::INFINITY.to_bits(),
                (_, 5) => 0,
                _ => 8f32.to_bits(),
            };
            assert_eq!(d[i][lane], want);
        }
    }
}

#[test]
fn tf32_ignores_the_low_bits() {
    let tf32 = kind(4, Operand::Tf32, Operand::Tf32, Accumulator::F32);
    let with_noise = |bits: u32| [[bits | 0x1fff; 32]; 1];
    let a = [with_noise(1.5f32.to_bits())[0]; 2];
    let mut d = [[0; 32]; 4];
    mma(tf32, &a, &with_noise((-2f32).to_bits()), &[[0; 32]; 4], &mut d);
    assert_eq!(d, [[(-12f32).to_bits(); 32]; 4]);
}

#[test]
fn integers_wrap_or_saturate() {
    for (a, b, x, y) in [(Operand::U8, Operand::U8, 255.0, 255.0), (Operand::S8, Operand::S8, -128.0, -128.0)] {
        let wrap = kind(32, a, b, Accumulator::S32 { saturate: false });
        let stay = kind(32, a, b, Accumulator::S32 { saturate: true });
        let added = (32.0 * x * y) as i32;
        assert_eq!(uniform(stay, x, y, i32::MAX as f64), i32::MAX as f64);
        assert_eq!(uniform(wrap, x, y, i32::MAX as f64), i32::MAX.wrapping_add(added) as f64);
        assert_eq!(uniform(wrap, x, y, 7.0), (added + 7) as f64);
    }
    let mixed = kind(16, Operand::S8, Operand::U8, Accumulator::S32 { saturate: true });
    assert_eq!(uniform(mixed, -128.0, 255.0, i32::MIN as f64), i32::MIN as f64);
    assert_eq!(uniform(mixed, -128.0, 255.0, 0.0), -128.0 * 255.0 * 16.0);
}

#[test]
fn random_products_are_within_half_a_unit_of_f64() {
    let mut words = Words(42);
    for kind in all_kinds().into_iter().filter(|kind| kind.accumulator == Accumulator::F32) {
        let k = kind.k as usize;
        let mut number = |_: usize| (words.next() as i64 as f64 / 2f64.powi(63) * 64.0).round() / 64.0;
        let a: Vec<f64> = (0..16 * k).map(&mut number).map(|v| round_to(v, kind.a)).collect();
        let b: Vec<f64> = (0..k * 8).map(&mut number).map(|v| round_to(v, kind.b)).collect();
        let a_registers = pack(kind, true, &mut |row, column| a[row * k + column]);
        let b_registers = pack(kind, false, &mut |row, column| b[row * 8 + column]);
        let mut d = vec![[0; 32]; 4];
        mma(kind, &a_registers, &b_registers, &[[0; 32]; 4], &mut d);
        for lane in 0..32 {
            for i in 0..4 {
                let (row, column) = c_element(lane, i);
                let exact: f64 = (0..k).map(|j| a[row * k + j] * b[j * 8 + column]).sum();
                assert_eq!(d[i][lane], (exact as f32).to_bits(), "{kind:?}");
            }
        }
    }
}

fn round_to(value: f64, operand: Operand) -> f64 {
    let format = match operand {
        Operand::F16 => Format::F16,
        Operand::Bf16 => Format::Bf16,
        Operand::Tf32 => Format::Tf32,
        Operand::E4m3 => Format::E4m3,
        _ => Format::E5m2,
    };
    decode_format(encode(value, format, Rounding::NearestEven, true, false), format)
}
