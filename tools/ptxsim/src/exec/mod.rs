//! Runs decoded kernels.
//!
//! [`grid`]: a launch. [`queue`]: its blocks go to all cores. [`block`]: the warps of a block, one running at a time in seeded random order.
//! [`warp`]: registers and divergence. [`step`]: one instruction. [`access`], [`copies`], [`matrices`]: memory. [`barrier`], [`collective`]: what threads do
//! together. [`clock`]: what comes before what.

mod access;
mod barrier;
mod block;
mod clock;
mod collective;
mod conflicts;
mod copies;
mod faults;
mod grid;
mod matrices;
mod queue;
mod shared;
mod step;
mod warp;

pub(crate) use faults::Spot;
pub(crate) use grid::{Geometry, run};
