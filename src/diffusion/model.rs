//! A Stable Diffusion checkpoint as three networks and a scheduler's configuration.

use super::cost::Cost;
use super::schedulers::SchedulerConfig;
use super::unet::{Unet, UnetConfig};
use super::vae::{VaeConfig, VaeDecoder, VaeEncoder};
use crate::clip::text::{TextConfig, TextEncoder};
use crate::device::{Device, Precision};
use crate::ops::gemm::packed_layout;
use crate::weights::{Arch, Component, Loader, ModelDir, NamedShapes, Packing, read_json};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// The configurations of a model, read and compared with each other before any weights are.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    /// `text_encoder/config.json`.
    pub text: TextConfig,
    /// `unet/config.json`.
    pub unet: UnetConfig,
    /// `vae/config.json`.
    pub vae: VaeConfig,
    /// `scheduler/scheduler_config.json`.
    pub scheduler: SchedulerConfig,
}

impl ModelSpec {
    /// Reads the configurations of a model folder.
    ///
    /// # Errors
    /// [`Error::Config`] for a value that is not supported or contradicts another file; [`Error::Io`] and [`Error::Format`]
    /// for the files themselves.
    pub fn read(model: &ModelDir) -> Result<ModelSpec> {
        let [text_path, unet_path, vae_path] = [
            config_path(&model.component(Component::TextEncoder.folder())?),
            config_path(&model.component(Component::Unet.folder())?),
            config_path(&model.component(Component::Vae.folder())?),
        ];
        let scheduler_path = model.component("scheduler")?.join("scheduler_config.json");
        let spec = ModelSpec {
            text: TextConfig::parse(&text_path, &read_json(&text_path)?)?,
            unet: UnetConfig::parse(&unet_path, &read_json(&unet_path)?)?,
            vae: VaeConfig::parse(&vae_path, &read_json(&vae_path)?)?,
            scheduler: SchedulerConfig::read(&scheduler_path)?,
        };
        check_together(&unet_path, &spec.text, &spec.unet, &spec.vae)?;
        Ok(spec)
    }

    /// The published configuration of an architecture, which this program has with it.
    ///
    /// # Errors
    /// None but a configuration that this program does not support.
    pub fn published(arch: Arch) -> Result<ModelSpec> {
        let path = |name: &str| PathBuf::from(arch.name()).join(name);
        let json = |path: &Path, text: &str| {
            serde_json::from_str(text).map_err(|e| Error::format(path, format!("line {}", e.line()), e.to_string()))
        };
        let config = |component: Component| {
            let path = config_path(&path(component.folder()));
            json(&path, arch.config(component)).map(|json: serde_json::Value| (path, json))
        };
        let [text, unet, vae] = [config(Component::TextEncoder)?, config(Component::Unet)?, config(Component::Vae)?];
        let scheduler = path("scheduler/scheduler_config.json");
        let spec = ModelSpec {
            text: TextConfig::parse(&text.0, &text.1)?,
            unet: UnetConfig::parse(&unet.0, &unet.1)?,
            vae: VaeConfig::parse(&vae.0, &vae.1)?,
            scheduler: SchedulerConfig::from_json(&scheduler, &json(&scheduler, arch.scheduler_config())?)?,
        };
        check_together(&unet.0, &spec.text, &spec.unet, &spec.vae)?;
        Ok(spec)
    }

    /// Pixels in height and in width must be a multiple of this: the factor of the autoencoder.
    pub fn size_multiple(&self) -> usize {
        self.vae.factor()
    }

    /// Height and width in pixels that the model was trained at.
    pub fn default_size(&self) -> usize {
        self.unet.sample_size.unwrap_or(64) * self.vae.factor()
    }

    /// Channels, height and width of the latents of an image of this size in pixels.
    pub fn latent_shape(&self, height: usize, width: usize) -> [usize; 3] {
        [self.vae.latent_channels, height / self.vae.factor(), width / self.vae.factor()]
    }

    /// What images of a size in pixels (height, width) cost. Reads no weights.
    ///
    /// # Errors
    /// If the shapes do not fit the networks.
    pub fn cost(&self, device: &Device, size: (usize, usize), batch: usize, guided: bool) -> Result<Cost> {
        Cost::count(self, device, size, batch, guided)
    }

