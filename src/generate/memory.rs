//! The memory that a run takes, and the number of images at once that fits into what is free.

use super::Batch;
use crate::device::{Device, Precision};
use crate::diffusion::ModelSpec;
use crate::ops::sampler::HISTORY;
use crate::{Error, Result};

/// Numbers of images that [`Batch::Auto`] chooses from.
const CANDIDATES: [usize; 15] = [1, 2, 3, 4, 5, 6, 7, 8, 16, 24, 32, 40, 48, 56, 64];

/// What [`Batch::Auto`] leaves free: kernels, graphs and copies of the driver, and what an allocator rounds up to.
const MARGIN: u64 = 512 << 20;

/// What a batch takes of a device's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MemoryPlan {
    /// Weights of the three networks, in the types that the device computes in; what layouts add to them is not counted.
    pub weights: u64,
    /// Activations of encoding the prompts, of evaluating the denoising network, and of decoding one image: one arena serves them all.
    pub text: u64,
    pub unet: u64,
    pub vae: u64,
    /// What outlives a pass: keys and values of the prompts, time biases of all steps, and the state of the denoising loop.
    pub buffers: u64,
}

impl MemoryPlan {
    /// Counts for `batch` images of `size` in `evaluations` steps.
    pub fn count(
        spec: &ModelSpec,
        device: &Device,
        precision: Precision,
        size: (usize, usize),
        batch: usize,
        guided: bool,
        evaluations: usize,
    ) -> Result<MemoryPlan> {
        let cost = spec.cost(device, size, batch, guided)?;
        let weights =
            cost.text_weights * device.operands(Precision::F32).size() + cost.image_weights * device.operands(precision).size();
        // A CPU keeps one set of latents beside its passes, which is nothing; a GPU keeps the whole state of the loop: latents, base, history
        // and noise in f32, the input of the network, and the pixels of one image.
        let state = match device {
            Device::Cpu(_) => 0,
            Device::Gpu(gpu) => {
                let values: usize = spec.latent_shape(size.0, size.1).iter().product();
                batch * values * ((3 + HISTORY) * size_of::<f32>() + gpu.storage().size()) + 3 * size.0 * size.1
            }
        };
        Ok(MemoryPlan {
            weights: weights as u64,
            text: cost.text_bytes as u64,
            unet: cost.unet_bytes as u64,
            vae: cost.vae_bytes as u64,
            // The negative prompt and those of the batch.
            buffers: (cost.prompt_bytes * (1 + batch) + cost.step_bytes * evaluations + state) as u64,
        })
    }

    /// The arena: the passes take turns.
    pub fn activations(&self) -> u64 {
        self.text.max(self.unet).max(self.vae)
    }

    /// All of it, at the most.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.activations()).saturating_add(self.buffers)
    }

    /// The arena and what each pass needs of it.
    pub fn describe_activations(&self) -> String {
        let [most, text, unet, vae] = [self.activations(), self.text, self.unet, self.vae].map(amount);
        format!("{most} (text {text}, UNet {unet}, VAE {vae}, in turns)")
    }
}

/// The number of images at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub batch: usize,
    /// What that takes.
    pub plan: MemoryPlan,
    /// Why it is this many.
    pub because: String,
}

/// Chooses how many images are made at once on `device`, or checks what was asked for. `most` images make the largest shard, `free` bytes
/// are free, where that is known, and `count` tells what a batch takes.
///
/// # Errors
/// [`Error::Usage`] naming the plan and the largest batch that fits; those of `count`.
pub(super) fn choose(
    asked: Batch,
    device: &Device,
    most: usize,
    free: Option<u64>,
    count: impl Fn(usize) -> Result<MemoryPlan>,
) -> Result<Choice> {
    let place = match device {
        Device::Gpu(gpu) if !gpu.is_simulated() => "the card",
        Device::Gpu(_) | Device::Cpu(_) => "this machine",
    };
    let fixed = match asked {
        Batch::Images(batch) => Some((batch, "as asked for")),
        Batch::Usual if place != "the card" => Some((1, "the default on a processor")),
        Batch::Usual | Batch::Auto => None,
    };
    let Some((batch, because)) = fixed else { return automatic(place, most, free, count) };
    let plan = count(batch)?;
    if free.is_none_or(|free| plan.total() <= free) {
        return Ok(Choice { batch, plan, because: because.into() });
    }
    let fits = largest(batch, free, &count)?;
    Err(too_large(place, batch, &plan, free, fits.map(|(batch, _)| batch)))
}

fn automatic(place: &str, most: usize, free: Option<u64>, count: impl Fn(usize) -> Result<MemoryPlan>) -> Result<Choice> {
    let Some(bytes) = free else {
        let because = "the system does not tell how much memory is free".into();
        return Ok(Choice { batch: 1, plan: count(1)?, because });
    };
    // No larger than the next candidate from the largest shard on: batches do not cross shards.
    let most = CANDIDATES.into_iter().find(|&batch| batch >= most).unwrap_or(CANDIDATES[CANDIDATES.len() - 1]);
    let Some((batch, plan)) = largest(most, free, &count)? else {
        return Err(too_large(place, 1, &count(1)?, free, None));
    };
    let because = match batch == most {
        true if batch == CANDIDATES[CANDIDATES.len() - 1] => "more at once gain nothing".into(),
        true => "a shard holds no more".into(),
        false => format!("the largest that fits into the {} that {place} has free, less {}", amount(bytes), amount(MARGIN)),
    };
    Ok(Choice { batch, plan, because })
}

