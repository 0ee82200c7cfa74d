//! Stable Diffusion: schedulers.

pub mod schedulers;
