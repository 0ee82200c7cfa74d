//! The background of a picture, and the light on all of it.

use super::super::render::SIDE;
use super::super::scene::{Background, distance};
use super::paint::{Paint, norm};
use super::{PIXELS, Rgb};

/// What lies behind the objects.
pub(super) struct Ground {
    pub background: Background,
    /// Its colour at each pixel, without its pattern: a plane through each channel.
    pub shade: Vec<Rgb>,
    /// Light on each pixel, by channel: what a colour is multiplied by to be seen. 1 is even light.
    pub light: Vec<Rgb>,
}

/// The brightness at which most pixels look like a background, and how many do.
#[derive(Clone, Copy)]
struct Vote {
    background: Background,
    brightness: f32,
    pixels: f32,
}

impl Ground {
    pub fn of(pixels: &[Rgb]) -> Ground {
        let votes = Background::ALL.map(|background| Vote::of(background, pixels));
        let top = votes.into_iter().fold(votes[0], |top, vote| if vote.pixels > top.pixels { vote } else { top });
        let start = (0..PIXELS).map(|i| palette(top.background, i).map(|c| c * top.brightness)).collect();
        let shade = planes(pixels, start);
        let (background, scale) = lighting(pixels, &shade, &votes, top.pixels);
        let light = (0..PIXELS).map(|i| scale.map(|s| s * brightness(background, shade[i], i))).collect();
        Ground { background, shade, light }
    }
}

impl Vote {
    fn of(background: Background, pixels: &[Rgb]) -> Vote {
        let mut best = Vote { background, brightness: 1.0, pixels: 0.0 };
        // The range of the camera's exposures.
        for brightness in (0..11).map(|step| 0.6 + 0.05 * step as f32) {
            let agreement = |i: usize| {
                let far = distance(palette(background, i).map(|c| c * brightness), pixels[i]) / 0.12;
                (1.0 - far * far).max(0.0)
            };
            let agreeing: f32 = (0..PIXELS).step_by(3).map(agreement).sum();
            if agreeing > best.pixels {
                best = Vote { background, brightness, pixels: agreeing };
            }
        }
        best
    }
}

/// A background's colour at pixel `i`, in even light.
fn palette(background: Background, i: usize) -> Rgb {
    let [top, bottom] = background.rgb();
    let down = (i / SIDE) as f32 / SIDE as f32;
    [0, 1, 2].map(|c| top[c] + (bottom[c] - top[c]) * down)
}

/// Brightness of pixel `i`, if its shade is this background's.
fn brightness(background: Background, shade: Rgb, i: usize) -> f32 {
    let [seen, even] = [shade, palette(background, i)].map(|rgb| rgb.iter().sum::<f32>());
    (seen / even).clamp(0.5, 1.3)
}

/// Planes through the channels by iteratively reweighted least squares, with the Geman-McClure weight (1 + (d / s)^2)^-2 of a
/// pixel's distance from all three, and a scale s that shrinks.
fn planes(pixels: &[Rgb], mut shade: Vec<Rgb>) -> Vec<Rgb> {
    for round in 0..6 {
        let scale = 0.1 / (1.0 + 0.3 * round as f32);
        let (mut normal, mut right) = ([[0.0f64; 3]; 3], [[0.0f64; 3]; 3]);
        for (i, pixel) in pixels.iter().enumerate() {
            let far = f64::from(distance(*pixel, shade[i]) / scale);
            let weight = (1.0 + far * far).powi(-2);
            let at = basis(i).map(f64::from);
            for a in 0..3 {
                for b in 0..3 {
                    normal[a][b] += weight * at[a] * at[b];
                    right[a][b] += weight * at[a] * f64::from(pixel[b]);
                }
            }
        }
        let plane = solve(normal, right);
        for (i, shade) in shade.iter_mut().enumerate() {
            let at = basis(i);
            *shade = [0, 1, 2].map(|c| (0..3).map(|a| at[a] * plane[a][c] as f32).sum());
        }
    }
    shade
}

/// 1, x and y of pixel `i`, from -1 to 1.
fn basis(i: usize) -> [f32; 3] {
    let [x, y] = [i % SIDE, i / SIDE].map(|p| (p as f32 + 0.5) * 2.0 / SIDE as f32 - 1.0);
    [1.0, x, y]
}

/// Solves `a x = b` for the three columns of `b`, by Gauss-Jordan elimination; `a` is positive semidefinite.
fn solve(mut a: [[f64; 3]; 3], mut b: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    for i in 0..3 {
        let pivot = a[i][i] + 1e-6;
        a[i] = a[i].map(|v| v / pivot);
        b[i] = b[i].map(|v| v / pivot);
        for j in (0..3).filter(|&j| j != i) {
            let factor = a[j][i];
            a[j] = [0, 1, 2].map(|k| a[j][k] - factor * a[i][k]);
            b[j] = [0, 1, 2].map(|k| b[j][k] - factor * b[i][k]);
        }
    }
    b
}

/// The background, among those with nearly as many votes as the first, and the correction of its light by channel with which the
/// pixels that differ from it look most like objects. The night is too dark to tell the light by itself.
fn lighting(pixels: &[Rgb], shade: &[Rgb], votes: &[Vote], most: f32) -> (Background, Rgb) {
    let mut figures: Vec<usize> = (0..PIXELS).filter(|&i| distance(pixels[i], shade[i]) > 0.25).collect();
    let stride = figures.len() / 200 + 1;
    figures = figures.into_iter().step_by(stride).collect();
    let mut best = (f32::INFINITY, Background::Sky, [1.0; 3]);
    for vote in votes.iter().filter(|vote| vote.pixels >= 0.8 * most) {
        let bright = |i: usize| brightness(vote.background, shade[i], i);
        let middle = bright(PIXELS / 2 + SIDE / 2);
        let (steps, spread) = if vote.background == Background::Night { (-6..=6, 0.5) } else { (-4..=4, 0.12) };
        for step in steps {
            for warmth in [-0.05f32, 0.0, 0.05] {
                let scale = (0.05 * step as f32).exp();
                let light = [1.0 + warmth, 1.0, 1.0 - warmth].map(|tone| scale * tone);
                let misfit = |&i: &usize| from_objects([0, 1, 2].map(|c| pixels[i][c] / (bright(i) * light[c])));
                let misfit = figures.iter().map(misfit).sum::<f32>() / figures.len().max(1) as f32;
                let prior = (scale.ln() / spread).powi(2) + (warmth / 0.05).powi(2);
                let outside = (scale * middle - 1.12).max(0.62 - scale * middle).max(0.0);
                let cost = misfit + 0.01 * prior + 0.4 * outside + 0.2 * (1.0 - vote.pixels / most);
                if cost < best.0 {
                    best = (cost, vote.background, light);
                }
            }
        }
    }
    (best.1, best.2)
}

/// Distance of a colour in even light from the nearest paint, up to 0.2.
fn from_objects(pixel: Rgb) -> f32 {
    let from = |paint: &Paint| {
        let (rest, share) = paint.rest(pixel, 1.0);
        norm(rest) + 0.05 * share
    };
    Paint::all().iter().map(from).fold(0.2, f32::min)
}
