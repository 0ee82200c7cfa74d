//! From a picture to the numbers that CLIP's image model reads (transformers' `CLIPImageProcessor`, the one on Pillow).
//!
//! 1. Resize, so that the shorter side has a given length, or both sides have;
//! 2. cut out the middle, or where that is larger, put black around;
//! 3. `(x / 255 - mean) / deviation` for each colour, in f32.

use super::resize::resize;
use crate::Result;
use crate::network::{ConfigFile, MAX_WIDTH};
use image::{Rgb, RgbImage};
use serde_json::Value;
use std::path::Path;

/// Pillow's number of its bicubic filter.
const BICUBIC: u32 = 3;

/// Mean and deviation of the colours of the images that OpenAI's models were trained on.
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_DEVIATION: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// What an image is resized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// Pixels of the shorter side. The longer one keeps the ratio, rounded down.
    ShortestEdge(u32),
    /// Pixels of both.
    Exact {
        /// Pixels from top to bottom.
        height: u32,
        /// Pixels from left to right.
        width: u32,
    },
}

impl Resize {
    fn target(self, (width, height): (u32, u32)) -> (u32, u32) {
        // At most 2^16 times 2^32: fits. What does not fit back has no image either.
        let longer = |edge: u32, long: u32, short: u32| {
            u32::try_from(u64::from(edge) * u64::from(long) / u64::from(short)).unwrap_or(u32::MAX)
        };
        match self {
            Resize::Exact { height, width } => (width, height),
            Resize::ShortestEdge(edge) if width <= height => (edge, longer(edge, height, width)),
            Resize::ShortestEdge(edge) => (longer(edge, width, height), edge),
        }
    }
}

/// `preprocessor_config.json` (transformers' `CLIPImageProcessor`, whose defaults apply to absent keys).
#[derive(Clone, Debug, PartialEq)]
pub struct PreprocessConfig {
    /// Step 1; without it images keep their size.
    pub resize: Option<Resize>,
    /// Step 2: height and width; without it images are kept whole.
    pub crop: Option<[u32; 2]>,
    /// Factor of step 3; without it pixels are 0 to 255.
    pub rescale: Option<f64>,
    /// Mean and deviation of step 3, of red, green and blue.
    pub normalize: Option<[[f32; 3]; 2]>,
}

impl PreprocessConfig {
    /// Reads the content of `path`.
    ///
    /// # Errors
    /// [`crate::Error::Config`] naming the key for a value that is malformed or not supported.
    pub fn parse(path: &Path, value: &Value) -> Result<PreprocessConfig> {
        let file = ConfigFile::new(path, value)?;
        file.expect("do_pad", false)?;
        file.expect("use_square_size", false)?;
        let mut config = PreprocessConfig { resize: None, crop: None, rescale: None, normalize: None };
        if file.bool("do_resize", true)? {
            file.expect("resample", BICUBIC)?;
            config.resize = Some(resize_of(&file)?);
        }
        if file.bool("do_center_crop", true)? {
            config.crop = Some(match file.section("crop_size") {
                Some(size) => [side(&size, "height", None)?, side(&size, "width", None)?],
                None => [side(&file, "crop_size", Some(224))?; 2],
            });
        }
        if file.bool("do_rescale", true)? {
            let factor = file.get("rescale_factor").map_or(Some(1.0 / 255.0), Value::as_f64);
            let factor = factor.filter(|factor| factor.is_finite() && *factor > 0.0);
            config.rescale = Some(factor.ok_or_else(|| file.error("rescale_factor", "is not a number above zero"))?);
        }
        if file.bool("do_normalize", true)? {
            config.normalize = Some([colours(&file, "image_mean", CLIP_MEAN)?, colours(&file, "image_std", CLIP_DEVIATION)?]);
            if config.normalize.is_some_and(|[_, deviation]| deviation.iter().any(|d| *d <= 0.0)) {
                return Err(file.error("image_std", "has a deviation that is not above zero"));
            }
        }
        Ok(config)
    }

    /// Height and width after steps 1 and 2 of an image of this (width, height), which must not be 0. Takes no memory, where the
    /// steps may take any amount if nothing is cut out.
    pub fn framed_size(&self, size: (u32, u32)) -> [u32; 2] {
        let (width, height) = self.resize.map_or(size, |resize| resize.target(size));
        self.crop.unwrap_or([height, width])
    }

    /// Steps 1 and 2; `None` for an image without pixels.
    pub fn frame(&self, image: &RgbImage) -> Option<RgbImage> {
        if image.width() == 0 || image.height() == 0 {
            return None;
        }
        let (width, height) = self.resize.map_or(image.dimensions(), |resize| resize.target(image.dimensions()));
        let [tall, wide] = self.framed_size(image.dimensions());
        let (x, y) = (Overlap::new(width, wide), Overlap::new(height, tall));
        // Only what is kept: of an image that is one pixel high, the whole would be enormous.
        let middle = resize(image, (width, height), x.start..x.start + x.length, y.start..y.start + y.length);
        if middle.dimensions() == (wide, tall) {
            return Some(middle);
        }
        let mut framed = RgbImage::new(wide, tall);
        image::imageops::replace(&mut framed, &middle, i64::from(x.margin), i64::from(y.margin));
        Some(framed)
    }

