//! What the tests of products share: data, and the comparison with exact sums.

use crate::Result;
use crate::device::cpu::Isa;
use crate::device::{Device, Exec, Precision, Statistics, Tensor};
pub(crate) use crate::ops::testing::{assert_shape_error, devices, gpus, label, noise, round_to, stored};
use crate::ops::testing::{keep, try_run};
use crate::tensor::{DType, HostTensor};

/// Integers from -4 to 4: their sums are exact, in any order, in f32 and in bf16.
pub(crate) fn integers(seed: u64, len: usize) -> Vec<f32> {
    noise(seed, len).into_iter().map(|x| (x * 4.0).round()).collect()
}

pub(crate) fn host<'a>(values: &'a [f32], shape: &[usize]) -> HostTensor<'a> {
    HostTensor {
        name: "w".into(),
        shape: shape.into(),
        dtype: DType::F32,
        bytes: Some(bytemuck::cast_slice(values)),
        store: None,
    }
}

/// The precisions that `device` computes in.
pub(crate) fn precisions(device: &Device) -> Vec<Precision> {
    match device {
        Device::Cpu(cpu) if cpu.isa() == Isa::Avx512Bf16 => vec![Precision::F32, Precision::Bf16],
        _ => vec![Precision::F32],
    }
}

/// Runs `pass` in memory that is full of NaN, and returns the values of its result.
pub(crate) fn run(device: &Device, pass: impl for<'e> Fn(&'e Exec<'_>) -> Result<Tensor<'e>> + Sync) -> Result<Vec<f32>> {
    try_run(device, |exec, out| keep(&pass(exec)?, out))
}

/// A sum of products, exactly (operands rounded to their type) and as a plain loop in f32 computes it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sum {
    pub(crate) exact: f64,
    pub(crate) plain: f32,
}

impl Sum {
    pub(crate) fn of(operands: DType, products: impl Iterator<Item = (f32, f32)>) -> Sum {
        let round = |x: f32| round_to(operands, x);
        products.fold(Sum::default(), |sum, (a, b)| {
            let (a, b) = (round(a), round(b));
            Sum { exact: sum.exact + f64::from(a) * f64::from(b), plain: sum.plain + a * b }
        })
    }

    pub(crate) fn plus(self, x: f32) -> Sum {
        Sum { exact: self.exact + f64::from(x), plain: self.plain + x }
    }

    pub(crate) fn map(self, exact: impl Fn(f64) -> f64, plain: impl Fn(f32) -> f32) -> Sum {
        Sum { exact: exact(self.exact), plain: plain(self.plain) }
    }
}

/// The largest error is at most twice that of the plain loop, plus one rounding of the largest value.
pub(crate) fn assert_close(device: &Device, found: &[f32], sums: &[Sum], what: &str) {
    let (plain, exact): (Vec<f32>, Vec<f64>) = sums.iter().map(|s| (s.plain, s.exact)).unzip();
    crate::ops::testing::assert_close(device, what, found, &plain, &exact);
}

/// Equal, element by element; a NaN never is.
pub(crate) fn assert_equal(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let different = found.iter().zip(expected).position(|(a, b)| a != b || a.is_nan());
    assert!(different.is_none(), "{what}: {:?} at {different:?}", different.map(|i| (found[i], expected[i])));
}

/// The same bits.
pub(crate) fn assert_same_bits(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let different = found.iter().zip(expected).position(|(a, b)| a.to_bits() != b.to_bits());
    assert!(different.is_none(), "{what}: {:?} at {different:?}", different.map(|i| (found[i], expected[i])));
}

/// Fails unless `found`, `[parts, 2]`, are near the means and the sums of squares about them of the parts of y, `rows` x `columns`.
pub(crate) fn assert_statistics(found: &[f32], y: &[f64], [rows, columns]: [usize; 2], kind: Statistics, what: &str) {
    let [down, across] = kind.parts(rows, columns).unwrap();
    let [tall, wide] = [rows / down, columns / across];
    let largest = y.iter().fold(0f64, |a, x| a.max(x.abs()));
    assert_eq!(found.len(), 2 * down * across, "{what}");
    for (at, found) in found.as_chunks::<2>().0.iter().enumerate() {
        let start = at / across * tall * columns + at % across * wide;
        let values = (0..tall * wide).map(|i| y[start + i / wide * columns + i % wide]);
        let mean = values.clone().sum::<f64>() / (tall * wide) as f64;
        let squares: f64 = values.map(|x| (x - mean).powi(2)).sum();
        // Sums of products in f32, of numbers up to the largest; squares lose no more than that to the mean.
        assert!((f64::from(found[0]) - mean).abs() <= 1e-6 * largest, "{what}: mean {} for {mean} at {at}", found[0]);
        let allowed = 2e-5 * squares + 1e-9 * largest * largest;
        assert!((f64::from(found[1]) - squares).abs() <= allowed, "{what}: squares {} for {squares} at {at}", found[1]);
    }
}
