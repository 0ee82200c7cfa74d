//! For each pixel and colour: does the pixel belong to an object of that colour, or to something else?

use super::super::scene::{Background, Colour};
use super::ground::Ground;
use super::paint::{Paint, dot, minus, norm};
use super::{Candidate, PIXELS, Rgb};

/// Difference of two distances of colours that settles which of the two a pixel has.
const CLEAR: f32 = 0.15;

/// How much nearer another colour must be to speak against one: paints meet where they are dark or pale.
const LENIENCE: f32 = 0.12;

/// A pixel against a shape weighs more than one for it, so that no shape spans the gap between two objects.
const AGAINST: f32 = 1.5;

/// A picture in even light, its background, and what its pixels tell.
pub(super) struct Evidence {
    pub pixels: Vec<Rgb>,
    /// Background without its pattern.
    pub shade: Vec<Rgb>,
    /// Range of the background's pattern: grey that is added to the shade.
    pub pattern: [f32; 2],
    /// Distance of each pixel from all that the background may be.
    pub behind: Vec<f32>,
    /// Whether no find covers the pixel.
    pub open: Vec<bool>,
    /// By colour, for each pixel: from 1 where nothing but that colour explains it to -[`AGAINST`] where all else does.
    maps: Vec<Vec<f32>>,
}

impl Evidence {
    pub fn of(pixels: &[Rgb], ground: &Ground) -> Evidence {
        let even =
            |seen: &[Rgb]| seen.iter().zip(&ground.light).map(|(seen, light)| [0, 1, 2].map(|c| seen[c] / light[c])).collect();
        let (pixels, shade): (Vec<Rgb>, Vec<Rgb>) = (even(pixels), even(&ground.shade));
        let pattern = match ground.background {
            // The stars of the night are left: they are smaller than any object.
            Background::Sky | Background::Snow | Background::Night => [-0.02, 0.02],
            Background::Brick => [-0.03, 0.17],
            Background::Grass | Background::Sand | Background::Sea | Background::Wood => [-0.06, 0.06],
        };
        let behind: Vec<f32> = pixels.iter().zip(&shade).map(|(pixel, shade)| from_ground(*pixel, *shade, pattern)).collect();
        let mut maps = vec![vec![0.0; PIXELS]; Colour::ALL.len()];
        for (i, pixel) in pixels.iter().enumerate() {
            let far = Paint::all().each_ref().map(|paint| from_surface(*pixel, paint));
            for (c, map) in maps.iter_mut().enumerate() {
                let others = far.iter().enumerate().filter(|(other, _)| *other != c);
                let other = others.fold(f32::INFINITY, |nearest, (_, far)| nearest.min(*far));
                let speaks = ((behind[i].min(other + LENIENCE) - far[c]) / CLEAR).clamp(-1.0, 1.0);
                map[i] = if speaks < 0.0 { AGAINST * speaks } else { speaks };
            }
        }
        Evidence { pixels, shade, pattern, behind, open: vec![true; PIXELS], maps }
    }

    /// Evidence of a colour, by pixel.
    pub fn map(&self, colour: Colour) -> &[f32] {
        &self.maps[colour as usize]
    }

    /// Takes out what a find covers, with its blurred edge.
    pub fn explain(&mut self, find: &Candidate) {
        for i in (0..PIXELS).filter(|&i| find.pose.distances(find.kind, i)[0] < 1.5) {
            self.open[i] = false;
            self.maps.iter_mut().for_each(|map| map[i] = 0.0);
        }
    }
}

/// Distance of a pixel from the background, with its pattern or in a shadow.
fn from_ground(pixel: Rgb, shade: Rgb, [low, high]: [f32; 2]) -> f32 {
    let under = |dim: f32| {
        let rest = minus(pixel, dim, shade);
        let grey = (rest.iter().sum::<f32>() / 3.0).clamp(low, high);
        norm(rest.map(|c| c - grey))
    };
    let dim = (dot(pixel, shade) / dot(shade, shade).max(1e-6)).clamp(0.5, 1.0);
    under(1.0).min(under(dim))
}

/// Distance of a pixel from all that an object of a paint may show, its darker outline and details included.
fn from_surface(pixel: Rgb, paint: &Paint) -> f32 {
    let at = |brightness: f32| norm(paint.rest(pixel, brightness).0) + 0.12 * (1.0 - brightness);
    [1.0, 0.85, 0.7, 0.55].into_iter().map(at).fold(f32::INFINITY, f32::min)
}
