//! What all networks are made with: configuration files that are read to the last key, and layers asked for by name.

mod build;
mod config;

pub(crate) use build::{Build, Parts};
pub(crate) use config::{ConfigFile, MAX_WIDTH};
