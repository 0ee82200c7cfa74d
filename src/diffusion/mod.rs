//! Latent diffusion: captions to images with a Stable Diffusion 1.x or 2.x checkpoint.

mod config;
mod layers;
mod resnet;
pub mod schedulers;
pub mod text_encoder;
pub mod unet;
pub mod vae;
