use super::super::scene::{Background, Object, Scene, Texture};
use super::super::split::Split;
use super::*;
use image::RgbImage;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Recognised and all objects, and what was seen in place of the others.
#[derive(Default)]
struct Score {
    right: usize,
    all: usize,
    misses: Vec<String>,
}

impl Score {
    fn assert_at_least(&self, share: f32, what: &str) {
        let reached = self.right as f32 / self.all as f32;
        assert!(reached >= share, "{what}: {} of {} right, asked {share}\n{}", self.right, self.all, self.misses.join("\n"));
    }
}

/// The first scenes of the test split that are as asked.
fn scenes(count: usize, wanted: fn(&Scene) -> bool) -> Vec<Scene> {
    (0..).map(|index| Scene::draw(Split::Test, 11, index)).filter(wanted).take(count).collect()
}

fn has_one(scene: &Scene) -> bool {
    scene.objects.len() == 1
}

fn overlaps(a: &Object, b: &Object) -> bool {
    (a.x - b.x).hypot(a.y - b.y) < a.radius + b.radius
}

fn is_of(sighting: &Sighting, object: &Object) -> bool {
    // The camera's shift, zoom and roll move an object by up to 0.05.
    let off = (sighting.x - object.x).hypot(sighting.y - object.y);
    let size = sighting.radius / object.radius;
    (sighting.kind, sighting.colour) == (object.kind, object.colour) && off < 0.07 && (0.8..1.25).contains(&size)
}

/// What is seen of each scene.
fn look(scenes: &[Scene], through: fn(RgbImage) -> RgbImage) -> Vec<Vec<Sighting>> {
    scenes.par_iter().map(|scene| recognise(&through(scene.picture()))).collect()
}

/// Counts the scenes with all objects found and no other, by what `group` says about a scene.
fn score(scenes: &[Scene], seen: &[Vec<Sighting>], group: fn(&Scene) -> &'static str) -> BTreeMap<&'static str, Score> {
    let mut scores = BTreeMap::<_, Score>::new();
    for (scene, sightings) in scenes.iter().zip(seen) {
        let score = scores.entry(group(scene)).or_default();
        score.all += 1;
        let found = |object: &Object| sightings.iter().any(|sighting| is_of(sighting, object));
        if scene.objects.len() == sightings.len() && scene.objects.iter().all(found) {
            score.right += 1;
        } else {
            let objects = scene.objects.iter().map(|o| format!("{:?} {:?} {:?} {:?}", o.size, o.texture, o.colour, o.kind));
            let names = sightings.iter().map(|s| format!("{:?} {:?}", s.colour, s.kind));
            let (objects, names): (Vec<_>, Vec<_>) = (objects.collect(), names.collect());
            score.misses.push(format!("{:?}: {objects:?} seen as {names:?}", scene.background));
        }
    }
    scores
}

/// Gaussian blur of standard deviation 1.2, along rows and then along columns.
fn blurred(picture: RgbImage) -> RgbImage {
    let weights = [-3.0f32, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0].map(|k| (-k * k / (2.0 * 1.2 * 1.2)).exp());
    let total: f32 = weights.iter().sum();
    let mut values: Vec<f32> = picture.iter().map(|&byte| f32::from(byte)).collect();
    for step in [3, 3 * SIDE] {
        let pass = |i: usize| {
            let place = i / step % SIDE;
            let neighbour = |k: usize| values[i - place * step + (place + k).saturating_sub(3).min(SIDE - 1) * step];
            weights.iter().enumerate().map(|(k, weight)| weight / total * neighbour(k)).sum()
        };
        values = (0..values.len()).map(pass).collect();
    }
    let bytes = values.into_iter().map(|v| v.round() as u8).collect();
    RgbImage::from_raw(SIDE as u32, SIDE as u32, bytes).unwrap()
}

#[test]
fn single_objects_are_recognised_on_every_background_and_with_every_pattern() {
    let scenes = scenes(320, has_one);
    let seen = look(&scenes, |picture| picture);
    let by = |group| score(&scenes, &seen, group);
    by(|_| "one object")["one object"].assert_at_least(0.98, "one object");
    let (backgrounds, textures) = (by(|scene| scene.background.word()), by(|scene| scene.objects[0].texture.word()));
    assert_eq!((backgrounds.len(), textures.len()), (Background::ALL.len(), Texture::ALL.len()));
    backgrounds.iter().chain(&textures).for_each(|(group, score)| score.assert_at_least(0.93, group));
}

#[test]
fn blurred_objects_are_recognised() {
    let scenes = scenes(200, has_one);
    score(&scenes, &look(&scenes, blurred), |_| "blurred")["blurred"].assert_at_least(0.94, "blurred");
}

#[test]
fn two_objects_are_recognised_apart_and_overlapping() {
    let apart: fn(&Scene) -> bool = |scene| matches!(&scene.objects[..], [a, b] if !overlaps(a, b));
    let overlapping: fn(&Scene) -> bool = |scene| matches!(&scene.objects[..], [a, b] if overlaps(a, b));
    for (what, count, least, wanted) in [("apart", 150, 0.96, apart), ("overlapping", 40, 0.9, overlapping)] {
        let scenes = scenes(count, wanted);
        score(&scenes, &look(&scenes, |picture| picture), |_| "two objects")["two objects"].assert_at_least(least, what);
    }
}

#[test]
fn nothing_is_seen_where_nothing_is() {
    for mut scene in scenes(64, has_one) {
        scene.objects.clear();
        assert_eq!(recognise(&scene.picture()), [], "{:?}", scene.background);
    }
    for grey in [0, 128, 255] {
        assert_eq!(recognise(&[grey; PIXELS * 3]), []);
    }
}

#[test]
fn the_largest_comes_first_and_clear_objects_score_high() {
    for scene in scenes(30, |scene| scene.objects.len() == 3) {
        let sightings = recognise(&scene.picture());
        assert!(sightings.is_sorted_by(|a, b| a.radius >= b.radius), "{sightings:?}");
    }
    let plain = scenes(40, |scene| has_one(scene) && scene.objects[0].texture == Texture::Plain);
    let mut scores: Vec<f32> = plain.iter().map(|scene| recognise(&scene.picture())[0].score).collect();
    scores.sort_by(f32::total_cmp);
    assert!(scores[20] > 0.75 && scores[39] <= 1.0, "{scores:?}");
}
