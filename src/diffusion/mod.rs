//! Latent diffusion: captions to images with a Stable Diffusion 1.x or 2.x checkpoint.
//!
//! [`StableDiffusion`] holds the networks, [`schedulers`] say what to do with their predictions, and a [`Sampler`] runs both.

mod cost;
mod denoise;
mod layout;
mod model;
mod prepared;
mod resnet;
pub mod sampler;
pub mod schedulers;
pub mod unet;
pub mod vae;

pub use cost::Cost;
pub use model::{ModelSpec, StableDiffusion, declared_tensors, load_text_encoder, load_unet, load_vae_decoder, load_vae_encoder};
pub use sampler::{Generated, Progress, Sample, Sampler, Savings, Settings};
