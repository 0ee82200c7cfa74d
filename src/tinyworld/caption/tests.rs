use super::*;
use crate::tinyworld::Split;
use std::collections::{HashMap, HashSet};

fn words(caption: &str) -> impl Iterator<Item = String> {
    caption.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

#[test]
fn five_different_captions_with_a_vocabulary_of_hundreds() {
    let mut vocabulary: HashMap<String, usize> = HashMap::new();
    let mut longest = 0;
    for index in 0..3000 {
        let captions = Scene::draw(Split::Pretrain, 1, index).captions();
        assert_eq!(captions.iter().collect::<HashSet<_>>().len(), CAPTIONS);
        for caption in &captions {
            assert!(!caption.contains("  ") && caption.trim() == caption, "`{caption}`");
            longest = longest.max(words(caption).count());
            words(caption).for_each(|word| *vocabulary.entry(word).or_default() += 1);
        }
    }
    assert!((200..400).contains(&vocabulary.len()), "{} words", vocabulary.len());
    assert!((12..=28).contains(&longest), "the longest caption has {longest} words");
    let rare: Vec<_> = vocabulary.iter().filter(|(_, count)| **count < 5).collect();
    assert!(rare.is_empty(), "too rare to learn: {rare:?}");
}

/// A caption without what it says of the background, in lower case: only objects are left to have colours.
fn about_objects(caption: &str) -> String {
    let grounds = ["blue sky", "green lawn", "green grass", "white snow", "under the stars", "bright sky", "of bricks"];
    grounds.iter().fold(caption.to_lowercase(), |text, ground| text.replace(ground, ""))
}

/// Every word that names a kind or a colour, singular.
const NAMES: [(&str, Result<Kind, Colour>); 37] = [
    ("circle", Ok(Kind::Circle)),
    ("ball", Ok(Kind::Circle)),
    ("disc", Ok(Kind::Circle)),
    ("square", Ok(Kind::Square)),
    ("box", Ok(Kind::Square)),
    ("block", Ok(Kind::Square)),
    ("triangle", Ok(Kind::Triangle)),
    ("pyramid", Ok(Kind::Triangle)),
    ("star", Ok(Kind::Star)),
    ("heart", Ok(Kind::Heart)),
    ("ring", Ok(Kind::Ring)),
    ("hoop", Ok(Kind::Ring)),
    ("cross", Ok(Kind::Cross)),
    ("plus", Ok(Kind::Cross)),
    ("moon", Ok(Kind::Moon)),
    ("crescent", Ok(Kind::Moon)),
    ("house", Ok(Kind::House)),
    ("home", Ok(Kind::House)),
    ("cottage", Ok(Kind::House)),
    ("tree", Ok(Kind::Tree)),
    ("fir", Ok(Kind::Tree)),
    ("fish", Ok(Kind::Fish)),
    ("boat", Ok(Kind::Boat)),
    ("ship", Ok(Kind::Boat)),
    ("red", Err(Colour::Red)),
    ("crimson", Err(Colour::Red)),
    ("orange", Err(Colour::Orange)),
    ("yellow", Err(Colour::Yellow)),
    ("golden", Err(Colour::Yellow)),
    ("green", Err(Colour::Green)),
    ("emerald", Err(Colour::Green)),
    ("blue", Err(Colour::Blue)),
    ("purple", Err(Colour::Purple)),
    ("violet", Err(Colour::Purple)),
    ("pink", Err(Colour::Pink)),
    ("rosy", Err(Colour::Pink)),
    ("white", Err(Colour::White)),
];

#[test]
fn captions_name_only_what_is_there() {
    for index in 0..1000 {
        let scene = Scene::draw(Split::Val, 2, index);
        for caption in scene.captions() {
            let said: HashSet<String> = words(&about_objects(&caption)).collect();
            for (name, what) in NAMES {
                let named = ["", "s", "es"].iter().any(|ending| said.contains(&format!("{name}{ending}")));
                let there = scene.objects.iter().any(|o| what.map_or_else(|c| o.colour == c, |k| o.kind == k));
                assert!(there || !named, "`{name}` in `{caption}` of {scene:?}");
            }
            let count = scene.objects.len();
            for (word, holds) in [
                ("dark", scene.camera.is_dark() || scene.background == Background::Night),
                ("blurry", scene.camera.is_blurred()),
                ("striped", scene.objects.iter().any(|o| o.texture == Texture::Striped)),
                ("spotted", scene.objects.iter().any(|o| o.texture == Texture::Dotted)),
                ("huge", scene.objects.iter().any(|o| o.size == Size::Large)),
                ("tiny", scene.objects.iter().any(|o| o.size == Size::Small)),
                ("alone", count == 1),
                ("two", count >= 2),
                ("three", count >= 3),
                ("four", count == 4),
            ] {
                assert!(holds || !said.contains(word), "`{word}` in `{caption}` of {scene:?}");
            }
        }
    }
}

#[test]
fn places_are_those_of_the_picture() {
    let mut told = 0;
    for index in 0..1000 {
        let scene = Scene::draw(Split::Val, 4, index);
        let [object] = &scene.objects[..] else { continue };
        for caption in scene.captions() {
            let said: HashSet<String> = words(&caption).collect();
            let says = |any: &[&str]| any.iter().any(|word| said.contains(*word));
            let (left, right) = (says(&["left"]), says(&["right"]));
            let (top, bottom) = (says(&["top", "upper"]), says(&["bottom", "lower"]));
            assert!(!left || object.x < 0.37, "`{caption}` of {scene:?}");
            assert!(!right || object.x > 0.63, "`{caption}` of {scene:?}");
            assert!(!top || object.y < 0.37, "`{caption}` of {scene:?}");
            assert!(!bottom || object.y > 0.63, "`{caption}` of {scene:?}");
            let middle = (object.x - 0.5).abs().max((object.y - 0.5).abs()) < 0.14;
            assert!(!says(&["middle", "centre", "center"]) || middle, "`{caption}` of {scene:?}");
            assert!(!says(&["corner"]) || (left || right) && (top || bottom), "`{caption}`");
            told += usize::from(left || right || top || bottom);
        }
    }
    assert!(told > 300, "{told}");
}

/// The scene's picture with the two objects in the other order: it differs where one hides the other. Painted apart and seen sharply,
/// or two of one colour would hide nothing.
fn pixels_hidden(scene: &Scene) -> usize {
    let mut swapped = scene.clone();
    (swapped.camera.shadow, swapped.camera.blur) = (0.0, 0.0);
    for (object, colour) in swapped.objects.iter_mut().zip([Colour::Red, Colour::Blue]) {
        (object.colour, object.texture) = (colour, Texture::Plain);
    }
    let one = swapped.picture();
    swapped.objects.reverse();
    one.pixels().zip(swapped.picture().pixels()).filter(|(a, b)| (0..3).any(|c| a[c].abs_diff(b[c]) > 40)).count()
}

#[test]
fn relations_follow_the_places() {
    let (mut directions, mut depths, mut near) = (0, 0, 0);
    for index in 0..6000 {
        let scene = Scene::draw(Split::Test, 3, index);
        let [a, b] = &scene.objects[..] else { continue };
        if a.kind == b.kind {
            continue;
        }
        for caption in scene.captions() {
            let text = about_objects(&caption);
            let place = |o: &Object| {
                let names = NAMES.iter().filter(|(_, what)| *what == Ok(o.kind));
                names.filter_map(|(name, _)| text.find(&format!(" {name}"))).min()
            };
            let (Some(pa), Some(pb)) = (place(a), place(b)) else { continue };
            let (first, second) = if pa < pb { (a, b) } else { (b, a) };
            let between = &text[pa.min(pb)..pa.max(pb)];
            let says = |any: &[&str]| any.iter().any(|word| between.contains(word));
            let holds = if says(&["left of", "left side"]) {
                directions += 1;
                first.x < second.x
            } else if says(&["right of", "right side"]) {
                directions += 1;
                first.x > second.x
            } else if says(&[" above ", " over ", "higher than"]) {
                directions += 1;
                first.y < second.y
            } else if says(&[" below ", " under ", "neath "]) {
                directions += 1;
                first.y > second.y
            } else if says(&[" in front of", "overlapping"]) {
                depths += 1;
                std::ptr::eq(first, b) && pixels_hidden(&scene) > 3
            } else if says(&[" behind ", "hidden by"]) {
                depths += 1;
                std::ptr::eq(first, a) && pixels_hidden(&scene) > 3
            } else if says(&["next to", "beside", " near ", "close to"]) {
                near += 1;
                (a.x - b.x).hypot(a.y - b.y) - a.radius - b.radius < 0.1
            } else {
                true
            };
            assert!(holds, "`{caption}` of {scene:?}");
        }
    }
    assert!(directions > 1000 && depths > 20 && near > 100, "{directions} {depths} {near}");
}

#[test]
fn captions_are_a_function_of_the_scene() {
    let scene = Scene::draw(Split::Text, 0, 9);
    assert_eq!(scene.captions(), scene.captions());
}
