//! Contact sheets: many images with their captions on one picture.

use std::path::Path;

use image::imageops::{FilterType, replace, resize, thumbnail};
use image::{Rgb, RgbImage};

use super::encode::{ImageFormat, encode_image};
use super::gallery::first_pairs;
use super::{MAX_PIXELS, decode_image, font};
use crate::{Error, Result, files};

/// One picture of a contact sheet.
#[derive(Clone, Debug)]
pub struct Tile {
    /// The image; a large one is shown smaller, at 256 pixels a side, a small one larger, up to 192.
    pub image: RgbImage,
    /// Written below it; what is not ASCII becomes a box.
    pub caption: String,
}

/// How [`write_contact_sheet`] fills a sheet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SheetOptions {
    /// Most images.
    pub limit: usize,
    /// Images in a row.
    pub columns: usize,
}

impl Default for SheetOptions {
    /// 6 rows of 6.
    fn default() -> SheetOptions {
        SheetOptions { limit: 36, columns: 6 }
    }
}

/// Longest side of an image on a sheet, in pixels.
const MAX_TILE: u32 = 256;
/// Narrowest tile, so that a caption fits. Images up to half as wide are shown larger, pixel by pixel.
const MIN_WIDTH: u32 = 192;
/// Pixels around tiles.
const MARGIN: u32 = 8;
/// Lines of a caption; the last ends in dots if there is more.
const LINES: usize = 4;
/// Pixels a point of the font is wide.
const POINT: u32 = 2;
const PAPER: Rgb<u8> = Rgb([250, 250, 250]);
const INK: Rgb<u8> = Rgb([30, 30, 30]);

/// Lays `tiles` out in rows of `columns`, each image with its caption below.
///
/// # Errors
/// If there are no tiles or columns, or the sheet would have more than [`MAX_PIXELS`].
pub fn contact_sheet(tiles: &[Tile], columns: usize) -> Result<RgbImage> {
    if tiles.is_empty() || columns == 0 {
        return Err(Error::usage("a contact sheet needs at least one image and one column", ""));
    }
    let pictures: Vec<RgbImage> = tiles.iter().map(|tile| fit(&tile.image)).collect();
    let columns = columns.min(tiles.len());
    let width = pictures.iter().map(RgbImage::width).max().unwrap_or(0).max(MIN_WIDTH);
    let height = pictures.iter().map(RgbImage::height).max().unwrap_or(0);
    let line_height = (font::HEIGHT + 2) * POINT;
    let (step_x, step_y) = (width + MARGIN, height + MARGIN + LINES as u32 * line_height + MARGIN);
    let extent = |count: usize, step: u32| (count as u64).saturating_mul(u64::from(step)).saturating_add(u64::from(MARGIN));
    let (sheet_width, sheet_height) = (extent(columns, step_x), extent(tiles.len().div_ceil(columns), step_y));
    if sheet_width.saturating_mul(sheet_height) > MAX_PIXELS {
        let message = format!("{} images on one sheet are more than {MAX_PIXELS} pixels", tiles.len());
        return Err(Error::usage(message, "show fewer images"));
    }
    let mut sheet = RgbImage::from_pixel(sheet_width as u32, sheet_height as u32, PAPER);
    let line_chars = (width / ((font::WIDTH + 1) * POINT)) as usize;
    for (i, (tile, picture)) in tiles.iter().zip(&pictures).enumerate() {
        let (x, y) = (MARGIN + (i % columns) as u32 * step_x, MARGIN + (i / columns) as u32 * step_y);
        let (indent, drop) = ((width - picture.width()) / 2, height - picture.height());
        replace(&mut sheet, picture, i64::from(x + indent), i64::from(y + drop));
        for (line, top) in
            wrap(&tile.caption, line_chars, LINES).iter().zip((y + height + MARGIN..).step_by(line_height as usize))
        {
            draw_text(&mut sheet, line, x, top);
        }
    }
    Ok(sheet)
}

/// Writes a contact sheet of the first pairs of folder `dir` to the PNG `out`, and tells how many it shows.
pub fn write_contact_sheet(dir: &Path, out: &Path, options: SheetOptions) -> Result<usize> {
    files::refuse_special(out)?;
    let mut tiles = Vec::new();
    first_pairs(dir, options.limit, |tar, pair| {
        let (_, image) = pair.image().ok_or_else(|| Error::format(tar, &pair.key, "no image"))?;
        let image = fit(&decode_image(tar, &pair.key, image)?);
        tiles.push(Tile { image, caption: pair.caption().unwrap_or_default().to_string() });
        Ok(())
    })?;
    let sheet = contact_sheet(&tiles, options.columns)?;
    files::write_atomic(out, &encode_image(ImageFormat::Png, 100, sheet.width(), sheet.height(), &sheet)?)?;
    Ok(tiles.len())
}

/// The image at a size to be looked at, in its own proportions: at [`MAX_TILE`] a side at most, and a small one enlarged by a whole
/// factor up to [`MIN_WIDTH`], so that its pixels stay sharp.
fn fit(image: &RgbImage) -> RgbImage {
    let (width, height) = image.dimensions();
    let longest = width.max(height);
    let factor = MIN_WIDTH / longest.max(1);
    if factor > 1 {
        return resize(image, width * factor, height * factor, FilterType::Nearest);
    }
    if longest <= MAX_TILE {
        return image.clone();
    }
    let scale = |side: u32| (u64::from(side) * u64::from(MAX_TILE) / u64::from(longest)).max(1) as u32;
    thumbnail(image, scale(width), scale(height))
}