    /// Checks a size in pixels.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the nearest sizes that work.
    pub fn check_size(&self, height: usize, width: usize) -> Result<()> {
        let multiple = self.size_multiple();
        for (name, value) in [("height", height), ("width", width)] {
            if value == 0 || !value.is_multiple_of(multiple) || value > MAX_SIDE {
                let below = (value / multiple * multiple).clamp(multiple, MAX_SIDE);
                let above = (below + multiple).min(MAX_SIDE);
                let message = format!("--{name} {value} is not a multiple of {multiple} up to {MAX_SIDE}, as this model needs");
                return Err(Error::usage(message, format!("use --{name} {below} or --{name} {above}")));
            }
        }
        Ok(())
    }

    /// Checks a number of images (or prompts) to be made at once.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the limit.
    pub fn check_batch(&self, batch: usize) -> Result<()> {
        if !(1..=MAX_BATCH).contains(&batch) {
            return Err(Error::usage(format!("--batch {batch} is not from 1 to {MAX_BATCH}"), "batches of 1 to 16 are usual"));
        }
        Ok(())
    }

    /// Checks the names, shapes and types of all tensors that [`StableDiffusion::load`] reads, but not their values.
    ///
    /// # Errors
    /// Those of [`StableDiffusion::load`] about weights.
    pub fn check_weights(&self, model: &ModelDir, device: &Device) -> Result<()> {
        let precision = Precision::F32;
        let text = model.checkpoint(Component::TextEncoder)?;
        text.check_model(|loader| TextEncoder::new(self.text.clone(), device, loader))?;
        let unet = model.checkpoint(Component::Unet)?;
        unet.check_model(|loader| Unet::new(self.unet.clone(), device, precision, loader))?;
        let vae = model.checkpoint(Component::Vae)?.skip(&DECODER_SKIPS);
        vae.check_model(|loader| VaeDecoder::new(self.vae.clone(), device, precision, loader))
    }
}

/// Tensors of an autoencoder that making images does without.
const DECODER_SKIPS: [&str; 2] = ["encoder.", "quant_conv."];

/// Longest side of an image, in pixels.
const MAX_SIDE: usize = 1 << 14;

/// Most images at once: more than is of any use, and few enough that products of extents fit in 64 bits.
const MAX_BATCH: usize = 1 << 10;

/// The networks that make images, on a device. The autoencoder's encoder is not among them: see [`load_vae_encoder`].
#[derive(Debug)]
pub struct StableDiffusion {
    /// Where the networks live.
    pub device: Device,
    /// What they are.
    pub spec: ModelSpec,
    /// Token ids to hidden states.
    pub text: TextEncoder,
    /// Latents to predictions.
    pub unet: Unet,
    /// Latents to images.
    pub vae: VaeDecoder,
    /// Why the next load has to convert the weights again, if so and if that can be helped.
    pub unkept: Option<String>,
}

impl StableDiffusion {
    /// Loads the weights of a model folder.
    ///
    /// # Errors
    /// [`Error::Weights`] with all the tensors of a component that do not fit; [`Error::Io`], [`Error::Format`] and
    /// [`Error::Usage`] for the files themselves; those of [`ModelSpec::read`].
    pub fn load(model: &ModelDir, device: &Device, precision: Precision) -> Result<StableDiffusion> {
        let spec = ModelSpec::read(model)?;
        let (text, text_packing) = text_encoder(model, device)?;
        let (unet, unet_packing) = unet(model, device, precision)?;
        let (vae, vae_packing) = vae_decoder(model, device, precision)?;
        let unkept = [text_packing, unet_packing, vae_packing].into_iter().find_map(|packing| packing.problem);
        Ok(StableDiffusion { device: device.clone(), spec, text, unet, vae, unkept })
    }
}

/// Loads the text encoder alone.
///
/// # Errors
/// As [`StableDiffusion::load`].
pub fn load_text_encoder(model: &ModelDir, device: &Device) -> Result<TextEncoder> {
    text_encoder(model, device).map(|(text, _)| text)
}

