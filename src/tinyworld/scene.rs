//! Scenes: what is in a picture, before it is drawn or put into words.

use super::Split;
use crate::rng::SplitMix64;
use serde::{Deserialize, Serialize};

/// Red, green and blue, 0 to 1.
pub(super) type Rgb = [f32; 3];

/// Declares an enum of the world's vocabulary with its list of values.
macro_rules! vocabulary {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($(#[$value_doc])* #[doc = concat!("\"", $word, "\"")] $value),+ }

        impl $name {
            /// Every value.
            pub const ALL: [$name; [$($word),+].len()] = [$($name::$value),+];

            /// The plainest word for it, which is also its name in files.
            pub fn word(self) -> &'static str {
                match self { $($name::$value => $word),+ }
            }
        }
    };
}

vocabulary! {
    /// What an object is.
    Kind {
        Circle = "circle", Square = "square", Triangle = "triangle", Star = "star", Heart = "heart", Ring = "ring",
        Cross = "cross", Moon = "moon", House = "house", Tree = "tree", Fish = "fish", Boat = "boat",
    }
}

vocabulary! {
    /// Main colour of an object.
    Colour {
        Red = "red", Orange = "orange", Yellow = "yellow", Green = "green", Blue = "blue", Purple = "purple", Pink = "pink",
        White = "white",
    }
}

vocabulary! {
    /// How large an object is.
    Size { Small = "small", Medium = "medium", Large = "large" }
}

vocabulary! {
    /// The pattern on an object.
    Texture { Plain = "plain", Striped = "striped", Dotted = "dotted", Checkered = "checkered" }
}

vocabulary! {
    /// What lies behind the objects.
    Background {
        Sky = "sky", Grass = "grass", Sand = "sand", Night = "night", Snow = "snow", Sea = "sea", Brick = "brick", Wood = "wood",
    }
}

impl Colour {
    /// Its red, green and blue in even light, from 0 to 1.
    pub fn rgb(self) -> [f32; 3] {
        match self {
            Colour::Red => [0.85, 0.13, 0.14],
            Colour::Orange => [0.96, 0.53, 0.08],
            Colour::Yellow => [0.98, 0.89, 0.16],
            Colour::Green => [0.16, 0.65, 0.25],
            Colour::Blue => [0.15, 0.30, 0.86],
            Colour::Purple => [0.50, 0.20, 0.66],
            Colour::Pink => [0.97, 0.55, 0.74],
            Colour::White => [0.95, 0.95, 0.95],
        }
    }
}

impl Background {
    /// Its red, green and blue in even light, from 0 to 1: at the top and at the bottom of the picture.
    pub fn rgb(self) -> [[f32; 3]; 2] {
        match self {
            Background::Sky => [[0.42, 0.66, 0.90], [0.74, 0.87, 0.96]],
            Background::Grass => [[0.44, 0.62, 0.24], [0.30, 0.48, 0.16]],
            Background::Sand => [[0.87, 0.77, 0.55], [0.78, 0.66, 0.43]],
            Background::Night => [[0.04, 0.05, 0.14], [0.11, 0.11, 0.26]],
            Background::Snow => [[0.86, 0.90, 0.95], [0.93, 0.95, 0.97]],
            Background::Sea => [[0.10, 0.46, 0.55], [0.05, 0.32, 0.42]],
            Background::Brick => [[0.55, 0.34, 0.29], [0.50, 0.30, 0.26]],
            Background::Wood => [[0.50, 0.37, 0.24], [0.43, 0.31, 0.19]],
        }
    }

    /// Whether an object of this colour stands out: its colour is far enough from both ends of the background's.
    pub fn shows(self, colour: Colour) -> bool {
        self.rgb().iter().all(|shade| distance(*shade, colour.rgb()) > 0.36)
    }
}

/// Euclidean distance of two colours.
pub(super) fn distance(a: Rgb, b: Rgb) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt()
}

/// One thing in a scene.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// Its main colour.
    pub colour: Colour,
    /// How large it is, in words.
    pub size: Size,
    /// Its pattern.
    pub texture: Texture,
    /// Centre, from 0 at the left to 1 at the right.
    pub x: f32,
    /// Centre, from 0 at the top to 1 at the bottom.
    pub y: f32,
    /// Half of its extent, in widths of the picture.
    pub radius: f32,
    /// Turned clockwise by this angle in radians.
    pub angle: f32,
}

/// A part of an extent. The middle is narrower than a third, so that nobody would call a place in an outer part the middle. What a
/// place is decides the split of a scene: these limits must not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Third {
    /// Left or top.
    First,
    /// The middle.
    Middle,
    /// Right or bottom.
    Last,
}

impl Third {
    fn of(position: f32) -> Third {
        match position {
            p if p < 0.37 => Third::First,
            p if p > 0.63 => Third::Last,
            _ => Third::Middle,
        }
    }
}

