//! `cvt` between every two types that PTX converts, in every rounding.

use crate::exact::{E4M3, E5M2, F16, F32, F64, MODES, Mode, TF32, bf16_of, f16_of, f32_of, flushed, saturated};
use crate::harness::{Word, binary, table, unary};
use half::{bf16, f16};

/// To a narrower integer the low bits are taken, to a wider one the sign is repeated; .sat clamps.
#[test]
fn integers_to_integers() {
    unary("cvt.u16.u32 %d, %a;", |a: u32| a as u16);
    unary("cvt.u16.u64 %d, %a;", |a: u64| a as u16);
    unary("cvt.u32.u64 %d, %a;", |a: u64| a as u32);
    unary("cvt.u32.u16 %d, %a;", |a: u16| u32::from(a));
    unary("cvt.s32.s16 %d, %a;", |a: i16| i32::from(a));
    unary("cvt.u64.u32 %d, %a;", |a: u32| u64::from(a));
    unary("cvt.s64.s32 %d, %a;", |a: i32| i64::from(a));
    unary("cvt.s64.s16 %d, %a;", |a: i16| i64::from(a));
    unary("cvt.u32.u8 %d, %a;", |a: u32| a & 0xff);
    unary("cvt.s32.s8 %d, %a;", |a: u32| i32::from(a as i8));
    unary("cvt.s16.s8 %d, %a;", |a: u16| i16::from(a as i8));
    unary("cvt.s64.s8 %d, %a;", |a: u32| i64::from(a as i8));
    unary("cvt.u8.u32 %d, %a;", |a: u32| a & 0xff);
    unary("cvt.s8.s32 %d, %a;", |a: u32| i32::from(a as i8));
    unary("cvt.sat.u8.s32 %d, %a;", |a: i32| a.clamp(0, 255) as u32);
    unary("cvt.sat.s8.s32 %d, %a;", |a: i32| a.clamp(-128, 127));
    unary("cvt.sat.u16.s32 %d, %a;", |a: i32| a.clamp(0, 65535) as u16);
    unary("cvt.sat.s16.s64 %d, %a;", |a: i64| a.clamp(-32768, 32767) as i16);
    unary("cvt.sat.s32.s64 %d, %a;", |a: i64| a.clamp(i32::MIN.into(), i32::MAX.into()) as i32);
    unary("cvt.sat.u32.s64 %d, %a;", |a: i64| a.clamp(0, u32::MAX.into()) as u32);
    unary("cvt.sat.s32.u32 %d, %a;", |a: u32| a.min(i32::MAX as u32));
    unary("cvt.sat.u64.s64 %d, %a;", |a: i64| a.max(0) as u64);
}

fn rounded(x: f64, mode: &str) -> f64 {
    match mode {
        "rni" => x.round_ties_even(),
        "rzi" => x.trunc(),
        "rmi" => x.floor(),
        _ => x.ceil(),
    }
}

const INTEGER_MODES: [&str; 4] = ["rni", "rzi", "rmi", "rpi"];

/// Out of range clamps. Not a number becomes 0, and the highest bit alone for 64-bit results.
#[test]
fn floats_to_integers() {
    for mode in INTEGER_MODES {
        let round = |x: f64| rounded(x, mode);
        unary(&format!("cvt.{mode}.s32.f32 %d, %a;"), |a: f32| round(a.into()) as i32);
        unary(&format!("cvt.{mode}.u32.f32 %d, %a;"), |a: f32| round(a.into()) as u32);
        unary(&format!("cvt.{mode}.s64.f32 %d, %a;"), |a: f32| if a.is_nan() { i64::MIN } else { round(a.into()) as i64 });
        unary(&format!("cvt.{mode}.u64.f32 %d, %a;"), |a: f32| if a.is_nan() { 1 << 63 } else { round(a.into()) as u64 });
        unary(&format!("cvt.{mode}.s32.f64 %d, %a;"), |a: f64| if a.is_nan() { i32::MIN } else { round(a) as i32 });
        unary(&format!("cvt.{mode}.u32.f64 %d, %a;"), |a: f64| if a.is_nan() { 1 << 31 } else { round(a) as u32 });
        unary(&format!("cvt.{mode}.s64.f64 %d, %a;"), |a: f64| if a.is_nan() { i64::MIN } else { round(a) as i64 });
        unary(&format!("cvt.{mode}.u64.f64 %d, %a;"), |a: f64| if a.is_nan() { 1 << 63 } else { round(a) as u64 });
        unary(&format!("cvt.{mode}.s32.f16 %d, %a;"), |a: f16| round(a.to_f64()) as i32);
        unary(&format!("cvt.{mode}.u16.f16 %d, %a;"), |a: f16| round(a.to_f64()) as u16);
    }
    unary("cvt.rzi.ftz.s32.f32 %d, %a;", |a: f32| flushed(a).trunc() as i32);
    unary("cvt.rpi.ftz.s32.f32 %d, %a;", |a: f32| flushed(a).ceil() as i32);
}

