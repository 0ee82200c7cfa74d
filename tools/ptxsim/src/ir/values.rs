//! Closures over 32 lanes.

use super::{LANES, Test, Value};

/// A value from one register.
pub(super) fn map1(f: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Value {
    Box::new(move |a, _, _| std::array::from_fn(|i| f(a[i])))
}

/// A value from two registers.
pub(super) fn map2(f: impl Fn(u64, u64) -> u64 + Send + Sync + 'static) -> Value {
    Box::new(move |a, b, _| std::array::from_fn(|i| f(a[i], b[i])))
}

/// A value from three registers.
pub(super) fn map3(f: impl Fn(u64, u64, u64) -> u64 + Send + Sync + 'static) -> Value {
    Box::new(move |a, b, c| std::array::from_fn(|i| f(a[i], b[i], c[i])))
}

/// A comparison of two registers.
pub(super) fn test2(f: impl Fn(u64, u64) -> bool + Send + Sync + 'static) -> Test {
    Box::new(move |a, b| (0..LANES).fold(0, |bits, i| bits | u32::from(f(a[i], b[i])) << i))
}

/// The low `bits` bits.
pub(super) fn mask(bits: u32) -> u64 {
    u64::MAX >> (64 - bits)
}

/// The low `bits` bits as a signed number.
pub(crate) fn signed(value: u64, bits: u32) -> i64 {
    (value << (64 - bits)) as i64 >> (64 - bits)
}

/// The low `bits` bits as a number, signed or not.
pub(super) fn number(value: u64, bits: u32, is_signed: bool) -> i128 {
    if is_signed { signed(value, bits).into() } else { (value & mask(bits)).into() }
}

/// Applies a function to both 16-bit halves of 32-bit values.
pub(super) fn halves<const N: usize>(operands: [u64; N], f: impl Fn([u16; N]) -> u16) -> u64 {
    let low = f(operands.map(|x| x as u16));
    let high = f(operands.map(|x| (x >> 16) as u16));
    u64::from(high) << 16 | u64::from(low)
}