impl Object {
    /// Column and row of the picture's nine fields that its centre is in.
    pub fn field(&self) -> (Third, Third) {
        (Third::of(self.x), Third::of(self.y))
    }

    /// Square of the distance of the centres, in squared widths of the picture: without a root, the same on every platform.
    pub(super) fn squared_distance(&self, other: &Object) -> f32 {
        let (dx, dy) = (self.x - other.x, self.y - other.y);
        dx * dx + dy * dy
    }

    /// Whether nothing but the place tells it from `other`.
    pub fn looks_like(&self, other: &Object) -> bool {
        (self.kind, self.colour, self.size, self.texture) == (other.kind, other.colour, other.size, other.texture)
    }
}

/// How the picture was taken: what makes pictures of one scene differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Camera {
    /// Brightness; 1 is even light.
    pub exposure: f32,
    /// Change of brightness across half the picture, along x and y.
    pub falloff: [f32; 2],
    /// Red gained and blue lost: positive is warm light.
    pub warmth: f32,
    /// Standard deviation of the blur, in pixels.
    pub blur: f32,
    /// Standard deviation of the noise of a channel, in 1/255.
    pub noise: f32,
    /// Movement of everything, in widths of the picture.
    pub shift: [f32; 2],
    /// Turn of everything, in radians.
    pub roll: f32,
    /// Scale of everything.
    pub zoom: f32,
    /// Strength of the objects' shadows; 0 is none.
    pub shadow: f32,
    /// Seed of noise, of grain and of the jitter of colours.
    pub seed: u64,
}

/// Everything a picture is drawn from, and everything a caption may tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// What lies behind.
    pub background: Background,
    /// 1 to [`MAX_OBJECTS`] objects, the farthest first: a later one hides what it overlaps.
    pub objects: Vec<Object>,
    /// How it is seen.
    pub camera: Camera,
}

/// Most objects in a scene.
pub const MAX_OBJECTS: usize = 4;

/// Weights of 1, 2, 3 and 4 objects, before those that find no place.
const COUNTS: [f32; MAX_OBJECTS] = [0.28, 0.34, 0.22, 0.16];

impl Scene {
    /// Scene `index` of a split: a pure function of the three. Scenes of two splits are never alike (see [`Split`]), whatever
    /// their seeds.
    pub fn draw(split: Split, seed: u64, index: u64) -> Scene {
        let mut attempt = 0;
        loop {
            let mut rng = SplitMix64::of(&[seed, index, attempt]);
            let scene = Scene::arrange(&mut rng);
            if let Some(scene) = scene.filter(|scene| Split::of(scene) == split) {
                return scene;
            }
            attempt += 1;
        }
    }

    /// A scene, or nothing when the objects found no place.
    fn arrange(rng: &mut SplitMix64) -> Option<Scene> {
        let background = rng.pick(&Background::ALL);
        let count = 1 + rng.weighted(&COUNTS);
        let alike = if count > 1 && rng.chance(0.25) { 2 + rng.below(count - 1) } else { 1 };
        let overlap = rng.chance(0.2);
        let mut objects: Vec<Object> = Vec::with_capacity(count);
        for i in 0..count {
            let mut object = if i > 0 && i < alike { objects[0].clone() } else { describe(rng, background, count, &objects) };
            place(rng, &mut object, &objects, overlap)?;
            objects.push(object);
        }
        rng.shuffle(&mut objects);
        Some(Scene { background, objects, camera: Camera::draw(rng) })
    }

    /// What the scene is in words alone: all that makes two scenes different for the splits. Not the camera, nor small changes
    /// of place.
    pub(super) fn signature(&self) -> String {
        let mut objects: Vec<String> = (self.objects.iter())
            .map(|o| {
                let (column, row) = o.field();
                let words = (o.kind.word(), o.colour.word(), o.size.word(), o.texture.word());
                format!("{words:?} {} {}", column as u8, row as u8)
            })
            .collect();
        objects.sort();
        format!("{} {}", self.background.word(), objects.join("; "))
    }
}

/// An object that differs in kind or colour from all of `others`, not placed yet.
fn describe(rng: &mut SplitMix64, background: Background, count: usize, others: &[Object]) -> Object {
    loop {
        let (kind, colour) = (rng.pick(&Kind::ALL), rng.pick(&Colour::ALL));
        let taken = others.iter().any(|other| (other.kind, other.colour) == (kind, colour));
        if taken || !background.shows(colour) {
            continue;
        }
        let sizes = if count > 2 { [2.0, 1.0, 0.15] } else { [0.8, 1.4, 1.3] };
        let size = Size::ALL[rng.weighted(&sizes)];
        let radius = match size {
            Size::Small => rng.range(0.14, 0.16),
            Size::Medium => rng.range(0.19, 0.22),
            Size::Large => rng.range(0.26, 0.30),
        };
        let texture = Texture::ALL[rng.weighted(&[0.58, 0.16, 0.13, 0.13])];
        let angle = 0.06 * rng.bell();
        return Object { kind, colour, size, texture, x: 0.0, y: 0.0, radius, angle };
    }
}

