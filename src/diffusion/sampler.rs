//! From token ids and seeds to images: prompts, initial noise, the denoising loop, decoding.
//!
//! Sample i depends on the model, its prompt, its seed and the settings only: not on the batch it is in, its place there,
//! or the number of threads.

use super::denoise::{Batch, Denoiser};
use super::model::StableDiffusion;
use super::prepared::Prepared;
use super::schedulers::Scheduler;
use crate::device::Arena;
use crate::ops::attention::KvRows;
use crate::rng::RngKind;
use crate::{Error, Result};
use std::ops::ControlFlow;

/// Work that need not be repeated. Leaving it out changes no bit of any image; the switches exist so that a test can show that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Savings {
    /// Both halves of guidance are one until the first cross-attention.
    pub shared_halves: bool,
    /// Time embeddings and their projections are computed before the loop, for all steps at once.
    pub time_before_loop: bool,
    /// Text states, keys and values are computed before the loop.
    pub text_before_loop: bool,
    /// The negative prompt is encoded once for all samples of a sampler.
    pub negative_once: bool,
}

impl Default for Savings {
    fn default() -> Savings {
        Savings { shared_halves: true, time_before_loop: true, text_before_loop: true, negative_once: true }
    }
}

impl Savings {
    /// Everything again every time.
    pub const NONE: Savings =
        Savings { shared_halves: false, time_before_loop: false, text_before_loop: false, negative_once: false };
}

/// What all samples of a sampler share.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Height of the images in pixels.
    pub height: usize,
    /// Width of the images in pixels.
    pub width: usize,
    /// Guidance scale. Up to 1 there is no guidance and no unconditional half.
    pub guidance: f32,
    /// Token ids of the negative prompt, padded to the length of all prompts.
    pub negative: Vec<u32>,
    /// Source of the noise.
    pub rng: RngKind,
    /// What is not computed twice.
    pub savings: Savings,
}

/// One image to be made.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Token ids of its prompt, padded.
    pub ids: &'a [u32],
    /// Seed of all its noise.
    pub seed: u64,
    /// Initial latents `[C, h, w]` of unit variance, instead of drawn ones.
    pub latents: Option<&'a [f32]>,
}

/// A finished image.
#[derive(Clone, Debug)]
pub struct Generated {
    /// RGB, 8 bits, `[height, width, 3]`.
    pub pixels: Vec<u8>,
    /// Final latents `[C, h, w]`, before the autoencoder's scaling.
    pub latents: Vec<f32>,
    /// False if a latent, or a pixel before rounding, is infinite or not a number: the image must not be used.
    pub finite: bool,
}

/// Called before each evaluation of the network with its number and their count, and before each decoding with the count
/// twice; a break stops the batch.
pub type Progress<'p> = dyn FnMut(usize, usize) -> ControlFlow<()> + Send + 'p;

/// Makes images in batches, with one model, one scheduler and one group of settings.
pub struct Sampler<'m> {
    prepared: Prepared<'m>,
    scheduler: Box<dyn Scheduler>,
    max_batch: usize,
    arena: Arena,
    denoiser: Denoiser,
    rows: Vec<PromptRows>,
}

/// Which prompt each sample of a batch of one size reads.
struct PromptRows {
    batch: usize,
    rows: KvRows,
}

impl<'m> Sampler<'m> {
    /// Prepares for batches of up to `max_batch` samples: computes what the steps and the negative prompt need.
    ///
    /// # Errors
    /// [`Error::Usage`] for a size or a batch that cannot be made, or a guidance scale that is not a number.
    pub fn new(
        model: &'m StableDiffusion,
        scheduler: Box<dyn Scheduler>,
        settings: Settings,
        max_batch: usize,
    ) -> Result<Sampler<'m>> {
        model.spec.check_size(settings.height, settings.width)?;
        if !settings.guidance.is_finite() {
            return Err(Error::usage(format!("guidance {} is not a finite number", settings.guidance), "use --guidance 7.5"));
        }
        model.spec.check_batch(max_batch)?;
        let mut arena = Arena::new();
        let prepared = Prepared::new(model, settings, scheduler.timesteps(), max_batch, &mut arena)?;
        let denoiser = Denoiser::new(&prepared, scheduler.plan(), max_batch)?;
        Ok(Sampler { prepared, scheduler, max_batch, arena, denoiser, rows: Vec::new() })
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.prepared.settings
    }

    /// Evaluations of the network for each image.
    pub fn evaluations(&self) -> usize {
        self.scheduler.timesteps().len()
    }

    /// Length of [`Sample::latents`].
    pub fn latent_len(&self) -> usize {
        self.prepared.latent_len()
    }

    /// Makes the images of `samples`, at most the largest batch.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if `progress` breaks; [`Error::Shape`] for ids or latents of a wrong length. An image that is
    /// not finite is no error: see [`Generated::finite`].
    pub fn generate(&mut self, samples: &[Sample<'_>], progress: &mut Progress<'_>) -> Result<Vec<Generated>> {
        if samples.is_empty() || samples.len() > self.max_batch {
            return Err(Error::shape("sampler", format!("{} samples in a batch of 1 to {}", samples.len(), self.max_batch)));
        }
        self.prepared.check(samples)?;
        self.prepared.encode_prompts(&mut self.arena, samples)?;
        let known = self.rows.iter().position(|rows| rows.batch == samples.len());
        let at = known.unwrap_or(self.rows.len());
        if known.is_none() {
            self.rows.push(PromptRows { batch: samples.len(), rows: self.prepared.prompt_rows(samples.len())? });
        }
        let rows = &self.rows[at].rows;
        let (evaluations, device) = (self.evaluations(), &self.prepared.model.device);
        let batch =
            Batch { prepared: &mut self.prepared, scheduler: &mut *self.scheduler, arena: &mut self.arena, samples, rows };
        device.install(|| self.denoiser.run(batch, progress))?;
        let decode = |i| match progress(evaluations, evaluations) {
            ControlFlow::Continue(()) => self.denoiser.decode(&self.prepared, &mut self.arena, i),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        };
        (0..samples.len()).map(decode).collect()
    }
}
