//! The models' own declarations, on the configurations of random models, against what is known of the real ones.

use std::path::Path;
use syntic::Result;
use syntic::clip::text::{TextConfig, TextEncoder};
use syntic::device::{Device, Precision};
use syntic::diffusion::unet::{Unet, UnetConfig};
use syntic::diffusion::vae::{VaeConfig, VaeDecoder, VaeEncoder};
use syntic::weights::{Arch, Component, Loader, ModelDir, NamedShapes, write_model_folder};

/// All tensors of a component, by building it on a declaring loader.
fn declared(component: Component, config: &str) -> Result<NamedShapes> {
    let (path, json) = (Path::new("config.json"), serde_json::from_str(config).unwrap());
    let device = Device::cpu(1)?;
    let loader = Loader::declare();
    match component {
        Component::TextEncoder => drop(TextEncoder::new(TextConfig::parse(path, &json)?, &device, &loader)?),
        Component::Unet => drop(Unet::new(UnetConfig::parse(path, &json)?, &device, Precision::F32, &loader)?),
        Component::Vae => {
            let config = VaeConfig::parse(path, &json)?;
            drop(VaeEncoder::new(config.clone(), &device, Precision::F32, &loader)?);
            drop(VaeDecoder::new(config, &device, Precision::F32, &loader)?);
        }
    }
    loader.finish()?;
    Ok(loader.declared())
}

/// Numbers of tensors and of parameters that diffusers and transformers report for the same configurations.
#[test]
fn architectures_have_the_published_sizes() {
    let expected = [
        (Arch::Sd15, [(196, 123_060_480), (686, 859_520_964), (248, 83_653_863)]),
        (Arch::Sd21, [(372, 340_387_840), (686, 865_910_724), (248, 83_653_863)]),
        (Arch::Tiny, [(36, 1_600_672), (324, 376_132), (180, 81_215)]),
    ];
    for (arch, sizes) in expected {
        for (component, expected) in Component::ALL.into_iter().zip(sizes) {
            let tensors = declared(component, arch.config(component)).unwrap();
            let parameters: usize = tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
            assert_eq!((tensors.len(), parameters), expected, "{} {component:?}", arch.name());
        }
    }
}

/// The whole circle: declare, write, check, read.
#[test]
fn a_tiny_model_loads_into_the_networks() {
    use syntic::tensor::DType;
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("tiny");
    write_model_folder(&out, Arch::Tiny, DType::F16, 5, &|component, _| declared(component, Arch::Tiny.config(component)))
        .unwrap();
    let model = ModelDir::open(out.to_str().unwrap()).unwrap();
    let device = Device::cpu(1).unwrap();
    let config = serde_json::from_str(Arch::Tiny.config(Component::Unet)).unwrap();
    let config = UnetConfig::parse(Path::new("config.json"), &config).unwrap();
    let unet = model.checkpoint(Component::Unet).unwrap();
    unet.load(|loader| Unet::new(config.clone(), &device, Precision::F32, loader)).map(drop).unwrap();
}