/// Gives an object a place: inside the picture, clear of the others, or partly in front of the last one with `overlap`.
fn place(rng: &mut SplitMix64, object: &mut Object, others: &[Object], overlap: bool) -> Option<()> {
    let margin = object.radius + 0.03;
    for _ in 0..40 {
        (object.x, object.y) = (rng.range(margin, 1.0 - margin), rng.range(margin, 1.0 - margin));
        let clear = others.iter().enumerate().all(|(i, other)| {
            let reach = object.radius + other.radius;
            let nearest = if overlap && i + 1 == others.len() { 0.62 * reach } else { reach + 0.02 };
            object.squared_distance(other) > nearest * nearest
        });
        if clear {
            return Some(());
        }
    }
    None
}

impl Camera {
    fn draw(rng: &mut SplitMix64) -> Camera {
        Camera {
            exposure: if rng.chance(0.15) { rng.range(0.62, 0.75) } else { rng.range(0.88, 1.1) },
            falloff: [rng.range(-0.1, 0.1), rng.range(-0.1, 0.1)],
            warmth: 0.03 * rng.bell(),
            blur: if rng.chance(0.12) { rng.range(0.9, 1.2) } else { rng.range(0.0, 0.5) },
            noise: rng.range(1.0, 5.0),
            shift: [rng.range(-0.02, 0.02), rng.range(-0.02, 0.02)],
            roll: 0.03 * rng.bell(),
            zoom: rng.range(0.95, 1.05),
            shadow: if rng.chance(0.5) { rng.range(0.2, 0.45) } else { 0.0 },
            seed: rng.next_u64(),
        }
    }

    /// Whether a caption may call the picture dark.
    pub fn is_dark(&self) -> bool {
        self.exposure < 0.8
    }

    /// Whether a caption may call the picture blurred.
    pub fn is_blurred(&self) -> bool {
        self.blur > 0.8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenes(split: Split, count: u64) -> impl Iterator<Item = Scene> {
        (0..count).map(move |index| Scene::draw(split, 7, index))
    }

    #[test]
    fn scenes_keep_the_rules_of_the_world() {
        let mut counts = [0; MAX_OBJECTS];
        for scene in scenes(Split::Pretrain, 2000) {
            counts[scene.objects.len() - 1] += 1;
            for o in &scene.objects {
                assert!(scene.background.shows(o.colour), "{scene:?}");
                let edge = o.radius + 0.02;
                assert!((edge..1.0 - edge).contains(&o.x) && (edge..1.0 - edge).contains(&o.y), "{scene:?}");
            }
        }
        assert!(counts.iter().all(|&count| count > 100), "{counts:?}");
    }

    #[test]
    fn every_word_of_the_world_occurs() {
        let (mut kinds, mut looks, mut backgrounds) = (Vec::new(), Vec::new(), Vec::new());
        for scene in scenes(Split::Test, 2000) {
            backgrounds.push(scene.background);
            for o in &scene.objects {
                kinds.push((o.kind, o.colour));
                looks.push((o.size, o.texture));
            }
        }
        let distinct = |words: usize, n: usize, what| assert_eq!(words, n, "{what}");
        kinds.sort_unstable();
        kinds.dedup();
        looks.sort_unstable();
        looks.dedup();
        backgrounds.sort_unstable();
        backgrounds.dedup();
        distinct(kinds.len(), Kind::ALL.len() * Colour::ALL.len(), "kinds and colours");
        distinct(looks.len(), Size::ALL.len() * Texture::ALL.len(), "sizes and textures");
        distinct(backgrounds.len(), Background::ALL.len(), "backgrounds");
    }

    #[test]
    fn every_background_has_room_for_most_colours() {
        for background in Background::ALL {
            let shown = Colour::ALL.into_iter().filter(|&colour| background.shows(colour)).count();
            assert!(shown >= 6, "{background:?} shows {shown} colours");
        }
    }

    #[test]
    fn a_scene_is_a_function_of_split_seed_and_index() {
        let scene = Scene::draw(Split::Val, 3, 12);
        assert_eq!(scene, Scene::draw(Split::Val, 3, 12));
        assert_ne!(scene.signature(), Scene::draw(Split::Val, 3, 13).signature());
        assert_ne!(scene.signature(), Scene::draw(Split::Val, 4, 12).signature());
        let text = serde_json::to_string(&scene).unwrap();
        assert_eq!(serde_json::from_str::<Scene>(&text).unwrap(), scene);
    }
}
