//! A visual world small enough to ship: seeded scenes of a few coloured objects, drawn as [`SIDE`] x [`SIDE`] pictures and told in
//! five captions each.
//!
//! | file | what it knows |
//! |---|---|
//! | `scene` | what may be in a scene, and how one is drawn by lot |
//! | `split` | the parts of the world, which share no scene |
//! | `shape`, `render` | outlines and pixels |
//! | `recognise` | pixels back to objects |
//! | `caption` | words |
//! | `dataset` | shards and COCO files |
//! | `quality`, `demo` | the pipeline on this world, and how good its pictures are |
//!
//! Everything is a pure function of (split, seed, index). Pixels, and whether a caption calls one object hidden by another, go
//! through the sine and the exponential of the platform: another one may round a value differently.

use crate::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};

mod caption;
mod dataset;
mod demo;
mod quality;
mod recognise;
mod render;
mod scene;
mod shape;
mod split;

pub use caption::CAPTIONS;
pub use dataset::{Dataset, Progress, Written};
pub use demo::{Demo, Report};
pub use quality::{Attributes, CANDIDATES, Judged, Quality, measure};
pub use recognise::{Sighting, recognise};
pub use render::SIDE;
pub use scene::{Background, Camera, Colour, Kind, MAX_OBJECTS, Object, Scene, Size, Texture, Third};
pub use split::Split;

/// Which world this is. Raised by any change of scenes, captions or pictures: data and models of another one are not comparable.
pub const REVISION: u32 = 1;

/// [`Error::Interrupted`] once `stop` is raised.
fn go_on(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    /// After a change, models may have seen scenes of `test`, and captions may use words they do not know.
    #[test]
    fn scenes_and_captions_are_those_of_the_revision() {
        let mut hasher = Sha256::new();
        for split in Split::ALL {
            for index in 0..25 {
                let scene = Scene::draw(split, 17, index);
                assert_eq!(Split::of(&scene), split);
                hasher.update(serde_json::to_vec(&scene).unwrap());
                hasher.update(scene.captions().join("\n"));
            }
        }
        let digest = crate::files::hex(&hasher.finalize());
        assert_eq!((REVISION, &digest[..16]), (1, "8a4d510ef2252ea4"));
    }

    /// Means of red, green and blue of the quarters of pictures; not bytes, for the platform may round them differently.
    #[test]
    fn pictures_are_those_of_the_revision() {
        let half = SIDE as u32 / 2;
        let quarters = [(0, 0), (half, 0), (0, half), (half, half)];
        let mut means = Vec::new();
        for index in 0..3 {
            let picture = Scene::draw(Split::Test, 17, index).picture();
            for (left, top) in quarters {
                let pixels = (top..top + half).flat_map(|y| (left..left + half).map(move |x| (x, y)));
                let sums = pixels.fold([0; 3], |sums: [u32; 3], (x, y)| {
                    std::array::from_fn(|channel| sums[channel] + u32::from(picture.get_pixel(x, y)[channel]))
                });
                means.push(sums.map(|sum| f64::from(sum) / f64::from(half * half)));
            }
        }
        let known: [[f64; 3]; 12] = [
            [24.42, 95.24, 121.48],
            [46.19, 109.79, 115.99],
            [51.27, 94.22, 83.71],
            [20.90, 81.79, 107.24],
            [221.35, 190.36, 157.02],
            [243.07, 201.17, 149.94],
            [195.28, 156.32, 112.75],
            [215.87, 172.12, 123.38],
            [111.38, 142.92, 51.03],
            [133.07, 152.58, 92.00],
            [109.08, 112.77, 59.51],
            [87.15, 116.52, 38.09],
        ];
        assert_eq!(REVISION, 1);
        for (found, known) in means.iter().flatten().zip(known.iter().flatten()) {
            assert!((found - known).abs() < 0.1, "{means:.2?}");
        }
    }
}
