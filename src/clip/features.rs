//! Pictures and sentences to features.

use super::config::{ClipConfig, EndOfText};
use super::model::ClipModel;
use super::preprocess::PreprocessConfig;
use crate::device::{Arena, Device};
use crate::ops::gemm::packed_layout;
use crate::tokenizer::ClipTokenizer;
use crate::weights::{BUILTIN, Checkpoint, Loader, Naming, find_model, read_json};
use crate::{Error, Result};
use image::RgbImage;
use rayon::prelude::*;
use std::borrow::Borrow;
use std::path::Path;

/// Images in one pass: enough to keep all cores in the products, and a few hundred MiB for the largest models.
const IMAGES: usize = 16;

/// Texts in one pass.
const TEXTS: usize = 64;

/// A CLIP model with what makes its input. Cheap to share: encoding takes `&self`.
#[derive(Debug)]
pub struct Clip {
    device: Device,
    model: ClipModel,
    preprocess: PreprocessConfig,
    tokenizer: ClipTokenizer,
}

impl Clip {
    /// Opens a model: a folder as transformers saves `CLIPModel` and its processor (`config.json`, `model.safetensors`,
    /// `preprocessor_config.json` and the files of the tokenizer), `org/name[@revision]` in the Hugging Face cache, or [`BUILTIN`].
    ///
    /// # Errors
    /// [`Error::Usage`] for a model that is not there; [`Error::Config`] for a setting that is not supported or contradicts another
    /// file; [`Error::Weights`] with all the tensors that do not fit; [`Error::Io`] and [`Error::Format`] for the files themselves.
    pub fn open(model: &str, device: &Device) -> Result<Clip> {
        let mut folder = find_model(model)?;
        if model == BUILTIN {
            folder.push("clip"); // beside the components of the built-in Stable Diffusion model
        }
        let [config_path, preprocess_path] = ["config.json", "preprocessor_config.json"].map(|name| folder.join(name));
        let config = ClipConfig::parse(&config_path, &read_json(&config_path)?)?;
        let preprocess = PreprocessConfig::parse(&preprocess_path, &read_json(&preprocess_path)?)?;
        check_crop(&preprocess_path, &preprocess, &config)?;
        let tokenizer = ClipTokenizer::open(&folder)?;
        config.text.check_tokenizer(&tokenizer)?;
        check_end(&config_path, config.end_of_text, &tokenizer)?;
        let checkpoint = Checkpoint::open(&folder, Naming::CLIP)?;
        let new = |loader: &Loader<'_>| ClipModel::new(config.clone(), device, loader);
        let (model, _) = checkpoint.load_packed(packed_layout(device), new)?;
        Ok(Clip { device: device.clone(), model, preprocess, tokenizer })
    }

    /// The architecture.
    pub fn config(&self) -> &ClipConfig {
        self.model.config()
    }

    /// Where it computes.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Width of a feature, D.
    pub fn dim(&self) -> usize {
        self.config().projection_dim
    }

    /// The features of N images, `[N, D]`, each of length one. The same bits in any batch and on any number of threads.
    ///
    /// # Errors
    /// [`Error::Usage`] for an image without pixels, or of another size than the model reads where the preprocessing does not make
    /// that size; [`Error::Numeric`] if a feature has no direction.
    pub fn encode_images(&self, images: &[impl Borrow<RgbImage> + Sync]) -> Result<Vec<f32>> {
        let (dim, size) = (self.dim(), self.config().vision.patches_len());
        let mut features = vec![0.0; images.len() * dim];
        let mut patches = vec![0.0; images.len().min(IMAGES) * size];
        let mut arena = Arena::new();
        for (i, (images, features)) in images.chunks(IMAGES).zip(features.chunks_mut(IMAGES * dim)).enumerate() {
            let patches = &mut patches[..images.len() * size];
            self.device.install(|| {
                let images = images.par_iter().zip(patches.par_chunks_mut(size)).enumerate();
                images.try_for_each(|(j, (image, patches))| self.preprocess(i * IMAGES + j, image.borrow(), patches))
            })?;
            arena.run_once(&self.device, |exec| self.model.image_features(exec, patches)?.read_f32(features))?;
        }
        to_unit_length(&mut features, dim, "image")?;
        Ok(features)
    }

