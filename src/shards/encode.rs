//! Pixels to image files. Each encoder is deterministic: same pixels, same bytes, on every machine.

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use crate::{Error, Result};

/// Format of the images in a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageFormat {
    /// Baseline JPEG without chroma subsampling (4:4:4).
    #[default]
    Jpg,
    /// PNG, lossless.
    Png,
    /// WebP, lossless: the encoder has no lossy mode, so the quality does not apply.
    Webp,
}

impl ImageFormat {
    /// All formats.
    pub const ALL: [ImageFormat; 3] = [ImageFormat::Jpg, ImageFormat::Png, ImageFormat::Webp];

    /// Extension of the members of a shard: `jpg`, `png` or `webp`.
    pub fn extension(self) -> &'static str {
        match self {
            ImageFormat::Jpg => "jpg",
            ImageFormat::Png => "png",
            ImageFormat::Webp => "webp",
        }
    }
}

/// Encodes `pixels`, RGB8 of shape `[height, width, 3]`. `quality`, 1 to 100, is for JPEG only; 95 is what data sets use.
///
/// # Errors
/// If the number of pixels does not fit the extents, or an extent is 0 or too large for the format (JPEG 65,535, WebP 16,384).
pub fn encode_image(format: ImageFormat, quality: u8, width: u32, height: u32, pixels: &[u8]) -> Result<Vec<u8>> {
    let expected = (u64::from(width) * u64::from(height)).checked_mul(3);
    if pixels.is_empty() || expected != Some(pixels.len() as u64) {
        return Err(failed(format!("{} bytes of pixels for an RGB image of {width}x{height}", pixels.len())));
    }
    let mut bytes = Vec::new();
    match format {
        ImageFormat::Jpg => {
            let (Ok(width), Ok(height)) = (u16::try_from(width), u16::try_from(height)) else {
                return Err(failed(format!("{width}x{height} is too large for JPEG: at most 65535 a side")));
            };
            if !(1..=100).contains(&quality) {
                return Err(failed(format!("JPEG quality {quality}: must be 1 to 100")));
            }
            let mut encoder = Encoder::new(&mut bytes, quality);
            encoder.set_sampling_factor(SamplingFactor::R_4_4_4);
            encoder.encode(pixels, width, height, ColorType::Rgb).map_err(|e| failed(e.to_string()))?;
        }
        ImageFormat::Png => PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::Adaptive)
            .write_image(pixels, width, height, ExtendedColorType::Rgb8)
            .map_err(|e| failed(e.to_string()))?,
        ImageFormat::Webp => WebPEncoder::new_lossless(&mut bytes)
            .encode(pixels, width, height, ExtendedColorType::Rgb8)
            .map_err(|e| failed(e.to_string()))?,
    }
    Ok(bytes)
}

fn failed(message: String) -> Error {
    Error::shape("encode_image", message)
}
