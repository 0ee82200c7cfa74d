//! Number formats, their conversions, and the arithmetic of approximate and tensor-core instructions.

pub mod format;