/// The largest candidate up to `most` whose plan fits into what is free, less the margin.
fn largest(most: usize, free: Option<u64>, count: &impl Fn(usize) -> Result<MemoryPlan>) -> Result<Option<(usize, MemoryPlan)>> {
    let room = free.unwrap_or(0).saturating_sub(MARGIN);
    let (mut fits, mut low) = (None, 0);
    let mut high = CANDIDATES.partition_point(|&batch| batch <= most);
    // Larger batches take more, so half of what is left can be ruled out at each turn: to count is to record whole networks.
    while low < high {
        let middle = (low + high) / 2;
        let plan = count(CANDIDATES[middle])?;
        if plan.total() <= room {
            (fits, low) = (Some((CANDIDATES[middle], plan)), middle + 1);
        } else {
            high = middle;
        }
    }
    Ok(fits)
}

fn too_large(place: &str, batch: usize, plan: &MemoryPlan, free: Option<u64>, fits: Option<usize>) -> Error {
    let [all, weights, activations, buffers] = [plan.total(), plan.weights, plan.activations(), plan.buffers].map(amount);
    let free = amount(free.unwrap_or(0));
    let message = format!(
        "--batch {batch} needs {all} (weights {weights}, activations {activations}, buffers {buffers}), {place} has {free} free"
    );
    match fits {
        Some(fits) => Error::usage(message, format!("use --batch {fits}")),
        None => Error::usage(message, "use a smaller --height and --width, or a device with more free memory"),
    }
}

/// "15.8 GiB", "31 MiB".
pub(super) fn amount(bytes: u64) -> String {
    match bytes {
        0x4000_0000.. => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
        _ => format!("{} MiB", bytes.div_ceil(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const GIB: u64 = 1 << 30;

    /// 2 GiB of weights, and 256 MiB an image.
    fn plan(batch: usize) -> MemoryPlan {
        MemoryPlan { weights: 2 * GIB, text: 5, unet: batch as u64 * GIB / 4, vae: GIB / 8, buffers: 1 << 20 }
    }

    fn choice(asked: Batch, most: usize, free: Option<u64>) -> Result<Choice> {
        choose(asked, &Device::cpu(1).unwrap(), most, free, |batch| Ok(plan(batch)))
    }

    #[test]
    fn the_largest_batch_that_fits_is_chosen() {
        let auto = |gib: u64| choice(Batch::Auto, 1000, Some(gib * GIB)).unwrap();
        assert_eq!([4, 5, 6, 7, 8, 16, 20].map(|gib| auto(gib).batch), [5, 8, 8, 16, 16, 48, 64]);
        assert!(auto(8).because.contains("8.0 GiB") && auto(20).because.contains("gain nothing"));
        // At the limit to the byte.
        let limit = plan(24).total() + MARGIN;
        assert_eq!([limit - 1, limit].map(|free| choice(Batch::Auto, 1000, Some(free)).unwrap().batch), [16, 24]);
        // Enough for the largest shard.
        assert_eq!([1, 6, 9, 40, 41].map(|most| choice(Batch::Auto, most, Some(99 * GIB)).unwrap().batch), [1, 6, 16, 40, 48]);
        assert_eq!(choice(Batch::Auto, 1000, None).unwrap().batch, 1);
    }

    #[test]
    fn few_plans_are_counted() {
        let counted = Cell::new(0);
        let count = |batch| {
            counted.set(counted.get() + 1);
            Ok(plan(batch))
        };
        choose(Batch::Auto, &Device::cpu(1).unwrap(), 1000, Some(8 * GIB), count).unwrap();
        assert!(counted.get() <= 4, "{counted:?}");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_does() {
        let refuse = |batch: usize, free: u64| {
            let error = choice(Batch::Images(batch), 1000, Some(free)).unwrap_err();
            assert!(matches!(error, Error::Usage { .. }));
            format!("{error}; {}", error.hint().unwrap_or_default())
        };
        let said = refuse(64, 15 * GIB);
        let parts = "--batch 64 needs 18.0 GiB (weights 2.0 GiB, activations 16.0 GiB, buffers 1 MiB), this machine has 15.0 GiB free; use --batch 48";
        assert_eq!(said, parts);
        assert!(refuse(1, GIB).ends_with("1.0 GiB free; use a smaller --height and --width, or a device with more free memory"));
        let error = choice(Batch::Auto, 1000, Some(2 * GIB)).unwrap_err().to_string();
        assert!(error.contains("--batch 1 needs 2.3 GiB"), "{error}");
    }

    #[test]
    fn what_was_asked_for_is_taken_if_it_fits() {
        assert_eq!(choice(Batch::Images(13), 1000, Some(plan(13).total())).unwrap().batch, 13);
        assert!(choice(Batch::Images(13), 1000, Some(plan(13).total() - 1)).is_err());
        assert_eq!(choice(Batch::Images(13), 1000, None).unwrap().batch, 13);
        assert_eq!(choice(Batch::Usual, 1000, Some(99 * GIB)).unwrap().batch, 1, "on a CPU");
    }
}