    /// All steps: the image as the model reads it, `[3, H, W]`, and its height and width; `None` for an image without pixels.
    pub fn pixel_values(&self, image: &RgbImage) -> Option<(Vec<f32>, [usize; 2])> {
        let image = self.frame(image)?;
        let mut values = Vec::with_capacity(image.len());
        for colour in 0..3 {
            let table: [f32; 256] = std::array::from_fn(|level| self.value(level as u8, colour));
            values.extend(image.pixels().map(|Rgb(pixel)| table[usize::from(pixel[colour])]));
        }
        Some((values, [image.height() as usize, image.width() as usize]))
    }

    /// Step 3 for one number of a pixel. The product is in f64, as in transformers.
    fn value(&self, level: u8, colour: usize) -> f32 {
        let value = self.rescale.map_or(f32::from(level), |factor| (f64::from(level) * factor) as f32);
        self.normalize.map_or(value, |[mean, deviation]| (value - mean[colour]) / deviation[colour])
    }
}

/// Where a side of an image and the side that is cut from its middle overlap.
struct Overlap {
    /// First pixel of the image that is kept.
    start: u32,
    /// Pixels that are kept.
    length: u32,
    /// Black pixels before them.
    margin: u32,
}

impl Overlap {
    /// A pixel too many or too few is taken from the end of a longer image, and put before a shorter one.
    fn new(image: u32, crop: u32) -> Overlap {
        Overlap { start: image.saturating_sub(crop) / 2, length: image.min(crop), margin: crop.saturating_sub(image).div_ceil(2) }
    }
}

/// `size`: a number, `{"shortest_edge": n}` or `{"height": n, "width": n}`.
fn resize_of(file: &ConfigFile) -> Result<Resize> {
    let Some(size) = file.section("size") else { return Ok(Resize::ShortestEdge(side(file, "size", Some(224))?)) };
    size.expect("longest_edge", Value::Null)?;
    if size.get("height").is_some() {
        return Ok(Resize::Exact { height: side(&size, "height", None)?, width: side(&size, "width", None)? });
    }
    Ok(Resize::ShortestEdge(side(&size, "shortest_edge", None)?))
}

/// A number of pixels.
fn side(file: &ConfigFile, key: &str, default: Option<usize>) -> Result<u32> {
    Ok(file.usize(key, default, 1..=MAX_WIDTH)? as u32)
}

/// A number for each colour.
fn colours(file: &ConfigFile, key: &str, default: [f32; 3]) -> Result<[f32; 3]> {
    let Some(value) = file.get(key) else { return Ok(default) };
    let numbers = value.as_array().map(|items| items.iter().filter_map(Value::as_f64).map(|x| x as f32).collect::<Vec<f32>>());
    let three =
        numbers.and_then(|numbers| <[f32; 3]>::try_from(numbers).ok()).filter(|three| three.iter().all(|x| x.is_finite()));
    three.ok_or_else(|| file.error(key, format!("{value} is not a list of three numbers")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use serde_json::json;

    fn parse(value: Value) -> Result<PreprocessConfig> {
        PreprocessConfig::parse(Path::new("clip/preprocessor_config.json"), &value)
    }

    #[test]
    fn sizes_are_numbers_or_objects() {
        let old = parse(json!({"size": 336, "crop_size": 336, "resample": 3, "feature_extractor_type": "CLIPFeatureExtractor"}))
            .unwrap();
        assert_eq!((old.resize, old.crop, old.rescale), (Some(Resize::ShortestEdge(336)), Some([336, 336]), Some(1.0 / 255.0)));
        let new = json!({"size": {"shortest_edge": 64}, "crop_size": {"height": 60, "width": 64}, "do_rescale": false});
        let new = parse(new).unwrap();
        assert_eq!((new.resize, new.crop, new.rescale), (Some(Resize::ShortestEdge(64)), Some([60, 64]), None));
        let exact = parse(json!({"size": {"height": 60, "width": 64}, "do_center_crop": false})).unwrap();
        assert_eq!((exact.resize, exact.crop), (Some(Resize::Exact { height: 60, width: 64 }), None));
        assert_eq!(parse(json!({})).unwrap().normalize, Some([CLIP_MEAN, CLIP_DEVIATION]));
    }

    #[test]
    fn names_what_it_does_not_support() {
        let cases = [
            ("resample", json!({"resample": 2})),
            ("size", json!({"size": [224, 224]})),
            ("size", json!({"size": 0})),
            ("size.shortest_edge", json!({"size": {}})),
            ("size.width", json!({"size": {"height": 224}})),
            ("size.longest_edge", json!({"size": {"shortest_edge": 224, "longest_edge": 300}})),
            ("crop_size.height", json!({"crop_size": {"shortest_edge": 224}})),
            ("do_resize", json!({"do_resize": "yes"})),
            ("do_pad", json!({"do_pad": true})),
            ("rescale_factor", json!({"rescale_factor": 0})),
            ("image_mean", json!({"image_mean": 0.5})),
            ("image_std", json!({"image_std": [0.5, 0, 0.5]})),
        ];
        for (named, value) in cases {
            let error = parse(value).unwrap_err();
            assert!(matches!(&error, Error::Config { key, .. } if key == named), "{named}: {error}");
        }
    }

    #[test]
    fn hostile_ratios_cost_nothing() {
        let config = parse(json!({})).unwrap();
        let line = RgbImage::from_pixel(1, 100_000, Rgb([1, 2, 3]));
        assert_eq!(config.frame(&line).unwrap(), RgbImage::from_pixel(224, 224, Rgb([1, 2, 3])));
        assert_eq!(config.frame(&RgbImage::new(0, 5)), None);
        let whole = parse(json!({"do_center_crop": false})).unwrap();
        assert_eq!(whole.framed_size(line.dimensions()), [22_400_000, 224]);
    }
}
