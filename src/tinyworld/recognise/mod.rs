//! Pictures back to objects, by the renderer's own shapes and colours and nothing learned: what a picture shows, whoever drew it.
//!
//! | step | file |
//! |---|---|
//! | the background, as robust planes through the picture, and the light on it | `ground` |
//! | for each colour and pixel, how far that colour explains it better than all else does | `evidence` |
//! | for each colour and kind, where that kind's silhouette gathers most evidence (a matched filter) | `search` |
//! | the likeliest of them, drawn and blurred and compared with the picture | `compare` |
//!
//! The best one is a find. What it covers no longer counts, and the search goes on until nothing stands out.

mod compare;
mod evidence;
mod ground;
mod paint;
mod pose;
mod search;

use super::render::SIDE;
use super::scene::{Colour, Kind, Rgb};
use compare::Compare;
use evidence::Evidence;
use ground::Ground;
use pose::Pose;

/// Pixels of a picture.
const PIXELS: usize = SIDE * SIDE;

/// Most finds in a picture, scenes having fewer.
const MOST: usize = 6;

/// Of what could be gained at a find, the least that must be, and the least gain, in pixels: below lie patterns and remains.
const LEAST: (f32, f32) = (0.15, 13.0);

/// An object that a picture shows. Lengths are in widths of the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sighting {
    /// What it is.
    pub kind: Kind,
    /// Its main colour.
    pub colour: Colour,
    /// Centre, from 0 at the left to 1 at the right.
    pub x: f32,
    /// Centre, from 0 at the top to 1 at the bottom.
    pub y: f32,
    /// Half of its extent.
    pub radius: f32,
    /// How clearly it is seen: the share of its pixels that it explains and the background does not, to 1. In real scenes 0.55 and
    /// more for plain objects, but as little as 0.2 for a pattern whose second colour is like the background.
    pub score: f32,
}

/// The objects that a picture shows, the largest first; none when nothing stands out. The picture is RGB8 of shape [[`SIDE`],
/// [`SIDE`], 3], real or generated: blurred to a standard deviation of two pixels, and slightly deformed.
///
/// # Panics
/// If the picture has another size.
pub fn recognise(picture: &[u8]) -> Vec<Sighting> {
    assert_eq!(picture.len(), PIXELS * 3, "a picture of {SIDE} x {SIDE} pixels");
    let pixels: Vec<Rgb> = picture.chunks_exact(3).map(|p| [0, 1, 2].map(|c| f32::from(p[c]) / 255.0)).collect();
    let mut evidence = Evidence::of(&pixels, &Ground::of(&pixels));
    let mut compare = Compare::default();
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut unsearched = Colour::ALL.to_vec();
    let mut found = Vec::new();
    while found.len() < MOST {
        for colour in unsearched {
            candidates.extend(compare.judged(&evidence, search::propose(&evidence, colour)));
        }
        let Some(best) = compare.best(&evidence, &mut candidates) else { break };
        if best.share < LEAST.0 || best.gain < LEAST.1 {
            break;
        }
        evidence.explain(&best);
        // Evidence has changed for the colours that have candidates near the find.
        let near = |c: &Candidate| c.pose.reaches(&best.pose);
        unsearched = Colour::ALL.into_iter().filter(|&colour| candidates.iter().any(|c| c.colour == colour && near(c))).collect();
        candidates.retain(|c| !unsearched.contains(&c.colour));
        found.push(best.sighting());
    }
    found.sort_by(|a, b| b.radius.total_cmp(&a.radius));
    found
}

/// What may be a find.
#[derive(Clone, Debug)]
struct Candidate {
    kind: Kind,
    colour: Colour,
    pose: Pose,
    /// Pixels that it explains better than the background does, less twice those it explains worse.
    gain: f32,
    /// The same as a share of the pixels it covers, but with the worse ones counted once.
    share: f32,
    /// Whether no small movement gains more.
    settled: bool,
}

impl Candidate {
    fn sighting(&self) -> Sighting {
        let [x, y, radius] = [self.pose.x, self.pose.y, self.pose.radius].map(|p| p / SIDE as f32);
        Sighting { kind: self.kind, colour: self.colour, x, y, radius, score: self.share.min(1.0) }
    }
}

#[cfg(test)]
mod tests;
