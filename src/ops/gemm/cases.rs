//! Linear layers of Stable Diffusion, for benches and tests.

use super::Activation;

/// A linear layer and the number of rows that it meets.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Where it occurs.
    pub name: &'static str,
    /// Rows of x.
    pub rows: usize,
    /// Width of x.
    pub inputs: usize,
    /// Width of the result.
    pub outputs: usize,
    /// After the product.
    pub activation: Activation,
    /// With a residual.
    pub residual: bool,
}

impl Case {
    /// Floating-point operations, two for each multiply-add.
    pub fn flops(&self) -> u64 {
        2 * (self.rows * self.inputs * self.columns()) as u64
    }

    /// Bytes that are read and written once, of elements of `size` bytes and an f32 bias.
    pub fn bytes(&self, size: usize) -> u64 {
        let results = if self.residual { 2 } else { 1 } * self.rows * self.outputs;
        (size * (self.rows * self.inputs + self.inputs * self.columns() + results) + 4 * self.columns()) as u64
    }

    /// Rows of W.
    pub fn columns(&self) -> usize {
        if self.activation == Activation::Geglu { 2 * self.outputs } else { self.outputs }
    }
}

/// Layers of SD 1.5 at 512 x 512 with a batch of two: the U-Net from its widest to its deepest level, and the text encoder.
pub fn cases() -> Vec<Case> {
    let case = |name, rows, inputs, outputs| Case { name, rows, inputs, outputs, activation: Activation::None, residual: false };
    let geglu = |name, rows, inputs, outputs| Case { activation: Activation::Geglu, ..case(name, rows, inputs, outputs) };
    let residual = |name, rows, inputs, outputs| Case { residual: true, ..case(name, rows, inputs, outputs) };
    vec![
        case("qkv 64x64", 8192, 320, 960),
        residual("out 64x64", 8192, 320, 320),
        geglu("ff1 64x64", 8192, 320, 1280),
        residual("ff2 64x64", 8192, 1280, 320),
        case("qkv 32x32", 2048, 640, 1920),
        residual("out 32x32", 2048, 640, 640),
        geglu("ff1 32x32", 2048, 640, 2560),
        residual("ff2 32x32", 2048, 2560, 640),
        case("qkv 16x16", 512, 1280, 3840),
        geglu("ff1 16x16", 512, 1280, 5120),
        residual("ff2 16x16", 512, 5120, 1280),
        geglu("ff1 8x8", 128, 1280, 5120),
        residual("ff2 8x8", 128, 5120, 1280),
        case("text keys and values", 154, 768, 640),
        Case { activation: Activation::QuickGelu, ..case("text fc1", 154, 768, 3072) },
        residual("text fc2", 154, 3072, 768),
        Case { activation: Activation::Silu, ..case("time", 1, 1280, 1280) },
    ]
}
