//! `mma.sync`: D = A B + C on fragments spread over the registers of a warp.
//!
//! Shapes are m16n8kK: A is 16 x K, B is K x 8, C and D are 16 x 8. A register is `[u32; 32]`, one word for each lane.
//!
//! Sums: products are exact; C and then all K products are added in f64 in ascending order of k; one rounding to nearest ends it.
//! Tensor units align and truncate instead, so they lose bits that this keeps; sums of small integers are exact in both.

use super::arithmetic::canonical;
use super::format::{bf16_to_f32, e4m3_to_f32, e5m2_to_f32, f16_to_f32, f64_to_f16, tf32_significant};

/// Element type of A or B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// IEEE binary16.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// An f32 whose low 13 bits are ignored.
    Tf32,
    /// 8-bit float with 3 bits of fraction.
    E4m3,
    /// 8-bit float with 2 bits of fraction.
    E5m2,
    /// Signed 8-bit integer.
    S8,
    /// Unsigned 8-bit integer.
    U8,
}

/// Element type of C and D.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accumulator {
    /// One f32 a register.
    F32,
    /// Two f16 a register.
    F16,
    /// One s32 a register; sums wrap, or stay at the ends of the range with `.satfinite`.
    S32 {
        /// `.satfinite`.
        saturate: bool,
    },
}

/// A product of shape m16n8k`k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MmaKind {
    /// Columns of A and rows of B.
    pub k: u32,
    /// Type of A.
    pub a: Operand,
    /// Type of B.
    pub b: Operand,
    /// Type of C and D.
    pub accumulator: Accumulator,
}

impl Operand {
    /// Elements in one 32-bit register.
    pub const fn per_register(self) -> u32 {
        match self {
            Operand::F16 | Operand::Bf16 => 2,
            Operand::Tf32 => 1,
            Operand::E4m3 | Operand::E5m2 | Operand::S8 | Operand::U8 => 4,
        }
    }
}

impl MmaKind {
    /// Whether PTX has this product (of those that this module knows).
    pub const fn is_valid(self) -> bool {
        use Accumulator as Acc;
        use Operand::*;
        match (self.a, self.b, self.accumulator) {
            (F16, F16, Acc::F16 | Acc::F32) | (Bf16, Bf16, Acc::F32) => matches!(self.k, 8 | 16),
            (Tf32, Tf32, Acc::F32) => matches!(self.k, 4 | 8),
            (E4m3 | E5m2, E4m3 | E5m2, Acc::F16 | Acc::F32) | (S8 | U8, S8 | U8, Acc::S32 { .. }) => matches!(self.k, 16 | 32),
            _ => false,
        }
    }

    /// Registers of a lane that hold A.
    pub const fn a_registers(self) -> usize {
        (16 * self.k / 32 / self.a.per_register()) as usize
    }

    /// Registers of a lane that hold B.
    pub const fn b_registers(self) -> usize {
        (8 * self.k / 32 / self.b.per_register()) as usize
    }

    /// Registers of a lane that hold C, and as many D.
    pub const fn c_registers(self) -> usize {
        match self.accumulator {
            Accumulator::F16 => 2,
            Accumulator::F32 | Accumulator::S32 { .. } => 4,
        }
    }

    /// Floating-point (or integer) operations: two for each multiply-add.
    pub const fn flops(self) -> u64 {
        2 * 16 * 8 * self.k as u64
    }
}

/// Row and column in A of an element of a lane, with `per_register` elements in each register.
///
/// Four neighbouring lanes share a row, and hold neighbouring elements of it. Registers alternate between the upper and
/// lower eight rows.
pub const fn a_element(lane: usize, register: usize, element: usize, per_register: usize) -> (usize, usize) {
    let row = lane / 4 + 8 * (register % 2);
    let column = (lane % 4) * per_register + element + 4 * per_register * (register / 2);
    (row, column)
}