/// Breaks `text` into at most `lines` lines of `width` characters, at spaces where it can, with dots if some is left over.
fn wrap(text: &str, width: usize, lines: usize) -> Vec<String> {
    let mut wrapped: Vec<String> = vec![String::new()];
    let mut room = width;
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        if room < width && word.len() + 1 > room {
            wrapped.push(String::new());
            room = width;
        }
        while !word.is_empty() {
            let Some(line) = wrapped.last_mut() else { break };
            if room < width {
                line.push(' ');
                room -= 1;
            }
            let fits = room.min(word.len());
            line.extend(word.drain(..fits));
            room -= fits;
            if !word.is_empty() {
                wrapped.push(String::new());
                room = width;
            }
        }
    }
    if wrapped.len() > lines {
        wrapped.truncate(lines);
        if let Some(last) = wrapped.last_mut() {
            *last = last.chars().take(width.saturating_sub(3)).chain("...".chars()).collect();
        }
    }
    wrapped
}

fn draw_text(sheet: &mut RgbImage, text: &str, left: u32, top: u32) {
    for (character, x) in text.chars().zip((left..).step_by(((font::WIDTH + 1) * POINT) as usize)) {
        for (dx, dy) in font::ink(character) {
            for (px, py) in (0..POINT * POINT).map(|i| (i % POINT, i / POINT)) {
                if let Some(pixel) = sheet.get_pixel_mut_checked(x + dx * POINT + px, top + dy * POINT + py) {
                    *pixel = INK;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_are_wrapped() {
        assert_eq!(wrap("a cat on a mat", 8, 4), ["a cat on", "a mat"]);
        assert_eq!(wrap("a cat on a mat", 5, 4), ["a cat", "on a", "mat"]);
        assert_eq!(wrap("a  cat\ton\na mat, asleep", 5, 3), ["a cat", "on a", "ma..."]);
        assert_eq!(wrap("abcdefghij k", 4, 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrap("ab cdefgh", 4, 4), ["ab", "cdef", "gh"]);
        assert_eq!(wrap("", 4, 4), [""]);
        assert_eq!(wrap("日本語です", 3, 4), ["日本語", "です"]);
    }

    fn tile(width: u32, height: u32, colour: u8) -> Tile {
        Tile { image: RgbImage::from_pixel(width, height, Rgb([colour, 0, 0])), caption: "I".into() }
    }

    #[test]
    fn tiles_stand_in_a_grid_with_captions_below() {
        let tiles: Vec<Tile> = (0..5).map(|i| tile(192, 64, 100 + i)).collect();
        let sheet = contact_sheet(&tiles, 3).unwrap();
        let (step_x, step_y) = (192 + 8, 64 + 8 + 4 * 18 + 8);
        assert_eq!(sheet.dimensions(), (3 * step_x + 8, 2 * step_y + 8));
        for (i, (x, y)) in [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)].into_iter().enumerate() {
            let (left, top) = (8 + x * step_x, 8 + y * step_y);
            for (dx, dy) in [(0, 0), (191, 63)] {
                assert_eq!(sheet.get_pixel(left + dx, top + dy), &Rgb([100 + i as u8, 0, 0]));
            }
            // The top bar of the I, three points wide.
            let bar: Vec<bool> = (0..10).map(|dx| sheet.get_pixel(left + dx, top + 64 + 8) == &INK).collect();
            assert_eq!(bar, [false, false, true, true, true, true, true, true, false, false]);
        }
        assert_eq!(sheet.get_pixel(8 + 2 * step_x, 8 + step_y), &PAPER);
    }

    #[test]
    fn small_images_are_enlarged_pixel_by_pixel() {
        let mut small = tile(64, 32, 0);
        small.image.put_pixel(63, 31, Rgb([7, 7, 7]));
        let sheet = contact_sheet(&[small], 1).unwrap();
        assert_eq!(sheet.dimensions(), (192 + 16, 96 + 8 + 8 + 4 * 18 + 8));
        let last = (0..96).flat_map(|y| (0..192).map(move |x| (x, y))).filter(|(x, y)| sheet.get_pixel(8 + x, 8 + y)[0] == 7);
        assert!(last.eq((93..96).flat_map(|y| (189..192).map(move |x| (x, y)))));
    }

    #[test]
    fn large_images_shrink_and_odd_requests_are_errors() {
        let sheet = contact_sheet(&[tile(2000, 1000, 9)], 6).unwrap();
        assert_eq!(sheet.dimensions(), (256 + 16, 128 + 8 + 8 + 4 * 18 + 8));
        assert_eq!(sheet.get_pixel(100, 100), &Rgb([9, 0, 0]));
        assert!(contact_sheet(&[], 3).is_err());
        assert!(contact_sheet(&[tile(1, 1, 0)], 0).is_err());
        assert!(contact_sheet(&vec![tile(1, 256, 0); 3000], 10).is_err());
        assert_eq!(contact_sheet(&vec![tile(1, 1, 0); 2], usize::MAX).unwrap().width(), 2 * 200 + 8);
    }
}
