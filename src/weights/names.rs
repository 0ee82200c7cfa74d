//! The names that tensors go by: one canonical name for each, whatever tool wrote the file.

/// One network of a pipeline: a folder of the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Component {
    /// CLIP text model.
    TextEncoder,
    /// Denoising network.
    Unet,
    /// Image autoencoder.
    Vae,
}

/// What the weight files of a network are called, and how their keys become canonical names.
#[derive(Clone, Copy, Debug)]
pub struct Naming {
    /// Name of the weight file without variant and extension: transformers and diffusers differ.
    file_stem: &'static str,
    /// Prefixes that some writers put before every key.
    prefixes: &'static [&'static str],
    /// Accepted path segments and what they are called here.
    segments: &'static [(&'static str, &'static str)],
    /// Canonical names that carry no weights.
    ignored: &'static [&'static str],
}

/// transformers wrote `text_model.` before every key until 5.6; `position_ids` is the constant 0..77 and was saved until 4.31.
/// The other two are CLIP's, which fine-tunes keep and Stable Diffusion does not read.
const TEXT_ENCODER: Naming = Naming {
    file_stem: "model",
    prefixes: &["text_model."],
    segments: &[],
    ignored: &["embeddings.position_ids", "text_projection.weight", "logit_scale"],
};

const UNET: Naming = Naming { file_stem: "diffusion_pytorch_model", prefixes: &[], segments: &[], ignored: &[] };

/// diffusers named the projections of the VAE's attention differently until 0.18, and published checkpoints still do.
const VAE: Naming = Naming {
    file_stem: "diffusion_pytorch_model",
    prefixes: &[],
    segments: &[("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")],
    ignored: &[],
};

impl Component {
    /// All components, in the order a pipeline runs them.
    pub const ALL: [Component; 3] = [Component::TextEncoder, Component::Unet, Component::Vae];

    /// Name of the component's folder and of its entry in `model_index.json`.
    pub const fn folder(self) -> &'static str {
        match self {
            Component::TextEncoder => "text_encoder",
            Component::Unet => "unet",
            Component::Vae => "vae",
        }
    }

    /// Names of its files and tensors.
    pub const fn naming(self) -> Naming {
        match self {
            Component::TextEncoder => TEXT_ENCODER,
            Component::Unet => UNET,
            Component::Vae => VAE,
        }
    }
}

impl From<Component> for Naming {
    fn from(component: Component) -> Naming {
        component.naming()
    }
}

impl Naming {
    /// CLIP with both its halves (transformers' `CLIPModel`). `position_ids` are the constants 0.. of older files; `logit_scale` is the
    /// temperature of training.
    pub const CLIP: Naming = Naming {
        file_stem: "model",
        prefixes: &[],
        segments: &[],
        ignored: &["text_model.embeddings.position_ids", "vision_model.embeddings.position_ids", "logit_scale"],
    };

    /// Name of the weight file without variant and extension: `model`, `diffusion_pytorch_model`.
    pub const fn file_stem(self) -> &'static str {
        self.file_stem
    }

    /// Canonical name of a key as it stands in a file.
    pub fn canonical(self, key: &str) -> String {
        let bare = self.prefixes.iter().find_map(|p| key.strip_prefix(p)).unwrap_or(key);
        let rename = |part| match self.segments.iter().find(|&&(accepted, _)| accepted == part) {
            Some(&(_, name)) => name,
            None => part,
        };
        bare.split('.').map(rename).collect::<Vec<&str>>().join(".")
    }

    /// True if a canonical name holds nothing a model needs.
    pub fn ignores(self, name: &str) -> bool {
        self.ignored.contains(&name)
    }
}

/// True if the two shapes hold the same weights in the same order: equal, or one is a 1x1 convolution `[O, I, 1, 1]` and the
/// other the same map as a matrix `[O, I]`.
pub(super) fn same_weights(a: &[usize], b: &[usize]) -> bool {
    fn matrix(shape: &[usize]) -> &[usize] {
        match shape {
            [_, _, 1, 1] => &shape[..2],
            _ => shape,
        }
    }
    matrix(a) == matrix(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_namings_reach_one_canonical_name() {
        let text = Component::TextEncoder.naming();
        for key in ["final_layer_norm.weight", "text_model.final_layer_norm.weight"] {
            assert_eq!(text.canonical(key), "final_layer_norm.weight");
        }
        assert!(text.ignores(&text.canonical("text_model.embeddings.position_ids")));
        assert!(!text.ignores("embeddings.position_embedding.weight"));

        let vae = Component::Vae.naming();
        for (old, new) in [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")] {
            let new = format!("decoder.mid_block.attentions.0.{new}.weight");
            assert_eq!(vae.canonical(&format!("decoder.mid_block.attentions.0.{old}.weight")), new);
            assert_eq!(vae.canonical(&new), new);
        }
        // The UNet keeps its names, and only whole segments are renamed.
        assert_eq!(Component::Unet.naming().canonical("a.key.weight"), "a.key.weight");
        assert_eq!(vae.canonical("a.keys.weight"), "a.keys.weight");
        // CLIP has two halves, whose names differ in the prefix only.
        assert_eq!(Naming::CLIP.canonical("text_model.final_layer_norm.weight"), "text_model.final_layer_norm.weight");
        assert!(Naming::CLIP.ignores("logit_scale") && !Naming::CLIP.ignores("text_projection.weight"));
    }

    #[test]
    fn one_by_one_convolutions_are_matrices() {
        assert!(same_weights(&[8, 4, 1, 1], &[8, 4]) && same_weights(&[8, 4], &[8, 4, 1, 1]));
        assert!(!same_weights(&[8, 4, 3, 3], &[8, 4]) && !same_weights(&[4, 8], &[8, 4]));
        assert!(!same_weights(&[8, 4, 1], &[8, 4]));
    }
}
