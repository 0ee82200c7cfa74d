//! Layer norms folded into weights, and statistics for the norms that follow.

use super::*;
use crate::device::Statistics;
use crate::ops::gemm::tiling::{LINEAR, Tiling};
use crate::ops::norm::{LayerNorm, row_statistics};
use crate::ops::testing::keep;

// ---- Statistics -----------------------------------------------------------------------------------------------------

/// The statistics that a kernel takes of x W^T + bias + residual, `[parts, 2]`.
fn statistics(device: &Device, tiling: &Tiling, data: &Data, kind: Statistics) -> Vec<f32> {
    let [m, k, n] = data.sizes;
    let layer = data.layer(device, Precision::F32, false).with_statistics(kind);
    let pass = |e: &Exec<'_>, out: &mut Vec<f32>| {
        let (x, residual) = (e.input([m, k], &data.x)?, e.input([m, n], &data.residual)?);
        let mut y = e.alloc([m, n], device.storage())?;
        gpu::product(e, tiling, &layer, &x, None, Activation::None, Some(&residual), &mut y)?;
        let Some(taken) = y.statistics(kind) else { panic!("no {kind:?} of {:?} by {tiling:?}", data.sizes) };
        keep(&taken, out)
    };
    crate::ops::testing::run(device, pass)
}

/// Of every kernel that takes them: near the exact ones of what is stored, and of the same bits.
fn check_statistics(device: &Device, data: &Data, kind: Statistics) {
    let sums = data.reference(device, Precision::F32, Activation::None).into_iter();
    let exact: Vec<f64> = sums.map(|sum| f64::from(round_to(device.storage(), sum.exact as f32))).collect();
    let mut first: Option<Vec<f32>> = None;
    for tiling in LINEAR.iter().filter(|tiling| kind == Statistics::Channels || tiling.takes_rows()) {
        let what = format!("{kind:?} of {:?} by {tiling:?} on {}", data.sizes, label(device));
        let found = statistics(device, tiling, data, kind);
        assert_statistics(&found, &exact, [data.sizes[0], data.sizes[2]], kind, &what);
        assert_same_bits(&found, first.get_or_insert_with(|| found.clone()), &what);
    }
    assert!(first.is_some());
}

#[test]
fn statistics_of_channels_are_those_of_the_result() {
    for device in gpus() {
        for sizes in [[32, 8, 2], [64, 40, 8], [96, 24, 158], [160, 16, 168], [128, 72, 322]] {
            check_statistics(&device, &Data::new(sizes, false, integers), Statistics::Channels);
        }
    }
}

#[test]
fn statistics_of_rows_are_those_of_the_result() {
    for device in gpus() {
        for sizes in [[1, 8, 80], [37, 40, 160], [129, 24, 240], [65, 72, 400]] {
            check_statistics(&device, &Data::new(sizes, false, integers), Statistics::Rows);
        }
    }
}

/// As integers they are exact in f32, so that nothing but the way to sum squares could lose the small differences. And that bfloat16
/// rounds them to multiples of 16 is no excuse: the norm is that of what is stored.
#[test]
fn a_far_mean_costs_no_precision() {
    for device in gpus() {
        for kind in [Statistics::Channels, Statistics::Rows] {
            let mut data = Data::new([64, 16, 160], false, integers);
            data.bias.fill(4003.0);
            check_statistics(&device, &data, kind);
        }
    }
}

#[test]
fn results_without_whole_parts_carry_no_statistics() {
    for device in gpus() {
        for (kind, sizes) in
            [(Statistics::Channels, [33, 8, 16]), (Statistics::Channels, [32, 8, 15]), (Statistics::Rows, [32, 8, 72])]
        {
            let data = Data::new(sizes, false, noise);
            let layer = data.layer(&device, Precision::F32, false).with_statistics(kind);
            let found = run(&device, |e| {
                let y = linear(e, &layer, &e.input([sizes[0], sizes[1]], &data.x)?, Activation::None, None)?;
                assert!(y.attached_statistics().is_none(), "{kind:?} of {sizes:?}");
                Ok(y)
            });
            assert_eq!(found.unwrap().len(), sizes[0] * sizes[2]);
        }
    }
}

// ---- Layer norm -----------------------------------------------------------------------------------------------------

