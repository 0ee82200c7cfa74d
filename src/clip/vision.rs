//! CLIP's image transformer (transformers' `CLIPVisionModel`), up to the state of its class token.

use super::layers::{ClipLayers, LayersConfig, PRECISION, Sight};
use crate::device::{Buffer, Device, Exec, Tensor};
use crate::network::Build;
use crate::network::ConfigFile;
use crate::ops::elementwise::{repeat_batch, select_positions};
use crate::ops::gemm::{Activation, Linear, linear};
use crate::ops::norm::{Norm, layer_norm};
use crate::tensor::HostTensor;
use crate::weights::Loader;
use crate::{Error, Result};

/// Colours of a pixel.
const COLOURS: usize = 3;

/// Longest side of an input image that is believed.
const MAX_SIDE: usize = 1 << 13;

/// `vision_config` of `config.json` (transformers' `CLIPVisionConfig`, whose defaults apply to absent keys).
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Height and width of the input, in pixels.
    pub image_size: usize,
    /// Height and width of a patch, in pixels.
    pub patch_size: usize,
    /// The transformer.
    pub layers: LayersConfig,
}

impl VisionConfig {
    /// Reads the part of `config.json` that is about the image model.
    pub(crate) fn read(file: &ConfigFile) -> Result<VisionConfig> {
        file.expect("model_type", "clip_vision_model")?;
        file.expect("num_channels", COLOURS)?;
        let (activation, norm_eps) = (Activation::QuickGelu, 1e-5);
        let layers = LayersConfig { width: 768, inner: 3072, count: 12, heads: 12, activation, norm_eps };
        let image_size = file.usize("image_size", Some(224), 1..=MAX_SIDE)?;
        Ok(VisionConfig {
            image_size,
            patch_size: file.usize("patch_size", Some(32), 1..=image_size)?,
            layers: LayersConfig::read(file, layers)?,
        })
    }

    /// Patches along a side. A rest of the image that is smaller than a patch is not looked at.
    fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Positions of the transformer, T: the class token and the patches.
    pub fn positions(&self) -> usize {
        1 + self.grid() * self.grid()
    }

    /// Numbers of a patch, K.
    fn patch_len(&self) -> usize {
        COLOURS * self.patch_size * self.patch_size
    }

    /// Numbers that an image has as patches, T K: what [`VisionTransformer::forward`] reads for each.
    pub fn patches_len(&self) -> usize {
        self.positions() * self.patch_len()
    }

    /// Cuts an image `[3, H, W]` into patches `[T, K]` in the order of their weights, colours first. The class token has no pixels: zeros.
    ///
    /// # Errors
    /// If a length does not fit.
    pub fn cut(&self, image: &[f32], patches: &mut [f32]) -> Result<()> {
        let (size, patch, grid) = (self.image_size, self.patch_size, self.grid());
        if image.len() != COLOURS * size * size || patches.len() != self.patches_len() {
            let message = format!("{} pixel values into {} of patches", image.len(), patches.len());
            return Err(Error::shape("patches", message));
        }
        let (class, patches) = patches.split_at_mut(self.patch_len());
        class.fill(0.0);
        for (at, out) in patches.chunks_exact_mut(self.patch_len()).enumerate() {
            let (top, left) = (at / grid * patch, at % grid * patch);
            for (line, out) in out.chunks_exact_mut(patch).enumerate() {
                let (colour, y) = (line / patch, top + line % patch);
                out.copy_from_slice(&image[(colour * size + y) * size + left..][..patch]);
            }
        }
        Ok(())
    }
}

/// Patches of images to the states of their class tokens.
#[derive(Debug)]
pub struct VisionTransformer {
    config: VisionConfig,
    /// The convolution whose stride is its kernel, as the matrix product that it is.
    patch: Linear,
    /// What is added to the product, `[1, T, C]`: positions, and the class token in the first.
    positions: Buffer,
    pre_norm: Norm,
    layers: ClipLayers,
    post_norm: Norm,
}

