//! Schedulers: from a model's outputs at a few timesteps to a latent without noise.
//!
//! Each is read from `scheduler_config.json` and equals its namesake in diffusers to rounding. A scheduler file computes
//! a table of weights, [`Plan`]; one executor applies any table. To add one: a file with a `plan` function, and its line
//! in the registry below.
//!
//! ```no_run
//! # fn main() -> syntic::Result<()> {
//! use syntic::diffusion::schedulers::{SchedulerConfig, SchedulerName, create};
//! # let (path, json, mut latents) = (std::path::Path::new("scheduler_config.json"), serde_json::Value::Null, vec![0.0f32; 4]);
//! # let unet = |x: &[f32], t: f32| vec![t; x.len()];
//! let mut scheduler = create(SchedulerName::Auto, &SchedulerConfig::from_json(path, &json)?, 20)?;
//! let sigma = scheduler.plan().init_noise_sigma;
//! latents.iter_mut().for_each(|x| *x *= sigma);
//! for i in 0..scheduler.timesteps().len() {
//!     let scale = scheduler.scale_input(i);
//!     let input: Vec<f32> = latents.iter().map(|x| x * scale).collect();
//!     let output = unet(&input, scheduler.timesteps()[i]);
//!     scheduler.step(i, &output, &mut latents, &mut |noise| noise.fill(0.0))?;
//! }
//! # Ok(()) }
//! ```

mod config;
mod ddim;
mod dpm_multistep;
mod euler;
mod euler_ancestral;
mod lcm;
mod noise_schedule;
mod plan;
mod pndm;
mod sigma_grid;
mod unipc;

use std::fmt;
use std::str::FromStr;

pub use config::SchedulerConfig;
pub use plan::{Blend, HISTORY, Keep, Plan, StepPlan};

use crate::{Error, Result};

/// A denoising run over one batch of latents, in evaluations of the model.
pub trait Scheduler: Send {
    /// The whole run as numbers.
    fn plan(&self) -> &Plan;

    /// Replaces `latents` by those after evaluation `i`, given the model's output for them (any layout, the same in
    /// both). `noise` is called once if the step is stochastic, to fill a buffer of that layout with unit normals.
    ///
    /// # Errors
    /// [`Error::Internal`] if steps are not taken in order from 0 after a [`Self::reset`]; [`Error::Shape`] if lengths
    /// differ or change within a run.
    fn step(&mut self, i: usize, model_output: &[f32], latents: &mut [f32], noise: &mut dyn FnMut(&mut [f32])) -> Result<()>;

    /// Prepares for the next batch. Buffers are kept: later runs of the same size or less do not allocate.
    fn reset(&mut self);

    /// Timesteps given to the model, one for each evaluation, in order (PNDM repeats its second).
    fn timesteps(&self) -> &[f32] {
        &self.plan().timesteps
    }

    /// Initial latents are unit noise times this.
    fn init_noise_sigma(&self) -> f32 {
        self.plan().init_noise_sigma
    }

    /// The model's input at evaluation `i` is the latents times this.
    fn scale_input(&self, i: usize) -> f32 {
        self.plan().input_scale[i]
    }

    /// True if any step draws noise.
    fn is_stochastic(&self) -> bool {
        self.plan().steps.iter().any(|step| step.noise != 0.0)
    }
}

/// Builds the plan of a scheduler from its configuration and the number of steps.
type PlanFunction = fn(&SchedulerConfig, usize) -> Result<Plan>;

macro_rules! registry {
    ($($variant:ident: $name:literal, $class:literal, $plan:path;)*) => {
        /// A scheduler by its name on the command line.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum SchedulerName {
            /// The one that the model's configuration names.
            #[default]
            Auto,
            $(#[doc = concat!("`", $name, "`: diffusers' `", $class, "`.")] $variant,)*
        }

        const REGISTRY: &[(SchedulerName, &str, &str, PlanFunction)] = &[$((SchedulerName::$variant, $name, $class, $plan),)*];
    };
}

