//! What to generate, as the caller says it.

use crate::corpus::CorpusOptions;
use crate::diffusion::schedulers::SchedulerName;
use crate::rng::RngKind;
use crate::shards::{ImageFormat, MAX_PIXELS};
use crate::{Error, Result};
use std::path::PathBuf;
use std::str::FromStr;

/// A whole generation run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Model folder, or an id in the Hugging Face cache.
    pub model: String,
    /// Caption file.
    pub captions: PathBuf,
    /// How to read it.
    pub corpus: CorpusOptions,
    /// Which captions.
    pub selection: Selection,
    /// What decides each image.
    pub sampling: Sampling,
    /// Where the pairs go.
    pub output: Output,
    /// Starting points to use instead of drawn noise: `latents` [selected captions, C, h, w].
    pub init_latents: Option<PathBuf>,
    /// Images made at once.
    pub batch: Batch,
    /// File for a trace of the run's stages, in Chrome's trace event format.
    pub trace: Option<PathBuf>,
}

/// How many images are made at once: it changes speed and memory, never an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Batch {
    /// [`Batch::Auto`] on a card; one on a CPU and on the simulator.
    #[default]
    Usual,
    /// As many as fit into the memory that is free, up to 64.
    Auto,
    /// This many.
    Images(usize),
}

impl FromStr for Batch {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Batch, String> {
        match text {
            "auto" => Ok(Batch::Auto),
            _ => text.parse().map(Batch::Images).map_err(|_| format!("`{text}` is neither a number nor auto")),
        }
    }
}

/// Which captions, and which of them are this worker's.
#[derive(Clone, Copy, Debug)]
pub struct Selection {
    /// Captions to skip at the start of the corpus.
    pub offset: u64,
    /// Captions to use at most.
    pub limit: Option<u64>,
    /// This worker makes the shards whose number leaves `worker_index` when divided by `worker_count`.
    pub worker_index: u32,
    /// Workers that share the run.
    pub worker_count: u32,
}

/// What decides an image, beside model, caption and seed.
#[derive(Clone, Debug)]
pub struct Sampling {
    /// Denoising steps.
    pub steps: usize,
    /// Scale of classifier-free guidance; at most 1 turns it off.
    pub guidance: f32,
    /// Negative prompt.
    pub negative: String,
    /// Sampler; auto takes the model's own.
    pub scheduler: SchedulerName,
    /// Pixels; the size that the model was trained at if not given.
    pub height: Option<usize>,
    /// Pixels, likewise.
    pub width: Option<usize>,
    /// Caption i of the corpus has seed `seed + i`.
    pub seed: u64,
    /// Source of the noise.
    pub rng: RngKind,
}

/// Where the pairs go, and in which form.
#[derive(Clone, Debug)]
pub struct Output {
    /// Folder of the shards.
    pub folder: PathBuf,
    /// Pairs in a shard.
    pub shard_size: usize,
    /// Image format.
    pub format: ImageFormat,
    /// JPEG quality, 1 to 100.
    pub quality: u8,
    /// File for the final latents.
    pub save_latents: Option<PathBuf>,
}

impl Settings {
    /// Refuses settings that cannot work, whatever the model.
    pub fn check(&self) -> Result<()> {
        let Settings { selection, sampling, output, .. } = self;
        let one_or_more = [("--shard-size", output.shard_size), ("--steps", sampling.steps)];
        if let Some((flag, _)) = one_or_more.iter().find(|(_, value)| *value == 0) {
            return Err(Error::usage(format!("{flag} must be at least 1"), ""));
        }
        if !sampling.guidance.is_finite() {
            return Err(Error::usage(format!("--guidance {} is not a number to scale by", sampling.guidance), "7.5 is usual"));
        }
        if selection.worker_index >= selection.worker_count {
            return Err(Error::usage(
                format!("--worker-index {} with --worker-count {}", selection.worker_index, selection.worker_count),
                "workers count from 0: use an index below the count",
            ));
        }
        if output.save_latents.is_some() && selection.worker_count > 1 {
            return Err(Error::usage("--save-latents writes one file, which several workers cannot share", "use one worker"));
        }
        Ok(())
    }

    /// Height and width of the images, for a model trained at `default` pixels a side.
    pub(super) fn size(&self, default: usize) -> Result<(usize, usize)> {
        let [height, width] = [self.sampling.height, self.sampling.width].map(|side| side.unwrap_or(default));
        if height.saturating_mul(width) as u64 > MAX_PIXELS {
            return Err(Error::usage(
                format!("--height {height} times --width {width} is more than {MAX_PIXELS} pixels"),
                "readers of shards refuse larger images",
            ));
        }
        Ok((height, width))
    }
}
