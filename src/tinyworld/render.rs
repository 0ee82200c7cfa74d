//! Scenes to pictures: an anti-aliased rasteriser over signed distances, and a camera that is not perfect.

use super::scene::{Background, Camera, Colour, Object, Rgb, Scene, Texture};
use super::shape::{Point, Shape};
use crate::rng::SplitMix64;
use image::RgbImage;

/// Width and height of every picture, in pixels.
pub const SIDE: usize = 64;

/// Width of the darker outline of an object, in pixels.
pub(super) const OUTLINE: f32 = 1.1;

/// Where a shadow falls, in pixels.
const SHADOW: Point = [1.6, 2.0];

impl Scene {
    /// The picture, [`SIDE`] x [`SIDE`] pixels: a pure function of the scene.
    pub fn picture(&self) -> RgbImage {
        let mut rng = SplitMix64::new(self.camera.seed);
        let mut canvas = background(self.background, &self.camera, &mut rng);
        for object in &self.objects {
            Figure::new(object, &self.camera, &mut rng).draw(&mut canvas, self.camera.shadow);
        }
        light(&mut canvas, &self.camera);
        blur(&mut canvas, self.camera.blur);
        expose(&canvas, self.camera.noise, &mut rng)
    }
}

/// Centre of pixel `i`, row by row.
fn centre(i: usize) -> Point {
    [(i % SIDE) as f32 + 0.5, (i / SIDE) as f32 + 0.5]
}

/// Where a point of the scene, in widths of the picture, is seen, in pixels.
fn seen(camera: &Camera, x: f32, y: f32) -> Point {
    let [dx, dy] = [x - 0.5, y - 0.5].map(|d| d * camera.zoom);
    let (sin, cos) = camera.roll.sin_cos();
    [(dx * cos - dy * sin + 0.5 + camera.shift[0]), (dx * sin + dy * cos + 0.5 + camera.shift[1])].map(|p| p * SIDE as f32)
}

fn mix(a: Rgb, b: Rgb, share: f32) -> Rgb {
    [0, 1, 2].map(|c| a[c] + (b[c] - a[c]) * share)
}

/// What lies behind the objects: a gradient, and a pattern that tells what it is.
fn background(background: Background, camera: &Camera, rng: &mut SplitMix64) -> Vec<Rgb> {
    let jitter = [0; 3].map(|_| 0.02 * rng.bell());
    let [top, bottom] = background.rgb().map(|shade| [0, 1, 2].map(|c| shade[c] + jitter[c]));
    let phase = [rng.range(0.0, 16.0), rng.range(0.0, 16.0)];
    let spots: Vec<Point> = (0..14).map(|_| [rng.range(0.0, SIDE as f32), rng.range(0.0, SIDE as f32)]).collect();
    let [sin, cos] = [camera.roll.sin(), camera.roll.cos()];
    let pixel = |i| {
        let at = centre(i);
        let [x, y] = [at[0] * cos + at[1] * sin + phase[0], at[1] * cos - at[0] * sin + phase[1]];
        let shade = mix(top, bottom, at[1] / SIDE as f32);
        let spot = || spots.iter().map(|s| (s[0] - at[0]).hypot(s[1] - at[1])).fold(f32::INFINITY, f32::min);
        let brighter = match background {
            Background::Sky | Background::Snow => 0.0,
            Background::Grass => 0.045 * (1.9 * x + 0.6 * (0.8 * y).sin()).sin(),
            Background::Sand => 0.03 * (0.55 * y + 1.2 * (0.17 * x).sin()).sin(),
            Background::Sea => 0.06 * (0.8 * y + 1.1 * (0.35 * x).sin()).sin(),
            Background::Wood => 0.05 * (0.9 * x + 0.8 * (0.12 * y).sin()).sin(),
            Background::Night => 0.7 * (1.1 - spot()).clamp(0.0, 1.0),
            Background::Brick => 0.16 * mortar(x, y),
        };
        shade.map(|c| c + brighter)
    };
    (0..SIDE * SIDE).map(pixel).collect()
}

/// 1 in the joints of a wall of bricks 16 pixels long and 8 high, 0 on the bricks.
fn mortar(x: f32, y: f32) -> f32 {
    let row = (y / 8.0).floor();
    let along = (x + 8.0 * row.rem_euclid(2.0)).rem_euclid(16.0);
    let joint = along.min(y.rem_euclid(8.0));
    (1.4 - joint).clamp(0.0, 1.0)
}

/// An object as it is seen: in pixels.
struct Figure {
    shape: &'static Shape,
    texture: Texture,
    centre: Point,
    radius: f32,
    sin: f32,
    cos: f32,
    colour: Rgb,
    /// The other colour of its pattern.
    second: Rgb,
    phase: f32,
}

impl Figure {
    fn new(object: &Object, camera: &Camera, rng: &mut SplitMix64) -> Figure {
        let jitter = [0; 3].map(|_| 0.018 * rng.bell());
        let base = object.colour.rgb();
        let colour = [0, 1, 2].map(|c| (base[c] + jitter[c]).clamp(0.0, 1.0));
        let (sin, cos) = (object.angle + camera.roll).sin_cos();
        Figure {
            shape: Shape::of(object.kind),
            texture: object.texture,
            centre: seen(camera, object.x, object.y),
            radius: object.radius * camera.zoom * SIDE as f32,
            sin,
            cos,
            colour,
            second: second_colour(object.colour, colour),
            phase: rng.range(0.0, 8.0),
        }
    }

