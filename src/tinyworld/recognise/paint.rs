//! What objects are painted with.

use super::super::render::second_colour;
use super::super::scene::Colour;
use super::Rgb;
use std::sync::LazyLock;

/// The colours of an object: its main one, its pattern's second one, and all between, as pixels at a pattern's edges have.
pub(super) struct Paint {
    main: Rgb,
    /// From the main colour to the second.
    change: Rgb,
}

impl Paint {
    pub fn of(colour: Colour) -> &'static Paint {
        &Paint::all()[colour as usize]
    }

    /// The paint of each colour, in their order.
    pub fn all() -> &'static [Paint; Colour::ALL.len()] {
        static PAINTS: LazyLock<[Paint; Colour::ALL.len()]> = LazyLock::new(|| {
            Colour::ALL.map(|colour| {
                let main = colour.rgb();
                Paint { main, change: minus(second_colour(colour, main), 1.0, main) }
            })
        });
        &PAINTS
    }

    /// What remains of a pixel without the nearest of the paint's colours, seen at a brightness above 0, and that colour's share
    /// of the second one.
    pub fn rest(&self, pixel: Rgb, brightness: f32) -> (Rgb, f32) {
        let rest = minus(pixel, brightness, self.main);
        let share = (dot(rest, self.change) / (brightness * dot(self.change, self.change))).clamp(0.0, 1.0);
        (minus(rest, brightness * share, self.change), share)
    }
}

/// `a - scale * b`.
pub(super) fn minus(a: Rgb, scale: f32, b: Rgb) -> Rgb {
    [0, 1, 2].map(|c| a[c] - scale * b[c])
}

pub(super) fn dot(a: Rgb, b: Rgb) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(super) fn norm(a: Rgb) -> f32 {
    dot(a, a).sqrt()
}
