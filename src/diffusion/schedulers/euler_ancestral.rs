//! Ancestral sampling with Euler steps: each goes below its target noise level, and fresh noise makes up the rest.
//!
//! sigma_up^2 = sigma'^2 (1 - sigma'^2 / sigma^2) and sigma_down = sigma'^2 / sigma, so that their squares add up to
//! sigma'^2, as in k-diffusion (K. Crowson). The last step, to sigma 0, draws no noise.

use super::config::{Defaults, SchedulerConfig};
use super::euler::derivative;
use super::noise_schedule::{NoiseSchedule, ZeroSnr};
use super::plan::{Plan, StepPlan};
use super::sigma_grid::SigmaGrid;
use crate::Result;

pub(super) fn plan(config: &SchedulerConfig, steps: usize) -> Result<Plan> {
    let keys = config.keys(Defaults::LINSPACE);
    let prediction = keys.prediction(false)?;
    let schedule = NoiseSchedule::new(&keys, ZeroSnr::Finite)?;
    let grid = SigmaGrid::euler_ancestral(&keys, &schedule, steps)?;
    let step = |i: usize| {
        let (from, to) = (grid.sigma(i), grid.sigma(i + 1));
        let (up, down) = (to * (1.0 - (to / from).powi(2)).sqrt(), to.powi(2) / from);
        let (x, m) = derivative(prediction, from);
        StepPlan { noise: up as f32, ..StepPlan::direct(1.0 + (down - from) * x, (down - from) * m) }
    };
    Ok(Plan {
        input_scale: grid.input_scale(),
        steps: (0..grid.timesteps.len()).map(step).collect(),
        init_noise_sigma: grid.init_noise_sigma(keys.spacing()?),
        timesteps: grid.timesteps,
    })
}