// Name, command line, class in diffusers (the first line of a class is the one that `auto` takes), plan.
registry! {
    Pndm: "pndm", "PNDMScheduler", pndm::plan;
    Ddim: "ddim", "DDIMScheduler", ddim::plan;
    Euler: "euler", "EulerDiscreteScheduler", euler::plan;
    EulerAncestral: "euler-a", "EulerAncestralDiscreteScheduler", euler_ancestral::plan;
    DpmPlusPlus: "dpm++", "DPMSolverMultistepScheduler", dpm_multistep::plan;
    DpmPlusPlusKarras: "dpm++-karras", "DPMSolverMultistepScheduler", dpm_multistep::plan_karras;
    UniPc: "unipc", "UniPCMultistepScheduler", unipc::plan;
    Lcm: "lcm", "LCMScheduler", lcm::plan;
}

impl SchedulerName {
    /// All names, `auto` first.
    pub fn all() -> impl Iterator<Item = SchedulerName> {
        std::iter::once(SchedulerName::Auto).chain(REGISTRY.iter().map(|entry| entry.0))
    }

    /// Name on the command line and in records.
    pub fn name(self) -> &'static str {
        REGISTRY.iter().find(|entry| entry.0 == self).map_or("auto", |entry| entry.1)
    }

    /// `Auto` becomes the scheduler that the configuration names; others stay.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration's class is not one of ours.
    pub fn resolve(self, config: &SchedulerConfig) -> Result<SchedulerName> {
        if self != SchedulerName::Auto {
            return Ok(self);
        }
        let entry = REGISTRY.iter().find(|entry| entry.2 == config.class());
        entry.map(|entry| entry.0).ok_or_else(|| {
            let message = format!("`{}` is not supported; choose --scheduler {}", config.class(), names("|", false));
            Error::config(config.path(), "_class_name", message)
        })
    }
}

fn names(separator: &str, with_auto: bool) -> String {
    let names = SchedulerName::all().skip(usize::from(!with_auto)).map(SchedulerName::name);
    names.collect::<Vec<_>>().join(separator)
}

impl fmt::Display for SchedulerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SchedulerName {
    type Err = Error;

    fn from_str(text: &str) -> Result<SchedulerName> {
        SchedulerName::all()
            .find(|name| name.name() == text)
            .ok_or_else(|| Error::usage(format!("unknown scheduler `{text}`"), format!("choose one of {}", names(", ", true))))
    }
}

/// Builds a scheduler for `steps` denoising steps.
///
/// # Errors
/// [`Error::Usage`] for steps that the scheduler cannot take (0, more than the training had, or a choice that needs
/// timesteps outside of it); [`Error::Config`] for a value of the configuration that is wrong or not supported.
pub fn create(name: SchedulerName, config: &SchedulerConfig, steps: usize) -> Result<Box<dyn Scheduler>> {
    let name = name.resolve(config)?;
    let Some((.., build)) = REGISTRY.iter().find(|entry| entry.0 == name) else {
        return Err(Error::Internal { op: "create scheduler", message: format!("{name} is not in the registry") });
    };
    if steps == 0 {
        return Err(Error::usage("0 denoising steps make no image", "use --steps 1 or more"));
    }
    let train = config.keys(config::Defaults::LEADING).num_train_timesteps()?;
    if steps > train {
        return Err(Error::usage(
            format!("{steps} steps were asked for, but the model was trained on {train} timesteps"),
            format!("use --steps {train} or fewer"),
        ));
    }
    let plan = build(config, steps)?;
    if let Some(i) = plan.first_not_finite() {
        return Err(Error::usage(
            format!("{name} cannot take these {steps} steps: a weight of evaluation {i} is not finite"),
            "use another number of --steps, or another --scheduler",
        ));
    }
    Ok(Box::new(plan::PlannedScheduler::new(plan)))
}

#[cfg(test)]
mod tests;
