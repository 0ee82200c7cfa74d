//! What all schedulers share: the variance schedule of the training, and the choice of timesteps from it.
//!
//! Arithmetic follows diffusers where it decides a bit: betas and their running product in f32, timesteps in f64.

use super::config::{Keys, Spacing};
use crate::{Error, Result};

/// The forward process: x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise.
#[derive(Clone, Debug)]
pub(super) struct NoiseSchedule {
    /// alpha_bar_t for t in `0..num_train_timesteps`; there is at least one.
    pub alphas_cumprod: Vec<f32>,
}

/// What a scheduler does with `rescale_betas_zero_snr`, which makes the last alpha_bar zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ZeroSnr {
    /// Its class does not have the key.
    Ignored,
    /// It takes the zero.
    Exact,
    /// It divides by alpha_bar, so the zero becomes the smallest positive f16.
    Finite,
}

const SMALLEST_F16: f32 = 1.0 / 16_777_216.0;

impl NoiseSchedule {
    /// Reads `beta_*` and, unless it is ignored, `rescale_betas_zero_snr`.
    pub fn new(keys: &Keys, zero_snr: ZeroSnr) -> Result<NoiseSchedule> {
        keys.refuse_set("trained_betas")?;
        let steps = keys.num_train_timesteps()?;
        let betas = betas(keys, steps)?;
        let mut alphas_cumprod = running_product(betas.iter().map(|beta| 1.0 - beta));
        if zero_snr != ZeroSnr::Ignored && keys.bool("rescale_betas_zero_snr", false)? {
            alphas_cumprod = rescale_zero_snr(&alphas_cumprod);
            if zero_snr == ZeroSnr::Finite {
                alphas_cumprod[steps - 1] = SMALLEST_F16;
            }
        }
        Ok(NoiseSchedule { alphas_cumprod })
    }

    pub fn len(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// alpha_bar of a timestep that the model was trained on.
    pub fn alpha(&self, timestep: i64) -> Result<f64> {
        let alpha = usize::try_from(timestep).ok().and_then(|t| self.alphas_cumprod.get(t));
        alpha.map(|&a| f64::from(a)).ok_or_else(|| {
            Error::usage(
                format!("these steps need timestep {timestep}, but the model was trained on 0 to {}", self.len() - 1),
                "use fewer --steps, or another --scheduler",
            )
        })
    }

    /// sigma_t = sqrt((1 - alpha_bar_t) / alpha_bar_t), ascending.
    pub fn sigmas(&self) -> Vec<f32> {
        self.alphas_cumprod.iter().map(|&a| ((1.0 - a) / a).sqrt()).collect()
    }
}

/// beta_t = 1 - alpha_t of the training.
fn betas(keys: &Keys, steps: usize) -> Result<Vec<f32>> {
    let (start, end) = keys.betas()?;
    match keys.beta_schedule()? {
        "linear" => Ok(linspace_f32(start as f32, end as f32, steps)),
        "scaled_linear" => {
            Ok(linspace_f32(start.sqrt() as f32, end.sqrt() as f32, steps).into_iter().map(|root| root * root).collect())
        }
        "squaredcos_cap_v2" => Ok(cosine_betas(steps)),
        other => Err(keys.unsupported("beta_schedule", other, "linear, scaled_linear and squaredcos_cap_v2")),
    }
}

/// `torch.linspace` in f32: from both ends to the middle, each point one fused operation.
fn linspace_f32(start: f32, end: f32, points: usize) -> Vec<f32> {
    if points == 1 {
        return vec![start];
    }
    let step = (end - start) / (points - 1) as f32;
    let point = |i: usize| {
        if i < points / 2 { step.mul_add(i as f32, start) } else { (-step).mul_add((points - 1 - i) as f32, end) }
    };
    (0..points).map(point).collect()
}

/// Betas of the squared-cosine alpha_bar of Nichol and Dhariwal (2021), capped at 0.999.
fn cosine_betas(steps: usize) -> Vec<f32> {
    let alpha_bar = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
    let n = steps as f64;
    (0..steps).map(|i| (1.0 - alpha_bar((i + 1) as f64 / n) / alpha_bar(i as f64 / n)).min(0.999) as f32).collect()
}

/// Running product, accumulated in f64 and rounded to f32 at each element, as `torch.cumprod` does on a CPU.
fn running_product(factors: impl Iterator<Item = f32>) -> Vec<f32> {
    let multiply = |product: &mut f64, factor: f32| {
        *product *= f64::from(factor);
        Some(*product as f32)
    };
    factors.scan(1.0f64, multiply).collect()
}

/// Algorithm 1 of Lin et al., "Common diffusion noise schedules and sample steps are flawed": shifts and scales
/// sqrt(alpha_bar) so that the last is zero and the first stays.
fn rescale_zero_snr(alphas_cumprod: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = alphas_cumprod.iter().map(|a| a.sqrt()).collect();
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    let scale = first / (first - last);
    let bars: Vec<f32> = roots.iter().map(|root| ((root - last) * scale).powi(2)).collect();
    // Back to betas and forward again: the rounding of that trip is part of the definition.
    let ratio = |i: usize| if i == 0 { bars[0] } else { bars[i] / bars[i - 1] };
    running_product((0..bars.len()).map(|i| 1.0 - (1.0 - ratio(i))))
}

/// Descending timesteps: `steps` of them spread over `0..train`, in the manner of Table 2 of Lin et al.
///
/// `linspace` includes both ends; `leading` starts each of the equal parts and adds `offset`; `trailing` ends them.
pub(super) fn spaced_timesteps(spacing: Spacing, train: usize, steps: usize, offset: i64) -> Vec<i64> {
    match spacing {
        Spacing::Linspace => linspace(train, steps).iter().rev().map(|t| t.round_ties_even() as i64).collect(),
        Spacing::Leading => (0..steps).rev().map(|i| (i * (train / steps)) as i64 + offset).collect(),
        Spacing::Trailing => trailing(train, train, steps),
    }
}

/// As [`spaced_timesteps`] for the solvers that lay one point more than steps and leave out the last (t near 0);
/// `last` is one past the highest timestep to use.
pub(super) fn solver_timesteps(spacing: Spacing, train: usize, last: usize, steps: usize, offset: i64) -> Vec<i64> {
    match spacing {
        Spacing::Linspace => linspace(last, steps + 1).iter().skip(1).rev().map(|t| t.round_ties_even() as i64).collect(),
        Spacing::Leading => (1..=steps).rev().map(|i| (i * (last / (steps + 1))) as i64 + offset).collect(),
        Spacing::Trailing => trailing(train, last, steps),
    }
}

/// `points` values from 0 to `train - 1`, both included, ascending (numpy's `linspace`).
pub(super) fn linspace(train: usize, points: usize) -> Vec<f64> {
    let last = (train - 1) as f64;
    let step = last / (points.max(2) - 1) as f64;
    (0..points).map(|i| if i > 0 && i == points - 1 { last } else { i as f64 * step }).collect()
}

/// last, last - train/steps, ... down to above 0, rounded, less 1.
///
/// numpy's `arange`, which diffusers uses, returns one point too many for some counts (61 of 1000 is one): it rounds to
/// timestep -1, which no model knows. That point is left out here.
fn trailing(train: usize, last: usize, steps: usize) -> Vec<i64> {
    let start = last as f64;
    let delta = (start - train as f64 / steps as f64) - start;
    let points = (0..steps).map(|i| (start + i as f64 * delta).round_ties_even() as i64 - 1);
    points.filter(|&t| t >= 0).collect()
}
