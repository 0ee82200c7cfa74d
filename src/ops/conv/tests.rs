mod tilings;

use super::*;
use crate::device::Plan;
use crate::ops::gemm::testing::*;
use crate::tensor::DType;

/// Around the tile, the slice, the task and the padding, with 3, 4, 8, 20 and 40 channels.
fn odd_cases() -> Vec<Case> {
    let conv = Case::square;
    vec![
        conv("one pixel", 1, 1, 1, 1),
        conv("two pixels", 2, 2, 3, 4),
        conv("many small images", 9, 3, 8, 20),
        conv("images across tasks", 11, 7, 4, 33),
        conv("narrow", 2, 5, 40, 31),
        Case { size: [3, 15], ..conv("one more than a tile", 1, 0, 20, 65) },
        Case { size: [2, 391], ..conv("more columns than a task", 1, 0, 3, 3) },
        Case { size: [4, 400], stride: 2, ..conv("more columns than a task, stride 2", 2, 0, 3, 5) },
        Case { size: [31, 17], ..conv("several rows a task", 2, 0, 5, 7) },
        Case { channels: [32, 32], ..conv("second input", 2, 6, 0, 34) },
        Case { channels: [20, 41], ..conv("second input inside a slice", 2, 6, 0, 34) },
        Case { channels: [70, 3], kernel: 1, ..conv("shortcut", 3, 6, 0, 9) },
        Case { stride: 2, ..conv("even down", 2, 8, 12, 12) },
        Case { stride: 2, ..conv("odd down", 2, 9, 12, 12) },
        Case { stride: 2, size: [5, 8], padding: Padding::BottomRight, ..conv("encoder's down", 2, 0, 65, 6) },
        Case { stride: 2, kernel: 1, ..conv("1x1 down", 2, 7, 33, 6) },
        Case { padding: Padding::BottomRight, ..conv("bottom right", 1, 4, 7, 6) },
        Case { upsample: Some([10, 10]), ..conv("up", 2, 5, 34, 10) },
        Case { upsample: Some([9, 10]), ..conv("up to an odd height", 2, 5, 34, 10) },
        Case { upsample: Some([1, 3]), size: [1, 2], ..conv("up to an odd width", 2, 0, 4, 3) },
        Case { upsample: Some([6, 6]), kernel: 1, ..conv("1x1 up", 2, 3, 4, 10) },
        Case { upsample: Some([10, 10]), stride: 2, channels: [3, 2], ..conv("up and down", 2, 5, 0, 10) },
    ]
}

