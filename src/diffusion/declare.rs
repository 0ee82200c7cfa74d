//! The tensors of a component, from its configuration alone.

use super::text_encoder::{TextConfig, TextEncoder};
use super::unet::{Unet, UnetConfig};
use super::vae::{VaeConfig, VaeDecoder, VaeEncoder};
use crate::Result;
use crate::device::{Device, Precision};
use crate::weights::{Component, Loader, NamedShapes, read_json};
use std::path::Path;

/// Canonical names and shapes of all tensors of the component in `folder`, which needs to hold its `config.json` only.
///
/// # Errors
/// If the configuration cannot be read or is not supported.
pub fn declare_component(component: Component, folder: &Path) -> Result<NamedShapes> {
    let path = folder.join("config.json");
    let config = read_json(&path)?;
    let device = Device::cpu(1)?;
    let loader = Loader::declare();
    match component {
        Component::TextEncoder => drop(TextEncoder::new(TextConfig::parse(&path, &config)?, &device, &loader)?),
        Component::Unet => drop(Unet::new(UnetConfig::parse(&path, &config)?, &device, Precision::F32, &loader)?),
        Component::Vae => {
            let config = VaeConfig::parse(&path, &config)?;
            drop(VaeDecoder::new(config.clone(), &device, Precision::F32, &loader)?);
            drop(VaeEncoder::new(config, &device, Precision::F32, &loader)?);
        }
    }
    Ok(loader.declared())
}
