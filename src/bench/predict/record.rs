//! The passes of a model of some shape, as a GPU would be asked to run them: operations with their counts, and what each launches.

use super::Request;
use crate::clip::text::TextEncoder;
use crate::device::predict::{Launch, Log, Work};
use crate::device::{Arena, Cost, Device, Exec, Observer, Plan, Precision};
use crate::diffusion::ModelSpec;
use crate::diffusion::unet::{Conditions, Halves, TextState, Unet};
use crate::diffusion::vae::VaeDecoder;
use crate::ops::attention::KvRows;
use crate::ops::sampler::{self, Guidance, HISTORY, SAMPLE_WORDS, State, StepWeights};
use crate::tensor::DType;
use crate::weights::Loader;
use crate::{Error, Result};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// An operation and what it put into the queue.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub cost: Cost,
    pub launches: Vec<Launch>,
    /// Bytes of the weights and the bias of a layer.
    pub weights: u64,
    /// Bytes copied and filled by the driver.
    pub copied: u64,
    pub filled: u64,
}

/// One pass.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    pub name: &'static str,
    /// How often it runs for a batch of images.
    pub times: usize,
    pub operations: Vec<Operation>,
}

/// Keeps the counts of operations in order.
#[derive(Default)]
struct Costs(Mutex<Vec<Cost>>);

impl Observer for Costs {
    fn op(&self, cost: &Cost, _at: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(*cost);
    }
}

/// Records the passes that make a batch of images on `device`, a predicted GPU whose work goes to `log`: of the text, of one denoising
/// step, of the decoding of one image.
pub(super) fn record(spec: &ModelSpec, device: &Device, log: &Log, request: &Request) -> Result<Vec<Pass>> {
    let recorder = Recorder { device, log };
    let loader = Loader::declare;
    let [channels, height, width] = spec.latent_shape(request.size.0, request.size.1);
    let (batch, length) = (request.batch, spec.text.max_positions);
    let text = TextEncoder::new(spec.text.clone(), device, &loader())?;
    let unet = Unet::new(spec.unet.clone(), device, Precision::F32, &loader())?;
    let vae = VaeDecoder::new(spec.vae.clone(), device, Precision::F32, &loader())?;

    let guided = spec.unet.guidance_embedding.is_none();
    let mut state = TextState::zeros(device, &unet, batch + 1, length)?;
    let ids: Vec<u32> = (0..batch * length).map(|i| (i * 7919 % spec.text.vocab_size) as u32).collect();
    let encode = recorder.pass("text", 1, |exec| {
        let hidden = text.forward(exec, &ids, length)?;
        unet.encode_text(exec, &hidden, 1, &mut state)
    })?;

    let time = unet.time_state(device, request.steps)?;
    let prompts = 1..batch + 1;
    let rows: Vec<usize> = if guided { vec![0; batch].into_iter().chain(prompts).collect() } else { prompts.collect() };
    let rows = KvRows::new(device, rows)?;
    let halves = if guided { Halves::Both } else { Halves::Prompts };
    let conditions = Conditions { time: &time, step: 0, text: &state, text_rows: &rows, halves };
    let step = recorder.pass("step", request.steps, |exec| {
        let mut state = sampler_state(exec, [batch, height, width, channels])?;
        let prediction = unet.forward(exec, &state.input, &conditions)?;
        // A row of a scheduler that keeps predictions, and draws no noise.
        let weights = exec.input_u32([StepWeights::WORDS], &[0; StepWeights::WORDS])?;
        let guidance = if guided { Guidance::Scale(7.5) } else { Guidance::None };
        sampler::step(exec, &mut state, &prediction, guidance, &weights, None)
    })?;

    let decode = recorder.pass("decode", batch, |exec| {
        let latents = exec.alloc([1, height, width, channels], DType::F32)?;
        let image = vae.forward(exec, sampler::unscale(exec, &latents, spec.vae.scaling_factor)?)?;
        let mut pixels = exec.alloc(image.shape(), DType::U8)?;
        let mut flags = exec.alloc([1], DType::U32)?;
        sampler::quantise(exec, &image, &mut pixels, &mut flags)
    })?;
    Ok(vec![encode, step, decode])
}

/// What a sampler keeps for latents of these extents.
fn sampler_state<'e>(exec: &'e Exec<'_>, [batch, height, width, channels]: [usize; 4]) -> Result<State<'e>> {
    let f32s = |times: usize| exec.alloc([times * batch, height, width, channels], DType::F32);
    Ok(State {
        latents: f32s(1)?,
        base: f32s(1)?,
        history: f32s(HISTORY)?,
        input: exec.alloc([batch, height, width, channels], exec.storage())?,
        samples: exec.input_u32([batch, SAMPLE_WORDS], &vec![0; batch * SAMPLE_WORDS])?,
    })
}

/// Runs passes on a predicted GPU.
pub(super) struct Recorder<'d> {
    pub device: &'d Device,
    pub log: &'d Log,
}

impl Recorder<'_> {
    /// The operations of a pass, with what they put into the queue.
    pub fn pass(&self, name: &'static str, times: usize, mut pass: impl FnMut(&Exec<'_>) -> Result<()> + Send) -> Result<Pass> {
        let plan = Plan::record(self.device, &mut pass)?;
        self.log.take();
        let top = self.log.top();
        let costs = Costs::default();
        Arena::new().run_observed(self.device, &plan, Some(&costs), pass)?;
        let costs = costs.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let operation = |cost| Operation { cost, launches: Vec::new(), weights: 0, copied: 0, filled: 0 };
        let mut operations: Vec<Operation> = costs.into_iter().map(operation).collect();
        let mut begun = 0usize;
        for work in self.log.take() {
            if matches!(work, Work::Mark) {
                begun += 1;
                continue;
            }
            let current: Option<&mut Operation> = begun.checked_sub(1).and_then(|i| operations.get_mut(i));
            let Some(operation) = current else {
                let message = format!("work before the first of {} operations, or after more than that", operations.len());
                return Err(Error::Internal { op: "prediction", message });
            };
            match work {
                Work::Launch(launch) => {
                    // Buffers are older than the pass; of those that a layer's kernels take, weights and bias come first.
                    if ["linear", "conv2d"].contains(&operation.cost.op) {
                        let buffers = launch.addresses.iter().zip(&launch.shape.tensors).filter(|(address, _)| **address < top);
                        operation.weights += buffers.take(2).map(|(_, bytes)| bytes).sum::<u64>();
                    }
                    operation.launches.push(launch);
                }
                Work::Copy { bytes } => operation.copied += bytes,
                Work::Fill { bytes } => operation.filled += bytes,
                Work::Mark => {}
            }
        }
        Ok(Pass { name, times, operations })
    }
}