    /// A pixel's place in the object's own directions, in pixels from its centre.
    fn local(&self, at: Point) -> Point {
        let [dx, dy] = [at[0] - self.centre[0], at[1] - self.centre[1]];
        [dx * self.cos + dy * self.sin, dy * self.cos - dx * self.sin]
    }

    /// Signed distance from the outline, in pixels.
    fn distance(&self, local: Point) -> f32 {
        self.radius * self.shape.body(local.map(|p| p / self.radius))
    }

    fn draw(&self, canvas: &mut [Rgb], shadow: f32) {
        let reach = self.radius * 1.5 + 4.0;
        for (i, pixel) in canvas.iter_mut().enumerate() {
            let at = centre(i);
            if (at[0] - self.centre[0]).abs().max((at[1] - self.centre[1]).abs()) > reach {
                continue;
            }
            if shadow > 0.0 {
                let behind = self.distance(self.local([at[0] - SHADOW[0], at[1] - SHADOW[1]]));
                *pixel = pixel.map(|c| c * (1.0 - shadow * (0.5 - behind / 2.5).clamp(0.0, 1.0)));
            }
            let local = self.local(at);
            let distance = self.distance(local);
            let coverage = (0.5 - distance).clamp(0.0, 1.0);
            if coverage > 0.0 {
                *pixel = mix(*pixel, self.surface(local, distance), coverage);
            }
        }
    }

    /// Colour of a point that the object covers.
    fn surface(&self, local: Point, distance: f32) -> Rgb {
        let patterned = mix(self.colour, self.second, self.pattern(local));
        let detail = self.radius * self.shape.details(local.map(|p| p / self.radius));
        let dark = (0.5 - detail).clamp(0.0, 1.0).max((distance + OUTLINE + 0.5).clamp(0.0, 1.0));
        patterned.map(|c| c * (1.0 - 0.5 * dark))
    }

    /// Share of the second colour. Its period grows with the object, but never below what a pixel can show.
    fn pattern(&self, [x, y]: Point) -> f32 {
        let period = (0.62 * self.radius).max(4.5);
        let phase = |p: f32| (p / period).rem_euclid(1.0);
        match self.texture {
            Texture::Plain => 0.0,
            Texture::Striped => ((0.25 - (phase(y + x * 0.5 + self.phase) - 0.5).abs()) * period + 0.5).clamp(0.0, 1.0),
            Texture::Dotted => {
                let [dx, dy] = [x, y].map(|p| (phase(p) - 0.5) * period);
                (0.29 * period - dx.hypot(dy) + 0.5).clamp(0.0, 1.0)
            }
            Texture::Checkered => {
                let [a, b] = [x, y].map(|p| ((0.25 - (phase(p / 1.15) - 0.5).abs()) * 1.15 * period).clamp(-0.5, 0.5));
                2.0 * a * b + 0.5
            }
        }
    }
}

/// What a pattern is made of beside the main colour: black on light colours, white on the others, softened.
pub(super) fn second_colour(colour: Colour, actual: Rgb) -> Rgb {
    match colour {
        Colour::White | Colour::Yellow | Colour::Pink | Colour::Orange => mix(actual, [0.12; 3], 0.72),
        _ => mix(actual, [1.0; 3], 0.72),
    }
}

/// Exposure, falloff and warmth of the light.
fn light(canvas: &mut [Rgb], camera: &Camera) {
    let warmth = [1.0 + camera.warmth, 1.0, 1.0 - camera.warmth];
    for (i, pixel) in canvas.iter_mut().enumerate() {
        let [x, y] = centre(i).map(|p| 2.0 * p / SIDE as f32 - 1.0);
        let gain = camera.exposure * (1.0 + camera.falloff[0] * x + camera.falloff[1] * y);
        *pixel = [0, 1, 2].map(|c| pixel[c] * gain * warmth[c]);
    }
}

/// Gaussian blur, along rows and then along columns; the border repeats.
fn blur(canvas: &mut Vec<Rgb>, sigma: f32) {
    const REACH: usize = 3;
    if sigma < 0.2 {
        return;
    }
    let weights: Vec<f32> = (0..=2 * REACH).map(|i| (-(i as f32 - REACH as f32).powi(2) / (2.0 * sigma * sigma)).exp()).collect();
    let total: f32 = weights.iter().sum();
    for step in [1, SIDE] {
        let pass = |i: usize| {
            let position = i / step % SIDE;
            let mut sum = [0.0; 3];
            for (k, weight) in weights.iter().enumerate() {
                let neighbour = (position + k).saturating_sub(REACH).min(SIDE - 1);
                let pixel = canvas[i - position * step + neighbour * step];
                sum = [0, 1, 2].map(|c| sum[c] + weight / total * pixel[c]);
            }
            sum
        };
        *canvas = (0..SIDE * SIDE).map(pass).collect();
    }
}

