//! TODO module diffusion
