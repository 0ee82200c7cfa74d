//! From token ids and seeds to images: prompts, initial noise, the denoising loop, decoding.
//!
//! Sample i depends on the model, its prompt, its seed and the settings only: not on the batch it is in, its place there,
//! or the number of threads.

use super::layout::{to_bytes, to_channels_first, to_channels_last};
use super::model::StableDiffusion;
use super::schedulers::Scheduler;
use super::unet::{Conditions, Halves, TextState, TimeState};
use crate::device::{Arena, Device, Exec, Plan};
use crate::ops::elementwise::guidance;
use crate::rng::{RngKind, SampleNoise};
use crate::{Error, Result};
use std::ops::{ControlFlow, Range};

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

/// Why an image must not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A latent or a pixel is not a finite number.
    NotFinite,
    /// Every pixel is black.
    Black,
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Flaw::NotFinite => "values that are not finite",
            Flaw::Black => "the image is black",
        })
    }
}

/// A finished image.
#[derive(Clone, Debug)]
pub struct Generated {
    /// RGB, 8 bits, `[height, width, 3]`.
    pub pixels: Vec<u8>,
    /// Final latents `[C, h, w]`, before the autoencoder's scaling.
    pub latents: Vec<f32>,
    /// Set if the image is not good.
    pub flaw: Option<Flaw>,
}

/// Called before each evaluation of the network with its number and their count, and before each decoding with the count
/// twice; a break stops the batch.
pub type Progress<'p> = dyn FnMut(usize, usize) -> ControlFlow<()> + Send + 'p;

/// Makes images in batches, with one model, one scheduler and one group of settings.
pub struct Sampler<'m> {
    model: &'m StableDiffusion,
    scheduler: Box<dyn Scheduler>,
    settings: Settings,
    max_batch: usize,
    arena: Arena,
    time: TimeState,
    /// The negative prompt first, if there is guidance, then the prompts of the batch.
    text: TextState,
    /// `[B, h, w, C]`.
    latents: Vec<f32>,
}

impl<'m> Sampler<'m> {
    /// Prepares for batches of up to `max_batch` samples: computes what the steps and the negative prompt need.
    ///
    /// # Errors
    /// [`Error::Usage`] for a size that the model cannot make or a guidance scale that is not a number.
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
        let max_batch = max_batch.max(1);
        let (device, unet, length) = (&model.device, &model.unet, settings.negative.len());
        // Room for a negative prompt per sample only where it is not shared.
        let prompts = if settings.savings.negative_once { 1 + max_batch } else { 2 * max_batch };
        let steps = scheduler.timesteps().len();
        let text = TextState::zeros(device, unet, prompts, length);
        let time = unet.time_state(device, if settings.savings.time_before_loop { steps } else { 1 });
        let mut sampler = Sampler { model, scheduler, max_batch, arena: Arena::new(), time, text, latents: Vec::new(), settings };
        if sampler.settings.savings.time_before_loop {
            sampler.encode_time(0..steps)?;
        }
        if sampler.guided() && sampler.settings.savings.negative_once {
            let negative = sampler.settings.negative.clone();
            sampler.encode_text(&negative, 0)?;
        }
        Ok(sampler)
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Evaluations of the network for each image.
    pub fn evaluations(&self) -> usize {
        self.scheduler.timesteps().len()
    }

    /// Length of `Sample::latents`.
    pub fn latent_len(&self) -> usize {
        let (height, width, channels) = self.latent_shape();
        height * width * channels
    }

    /// Height, width and channels of the latents.
    fn latent_shape(&self) -> (usize, usize, usize) {
        let factor = self.model.vae.config().factor();
        (self.settings.height / factor, self.settings.width / factor, self.model.unet.config().in_channels)
    }

    /// With guidance each step evaluates the network without and with the prompt. Distilled models that are told the scale
    /// need only the second.
    fn guided(&self) -> bool {
        self.settings.guidance > 1.0 && self.model.unet.config().guidance_embedding.is_none()
    }

