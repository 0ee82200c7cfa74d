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
