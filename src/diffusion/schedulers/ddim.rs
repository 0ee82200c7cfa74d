//! DDIM with eta 0: Song, Meng and Ermon, "Denoising diffusion implicit models" (2021), equation 12.
//!
//! x' = sqrt(a') x0 + sqrt(1 - a') epsilon, where a' is alpha_bar one stride of timesteps earlier.

use super::config::{Defaults, SchedulerConfig};
use super::noise_schedule::{NoiseSchedule, ZeroSnr, spaced_timesteps};
use super::plan::{Plan, StepPlan};
use crate::Result;

pub(super) fn plan(config: &SchedulerConfig, steps: usize) -> Result<Plan> {
    let keys = config.keys(Defaults::LEADING);
    keys.refuse_set("thresholding")?;
    // The class clips by default; from_json sets the key to false, as Stable Diffusion needs.
    if keys.bool("clip_sample", true)? {
        return Err(keys.unsupported("clip_sample", "true", "false"));
    }
    let prediction = keys.prediction(true)?;
    let schedule = NoiseSchedule::new(&keys, ZeroSnr::Exact)?;
    let stride = (schedule.len() / steps) as i64;
    let final_alpha = if keys.bool("set_alpha_to_one", true)? { 1.0 } else { schedule.alpha(0)? };
    let timesteps = spaced_timesteps(keys.spacing()?, schedule.len(), steps, keys.steps_offset()?);
    let step = |&t: &i64| {
        let (alpha, sigma) = roots(schedule.alpha(t)?);
        let (alpha_next, sigma_next) = roots(if t >= stride { schedule.alpha(t - stride)? } else { final_alpha });
        let (x0, epsilon) = (prediction.x0(alpha, sigma), prediction.epsilon(alpha, sigma));
        Ok(StepPlan::direct(alpha_next * x0.0 + sigma_next * epsilon.0, alpha_next * x0.1 + sigma_next * epsilon.1))
    };
    let plans = timesteps.iter().map(step).collect::<Result<Vec<_>>>()?;
    Ok(Plan::unscaled(timesteps.iter().map(|&t| t as f32).collect(), plans))
}

/// alpha_bar -> (sqrt(alpha_bar), sqrt(1 - alpha_bar)).
fn roots(alpha_bar: f64) -> (f64, f64) {
    (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt())
}
