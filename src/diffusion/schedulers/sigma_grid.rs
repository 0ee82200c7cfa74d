//! The noise levels sigma = sqrt((1 - alpha_bar) / alpha_bar) at which a sigma-based scheduler evaluates the model.

use super::config::{Keys, Spacing};
use super::noise_schedule::{NoiseSchedule, linspace, solver_timesteps, spaced_timesteps};
use crate::Result;

/// Timesteps of the model and their noise levels, one of each for an evaluation, and one sigma more: where it ends.
#[derive(Clone, Debug)]
pub(super) struct SigmaGrid {
    pub timesteps: Vec<f32>,
    pub sigmas: Vec<f32>,
}

impl SigmaGrid {
    /// Each timestep with the sigma of the training at it, then `end`.
    fn at(timesteps: Vec<f32>, trained: &[f32], end: f32) -> SigmaGrid {
        let sigmas = timesteps.iter().map(|&t| interpolate(trained, f64::from(t)) as f32).chain([end]).collect();
        SigmaGrid { timesteps, sigmas }
    }

    /// Each sigma with the timestep of the training that has it, passed through `whole`, then `end`.
    fn of(sigmas: Vec<f64>, trained: &[f32], whole: fn(f64) -> f64, end: f32) -> SigmaGrid {
        let timesteps = sigmas.iter().map(|&sigma| whole(timestep_of_sigma(trained, sigma)) as f32).collect();
        SigmaGrid { timesteps, sigmas: sigmas.into_iter().map(|sigma| sigma as f32).chain([end]).collect() }
    }

    /// The grid of Euler ancestral: spaced timesteps (fractional with `linspace`), ending at zero.
    pub fn euler_ancestral(keys: &Keys, schedule: &NoiseSchedule, steps: usize) -> Result<SigmaGrid> {
        Ok(SigmaGrid::at(euler_timesteps(keys, schedule.len(), steps)?, &schedule.sigmas(), 0.0))
    }

    /// The grid of Euler, which can also space sigmas geometrically (`interpolation_type`) or as Karras et al.
    pub fn euler(keys: &Keys, schedule: &NoiseSchedule, steps: usize) -> Result<SigmaGrid> {
        let trained = schedule.sigmas();
        let end = if keys.final_sigma_is_zero()? { 0.0 } else { trained[0] };
        let mut grid = SigmaGrid::at(euler_timesteps(keys, schedule.len(), steps)?, &trained, end);
        match keys.str("interpolation_type", "linear")? {
            "linear" => {}
            "log_linear" => grid.sigmas = geometric_sigmas(&trained, steps),
            other => return Err(keys.unsupported("interpolation_type", other, "linear and log_linear")),
        }
        if keys.bool("use_karras_sigmas", false)? {
            let (max, min) = (grid.sigmas[0], grid.sigmas[grid.sigmas.len() - 2]);
            let sigmas = karras_sigmas(keys, min, max, steps)?;
            return Ok(SigmaGrid::of(sigmas, &trained, |t| t, end));
        }
        Ok(grid)
    }

    /// The grid of the multistep solvers: whole timesteps, with one more laid and left out at the end.
    ///
    /// `last` is one past the highest timestep. Timesteps of Karras sigmas go through `whole`.
    pub fn solver(keys: &Keys, schedule: &NoiseSchedule, steps: usize, last: usize, whole: fn(f64) -> f64) -> Result<SigmaGrid> {
        let trained = schedule.sigmas();
        let end = if keys.final_sigma_is_zero()? { 0.0 } else { trained[0] };
        if keys.bool("use_karras_sigmas", false)? {
            let sigmas = karras_sigmas(keys, trained[0], trained[trained.len() - 1], steps)?;
            return Ok(SigmaGrid::of(sigmas, &trained, whole, end));
        }
        let timesteps = solver_timesteps(keys.spacing()?, schedule.len(), last, steps, keys.steps_offset()?);
        Ok(SigmaGrid::at(timesteps.into_iter().map(|t| t as f32).collect(), &trained, end))
    }

