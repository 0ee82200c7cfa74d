//! DPM-Solver++ 2M, midpoint: Lu et al., "DPM-Solver++" (2022), algorithm 2.
//!
//! With alpha = 1 / sqrt(sigma^2 + 1), s = sigma alpha, lambda = ln(alpha / s) = -ln sigma, h = lambda' - lambda and
//! m_k the x0 predicted k evaluations ago:
//! ```text
//! first order    x' = s'/s x - alpha' (e^-h - 1) m_0
//! second order   x' = s'/s x - alpha' (e^-h - 1) (m_0 + (m_0 - m_1) / (2 r)),   r = (lambda - lambda_1) / h
//! ```

use serde_json::Value;

use super::config::{Defaults, Keys, Prediction, SchedulerConfig};
use super::noise_schedule::{NoiseSchedule, ZeroSnr};
use super::plan::{Blend, HISTORY, Keep, Plan, StepPlan};
use super::sigma_grid::SigmaGrid;
use crate::Result;

/// With fewer steps than this, `lower_order_final` makes the last step first order whatever the final sigma.
const FEW_STEPS: usize = 15;

/// As `plan`, with the noise levels of Karras et al.
pub(super) fn plan_karras(config: &SchedulerConfig, steps: usize) -> Result<Plan> {
    plan(&config.with("use_karras_sigmas", Value::Bool(true)), steps)
}

pub(super) fn plan(config: &SchedulerConfig, steps: usize) -> Result<Plan> {
    let keys = config.keys(Defaults::LINSPACE);
    let order = check(&keys)?;
    let prediction = keys.prediction(true)?;
    let schedule = NoiseSchedule::new(&keys, ZeroSnr::Finite)?;
    let whole = if keys.beta_schedule()? == "squaredcos_cap_v2" { f64::trunc } else { f64::round_ties_even };
    let last = schedule.len() - clipped_timesteps(&keys, &schedule)?;
    let grid = SigmaGrid::solver(&keys, &schedule, steps, last, whole)?;

    let evaluations = grid.timesteps.len();
    let lower_last = keys.bool("euler_at_final", false)?
        || keys.final_sigma_is_zero()?
        || (keys.bool("lower_order_final", true)? && evaluations < FEW_STEPS);
    let step = |i: usize| {
        let first_order = order == 1 || i == 0 || (i == evaluations - 1 && lower_last);
        StepPlan {
            keep: Some(keep_x0(prediction, i, grid.sigma(i))),
            update: update(&grid, i, first_order),
            ..StepPlan::default()
        }
    };
    let steps = (0..evaluations).map(step).collect();
    Ok(Plan::unscaled(grid.timesteps, steps))
}

/// Refuses what is not the deterministic midpoint solver on x0; returns the order, 1 or 2.
fn check(keys: &Keys) -> Result<i64> {
    let off = ["thresholding", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "use_flow_sigmas", "variance_type"];
    off.into_iter().try_for_each(|key| keys.refuse_set(key))?;
    // The names of other solvers are what diffusers takes for this one when a configuration changes class.
    match keys.str("algorithm_type", "dpmsolver++")? {
        "dpmsolver++" | "deis" => {}
        other => return Err(keys.unsupported("algorithm_type", other, "dpmsolver++")),
    }
    match keys.str("solver_type", "midpoint")? {
        "midpoint" | "logrho" | "bh1" | "bh2" => {}
        other => return Err(keys.unsupported("solver_type", other, "midpoint")),
    }
    match keys.int("solver_order", 2)? {
        order @ 1..=2 => Ok(order),
        other => Err(keys.unsupported("solver_order", other, "1 and 2")),
    }
}

/// How many of the highest timesteps have a log signal-to-noise ratio below `lambda_min_clipped`.
fn clipped_timesteps(keys: &Keys, schedule: &NoiseSchedule) -> Result<usize> {
    let Some(bound) = keys.f64("lambda_min_clipped")? else { return Ok(0) };
    let lambda = |alpha_bar: &f32| 0.5 * (f64::from(*alpha_bar) / (1.0 - f64::from(*alpha_bar))).ln();
    let clipped = schedule.alphas_cumprod.iter().filter(|alpha_bar| lambda(alpha_bar) < bound).count();
    if clipped >= schedule.len() {
        return Err(keys.error("lambda_min_clipped", format!("{bound} leaves no timestep")));
    }
    Ok(clipped)
}

/// sigma -> (alpha, s): the weights of x0 and of the noise in a latent of variance 1.
pub(super) fn signal_and_noise(sigma: f64) -> (f64, f64) {
    let alpha = 1.0 / (sigma.powi(2) + 1.0).sqrt();
    (alpha, sigma * alpha)
}

/// The history slot of evaluation `i`.
pub(super) fn slot(i: usize) -> usize {
    i % HISTORY
}

/// Keeps the x0 predicted by evaluation `i`.
pub(super) fn keep_x0(prediction: Prediction, i: usize, sigma: f64) -> Keep {
    let (alpha, s) = signal_and_noise(sigma);
    let (sample, output) = prediction.x0(alpha, s);
    Keep { slot: slot(i), sample: sample as f32, output: output as f32, previous: 0.0 }
}

fn update(grid: &SigmaGrid, i: usize, first_order: bool) -> Blend {
    let (sigma, target) = (grid.sigma(i), grid.sigma(i + 1));
    let ((_, s), (alpha_next, s_next)) = (signal_and_noise(sigma), signal_and_noise(target));
    let h = sigma.ln() - target.ln();
    let gain = -alpha_next * (-h).exp_m1();
    let mut blend = Blend { sample: (s_next / s) as f32, ..Blend::default() };
    if first_order {
        blend.history[slot(i)] = gain as f32;
    } else {
        let r = (grid.sigma(i - 1).ln() - sigma.ln()) / h;
        blend.history[slot(i)] = (gain * (1.0 + 0.5 / r)) as f32;
        blend.history[slot(i - 1)] = (-gain * 0.5 / r) as f32;
    }
    blend
}
