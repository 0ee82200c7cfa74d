//! CLIP: pictures and sentences as unit vectors of one space (Radford et al. 2021), from transformers' `CLIPModel` folders.
//!
//! [`Clip`] is the whole of it: pixels or text in, features out. [`ClipModel`] is the network alone, and [`preprocess`] and
//! [`resize`] make its input. Its [`text`] model is also the text encoder of Stable Diffusion.

mod config;
mod features;
pub mod layers;
mod model;
pub mod preprocess;
pub mod resize;
pub mod text;
pub mod vision;

pub use config::{ClipConfig, EndOfText};
pub use features::Clip;
pub use model::ClipModel;
