//! Operations: one folder for each kernel family, with its formula, its shape checks, and its code for each device.
//!
//! An operation takes the pass ([`crate::device::Exec`]) first, checks shapes, takes memory for its result, announces its
//! cost, and dispatches on the device. Activations are f32 on a CPU, f16 or bf16 on a GPU, and
//! channels-last: `[B, H, W, C]` or `[B, T, C]`.

pub mod attention;
mod cases;
pub mod conv;
pub mod elementwise;
pub mod embed;
pub mod gemm;
pub mod norm;
pub mod sampler;
pub mod softmax;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod twins;

pub use cases::RowsCase;
