//! Each kernel of the GPU by itself, whatever a layer would take.

use super::*;
use crate::ops::gemm::tiling::{CONV2D, Tiling};
use crate::ops::testing::keep;

impl Data {
    /// With one kernel.
    fn run_by(&self, device: &Device, tiling: &Tiling) -> Vec<f32> {
        self.run_with(device, tiling, keep)
    }

    /// The statistics that a kernel takes of the result.
    fn statistics_by(&self, device: &Device, tiling: &Tiling) -> Vec<f32> {
        self.run_with(device, tiling, |y, out| keep(&y.statistics(Statistics::Channels).unwrap(), out))
    }

    /// With one kernel, and what `keep` keeps of its result.
    fn run_with(&self, device: &Device, tiling: &Tiling, keep: fn(&Tensor<'_>, &mut Vec<f32>) -> Result<()>) -> Vec<f32> {
        let Case { batch, size: [height, width], channels: [c1, c2], outputs, upsample, .. } = self.case;
        let [rows, columns] = self.case.result();
        let layer = self.layer(device, Precision::F32, Algorithm::Direct).with_statistics();
        crate::ops::testing::run(device, |e, kept| {
            let (x, skip) = (e.input([batch, height, width, c1], &self.x)?, e.input([batch, height, width, c2], &self.skip)?);
            let residual = e.input([batch, rows, columns, outputs], &self.residual)?;
            let channel_bias = e.input([outputs], &self.channel_bias)?;
            let skip = Some(&skip).filter(|_| c2 > 0);
            let mut out = e.alloc([batch, rows, columns, outputs], device.storage())?;
            let fused = Fused { skip, upsample, channel_bias: Some(&channel_bias), residual: Some(&residual) };
            gpu::convolve(e, tiling, &layer, &x, fused, &mut out)?;
            keep(&out, kept)
        })
    }

    /// Of image `b` alone.
    fn image(&self, b: usize) -> Data {
        let part = |values: &[f32]| values[b * values.len() / self.case.batch..][..values.len() / self.case.batch].to_vec();
        let case = Case { batch: 1, ..self.case };
        let values = |name: &[f32]| name.to_vec();
        Data {
            case,
            x: part(&self.x),
            skip: part(&self.skip),
            residual: part(&self.residual),
            weight: values(&self.weight),
            bias: values(&self.bias),
            channel_bias: values(&self.channel_bias),
        }
    }
}

/// Channels that vectors read, round the tiles of positions (64, 128) and channels (32, 64, 128, 160) and steps of 32 of the sum.
fn vector_cases() -> Vec<Case> {
    let conv = Case::square;
    vec![
        conv("one pixel", 1, 1, 8, 8),
        conv("a tile and one", 1, 0, 8, 32).sized([5, 13]),
        conv("two tiles and one", 1, 0, 32, 72).sized([3, 43]),
        conv("taps inside a step", 3, 5, 16, 40),
        conv("taps across steps", 2, 5, 40, 160),
        Case { channels: [64, 32], ..conv("second input", 2, 6, 0, 168) },
        Case { channels: [24, 40], ..conv("second input inside a step", 2, 6, 0, 128) },
        Case { channels: [32, 64], kernel: 1, ..conv("shortcut", 3, 7, 0, 96) },
        Case { stride: 2, ..conv("even down", 2, 8, 32, 20) },
        Case { stride: 2, ..conv("odd down", 2, 9, 32, 3) },
        Case { stride: 2, padding: Padding::BottomRight, ..conv("encoder's down", 2, 0, 64, 16).sized([5, 8]) },
        Case { upsample: Some([10, 10]), ..conv("up", 2, 5, 32, 24) },
        Case { upsample: Some([9, 10]), ..conv("up to an odd height", 2, 5, 40, 33) },
        Case { upsample: Some([10, 9]), channels: [8, 8], kernel: 1, ..conv("1x1 up of two", 1, 5, 0, 10) },
    ]
}

impl Case {
    fn sized(self, size: [usize; 2]) -> Case {
        Case { size, ..self }
    }
}

/// Of whole parts: strided, enlarged, of two inputs, beyond a tile, of channels that fill none.
#[test]
fn statistics_are_those_of_the_result() {
    let conv = Case::square;
    for case in [
        conv("two images", 2, 8, 8, 24),
        conv("columns beyond a tile", 1, 0, 16, 168).sized([4, 8]),
        Case { channels: [16, 8], kernel: 1, ..conv("two inputs", 1, 8, 0, 34) },
        Case { stride: 2, ..conv("down", 1, 16, 8, 6) },
        Case { upsample: Some([8, 12]), ..conv("up", 1, 0, 8, 40).sized([4, 6]) },
    ] {
        let data = Data::new(case, integers);
        let [rows, columns] = case.result();
        for device in gpus() {
            let sums = data.reference(&device, Precision::F32).into_iter();
            let exact: Vec<f64> = sums.map(|sum| f64::from(round_to(device.storage(), sum.exact as f32))).collect();
            let mut first: Option<Vec<f32>> = None;
            for tiling in &CONV2D {
                let found = data.statistics_by(&device, tiling);
                let what = format!("{case:?} by {tiling:?} on {}", label(&device));
                assert_statistics(&found, &exact, [case.batch * rows * columns, case.outputs], Statistics::Channels, &what);
                assert_same_bits(&found, first.get_or_insert_with(|| found.clone()), &what);
            }
        }
    }
}

#[test]
fn integers_are_exact_with_every_kernel() {
    for device in gpus() {
        for case in vector_cases() {
            let data = Data::new(case, integers);
            let expected: Vec<f32> = data.reference(&device, Precision::F32).iter().map(|s| s.exact as f32).collect();
            for tiling in &CONV2D {
                let found = data.run_by(&device, tiling);
                assert_equal(&found, &stored(&device, &expected), &format!("{case:?} by {tiling:?} on {}", label(&device)));
            }
        }
    }
}

#[test]
fn neither_the_kernel_nor_the_batch_changes_a_bit() {
    for device in gpus() {
        for case in vector_cases() {
            let data = Data::new(case, noise);
            let reference = data.reference(&device, Precision::F32);
            let mut first: Option<Vec<f32>> = None;
            for tiling in &CONV2D {
                let (found, what) = (data.run_by(&device, tiling), format!("{case:?} by {tiling:?}"));
                assert_close(&device, &found, &reference, &what);
                assert_same_bits(&found, first.get_or_insert_with(|| found.clone()), &what);
            }
            let all = first.unwrap_or_default();
            let len = all.len() / case.batch;
            for (b, image) in all.chunks_exact(len).enumerate().filter(|_| case.batch > 1) {
                let alone = data.image(b).run(&device, Precision::F32, Algorithm::Direct);
                assert_same_bits(&alone, image, &format!("image {b} of {case:?}"));
            }
        }
    }
}

/// Sums, with what is added to them, that the storage type does not hold: none of them is rounded before the last was added.
#[test]
fn nothing_is_rounded_before_the_result() {
    let case = Case { kernel: 1, ..Case::square("rounding", 1, 3, 64, 168) };
    let mut data = Data::new(case, |_, len| vec![1.0; len]);
    data.x = [2048.0, 1.0, 1.0, 1.0].map(|x| [&[x][..], &[0.0; 15]].concat()).concat().repeat(9); // one in each step of 16
    (data.bias, data.channel_bias, data.residual) = (vec![2049.0; 168], vec![-1.0; 168], vec![-4096.0; 9 * 168]);
    for device in gpus() {
        for tiling in &CONV2D {
            assert_equal(&data.run_by(&device, tiling), &[3.0; 9 * 168], &format!("{tiling:?} on {}", label(&device)));
        }
    }
}

#[test]
fn a_gpu_computes_no_winograd() {
    let device = &gpus()[0];
    let prepared =
        Conv2d::prepare_as(Algorithm::Winograd, device, Precision::F32, host(&[0.0; 72], &[2, 4, 3, 3]), None, 1, Padding::Same);
    assert_shape_error(prepared, "no kernel of Winograd's algorithm");
}
