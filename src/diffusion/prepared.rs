//! What is computed before the denoising loop, and one evaluation of the network with it.

use super::denoise::Network;
use super::model::StableDiffusion;
use super::sampler::{Sample, Settings};
use super::unet::{Conditions, Halves, TextState, TimeState};
use crate::device::{Arena, Device, Exec, Tensor};
use crate::ops::attention::KvRows;
use crate::ops::elementwise::guidance;
use crate::ops::sampler::Guidance;
use crate::{Error, Result};

/// Settings with the time biases and text keys and values that belong to them.
pub(super) struct Prepared<'m> {
    pub model: &'m StableDiffusion,
    pub settings: Settings,
    time: TimeState,
    /// On a GPU, where all steps are one captured evaluation: the row of `time` for the step under way.
    current: Option<TimeState>,
    /// The negative prompt first, if there is guidance, then the prompts of the batch.
    text: TextState,
}

impl<'m> Prepared<'m> {
    /// Computes what all batches of up to `max_batch` samples share.
    pub fn new(
        model: &'m StableDiffusion,
        settings: Settings,
        timesteps: &[f32],
        max_batch: usize,
        arena: &mut Arena,
    ) -> Result<Prepared<'m>> {
        let savings = settings.savings;
        // Room for a negative prompt per sample only where it is not shared; for all steps only if they are kept.
        let prompts = if savings.negative_once { 1 + max_batch } else { 2 * max_batch };
        let text = TextState::zeros(&model.device, &model.unet, prompts, settings.negative.len())?;
        let time = model.unet.time_state(&model.device, if savings.time_before_loop { timesteps.len() } else { 1 })?;
        let current = match &model.device {
            Device::Cpu(_) => None,
            Device::Gpu(_) => Some(model.unet.time_state(&model.device, 1)?),
        };
        let mut prepared = Prepared { model, settings, time, current, text };
        if savings.time_before_loop {
            prepared.encode_time(arena, timesteps)?;
        }
        if prepared.guided() && savings.negative_once {
            let negative = prepared.settings.negative.clone();
            prepared.encode_text(arena, &negative, 0)?;
        }
        Ok(prepared)
    }

    /// Height, width and channels of the latents.
    pub fn latent_shape(&self) -> (usize, usize, usize) {
        let factor = self.model.vae.config().factor();
        (self.settings.height / factor, self.settings.width / factor, self.model.unet.config().in_channels)
    }

    /// Elements of the latents of one sample.
    pub fn latent_len(&self) -> usize {
        let (height, width, channels) = self.latent_shape();
        height * width * channels
    }

    /// With guidance each step evaluates the network without and with the prompt. Distilled models that are told the scale
    /// need only the second.
    fn guided(&self) -> bool {
        self.settings.guidance > 1.0 && self.model.unet.config().guidance_embedding.is_none()
    }

    /// Fills the time state from its first row on.
    fn encode_time(&mut self, arena: &mut Arena, timesteps: &[f32]) -> Result<()> {
        let (model, time, guidance) = (self.model, &mut self.time, self.settings.guidance);
        arena.run_once(&model.device, |exec| model.unet.encode_time(exec, timesteps, guidance, time))
    }

    /// Fills the text state from row `first` on.
    fn encode_text(&mut self, arena: &mut Arena, ids: &[u32], first: usize) -> Result<()> {
        let (model, text, length) = (self.model, &mut self.text, self.settings.negative.len());
        arena.run_once(&model.device, |exec| {
            let hidden = model.text.forward(exec, ids, length)?;
            model.unet.encode_text(exec, &hidden, first, text)
        })
    }

    /// For each sample of a (doubled) batch, the row of its prompt in the text state.
    pub fn prompt_rows(&self, batch: usize) -> Result<KvRows> {
        let (negative, first) = match (self.guided(), self.settings.savings.negative_once) {
            (false, _) => (Vec::new(), 0),
            (true, true) => (vec![0; batch], 1),
            (true, false) => ((0..batch).collect(), batch),
        };
        KvRows::new(&self.model.device, negative.into_iter().chain(first..first + batch).collect())
    }

    /// Encodes the prompts of a batch, and its negative prompts if they are not kept.
    pub fn encode_prompts(&mut self, arena: &mut Arena, samples: &[Sample<'_>]) -> Result<()> {
        let mut ids: Vec<u32> = Vec::new();
        if self.guided() && !self.settings.savings.negative_once {
            samples.iter().for_each(|_| ids.extend(&self.settings.negative));
        }
        samples.iter().for_each(|sample| ids.extend(sample.ids));
        let kept = usize::from(self.guided() && self.settings.savings.negative_once);
        self.encode_text(arena, &ids, kept)
    }

    /// Computes again at `step` what [`super::Savings`] says is not kept, and selects the step's time on a GPU.
    pub fn before_step(&mut self, arena: &mut Arena, samples: &[Sample<'_>], step: usize, timestep: f32) -> Result<()> {
        if !self.settings.savings.time_before_loop {
            self.encode_time(arena, &[timestep])?;
        }
        let row = self.row(step);
        if let Some(current) = &mut self.current {
            current.copy_step(&self.time, row)?;
        }
        if !self.settings.savings.text_before_loop {
            self.encode_prompts(arena, samples)?;
        }
        Ok(())
    }

    /// Where the time biases of a step lie in `time`.
    fn row(&self, step: usize) -> usize {
        if self.settings.savings.time_before_loop { step } else { 0 }
    }

    /// How the halves of a prediction become one.
    pub fn guidance(&self) -> Guidance {
        if self.guided() { Guidance::Scale(self.settings.guidance) } else { Guidance::None }
    }

    /// What step `step` computes for a batch; on a GPU, the step that was selected last.
    pub fn evaluation<'t>(&'t self, step: usize, batch: usize, rows: &'t KvRows) -> Evaluation<'t> {
        let savings = &self.settings.savings;
        let halves = match (self.guided(), savings.shared_halves) {
            (false, _) => Halves::Prompts,
            (true, true) => Halves::Both,
            (true, false) => Halves::BothSeparately,
        };
        let (time, step) = self.current.as_ref().map_or((&self.time, self.row(step)), |current| (current, 0));
        let conditions = Conditions { time, step, text: &self.text, text_rows: rows, halves };
        Evaluation { model: self.model, conditions, guidance: self.settings.guidance, batch, shape: self.latent_shape() }
    }

    /// Checks that samples have the right sizes for these settings.
    pub fn check(&self, samples: &[Sample<'_>]) -> Result<()> {
        let (length, latent_len) = (self.settings.negative.len(), self.latent_len());
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
}

/// One evaluation of the network with its guidance.
pub(super) struct Evaluation<'t> {
    model: &'t StableDiffusion,
    conditions: Conditions<'t>,
    guidance: f32,
    batch: usize,
    /// Height, width, channels.
    shape: (usize, usize, usize),
}

impl Evaluation<'_> {
    /// input and output `[B, h, w, C]`.
    pub fn run(&self, exec: &Exec<'_>, input: &[f32], output: &mut [f32]) -> Result<()> {
        let (height, width, channels) = self.shape;
        let latents = exec.input([self.batch, height, width, channels], input)?;
        let mut prediction = self.predict(exec, &latents)?;
        drop(latents);
        if self.conditions.halves != Halves::Prompts {
            prediction = guidance(exec, &prediction, self.guidance)?;
        }
        prediction.read_f32(output)
    }
}

impl Network for Evaluation<'_> {
    fn predict<'e>(&self, exec: &'e Exec<'_>, input: &Tensor<'_>) -> Result<Tensor<'e>> {
        self.model.unet.forward(exec, input, &self.conditions)
    }

    fn decode<'e>(&self, exec: &'e Exec<'_>, scaled: Tensor<'e>) -> Result<Tensor<'e>> {
        self.model.vae.forward(exec, scaled)
    }
}
