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

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    /// A change here deals scenes to other splits, or tells them otherwise: what models have seen is then no longer unseen, or unknown to them.
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
}
