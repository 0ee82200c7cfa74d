//! CLIP against transformers and Pillow. `tools/golden/clip.py` wrote the models and the values.

mod golden_support;

use golden_support::{Case, Golden};
use image::RgbImage;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use syntic::clip::preprocess::PreprocessConfig;
use syntic::clip::resize::resize;
use syntic::clip::{Clip, ClipConfig, ClipModel};
use syntic::device::{Arena, Device, Exec, Plan};
use syntic::weights::{BUILTIN, Checkpoint, Naming, read_json};
use syntic::{Error, Result};

/// Largest difference of a number of a feature of length one.
const TOLERANCE: f32 = 1e-5;

/// A folder of tests/golden, or the built-in model.
fn open_case(name: &str) -> Case {
    let mut case = Case::open(name);
    if name == BUILTIN {
        case.model.push("clip");
    }
    case
}

fn model(case: &Case) -> ClipModel {
    let path = case.model.join("config.json");
    let config = ClipConfig::parse(&path, &read_json(&path).unwrap()).unwrap();
    let checkpoint = Checkpoint::open(&case.model, Naming::CLIP).unwrap();
    checkpoint.load(|loader| ClipModel::new(config.clone(), &case.device, loader)).unwrap()
}

/// Runs `pass` and compares every block under `prefix`.
fn compare(case: &Case, golden: &Golden, prefix: &str, mut pass: impl FnMut(&Exec<'_>) -> Result<()> + Send) {
    let plan = Plan::record(&case.device, &mut pass).unwrap();
    let watch = golden.watch();
    Arena::new().run_observed(&case.device, &plan, Some(&watch), &mut pass).unwrap();
    watch.finish(prefix);
}

fn blocks(name: &str) {
    let case = open_case(name);
    let model = model(&case);
    let golden = case.golden("text");
    let (shape, ids) = golden.integers("ids");
    compare(&case, &golden, "text.", |exec| model.text_features(exec, &ids[..2 * shape[1]], shape[1]).map(drop));
    let golden = case.golden("vision");
    let (shape, pixels) = golden.floats("pixel_values");
    let config = &model.config().vision;
    let mut patches = vec![f32::NAN; shape[0] * config.patches_len()];
    let images = pixels.chunks_exact(pixels.len() / shape[0]);
    images.zip(patches.chunks_exact_mut(config.patches_len())).for_each(|(image, patches)| config.cut(image, patches).unwrap());
    compare(&case, &golden, "vision.", |exec| model.image_features(exec, &patches).map(drop));
}

#[test]
fn blocks_of_openais_files() {
    blocks("clip-tiny/legacy");
}

#[test]
fn blocks_of_openclips_files() {
    blocks("clip-tiny/gelu");
}

#[test]
fn blocks_of_the_built_in_model() {
    blocks(BUILTIN);
}

/// An image of noise: the top bytes of Knuth's MMIX generator.
fn noise(width: u64, height: u64, mut state: u64) -> RgbImage {
    let next = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    RgbImage::from_raw(width as u32, height as u32, (0..width * height * 3).map(next).collect()).unwrap()
}

fn numbers<const N: usize>(value: &Value) -> [u64; N] {
    std::array::from_fn(|i| value[i].as_u64().unwrap())
}

/// The texts and images of a case.
fn inputs(case: &Case) -> (Vec<String>, Vec<RgbImage>) {
    let json = read_json(&case.folder.join("expected/inputs.json")).unwrap();
    let texts = json["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_string()).collect();
    let image = |image: &Value| {
        let [width, height, seed] = numbers(image);
        noise(width, height, seed)
    };
    (texts, json["images"].as_array().unwrap().iter().map(image).collect())
}

fn assert_close(values: &[f32], (shape, expected): (Vec<usize>, Vec<f32>)) {
    assert_eq!(values.len(), shape[0] * shape[1]);
    for (i, (a, b)) in values.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= TOLERANCE, "number {i}: {a}, expected {b}");
    }
}

#[test]
fn features_are_those_of_transformers() {
    for name in ["clip-tiny/legacy", "clip-tiny/gelu", BUILTIN] {
        let case = open_case(name);
        let clip = Clip::open(case.model.to_str().unwrap(), &case.device).unwrap();
        let (texts, images) = inputs(&case);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        assert_close(&clip.encode_texts(&texts).unwrap(), case.golden("text").floats("text_embeds"));
        assert_close(&clip.encode_images(&images).unwrap(), case.golden("vision").floats("image_embeds"));
        assert!(clip.encode_texts(&[]).unwrap().is_empty());
        assert!(clip.encode_images(&images[..0]).unwrap().is_empty());
    }
}

