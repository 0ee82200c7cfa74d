//! Convolutions of Stable Diffusion, for benches and tests.

use super::Padding;

/// A convolution and the images that it meets.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Where it occurs.
    pub name: &'static str,
    /// Images.
    pub batch: usize,
    /// Height and width of the input.
    pub size: [usize; 2],
    /// Channels of the input and of the second input.
    pub channels: [usize; 2],
    /// Channels of the result.
    pub outputs: usize,
    /// 1 or 3.
    pub kernel: usize,
    /// 1 or 2.
    pub stride: usize,
    /// Placement of the zeros.
    pub padding: Padding,
    /// Enlarge the input to this height and width first.
    pub upsample: Option<[usize; 2]>,
    /// With a residual.
    pub residual: bool,
}

impl Case {
    /// A 3x3 convolution of one input.
    pub const fn square(name: &'static str, batch: usize, size: usize, channels: usize, outputs: usize) -> Case {
        Case {
            name,
            batch,
            size: [size, size],
            channels: [channels, 0],
            outputs,
            kernel: 3,
            stride: 1,
            padding: Padding::Same,
            upsample: None,
            residual: false,
        }
    }

    /// Height and width of the result.
    pub fn result(&self) -> [usize; 2] {
        let pad = match (self.kernel, self.padding) {
            (1, _) => 0,
            (_, Padding::Same) => 2,
            (_, Padding::BottomRight) => 1,
        };
        self.upsample.unwrap_or(self.size).map(|n| (n + pad - self.kernel) / self.stride + 1)
    }

    /// Positions of the result, steps of its sums, and its channels: the product that this is.
    pub fn product(&self) -> [usize; 3] {
        let [height, width] = self.result();
        [self.batch * height * width, (self.channels[0] + self.channels[1]) * self.kernel * self.kernel, self.outputs]
    }

    /// Floating-point operations, two for each multiply-add.
    pub fn flops(&self) -> u64 {
        2 * self.product().iter().product::<usize>() as u64
    }

    /// Bytes that are read and written once, of elements of `size` bytes and an f32 bias.
    pub fn bytes(&self, size: usize) -> u64 {
        let [positions, steps, outputs] = self.product();
        let read = self.batch * self.size[0] * self.size[1] * (self.channels[0] + self.channels[1]);
        let results = if self.residual { 2 } else { 1 } * positions * outputs;
        (size * (read + steps * outputs + results) + 4 * outputs) as u64
    }
}

/// Layers of SD 1.5 at 512 x 512: the U-Net with a batch of two from its widest to its deepest level, then the decoder for one image.
pub fn cases() -> Vec<Case> {
    let conv = Case::square;
    vec![
        conv("in 64x64", 2, 64, 4, 320),
        conv("64x64", 2, 64, 320, 320),
        Case { channels: [640, 320], ..conv("skip 64x64", 2, 64, 0, 320) },
        Case { channels: [640, 320], kernel: 1, ..conv("shortcut 64x64", 2, 64, 0, 320) },
        Case { residual: true, ..conv("residual 64x64", 2, 64, 320, 320) },
        Case { stride: 2, ..conv("down 64x64", 2, 64, 320, 320) },
        conv("out 64x64", 2, 64, 320, 4),
        conv("32x32", 2, 32, 640, 640),
        Case { channels: [1280, 640], ..conv("skip 32x32", 2, 32, 0, 640) },
        Case { upsample: Some([64, 64]), ..conv("up 32x32", 2, 32, 640, 640) },
        conv("16x16", 2, 16, 1280, 1280),
        Case { channels: [1280, 1280], ..conv("skip 16x16", 2, 16, 0, 1280) },
        conv("8x8", 2, 8, 1280, 1280),
        Case { channels: [1280, 1280], ..conv("skip 8x8", 2, 8, 0, 1280) },
        conv("vae 64x64", 1, 64, 512, 512),
        conv("vae 128x128", 1, 128, 512, 512),
        conv("vae 256x256", 1, 256, 256, 256),
        conv("vae 512x512", 1, 512, 128, 128),
        conv("vae out", 1, 512, 128, 3),
    ]
}
