//! Parameters and floating-point operations of the full-size networks, counted from declared shapes: no weights, no memory.
//! The expected numbers were counted on the module graphs of diffusers 0.42.1 and transformers (meta tensors).

use std::path::Path;
use syntic::clip::text::{TextConfig, TextEncoder};
use syntic::clip::{ClipConfig, ClipModel};
use syntic::device::{Device, Plan, Precision};
use syntic::diffusion::unet::{Conditions, Halves, TextState, Unet, UnetConfig};
use syntic::diffusion::vae::{VaeConfig, VaeDecoder, VaeEncoder};
use syntic::ops::attention::KvRows;
use syntic::weights::{Arch, Component, Loader};

fn json(arch: Arch, component: Component) -> serde_json::Value {
    serde_json::from_str(arch.config(component)).unwrap()
}

fn parameters(loader: &Loader<'_>) -> usize {
    loader.declared().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
}

/// Of the products, as the references count them; norms and single elements add less than a five-hundredth.
fn gflop(plan: &Plan) -> f64 {
    let products = plan.ops().iter().filter(|op| ["linear", "conv2d", "attention"].contains(&op.op));
    products.map(|op| op.flops as f64).sum::<f64>() / 1e9
}

fn assert_close(name: &str, found: f64, expected: f64) {
    // One decimal is known.
    assert!((found - expected).abs() <= 0.1 + 1e-4 * expected, "{name}: {found} GFLOP, expected {expected}");
}

fn device() -> Device {
    Device::cpu(1).unwrap()
}

fn declare_unet(arch: Arch) -> (Unet, usize) {
    let config = UnetConfig::parse(Path::new("unet/config.json"), &json(arch, Component::Unet)).unwrap();
    let loader = Loader::declare();
    let unet = Unet::new(config, &device(), Precision::F32, &loader).unwrap();
    (unet, parameters(&loader))
}

/// GFLOP of time and text, which diffusers computes in every step, and of one evaluation at 64 x 64.
fn count_unet(unet: &Unet, halves: Halves) -> (f64, f64) {
    let device = device();
    let prompts = if halves == Halves::Prompts { 1 } else { 2 };
    let mut text = TextState::zeros(&device, unet, prompts, 77).unwrap();
    let mut time = unet.time_state(&device, 1).unwrap();
    let context = unet.config().levels[0].context;
    let before = Plan::record(&device, |exec| {
        unet.encode_time(exec, &[1.0], 1.0, &mut time)?;
        unet.encode_text(exec, &exec.input([prompts, 77, context], &[])?, 0, &mut text)
    });
    let rows = KvRows::new(&device, (0..prompts).collect()).unwrap();
    let conditions = Conditions { time: &time, step: 0, text: &text, text_rows: &rows, halves };
    let plan = Plan::record(&device, |exec| {
        let latents = exec.input([1, 64, 64, 4], &[])?;
        unet.forward(exec, &latents, &conditions).map(drop)
    })
    .unwrap();
    eprintln!("unet {halves:?}: arena {:.1} MB", plan.bytes() as f64 / 1e6);
    (gflop(&before.unwrap()), gflop(&plan))
}

#[test]
fn unets_count_as_diffusers_does() {
    let (unet, parameters) = declare_unet(Arch::Sd15);
    assert_eq!(parameters, 859_520_964);
    let (before, pass) = count_unet(&unet, Halves::Prompts);
    assert_close("SD 1.5 UNet", before + pass, 803.3);
    assert!(before > 2.9 && before < 3.1, "text and time leave the loop: {before} GFLOP");
    // Both halves cost twice that, less the work before the first cross-attention, done once: 2.5% of the pair.
    let (_, separate) = count_unet(&unet, Halves::BothSeparately);
    let (_, shared) = count_unet(&unet, Halves::Both);
    assert!((separate - 2.0 * pass).abs() < 1e-6);
    assert_close("shared work", separate - shared, 40.8);

    let (unet, parameters) = declare_unet(Arch::Sd21);
    assert_eq!(parameters, 865_910_724);
    let (before, pass) = count_unet(&unet, Halves::Prompts);
    assert_close("SD 2.1 UNet", before + pass, 804.3);
}

#[test]
fn text_encoder_and_autoencoder_count_as_diffusers_do() {
    let device = device();
    let loader = Loader::declare();
    let config = TextConfig::parse(Path::new("config.json"), &json(Arch::Sd15, Component::TextEncoder)).unwrap();
    let text = TextEncoder::new(config, &device, &loader).unwrap();
    assert_eq!(parameters(&loader), 123_060_480);
    let plan = Plan::record(&device, |exec| text.forward(exec, &[0; 77], 77).map(drop)).unwrap();
    // 13.3 with the half of the attention matrix that the causal mask hides.
    let hidden = (12 * 4 * 768 * (77 * 76 / 2)) as f64 / 1e9;
    assert_close("CLIP-L", gflop(&plan) + hidden, 13.3);

    let config = VaeConfig::parse(Path::new("config.json"), &json(Arch::Sd15, Component::Vae)).unwrap();
    let loader = Loader::declare();
    let decoder = VaeDecoder::new(config.clone(), &device, Precision::F32, &loader).unwrap();
    assert_eq!(parameters(&loader), 49_490_199);
    let plan = Plan::record(&device, |exec| decoder.forward(exec, exec.input([1, 64, 64, 4], &[])?).map(drop)).unwrap();
    assert_close("VAE decode", gflop(&plan), 2514.5);
    // The widest tensor is 512 x 512 x 256 f32 = 268 MB; a pass holds the input and the output of a layer and little more.
    assert!(plan.bytes() < 700 << 20, "{} bytes", plan.bytes());
    eprintln!("vae: arena {:.1} MB", plan.bytes() as f64 / 1e6);

    let loader = Loader::declare();
    let encoder = VaeEncoder::new(config, &device, Precision::F32, &loader).unwrap();
    assert_eq!(parameters(&loader), 34_163_664);
    let plan = Plan::record(&device, |exec| encoder.forward(exec, exec.input([1, 512, 512, 3], &[])?).map(drop)).unwrap();
    assert_close("VAE encode", gflop(&plan), 1116.7);
}

/// The sums that OpenCLIP publishes for both halves of ViT-B-32: 151.28 million parameters, 14.78 GFLOP.
#[test]
fn clip_counts_as_openclip_does() {
    let json = serde_json::json!({"text_config": {}, "vision_config": {}});
    let config = ClipConfig::parse(Path::new("config.json"), &json).unwrap();
    let (device, loader) = (device(), Loader::declare());
    let clip = ClipModel::new(config.clone(), &device, &loader).unwrap();
    // One more with the temperature of training.
    assert_eq!(parameters(&loader), 151_277_312);
    let text = Plan::record(&device, |exec| clip.text_features(exec, &[0; 77], 77).map(drop)).unwrap();
    let patches = vec![0.0; config.vision.patches_len()];
    let image = Plan::record(&device, |exec| clip.image_features(exec, &patches).map(drop)).unwrap();
    let hidden = (12 * 4 * 512 * (77 * 76 / 2)) as f64 / 1e9;
    assert_close("CLIP ViT-B-32", gflop(&text) + hidden + gflop(&image), 14.78);
}