/// A layer of the layer norm of its input.
struct Normed {
    data: Data,
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl Normed {
    fn new(sizes: [usize; 3], gated: bool) -> Normed {
        let weight = noise(5, sizes[1]).into_iter().map(|x| 1.0 + x / 2.0).collect();
        Normed { data: Data::new(sizes, gated, noise), weight, bias: noise(6, sizes[1]), eps: 1e-5 }
    }

    fn layer(&self, device: &Device, gated: bool) -> Linear {
        let [_, k, n] = self.data.sizes;
        let norm = LayerNorm { weight: host(&self.weight, &[k]), bias: host(&self.bias, &[k]), eps: self.eps };
        let rows = if gated { 2 * n } else { n };
        let (weight, bias) = (host(&self.data.weight, &[rows, k]), Some(host(&self.data.bias, &[rows])));
        match gated {
            true => Linear::prepare_geglu_after(Some(&norm), device, Precision::F32, weight, bias).unwrap(),
            false => Linear::prepare_after(Some(&norm), device, Precision::F32, &[(weight, bias)]).unwrap(),
        }
    }

    /// Two steps: the norm is stored, then comes the product. Weights are exact in f64, rounded in f32.
    fn reference(&self, device: &Device, activation: Activation) -> Vec<Sum> {
        let [m, k, n] = self.data.sizes;
        let round = |x: f32| round_to(device.storage(), x);
        let norm = |row: usize| -> Vec<Sum> {
            let x: Vec<f64> = self.data.x[row * k..][..k].iter().map(|&x| f64::from(round(x))).collect();
            let mean = x.iter().sum::<f64>() / k as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / k as f64;
            let factor = 1.0 / (variance + f64::from(self.eps)).sqrt();
            let exact =
                x.iter().zip(&self.weight).zip(&self.bias).map(|((x, &w), &b)| (x - mean) * factor * f64::from(w) + f64::from(b));
            exact.map(|exact| Sum { exact, plain: round(exact as f32) }).collect()
        };
        let rows: Vec<Vec<Sum>> = (0..m).map(norm).collect();
        let column = |i: usize, j: usize| {
            let products = rows[i].iter().zip(&self.data.weight[j * k..][..k]);
            let sum = products.fold(Sum::default(), |sum, (x, &w)| Sum {
                exact: sum.exact + x.exact * f64::from(w),
                plain: sum.plain + x.plain * round(w),
            });
            sum.plus(self.data.bias[j])
        };
        let gelu = |x: f64| x * normal(x);
        let one = |i: usize, j: usize| {
            let x = column(i, j);
            let y = match activation {
                Activation::Geglu => {
                    let gate = column(i, n + j).map(gelu, |x| gelu(f64::from(round(x))) as f32);
                    x.map(|x| x * gate.exact, |x| round(round(x) * gate.plain))
                }
                Activation::QuickGelu => x.map(|x| x / (1.0 + (-1.702 * x).exp()), |x| x / (1.0 + (-1.702 * x).exp())),
                _ => x,
            };
            y.plus(round(self.data.residual[i * n + j]))
        };
        (0..m * n).map(|at| one(at / n, at % n)).collect()
    }

    /// Of x as it is, or as the result of a product that left statistics of its rows.
    fn run(&self, device: &Device, activation: Activation, after_a_product: bool) -> Vec<f32> {
        let [m, k, n] = self.data.sizes;
        let layer = self.layer(device, activation == Activation::Geglu);
        let identity: Vec<f32> = (0..k * k).map(|i| if i / k == i % k { 1.0 } else { 0.0 }).collect();
        let identity = Linear::prepare(device, Precision::F32, &[(host(&identity, &[k, k]), None)]).unwrap();
        let identity = identity.with_statistics(Statistics::Rows);
        run(device, |e| {
            let (mut x, residual) = (e.input([m, k], &self.data.x)?, e.input([m, n], &self.data.residual)?);
            if after_a_product {
                x = linear(e, &identity, &x, Activation::None, None)?;
                assert!(x.statistics(Statistics::Rows).is_some() || matches!(device, Device::Cpu(_)), "{:?}", self.data.sizes);
            }
            linear(e, &layer, &x, activation, Some(&residual))
        })
        .unwrap()
    }

    fn check(&self, device: &Device, activation: Activation, what: &str) {
        let expected = self.reference(device, activation);
        let parts: &[bool] = if self.data.sizes[1].is_multiple_of(Statistics::PART_COLUMNS) { &[false, true] } else { &[false] };
        for &after_a_product in parts {
            let found = self.run(device, activation, after_a_product);
            let what = format!("{what}{:?} {activation:?}, statistics of a product: {after_a_product}", self.data.sizes);
            assert_close(device, &found, &expected, &what);
        }
    }
}

#[test]
fn a_folded_norm_is_that_of_its_input() {
    for device in [Device::cpu(2).unwrap()].into_iter().chain(gpus()) {
        for sizes in [[1, 8, 8], [5, 7, 3], [37, 80, 168], [65, 160, 24], [130, 240, 40], [3, 264, 328]] {
            Normed::new(sizes, false).check(&device, Activation::QuickGelu, "");
            Normed::new(sizes, true).check(&device, Activation::Geglu, "");
        }
    }
}

/// Rows far from zero, rows that differ in scale, and a row of one value, whose norm is the bias of the norm.
#[test]
fn rows_of_any_mean_and_scale_are_normalised() {
    for device in [Device::cpu(2).unwrap()].into_iter().chain(gpus()) {
        let mut normed = Normed::new([4, 80, 40], false);
        let row = |x: &mut [f32], scale: f32, shift: f32| x.iter_mut().for_each(|x| *x = *x * scale + shift);
        for (x, [scale, shift]) in normed.data.x.chunks_mut(80).zip([[1.0, 6.0], [40.0, -20.0], [0.01, 0.0], [0.0, 3.0]]) {
            row(x, scale, shift);
        }
        normed.check(&device, Activation::None, "means and scales ");
    }
}

/// A value that the storage type rounds: the mean is that of the rounded one, or else the norm would be their distance, large.
#[test]
fn rows_of_one_value_are_normalised_to_zero() {
    for device in gpus() {
        let mut normed = Normed::new([4, 80, 40], false);
        normed.data.x.fill(0.0);
        let expected = normed.reference(&device, Activation::None);
        let (identity, layer) = (vec![0.0; 80 * 80], normed.layer(&device, false));
        let bias = host(&[3.01; 80], &[80]);
        let constant = Linear::prepare(&device, Precision::F32, &[(host(&identity, &[80, 80]), Some(bias))]).unwrap();
        let constant = constant.with_statistics(Statistics::Rows);
        let found = run(&device, |e| {
            let x = linear(e, &constant, &e.input([4, 80], &normed.data.x)?, Activation::None, None)?;
            linear(e, &layer, &x, Activation::None, Some(&e.input([4, 40], &normed.data.residual)?))
        });
        assert_close(&device, &found.unwrap(), &expected, "one value");
    }
}

/// Whatever a layer would take: close to the norm, then the product, and of the same bits.
#[test]
fn every_kernel_follows_a_folded_norm() {
    for device in gpus() {
        let Device::Gpu(gpu) = &device else { continue };
        for sizes in [[37, 80, 168], [129, 240, 160], [63, 24, 56]] {
            for activation in [Activation::QuickGelu, Activation::Geglu] {
                let normed = Normed::new(sizes, activation == Activation::Geglu);
                let layer = normed.layer(&device, activation == Activation::Geglu);
                let expected = normed.reference(&device, activation);
                let mut first: Option<Vec<f32>> = None;
                for tiling in gpu::tilings(activation).iter().filter(|tiling| tiling.vectors) {
                    let found = run(&device, |e| {
                        let (x, residual) = (
                            e.input([sizes[0], sizes[1]], &normed.data.x)?,
                            e.input([sizes[0], sizes[2]], &normed.data.residual)?,
                        );
                        let norm = gpu::RowNorm { rows: row_statistics(e, gpu, &x)?, eps: normed.eps };
                        let mut out = e.alloc([sizes[0], sizes[2]], device.storage())?;
                        gpu::product(e, tiling, &layer, &x, Some(&norm), activation, Some(&residual), &mut out)?;
                        Ok(out)
                    });
                    let (found, what) =
                        (found.unwrap(), format!("{sizes:?}, {activation:?}, by {tiling:?} on {}", label(&device)));
                    assert_close(&device, &found, &expected, &what);
                    assert_same_bits(&found, first.get_or_insert_with(|| found.clone()), &what);
                }
            }
        }
    }
}

#[test]
fn neither_rows_nor_kernels_change_the_bits_of_a_folded_norm() {
    const K: usize = 240; // three parts
    for device in gpus() {
        let normed = Normed::new([150, K, 96], true);
        for after_a_product in [false, true] {
            let all = normed.run(&device, Activation::Geglu, after_a_product);
            for (first, rows) in [(0, 1), (17, 31), (5, 130)] {
                let x = normed.data.x[first * K..][..rows * K].to_vec();
                let residual = normed.data.residual[first * 96..][..rows * 96].to_vec();
                let data = Data { sizes: [rows, K, 96], x, residual, ..Data::new([1, K, 96], true, noise) };
                let part = Normed { data, ..Normed::new([1, K, 96], true) };
                let found = part.run(&device, Activation::Geglu, after_a_product);
                assert_same_bits(
                    &found,
                    &all[first * 96..][..rows * 96],
                    &format!("{rows} rows from {first} on {}", label(&device)),
                );
            }
        }
    }
}

#[test]
#[should_panic(expected = "packed for GEGLU")]
fn gated_results_take_no_statistics() {
    let data = Data::new([1, 8, 80], true, noise);
    let _ = data.layer(&Device::cpu(1).unwrap(), Precision::F32, true).with_statistics(Statistics::Channels);
}

#[test]
fn norms_of_another_width_are_refused() {
    let device = Device::cpu(1).unwrap();
    let norm = LayerNorm { weight: host(&[1.0; 3], &[3]), bias: host(&[0.0; 3], &[3]), eps: 1e-5 };
    let layer = Linear::prepare_after(Some(&norm), &device, Precision::F32, &[(host(&[0.0; 8], &[2, 4]), None)]);
    assert_shape_error(layer, "expected [4], found [3]");
}
