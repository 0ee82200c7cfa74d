//! Euler's method on dx/dsigma: Karras et al. (2022), algorithm 2 without churn. Latents have variance 1 + sigma^2.

use super::config::{Defaults, Prediction, SchedulerConfig};
use super::noise_schedule::{NoiseSchedule, ZeroSnr};
use super::plan::{Plan, StepPlan};
use super::sigma_grid::SigmaGrid;
use crate::Result;

pub(super) fn plan(config: &SchedulerConfig, steps: usize) -> Result<Plan> {
    let keys = config.keys(Defaults::LINSPACE);
    keys.refuse_set("use_exponential_sigmas")?;
    keys.refuse_set("use_beta_sigmas")?;
    if keys.str("timestep_type", "discrete")? != "discrete" {
        return Err(keys.unsupported("timestep_type", keys.str("timestep_type", "")?, "discrete"));
    }
    let prediction = keys.prediction(true)?;
    let schedule = NoiseSchedule::new(&keys, ZeroSnr::Finite)?;
    let grid = SigmaGrid::euler(&keys, &schedule, steps)?;
    let step = |i: usize| {
        let (x, m) = derivative(prediction, grid.sigma(i));
        let dt = grid.sigma(i + 1) - grid.sigma(i);
        StepPlan::direct(1.0 + dt * x, dt * m)
    };
    Ok(Plan {
        input_scale: grid.input_scale(),
        steps: (0..grid.timesteps.len()).map(step).collect(),
        init_noise_sigma: grid.init_noise_sigma(keys.spacing()?),
        timesteps: grid.timesteps,
    })
}

/// dx/dsigma = (x - x0) / sigma as (weight of the latent, weight of the model's output).
pub(super) fn derivative(prediction: Prediction, sigma: f64) -> (f64, f64) {
    let variance = sigma.powi(2) + 1.0;
    match prediction {
        Prediction::Epsilon => (0.0, 1.0),
        Prediction::Sample => (1.0 / sigma, -1.0 / sigma),
        Prediction::V => (sigma / variance, 1.0 / variance.sqrt()),
    }
}
