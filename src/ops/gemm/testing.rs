//! What the tests of products share: data, passes on every instruction set, and the comparison with exact sums.

use crate::Result;
use crate::device::cpu::Isa;
use crate::device::{Arena, Cpu, Device, Exec, Plan, Precision, Tensor};
pub(crate) use crate::ops::testing::{assert_shape_error, gpus, label, noise, round_to, stored};
use crate::tensor::{DType, HostTensor};

/// Integers from -4 to 4: their sums are exact, in any order, in f32 and in bf16.
pub(crate) fn integers(seed: u64, len: usize) -> Vec<f32> {
    noise(seed, len).into_iter().map(|x| (x * 4.0).round()).collect()
}

pub(crate) fn host<'a>(values: &'a [f32], shape: &[usize]) -> HostTensor<'a> {
    HostTensor { name: "w".into(), shape: shape.into(), dtype: DType::F32, bytes: Some(bytemuck::cast_slice(values)) }
}

/// Those, and the GPUs.
pub(crate) fn devices() -> Vec<Device> {
    cpus().into_iter().chain(gpus()).collect()
}

/// A device for each instruction set of this machine, with different numbers of threads.
pub(crate) fn cpus() -> Vec<Device> {
    let mut devices = vec![Device::cpu(1).unwrap()];
    for (isa, threads) in [(Isa::Portable, 2), (Isa::Avx2, 3), (Isa::Avx512, 2), (Isa::Avx512Bf16, 5)] {
        if isa <= Isa::detect() {
            devices.push(Device::Cpu(Cpu::with_isa(threads, isa).unwrap()));
        }
    }
    devices
}

/// The precisions that `device` computes in.
pub(crate) fn precisions(device: &Device) -> Vec<Precision> {
    match device {
        Device::Cpu(cpu) if cpu.isa() == Isa::Avx512Bf16 => vec![Precision::F32, Precision::Bf16],
        _ => vec![Precision::F32],
    }
}

/// Records and runs `pass` in memory that is full of NaN, and returns the values of its result.
pub(crate) fn run(device: &Device, pass: impl for<'e> Fn(&'e Exec<'_>) -> Result<Tensor<'e>> + Sync) -> Result<Vec<f32>> {
    let plan = Plan::record(device, |e| pass(e).map(drop))?;
    let spoil = |e: &Exec<'_>| -> Result<()> { e.alloc([plan.bytes() / 4], DType::F32)?.fill_bytes(0xFF) };
    let mut arena = Arena::new();
    arena.reserve(device, &plan)?;
    arena.run(device, &Plan::record(device, spoil)?, spoil)?;
    arena.run(device, &plan, |e| {
        let result = pass(e)?;
        let mut values = vec![f32::NAN; result.shape().len()];
        result.read_f32(&mut values)?;
        Ok(values)
    })
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
