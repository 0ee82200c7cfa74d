//! The parts of the world, which share no scene.

use super::Scene;
use crate::rng::SplitMix64;
use sha2::{Digest, Sha256};

/// A part of the world. Every scene belongs to one part by what is in it (kinds, colours, sizes, patterns, fields of the picture,
/// background), so that no seed can bring a scene of one part into another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// What the text-to-image model and CLIP have seen, as Stable Diffusion and CLIP have seen the web: 70% of all scenes.
    Pretrain,
    /// Captions to learn captioning from, without pictures: 15%.
    Text,
    /// Pictures with five references each, to choose settings by: 5%.
    Val,
    /// Pictures with five references each, never seen: 10%.
    Test,
}

impl Split {
    /// All parts.
    pub const ALL: [Split; 4] = [Split::Pretrain, Split::Text, Split::Val, Split::Test];

    /// Name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Split::Pretrain => "pretrain",
            Split::Text => "text",
            Split::Val => "val",
            Split::Test => "test",
        }
    }

    /// The part that a scene belongs to.
    pub fn of(scene: &Scene) -> Split {
        let digest = Sha256::digest(scene.signature());
        let key = digest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        match SplitMix64::new(key).below(20) {
            0..14 => Split::Pretrain,
            14..17 => Split::Text,
            17 => Split::Val,
            _ => Split::Test,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn splits_share_no_scene_whatever_their_seeds() {
        let signatures = |split, seed| (0..400).map(move |i| Scene::draw(split, seed, i).signature()).collect::<HashSet<_>>();
        let seeds = [0, 1, 99];
        for a in Split::ALL {
            for b in Split::ALL.into_iter().filter(|&b| b != a) {
                for seed in seeds {
                    assert!(signatures(a, 0).is_disjoint(&signatures(b, seed)), "{a:?} {b:?} {seed}");
                }
            }
        }
    }

    #[test]
    fn the_camera_does_not_move_a_scene_to_another_split() {
        let scene = Scene::draw(Split::Test, 0, 5);
        let mut moved = scene.clone();
        moved.camera = Scene::draw(Split::Pretrain, 0, 1).camera;
        moved.objects.reverse();
        assert_eq!(Split::of(&moved), Split::Test);
    }
}
