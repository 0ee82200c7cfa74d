//! Pseudo numerical methods: Liu et al., "Pseudo numerical methods for diffusion models on manifolds" (2022).
//!
//! The model's outputs are combined by a linear multistep rule (PLMS), and equation 9 of the paper moves the latent with
//! the combination. The multistep rule must be started: with `skip_prk_steps` (Stable Diffusion) by lower orders, the
//! first step being taken twice, so that n steps are n + 1 evaluations; without, by three Runge-Kutta steps of four
//! evaluations each.

use super::config::{Defaults, Keys, Prediction, SchedulerConfig};
use super::noise_schedule::{NoiseSchedule, ZeroSnr, spaced_timesteps};
use super::plan::{Blend, Keep, Plan, StepPlan};
use crate::{Error, Result};

/// Weights of the Adams-Bashforth rules of order 2 to 4, newest output first.
const ADAMS_BASHFORTH: [[f64; 4]; 3] = [
    [3.0 / 2.0, -1.0 / 2.0, 0.0, 0.0],
    [23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0, 0.0],
    [55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

pub(super) fn plan(config: &SchedulerConfig, steps: usize) -> Result<Plan> {
    let keys = config.keys(Defaults::LEADING);
    let transfer = Transfer::new(&keys, steps)?;
    let spaced = spaced_timesteps(keys.spacing()?, transfer.schedule.len(), steps, keys.steps_offset()?);
    let mut plan = Plan::unscaled(Vec::new(), Vec::new());
    // In a file of PNDM a missing key means the default of its class, false. Files of other samplers never have the key: there PNDM
    // starts as in Stable Diffusion.
    if keys.bool("skip_prk_steps", config.class() != "PNDMScheduler")? {
        multistep_start(&mut plan, &transfer, &spaced)?;
    } else {
        runge_kutta_start(&mut plan, &transfer, &spaced)?;
    }
    Ok(plan)
}

/// Equation 9: how a latent at timestep t moves to an earlier one along a model output.
struct Transfer {
    schedule: NoiseSchedule,
    prediction: Prediction,
    final_alpha: f64,
    /// Timesteps between two steps.
    stride: i64,
}

impl Transfer {
    fn new(keys: &Keys, steps: usize) -> Result<Transfer> {
        let schedule = NoiseSchedule::new(keys, ZeroSnr::Ignored)?;
        let final_alpha = if keys.bool("set_alpha_to_one", false)? { 1.0 } else { schedule.alpha(0)? };
        let stride = (schedule.len() / steps) as i64;
        Ok(Transfer { final_alpha, stride, prediction: keys.prediction(false)?, schedule })
    }

    /// (weight of the latent, weight of the output) from timestep `t` to `to`; below 0 is the end of the run.
    fn weights(&self, t: i64, to: i64) -> Result<(f64, f64)> {
        let a = self.schedule.alpha(t)?;
        let a_to = if to >= 0 { self.schedule.alpha(to)? } else { self.final_alpha };
        let along = (a_to - a) / (a * (1.0 - a_to).sqrt() + (a * (1.0 - a) * a_to).sqrt());
        let (sample, output) = self.prediction.epsilon(a.sqrt(), (1.0 - a).sqrt());
        Ok(((a_to / a).sqrt() - along * sample, -along * output))
    }
}

/// PLMS from the first step on. `spaced` are the descending timesteps.
fn multistep_start(plan: &mut Plan, transfer: &Transfer, spaced: &[i64]) -> Result<()> {
    for (i, &t) in spaced.iter().enumerate() {
        let (sample, output) = transfer.weights(t, t - transfer.stride)?;
        match i {
            0 => {
                let base = Blend { sample: 1.0, ..Blend::default() };
                let update = Blend { base: sample as f32, output: output as f32, ..Blend::default() };
                plan.push(t, StepPlan { keep: keep(0), base: Some(base), update, noise: 0.0 });
                let Some(&second) = spaced.get(1) else { continue };
                // The first step again, with the mean of the outputs at both of its ends. The second is not kept.
                let (sample, output) = transfer.weights(second + transfer.stride, second)?;
                let mut update = Blend { base: sample as f32, output: (0.5 * output) as f32, ..Blend::default() };
                update.history[0] = (0.5 * output) as f32;
                plan.push(second, StepPlan { update, ..StepPlan::default() });
            }
            _ => {
                let rule = ADAMS_BASHFORTH[i.min(3) - 1];
                plan.push(t, multistep(i, sample, output, &rule));
            }
        }
    }
    Ok(())
}

/// Three Runge-Kutta steps, then PLMS of order 4.
fn runge_kutta_start(plan: &mut Plan, transfer: &Transfer, spaced: &[i64]) -> Result<()> {
    if spaced.len() < 4 {
        let message = format!("pndm with `skip_prk_steps` false cannot take {} steps", spaced.len());
        return Err(Error::usage(message, "use --steps 4 or more, or set `skip_prk_steps` to true"));
    }
    // Slot k keeps the first output of step k; slot 3 gathers the two in the middle.
    const MIDDLE: usize = 3;
    let half = transfer.stride / 2;
    for k in 0..3 {
        let (t, next) = (spaced[k], spaced[k + 1]);
        let middle = next + half;
        let gather = |previous: f32| Some(Keep { slot: MIDDLE, sample: 0.0, output: 1.0, previous });
        let from_base = |to: i64, share: f64| -> Result<Blend> {
            let (sample, output) = transfer.weights(t, to)?;
            Ok(Blend { base: sample as f32, output: (share * output) as f32, ..Blend::default() })
        };
        let base = Some(Blend { sample: 1.0, ..Blend::default() });
        plan.push(t, StepPlan { keep: keep(k), base, update: from_base(t - half, 1.0)?, noise: 0.0 });
        plan.push(middle, StepPlan { keep: gather(0.0), update: from_base(middle, 1.0)?, ..StepPlan::default() });
        plan.push(middle, StepPlan { keep: gather(1.0), update: from_base(middle - half, 1.0)?, ..StepPlan::default() });
        let mut update = from_base(next, 1.0 / 6.0)?;
        let (_, output) = transfer.weights(t, next)?;
        update.history[k] = (output / 6.0) as f32;
        update.history[MIDDLE] = (output / 3.0) as f32;
        plan.push(next, StepPlan { update, ..StepPlan::default() });
    }
    for (i, &t) in spaced.iter().enumerate().skip(3) {
        let (sample, output) = transfer.weights(t, t - transfer.stride)?;
        plan.push(t, multistep(i, sample, output, &ADAMS_BASHFORTH[2]));
    }
    Ok(())
}

/// Keeps the model's output of step `i`.
fn keep(i: usize) -> Option<Keep> {
    Some(Keep { slot: i % 4, sample: 0.0, output: 1.0, previous: 0.0 })
}

/// The update of step `i` along a weighted sum of the newest outputs.
fn multistep(i: usize, sample: f64, output: f64, rule: &[f64; 4]) -> StepPlan {
    let mut update = Blend { sample: sample as f32, ..Blend::default() };
    for (age, weight) in rule.iter().enumerate().take(i + 1) {
        update.history[(i - age) % 4] = (output * weight) as f32;
    }
    StepPlan { keep: keep(i), update, ..StepPlan::default() }
}
