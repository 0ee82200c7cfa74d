//! A Stable Diffusion checkpoint as three networks and a scheduler's configuration.

use super::schedulers::SchedulerConfig;
use super::text_encoder::{TextConfig, TextEncoder};
use super::unet::{Unet, UnetConfig};
use super::vae::{VaeConfig, VaeDecoder, VaeEncoder};
use crate::device::{Device, Precision};
use crate::weights::{Component, Loader, ModelDir, NamedShapes, read_json};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// The networks that make images, on a device. The autoencoder's encoder is not among them: see [`load_vae_encoder`].
#[derive(Debug)]
pub struct StableDiffusion {
    /// Where the networks live.
    pub device: Device,
    /// Token ids to hidden states.
    pub text: TextEncoder,
    /// Latents to predictions.
    pub unet: Unet,
    /// Latents to images.
    pub vae: VaeDecoder,
    /// `scheduler/scheduler_config.json`.
    pub scheduler: SchedulerConfig,
}

impl StableDiffusion {
    /// Loads a model folder. Every configuration is read and compared with the others before any weights are.
    ///
    /// # Errors
    /// [`Error::Config`] for a value that is not supported or contradicts another file; [`Error::Weights`] with all the
    /// tensors of a component that do not fit; [`Error::Io`], [`Error::Format`] and [`Error::Usage`] for the files themselves.
    pub fn load(model: &ModelDir, device: &Device, precision: Precision) -> Result<StableDiffusion> {
        let [text_path, unet_path, vae_path] = [
            config_path(&model.component(Component::TextEncoder.folder())?),
            config_path(&model.component(Component::Unet.folder())?),
            config_path(&model.component(Component::Vae.folder())?),
        ];
        let text_config = TextConfig::parse(&text_path, &read_json(&text_path)?)?;
        let unet_config = UnetConfig::parse(&unet_path, &read_json(&unet_path)?)?;
        let vae_config = VaeConfig::parse(&vae_path, &read_json(&vae_path)?)?;
        let scheduler_path = model.component("scheduler")?.join("scheduler_config.json");
        let scheduler = SchedulerConfig::from_json(&scheduler_path, &read_json(&scheduler_path)?)?;
        check_together(&unet_path, &text_config, &unet_config, &vae_config)?;

        let checkpoint = model.checkpoint(Component::TextEncoder)?;
        let text = checkpoint.load(|loader| TextEncoder::new(text_config.clone(), device, loader))?;
        let checkpoint = model.checkpoint(Component::Unet)?;
        let unet = checkpoint.load(|loader| Unet::new(unet_config.clone(), device, precision, loader))?;
        let checkpoint = model.checkpoint(Component::Vae)?.skip(&["encoder.", "quant_conv."]);
        let vae = checkpoint.load(|loader| VaeDecoder::new(vae_config.clone(), device, precision, loader))?;
        Ok(StableDiffusion { device: device.clone(), text, unet, vae, scheduler })
    }

    /// Pixels in height and in width must be a multiple of this: the factor of the autoencoder.
    pub fn size_multiple(&self) -> usize {
        self.vae.config().factor()
    }

    /// Height and width in pixels that the model was trained at.
    pub fn default_size(&self) -> usize {
        self.unet.config().sample_size.unwrap_or(64) * self.vae.config().factor()
    }

    /// Checks a size in pixels.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the nearest sizes that work.
    pub fn check_size(&self, height: usize, width: usize) -> Result<()> {
        let multiple = self.size_multiple();
        for (name, value) in [("height", height), ("width", width)] {
            if value == 0 || !value.is_multiple_of(multiple) || value > 1 << 14 {
                let below = (value / multiple * multiple).clamp(multiple, 1 << 14);
                let above = (below + multiple).min(1 << 14);
                let message = format!("{name} {value} is not a multiple of {multiple} up to {}, as this model needs", 1 << 14);
                return Err(Error::usage(message, format!("use --{name} {below} or --{name} {above}")));
            }
        }
        Ok(())
    }
}

/// Loads the half of the autoencoder that generation does without.
///
/// # Errors
/// As [`StableDiffusion::load`].
pub fn load_vae_encoder(model: &ModelDir, device: &Device, precision: Precision) -> Result<VaeEncoder> {
    let path = config_path(&model.component(Component::Vae.folder())?);
    let config = VaeConfig::parse(&path, &read_json(&path)?)?;
    let checkpoint = model.checkpoint(Component::Vae)?.skip(&["decoder.", "post_quant_conv."]);
    checkpoint.load(|loader| VaeEncoder::new(config.clone(), device, precision, loader))
}

/// Names and shapes of all tensors of a component, from the `config.json` in `folder`.
///
/// # Errors
/// [`Error::Config`] for a configuration that is not supported.
pub fn declared_tensors(component: Component, folder: &Path, device: &Device) -> Result<NamedShapes> {
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
    let context = unet.levels[0].context;
    if context != text.width {
        let message = format!("the network reads text states of {context} channels, the text encoder makes {}", text.width);
        return Err(Error::config(path, "cross_attention_dim", message));
    }
    if unet.in_channels != vae.latent_channels {
        let message =
            format!("the network works on {} channels, the autoencoder's latents have {}", unet.in_channels, vae.latent_channels);
        return Err(Error::config(path, "in_channels", message));
    }
    Ok(())
}