/// More than one pass holds, on two threads, against one at a time on one.
#[test]
fn no_bit_depends_on_batch_or_threads() {
    let case = Case::open("clip-tiny/legacy");
    let open = |device: &Device| Clip::open(case.folder.to_str().unwrap(), device).unwrap();
    let (one, two) = (open(&case.device), open(&Device::cpu(2).unwrap()));
    let (texts, images) = inputs(&case);
    let texts: Vec<&str> = texts.iter().map(String::as_str).cycle().take(67).collect();
    let images: Vec<RgbImage> = images.iter().cycle().take(19).cloned().collect();
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
    let alone: Vec<f32> = texts.iter().flat_map(|text| one.encode_texts(&[text]).unwrap()).collect();
    assert_eq!(bits(two.encode_texts(&texts).unwrap()), bits(alone));
    let alone: Vec<f32> = images.chunks(1).flat_map(|image| one.encode_images(image).unwrap()).collect();
    assert_eq!(bits(two.encode_images(&images).unwrap()), bits(alone));
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The cases of a golden file, and what to call each.
fn cases(file: &str) -> impl Iterator<Item = (String, Value)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/clip-tiny").join(file);
    let cases = read_json(&path).unwrap()["cases"].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases.into_iter().map(|case| (case.to_string(), case))
}

#[test]
fn resizing_is_pillows() {
    for (name, case) in cases("resize.json") {
        let ([width, height], [to_width, to_height]) = (numbers(&case["from"]), numbers(&case["to"]).map(|side| side as u32));
        let image = noise(width, height, case["seed"].as_u64().unwrap());
        let resized = resize(&image, (to_width, to_height), 0..to_width, 0..to_height);
        assert_eq!(sha256(resized.as_raw()), case["sha256"].as_str().unwrap(), "{name}");
    }
}

#[test]
fn preprocessing_is_that_of_transformers() {
    for (name, case) in cases("preprocess.json") {
        let config = PreprocessConfig::parse(Path::new("preprocessor_config.json"), &case["settings"]).unwrap();
        let [width, height] = numbers(&case["image"]);
        let (values, size) = config.pixel_values(&noise(width, height, case["seed"].as_u64().unwrap())).unwrap();
        assert_eq!(json!([3, size[0], size[1]]), case["shape"], "{name}");
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(sha256(&bytes), case["sha256"].as_str().unwrap(), "{name}");
    }
}

/// A copy of a model whose file `name` is changed by `change`.
fn changed(name: &str, change: impl Fn(&mut Value)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(Case::open("clip-tiny/gelu").folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let path = folder.path().join(name);
    let mut json = read_json(&path).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
    folder
}

fn open(folder: &Path) -> Result<Clip> {
    Clip::open(folder.to_str().unwrap(), &Device::cpu(1).unwrap())
}

#[test]
fn files_that_contradict_each_other_are_named() {
    let config_error = |name: &str, key: &str, change: &dyn Fn(&mut Value)| {
        let folder = changed(name, change);
        let error = open(folder.path()).unwrap_err();
        let named = matches!(&error, Error::Config { path, key: found, .. } if path.ends_with(name) && found == key);
        assert!(named, "{key}: {error}");
    };
    config_error("preprocessor_config.json", "crop_size", &|json| json["crop_size"]["width"] = json!(31));
    config_error("config.json", "text_config.eos_token_id", &|json| json["text_config"]["eos_token_id"] = json!(7));
    config_error("config.json", "vision_config.hidden_act", &|json| json["vision_config"]["hidden_act"] = json!("relu"));

    let folder = changed("config.json", |json| json["vision_config"]["num_hidden_layers"] = json!(3));
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("missing `vision_model.encoder.layers.2.layer_norm1.weight`"), "{error}");
    let folder = changed("config.json", |json| json["projection_dim"] = json!(13));
    assert!(open(folder.path()).unwrap_err().to_string().contains("text_projection.weight"));
    let folder = changed("tokenizer_config.json", |json| json["model_max_length"] = json!(25));
    assert!(open(folder.path()).unwrap_err().to_string().contains("24 positions"));
    let folder = changed("config.json", |_| ());
    fs::remove_file(folder.path().join("preprocessor_config.json")).unwrap();
    assert!(open(folder.path()).unwrap_err().to_string().contains("preprocessor_config.json"));
    assert!(open(Path::new("/no/such/folder/anywhere")).unwrap_err().to_string().contains("no folder"));
}

#[test]
fn images_that_do_not_fit_are_counted() {
    let folder = changed("preprocessor_config.json", |json| json["do_center_crop"] = json!(false));
    let clip = open(folder.path()).unwrap();
    let square = noise(40, 40, 1);
    clip.encode_images(std::slice::from_ref(&square)).unwrap();
    for (odd, message) in [(noise(45, 30, 1), "image 17 is 45 x 30 pixels"), (RgbImage::new(0, 4), "image 17 has no pixels")] {
        let mut images = vec![square.clone(); 17];
        images.push(odd);
        let error = clip.encode_images(&images).unwrap_err();
        assert!(matches!(&error, Error::Usage { .. }) && error.to_string().contains(message), "{error}");
    }
}