    /// Makes the images of `samples`, at most the largest batch.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if `progress` breaks; [`Error::Shape`] for ids or latents of a wrong length. An image that is
    /// not good is no error: see [`Generated::flaw`].
    pub fn generate(&mut self, samples: &[Sample<'_>], progress: &mut Progress<'_>) -> Result<Vec<Generated>> {
        self.check(samples)?;
        let rows = self.encode_prompts(samples)?;
        let mut noise: Vec<SampleNoise> = samples.iter().map(|s| SampleNoise::new(self.settings.rng, s.seed)).collect();
        self.start(samples, &mut noise);
        self.denoise(samples, &rows, &mut noise, progress)?;
        let evaluations = self.evaluations();
        let decode = |i| match progress(evaluations, evaluations) {
            ControlFlow::Continue(()) => self.decode(i),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        };
        (0..samples.len()).map(decode).collect()
    }

    fn check(&self, samples: &[Sample<'_>]) -> Result<()> {
        let (length, latent_len) = (self.settings.negative.len(), self.latent_len());
        if samples.is_empty() || samples.len() > self.max_batch {
            return Err(Error::shape("sampler", format!("{} samples in a batch of 1 to {}", samples.len(), self.max_batch)));
        }
        for (i, sample) in samples.iter().enumerate() {
            if sample.ids.len() != length {
                let message = format!("sample {i} has {} token ids, the negative prompt {length}", sample.ids.len());
                return Err(Error::shape("sampler", message));
            }
            if let Some(latents) = sample.latents.filter(|latents| latents.len() != latent_len) {
                return Err(Error::shape("sampler", format!("sample {i} has {} latents of {latent_len}", latents.len())));
            }
        }
        Ok(())
    }

    /// Encodes the prompts of a batch; returns for each sample of the (doubled) batch its row in the text state.
    fn encode_prompts(&mut self, samples: &[Sample<'_>]) -> Result<Vec<usize>> {
        let batch = samples.len();
        let mut ids: Vec<u32> = Vec::new();
        let (first, mut rows): (usize, Vec<usize>) = match (self.guided(), self.settings.savings.negative_once) {
            (false, _) => (0, Vec::new()),
            (true, true) => (1, vec![0; batch]),
            (true, false) => {
                samples.iter().for_each(|_| ids.extend(&self.settings.negative));
                (0, (0..batch).collect())
            }
        };
        let start = first + ids.len() / self.settings.negative.len().max(1);
        rows.extend(start..start + batch);
        samples.iter().for_each(|sample| ids.extend(sample.ids));
        self.encode_text(&ids, first)?;
        Ok(rows)
    }

    /// Fills the text state from row `first` on.
    fn encode_text(&mut self, ids: &[u32], first: usize) -> Result<()> {
        let (model, text, length) = (self.model, &mut self.text, self.settings.negative.len());
        run_once(&model.device, &mut self.arena, |exec| {
            let hidden = model.text.forward(exec, ids, length)?;
            model.unet.encode_text(exec, &hidden, first, text)
        })
    }

    /// Fills the time state with the given steps.
    fn encode_time(&mut self, steps: Range<usize>) -> Result<()> {
        let (model, time, timesteps) = (self.model, &mut self.time, &self.scheduler.timesteps()[steps]);
        let guidance = self.settings.guidance;
        run_once(&model.device, &mut self.arena, |exec| model.unet.encode_time(exec, timesteps, guidance, time))
    }

    /// Initial latents of all samples.
    fn start(&mut self, samples: &[Sample<'_>], noise: &mut [SampleNoise]) {
        let (len, channels, sigma) = (self.latent_len(), self.latent_shape().2, self.scheduler.init_noise_sigma());
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

    /// The loop over the steps. After the first step it takes no memory.
    fn denoise(
        &mut self,
        samples: &[Sample<'_>],
        rows: &[usize],
        noise: &mut [SampleNoise],
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let (len, channels, steps) = (self.latent_len(), self.latent_shape().2, self.evaluations());
        let mut planes = vec![0.0; len];
        let mut output = vec![0.0; self.latents.len()];
        let mut input = vec![0.0; self.latents.len()];
        let plan = Plan::record(&self.model.device, |exec| self.evaluation(0, rows).run(exec, &[], &mut []))?;
        self.arena.reserve(&plan);
        self.scheduler.reset();
        for step in 0..steps {
            if progress(step, steps).is_break() {
                return Err(Error::Interrupted);
            }
            if !self.settings.savings.time_before_loop {
                self.encode_time(step..step + 1)?;
            }
            if !self.settings.savings.text_before_loop {
                self.encode_prompts(samples)?;
            }
            let scale = self.scheduler.scale_input(step);
            input.iter_mut().zip(&self.latents).for_each(|(x, latent)| *x = latent * scale);
            let mut arena = std::mem::take(&mut self.arena);
            let evaluation = self.evaluation(step, rows);
            let result = arena.run(&self.model.device, &plan, |exec| evaluation.run(exec, &input, &mut output));
            self.arena = arena;
            result?;
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

    /// What one step computes.
    fn evaluation<'t>(&'t self, step: usize, rows: &'t [usize]) -> Evaluation<'t> {
        let savings = &self.settings.savings;
        let halves = match (self.guided(), savings.shared_halves) {
            (false, _) => Halves::Prompts,
            (true, true) => Halves::Both,
            (true, false) => Halves::BothSeparately,
        };
        let step = if savings.time_before_loop { step } else { 0 };
        let conditions = Conditions { time: &self.time, step, text: &self.text, text_rows: rows, halves };
        let batch = self.latents.len() / self.latent_len();
        Evaluation { model: self.model, conditions, guidance: self.settings.guidance, batch, shape: self.latent_shape() }
    }

    /// Decodes sample `i`; one at a time, because the images between the layers are large.
    fn decode(&mut self, i: usize) -> Result<Generated> {
        let (height, width, channels) = self.latent_shape();
        let len = self.latent_len();
        let latents = &self.latents[i * len..][..len];
        let mut planes = vec![0.0; len];
        to_channels_first(latents, channels, &mut planes);
        let factor = self.model.vae.config().scaling_factor;
        let scaled: Vec<f32> = latents.iter().map(|x| x / factor).collect();
        let mut image = vec![0.0; self.settings.height * self.settings.width * self.model.vae.config().image_channels];
        let vae = &self.model.vae;
        run_once(&self.model.device, &mut self.arena, |exec| {
            let latents = exec.input([1, height, width, channels], &scaled)?;
            vae.forward(exec, latents)?.read_f32(&mut image);
            Ok(())
        })?;
        let pixels = to_bytes(&image);
        let flaw = if !planes.iter().chain(&image).all(|x| x.is_finite()) {
            Some(Flaw::NotFinite)
        } else {
            pixels.iter().all(|&byte| byte == 0).then_some(Flaw::Black)
        };
        Ok(Generated { pixels, latents: planes, flaw })
    }
}

/// One evaluation of the network with its guidance.
struct Evaluation<'t> {
    model: &'t StableDiffusion,
    conditions: Conditions<'t>,
    guidance: f32,
    batch: usize,
    /// Height, width, channels.
    shape: (usize, usize, usize),
}

impl Evaluation<'_> {
    /// input and output `[B, h, w, C]`.
    fn run(&self, exec: &Exec<'_>, input: &[f32], output: &mut [f32]) -> Result<()> {
        let (height, width, channels) = self.shape;
        let latents = exec.input([self.batch, height, width, channels], input)?;
        let mut prediction = self.model.unet.forward(exec, latents, &self.conditions)?;
        if self.conditions.halves != Halves::Prompts {
            prediction = guidance(exec, &prediction, self.guidance)?;
        }
        prediction.read_f32(output);
        Ok(())
    }
}

/// Records a pass and runs it.
fn run_once<R: Send>(device: &Device, arena: &mut Arena, mut pass: impl FnMut(&Exec<'_>) -> Result<R> + Send) -> Result<R> {
    let plan = Plan::record(device, |exec| pass(exec).map(drop))?;
    arena.run(device, &plan, pass)
}