/// Noise, and rounding to bytes.
fn expose(canvas: &[Rgb], noise: f32, rng: &mut SplitMix64) -> RgbImage {
    // The sum of four uniforms: close enough to a normal for a camera, and a third of the draws.
    let mut grain = || (0..4).map(|_| rng.unit()).sum::<f32>() * 1.732 - 3.464;
    let mut byte = |c: f32| (c * 255.0 + noise * grain()).round().clamp(0.0, 255.0) as u8;
    RgbImage::from_fn(SIDE as u32, SIDE as u32, |x, y| image::Rgb(canvas[y as usize * SIDE + x as usize].map(&mut byte)))
}

#[cfg(test)]
mod tests {
    use super::super::scene::{Kind, Size};
    use super::*;

    /// One object in a scene seen without any disturbance.
    fn still(kind: Kind, colour: Colour) -> Scene {
        let object =
            Object { kind, colour, size: Size::Large, texture: Texture::Plain, x: 0.5, y: 0.5, radius: 0.25, angle: 0.0 };
        let camera = Camera {
            exposure: 1.0,
            falloff: [0.0; 2],
            warmth: 0.0,
            blur: 0.0,
            noise: 0.0,
            shift: [0.0; 2],
            roll: 0.0,
            zoom: 1.0,
            shadow: 0.0,
            seed: 1,
        };
        Scene { background: Background::Snow, objects: vec![object], camera }
    }

    fn pixel(picture: &RgbImage, x: u32, y: u32) -> Rgb {
        picture.get_pixel(x, y).0.map(|c| f32::from(c) / 255.0)
    }

    fn near(a: Rgb, b: Rgb) -> bool {
        super::super::scene::distance(a, b) < 0.12
    }

    #[test]
    fn a_still_scene_has_its_colours_in_their_places() {
        for colour in [Colour::Red, Colour::Blue, Colour::Green] {
            let picture = still(Kind::Square, colour).picture();
            assert_eq!(picture.dimensions(), (64, 64));
            assert!(near(pixel(&picture, 32, 32), colour.rgb()), "{colour:?}");
            for (x, y) in [(2, 2), (61, 2), (2, 61), (61, 61), (32, 10), (10, 32)] {
                assert!(near(pixel(&picture, x, y), Background::Snow.rgb()[1]), "{colour:?} {x} {y}");
            }
        }
    }

    #[test]
    fn edges_are_smooth() {
        // A disc's outline crosses pixels: some are neither object nor background. Its area is that of geometry.
        let picture = still(Kind::Circle, Colour::Blue).picture();
        let reds: Vec<f32> = picture.pixels().map(|pixel| f32::from(pixel[0]) / 255.0).collect();
        let between = reds.iter().filter(|&&red| (0.3..0.75).contains(&red)).count();
        assert!(between > 20, "{between}");
        let covered = reds.iter().filter(|&&red| red < 0.5).count() as f32;
        let area = std::f32::consts::PI * (0.92f32 * 16.0).powi(2);
        assert!((covered / area - 1.0).abs() < 0.05, "{covered} {area}");
    }

    #[test]
    fn each_nuisance_changes_the_picture() {
        let reference = still(Kind::Star, Colour::Red);
        let picture = reference.picture();
        let changes: [fn(&mut Camera); 9] = [
            |c| c.exposure = 0.7,
            |c| c.falloff = [0.1, 0.0],
            |c| c.warmth = 0.05,
            |c| c.blur = 1.0,
            |c| c.noise = 4.0,
            |c| c.shift = [0.03, 0.0],
            |c| c.roll = 0.1,
            |c| c.zoom = 1.05,
            |c| c.shadow = 0.4,
        ];
        for (i, change) in changes.iter().enumerate() {
            let mut scene = reference.clone();
            change(&mut scene.camera);
            let differing = scene.picture().iter().zip(picture.iter()).filter(|(a, b)| a.abs_diff(**b) > 3).count();
            assert!(differing > 60, "change {i}: {differing} values");
        }
    }

    #[test]
    fn patterns_show_two_colours() {
        for texture in [Texture::Striped, Texture::Dotted, Texture::Checkered] {
            let mut scene = still(Kind::Square, Colour::Blue);
            scene.objects[0].texture = texture;
            let picture = scene.picture();
            let inner = (22..42).flat_map(|y| (22..42).map(move |x| (x, y)));
            let light = inner.filter(|&(x, y)| pixel(&picture, x, y)[0] > 0.5).count();
            assert!((60..300).contains(&light), "{texture:?}: {light} of 400 pixels are light");
        }
    }

    #[test]
    fn a_nearer_object_hides_a_farther_one() {
        let mut scene = still(Kind::Square, Colour::Red);
        scene.objects.push(Object { kind: Kind::Circle, colour: Colour::Green, ..scene.objects[0].clone() });
        assert!(near(pixel(&scene.picture(), 32, 32), Colour::Green.rgb()));
        scene.objects.reverse();
        assert!(near(pixel(&scene.picture(), 32, 32), Colour::Red.rgb()));
    }
}