    /// Image number `i` as patches.
    fn preprocess(&self, i: usize, image: &RgbImage, patches: &mut [f32]) -> Result<()> {
        let no_pixels = || Error::usage(format!("image {i} has no pixels"), "leave it out");
        if image.width() == 0 || image.height() == 0 {
            return Err(no_pixels());
        }
        let side = self.config().vision.image_size;
        let [height, width] = self.preprocess.framed_size(image.dimensions()).map(|length| length as usize);
        if [height, width] != [side, side] {
            let message = format!("image {i} is {width} x {height} pixels after preprocessing; the model reads {side} x {side}");
            return Err(Error::usage(message, "resize it, or set `do_center_crop` in preprocessor_config.json"));
        }
        let (values, _) = self.preprocess.pixel_values(image).ok_or_else(no_pixels)?;
        self.config().vision.cut(&values, patches)
    }

    /// The features of N texts, `[N, D]`, each of length one. The same bits in any batch and on any number of threads. A text that is
    /// too long for the model loses its last words.
    ///
    /// # Errors
    /// [`Error::Format`] for a text that the vocabulary cannot write; [`Error::Numeric`] if a feature has no direction.
    pub fn encode_texts(&self, texts: &[&str]) -> Result<Vec<f32>> {
        let dim = self.dim();
        let mut features = vec![0.0; texts.len() * dim];
        let mut arena = Arena::new();
        for (texts, features) in texts.chunks(TEXTS).zip(features.chunks_mut(TEXTS * dim)) {
            let encodings = texts.iter().map(|text| Ok(self.tokenizer.encode(text)?.ids)).collect::<Result<Vec<_>>>()?;
            let ids = encodings.concat();
            arena.run_once(&self.device, |exec| {
                self.model.text_features(exec, &ids, self.tokenizer.max_length())?.read_f32(features)
            })?;
        }
        to_unit_length(&mut features, dim, "text")?;
        Ok(features)
    }
}

/// Divides each row by its length.
fn to_unit_length(features: &mut [f32], dim: usize, what: &str) -> Result<()> {
    for (i, row) in features.chunks_exact_mut(dim).enumerate() {
        let square: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        if square == 0.0 || !square.is_finite() {
            let message = format!("the feature of {what} {i} is zero, infinite or not a number: it has no direction");
            return Err(Error::Numeric { op: "clip", message });
        }
        let length = square.sqrt();
        row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
    Ok(())
}

/// What is cut out of images is what the model reads.
fn check_crop(path: &Path, preprocess: &PreprocessConfig, config: &ClipConfig) -> Result<()> {
    let side = config.vision.image_size;
    match preprocess.crop {
        Some([height, width]) if [height as usize, width as usize] != [side, side] => {
            Err(Error::config(path, "crop_size", format!("{height} x {width}; the model reads images of {side} x {side}")))
        }
        _ => Ok(()),
    }
}

/// The tokenizer ends texts with the id that the model looks for.
fn check_end(path: &Path, end: EndOfText, tokenizer: &ClipTokenizer) -> Result<()> {
    match end {
        EndOfText::Id(id) if id != tokenizer.eos() => {
            let message = format!("{id}, but the tokenizer ends texts with {}", tokenizer.eos());
            Err(Error::config(path, "text_config.eos_token_id", message))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_get_unit_length_or_an_error() {
        let mut features = [3.0, 4.0, 0.0, -2e-30];
        to_unit_length(&mut features, 2, "image").unwrap();
        assert_eq!(features, [0.6, 0.8, 0.0, -1.0]);
        for bad in [[0.0, 0.0], [f32::NAN, 1.0], [f32::INFINITY, 1.0]] {
            let mut features = [1.0, 0.0, bad[0], bad[1]];
            let error = to_unit_length(&mut features, 2, "text").unwrap_err();
            assert!(matches!(error, Error::Numeric { .. }) && error.to_string().contains("text 1"), "{bad:?}: {error}");
        }
    }
}
