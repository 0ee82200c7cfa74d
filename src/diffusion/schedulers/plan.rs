//! A denoising run as a table of numbers, and the one executor of such tables.
//!
//! Every scheduler here is linear: the next latent is a weighted sum of the current latent, the model's output, a few
//! things kept from earlier steps, and noise. A scheduler file computes the weights; [`PlannedScheduler`] applies them.
//! A GPU kernel takes the same [`StepPlan`] as its parameters.

use super::Scheduler;
use crate::{Error, Result};

/// Model outputs kept between steps, at most.
pub const HISTORY: usize = 4;

/// Weights of a sum over what a step can see; zero by default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Blend {
    /// Weight of the latent that the model was evaluated at.
    pub sample: f32,
    /// Weight of the model's output of this evaluation.
    pub output: f32,
    /// Weight of the base: the latent that an earlier (or this) step kept to start from.
    pub base: f32,
    /// Weight of each history slot.
    pub history: [f32; HISTORY],
}

/// What a step stores in the history.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keep {
    /// The slot that is written, below [`HISTORY`].
    pub slot: usize,
    /// Weight of the latent that the model was evaluated at.
    pub sample: f32,
    /// Weight of the model's output.
    pub output: f32,
    /// Weight of what the slot held before.
    pub previous: f32,
}

/// What happens after evaluation i of the model, element by element: x is the latent, m the model's output, b the base,
/// h the history, z unit noise. In this order:
/// ```text
/// h[slot] <- keep.sample x + keep.output m + keep.previous h[slot]                              if there is a `keep`
/// b       <- base.sample x + base.output m + base.base b + sum_k base.history[k] h[k]           if there is a `base`
/// x       <- update.sample x + update.output m + update.base b + sum_k update.history[k] h[k] + noise z
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepPlan {
    /// What is stored in the history, if anything.
    pub keep: Option<Keep>,
    /// The new base, if this step sets one.
    pub base: Option<Blend>,
    /// The new latent.
    pub update: Blend,
    /// Weight of the noise; zero draws none.
    pub noise: f32,
}

impl StepPlan {
    /// A step that sees only its own evaluation: x <- sample x + output m.
    pub(super) fn direct(sample: f64, output: f64) -> StepPlan {
        StepPlan { update: Blend { sample: sample as f32, output: output as f32, ..Blend::default() }, ..StepPlan::default() }
    }

    fn is_finite(&self) -> bool {
        let blend = |b: &Blend| [b.sample, b.output, b.base].iter().chain(&b.history).all(|w| w.is_finite());
        let keep = self.keep.is_none_or(|k| k.sample.is_finite() && k.output.is_finite() && k.previous.is_finite());
        keep && self.base.as_ref().is_none_or(blend) && blend(&self.update) && self.noise.is_finite()
    }
}

/// A whole run. All vectors have one entry for each evaluation of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Timesteps given to the model.
    pub timesteps: Vec<f32>,
    /// Factor of the latent before it enters the model.
    pub input_scale: Vec<f32>,
    /// What to do with the model's output.
    pub steps: Vec<StepPlan>,
    /// Factor of the unit noise that the run starts from.
    pub init_noise_sigma: f32,
}

impl Plan {
    /// A plan for models that take the latent as it is and start from unit noise.
    pub(super) fn unscaled(timesteps: Vec<f32>, steps: Vec<StepPlan>) -> Plan {
        Plan { input_scale: vec![1.0; timesteps.len()], timesteps, steps, init_noise_sigma: 1.0 }
    }

    /// Adds one evaluation at `timestep`.
    pub(super) fn push(&mut self, timestep: i64, step: StepPlan) {
        self.timesteps.push(timestep as f32);
        self.input_scale.push(1.0);
        self.steps.push(step);
    }

    /// Index of the first evaluation with a weight that is not a finite number.
    pub(super) fn first_not_finite(&self) -> Option<usize> {
        if !self.init_noise_sigma.is_finite() {
            return Some(0);
        }
        (0..self.steps.len()).find(|&i| !self.steps[i].is_finite() || !self.input_scale[i].is_finite())
    }
}

/// Executes a [`Plan`] on the CPU in f32.
pub(super) struct PlannedScheduler {
    plan: Plan,
    /// Step expected next.
    next: usize,
    base: Vec<f32>,
    history: [Vec<f32>; HISTORY],
    noise: Vec<f32>,
}

impl PlannedScheduler {
    pub(super) fn new(plan: Plan) -> PlannedScheduler {
        PlannedScheduler { plan, next: 0, base: Vec::new(), history: Default::default(), noise: Vec::new() }
    }

