//! Sums of Stable Diffusion, for benches and tests.

use crate::ops::cases::{ElementCost, RowsCase};

/// Sums of two activations of SD 1.5's U-Net at 512 x 512, for one image with guidance and for eight.
pub fn cases() -> Vec<RowsCase> {
    let case = |name, rows, width| RowsCase::new(name, rows, width, ElementCost { flops: 1, moved: 3 });
    vec![
        case("8x8 batch 2", 2 * 64, 1280),
        case("32x32 batch 2", 2 * 1024, 640),
        case("64x64 batch 2", 2 * 4096, 320),
        case("64x64 batch 16", 16 * 4096, 320),
    ]
}