/// Row (k) and column (n) in B of an element of a lane, with `per_register` elements in each register.
///
/// Four neighbouring lanes share a column, and hold neighbouring elements of it.
pub const fn b_element(lane: usize, register: usize, element: usize, per_register: usize) -> (usize, usize) {
    ((lane % 4) * per_register + element + 4 * per_register * register, lane / 4)
}

/// Row and column in C or D of a lane's element `index`, 0..4.
///
/// For f32 and s32 that is the register; for f16 it is register `index / 2`, lower half for even ones.
pub const fn c_element(lane: usize, index: usize) -> (usize, usize) {
    (lane / 4 + 8 * (index / 2), (lane % 4) * 2 + index % 2)
}

/// One register of every lane.
pub type Register = [u32; 32];

/// Decodes a register: element e of all lanes in row e. Only the first `per_register` rows are written.
#[inline(always)]
fn decode(register: &Register, operand: Operand, out: &mut [[f32; 32]; 4]) {
    // Each arm is a loop over lanes that vectorises.
    macro_rules! rows {
        ($count:literal, $width:literal, $convert:expr) => {
            for (e, row) in out.iter_mut().take($count).enumerate() {
                for (value, &bits) in row.iter_mut().zip(register) {
                    *value = $convert(bits >> (e * $width));
                }
            }
        };
    }
    match operand {
        Operand::F16 => rows!(2, 16, |bits: u32| f16_to_f32(bits as u16)),
        Operand::Bf16 => rows!(2, 16, |bits: u32| bf16_to_f32(bits as u16)),
        Operand::Tf32 => rows!(1, 0, |bits: u32| f32::from_bits(tf32_significant(bits))),
        Operand::E4m3 => rows!(4, 8, |bits: u32| e4m3_to_f32(bits as u8)),
        Operand::E5m2 => rows!(4, 8, |bits: u32| e5m2_to_f32(bits as u8)),
        Operand::S8 => rows!(4, 8, |bits: u32| bits as i8 as f32),
        Operand::U8 => rows!(4, 8, |bits: u32| bits as u8 as f32),
    }
}

/// Hands over the elements of a fragment: lane, register, element in the register, value.
#[inline(always)]
fn each_element(registers: &[Register], operand: Operand, mut hand_over: impl FnMut(usize, usize, usize, f64)) {
    let mut rows = [[0.0; 32]; 4];
    for (r, register) in registers.iter().enumerate() {
        decode(register, operand, &mut rows);
        for (e, values) in rows.iter().take(operand.per_register() as usize).enumerate() {
            for (lane, &value) in values.iter().enumerate() {
                hand_over(lane, r, e, value as f64);
            }
        }
    }
}

#[inline(always)]
fn unpack_a<const K: usize>(registers: &[Register], operand: Operand) -> [[f64; K]; 16] {
    let mut matrix = [[0.0; K]; 16];
    let per_register = operand.per_register() as usize;
    each_element(registers, operand, |lane, r, e, value| {
        let (row, column) = a_element(lane, r, e, per_register);
        matrix[row][column] = value;
    });
    matrix
}

#[inline(always)]
fn unpack_b<const K: usize>(registers: &[Register], operand: Operand) -> [[f64; 8]; K] {
    let mut matrix = [[0.0; 8]; K];
    let per_register = operand.per_register() as usize;
    each_element(registers, operand, |lane, r, e, value| {
        let (k, n) = b_element(lane, r, e, per_register);
        matrix[k][n] = value;
    });
    matrix
}

/// `sums += a * b`, two rows at a time so that each row of B is loaded half as often.
#[inline(always)]
fn multiply<const K: usize>(a: &[[f64; K]; 16], b: &[[f64; 8]; K], sums: &mut [[f64; 8]; 16]) {
    for (a, sums) in a.chunks_exact(2).zip(sums.chunks_exact_mut(2)) {
        let (mut first, mut second) = (sums[0], sums[1]);
        for (k, b) in b.iter().enumerate() {
            let (x, y) = (a[0][k], a[1][k]);
            for n in 0..8 {
                first[n] += x * b[n];
                second[n] += y * b[n];
            }
        }
        (sums[0], sums[1]) = (first, second);
    }
}

