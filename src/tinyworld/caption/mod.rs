//! Scenes to words: five captions a scene, each by its own template and choice of words, each telling a part, as COCO's
//! references do.

use crate::rng::SplitMix64;
use crate::tinyworld::scene::{Background, Colour, Kind, MAX_OBJECTS, Object, Scene, Size, Texture, Third};

/// Captions of a scene.
pub const CAPTIONS: usize = 5;

/// Longest caption, in words and punctuation marks.
pub const MAX_WORDS: usize = 28;

/// Key of the sequence that words are drawn from, so that it is not the one of the scene or of the camera.
const WORDS_KEY: u64 = 0x0077_6f72_6473;

impl Scene {
    /// Its [`CAPTIONS`] captions, all different: a pure function of the scene.
    ///
    /// # Panics
    /// If it has no objects, or more than [`MAX_OBJECTS`].
    pub fn captions(&self) -> [String; CAPTIONS] {
        assert!((1..=MAX_OBJECTS).contains(&self.objects.len()), "{} objects", self.objects.len());
        let mut rng = SplitMix64::of(&[self.camera.seed, WORDS_KEY]);
        let groups = self.groups();
        let mut captions: [String; CAPTIONS] = Default::default();
        for i in 0..CAPTIONS {
            loop {
                let caption = Writer { scene: self, groups: &groups, rng: &mut rng }.caption();
                if !captions[..i].contains(&caption) && length(&caption) <= MAX_WORDS {
                    captions[i] = caption;
                    break;
                }
            }
        }
        captions
    }

    /// The objects, those that look alike together, the most salient (by area) first.
    fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for object in &self.objects {
            match groups.iter_mut().find(|group| group.0[0].looks_like(object)) {
                Some(group) => group.0.push(object),
                None => groups.push(Group(vec![object])),
            }
        }
        let area = |group: &Group<'_>| group.0.iter().map(|o| o.radius * o.radius).sum::<f32>();
        groups.sort_by(|a, b| area(b).total_cmp(&area(a)));
        groups
    }
}

/// Objects that one noun names; never empty.
struct Group<'s>(Vec<&'s Object>);

impl Group<'_> {
    fn look(&self) -> &Object {
        self.0[0]
    }

    /// Whether every object of either group has one of the other within 0.08 widths of the picture, edge to edge.
    fn is_near(&self, other: &Group<'_>) -> bool {
        let near = |a: &Object, b: &Object| {
            let reach = a.radius + b.radius + 0.08;
            a.squared_distance(b) < reach * reach
        };
        self.0.iter().all(|a| other.0.iter().any(|b| near(a, b))) && other.0.iter().all(|b| self.0.iter().any(|a| near(a, b)))
    }

    /// Range of the centres along x and y.
    fn extent(&self) -> [[f32; 2]; 2] {
        let range = |of: fn(&Object) -> f32| {
            let low = self.0.iter().map(|o| of(o)).fold(f32::INFINITY, f32::min);
            [low, self.0.iter().map(|o| of(o)).fold(f32::NEG_INFINITY, f32::max)]
        };
        [range(|o| o.x), range(|o| o.y)]
    }
}

/// Writes one caption.
struct Writer<'s, 'r> {
    scene: &'s Scene,
    groups: &'s [Group<'s>],
    rng: &'r mut SplitMix64,
}

impl Writer<'_, '_> {
    fn caption(&mut self) -> String {
        let template = if self.groups.len() == 1 { 0 } else { self.rng.weighted(&[0.18, 0.42, 0.40]) };
        let body = match template {
            0 => self.of_one(),
            1 => self.of_relation().unwrap_or_else(|| self.of_list()),
            _ => self.of_list(),
        };
        if self.rng.chance(0.7) { capitalise(&body) + "." } else { body }
    }

