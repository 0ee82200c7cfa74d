//! Multistep sampling of latent consistency models: Luo et al., "Latent consistency models" (2023), algorithm 3.
//!
//! Timesteps are some of the `original_inference_steps` that the model was distilled on. Each evaluation gives a
//! denoised latent c_skip x + c_out x0, which is noised again to the next timestep; the last one is the result.

use super::config::{Defaults, Keys, SchedulerConfig};
use super::noise_schedule::{NoiseSchedule, ZeroSnr};
use super::plan::{Plan, StepPlan};
use crate::{Error, Result};

/// Standard deviation of the data in the boundary condition of consistency models.
const SIGMA_DATA: f64 = 0.5;

pub(super) fn plan(config: &SchedulerConfig, steps: usize) -> Result<Plan> {
    let keys = config.keys(Defaults::LCM);
    keys.refuse_set("thresholding")?;
    keys.refuse_set("clip_sample")?;
    let prediction = keys.prediction(true)?;
    let scaling = keys.f64("timestep_scaling")?.unwrap_or(10.0);
    let schedule = NoiseSchedule::new(&keys, ZeroSnr::Exact)?;
    let timesteps = distilled_timesteps(&keys, schedule.len(), steps)?;
    let step = |(i, &t): (usize, &i64)| {
        let alpha_bar = schedule.alpha(t)?;
        let (x, m) = prediction.x0(alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
        let scaled = t as f64 * scaling;
        let c_skip = SIGMA_DATA.powi(2) / (scaled.powi(2) + SIGMA_DATA.powi(2));
        let c_out = scaled / (scaled.powi(2) + SIGMA_DATA.powi(2)).sqrt();
        let Some(&next) = timesteps.get(i + 1) else {
            return Ok(StepPlan::direct(c_skip + c_out * x, c_out * m));
        };
        let alpha_next = schedule.alpha(next)?;
        let noise = (1.0 - alpha_next).sqrt() as f32;
        let alpha = alpha_next.sqrt();
        Ok(StepPlan { noise, ..StepPlan::direct(alpha * (c_skip + c_out * x), alpha * c_out * m) })
    };
    let plans = timesteps.iter().enumerate().map(step).collect::<Result<Vec<_>>>()?;
    Ok(Plan::unscaled(timesteps.iter().map(|&t| t as f32).collect(), plans))
}

/// `steps` of the distillation's timesteps k - 1, 2k - 1, ..., evenly spaced by index and descending.
fn distilled_timesteps(keys: &Keys, train: usize, steps: usize) -> Result<Vec<i64>> {
    const KEY: &str = "original_inference_steps";
    let original = keys.int(KEY, 50)?;
    let original = usize::try_from(original).ok().filter(|n| (1..=train).contains(n));
    let original = original.ok_or_else(|| keys.error(KEY, format!("must be from 1 to `num_train_timesteps`, {train}")))?;
    if steps > original {
        return Err(Error::usage(
            format!("lcm was asked for {steps} steps, but the model was distilled on {original}"),
            format!("use --steps {original} or fewer"),
        ));
    }
    let stride = train / original;
    let spacing = original as f64 / steps as f64;
    Ok((0..steps).map(|i| ((original - (i as f64 * spacing) as usize) * stride) as i64 - 1).collect())
}
