//! The loop on the CPU.

use super::Batch;
use crate::device::{Arena, Plan};
use crate::diffusion::layout::{to_channels_first, to_channels_last};
use crate::diffusion::prepared::Prepared;
use crate::diffusion::sampler::{Generated, Progress, Sample};
use crate::ops::sampler::{all_finite, to_pixels};
use crate::rng::SampleNoise;
use crate::{Error, Result};

#[derive(Default)]
pub struct OnCpu {
    /// `[B, h, w, C]`.
    latents: Vec<f32>,
}

impl OnCpu {
    /// Initial latents of all samples.
    fn start(&mut self, prepared: &Prepared<'_>, sigma: f32, samples: &[Sample<'_>], noise: &mut [SampleNoise]) {
        let (len, (_, _, channels)) = (prepared.latent_len(), prepared.latent_shape());
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

    /// After the first step it takes no memory (a worker thread's scratch apart, in its first product).
    pub fn run(&mut self, batch: Batch<'_, '_>, progress: &mut Progress<'_>) -> Result<()> {
        let Batch { prepared, scheduler, arena, samples, rows } = batch;
        let (device, count, steps) = (&prepared.model.device, samples.len(), scheduler.timesteps().len());
        let (len, (_, _, channels)) = (prepared.latent_len(), prepared.latent_shape());
        let mut noise: Vec<_> = samples.iter().map(|s| SampleNoise::new(prepared.settings.rng, s.seed)).collect();
        self.start(prepared, scheduler.init_noise_sigma(), samples, &mut noise);
        let mut planes = vec![0.0; len];
        let mut output = vec![0.0; count * len];
        let mut input = vec![0.0; count * len];
        let plan = Plan::record(device, |exec| prepared.evaluation(0, count, rows).run(exec, &[], &mut []))?;
        arena.reserve(device, &plan)?;
        scheduler.reset();
        for step in 0..steps {
            if progress(step, steps).is_break() {
                return Err(Error::Interrupted);
            }
            prepared.before_step(arena, samples, step, scheduler.timesteps()[step])?;
            let scale = scheduler.scale_input(step);
            input.iter_mut().zip(&self.latents).for_each(|(x, latent)| *x = latent * scale);
            let evaluation = prepared.evaluation(step, count, rows);
            arena.run(device, &plan, |exec| evaluation.run(exec, &input, &mut output))?;
            // The initial latents are draw 0.
            let stream = 1 + step as u32;
            scheduler.step(step, &output, &mut self.latents, &mut |out| {
                for (noise, out) in noise.iter_mut().zip(out.chunks_exact_mut(len)) {
                    noise.fill_normal(stream, &mut planes);
                    to_channels_last(&planes, channels, out);
                }
            })?;
        }
        Ok(())
    }

    pub fn decode(&mut self, prepared: &Prepared<'_>, arena: &mut Arena, i: usize) -> Result<Generated> {
        let (model, settings) = (prepared.model, &prepared.settings);
        let ((height, width, channels), len) = (prepared.latent_shape(), prepared.latent_len());
        let latents = &self.latents[i * len..][..len];
        let mut planes = vec![0.0; len];
        to_channels_first(latents, channels, &mut planes);
        let factor = model.vae.config().scaling_factor;
        let scaled: Vec<f32> = latents.iter().map(|x| x / factor).collect();
        let mut pixels = vec![0; settings.height * settings.width * model.vae.config().image_channels];
        let finite = arena.run_once(&model.device, |exec| {
            let image = model.vae.forward(exec, exec.input([1, height, width, channels], &scaled)?)?;
            to_pixels(exec, &image, &mut pixels)
        })?;
        Ok(Generated { pixels, finite: finite && all_finite(&planes), latents: planes })
    }
}