fn text_encoder(model: &ModelDir, device: &Device) -> Result<(TextEncoder, Packing)> {
    let path = config_path(&model.component(Component::TextEncoder.folder())?);
    let config = TextConfig::parse(&path, &read_json(&path)?)?;
    let checkpoint = model.checkpoint(Component::TextEncoder)?;
    checkpoint.load_packed(packed_layout(device), |loader| TextEncoder::new(config.clone(), device, loader))
}

/// Loads the denoising network alone.
///
/// # Errors
/// As [`StableDiffusion::load`].
pub fn load_unet(model: &ModelDir, device: &Device, precision: Precision) -> Result<Unet> {
    unet(model, device, precision).map(|(unet, _)| unet)
}

fn unet(model: &ModelDir, device: &Device, precision: Precision) -> Result<(Unet, Packing)> {
    let path = config_path(&model.component(Component::Unet.folder())?);
    let config = UnetConfig::parse(&path, &read_json(&path)?)?;
    let checkpoint = model.checkpoint(Component::Unet)?;
    checkpoint.load_packed(packed_layout(device), |loader| Unet::new(config.clone(), device, precision, loader))
}

/// Loads the half of the autoencoder that makes images.
///
/// # Errors
/// As [`StableDiffusion::load`].
pub fn load_vae_decoder(model: &ModelDir, device: &Device, precision: Precision) -> Result<VaeDecoder> {
    vae_decoder(model, device, precision).map(|(vae, _)| vae)
}

fn vae_decoder(model: &ModelDir, device: &Device, precision: Precision) -> Result<(VaeDecoder, Packing)> {
    let path = config_path(&model.component(Component::Vae.folder())?);
    let config = VaeConfig::parse(&path, &read_json(&path)?)?;
    let checkpoint = model.checkpoint(Component::Vae)?.skip(&DECODER_SKIPS);
    checkpoint.load_packed(packed_layout(device), |loader| VaeDecoder::new(config.clone(), device, precision, loader))
}

/// Loads the half of the autoencoder that generation does without.
///
/// # Errors
/// As [`StableDiffusion::load`].
pub fn load_vae_encoder(model: &ModelDir, device: &Device, precision: Precision) -> Result<VaeEncoder> {
    let path = config_path(&model.component(Component::Vae.folder())?);
    let config = VaeConfig::parse(&path, &read_json(&path)?)?;
    let checkpoint = model.checkpoint(Component::Vae)?.skip(&["decoder.", "post_quant_conv."]);
    let new = |loader: &Loader<'_>| VaeEncoder::new(config.clone(), device, precision, loader);
    checkpoint.load_packed(packed_layout(device), new).map(|(vae, _)| vae)
}

/// Names and shapes of all tensors of a component, from the `config.json` in `folder`.
///
/// # Errors
/// [`Error::Config`] for a configuration that is not supported.
pub fn declared_tensors(component: Component, folder: &Path) -> Result<NamedShapes> {
    let device = &Device::cpu(1)?;
    let path = config_path(folder);
    let json = read_json(&path)?;
    let loader = Loader::declare();
    match component {
        Component::TextEncoder => drop(TextEncoder::new(TextConfig::parse(&path, &json)?, device, &loader)?),
        Component::Unet => drop(Unet::new(UnetConfig::parse(&path, &json)?, device, Precision::F32, &loader)?),
        Component::Vae => {
            let config = VaeConfig::parse(&path, &json)?;
            VaeEncoder::new(config.clone(), device, Precision::F32, &loader)?;
            VaeDecoder::new(config, device, Precision::F32, &loader)?;
        }
    }
    Ok(loader.declared())
}

fn config_path(folder: &Path) -> PathBuf {
    folder.join("config.json")
}

/// The networks fit each other.
fn check_together(path: &Path, text: &TextConfig, unet: &UnetConfig, vae: &VaeConfig) -> Result<()> {
    let (context, width) = (unet.levels[0].context, text.layers.width);
    if context != width {
        let message = format!("the network reads text states of {context} channels, the text encoder makes {width}");
        return Err(Error::config(path, "cross_attention_dim", message));
    }
    if unet.in_channels != vae.latent_channels {
        let message =
            format!("the network works on {} channels, the autoencoder's latents have {}", unet.in_channels, vae.latent_channels);
        return Err(Error::config(path, "in_channels", message));
    }
    Ok(())
}
