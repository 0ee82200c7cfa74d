//! From token ids and seeds to images: prompts, initial noise, the denoising loop, decoding.
//!
//! Sample i depends on the model, its prompt, its seed and the settings only: not on the batch it is in, its place there,
//! or the number of threads.

use super::layout::{to_channels_first, to_channels_last};
use super::model::StableDiffusion;
use super::prepared::Prepared;
use super::schedulers::Scheduler;
use crate::device::{Arena, Plan};
use crate::ops::attention::KvRows;
use crate::ops::elementwise::{all_finite, to_pixels};
use crate::rng::{RngKind, SampleNoise};
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
    /// `[B, h, w, C]`.
    latents: Vec<f32>,
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
        Ok(Sampler { prepared, scheduler, max_batch, arena, latents: Vec::new() })
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
        let rows = self.prepared.encode_prompts(&mut self.arena, samples)?;
        let rows = KvRows::new(&self.prepared.model.device, rows)?;
        let rng = self.settings().rng;
        let mut noise: Vec<SampleNoise> = samples.iter().map(|s| SampleNoise::new(rng, s.seed)).collect();
        self.start(samples, &mut noise);
        let device = &self.prepared.model.device;
        device.install(|| self.denoise(samples, &rows, &mut noise, progress))?;
        let evaluations = self.evaluations();
        let decode = |i| match progress(evaluations, evaluations) {
            ControlFlow::Continue(()) => self.decode(i),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        };
        (0..samples.len()).map(decode).collect()
    }

    /// Initial latents of all samples.
    fn start(&mut self, samples: &[Sample<'_>], noise: &mut [SampleNoise]) {
        let (len, (_, _, channels)) = (self.latent_len(), self.prepared.latent_shape());
        let sigma = self.scheduler.init_noise_sigma();
        self.latents.clear();
        self.latents.resize(samples.len() * len, 0.0);
        let mut planes = vec![0.0; len];
        for ((sample, noise), latents) in samples.iter().zip(noise).zip(self.latents.chunks_exact_mut(len)) {
            match sample.latents {
                Some(given) => planes.copy_from_slice(given),
                None => noise.fill_normal(0, &mut planes),
            }
            planes.iter_mut().for_each(|x| *x *= sigma);
            to_channels_last(&planes, channels, latents);
        }
    }

    /// The loop over the steps. After the first step it takes no memory (a worker thread's scratch apart, in its first product).
    fn denoise(
        &mut self,
        samples: &[Sample<'_>],
        rows: &KvRows,
        noise: &mut [SampleNoise],
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let (device, batch, steps) = (&self.prepared.model.device, samples.len(), self.evaluations());
        let (len, (_, _, channels)) = (self.latent_len(), self.prepared.latent_shape());
        let mut planes = vec![0.0; len];
        let mut output = vec![0.0; batch * len];
        let mut input = vec![0.0; batch * len];
        let plan = Plan::record(device, |exec| self.prepared.evaluation(0, batch, rows).run(exec, &[], &mut []))?;
        self.arena.reserve(device, &plan)?;
        self.scheduler.reset();
        for step in 0..steps {
            if progress(step, steps).is_break() {
                return Err(Error::Interrupted);
            }
            self.prepared.before_step(&mut self.arena, samples, self.scheduler.timesteps()[step])?;
            let scale = self.scheduler.scale_input(step);
            input.iter_mut().zip(&self.latents).for_each(|(x, latent)| *x = latent * scale);
            let evaluation = self.prepared.evaluation(step, batch, rows);
            self.arena.run(device, &plan, |exec| evaluation.run(exec, &input, &mut output))?;
            // The initial latents are draw 0.
            let stream = 1 + step as u32;
            self.scheduler.step(step, &output, &mut self.latents, &mut |out| {
                for (noise, out) in noise.iter_mut().zip(out.chunks_exact_mut(len)) {
                    noise.fill_normal(stream, &mut planes);
                    to_channels_last(&planes, channels, out);
                }
            })?;
        }
        Ok(())
    }

    /// Decodes sample `i`; one at a time, because the images between the layers are large.
    fn decode(&mut self, i: usize) -> Result<Generated> {
        let (model, settings) = (self.prepared.model, &self.prepared.settings);
        let ((height, width, channels), len) = (self.prepared.latent_shape(), self.latent_len());
        let latents = &self.latents[i * len..][..len];
        let mut planes = vec![0.0; len];
        to_channels_first(latents, channels, &mut planes);
        let factor = model.vae.config().scaling_factor;
        let scaled: Vec<f32> = latents.iter().map(|x| x / factor).collect();
        let mut pixels = vec![0; settings.height * settings.width * model.vae.config().image_channels];
        let finite = self.arena.run_once(&model.device, |exec| {
            let image = model.vae.forward(exec, exec.input([1, height, width, channels], &scaled)?)?;
            to_pixels(exec, &image, &mut pixels)
        })?;
        Ok(Generated { pixels, finite: finite && all_finite(&planes), latents: planes })
    }
}