    /// Sigma of evaluation `i`; the one after the last evaluation is the end.
    pub fn sigma(&self, i: usize) -> f64 {
        f64::from(self.sigmas[i])
    }

    /// Factor of unit noise at the start, for schedulers whose latents have variance 1 + sigma^2.
    pub fn init_noise_sigma(&self, spacing: Spacing) -> f32 {
        let max = self.sigmas.iter().fold(0.0, |max: f32, &sigma| max.max(sigma));
        // `leading` does not start at pure noise, so the data's own variance counts.
        if spacing == Spacing::Leading { (max * max + 1.0).sqrt() } else { max }
    }

    /// 1 / sqrt(sigma^2 + 1) for each evaluation: brings such latents to variance 1 for the model.
    pub fn input_scale(&self) -> Vec<f32> {
        (0..self.timesteps.len()).map(|i| (1.0 / (self.sigma(i).powi(2) + 1.0).sqrt()) as f32).collect()
    }
}

fn euler_timesteps(keys: &Keys, train: usize, steps: usize) -> Result<Vec<f32>> {
    let spacing = keys.spacing()?;
    if spacing == Spacing::Linspace {
        return Ok(linspace(train, steps).into_iter().rev().map(|t| t as f32).collect());
    }
    Ok(spaced_timesteps(spacing, train, steps, keys.steps_offset()?).into_iter().map(|t| t as f32).collect())
}

/// `sigmas` (ascending) at a fractional timestep, by linear interpolation; past the ends, the end values.
fn interpolate(sigmas: &[f32], timestep: f64) -> f64 {
    let last = sigmas.len() - 1;
    let t = timestep.clamp(0.0, last as f64);
    let low = t.floor() as usize;
    let (a, b) = (f64::from(sigmas[low]), f64::from(sigmas[(low + 1).min(last)]));
    (b - a) * (t - low as f64) + a
}

/// `steps + 1` sigmas from the largest to the smallest of the training, in equal ratios, then zero. The last evaluation
/// goes to the smallest, so the zero is never reached; it stands where diffusers puts it.
fn geometric_sigmas(trained: &[f32], steps: usize) -> Vec<f32> {
    let (start, end) = (f64::from(trained[trained.len() - 1]).ln(), f64::from(trained[0]).ln());
    let sigma = |i: usize| (start + (end - start) * i as f64 / steps as f64).exp() as f32;
    (0..=steps).map(sigma).chain([0.0]).collect()
}

/// The noise levels of Karras et al., "Elucidating the design space of diffusion-based generative models" (2022),
/// equation 5 with rho 7: from `max` down to `min`, or `sigma_max` and `sigma_min` of the configuration.
fn karras_sigmas(keys: &Keys, min: f32, max: f32, steps: usize) -> Result<Vec<f64>> {
    const RHO: f64 = 7.0;
    let bound = |key: &str, default: f32| match keys.f64(key)? {
        Some(sigma) if sigma <= 0.0 => Err(keys.error(key, format!("{sigma} must be above 0"))),
        sigma => Ok(sigma.unwrap_or(f64::from(default)).powf(1.0 / RHO)),
    };
    let (min, max) = (bound("sigma_min", min)?, bound("sigma_max", max)?);
    let ramp = |i: usize| if i == 0 { 0.0 } else { i as f64 / (steps - 1) as f64 };
    Ok((0..steps).map(|i| (max + ramp(i) * (min - max)).powf(RHO)).collect())
}

/// The fractional timestep whose sigma this is, linear in log sigma between those of the training.
fn timestep_of_sigma(trained: &[f32], sigma: f64) -> f64 {
    let ln = |i: usize| f64::from(f64::from(trained[i]).ln() as f32);
    let log = sigma.max(1e-10).ln();
    let below = trained.partition_point(|&s| f64::from(f64::from(s).ln() as f32) <= log);
    let low = below.saturating_sub(1).min(trained.len().saturating_sub(2));
    let high = (low + 1).min(trained.len() - 1);
    if high == low {
        return low as f64;
    }
    let w = ((ln(low) - log) / (ln(low) - ln(high))).clamp(0.0, 1.0);
    (1.0 - w) * low as f64 + w * high as f64
}
