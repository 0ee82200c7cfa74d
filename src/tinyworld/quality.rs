//! How good pictures are, measured: does CLIP find the right one, and does the renderer's own eye see what the caption says?

use super::{SIDE, Scene, go_on, recognise};
use crate::clip::Clip;
use crate::{Error, Result};
use image::RgbImage;
use rayon::prelude::*;
use serde::Serialize;
use std::sync::atomic::AtomicBool;

/// Pictures among which the right one is to be found.
pub const CANDIDATES: usize = 100;

/// Shares of 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Quality {
    /// Pictures measured.
    pub pictures: usize,
    /// How often, of [`CANDIDATES`] pictures, CLIP finds that of a caption the nearest to it; nothing with fewer pictures.
    pub retrieval: Option<f64>,
    /// Captions it was asked for: the whole groups of [`CANDIDATES`].
    pub asked: usize,
    /// What [`recognise`] sees in the pictures of a single object.
    pub single: Attributes,
}

/// How often the largest object seen in a picture is what the scene says.
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
    /// Share in which nothing else is seen.
    pub alone: f64,
}

/// A scene, the caption to judge by, and the picture to judge, of [`SIDE`] x [`SIDE`] pixels.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What should be there.
    pub scene: Scene,
    /// What was asked for.
    pub caption: String,
    /// What came; nothing counts as wrong.
    pub picture: Option<RgbImage>,
}

/// Measures pictures.
///
/// # Errors
/// [`Error::Shape`] for a picture of another size; [`Error::Interrupted`] once `stop` is raised; the errors of [`Clip`].
pub fn measure(pictures: &[Judged], clip: &Clip, stop: &AtomicBool) -> Result<Quality> {
    let side = SIDE as u32;
    let images = images_of(pictures);
    if let Some(odd) = images.iter().find(|image| image.dimensions() != (side, side)) {
        let message = format!("a picture of {:?} pixels; the world's have {SIDE} a side", odd.dimensions());
        return Err(Error::shape("tinyworld quality", message));
    }
    let captions: Vec<&str> = pictures.iter().map(|judged| judged.caption.as_str()).collect();
    let texts = clip.encode_texts(&captions)?;
    let (mut features, mut seen) = (Vec::with_capacity(images.len() * clip.dim()), Vec::new());
    for part in pictures.chunks(CANDIDATES) {
        go_on(stop)?;
        features.extend(clip.encode_images(&images_of(part))?);
        seen.extend(clip.device().install(|| singles(part)));
    }
    let mut features = features.chunks_exact(clip.dim());
    let found: Vec<Option<&[f32]>> =
        pictures.iter().map(|judged| judged.picture.as_ref().and_then(|_| features.next())).collect();
    let texts: Vec<&[f32]> = texts.chunks_exact(clip.dim()).collect();
    Ok(Quality {
        pictures: images.len(),
        retrieval: retrieval(&texts, &found, CANDIDATES),
        asked: pictures.len() / CANDIDATES * CANDIDATES,
        single: Attributes::of(&seen),
    })
}

/// The pictures that there are.
fn images_of(judged: &[Judged]) -> Vec<&RgbImage> {
    judged.iter().filter_map(|judged| judged.picture.as_ref()).collect()
}

/// How often the image of a text's own place is nearer to it than all others of its group of `candidates`. Places behind the last
/// whole group are left out; nothing without a whole group.
fn retrieval(texts: &[&[f32]], images: &[Option<&[f32]>], candidates: usize) -> Option<f64> {
    let (mut right, mut asked) = (0, 0);
    for (texts, images) in texts.chunks_exact(candidates).zip(images.chunks_exact(candidates)) {
        for (own, text) in texts.iter().enumerate() {
            let near = |image: &&[f32]| image.iter().zip(*text).map(|(a, b)| a * b).sum();
            let scores: Vec<f32> = images.iter().map(|image| image.as_ref().map_or(f32::NEG_INFINITY, near)).collect();
            right += usize::from((0..candidates).all(|other| other == own || scores[other] < scores[own]));
            asked += 1;
        }
    }
    (asked > 0).then(|| right as f64 / asked as f64)
}