/// To integers within a float type.
#[test]
fn floats_to_whole_floats() {
    for mode in INTEGER_MODES {
        unary(&format!("cvt.{mode}.f32.f32 %d, %a;"), |a: f32| rounded(a.into(), mode) as f32);
        unary(&format!("cvt.{mode}.f64.f64 %d, %a;"), |a: f64| rounded(a, mode));
        unary(&format!("cvt.{mode}.f16.f16 %d, %a;"), |a: f16| f16_of(rounded(a.to_f64(), mode), Mode::Nearest));
    }
}

#[test]
fn integers_to_floats() {
    let code = |format: crate::exact::Format, x: i128, mode| format.code(x < 0, x.unsigned_abs(), 0, false, mode);
    for (name, mode) in MODES {
        unary(&format!("cvt.{name}.f32.s32 %d, %a;"), |a: i32| f32::of(code(F32, a.into(), mode)));
        unary(&format!("cvt.{name}.f32.u32 %d, %a;"), |a: u32| f32::of(code(F32, a.into(), mode)));
        unary(&format!("cvt.{name}.f32.s64 %d, %a;"), |a: i64| f32::of(code(F32, a.into(), mode)));
        unary(&format!("cvt.{name}.f32.u64 %d, %a;"), |a: u64| f32::of(code(F32, a.into(), mode)));
        unary(&format!("cvt.{name}.f64.s32 %d, %a;"), |a: i32| f64::from(a));
        unary(&format!("cvt.{name}.f64.s64 %d, %a;"), |a: i64| f64::of(code(F64, a.into(), mode)));
        unary(&format!("cvt.{name}.f64.u64 %d, %a;"), |a: u64| f64::of(code(F64, a.into(), mode)));
        unary(&format!("cvt.{name}.f16.s32 %d, %a;"), |a: i32| f16::of(code(F16, a.into(), mode)));
        unary(&format!("cvt.{name}.f16.u16 %d, %a;"), |a: u16| f16::of(code(F16, a.into(), mode)));
    }
    unary("cvt.rn.f32.u8 %d, %a;", |a: u32| (a & 0xff) as f32);
    unary("cvt.rn.f32.s8 %d, %a;", |a: u32| f32::from(a as i8));
    unary("cvt.rn.f32.s16 %d, %a;", |a: i16| f32::from(a));
}

#[test]
fn floats_to_narrower_floats() {
    for (name, mode) in MODES {
        unary(&format!("cvt.{name}.f32.f64 %d, %a;"), |a: f64| f32_of(a, mode));
        unary(&format!("cvt.{name}.f16.f64 %d, %a;"), |a: f64| f16_of(a, mode));
        unary(&format!("cvt.{name}.f16.f32 %d, %a;"), |a: f32| f16_of(a.into(), mode));
    }
    for (name, mode) in [("rn", Mode::Nearest), ("rz", Mode::Zero)] {
        unary(&format!("cvt.{name}.bf16.f32 %d, %a;"), |a: f32| bf16_of(a.into(), mode));
    }
    unary("cvt.rn.ftz.f32.f64 %d, %a;", |a: f64| flushed(f32_of(a, Mode::Nearest)));
    unary("cvt.rn.sat.f32.f64 %d, %a;", |a: f64| saturated(f32_of(a, Mode::Nearest)));
    unary(
        "cvt.rn.relu.f16.f32 %d, %a;",
        |a: f32| if a.is_nan() { f16::NAN } else { f16_of(f64::from(a).max(0.0), Mode::Nearest) },
    );
}

#[test]
fn floats_to_wider_floats() {
    unary("cvt.f32.f16 %d, %a;", |a: f16| a.to_f32());
    unary("cvt.f64.f16 %d, %a;", |a: f16| a.to_f64());
    unary("cvt.f64.f32 %d, %a;", |a: f32| f64::from(a));
    unary("cvt.f32.bf16 %d, %a;", |a: bf16| a.to_f32());
    unary("cvt.ftz.f32.f16 %d, %a;", |a: f16| a.to_f32());
    unary("cvt.ftz.f64.f32 %d, %a;", |a: f32| f64::from(flushed(a)));
    unary("cvt.sat.f32.f32 %d, %a;", saturated);
    unary("cvt.ftz.f32.f32 %d, %a;", flushed);
}

/// `%a` goes to the high half.
#[test]
fn pairs() {
    for (name, mode) in [("rn", Mode::Nearest), ("rz", Mode::Zero)] {
        binary(&format!("cvt.{name}.f16x2.f32 %d, %a, %b;"), |a: f32, b: f32| [f16_of(b.into(), mode), f16_of(a.into(), mode)]);
        binary(&format!("cvt.{name}.bf16x2.f32 %d, %a, %b;"), |a: f32, b: f32| {
            [bf16_of(b.into(), mode), bf16_of(a.into(), mode)]
        });
    }
    let relu = |x: f32| if x.is_nan() { f64::NAN } else { f64::from(x).max(0.0) };
    binary("cvt.rn.relu.f16x2.f32 %d, %a, %b;", |a, b| [f16_of(relu(b), Mode::Nearest), f16_of(relu(a), Mode::Nearest)]);
    binary("cvt.rn.relu.bf16x2.f32 %d, %a, %b;", |a, b| [bf16_of(relu(b), Mode::Nearest), bf16_of(relu(a), Mode::Nearest)]);
}

