//! CLIP: pictures and sentences as unit vectors of one space (Radford et al. 2021), from transformers' `CLIPModel` folders.
//!
//! [`Clip`] is the whole of it: pixels or text in, features out. [`ClipModel`] is the network alone, and [`preprocess`] and
//! [`resize`] make its input.

mod config;
mod features;
mod model;
pub mod preprocess;
pub mod resize;
pub mod vision;

pub use config::{ClipConfig, EndOfText};
pub use features::Clip;
pub use model::ClipModel;