/// Reads C, in f64, which holds every value of f16, f32 and s32.
#[inline]
fn unpack_c(registers: &[Register], accumulator: Accumulator) -> [[f64; 8]; 16] {
    let mut matrix = [[0.0; 8]; 16];
    let mut place = |lane: usize, index: usize, value: f64| {
        let (row, column) = c_element(lane, index);
        matrix[row][column] = value;
    };
    for (r, register) in registers.iter().enumerate() {
        for (lane, &bits) in register.iter().enumerate() {
            match accumulator {
                Accumulator::F32 => place(lane, r, f32::from_bits(bits) as f64),
                Accumulator::S32 { .. } => place(lane, r, bits as i32 as f64),
                Accumulator::F16 => {
                    place(lane, 2 * r, f16_to_f32(bits as u16) as f64);
                    place(lane, 2 * r + 1, f16_to_f32((bits >> 16) as u16) as f64);
                }
            }
        }
    }
    matrix
}

#[inline]
fn pack_d(matrix: &[[f64; 8]; 16], accumulator: Accumulator, registers: &mut [Register]) {
    let value = |lane: usize, index: usize| {
        let (row, column) = c_element(lane, index);
        matrix[row][column]
    };
    for (r, register) in registers.iter_mut().enumerate() {
        for (lane, bits) in register.iter_mut().enumerate() {
            *bits = match accumulator {
                Accumulator::F32 => canonical(value(lane, r) as f32).to_bits(),
                Accumulator::F16 => f64_to_f16(value(lane, 2 * r)) as u32 | (f64_to_f16(value(lane, 2 * r + 1)) as u32) << 16,
                // Sums of at most 32 products of 8 bits and an s32 are exact in f64, and in i64. `as i32` of a float saturates.
                Accumulator::S32 { saturate: true } => value(lane, r) as i32 as u32,
                Accumulator::S32 { saturate: false } => value(lane, r) as i64 as u32,
            };
        }
    }
}

fn run<const K: usize>(kind: MmaKind, a: &[Register], b: &[Register], c: &[Register], d: &mut [Register]) {
    // The common operands get code of their own, with decoding and lane maps folded in.
    let (a, b) = match (kind.a, kind.b) {
        (Operand::F16, Operand::F16) => (unpack_a::<K>(a, Operand::F16), unpack_b::<K>(b, Operand::F16)),
        (Operand::Bf16, Operand::Bf16) => (unpack_a::<K>(a, Operand::Bf16), unpack_b::<K>(b, Operand::Bf16)),
        _ => (unpack_a::<K>(a, kind.a), unpack_b::<K>(b, kind.b)),
    };
    let mut sums = unpack_c(c, kind.accumulator);
    multiply(&a, &b, &mut sums);
    pack_d(&sums, kind.accumulator, d);
}

/// D = A B + C for a whole warp.
///
/// `a`, `b`, `c` and `d` hold [`MmaKind::a_registers`], [`MmaKind::b_registers`] and [`MmaKind::c_registers`] registers in the order in
/// which PTX lists them.
///
/// # Panics
/// If `kind` is not valid, or a slice has another length.
pub fn mma(kind: MmaKind, a: &[Register], b: &[Register], c: &[Register], d: &mut [Register]) {
    assert!(kind.is_valid(), "{kind:?} is not a product that PTX has");
    assert!(
        a.len() == kind.a_registers() && b.len() == kind.b_registers() && c.len() == kind.c_registers() && d.len() == c.len(),
        "{kind:?} with {} registers of A, {} of B, {} of C and {} of D",
        a.len(),
        b.len(),
        c.len(),
        d.len()
    );
    match kind.k {
        4 => run::<4>(kind, a, b, c, d),
        8 => run::<8>(kind, a, b, c, d),
        16 => run::<16>(kind, a, b, c, d),
        _ => run::<32>(kind, a, b, c, d),
    }
}

#[cfg(test)]
mod tests;
