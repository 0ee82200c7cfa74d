//! Bicubic resizing, bit for bit as Pillow 13 does it (`Image.resize` with `BICUBIC`, src/libImaging/Resample.c).
//!
//! A pixel of the result is a weighted mean of the pixels under Keys' cubic (a = -1/2), widened by the ratio of the sizes when the
//! image shrinks. Lines and columns are taken one after the other, with 8-bit pixels between; weights are fixed-point numbers of
//! 22 bits.

use image::{Rgb, RgbImage};
use std::ops::Range;

/// Bits behind the point of a weight: 8 are the pixel's, 2 are for sums below 0 and above 255.
const FRACTION_BITS: u32 = 32 - 8 - 2;

/// Half the width of the cubic, in pixels of the coarser image.
const SUPPORT: f64 = 2.0;

/// The part of `image`, enlarged or shrunk to `size` (width, height), that lies in these columns and rows of the result.
///
/// # Panics
/// If the image has no pixels, or the part reaches outside the result.
pub fn resize(image: &RgbImage, size: (u32, u32), columns: Range<u32>, rows: Range<u32>) -> RgbImage {
    let ((width, height), (to_width, to_height)) = (image.dimensions(), size);
    assert!(width > 0 && height > 0, "an image without pixels");
    assert!(columns.end <= to_width && rows.end <= to_height, "{columns:?} x {rows:?} of {to_width} x {to_height}");
    let across: Vec<Taps> = columns.map(|x| Taps::new(width, to_width, x)).collect();
    let down: Vec<Taps> = rows.map(|y| Taps::new(height, to_height, y)).collect();
    let (reach_across, reach_down) = (reach(&across), reach(&down));
    if down_first((width, height), size) {
        let lines = resize_down(image, 0, &down, reach_across.clone());
        resize_across(&lines, reach_across.start, &across, 0..lines.height())
    } else {
        let lines = resize_across(image, 0, &across, reach_down.clone());
        resize_down(&lines, reach_down.start, &down, 0..lines.width())
    }
}

/// Columns come first where the height loses more than twice the pixels that the width does: the rule of Pillow from 13 on. Before,
/// lines always came first.
fn down_first((width, height): (u32, u32), (to_width, to_height): (u32, u32)) -> bool {
    let lost = |from: u32, to: u32| i64::from(from) - i64::from(to);
    lost(height, to_height) > 0.max(2 * lost(width, to_width))
}

/// The pixels that the result depends on.
fn reach(taps: &[Taps]) -> Range<u32> {
    let end = |taps: &Taps| taps.first + taps.weights.len() as u32;
    taps.first().map_or(0, |taps| taps.first)..taps.last().map_or(0, end)
}

/// These rows of `image`, whose first column is number `left`, with other columns.
fn resize_across(image: &RgbImage, left: u32, columns: &[Taps], rows: Range<u32>) -> RgbImage {
    RgbImage::from_fn(columns.len() as u32, rows.len() as u32, |x, y| {
        columns[x as usize].mean(|from| image.get_pixel(from - left, rows.start + y))
    })
}

/// These columns of `image`, whose first row is number `top`, with other rows.
fn resize_down(image: &RgbImage, top: u32, rows: &[Taps], columns: Range<u32>) -> RgbImage {
    RgbImage::from_fn(columns.len() as u32, rows.len() as u32, |x, y| {
        rows[y as usize].mean(|from| image.get_pixel(columns.start + x, from - top))
    })
}

/// Where one pixel of the result comes from, along one axis.
struct Taps {
    /// The first pixel that counts.
    first: u32,
    /// Of it and of those that follow.
    weights: Vec<i32>,
}

impl Taps {
    /// Pixel `at` of an axis of `from` pixels that becomes one of `to`.
    fn new(from: u32, to: u32, at: u32) -> Taps {
        let scale = f64::from(from) / f64::from(to);
        let stretch = scale.max(1.0);
        let (centre, support) = ((f64::from(at) + 0.5) * scale, SUPPORT * stretch);
        // Casts cut towards zero and end at zero.
        let first = (centre - support + 0.5) as u32;
        let end = ((centre + support + 0.5) as u32).min(from);
        let weight = |x: u32| cubic((f64::from(x) - centre + 0.5) * (1.0 / stretch));
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        Taps { first, weights: weights.iter().map(|w| fixed(w / sum)).collect() }
    }

    /// The weighted mean of the pixels at its positions.
    fn mean<'p>(&self, pixel: impl Fn(u32) -> &'p Rgb<u8>) -> Rgb<u8> {
        let mut sums = [1 << (FRACTION_BITS - 1); 3]; // one half
        for (from, weight) in (self.first..).zip(&self.weights) {
            let Rgb(colours) = pixel(from);
            sums.iter_mut().zip(colours).for_each(|(sum, &colour)| *sum += i32::from(colour) * weight);
        }
        Rgb(sums.map(|sum| (sum >> FRACTION_BITS).clamp(0, 255) as u8))
    }
}

/// Keys' convolution kernel (1981) with a = -1/2. The order of the operations is Pillow's.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x.abs() {
        x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < SUPPORT => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}

/// A weight in fixed point, rounded to the nearest and halves away from zero.
fn fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << FRACTION_BITS);
    (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([(x * 7 % 256) as u8, (y * 11 % 256) as u8, (x * y % 256) as u8]))
    }

    #[test]
    fn the_same_size_is_the_same_image() {
        let image = gradient(37, 23);
        assert_eq!(resize(&image, (37, 23), 0..37, 0..23), image);
    }

    #[test]
    fn a_part_is_that_part_of_the_whole() {
        let image = gradient(61, 47);
        // Both orders of the passes.
        for size in [(29, 83), (40, 31), (60, 20), (200, 31)] {
            let whole = resize(&image, size, 0..size.0, 0..size.1);
            let part = resize(&image, size, 5..28, 3..17);
            assert_eq!(part, image::imageops::crop_imm(&whole, 5, 3, 23, 14).to_image(), "{size:?}");
        }
        assert_eq!(resize(&image, (10, 10), 3..3, 2..2).dimensions(), (0, 0));
    }

    #[test]
    fn weights_have_a_sum_of_one() {
        for (from, to) in [(1, 5), (5, 1), (640, 224), (3, 1000), (4096, 7)] {
            for at in [0, to / 2, to - 1] {
                let taps = Taps::new(from, to, at);
                let sum: i32 = taps.weights.iter().sum();
                assert!((sum - (1 << FRACTION_BITS)).unsigned_abs() as usize <= taps.weights.len(), "{from} {to} {at}: {sum}");
                assert!(taps.first as usize + taps.weights.len() <= from as usize);
            }
        }
    }
}
