//! What the tests of all operations share: inputs, runs, and how near is near enough.

use crate::device::cpu::Isa;
use crate::device::{Arena, Cpu, Device, Exec, Gpu, Plan, Tensor};
use crate::tensor::{DType, HostTensor};
use crate::{Error, Result};
use std::sync::OnceLock;

/// Values in [-1, 1], different for each seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Every kind of device: CPUs of all instruction sets and the simulator. Tests do not name one. `SYNTIC_TEST_DEVICE` does: with `cuda`
/// or `sim` that is the only one.
pub(crate) fn devices() -> Vec<Device> {
    let cpus = if std::env::var_os("SYNTIC_TEST_DEVICE").is_none() { cpus() } else { Vec::new() };
    cpus.into_iter().chain(gpus()).collect()
}

/// The GPU under test, in each storage type: the simulator, or the first card if that is asked for. A GPU that is not there, or a program
/// without kernels, fails: nothing that runs on a GPU was tested then. The card is opened once.
pub(crate) fn gpus() -> Vec<Device> {
    static CARD: OnceLock<Vec<Device>> = OnceLock::new();
    let both = |open: fn(DType) -> Result<Gpu>| {
        let open = |storage| open(storage).unwrap_or_else(|e| panic!("{e}; {}", e.hint().unwrap_or_default()));
        Vec::from([DType::F16, DType::BF16].map(|storage| Device::Gpu(open(storage))))
    };
    match std::env::var("SYNTIC_TEST_DEVICE").as_deref() {
        Err(_) | Ok("sim") => both(|storage| Gpu::sim(storage, 2)),
        Ok("cuda") => CARD.get_or_init(|| both(|storage| Gpu::cuda(0, storage, 2))).clone(),
        Ok(other) => panic!("SYNTIC_TEST_DEVICE={other}: it is `sim` or `cuda`"),
    }
}

/// Which device, for messages.
pub(crate) fn label(device: &Device) -> String {
    format!("{}, {}", device.describe(), device.storage())
}

/// A CPU of two threads for each instruction set of this machine.
pub(crate) fn cpus() -> Vec<Device> {
    let all = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16];
    all.into_iter().filter(|&isa| isa <= Isa::detect()).map(|isa| Device::Cpu(Cpu::with_isa(2, isa).unwrap())).collect()
}

/// Runs `pass` on `sim`, which finds by itself what is read before it is written and what leaves its tensor; elsewhere twice in memory that
/// is full of NaN: as the program does, with dead tensors' memory used again, and with memory and guards for each tensor, which stay as they
/// were. Both give the same bits. With `SYNTIC_TEST_UNFILLED` the memory is left as the driver gives it and the guards go unseen, for
/// compute-sanitizer's initcheck, to which memory that was filled has been written.
pub(crate) fn run(device: &Device, pass: impl FnMut(&Exec<'_>, &mut Vec<f32>) -> Result<()> + Send) -> Vec<f32> {
    try_run(device, pass).unwrap()
}

/// As [`run`], for passes that may fail. `pass` stores what it computes with [`keep`].
pub(crate) fn try_run(device: &Device, mut pass: impl FnMut(&Exec<'_>, &mut Vec<f32>) -> Result<()> + Send) -> Result<Vec<f32>> {
    let mut out = Vec::new();
    let plan = Plan::record(device, |e| pass(e, &mut out))?;
    let mut arena = Arena::new();
    if matches!(device, Device::Gpu(gpu) if gpu.is_simulated()) {
        arena.run(device, &plan, |e| pass(e, &mut out))?;
        return Ok(out);
    }
    let guarded = plan.guarded();
    let words = guarded.bytes() / size_of::<f32>();
    let filled = std::env::var_os("SYNTIC_TEST_UNFILLED").is_none();
    let fill = |arena: &mut Arena| match filled {
        true => arena.run_once(device, |e| e.alloc([words], DType::F32)?.fill_bytes(Plan::GUARD_BYTE)),
        false => Ok(()),
    };
    fill(&mut arena)?;
    arena.run(device, &guarded, |e| pass(e, &mut out))?;
    if filled {
        let mut memory = vec![0.0; words];
        arena.run_once(device, |e| e.alloc([words], DType::F32)?.read_f32(&mut memory))?;
        guarded.check_guards(bytemuck::cast_slice(&memory));
    }
    let mut packed = Vec::new();
    fill(&mut arena)?;
    arena.run(device, &plan, |e| pass(e, &mut packed))?;
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert!(bits(&out) == bits(&packed), "{}: other values where memory is used again", label(device));
    Ok(out)
}

/// Copies a result out of a running pass.
pub(crate) fn keep(tensor: &Tensor<'_>, out: &mut Vec<f32>) -> Result<()> {
    out.resize(tensor.shape().len(), f32::NAN);
    tensor.read_f32(out)
}

/// The bytes of f32 weights.
pub(crate) fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// A weight of `shape`; only declared without `bytes`.
pub(crate) fn weight<'a>(name: &str, shape: &[usize], bytes: Option<&'a [u8]>) -> HostTensor<'a> {
    HostTensor { name: name.into(), shape: shape.to_vec(), dtype: DType::F32, bytes, store: None }
}

/// x as a number of type `dtype`.
pub(crate) fn round_to(dtype: DType, x: f32) -> f32 {
    dtype.round(x)
}

/// Values as they come out of a tensor of the device that they were put into.
pub(crate) fn stored(device: &Device, values: &[f32]) -> Vec<f32> {
    values.iter().map(|&x| round_to(device.storage(), x)).collect()
}

/// Bits of the mantissa of a type, the one that is not written included.
fn mantissa(dtype: DType) -> i32 {
    match dtype {
        DType::F16 => 11,
        DType::BF16 => 8,
        _ => 24,
    }
}

/// As [`assert_within`], in the storage type of the device, to which `plain` is rounded here.
pub(crate) fn assert_close(device: &Device, what: &str, actual: &[f32], plain: &[f32], exact: &[f64]) {
    let what = format!("{what} on {}", label(device));
    assert_within(&what, actual, &stored(device, plain), exact, mantissa(device.storage()));
}

/// Fails unless the error of `actual` against `exact` is at most twice that of `plain`, a version of the same precision in plain
/// loops, and one rounding of the largest value to `bits` of mantissa.
pub(crate) fn assert_within(what: &str, actual: &[f32], plain: &[f32], exact: &[f64], bits: i32) {
    assert_eq!((actual.len(), plain.len()), (exact.len(), exact.len()), "{what}");
    let error = |x: &f32, e: &f64| (f64::from(*x) - e).abs();
    let allowed = plain.iter().zip(exact).map(|(x, e)| error(x, e)).fold(0.0, f64::max);
    let largest = exact.iter().fold(0f64, |a, e| a.max(e.abs()));
    let limit = 2.0 * allowed + largest * 2f64.powi(-bits);
    for (i, (x, e)) in actual.iter().zip(exact).enumerate() {
        assert!(error(x, e) <= limit, "{what}: {x} for {e} at {i}: off by {}, {limit} allowed", error(x, e));
    }
}

/// Fails unless `result` is a shape error whose text holds `part`.
pub(crate) fn assert_shape_error<T>(result: Result<T>, part: &str) {
    match result {
        Err(Error::Shape { message, .. }) if message.contains(part) => {}
        Err(other) => panic!("expected a shape error with `{part}`, not: {other}"),
        Ok(_) => panic!("expected a shape error with `{part}`"),
    }
}
