//! Image files to pixels, with limits that are checked before memory is taken; and pixels that are no picture.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage};

use crate::{Error, Result};

/// Most pixels of an image: Pillow's `MAX_IMAGE_PIXELS`.
pub const MAX_PIXELS: u64 = 89_478_485;

/// Longest side of an image in pixels.
pub const MAX_SIDE: u32 = 16_384;

/// Decodes the JPEG, PNG or WebP in `bytes`; `path` and `member` say in errors where it comes from.
///
/// The format is told by the content, not by a name. The result is RGB8: grey is spread, alpha dropped, 16 bits rounded to 8;
/// of an animation it is the first frame; an orientation in EXIF is not applied (as Pillow's `convert("RGB")`).
pub fn decode_image(path: &Path, member: &str, bytes: &[u8]) -> Result<RgbImage> {
    decode(bytes).map_err(|message| Error::format(path, member, message))
}

fn decode(bytes: &[u8]) -> std::result::Result<RgbImage, String> {
    use image::ImageFormat::{Jpeg, Png, WebP};
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    if !matches!(reader.format(), Some(Jpeg | Png | WebP)) {
        return Err("not a JPEG, PNG or WebP image".into());
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * 8);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|e| e.to_string())?;
    let (width, height) = decoder.dimensions();
    if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!("an image of {width}x{height}: more than {MAX_SIDE} a side or {MAX_PIXELS} pixels"));
    }
    Ok(DynamicImage::from_decoder(decoder).map_err(|e| e.to_string())?.into_rgb8())
}

/// Why RGB8 `pixels` are not worth keeping, or `None`. `finite` tells whether the numbers they were made from all were.
///
/// The reason is fit for [`Outcome::Failed`](super::Outcome::Failed).
pub fn image_fault(pixels: &[u8], finite: bool) -> Option<&'static str> {
    if !finite {
        return Some("not a number: the model's output is infinite or NaN");
    }
    if pixels.iter().all(|&byte| byte == 0) {
        return Some("black image");
    }
    pixels.chunks_exact(3).all(|pixel| pixels.starts_with(pixel)).then_some("image of a single colour")
}

#[cfg(test)]
mod tests {
    use super::super::{ImageFormat, encode_image};
    use super::*;

    fn gradient(width: u32, height: u32) -> Vec<u8> {
        (0..height).flat_map(|y| (0..width).flat_map(move |x| [(x * 9) as u8, (y * 7) as u8, ((x + y) * 3) as u8])).collect()
    }

    #[test]
    fn lossless_formats_come_back_exactly_and_jpeg_nearly() {
        let pixels = gradient(37, 23);
        for format in ImageFormat::ALL {
            let bytes = encode_image(format, 95, 37, 23, &pixels).unwrap();
            assert_eq!(bytes, encode_image(format, 95, 37, 23, &pixels).unwrap());
            let decoded = decode_image(Path::new("a.tar"), "k", &bytes).unwrap();
            assert_eq!(decoded.dimensions(), (37, 23));
            let worst = decoded.as_raw().iter().zip(&pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(worst <= if format == ImageFormat::Jpg { 16 } else { 0 }, "{format:?}: {worst}");
        }
    }

    #[test]
    fn jpeg_keeps_full_chroma_and_heeds_quality() {
        let pixels = gradient(64, 64);
        let mut sizes = Vec::new();
        for quality in [20, 80, 95] {
            let bytes = encode_image(ImageFormat::Jpg, quality, 64, 64, &pixels).unwrap();
            // Frame header: three components, the sampling factors 1x1 each.
            let frame = bytes.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
            assert_eq!((bytes[frame + 9], [bytes[frame + 11], bytes[frame + 14], bytes[frame + 17]]), (3, [0x11; 3]));
            sizes.push(bytes.len());
        }
        assert!(sizes.is_sorted_by(|a, b| a < b), "{sizes:?}");
    }

    #[test]
    fn wrong_extents_and_quality_are_errors() {
        for format in ImageFormat::ALL {
            assert!(encode_image(format, 95, 0, 5, &[]).is_err());
            assert!(encode_image(format, 95, 2, 2, &[0; 11]).is_err());
            assert!(encode_image(format, 95, u32::MAX, u32::MAX, &[0; 12]).is_err());
        }
        assert!(encode_image(ImageFormat::Jpg, 0, 1, 1, &[0; 3]).is_err());
        assert!(encode_image(ImageFormat::Jpg, 101, 1, 1, &[0; 3]).is_err());
        assert!(encode_image(ImageFormat::Jpg, 95, 65_536, 1, &[0; 65_536 * 3]).is_err());
    }

    /// A PNG of a few bytes that announces 50,000 x 50,000 pixels.
    #[test]
    fn bombs_and_other_formats_are_refused() {
        let mut png = encode_image(ImageFormat::Png, 95, 4, 4, &gradient(4, 4)).unwrap();
        let refuse = |bytes: &[u8]| decode_image(Path::new("a.tar"), "k.png", bytes).unwrap_err().to_string();
        for (width, height) in [(50_000u32, 50_000u32), (16_385, 1), (16_000, 16_000)] {
            png[16..20].copy_from_slice(&width.to_be_bytes());
            png[20..24].copy_from_slice(&height.to_be_bytes());
            let crc = crc32(&png[12..29]).to_be_bytes();
            png[29..33].copy_from_slice(&crc);
            assert!(refuse(&png).starts_with(&format!("a.tar: k.png: an image of {width}x{height}: more than")));
        }
        assert!(refuse(b"GIF89a\x01\x00\x01\x00\x00\x00\x00").contains("not a JPEG"));
        assert!(refuse(b"").contains("not a JPEG"));
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
        })
    }

    #[test]
    fn faults() {
        assert_eq!(image_fault(&gradient(8, 8), true), None);
        assert!(image_fault(&gradient(8, 8), false).unwrap().contains("not a number"));
        assert_eq!(image_fault(&[0; 192], true), Some("black image"));
        assert_eq!(image_fault(&[9; 192], true), Some("image of a single colour"));
        assert_eq!(image_fault(&[1, 2, 3, 1, 2, 3], true), Some("image of a single colour"));
        assert_eq!(image_fault(&[0, 0, 0, 0, 0, 1], true), None);
    }
}
