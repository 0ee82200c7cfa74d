//! How good pictures are, measured: does CLIP find the right one, and does the renderer's own eye see what the caption says?

use super::{SIDE, Scene, recognise};
use crate::clip::Clip;
use crate::{Error, Result};
use image::RgbImage;
use rayon::prelude::*;
use serde::Serialize;

/// Pictures among which the right one is to be found.
pub const CANDIDATES: usize = 100;

/// Shares of 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Quality {
    /// Pictures measured.
    pub pictures: usize,
    /// How often, of [`CANDIDATES`] pictures, CLIP finds that of a caption the nearest to it; nothing with fewer pictures.
    pub retrieval: Option<f64>,
    /// What [`recognise`] sees in the pictures of a single object.
    pub single: Attributes,
}

/// How often the largest object of a picture is what the scene says.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Attributes {
    /// Pictures of scenes with one object.
    pub pictures: usize,
    /// Share in which its kind is right.
    pub kind: f64,
    /// Share in which its colour is right.
    pub colour: f64,
    /// Share in which both are right.
    pub both: f64,
}

/// A scene, the caption to judge by, and the picture to judge, of [`SIDE`] x [`SIDE`] pixels.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What should be there.
    pub scene: Scene,
    /// What was asked for.
    pub caption: String,
    /// What came.
    pub picture: RgbImage,
}

/// Measures pictures.
///
/// # Errors
/// [`Error::Shape`] for a picture of another size; the errors of [`Clip`].
pub fn measure(pictures: &[Judged], clip: &Clip) -> Result<Quality> {
    let side = SIDE as u32;
    if let Some(odd) = pictures.iter().find(|judged| judged.picture.dimensions() != (side, side)) {
        let message = format!("a picture of {:?} pixels; the world's have {SIDE} a side", odd.picture.dimensions());
        return Err(Error::shape("tinyworld quality", message));
    }
    let images: Vec<RgbImage> = pictures.iter().map(|judged| judged.picture.clone()).collect();
    let captions: Vec<&str> = pictures.iter().map(|judged| judged.caption.as_str()).collect();
    let (images, texts) = (clip.encode_images(&images)?, clip.encode_texts(&captions)?);
    let retrieval = retrieval(&texts, &images, clip.dim(), CANDIDATES);
    Ok(Quality { pictures: pictures.len(), retrieval, single: attributes(pictures) })
}

/// Of features `[N, dim]`, how often the image of a text's own row is nearer to it than all others of its group of `candidates`
/// rows. Rows behind the last whole group are left out; nothing without a whole group.
fn retrieval(texts: &[f32], images: &[f32], dim: usize, candidates: usize) -> Option<f64> {
    let (mut right, mut asked) = (0, 0);
    for (texts, images) in texts.chunks_exact(candidates * dim).zip(images.chunks_exact(candidates * dim)) {
        for (row, text) in texts.chunks_exact(dim).enumerate() {
            let scores: Vec<f32> =
                images.chunks_exact(dim).map(|image| image.iter().zip(text).map(|(a, b)| a * b).sum()).collect();
            let beaten = (scores.iter().enumerate()).all(|(other, score)| other == row || *score < scores[row]);
            right += usize::from(beaten);
            asked += 1;
        }
    }
    (asked > 0).then(|| right as f64 / asked as f64)
}

fn attributes(pictures: &[Judged]) -> Attributes {
    let verdicts: Vec<(bool, bool)> = (pictures.par_iter())
        .filter_map(|judged| {
            let [object] = &judged.scene.objects[..] else { return None };
            let seen = recognise(judged.picture.as_raw());
            let right = seen.first().map(|found| (found.kind == object.kind, found.colour == object.colour));
            Some(right.unwrap_or((false, false)))
        })
        .collect();
    let share = |right: fn(&(bool, bool)) -> bool| {
        verdicts.iter().filter(|verdict| right(verdict)).count() as f64 / verdicts.len().max(1) as f64
    };
    Attributes {
        pictures: verdicts.len(),
        kind: share(|(kind, _)| *kind),
        colour: share(|(_, colour)| *colour),
        both: share(|(kind, colour)| *kind && *colour),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retrieval_counts_texts_whose_own_image_is_strictly_the_nearest() {
        let axes = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0]; // four rows of two, in two groups
        assert_eq!(retrieval(&axes, &axes, 2, 2), Some(1.0));
        let swapped = [0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0];
        assert_eq!(retrieval(&axes, &swapped, 2, 2), Some(0.5));
        let equal = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0];
        assert_eq!(retrieval(&axes, &equal, 2, 2), Some(0.5), "a tie finds nothing");
        assert_eq!(retrieval(&axes, &axes, 2, 3), Some(1.0), "one whole group of three");
        assert_eq!(retrieval(&axes, &axes, 2, 5), None);
    }
}
