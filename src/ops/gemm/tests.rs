mod norms;
mod tilings;

use super::testing::*;
use super::*;
use crate::device::cpu::Isa;
use crate::device::{Arena, Cpu, Plan};
use crate::tensor::DType;

const ACTIVATIONS: [Activation; 5] =
    [Activation::None, Activation::Gelu, Activation::QuickGelu, Activation::Silu, Activation::Geglu];

/// Rows, inputs, outputs: around the tile (14 rows, 32 columns), the slice (32 or 64 channels), the block (10 slices) and the task
/// (384 rows), and primes.
const SIZES: [[usize; 3]; 16] = [
    [1, 1, 1],
    [1, 320, 77],
    [2, 3, 31],
    [5, 31, 32],
    [6, 32, 33],
    [7, 33, 4],
    [13, 63, 64],
    [14, 64, 65],
    [15, 65, 20],
    [29, 40, 97],
    [3, 319, 8],
    [4, 321, 40],
    [3, 641, 33],
    [383, 7, 5],
    [385, 20, 36],
    [797, 13, 3],
];

struct Data {
    sizes: [usize; 3],
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Data {
    fn new(sizes: [usize; 3], gated: bool, fill: fn(u64, usize) -> Vec<f32>) -> Data {
        let [m, k, n] = sizes;
        let columns = if gated { 2 * n } else { n };
        Data { sizes, x: fill(1, m * k), weight: fill(2, columns * k), bias: fill(3, columns), residual: fill(4, m * n) }
    }

    fn layer(&self, device: &Device, precision: Precision, gated: bool) -> Linear {
        let [_, k, n] = self.sizes;
        if gated {
            Linear::prepare_geglu(device, precision, host(&self.weight, &[2 * n, k]), Some(host(&self.bias, &[2 * n]))).unwrap()
        } else {
            Linear::prepare(device, precision, &[(host(&self.weight, &[n, k]), Some(host(&self.bias, &[n])))]).unwrap()
        }
    }

    fn run(&self, device: &Device, precision: Precision, activation: Activation) -> Vec<f32> {
        let [m, k, n] = self.sizes;
        let layer = self.layer(device, precision, activation == Activation::Geglu);
        run(device, |e| {
            let (x, residual) = (e.input([m, k], &self.x)?, e.input([m, n], &self.residual)?);
            linear(e, &layer, &x, activation, Some(&residual))
        })
        .unwrap()
    }

    fn reference(&self, device: &Device, precision: Precision, activation: Activation) -> Vec<Sum> {
        let [m, k, n] = self.sizes;
        let round = |x: f32| round_to(device.storage(), x);
        let column = |i: usize, j: usize| {
            let products = self.x[i * k..][..k].iter().copied().zip(self.weight[j * k..][..k].iter().copied());
            Sum::of(device.operands(precision), products).plus(self.bias[j])
        };
        let gelu = |x: f64| x * normal(x);
        let one = |i: usize, j: usize| {
            let x = column(i, j);
            let y = match activation {
                Activation::None => x,
                Activation::Gelu => x.map(gelu, |x| gelu(f64::from(x)) as f32),
                Activation::QuickGelu => x.map(|x| x / (1.0 + (-1.702 * x).exp()), |x| x / (1.0 + (-1.702 * x).exp())),
                Activation::Silu => x.map(|x| x / (1.0 + (-x).exp()), |x| x / (1.0 + (-x).exp())),
                // In plain loops the results of the products are stored in between.
                Activation::Geglu => {
                    let gate = column(i, n + j).map(gelu, |x| gelu(f64::from(round(x))) as f32);
                    x.map(|x| x * gate.exact, |x| round(round(x) * gate.plain))
                }
            };
            y.plus(round(self.residual[i * n + j]))
        };
        (0..m * n).map(|at| one(at / n, at % n)).collect()
    }
}

/// The normal distribution function, by Simpson's rule on its density: exact to 1e-13.
fn normal(x: f64) -> f64 {
    let x = x.clamp(-20.0, 20.0);
    let steps = 2000;
    let h = x.abs() / f64::from(steps);
    let density = |i: i32| (-0.5 * (h * f64::from(i)).powi(2)).exp();
    let inner: f64 = (1..steps).map(|i| density(i) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    let area = (density(0) + inner + density(steps)) * h / 3.0 / (2.0 * std::f64::consts::PI).sqrt();
    if x < 0.0 { 0.5 - area } else { 0.5 + area }
}

#[test]
fn integers_are_exact() {
    for device in devices() {
        for precision in precisions(&device) {
            for sizes in SIZES {
                let data = Data::new(sizes, false, integers);
                let sums = data.reference(&device, precision, Activation::None);
                let expected: Vec<f32> = sums.iter().map(|s| s.exact as f32).collect();
                let found = data.run(&device, precision, Activation::None);
                assert_equal(&found, &stored(&device, &expected), &format!("{sizes:?} {precision:?} {}", label(&device)));
            }
        }
    }
}

#[test]
fn errors_are_those_of_a_plain_loop() {
    for device in devices() {
        for precision in precisions(&device) {
            for sizes in SIZES.into_iter().filter(|s| s[0] * s[2] < 3000) {
                for activation in ACTIVATIONS {
                    let data = Data::new(sizes, activation == Activation::Geglu, noise);
                    let found = data.run(&device, precision, activation);
                    let what = format!("{sizes:?} {activation:?} {precision:?}");
                    assert_close(&device, &found, &data.reference(&device, precision, activation), &what);
                }
            }
        }
    }
}

/// Of single values, as near as the storage type allows: sums of products, with their larger errors, hide what an activation adds.
#[test]
fn activations_are_rounded_once() {
    let mut values: Vec<f32> = (-600..=600).map(|i| i as f32 / 100.0).collect();
    values.extend([-1e30, -60_000.0, -300.0, 300.0, 60_000.0, 1e30, f32::NAN]);
    let n = values.len();
    for device in devices() {
        for activation in [Activation::Gelu, Activation::QuickGelu, Activation::Silu] {
            let mut data = Data::new([1, 8, n], false, |_, len| vec![0.0; len]);
            data.x[0] = 1.0;
            data.weight.iter_mut().step_by(8).zip(&values).for_each(|(weight, &value)| *weight = value);
            let found = data.run(&device, Precision::F32, activation);
            let exact = data.reference(&device, Precision::F32, activation);
            for ((x, found), Sum { exact, .. }) in values.iter().zip(&found).zip(&exact) {
                if round_to(device.storage(), *x).is_infinite() {
                    continue;
                }
                let what = format!("{activation:?} of {x}: {found} for {exact} on {}", label(&device));
                assert_eq!(exact.is_nan(), found.is_nan(), "{what}");
                // Beside the rounding: 2^-17 for the exponential of f32, and what the reference for GELU is off by.
                let off = exact.abs() * 2f64.powi(-17) + f64::from(x.abs()) * 1e-13;
                assert!(exact.is_nan() || (f64::from(*found) - exact).abs() <= half_step(&device, *exact) + off, "{what}");
            }
        }
    }
}

/// Half the distance of x from its neighbours in the storage type.
fn half_step(device: &Device, x: f64) -> f64 {
    let (bits, least) = match device.storage() {
        DType::F16 => (11, -14),
        DType::BF16 => (8, -126),
        _ => (24, -126),
    };
    2f64.powi((x.abs().log2().floor() as i32).max(least) - bits)
}

#[test]
fn bits_depend_neither_on_rows_nor_on_threads() {
    for precision in precisions(&Device::cpu(1).unwrap()) {
        for (k, n) in [(40, 33), (700, 96)] {
            let data = Data::new([431, k, n], true, noise);
            let all = data.run(&Device::cpu(1).unwrap(), precision, Activation::Geglu);
            for threads in [2, 3, 7] {
                let device = Device::cpu(threads).unwrap();
                assert_same_bits(&data.run(&device, precision, Activation::Geglu), &all, &format!("{threads} threads"));
            }
            for (first, rows) in [(0, 1), (1, 14), (17, 31), (200, 113), (430, 1)] {
                let x = data.x[first * k..][..rows * k].to_vec();
                let residual = data.residual[first * n..][..rows * n].to_vec();
                let part = Data { sizes: [rows, k, n], x, residual, ..Data::new([1, k, n], true, noise) };
                let found = part.run(&Device::cpu(2).unwrap(), precision, Activation::Geglu);
                assert_same_bits(&found, &all[first * n..][..rows * n], &format!("{rows} rows from {first}"));
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_rows_on_a_gpu_either() {
    for device in gpus() {
        for (k, n) in [(40, 33), (64, 96)] {
            let data = Data::new([150, k, n], true, noise);
            let all = data.run(&device, Precision::F32, Activation::Geglu);
            for (first, rows) in [(0, 1), (17, 31), (5, 130)] {
                let x = data.x[first * k..][..rows * k].to_vec();
                let residual = data.residual[first * n..][..rows * n].to_vec();
                let part = Data { sizes: [rows, k, n], x, residual, ..Data::new([1, k, n], true, noise) };
                let found = part.run(&device, Precision::F32, Activation::Geglu);
                assert_same_bits(
                    &found,
                    &all[first * n..][..rows * n],
                    &format!("{rows} rows from {first} on {}", label(&device)),
                );
            }
        }
    }
}

#[test]
fn parts_are_stacked() {
    for device in [Device::cpu(2).unwrap()].into_iter().chain(gpus()) {
        stack_parts(device);
    }
}

fn stack_parts(device: Device) {
    let (m, k, n) = (9, 37, 20);
    let (x, weight, bias) = (noise(1, m * k), noise(2, 3 * n * k), noise(3, n));
    let part = |i: usize| host(&weight[i * n * k..][..n * k], &[n, k]);
    let run = |parts: &[(HostTensor<'_>, Option<HostTensor<'_>>)]| {
        let layer = Linear::prepare(&device, Precision::F32, parts).unwrap();
        assert_eq!((layer.inputs(), layer.outputs()), (k, parts.len() * n));
        run(&device, |e| linear(e, &layer, &e.input([m, k], &x)?, Activation::None, None)).unwrap()
    };
    let all = run(&[(part(0), None), (part(1), Some(host(&bias, &[n]))), (part(2), None)]);
    for i in 0..3 {
        let alone = run(&[(part(i), (i == 1).then(|| host(&bias, &[n])))]);
        let columns: Vec<f32> = all.chunks(3 * n).flat_map(|row| &row[i * n..][..n]).copied().collect();
        assert_same_bits(&columns, &alone, &format!("part {i}"));
    }
}

#[test]
fn leading_extents_are_kept_and_costs_counted() {
    let device = Device::cpu(1).unwrap();
    let data = Data::new([24, 10, 6], true, noise);
    let layer = data.layer(&device, Precision::F32, true);
    let plan = Plan::record(&device, |e| {
        let x = e.input([2, 3, 4, 10], &data.x)?;
        assert_eq!(linear(e, &layer, &x, Activation::Geglu, None)?.dims(), [2, 3, 4, 6]);
        Ok(())
    })
    .unwrap();
    assert_eq!(plan.flops(), 2 * 24 * 10 * 12);
    assert_eq!(plan.ops()[0].bytes, 4 * (24 * 10 + 24 * 6 + 10 * 12 + 12));
}

#[test]
fn cases_count_what_the_operation_announces() {
    let device = Device::cpu(1).unwrap();
    for case in cases() {
        let (columns, shape) = (case.columns(), [case.columns(), case.inputs]);
        let declared = |shape: &[usize]| crate::ops::testing::weight("w", shape, None);
        let layer = match case.activation {
            Activation::Geglu => Linear::prepare_geglu(&device, Precision::F32, declared(&shape), Some(declared(&[columns]))),
            _ => Linear::prepare(&device, Precision::F32, &[(declared(&shape), Some(declared(&[columns])))]),
        };
        let layer = layer.unwrap();
        let plan = Plan::record(&device, |e| {
            let (x, added) = (e.alloc([case.rows, case.inputs], DType::F32)?, e.alloc([case.rows, case.outputs], DType::F32)?);
            linear(e, &layer, &x, case.activation, case.residual.then_some(&added)).map(drop)
        });
        let counted = plan.unwrap().ops().iter().map(|op| (op.flops, op.bytes)).collect::<Vec<_>>();
        assert_eq!(counted, [(case.flops(), case.bytes(4))], "{case:?}");
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let device = Device::cpu(1).unwrap();
    let prepare = |parts: &[(HostTensor<'_>, Option<HostTensor<'_>>)]| Linear::prepare(&device, Precision::F32, parts);
    assert_shape_error(prepare(&[]), "without parts");
    assert_shape_error(prepare(&[(host(&[], &[4]), None)]), "expected [outputs, inputs], found [4]");
    assert_shape_error(prepare(&[(host(&[0.0; 8], &[2, 4]), None), (host(&[0.0; 6], &[2, 3]), None)]), "has 3 inputs");
    assert_shape_error(prepare(&[(host(&[0.0; 8], &[2, 4]), Some(host(&[0.0; 3], &[3])))]), "expected [2], found [3]");
    assert_shape_error(Linear::prepare_geglu(&device, Precision::F32, host(&[0.0; 12], &[3, 4]), None), "even number of rows");

    let data = Data::new([2, 4, 3], true, noise);
    let (plain, gated) = (data.layer(&device, Precision::F32, false), data.layer(&device, Precision::F32, true));
    let try_with = |layer: &Linear, width: usize, activation, residual: usize| {
        let pass = |e: &Exec<'_>| {
            let (x, r) = (e.alloc([2, width], DType::F32)?, e.alloc([2, residual], DType::F32)?);
            linear(e, layer, &x, activation, Some(&r)).map(drop)
        };
        Plan::record(&device, pass)
    };
    assert!(try_with(&plain, 4, Activation::Gelu, 3).is_ok());
    assert_shape_error(try_with(&plain, 5, Activation::None, 3), "the layer takes 4 channels");
    assert_shape_error(try_with(&plain, 4, Activation::None, 4), "the residual is [2, 4], the result [2, 3]");
    assert_shape_error(try_with(&plain, 4, Activation::Geglu, 3), "packed without gates");
    assert_shape_error(try_with(&gated, 4, Activation::None, 3), "packed for GEGLU");
}

#[test]
fn declared_layers_are_recorded_but_not_run() {
    for device in [Device::cpu(1).unwrap()].into_iter().chain(gpus()) {
        record_declared(device);
    }
}

fn record_declared(device: Device) {
    let weight = HostTensor { bytes: None, ..host(&[], &[3, 4]) };
    let layer = Linear::prepare(&device, Precision::F32, &[(weight, None)]).unwrap();
    assert_eq!((layer.inputs(), layer.outputs()), (4, 3));
    let pass = |e: &Exec<'_>| linear(e, &layer, &e.input([2, 4], &[0.0; 8])?, Activation::None, None).map(drop);
    let plan = Plan::record(&device, pass).unwrap();
    assert_eq!(plan.flops(), 2 * 2 * 3 * 4);
    assert!(Arena::new().run(&device, &plan, pass).unwrap_err().to_string().contains("only declared"));
}

#[test]
fn bf16_without_the_instructions_is_refused() {
    let device = Device::Cpu(Cpu::with_isa(1, Isa::Portable).unwrap());
    let error = Linear::prepare(&device, Precision::Bf16, &[(host(&[0.0; 12], &[3, 4]), None)]).unwrap_err();
    assert!(error.to_string().contains("AVX512-BF16") && error.hint().unwrap().contains("f32"), "{error}");
}