    /// Gives every buffer `len` elements. Buffers never shrink their capacity, so later runs do not allocate.
    fn prepare(&mut self, len: usize) {
        for buffer in self.history.iter_mut().chain([&mut self.base, &mut self.noise]) {
            // Zero, because a weight of zero must also silence what an earlier run left behind.
            buffer.clear();
            buffer.resize(len, 0.0);
        }
    }
}

impl Scheduler for PlannedScheduler {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn step(&mut self, i: usize, model_output: &[f32], latents: &mut [f32], noise: &mut dyn FnMut(&mut [f32])) -> Result<()> {
        if i != self.next || i >= self.plan.steps.len() {
            let message = format!("step {i} was called where step {} of {} follows", self.next, self.plan.steps.len());
            return Err(Error::Internal { op: "scheduler step", message });
        }
        if i == 0 {
            self.prepare(latents.len());
        }
        if model_output.len() != latents.len() || self.base.len() != latents.len() {
            let message = format!(
                "{} latents, {} model outputs and {} kept values must have one length",
                latents.len(),
                model_output.len(),
                self.base.len()
            );
            return Err(Error::shape("scheduler step", message));
        }
        let step = self.plan.steps[i];
        if step.noise != 0.0 {
            noise(&mut self.noise);
        }
        let [h0, h1, h2, h3] = &mut self.history;
        for (e, (x, &m)) in latents.iter_mut().zip(model_output).enumerate() {
            let mut h = [h0[e], h1[e], h2[e], h3[e]];
            if let Some(keep) = &step.keep {
                h[keep.slot] = keep.sample * *x + keep.output * m + keep.previous * h[keep.slot];
                [h0[e], h1[e], h2[e], h3[e]] = h;
            }
            if let Some(base) = &step.base {
                self.base[e] = base.apply(*x, m, self.base[e], &h);
            }
            *x = step.update.apply(*x, m, self.base[e], &h);
        }
        if step.noise != 0.0 {
            latents.iter_mut().zip(&self.noise).for_each(|(x, z)| *x += step.noise * z);
        }
        self.next += 1;
        Ok(())
    }

    fn reset(&mut self) {
        self.next = 0;
    }
}

impl Blend {
    #[inline]
    fn apply(&self, sample: f32, output: f32, base: f32, h: &[f32; HISTORY]) -> f32 {
        let [w0, w1, w2, w3] = self.history;
        let kept = (w0 * h[0] + w1 * h[1]) + (w2 * h[2] + w3 * h[3]);
        (self.sample * sample + self.output * output) + (self.base * base + kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_runs_use_the_buffers_of_the_first() {
        let step = StepPlan { noise: 1.0, ..StepPlan::direct(1.0, 1.0) };
        let mut scheduler = PlannedScheduler::new(Plan::unscaled(vec![0.0], vec![step]));
        let mut addresses = Vec::new();
        for len in [64, 16, 64] {
            scheduler.reset();
            scheduler.step(0, &vec![0.0; len], &mut vec![0.0; len], &mut |z| z.fill(0.0)).unwrap();
            let buffers = scheduler.history.iter().chain([&scheduler.base, &scheduler.noise]);
            addresses.push(buffers.map(|buffer| (buffer.as_ptr(), buffer.capacity())).collect::<Vec<_>>());
        }
        assert!(addresses.iter().all(|a| *a == addresses[0]));
    }

    #[test]
    fn a_step_is_the_documented_sum() {
        let blend = |n: f32| Blend { sample: n, output: 2.0 * n, base: 3.0 * n, history: [4.0, 5.0, 6.0, 7.0] };
        let keep = Some(Keep { slot: 2, sample: 2.0, output: 3.0, previous: 5.0 });
        let step = StepPlan { keep, base: Some(blend(1.0)), update: blend(10.0), noise: 0.5 };
        let mut scheduler = PlannedScheduler::new(Plan::unscaled(vec![0.0; 2], vec![step; 2]));
        let (x0, m, z) = (1.0, -2.0, 8.0);
        // By hand: h, then b from h, then x from both.
        let h1 = 2.0 * x0 + 3.0 * m;
        let b1 = x0 + 2.0 * m + 6.0 * h1;
        let x1 = 10.0 * x0 + 20.0 * m + 30.0 * b1 + 6.0 * h1 + 0.5 * z;
        let h2 = 2.0 * x1 + 3.0 * m + 5.0 * h1;
        let b2 = x1 + 2.0 * m + 3.0 * b1 + 6.0 * h2;
        let x2 = 10.0 * x1 + 20.0 * m + 30.0 * b2 + 6.0 * h2 + 0.5 * z;
        let mut x = [x0];
        for (i, expected) in [x1, x2].into_iter().enumerate() {
            scheduler.step(i, &[m], &mut x, &mut |noise| noise.fill(z)).unwrap();
            assert_eq!(x, [expected]);
        }
    }
}
