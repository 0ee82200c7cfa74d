//! `syntic`: text-only image captioning with synthetic image-text pairs.
//!
//! The crate is the pipeline of the SynTIC paper as a library; the `syntic` binary turns flags into calls to it.
//! Layers, top to bottom, each calling only the one below:
//!
//! | layer | modules |
//! |---|---|
//! | stages | [`tinyworld`], [`generate`], [`corpus`], [`shards`] |
//! | models | [`clip`], [`diffusion`], [`tokenizer`], [`weights`] |
//! | operations | [`ops`] |
//! | execution | [`device`], [`tensor`] |
//!
//! Tensors are channels-last: images are `[B, H, W, C]`, tokens `[B, T, C]`. Fallible functions return [`Result`], whose
//! [`Error`] names the operation, file, key and what to do next.

#![deny(unsafe_code)]
#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::dbg_macro,
    clippy::todo
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr))]
#![warn(missing_docs)]

pub mod bench;
pub mod clip;
pub mod corpus;
pub mod device;
pub mod diffusion;
mod error;
mod files;
pub mod generate;
mod network;
pub mod ops;
pub mod rng;
pub mod shards;
pub mod tensor;
pub mod tinyworld;
pub mod tokenizer;
pub mod weights;

pub use error::{Error, Result};

// The bodies that src/device/tests.rs shares with tests/driver call it so.
#[cfg(test)]
extern crate self as syntic;

/// Version of this crate, recorded in everything it writes.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
