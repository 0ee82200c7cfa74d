//! Sums of Stable Diffusion, for benches and tests.

/// Two tensors that are added.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Where it occurs.
    pub name: &'static str,
    /// Rows of both.
    pub rows: usize,
    /// Channels.
    pub width: usize,
}

impl Case {
    /// Floating-point operations.
    pub fn flops(&self) -> u64 {
        (self.rows * self.width) as u64
    }

    /// Bytes of elements of `size` bytes that are read and written once.
    pub fn bytes(&self, size: usize) -> u64 {
        3 * (size * self.rows * self.width) as u64
    }
}

/// Activations of SD 1.5's U-Net at 512 x 512, for one image with guidance and for eight.
pub fn cases() -> Vec<Case> {
    let case = |name, rows, width| Case { name, rows, width };
    vec![
        case("8x8 batch 2", 2 * 64, 1280),
        case("32x32 batch 2", 2 * 1024, 640),
        case("64x64 batch 2", 2 * 4096, 320),
        case("64x64 batch 16", 16 * 4096, 320),
    ]
}