    /// One noun, where it is, and on what.
    fn of_one(&mut self) -> String {
        let group = if self.groups.len() == 1 || self.rng.chance(0.7) { 0 } else { 1 };
        let (noun, count) = (self.noun(group, 0.45), self.groups[group].0.len());
        let alone = self.scene.objects.len() == 1;
        match self.rng.below(5) {
            0 => {
                let (opening, ground) = (self.opening(count), self.ground());
                format!("{opening}{noun} {ground}")
            }
            1 => match self.spot(group) {
                Some(spot) => format!("{}{noun} {spot}", self.opening(count)),
                None => format!("{noun} {}", self.ground()),
            },
            2 => {
                let spot = self.spot(group).map_or(String::new(), |spot| format!(" {spot}"));
                format!("{noun}{spot} {}", self.ground())
            }
            3 => {
                let there = self.there(count);
                format!("{} {there} {noun}", self.ground())
            }
            _ => {
                let verb = self.rng.pick(&["standing", "resting", "sitting", "placed", "seen", "lying"]);
                let only = if alone && self.rng.chance(0.3) { " all alone" } else { "" };
                format!("{noun} {verb}{only} {}", self.ground())
            }
        }
    }

    /// Two nouns and how they lie to each other, if that can be said.
    fn of_relation(&mut self) -> Option<String> {
        let (mut first, mut second) = (0, 1 + self.rng.below(self.groups.len() - 1));
        if self.rng.chance(0.5) {
            (first, second) = (second, first);
        }
        let (relation, count) = (self.relation(first, second)?, self.groups[first].0.len());
        let (a, b) = (self.noun(first, 0.3), self.noun(second, 0.3));
        let ground = if self.rng.chance(0.45) { format!(" {}", self.ground()) } else { String::new() };
        Some(match self.rng.below(3) {
            0 => format!("{a} {relation} {b}{ground}"),
            1 => format!("{}{a} {relation} {b}{ground}", self.opening(count)),
            _ => {
                let verb = if count > 1 { "are" } else { "is" };
                format!("{a} {verb} {relation} {b}{ground}")
            }
        })
    }

    /// All nouns, or all but one.
    fn of_list(&mut self) -> String {
        let mut order: Vec<usize> = (0..self.groups.len()).collect();
        if order.len() > 2 && self.rng.chance(0.4) {
            order.pop();
        }
        self.rng.shuffle(&mut order);
        let nouns: Vec<String> = order.into_iter().map(|group| self.noun(group, 0.25)).collect();
        let list = match nouns.split_last() {
            Some((last, [only])) => format!("{only} {} {last}", self.rng.pick(&["and", "and", "with", "together with"])),
            Some((last, others)) => format!("{} and {last}", others.join(", ")),
            None => String::new(),
        };
        let count = nouns.len();
        match self.rng.below(4) {
            0 => format!("{list} {}", self.ground()),
            1 => format!("{}{list} {}", self.opening(count), self.ground()),
            2 => format!("{} {} {list}", self.ground(), self.there(count)),
            _ => format!("{}{list}", self.opening(count)),
        }
    }

    /// "two small striped red stars": number or article, attributes, kind. The size is told with probability `sized`; the colour of a
    /// single object always.
    fn noun(&mut self, group: usize, sized: f32) -> String {
        let (count, look) = (self.groups[group].0.len(), self.groups[group].look().clone());
        let size = if self.rng.chance(sized) { self.size(look.size) } else { "" };
        let texture = match look.texture {
            Texture::Plain if self.rng.chance(0.06) => self.rng.pick(&["plain", "solid"]),
            Texture::Plain => "",
            texture if self.rng.chance(0.7) => self.texture(texture),
            _ => "",
        };
        let told = self.groups.len() == 1 || self.rng.chance(0.93);
        let colour = if told { self.colour(look.colour) } else { "" };
        let kind = self.kind(look.kind, count > 1);
        let words = [size, texture, colour, kind].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        match count {
            1 if words.starts_with(['a', 'e', 'i', 'o']) => format!("an {words}"),
            1 => format!("a {words}"),
            2 => format!("{} {words}", self.rng.pick(&["two", "two", "two", "a pair of", "a couple of"])),
            3 => format!("{} {words}", self.rng.pick(&["three", "three", "several", "a group of three"])),
            _ => format!("{} {words}", self.rng.pick(&["four", "four", "several", "a group of four"])),
        }
    }

