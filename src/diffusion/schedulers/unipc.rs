//! UniPC of order 1 or 2 on x0: Zhao et al., "UniPC" (2023), with B(h) = e^-h - 1 (`bh2`) or -h (`bh1`).
//!
//! Each evaluation first corrects the latent it was made at, starting from the base (the corrected latent one step
//! earlier), then predicts the next latent from the corrected one, which becomes the base. Notation as in
//! `dpm_multistep.rs`; m is this evaluation's x0, m_k the one k evaluations earlier, h the step in lambda.

use super::config::{Defaults, Keys, SchedulerConfig};
use super::dpm_multistep::{keep_x0, signal_and_noise, slot};
use super::noise_schedule::{NoiseSchedule, ZeroSnr};
use super::plan::{Blend, Plan, StepPlan};
use super::sigma_grid::SigmaGrid;
use crate::Result;

pub(super) fn plan(config: &SchedulerConfig, steps: usize) -> Result<Plan> {
    let keys = config.keys(Defaults::LINSPACE);
    let (order, b_h) = check(&keys)?;
    let prediction = keys.prediction(true)?;
    let schedule = NoiseSchedule::new(&keys, ZeroSnr::Finite)?;
    let grid = SigmaGrid::solver(&keys, &schedule, steps, schedule.len(), f64::round_ties_even)?;
    let lower_order_final = keys.bool("lower_order_final", true)?;
    let uncorrected = keys.indices("disable_corrector")?;

    let evaluations = grid.timesteps.len();
    let order_at = |i: usize| if lower_order_final { order.min(evaluations - i).min(i + 1) } else { order.min(i + 1) };
    let step = |i: usize| {
        let base = if i > 0 && !uncorrected.contains(&(i - 1)) {
            correct(&grid, i, order_at(i - 1), b_h)
        } else {
            Blend { sample: 1.0, ..Blend::default() }
        };
        let update = predict(&grid, i, order_at(i), b_h);
        StepPlan { keep: Some(keep_x0(prediction, i, grid.sigma(i))), base: Some(base), update, noise: 0.0 }
    };
    let steps = (0..evaluations).map(step).collect();
    Ok(Plan::unscaled(grid.timesteps, steps))
}

/// B as a function of -h.
type BOfH = fn(f64) -> f64;

/// Refuses what is not UniPC on x0 with its own predictor; returns the order, 1 or 2, and B.
fn check(keys: &Keys) -> Result<(usize, BOfH)> {
    let off = ["thresholding", "use_exponential_sigmas", "use_beta_sigmas", "use_flow_sigmas", "solver_p"];
    off.into_iter().try_for_each(|key| keys.refuse_set(key))?;
    if !keys.bool("predict_x0", true)? {
        return Err(keys.unsupported("predict_x0", "false", "true"));
    }
    let b_h: BOfH = match keys.str("solver_type", "bh2")? {
        // The names of other solvers are what diffusers takes for bh2 when a configuration changes class.
        "bh2" | "midpoint" | "heun" | "logrho" => f64::exp_m1,
        "bh1" => |minus_h| minus_h,
        other => return Err(keys.unsupported("solver_type", other, "bh1 and bh2")),
    };
    match keys.int("solver_order", 2)? {
        1 => Ok((1, b_h)),
        2 => Ok((2, b_h)),
        other => Err(keys.unsupported("solver_order", other, "1 and 2")),
    }
}

/// x' = s'/s x - alpha' (e^-h - 1) m - alpha' B rho (m_1 - m) / r with rho = 1/2; first order without the last term.
fn predict(grid: &SigmaGrid, i: usize, order: usize, b_h: BOfH) -> Blend {
    let (mut blend, h, alpha_next) = exponential_step(grid, i);
    if order == 2 {
        let r = (grid.sigma(i).ln() - grid.sigma(i - 1).ln()) / h;
        let weight = -alpha_next * b_h(-h) * 0.5 / r;
        blend.history[slot(i - 1)] += weight as f32;
        blend.history[slot(i)] -= weight as f32;
    }
    blend
}

/// The corrected latent of evaluation `i`, from the base at evaluation i - 1:
/// x = s'/s b - alpha' (e^-h - 1) m_1 - alpha' B (rho_0 (m_2 - m_1) / r + rho_1 (m - m_1)).
fn correct(grid: &SigmaGrid, i: usize, order: usize, b_h: BOfH) -> Blend {
    let (mut blend, h, alpha_next) = exponential_step(grid, i - 1);
    let b = -alpha_next * b_h(-h);
    let mut add = |slot: usize, weight: f64| blend.history[slot] += weight as f32;
    let rho_1 = if order == 1 {
        0.5
    } else {
        // The two order conditions: rho_0 + rho_1 = b_1 and r rho_0 + rho_1 = b_2.
        let phi_2 = (-h).exp_m1() / -h - 1.0;
        let phi_3 = phi_2 / -h - 0.5;
        let (b_1, b_2) = (phi_2 / b_h(-h), 2.0 * phi_3 / b_h(-h));
        let r = (grid.sigma(i - 1).ln() - grid.sigma(i - 2).ln()) / h;
        let rho_0 = (b_1 - b_2) / (1.0 - r);
        add(slot(i - 2), b * rho_0 / r);
        add(slot(i - 1), -b * rho_0 / r);
        b_1 - rho_0
    };
    add(slot(i), b * rho_1);
    add(slot(i - 1), -b * rho_1);
    blend
}

/// s'/s b - alpha' (e^-h - 1) m of the step after evaluation `i`; also h and alpha'.
fn exponential_step(grid: &SigmaGrid, i: usize) -> (Blend, f64, f64) {
    let (sigma, target) = (grid.sigma(i), grid.sigma(i + 1));
    let ((_, s), (alpha_next, s_next)) = (signal_and_noise(sigma), signal_and_noise(target));
    let h = sigma.ln() - target.ln();
    let mut blend = Blend { base: (s_next / s) as f32, ..Blend::default() };
    blend.history[slot(i)] = (-alpha_next * (-h).exp_m1()) as f32;
    (blend, h, alpha_next)
}
