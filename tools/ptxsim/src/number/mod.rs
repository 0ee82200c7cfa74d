//! Number formats, their conversions, and the arithmetic of approximate and tensor-core instructions.

pub mod approx;
pub mod arithmetic;
pub mod convert;
pub mod double;
pub mod format;
pub mod half;
pub mod mma;

#[cfg(test)]
mod testing;
