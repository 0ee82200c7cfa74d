//! The first stage: captions -> images -> shards of image-text pairs.
//!
//! Every image is a pure function of (model, caption, seed, [`Sampling`]): batch size, worker split, order and restarts change
//! nothing. A run can be stopped at any moment and goes on where it was.

mod events;
mod latents;
mod plan;
mod settings;

pub use events::{Event, Events, Summary};
pub use plan::{DryRun, dry_run};
pub use settings::{Output, Sampling, Selection, Settings};

use crate::corpus::Corpus;
use crate::device::{Device, Precision};
use crate::diffusion::{Noise, Request, StableDiffusion};
use crate::shards::{Outcome, RunManifest, Sample, Shard, ShardSettings, ShardWriter, Worker, encode_image, image_fault};
use crate::{Error, Result};
use latents::{InitLatents, SavedLatents};
use plan::{Job, Work};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
