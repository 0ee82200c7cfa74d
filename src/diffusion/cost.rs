//! What images of a size cost, counted from recorded passes: no weights are read.

use super::model::ModelSpec;
use super::unet::{Conditions, Halves, TextState, Unet};
use super::vae::VaeDecoder;
use crate::Result;
use crate::clip::text::TextEncoder;
use crate::device::{Device, Plan, Precision};
use crate::ops::attention::KvRows;
use crate::weights::Loader;

/// Operations and memory of the three networks for a batch of images.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Operations of encoding one prompt, keys and values for the denoising network included, two for each multiply-add.
    pub text_flops: u64,
    /// Operations of one evaluation of the denoising network for the whole batch, guidance included.
    pub unet_flops: u64,
    /// Operations of decoding one image.
    pub vae_flops: u64,
    /// Memory for activations of encoding the prompts, in bytes.
    pub text_bytes: usize,
    /// Of an evaluation of the denoising network.
    pub unet_bytes: usize,
    /// Of decoding an image.
    pub vae_bytes: usize,
    /// Memory for the keys and values of one prompt, in bytes.
    pub prompt_bytes: usize,
    /// Memory for what the time of one step adds to the layers, in bytes.
    pub step_bytes: usize,
    /// Values of the text encoder's weights.
    pub text_weights: usize,
    /// Values of the weights of the denoising network and of the decoder.
    pub image_weights: usize,
}

impl Cost {
    /// Memory for activations, shared by all passes, in bytes.
    pub fn arena_bytes(&self) -> usize {
        self.text_bytes.max(self.unet_bytes).max(self.vae_bytes)
    }

    /// Counts for batches of `batch` images of `height` x `width` pixels.
    ///
    /// # Errors
    /// If the shapes do not fit the networks.
    pub fn count(spec: &ModelSpec, device: &Device, size: (usize, usize), batch: usize, guided: bool) -> Result<Cost> {
        let [channels, height, width] = spec.latent_shape(size.0, size.1);
        let length = spec.text.max_positions;
        let [text_loader, image_loader] = [Loader::declare(), Loader::declare()];
        let text = TextEncoder::new(spec.text.clone(), device, &text_loader)?;
        let unet = Unet::new(spec.unet.clone(), device, Precision::F32, &image_loader.scope("unet"))?;
        let mut state = TextState::zeros(device, &unet, batch, length)?;
        let text = Plan::record(device, |exec| {
            let hidden = text.forward(exec, &vec![0; batch * length], length)?;
            unet.encode_text(exec, &hidden, 0, &mut state)
        })?;

        let outputs = if guided { 2 * batch } else { batch };
        let time = unet.time_state(device, 1)?;
        let rows = KvRows::new(device, vec![0; outputs])?;
        let halves = if guided { Halves::Both } else { Halves::Prompts };
        let conditions = Conditions { time: &time, step: 0, text: &state, text_rows: &rows, halves };
        let unet = Plan::record(device, |exec| {
            let latents = exec.input([batch, height, width, channels], &[])?;
            unet.forward(exec, &latents, &conditions).map(drop)
        })?;

        let vae = VaeDecoder::new(spec.vae.clone(), device, Precision::F32, &image_loader.scope("vae"))?;
        let vae = Plan::record(device, |exec| vae.forward(exec, exec.input([1, height, width, channels], &[])?).map(drop))?;
        Ok(Cost {
            text_flops: text.flops() / batch as u64,
            unet_flops: unet.flops(),
            vae_flops: vae.flops(),
            text_bytes: text.bytes(),
            unet_bytes: unet.bytes(),
            vae_bytes: vae.bytes(),
            prompt_bytes: state.bytes() / batch,
            step_bytes: time.bytes(),
            text_weights: values(&text_loader),
            image_weights: values(&image_loader),
        })
    }
}

/// Values of all tensors that were declared.
fn values(loader: &Loader<'_>) -> usize {
    loader.declared().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
}
