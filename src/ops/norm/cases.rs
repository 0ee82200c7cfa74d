//! Normalisations of Stable Diffusion, for benches and tests.

use crate::ops::cases::{ElementCost, RowsCase};

/// A group norm and what it meets.
#[derive(Clone, Debug)]
pub struct GroupCase {
    /// Where it occurs.
    pub name: String,
    /// Samples.
    pub batch: usize,
    /// Height and width.
    pub size: usize,
    /// Channels of x.
    pub channels: usize,
    /// Channels of the skip connection, which follow those of x.
    pub skip: usize,
    /// With SiLU.
    pub silu: bool,
}

impl GroupCase {
    /// Groups of SD 1.5, wherever it is.
    pub const GROUPS: usize = 32;

    /// Floating-point operations.
    pub fn flops(&self) -> u64 {
        self.elements() * if self.silu { 10 } else { 6 }
    }

    /// Bytes of elements of `size` bytes that are read twice and written once.
    pub fn bytes(&self, size: usize) -> u64 {
        3 * size as u64 * self.elements()
    }

    fn elements(&self) -> u64 {
        (self.batch * self.size * self.size * (self.channels + self.skip)) as u64
    }
}

/// Samples of the U-Net: one image with guidance, and eight.
const BATCHES: [usize; 2] = [2, 16];

/// Group norms of SD 1.5 at 512 x 512: of the U-Net's residual blocks (with SiLU, on the way up with a skip connection) and transformers
/// (without), and of the VAE's decoder, which takes images one at a time.
pub fn group_cases() -> Vec<GroupCase> {
    const UNET: [(&str, usize, usize, usize, bool); 10] = [
        ("resnet 64x64", 64, 320, 0, true),
        ("transformer 64x64", 64, 320, 0, false),
        ("up 64x64", 64, 640, 320, true),
        ("resnet 32x32", 32, 640, 0, true),
        ("transformer 32x32", 32, 640, 0, false),
        ("up 32x32", 32, 1280, 640, true),
        ("resnet 16x16", 16, 1280, 0, true),
        ("up 16x16", 16, 1280, 1280, true),
        ("resnet 8x8", 8, 1280, 0, true),
        ("up 8x8", 8, 1280, 1280, true),
    ];
    const VAE: [(&str, usize, usize); 6] = [
        ("vae 64x64", 64, 512),
        ("vae 128x128", 128, 512),
        ("vae 256x256 of 512", 256, 512),
        ("vae 256x256 of 256", 256, 256),
        ("vae 512x512 of 256", 512, 256),
        ("vae 512x512 of 128", 512, 128),
    ];
    let unet = BATCHES.into_iter().flat_map(|batch| {
        UNET.map(|(name, size, channels, skip, silu)| GroupCase {
            name: format!("{name} batch {batch}"),
            batch,
            size,
            channels,
            skip,
            silu,
        })
    });
    let vae = VAE.map(|(name, size, channels)| GroupCase { name: name.into(), batch: 1, size, channels, skip: 0, silu: true });
    unet.chain(vae).collect()
}

/// Layer norms of SD 1.5 at 512 x 512: of the U-Net's transformers and of the text encoder.
pub fn layer_cases() -> Vec<RowsCase> {
    let case = |name, rows, width| RowsCase::new(name, rows, width, ElementCost { flops: 6, moved: 2 });
    const UNET: [(&str, usize, usize); 4] = [("64x64", 4096, 320), ("32x32", 1024, 640), ("16x16", 256, 1280), ("8x8", 64, 1280)];
    let unet = BATCHES
        .into_iter()
        .flat_map(|batch| UNET.map(|(name, rows, width)| case(format!("{name} batch {batch}"), batch * rows, width)));
    unet.chain([case("text".into(), 2 * 77, 768)]).collect()
}