struct Data {
    case: Case,
    x: Vec<f32>,
    skip: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    channel_bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Data {
    fn new(case: Case, fill: fn(u64, usize) -> Vec<f32>) -> Data {
        let (pixels, [c1, c2], [m, k, n]) = (case.batch * case.size[0] * case.size[1], case.channels, case.product());
        Data {
            case,
            x: fill(1, pixels * c1),
            skip: fill(2, pixels * c2),
            weight: fill(3, k * n),
            bias: fill(4, n),
            channel_bias: fill(5, n),
            residual: fill(6, m * n),
        }
    }

    fn layer(&self, device: &Device, precision: Precision, algorithm: Algorithm) -> Conv2d {
        let Case { channels: [c1, c2], outputs, kernel, stride, padding, .. } = self.case;
        let weight = host(&self.weight, &[outputs, c1 + c2, kernel, kernel]);
        let bias = Some(host(&self.bias, &[outputs]));
        Conv2d::prepare_as(algorithm, device, precision, weight, bias, stride, padding).unwrap()
    }

    fn run(&self, device: &Device, precision: Precision, algorithm: Algorithm) -> Vec<f32> {
        let Case { batch, size: [height, width], channels: [c1, c2], outputs, upsample, .. } = self.case;
        let [rows, columns] = self.case.result();
        let layer = self.layer(device, precision, algorithm);
        run(device, |e| {
            let (x, skip) = (e.input([batch, height, width, c1], &self.x)?, e.input([batch, height, width, c2], &self.skip)?);
            let residual = e.input([batch, rows, columns, outputs], &self.residual)?;
            let channel_bias = e.input([outputs], &self.channel_bias)?;
            let skip = Some(&skip).filter(|_| c2 > 0);
            conv2d(e, &layer, &x, Fused { skip, upsample, channel_bias: Some(&channel_bias), residual: Some(&residual) })
        })
        .unwrap()
    }

    /// The input at a position of the doubled and padded image, or zero.
    fn pixel(&self, b: usize, y: isize, x: isize, c: usize) -> f32 {
        let Case { size: [height, width], channels: [c1, c2], upsample, .. } = self.case;
        let (scale, [tall, wide]) = (if upsample.is_some() { 2 } else { 1 }, upsample.unwrap_or([height, width]));
        if y < 0 || x < 0 || y >= tall as isize || x >= wide as isize {
            return 0.0;
        }
        let at = (b * height + y as usize / scale) * width + x as usize / scale;
        if c < c1 { self.x[at * c1 + c] } else { self.skip[at * c2 + c - c1] }
    }

    fn reference(&self, device: &Device, precision: Precision) -> Vec<Sum> {
        let round = |x: f32| round_to(device.storage(), x);
        let Case { kernel, stride, padding, outputs, channels: [c1, c2], .. } = self.case;
        let ([rows, columns], [m, steps, _]) = (self.case.result(), self.case.product());
        let before = if kernel == 3 && padding == Padding::Same { 1 } else { 0 };
        let one = |at: usize| {
            let (o, j, i, b) =
                (at % outputs, at / outputs % columns, at / outputs / columns % rows, at / outputs / columns / rows);
            let products = (0..steps).map(|k| {
                let (v, u, c) = (k % kernel, k / kernel % kernel, k / kernel / kernel);
                let place = |i: usize, u: usize| (i * stride + u) as isize - before;
                (self.pixel(b, place(i, u), place(j, v), c), self.weight[(o * (c1 + c2) + c) * kernel * kernel + u * kernel + v])
            });
            Sum::of(device.operands(precision), products)
                .plus(self.bias[o])
                .plus(round(self.channel_bias[o]))
                .plus(round(self.residual[at]))
        };
        (0..m * outputs).map(one).collect()
    }
}

/// The algorithms that compute `case` in `precision` on `device`.
fn algorithms(device: &Device, case: &Case, precision: Precision) -> Vec<Algorithm> {
    match device {
        Device::Cpu(_) if Algorithm::winograd_computes(precision, case.kernel, case.stride) => {
            vec![Algorithm::Direct, Algorithm::Winograd]
        }
        _ => vec![Algorithm::Direct],
    }
}

#[test]
fn integers_are_exact() {
    for device in devices() {
        for precision in precisions(&device) {
            for case in odd_cases() {
                let data = Data::new(case, integers);
                let expected: Vec<f32> = data.reference(&device, precision).iter().map(|s| s.exact as f32).collect();
                for algorithm in algorithms(&device, &case, precision) {
                    let what = format!("{} {algorithm:?} {precision:?} {}", case.name, label(&device));
                    assert_equal(&data.run(&device, precision, algorithm), &stored(&device, &expected), &what);
                }
            }
        }
    }
}

#[test]
fn errors_are_those_of_a_plain_loop() {
    for device in devices() {
        for precision in precisions(&device) {
            for case in odd_cases() {
                let data = Data::new(case, noise);
                let reference = data.reference(&device, precision);
                for algorithm in algorithms(&device, &case, precision) {
                    let what = format!("{} {algorithm:?} {precision:?} {}", case.name, label(&device));
                    assert_close(&device, &data.run(&device, precision, algorithm), &reference, &what);
                }
            }
        }
    }
}

/// Sums as long as those of Stable Diffusion, where Winograd's algorithm is the choice.
#[test]
fn errors_of_long_sums_are_those_of_a_plain_loop() {
    let device = Device::cpu(2).unwrap();
    for (channels, outputs) in [(128, 128), (320, 320), (1920, 640)] {
        let data = Data::new(Case::square("long sums", 1, 4, channels, outputs), noise);
        let reference = data.reference(&device, Precision::F32);
        for algorithm in algorithms(&device, &data.case, Precision::F32) {
            let what = format!("{channels} channels, {algorithm:?}");
            assert_close(&device, &data.run(&device, Precision::F32, algorithm), &reference, &what);
        }
        let shape = [outputs, channels, 3, 3];
        assert_eq!(Algorithm::choose(Precision::F32, &shape, 1), Algorithm::Winograd);
        assert_eq!(Algorithm::choose(Precision::F32, &shape, 2), Algorithm::Direct);
        assert_eq!(Algorithm::choose(Precision::Bf16, &shape, 1), Algorithm::Direct);
    }
    assert_eq!(Algorithm::choose(Precision::F32, &[1280, 1280, 3, 3], 1), Algorithm::Direct);
    assert_eq!(Algorithm::choose(Precision::F32, &[320, 320, 1, 1], 1), Algorithm::Direct);
}

#[test]
fn bits_depend_neither_on_batch_nor_on_threads() {
    let one = Device::cpu(1).unwrap();
    for precision in precisions(&one) {
        for (size, batch, algorithm) in algorithms(&one, &Case::square("", 1, 1, 1, 1), precision)
            .into_iter()
            .flat_map(|algorithm| [(3, 7, algorithm), (8, 3, algorithm), (24, 3, algorithm)])
        {
            let data = Data::new(Case { channels: [40, 33], ..Case::square("batch", batch, size, 0, 45) }, noise);
            let all = data.run(&one, precision, algorithm);
            for threads in [2, 5] {
                assert_same_bits(
                    &data.run(&Device::cpu(threads).unwrap(), precision, algorithm),
                    &all,
                    &format!("{threads} threads {algorithm:?}"),
                );
            }
            for b in 0..batch {
                let part = |values: &[f32]| values[b * values.len() / batch..][..values.len() / batch].to_vec();
                let case = Case { batch: 1, ..data.case };
                let alone =
                    Data { x: part(&data.x), skip: part(&data.skip), residual: part(&data.residual), ..Data::new(case, noise) };
                assert_same_bits(
                    &alone.run(&Device::cpu(2).unwrap(), precision, algorithm),
                    &part(&all),
                    &format!("sample {b} of {batch}"),
                );
            }
        }
    }
}

/// Runs `x` (with what `fused` makes of the pass) through a 3x3 convolution.
fn fused_and_not(
    device: &Device,
    precision: Precision,
    fused: impl for<'e> Fn(&'e Exec<'_>, &Conv2d) -> Result<Tensor<'e>> + Sync,
    unfused: impl for<'e> Fn(&'e Exec<'_>, &Conv2d) -> Result<Tensor<'e>> + Sync,
    channels: usize,
    what: &str,
) {
    let weight = noise(3, 20 * channels * 9);
    for algorithm in algorithms(device, &Case::square("", 1, 1, 1, 1), precision) {
        let weight = host(&weight, &[20, channels, 3, 3]);
        let layer = Conv2d::prepare_as(algorithm, device, precision, weight, None, 1, Padding::Same).unwrap();
        let (found, expected) = (run(device, |e| fused(e, &layer)).unwrap(), run(device, |e| unfused(e, &layer)).unwrap());
        assert_same_bits(&found, &expected, &format!("{what} {algorithm:?}"));
    }
}

#[test]
fn every_fusion_is_its_composition() {
    for device in [Device::cpu(2).unwrap()].into_iter().chain(gpus()) {
        for precision in precisions(&device) {
            for channels in [[23, 30], [24, 32]] {
                fusions_are_compositions(&device, precision, channels);
            }
        }
    }
}

fn fusions_are_compositions(device: &Device, precision: Precision, [c1, c2]: [usize; 2]) {
    let (b, n) = (2, 6);
    let (x, skip) = (noise(1, b * n * n * c1), noise(2, b * n * n * c2));
    let both: Vec<f32> = x.chunks(c1).zip(skip.chunks(c2)).flat_map(|(x, s)| x.iter().chain(s)).copied().collect();
    let doubled: Vec<f32> = (0..b * 4 * n * n)
        .flat_map(|at| {
            let (j, i, b) = (at % (2 * n) / 2, at / (2 * n) % (2 * n) / 2, at / (4 * n * n));
            x[((b * n + i) * n + j) * c1..][..c1].to_vec()
        })
        .collect();
    fused_and_not(
        device,
        precision,
        |e, layer| {
            let (x, skip) = (e.input([b, n, n, c1], &x)?, e.input([b, n, n, c2], &skip)?);
            conv2d(e, layer, &x, Fused { skip: Some(&skip), ..Fused::default() })
        },
        |e, layer| conv2d(e, layer, &e.input([b, n, n, c1 + c2], &both)?, Fused::default()),
        c1 + c2,
        "skip",
    );
    fused_and_not(
        device,
        precision,
        |e, layer| conv2d(e, layer, &e.input([b, n, n, c1], &x)?, Fused { upsample: Some([2 * n, 2 * n]), ..Fused::default() }),
        |e, layer| conv2d(e, layer, &e.input([b, 2 * n, 2 * n, c1], &doubled)?, Fused::default()),
        c1,
        "upsample",
    );
    if let Device::Cpu(_) = device {
        let residual = noise(4, b * n * n * 20);
        // A GPU rounds what it stores before the sum.
        fused_and_not(
            device,
            precision,
            |e, layer| {
                let residual = e.input([b, n, n, 20], &residual)?;
                conv2d(e, layer, &e.input([b, n, n, c1], &x)?, Fused { residual: Some(&residual), ..Fused::default() })
            },
            |e, layer| {
                let mut y = conv2d(e, layer, &e.input([b, n, n, c1], &x)?, Fused::default())?;
                if e.is_running() {
                    y.f32_mut().iter_mut().zip(&residual).for_each(|(y, r)| *y += r);
                }
                Ok(y)
            },
            c1,
            "residual",
        );
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let device = Device::cpu(1).unwrap();
    let prepare = |shape: &[usize], bias: usize, stride| {
        let (weight, bias) = (vec![0.0; shape.iter().product()], vec![0.0; bias]);
        let bias = Some(host(&bias, &[bias.len()]));
        Conv2d::prepare(&device, Precision::F32, host(&weight, shape), bias, stride, Padding::Same)
    };
    assert_shape_error(prepare(&[2, 3, 5, 5], 2, 1), "expected [O, I, 1, 1] or [O, I, 3, 3], found [2, 3, 5, 5]");
    assert_shape_error(prepare(&[2, 3, 3, 3], 3, 1), "expected [2], found [3]");
    assert_shape_error(prepare(&[2, 3, 3, 3], 2, 3), "stride 3");

    let layer = prepare(&[2, 3, 3, 3], 2, 1).unwrap();
    assert_eq!((layer.inputs(), layer.outputs()), (3, 2));
    let try_with = |x: &[usize], skip: Option<&[usize]>, bias: usize, residual: &[usize]| {
        Plan::record(&device, |e| {
            let new = |dims: &[usize]| e.alloc(Shape::new(dims), DType::F32);
            let (x, bias, residual) = (new(x)?, new(&[bias])?, new(residual)?);
            let skip = skip.map(new).transpose()?;
            let fused = Fused { skip: skip.as_ref(), upsample: None, channel_bias: Some(&bias), residual: Some(&residual) };
            conv2d(e, &layer, &x, fused).map(drop)
        })
    };
    assert!(try_with(&[1, 4, 4, 1], Some(&[1, 4, 4, 2]), 2, &[1, 4, 4, 2]).is_ok());
    assert_shape_error(try_with(&[4, 4, 3], None, 2, &[1, 4, 4, 2]), "expected [B, H, W, C]");
    assert_shape_error(try_with(&[1, 4, 4, 4], None, 2, &[1, 4, 4, 2]), "the layer takes 3 channels, the input has 4");
    assert_shape_error(try_with(&[1, 4, 4, 1], Some(&[1, 4, 5, 2]), 2, &[1, 4, 4, 2]), "the skip connection is [1, 4, 5, 2]");
    assert_shape_error(try_with(&[1, 4, 4, 3], None, 3, &[1, 4, 4, 2]), "the channel bias is [3]");
    assert_shape_error(try_with(&[1, 4, 4, 3], None, 2, &[1, 4, 4, 3]), "the residual is [1, 4, 4, 3]");
    assert_shape_error(try_with(&[1, 0, 4, 3], None, 2, &[1, 4, 4, 2]), "smaller than the kernel");
}

#[test]
fn costs_are_counted() {
    let device = Device::cpu(1).unwrap();
    let case = Case { channels: [3, 2], stride: 2, ..Case::square("cost", 2, 6, 0, 7) };
    let layer = Data::new(case, noise).layer(&device, Precision::F32, Algorithm::Direct);
    let plan = Plan::record(&device, |e| {
        let (x, skip) = (e.alloc([2, 6, 6, 3], DType::F32)?, e.alloc([2, 6, 6, 2], DType::F32)?);
        conv2d(e, &layer, &x, Fused { skip: Some(&skip), ..Fused::default() }).map(drop)
    })
    .unwrap();
    assert_eq!(plan.flops(), case.flops());
    assert_eq!(plan.flops(), 2 * (2 * 3 * 3) * (5 * 9) * 7);
    assert_eq!(plan.ops()[0].bytes, 4 * (2 * 36 * 5 + 2 * 9 * 7 + 7 * 5 * 9 + 7));
}
