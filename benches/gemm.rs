//! Linear layers and convolutions beside the multiply-add peak and other matrix products, measured in turns in the same run.
//!
//! `cargo bench --bench gemm -- [--threads N] [--rounds N] [--alone] [NAME]...` prints one row for each case whose name contains a NAME.
//! A time is the fastest of all rounds, because other work on the machine only ever adds to it; the peak likewise. The opponents
//! multiply matrices of the sizes of the case that lie ready in memory, without gathering windows, bias or activation.
//! Operations are counted as the direct sum has them: convolutions by Winograd's algorithm pass the peak.

use std::time::Instant;
use syntic::device::cpu::peak::peak_flops;
use syntic::device::{Arena, Buffer, Cpu, Device, Exec, Plan, Precision, Tensor};
use syntic::ops::conv::{self, Conv2d, Fused, conv2d};
use syntic::ops::gemm::{self as linear_ops, Activation, Linear, linear};
use syntic::tensor::{DType, Shape};
use syntic::weights::HostTensor;
use syntic::{Error, Result};

type Pass<'a> = Box<dyn Fn(&Exec<'_>) -> Result<()> + Sync + 'a>;

/// One opponent on one case: what is run in a round, and the shortest time so far.
struct Runner<'a> {
    run: Box<dyn FnMut() -> Result<()> + 'a>,
    best: f64,
}

impl<'a> Runner<'a> {
    fn new(run: impl FnMut() -> Result<()> + 'a) -> Runner<'a> {
        Runner { run: Box::new(run), best: f64::INFINITY }
    }

    /// Runs for about `seconds`, at least once.
    fn round(&mut self, seconds: f64) -> Result<()> {
        let start = Instant::now();
        while start.elapsed().as_secs_f64() < seconds {
            let at = Instant::now();
            (self.run)()?;
            self.best = self.best.min(at.elapsed().as_secs_f64());
        }
        Ok(())
    }
}

fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

struct Bench {
    device: Device,
    cpu: Cpu,
    rounds: usize,
    /// Without opponents.
    alone: bool,
}

impl Bench {
    fn case(&self, name: &str, flops: u64, product: [usize; 3], passes: [Option<Pass<'_>>; 2]) -> Result<()> {
        let [m, k, n] = product;
        let of = |len: usize| if self.alone { 0 } else { len };
        let (a, b) = (noise(1, of(m * k)), noise(2, of(k * n)));
        let (mut c, mut d) = (vec![0f32; of(m * n)], vec![0f32; of(m * n)]);
        let mut arenas = [Arena::new(), Arena::new()];
        let mut runners: Vec<Runner<'_>> = Vec::new();
        for (pass, arena) in passes.into_iter().zip(&mut arenas) {
            runners.push(match pass {
                Some(pass) => {
                    let plan = Plan::record(&self.device, |e| pass(e))?;
                    Runner::new(move || arena.run(&self.device, &plan, |e| pass(e)))
                }
                None => Runner::new(|| Ok(())),
            });
        }
        runners.push(Runner::new(|| {
            if self.alone {
                return Ok(());
            }
            // SAFETY: the extents and strides are those of the three vectors.
            unsafe {
                let (k1, n1) = (k as isize, n as isize);
                matrixmultiply::sgemm(m, k, n, 1.0, a.as_ptr(), k1, 1, b.as_ptr(), n1, 1, 0.0, c.as_mut_ptr(), n1, 1);
            }
            Ok(())
        }));
        runners.push(Runner::new(|| {
            if self.alone {
                return Ok(());
            }
            let threads = match self.cpu.threads() {
                1 => gemm::Parallelism::None,
                threads => gemm::Parallelism::Rayon(threads),
            };
            // SAFETY: the extents and strides are those of the three vectors.
            unsafe {
                let (k1, n1, d) = (k as isize, n as isize, d.as_mut_ptr());
                gemm::gemm(
                    m,
                    n,
                    k,
                    d,
                    1,
                    n1,
                    false,
                    a.as_ptr(),
                    1,
                    k1,
                    b.as_ptr(),
                    1,
                    n1,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    threads,
                );
            }
            Ok(())
        }));
        let mut peak = [0f64; 2];
        for _ in 0..self.rounds {
            for runner in &mut runners {
                for (peak, precision) in peak.iter_mut().zip([Precision::F32, Precision::Bf16]) {
                    *peak = peak.max(peak_flops(&self.cpu, precision));
                }
                runner.round(if self.alone { 0.1 } else { 0.02 })?;
            }
        }
        let rate: Vec<f64> = runners.iter().map(|r| flops as f64 / r.best / 1e9).collect();
        println!(
            "| {name} | {m} x {k} x {n} | {:.0} | {:.2} | {:.0} | {:.2} | {:.0} | {:.0} |",
            rate[0],
            rate[0] / peak[0] * 1e9,
            rate[1],
            rate[1] / peak[1] * 1e9,
            rate[2],
            rate[3]
        );
        Ok(())
    }

    fn linear(&self, case: &linear_ops::Case) -> Result<()> {
        let columns = case.outputs * if case.activation == Activation::Geglu { 2 } else { 1 };
        let (weight, bias) = (noise(3, columns * case.inputs), noise(4, columns));
        let x = Buffer::from_f32(&self.device, [case.rows, case.inputs], DType::F32, &noise(5, case.rows * case.inputs))?;
        let residual = noise(6, case.rows * case.outputs);
        let residual = Buffer::from_f32(&self.device, [case.rows, case.outputs], DType::F32, &residual)?;
        let pass = |precision| -> Result<Option<Pass<'_>>> {
            let weight = host(&weight, &[columns, case.inputs]);
            let bias = Some(host(&bias, &[columns]));
            let layer = match case.activation {
                Activation::Geglu => Linear::prepare_geglu(&self.device, precision, weight, bias),
                _ => Linear::prepare(&self.device, precision, &[(weight, bias)]),
            };
            let Some(layer) = supported(layer)? else { return Ok(None) };
            let (x, residual) = (&x, &residual);
            Ok(Some(Box::new(move |e| {
                let residual = case.residual.then(|| e.view(residual));
                linear(e, &layer, &e.view(x), case.activation, residual.as_ref()).map(drop)
            })))
        };
        let passes = [pass(Precision::F32)?, pass(Precision::Bf16)?];
        self.case(&format!("linear {}", case.name), case.flops(), [case.rows, case.inputs, columns], passes)
    }

