//! The autoencoder between images and latents (diffusers' `AutoencoderKL`): its two halves are separate networks here, so
//! that generation need not hold the encoder.

mod blocks;
mod config;
mod decoder;
mod encoder;

pub use config::VaeConfig;
pub use decoder::VaeDecoder;
pub use encoder::VaeEncoder;

/// Added to the variance in every norm of the autoencoder, fixed in diffusers.
const EPS: f32 = 1e-6;
