//! TODO module rng