impl VisionTransformer {
    /// Takes the weights under their names without the prefix `vision_model.`.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is not enough memory.
    pub fn new(config: VisionConfig, device: &Device, loader: &Loader<'_>) -> Result<VisionTransformer> {
        let build = Build::new(device, PRECISION, loader);
        let (width, eps, size) = (config.layers.width, config.layers.norm_eps, config.patch_size);
        let tables = build.scope("embeddings");
        let class = tables.tensor("class_embedding", &[width]);
        let mut patch = tables.tensor("patch_embedding.weight", &[width, COLOURS, size, size]);
        patch.shape = vec![width, config.patch_len()];
        let positions = tables.tensor("position_embedding.weight", &[config.positions(), width]);
        Ok(VisionTransformer {
            patch: Linear::prepare(device, PRECISION, &[(patch, None)])?,
            positions: with_class(device, &class, &positions)?,
            pre_norm: build.norm("pre_layrnorm", width, 1, eps)?, // sic
            layers: ClipLayers::new(&build, config.layers.clone(), Sight::All)?,
            post_norm: build.norm("post_layernorm", width, 1, eps)?,
            config,
        })
    }

    /// The architecture.
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// patches `[B, T, K]`, of each image as [`VisionConfig::cut`] makes them -> states of the class tokens, normalised, `[B, C]`.
    ///
    /// # Errors
    /// If there is no image, or a part of one.
    pub fn forward<'e>(&self, exec: &'e Exec<'_>, patches: &[f32]) -> Result<Tensor<'e>> {
        let batch = patches.len() / self.config.patches_len();
        if batch == 0 || patches.len() != batch * self.config.patches_len() {
            let message = format!("{} values; an image has {}", patches.len(), self.config.patches_len());
            return Err(Error::shape("vision", message));
        }
        let mut h = self.embed(exec, batch, patches)?;
        exec.observe(format_args!("vision.embeddings"), &h);
        h = layer_norm(exec, &self.pre_norm, &h)?;
        exec.observe(format_args!("vision.pre_layrnorm"), &h);
        h = self.layers.forward(exec, "vision", h)?;
        h = select_positions(exec, &h, |_| 0)?;
        h = layer_norm(exec, &self.post_norm, &h)?;
        exec.observe(format_args!("vision.post_layernorm"), &h);
        Ok(h)
    }

    fn embed<'e>(&self, exec: &'e Exec<'_>, batch: usize, patches: &[f32]) -> Result<Tensor<'e>> {
        let patches = exec.input([batch, self.config.positions(), self.config.patch_len()], patches)?;
        let positions = repeat_batch(exec, &exec.view(&self.positions), batch)?;
        linear(exec, &self.patch, &patches, Activation::None, Some(&positions))
    }
}

/// The position table `[T, C]` with the class token `[C]` added to its first row, as `[1, T, C]`.
fn with_class(device: &Device, class: &HostTensor<'_>, positions: &HostTensor<'_>) -> Result<Buffer> {
    let shape = [1, positions.shape[0], positions.shape[1]];
    if positions.is_declared() {
        return Buffer::try_zeros(device, shape, device.storage());
    }
    Buffer::from_rows(device, positions.keep("with class"), shape, device.storage(), |_, table| {
        positions.copy_f32(0, table);
        table.iter_mut().zip(class.to_f32()).for_each(|(p, c)| *p += c);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 5 x 5 image of 2 x 2 patches: the last line and column are left over.
    #[test]
    fn patches_are_cut_colours_first() {
        let layers = LayersConfig { width: 8, inner: 8, count: 1, heads: 1, activation: Activation::Gelu, norm_eps: 1e-5 };
        let config = VisionConfig { image_size: 5, patch_size: 2, layers };
        let image: Vec<f32> = (0..75).map(|i| i as f32).collect();
        let mut patches = vec![f32::NAN; config.patches_len()];
        config.cut(&image, &mut patches).unwrap();
        assert_eq!((config.positions(), patches.len()), (5, 60));
        assert_eq!(patches[..12], [0.0; 12]);
        assert_eq!(patches[12..24], [0.0, 1.0, 5.0, 6.0, 25.0, 26.0, 30.0, 31.0, 50.0, 51.0, 55.0, 56.0]);
        assert_eq!(patches[24..28], [2.0, 3.0, 7.0, 8.0]);
        assert_eq!(patches[48..52], [12.0, 13.0, 17.0, 18.0]);
        assert!(config.cut(&image[1..], &mut patches).is_err());
    }
}