    fn conv(&self, case: &conv::Case) -> Result<()> {
        let ([height, width], [c1, c2], k) = (case.size, case.channels, case.kernel);
        let weight = noise(3, case.outputs * (c1 + c2) * k * k);
        let image =
            |seed, shape: [usize; 4]| Buffer::from_f32(&self.device, shape, DType::F32, &noise(seed, Shape::from(shape).len()));
        let (x, skip) = (image(5, [case.batch, height, width, c1])?, image(6, [case.batch, height, width, c2])?);
        let residual = image(7, [case.batch, case.result()[0], case.result()[1], case.outputs])?;
        let pass = |precision| -> Result<Option<Pass<'_>>> {
            let weight = host(&weight, &[case.outputs, c1 + c2, k, k]);
            let layer = Conv2d::prepare(&self.device, precision, weight, None, case.stride, case.padding);
            let Some(layer) = supported(layer)? else { return Ok(None) };
            let (x, skip, residual) = (&x, &skip, &residual);
            Ok(Some(Box::new(move |e| {
                let optional = |wanted: bool, buffer| -> Option<Tensor<'_>> { wanted.then(|| e.view(buffer)) };
                let (skip, residual) = (optional(c2 > 0, skip), optional(case.residual, residual));
                let fused =
                    Fused { skip: skip.as_ref(), upsample: case.upsample, channel_bias: None, residual: residual.as_ref() };
                conv2d(e, &layer, &e.view(x), fused).map(drop)
            })))
        };
        let passes = [pass(Precision::F32)?, pass(Precision::Bf16)?];
        self.case(&format!("conv {}", case.name), case.flops(), case.product(), passes)
    }
}

fn host<'a>(values: &'a [f32], shape: &[usize]) -> HostTensor<'a> {
    HostTensor {
        name: "weight".into(),
        shape: shape.into(),
        dtype: DType::F32,
        bytes: Some(bytemuck::cast_slice(values)),
        store: None,
    }
}

/// A layer, or nothing if the processor has no bf16.
fn supported<T>(layer: Result<T>) -> Result<Option<T>> {
    match layer {
        Ok(layer) => Ok(Some(layer)),
        Err(Error::Usage { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn main() -> Result<()> {
    let (mut threads, mut rounds, mut alone, mut names) = (1, 5, false, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = |default| args.next().and_then(|n| n.parse().ok()).unwrap_or(default);
        match arg.as_str() {
            "--bench" => {}
            "--alone" => alone = true,
            "--threads" => threads = number(1),
            "--rounds" => rounds = number(5),
            _ => names.push(arg),
        }
    }
    let device = Device::cpu(threads)?;
    let cpu = device.host().clone();
    println!(
        "{}; peaks {:.0} and {:.0} GFLOP/s\n",
        device.describe(),
        peak_flops(&cpu, Precision::F32) / 1e9,
        peak_flops(&cpu, Precision::Bf16) / 1e9
    );
    println!(
        "| case | M x K x N | f32 GFLOP/s | share of peak | bf16 GFLOP/s | share of peak | matrixmultiply | gemm |\n|---|---|---|---|---|---|---|---|"
    );
    let bench = Bench { device, cpu, rounds, alone };
    let wanted = |name: String| names.is_empty() || names.iter().any(|n| name.contains(n));
    for case in linear_ops::cases().iter().filter(|c| wanted(format!("linear {}", c.name))) {
        bench.linear(case)?;
    }
    for case in conv::cases().iter().filter(|c| wanted(format!("conv {}", c.name))) {
        bench.conv(case)?;
    }
    Ok(())
}
