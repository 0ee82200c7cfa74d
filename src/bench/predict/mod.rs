//! `syntic bench --predict`: what a GPU would at least need to make images, without the GPU and without weights.
//!
//! Three steps. `record` runs the passes of a model's shapes on a GPU that remembers launches and does nothing. Each distinct launch
//! (kernel, grid, block, parameters, extents of tensors) has a few of its blocks run in the simulator, whose counts are scaled by the grid.
//! `estimate` makes bounds of them. `report` adds them up.
//!
//! All of it is prediction: lower bounds on time, of one launch after the other. Latency, launches, clocks below boost and resources that
//! wait for each other make a card slower than this.

mod estimate;
mod record;
mod report;
#[cfg(test)]
mod tests;

pub use estimate::{Parts, Traffic};
pub use report::{KernelPrediction, PassPrediction, Prediction, Summary};

use crate::device::predict::sample::{Kernels, sample};
use crate::device::predict::{Card, Launch, LaunchShape, Log};
use crate::device::{Device, Gpu};
use crate::diffusion::ModelSpec;
use crate::tensor::DType;
use crate::weights::{Arch, ModelDir};
use crate::{Error, Result};
use estimate::Estimate;
use rayon::prelude::*;
use std::collections::HashMap;

/// What to predict.
#[derive(Clone, Debug)]
pub struct Request {
    /// `a100`, `rtx4090`, `h100` or `h200`.
    pub chip: String,
    /// `sd15`, `sd21-base`, `tiny`, or a folder or id of a model, of which only the configurations are read.
    pub model: String,
    /// Height and width in pixels.
    pub size: (usize, usize),
    /// Images at once.
    pub batch: usize,
    /// Evaluations of the denoising network for an image.
    pub steps: usize,
    /// f16 or bf16.
    pub storage: DType,
    /// Cores of this machine to use; 0 for all.
    pub threads: usize,
}

/// The shapes of a model by the name of [`Request::model`].
fn model(name: &str) -> Result<ModelSpec> {
    match name {
        "sd15" => ModelSpec::published(Arch::Sd15),
        // The base model differs from 2.1 in what it was trained at, which is no shape of its networks.
        "sd21-base" => ModelSpec::published(Arch::Sd21),
        "tiny" => ModelSpec::published(Arch::Tiny),
        _ => ModelSpec::read(&ModelDir::open(name)?),
    }
}

/// Predicts the time, the traffic and the waste of making a batch of images.
///
/// # Errors
/// [`Error::Usage`] for a chip, a size or a batch that is not known or not possible, or a program without kernels; those of reading a model's
/// configurations; [`Error::Launch`] if the simulator refuses a launch or finds a fault in one.
pub fn predict(request: &Request) -> Result<Prediction> {
    let (card, spec) = (Card::by_name(&request.chip)?, model(&request.model)?);
    spec.check_size(request.size.0, request.size.1)?;
    spec.check_batch(request.batch)?;
    if request.steps == 0 {
        return Err(Error::usage("--steps 0 makes no image", "use --steps 20"));
    }
    let log = Log::default();
    let gpu = Gpu::predicted(card, request.storage, request.threads, log.clone())?;
    let device = Device::Gpu(gpu);
    let passes = record::record(&spec, &device, &log, request)?;

    let mut distinct: HashMap<&LaunchShape, &Launch> = HashMap::new();
    for launch in passes.iter().flat_map(|pass| &pass.operations).flat_map(|operation| &operation.launches) {
        distinct.entry(&launch.shape).or_insert(launch);
    }
    let mut distinct: Vec<&Launch> = distinct.into_values().collect();
    // Long ones first, so that no core is left alone with one.
    distinct.sort_by_key(|launch| std::cmp::Reverse((launch.shape.tensors.iter().max().copied(), launch.shape.entry)));
    let kernels = Kernels::default();
    let estimate =
        |launch: &&Launch| -> Result<Estimate> { Ok(estimate::estimate(card.chip, launch, &sample(&kernels, launch)?)) };
    let estimates: Vec<Estimate> = device.install(|| distinct.par_iter().map(estimate).collect::<Result<_>>())?;
    let estimates = distinct.iter().map(|launch| launch.shape.clone()).zip(estimates).collect();
    Ok(report::add_up(request, card, &passes, &estimates))
}