/// The 13 low bits of the result are free: those that hold the number must be right.
#[test]
fn to_tf32() {
    let rows: Vec<[u64; 3]> = f32::edges().iter().filter(|x| !x.is_nan()).map(|x| [x.bits(), 0, 0]).collect();
    for (name, mode) in [("rna", Mode::Away), ("rn", Mode::Nearest), ("rz", Mode::Zero)] {
        let results = table("", &format!("cvt.{name}.tf32.f32 %d, %a;"), ["b32"; 4], &rows);
        for (row, result) in rows.iter().zip(results) {
            let x = f32::of(row[0]);
            assert_eq!(result >> 13, TF32.round(x.into(), mode), "{name} {x:?}: {result:#x}");
        }
    }
}

/// Values of f16 that an 8-bit format may or may not hold.
fn small_numbers() -> Vec<f32> {
    let steps = (0..=512).flat_map(|i| [i as f32, i as f32 / 64.0, i as f32 / 4096.0, i as f32 / 131072.0, i as f32 * 160.0]);
    steps.flat_map(|x| [x, -x]).chain([f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, 1e-30]).collect()
}

#[test]
fn to_eight_bits() {
    let numbers = small_numbers();
    let rows: Vec<[u64; 3]> = numbers.iter().map(|a| [a.bits(), (a / 3.0).bits(), 0]).collect();
    for (name, format) in [("e4m3x2", E4M3), ("e5m2x2", E5M2)] {
        let body = format!("cvt.rn.satfinite.{name}.f32 %d, %a, %b;");
        for (row, result) in rows.iter().zip(table("", &body, ["b16", "b32", "b32", "b32"], &rows)) {
            let [high, low] = [row[0], row[1]].map(|bits| format.round(f32::of(bits).into(), Mode::Nearest));
            assert_eq!(result, high << 8 | low, "{body} {:?} {:?}", f32::of(row[0]), f32::of(row[1]));
        }
    }
    let nan = [[f32::NAN.bits(), 0, 0]];
    assert_eq!(table("", "cvt.rn.satfinite.e4m3x2.f32 %d, %a, %b;", ["b16", "b32", "b32", "b32"], &nan)[0] >> 8 & 0x7f, 0x7f);
}

/// All codes, both halves of a pair.
#[test]
fn from_eight_bits() {
    let rows: Vec<[u64; 3]> = (0..256).map(|code| [(code << 8) | ((code * 7 + 3) % 256), 0, 0]).collect();
    for (name, significand, bias) in [("e4m3x2", 3, 7), ("e5m2x2", 2, 15)] {
        let value = |code: u64| {
            let (exponent, fraction) = ((code & 0x7f) >> significand, (code & ((1 << significand) - 1)) as f64);
            let fraction = fraction / f64::from(1 << significand);
            let size = match (name, exponent) {
                ("e4m3x2", 15) if code & 7 == 7 => f64::NAN,
                ("e5m2x2", 31) if fraction == 0.0 => f64::INFINITY,
                ("e5m2x2", 31) => f64::NAN,
                (_, 0) => fraction * 2f64.powi(1 - bias),
                _ => (1.0 + fraction) * 2f64.powi(exponent as i32 - bias),
            };
            f16_of(if code & 0x80 == 0 { size } else { -size }, Mode::Nearest)
        };
        let body = format!("cvt.rn.f16x2.{name} %d, %a;");
        for (row, result) in rows.iter().zip(table("", &body, ["b32", "b16", "b32", "b32"], &rows)) {
            let expected = [value(row[0] & 0xff), value(row[0] >> 8)];
            assert!(<[f16; 2]>::of(result).same(expected), "{body} {:#x}: {result:#x}, not {expected:?}", row[0]);
        }
    }
}

/// f16x2 to pairs of eight bits rounds once.
#[test]
fn f16_to_eight_bits() {
    let numbers: Vec<f16> = (0..0x7c00).step_by(37).map(f16::from_bits).collect();
    let rows: Vec<[u64; 3]> = numbers.iter().map(|&x| [[x, -x].bits(), 0, 0]).collect();
    for (name, format) in [("e4m3x2", E4M3), ("e5m2x2", E5M2)] {
        let body = format!("cvt.rn.satfinite.{name}.f16x2 %d, %a;");
        for (&x, result) in numbers.iter().zip(table("", &body, ["b16", "b32", "b32", "b32"], &rows)) {
            let code = format.round(x.to_f64(), Mode::Nearest);
            assert_eq!(result, (code | 0x80) << 8 | code, "{body} {x}");
        }
    }
}

/// As nvcc widens bf16 before sm_90.
#[test]
fn bf16_by_moves() {
    unary("{.reg .b16 %zero; mov.b16 %zero, 0; mov.b32 %d, {%zero, %a};}", |a: bf16| a.to_f32());
}
