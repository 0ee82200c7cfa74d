//! Runs CUDA kernels from their PTX on a CPU, and is stricter than hardware.

pub mod count;
pub mod number;