    fn kind(&mut self, kind: Kind, plural: bool) -> &'static str {
        let words: &[[&str; 2]] = match kind {
            Kind::Circle => &[["circle", "circles"], ["circle", "circles"], ["ball", "balls"], ["disc", "discs"]],
            Kind::Square => &[["square", "squares"], ["square", "squares"], ["box", "boxes"], ["block", "blocks"]],
            Kind::Triangle => &[["triangle", "triangles"], ["triangle", "triangles"], ["pyramid", "pyramids"]],
            Kind::Star => &[["star", "stars"]],
            Kind::Heart => &[["heart", "hearts"]],
            Kind::Ring => &[["ring", "rings"], ["ring", "rings"], ["hoop", "hoops"]],
            Kind::Cross => &[["cross", "crosses"], ["cross", "crosses"], ["plus sign", "plus signs"]],
            Kind::Moon => &[["moon", "moons"], ["moon", "moons"], ["crescent", "crescents"]],
            Kind::House => &[["house", "houses"], ["house", "houses"], ["home", "homes"], ["cottage", "cottages"]],
            Kind::Tree => &[["tree", "trees"], ["tree", "trees"], ["pine tree", "pine trees"], ["fir", "firs"]],
            Kind::Fish => &[["fish", "fish"]],
            Kind::Boat => &[["boat", "boats"], ["boat", "boats"], ["sailboat", "sailboats"], ["ship", "ships"]],
        };
        self.rng.pick(words)[usize::from(plural)]
    }

    fn colour(&mut self, colour: Colour) -> &'static str {
        let words: &[&str] = match colour {
            Colour::Red => &["red", "red", "red", "crimson", "scarlet"],
            Colour::Orange => &["orange"],
            Colour::Yellow => &["yellow", "yellow", "yellow", "golden"],
            Colour::Green => &["green", "green", "green", "emerald"],
            Colour::Blue => &["blue"],
            Colour::Purple => &["purple", "purple", "purple", "violet"],
            Colour::Pink => &["pink", "pink", "pink", "rosy"],
            Colour::White => &["white"],
        };
        self.rng.pick(words)
    }

    fn size(&mut self, size: Size) -> &'static str {
        let words: &[&str] = match size {
            Size::Small => &["small", "small", "little", "tiny"],
            Size::Medium => &["medium sized", "mid sized", "average sized"],
            Size::Large => &["large", "large", "big", "huge", "giant"],
        };
        self.rng.pick(words)
    }

    fn texture(&mut self, texture: Texture) -> &'static str {
        let words: &[&str] = match texture {
            Texture::Plain => &["plain"],
            Texture::Striped => &["striped", "striped", "stripy", "banded"],
            Texture::Dotted => &["dotted", "dotted", "spotted", "polka dot"],
            Texture::Checkered => &["checkered", "checkered", "chequered", "checked"],
        };
        self.rng.pick(words)
    }

    /// "on a sandy beach".
    fn ground(&mut self) -> &'static str {
        let words: &[&str] = match self.scene.background {
            Background::Sky => {
                &["in the sky", "in a clear blue sky", "against the daytime sky", "up in the air", "in front of a bright sky"]
            }
            Background::Grass => &["on the grass", "on a green lawn", "in a grassy field", "in a meadow", "on green grass"],
            Background::Sand => &["on the sand", "on a sandy beach", "in the desert", "on sandy ground", "at the beach"],
            Background::Night => {
                &["at night", "in the night sky", "against a starry sky", "in the dark of night", "under the stars at night"]
            }
            Background::Snow => &["in the snow", "on fresh snow", "on a snowy field", "in winter", "on white snow"],
            Background::Sea => &["on the water", "in the sea", "in the ocean", "on a calm lake", "surrounded by water"],
            Background::Brick => {
                &["on a brick wall", "against a brick wall", "in front of bricks", "on a wall", "next to a wall of bricks"]
            }
            Background::Wood => {
                &["on a wooden table", "on a wooden floor", "against wooden boards", "on brown wood", "on a desk"]
            }
        };
        self.rng.pick(words)
    }

    /// Where a single object is in the picture, when that can be said.
    fn spot(&mut self, group: usize) -> Option<String> {
        let [object] = self.groups[group].0[..] else { return None };
        let picture = self.rng.pick(&["picture", "image", "scene", "frame"]);
        let side = |third, first, last| match third {
            Third::First => Some(first),
            Third::Middle => None,
            Third::Last => Some(last),
        };
        let (column, row) = object.field();
        let top = if self.rng.chance(0.5) { ["top", "bottom"] } else { ["upper", "lower"] };
        let spot = match (side(column, "left", "right"), side(row, top[0], top[1])) {
            (Some(column), Some(row)) => {
                format!("in the {row} {column} {}", self.rng.pick(&["corner", "part of the picture", "area"]))
            }
            (Some(column), None) => match self.rng.below(3) {
                0 => format!("on the {column}"),
                1 => format!("on the {column} side"),
                _ => format!("at the {column} of the {picture}"),
            },
            (None, Some(row)) if top[0] == "top" => format!("at the {row} of the {picture}"),
            (None, Some(row)) => format!("in the {row} part of the {picture}"),
            (None, None) => format!("in the {} of the {picture}", self.rng.pick(&["middle", "centre", "center"])),
        };
        Some(spot)
    }

    /// How the first group lies to the second: what hides what, what is near, else the clearer of the two directions; nothing where
    /// they lie among each other.
    fn relation(&mut self, first: usize, second: usize) -> Option<&'static str> {
        let (a, b) = (&self.groups[first], &self.groups[second]);
        if let ([a], [b]) = (&a.0[..], &b.0[..]) {
            let place = |object: &Object| self.scene.objects.iter().position(|other| std::ptr::eq(other, object));
            let in_front = place(a) > place(b);
            let hidden = if in_front { b.share_behind(a) } else { a.share_behind(b) };
            if hidden > 0.08 && self.rng.chance(0.8) {
                let words = if in_front { ["in front of", "overlapping"] } else { ["behind", "partly hidden by"] };
                return Some(self.rng.pick(&words));
            }
        }
        let ([ax, ay], [bx, by]) = (a.extent(), b.extent());
        let beyond = |p: [f32; 2], q: [f32; 2]| p[0] - q[1];
        let (right, left, below, above) = (beyond(ax, bx), beyond(bx, ax), beyond(ay, by), beyond(by, ay));
        let clearest = right.max(left).max(below).max(above);
        if a.is_near(b) && (clearest < 0.12 || self.rng.chance(0.25)) {
            return Some(self.rng.pick(&["next to", "beside", "near", "close to"]));
        }
        let words: &[&str] = match clearest {
            gap if gap < 0.12 => return None,
            gap if gap == left => &["to the left of", "to the left of", "left of", "on the left side of"],
            gap if gap == right => &["to the right of", "to the right of", "right of", "on the right side of"],
            gap if gap == above => &["above", "above", "over", "higher than"],
            _ => &["below", "below", "under", "beneath", "underneath"],
        };
        Some(self.rng.pick(words))
    }

    /// How a caption may begin; empty, or ends in a space. Tells of the light when there is something to tell.
    fn opening(&mut self, count: usize) -> String {
        let camera = &self.scene.camera;
        let adjectives: &[&str] = match (camera.is_dark(), camera.is_blurred()) {
            (true, _) => &["dark ", "dim ", "shadowy "],
            (_, true) => &["blurry ", "blurred ", "fuzzy "],
            _ => &[],
        };
        if !adjectives.is_empty() && self.rng.chance(0.6) {
            let (adjective, noun) = (self.rng.pick(adjectives), self.rng.pick(&["picture", "photo", "image"]));
            return format!("a {adjective}{noun} of ");
        }
        let (this, there) = if count > 1 { ("these are ", "there are ") } else { ("this is ", "there is ") };
        let openings = [
            "",
            "",
            "a picture of ",
            "a photo of ",
            "an image of ",
            "a view of ",
            "a drawing of ",
            "a snapshot of ",
            "an illustration of ",
            "here we have ",
            "it shows ",
            this,
            there,
            "we can see ",
            "a scene with ",
            "a picture that shows ",
        ];
        self.rng.pick(&openings).to_string()
    }

    fn there(&mut self, count: usize) -> &'static str {
        let words: &[&str] =
            if count > 1 { &["there are", "one can see", "you see"] } else { &["there is", "one can see", "you see"] };
        self.rng.pick(words)
    }
}

/// Words and punctuation marks.
fn length(caption: &str) -> usize {
    caption.split(' ').count() + caption.matches([',', '.']).count()
}

fn capitalise(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests;
