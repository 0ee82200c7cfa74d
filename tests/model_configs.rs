//! Odd `config.json` files: a network, or an error that names the file; never a panic.

use proptest::prelude::*;
use serde_json::Value;
use std::path::Path;
use syntic::clip::text::{TextConfig, TextEncoder};
use syntic::device::{Device, Precision};
use syntic::diffusion::unet::{Unet, UnetConfig};
use syntic::diffusion::vae::{VaeConfig, VaeDecoder, VaeEncoder};
use syntic::weights::{Arch, Component, Loader};
use syntic::{Error, Result};

const VALUES: &str = r#"[null, true, false, 0, 1, 2, 3, 7, 32, 65536, -1, 0.5, 1e-300, 1e300, 18446744073709551615, "", "silu", "gelu",
    [], [0], [1], [32, 64], [4, 4], ["DownBlock2D", "CrossAttnDownBlock2D"], ["UpBlock2D", "UpBlock2D"], [[]], {}]"#;

/// Reads a configuration and declares its network, without weights.
fn declare(component: Component, path: &Path, json: &Value) -> Result<()> {
    let (device, loader) = (&Device::cpu(1)?, &Loader::declare());
    match component {
        Component::TextEncoder => TextEncoder::new(TextConfig::parse(path, json)?, device, loader).map(drop),
        Component::Unet => Unet::new(UnetConfig::parse(path, json)?, device, Precision::F32, loader).map(drop),
        Component::Vae => {
            let config = VaeConfig::parse(path, json)?;
            assert!(config.factor() <= 128);
            VaeEncoder::new(config.clone(), device, Precision::F32, loader)?;
            VaeDecoder::new(config, device, Precision::F32, loader).map(drop)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn odd_values_are_refused_by_name_or_make_a_network(
        component in prop::sample::select(Component::ALL.to_vec()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4),
    ) {
        let values: Vec<Value> = serde_json::from_str(VALUES).unwrap();
        let mut json: Value = serde_json::from_str(Arch::Tiny.config(component)).unwrap();
        let keys: Vec<String> = json.as_object().unwrap().keys().cloned().collect();
        for (key, value) in changes {
            json[key.get(&keys).as_str()] = value.get(&values).clone();
        }
        match declare(component, Path::new("config.json"), &json) {
            Ok(()) => {}
            Err(Error::Config { path, key, .. }) => {
                prop_assert_eq!(path, Path::new("config.json"));
                prop_assert!(!key.is_empty());
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