/// What is right about the picture of a single object.
struct Verdict {
    kind: bool,
    colour: bool,
    alone: bool,
}

/// Verdicts on the pictures of scenes with one object.
fn singles(pictures: &[Judged]) -> Vec<Verdict> {
    let verdict = |judged: &Judged| {
        let [object] = &judged.scene.objects[..] else { return None };
        let seen = judged.picture.as_ref().map_or_else(Vec::new, |picture| recognise(picture));
        let largest = seen.first();
        Some(Verdict {
            kind: largest.is_some_and(|found| found.kind == object.kind),
            colour: largest.is_some_and(|found| found.colour == object.colour),
            alone: seen.len() == 1,
        })
    };
    pictures.par_iter().filter_map(verdict).collect()
}

impl Attributes {
    fn of(verdicts: &[Verdict]) -> Attributes {
        let share = |right: fn(&Verdict) -> bool| {
            verdicts.iter().filter(|verdict| right(verdict)).count() as f64 / verdicts.len().max(1) as f64
        };
        Attributes {
            pictures: verdicts.len(),
            kind: share(|verdict| verdict.kind),
            colour: share(|verdict| verdict.colour),
            both: share(|verdict| verdict.kind && verdict.colour),
            alone: share(|verdict| verdict.alone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Split;
    use super::*;

    #[test]
    fn attributes_are_of_single_objects_and_a_missing_picture_is_wrong() {
        let judged = |scene: &Scene, picture| Judged { scene: scene.clone(), caption: String::new(), picture };
        let scenes: Vec<Scene> = (0..60).map(|index| Scene::draw(Split::Test, 23, index)).collect();
        let single: Vec<&Scene> = scenes.iter().filter(|scene| scene.objects.len() == 1).collect();
        let [first, others @ ..] = &single[..] else { panic!("no scene of one object") };
        let differs = |other: &&&Scene| {
            other.objects[0].kind != first.objects[0].kind && other.objects[0].colour != first.objects[0].colour
        };
        let other = others.iter().find(differs).unwrap();
        let several = scenes.iter().find(|scene| scene.objects.len() > 1).unwrap();
        let pictures = [
            judged(first, Some(first.picture())),
            judged(first, Some(other.picture())),
            judged(first, None),
            judged(several, Some(other.picture())),
            judged(other, Some(other.picture())),
        ];
        let found = Attributes { pictures: 4, kind: 0.5, colour: 0.5, both: 0.5, alone: 0.75 };
        assert_eq!(Attributes::of(&singles(&pictures)), found);
        assert_eq!(Attributes::of(&singles(&pictures[3..4])), Attributes::default());
    }

    #[test]
    fn retrieval_counts_texts_whose_own_image_is_strictly_the_nearest() {
        let (x, y): (&[f32], &[f32]) = (&[1.0, 0.0], &[-0.1, 1.0]);
        let texts = [x, y, x, y]; // in two groups
        let found = |images: [&[f32]; 4], candidates| retrieval(&texts, &images.map(Some), candidates);
        assert_eq!(found([x, y, x, y], 2), Some(1.0));
        assert_eq!(found([y, x, x, y], 2), Some(0.5));
        assert_eq!(found([x, x, x, y], 2), Some(0.5), "a tie finds nothing");
        assert_eq!(found([x, y, x, y], 3), Some(1.0 / 3.0), "one whole group of three, in which the first and third are alike");
        assert_eq!(found([x, y, x, y], 5), None);
        assert_eq!(
            retrieval(&texts, &[None, Some(y), Some(x), None], 2),
            Some(0.5),
            "what is missing is not found, nor in the way"
        );
    }
}
