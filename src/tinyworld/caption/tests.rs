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

/// The picture of two of the scene's objects, and with them in the other order: it differs where one hides the other. Painted apart and
/// seen sharply, or two of one colour would hide nothing.
fn pixels_hidden(scene: &Scene, pair: [&Object; 2]) -> usize {
    let mut scene = Scene { objects: pair.map(Object::clone).to_vec(), ..scene.clone() };
    (scene.camera.shadow, scene.camera.blur) = (0.0, 0.0);
    for (object, colour) in scene.objects.iter_mut().zip([Colour::Red, Colour::Blue]) {
        (object.colour, object.texture) = (colour, Texture::Plain);
    }
    let one = scene.picture();
    scene.objects.reverse();
    one.pixels().zip(scene.picture().pixels()).filter(|(a, b)| (0..3).any(|c| a[c].abs_diff(b[c]) > 40)).count()
}

/// Checks scenes whose groups differ in kind; what is said of a group must hold for each of its objects.
#[test]
fn relations_follow_the_places() {
    let (mut directions, mut depths, mut near, mut of_several, mut in_crowds) = (0, 0, 0, 0, 0);
    for index in 0..8000 {
        let scene = Scene::draw(Split::Test, 3, index);
        let mut groups: HashMap<Kind, Vec<&Object>> = HashMap::new();
        scene.objects.iter().for_each(|object| groups.entry(object.kind).or_default().push(object));
        if groups.len() < 2 || groups.values().any(|group| !group.iter().all(|object| object.looks_like(group[0]))) {
            continue;
        }
        for caption in scene.captions() {
            let text = about_objects(&caption);
            let place = |kind: Kind| {
                let names = NAMES.iter().filter(|(_, what)| *what == Ok(kind));
                names.filter_map(|(name, _)| text.find(&format!(" {name}"))).min()
            };
            let mut named: Vec<(usize, &[&Object])> =
                groups.iter().filter_map(|(&kind, group)| Some((place(kind)?, &group[..]))).collect();
            named.sort_by_key(|(place, _)| *place);
            let [(from, first), (to, second), ..] = named[..] else { continue };
            let between = &text[from..to];
            let says = |any: &[&str]| any.iter().any(|word| between.contains(word));
            let all = |holds: &dyn Fn(&Object, &Object) -> bool| first.iter().all(|a| second.iter().all(|b| holds(a, b)));
            let hides = |front: &[&Object], back: &[&Object]| {
                let ([front], [back]) = (front, back) else { return false };
                let place = |object: &Object| scene.objects.iter().position(|other| std::ptr::eq(other, object));
                place(front) > place(back) && pixels_hidden(&scene, [back, front]) > 3
            };
            let touch = |a: &Object, b: &Object| (a.x - b.x).hypot(a.y - b.y) - a.radius - b.radius < 0.1;
            let direction = says(&["left", "right", " above ", " over ", "higher than", " below ", " under ", "neath "]);
            let holds = if says(&["left of", "left side"]) {
                all(&|a, b| a.x < b.x)
            } else if says(&["right of", "right side"]) {
                all(&|a, b| a.x > b.x)
            } else if says(&[" above ", " over ", "higher than"]) {
                all(&|a, b| a.y < b.y)
            } else if says(&[" below ", " under ", "neath "]) {
                all(&|a, b| a.y > b.y)
            } else if says(&[" in front of", "overlapping"]) {
                depths += 1;
                hides(first, second)
            } else if says(&[" behind ", "hidden by"]) {
                depths += 1;
                hides(second, first)
            } else if says(&["next to", "beside", " near ", "close to"]) {
                near += 1;
                let reaches = |some: &[&Object], others: &[&Object]| some.iter().all(|a| others.iter().any(|b| touch(a, b)));
                reaches(first, second) && reaches(second, first)
            } else {
                continue;
            };
            assert!(holds, "`{caption}` of {scene:?}");
            directions += usize::from(direction);
            of_several += usize::from(first.len() + second.len() > 2);
            in_crowds += usize::from(scene.objects.len() > 2);
        }
    }
    let counts = [directions, depths, near, of_several, in_crowds];
    assert!(counts.iter().zip([3000, 100, 300, 300, 1000]).all(|(count, least)| *count > least), "{counts:?}");
}

#[test]
fn captions_are_a_function_of_the_scene() {
    let scene = Scene::draw(Split::Text, 0, 9);
    assert_eq!(scene.captions(), scene.captions());
}
