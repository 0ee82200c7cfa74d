//! The networks against diffusers and transformers, block by block. `tools/golden/models.py` wrote the models and the values.

mod golden_support;

use golden_support::{Case, Watch, channels_last, devices};
use syntic::Result;
use syntic::clip::text::{TextConfig, TextEncoder};
use syntic::device::{Arena, Device, Exec, Plan};
use syntic::diffusion::unet::{Conditions, Halves, TextState, Unet, UnetConfig};
use syntic::diffusion::vae::{VaeConfig, VaeDecoder, VaeEncoder};
use syntic::ops::attention::KvRows;
use syntic::weights::Component;

/// Records `pass`, then runs it, showing every block to `watch`.
fn run(case: &Case, watch: Option<&Watch<'_>>, mut pass: impl FnMut(&Exec<'_>) -> Result<()> + Send) {
    let plan = Plan::record(&case.device, &mut pass).unwrap();
    Arena::new().run_observed(&case.device, &plan, watch.map(|w| w as _), &mut pass).unwrap();
}

fn text_encoder(name: &str) {
    devices().into_iter().for_each(|device| text_encoder_on(device, name));
}

fn text_encoder_on(device: Device, name: &str) {
    let case = Case::open_on(device, name);
    let model = case.load(Component::TextEncoder, |path, json, device, precision, loader| {
        let _ = precision;
        TextEncoder::new(TextConfig::parse(path, json)?, device, loader)
    });
    let golden = case.golden("text");
    let (shape, ids) = golden.integers("ids");
    let watch = golden.watch();
    run(&case, Some(&watch), |exec| model.forward(exec, &ids, shape[1]).map(drop));
    watch.finish("text.");
}

#[test]
fn text_encoder_of_sd1() {
    text_encoder("sd1-tiny");
}

#[test]
fn text_encoder_of_sd2() {
    text_encoder("sd2-tiny");
}

fn unet(name: &str) {
    devices().into_iter().for_each(|device| unet_on(device, name));
}

fn unet_on(device: Device, name: &str) {
    let case = Case::open_on(device, name);
    let unet = case.load(Component::Unet, |path, json, device, precision, loader| {
        Unet::new(UnetConfig::parse(path, json)?, device, precision, loader)
    });
    let golden = case.golden("unet");
    let (shape, context) = golden.floats("context");
    let mut text = TextState::zeros(&case.device, &unet, shape[0], shape[1]).unwrap();
    let mut time = unet.time_state(&case.device, 3).unwrap();
    let watch = golden.watch();
    run(&case, Some(&watch), |exec| {
        let hidden = exec.input([shape[0], shape[1], shape[2]], &context)?;
        unet.encode_text(exec, &hidden, 0, &mut text)?;
        unet.encode_time(exec, &[981.0, 1.0, 12.5], 1.0, &mut time)
    });
    let (shape, sample) = golden.floats("sample");
    let (image, sample) = channels_last(&shape, &sample);
    let rows = KvRows::new(&case.device, vec![0, 1]).unwrap();
    for (step, output) in [(0, "unet.conv_out"), (1, "output.1"), (2, "output.12.5")] {
        let halves = Halves::Prompts;
        let conditions = Conditions { time: &time, step, text: &text, text_rows: &rows, halves };
        let mut result = Vec::new();
        run(&case, (step == 0).then_some(&watch), |exec| {
            let y = unet.forward(exec, &exec.input(image, &sample)?, &conditions)?;
            result = vec![0.0; y.shape().len()];
            y.read_f32(&mut result)
        });
        golden.check(output, image, &result).unwrap();
    }
    watch.finish("unet.");
}

#[test]
fn unet_of_sd1() {
    unet("sd1-tiny");
}

/// Three halvings do not divide the 13 x 9 latents.
#[test]
fn unet_of_odd_sizes() {
    unet("odd");
}

#[test]
fn unet_of_sd2() {
    unet("sd2-tiny");
}

fn vae(name: &str) {
    devices().into_iter().for_each(|device| vae_on(device, name));
}

fn vae_on(device: Device, name: &str) {
    let case = Case::open_on(device, name);
    let decoder = case.load(Component::Vae, |path, json, device, precision, loader| {
        VaeDecoder::new(VaeConfig::parse(path, json)?, device, precision, loader)
    });
    let encoder = case.load(Component::Vae, |path, json, device, precision, loader| {
        VaeEncoder::new(VaeConfig::parse(path, json)?, device, precision, loader)
    });
    let golden = case.golden("vae");
    let (shape, latents) = golden.floats("latents");
    let (shape, latents) = channels_last(&shape, &latents);
    let watch = golden.watch();
    run(&case, Some(&watch), |exec| decoder.forward(exec, exec.input(shape, &latents)?).map(drop));
    let (shape, image) = golden.floats("image");
    let (shape, image) = channels_last(&shape, &image);
    let mut moments = Vec::new();
    run(&case, Some(&watch), |exec| {
        let y = encoder.forward(exec, exec.input(shape, &image)?)?;
        moments = vec![0.0; y.shape().len()];
        y.read_f32(&mut moments)
    });
    watch.finish("vae.");
    let (shape, mean) = golden.floats("encoder_mean");
    let channels = shape[1];
    let means: Vec<f32> = moments.chunks(2 * channels).flat_map(|pixel| &pixel[..channels]).copied().collect();
    let (shape, _) = channels_last(&shape, &mean);
    golden.check("encoder_mean", shape, &means).unwrap();
}

#[test]
fn vae_of_sd1() {
    vae("sd1-tiny");
}

#[test]
fn vae_of_sd2() {
    vae("sd2-tiny");
}

#[test]
fn vae_of_odd_sizes() {
    vae("odd");
}
