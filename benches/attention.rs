//! Attention at the shapes of Stable Diffusion, as a share of the multiply-add peak of one core measured in the same breath.
//!
//! `cargo bench --bench attention -- [part of a case name]`. Every round times the peak loop, then the operation, on one
//! thread; the table shows medians over the rounds of the GFLOP/s and of the ratio of the two.

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Instant;
use syntic::Result;
use syntic::device::cpu::vector::{Bf16Kernel, Kernel, Simd, SimdBf16};
use syntic::device::{Arena, Buffer, Cpu, Device, Exec, Plan, Precision};
use syntic::ops::attention::{Attention, Case, Columns, attention, cases};
use syntic::tensor::DType;

/// Seconds that the threads of this process have spent on a core: unlike the time of day, it is not disturbed by neighbours.
fn core_seconds() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let thread = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    match std::fs::read_dir("/proc/self/task") {
        Ok(tasks) => tasks.filter_map(thread).sum::<f64>() * 1e-9,
        Err(_) => START.get_or_init(Instant::now).elapsed().as_secs_f64(),
    }
}

const ROUNDS: usize = 5;

/// Independent multiply-adds in registers: two operations in each lane, four with pairs of bf16.
struct Peak {
    repeats: usize,
}

const CHAINS: usize = 20;

impl Kernel for Peak {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (a, b) = (s.splat(black_box(0.999)), s.splat(black_box(0.001)));
        let mut sums = [a; CHAINS];
        for _ in 0..self.repeats {
            for sum in &mut sums {
                *sum = s.mul_add(*sum, a, b);
            }
        }
        sums.into_iter().map(|sum| s.sum(sum)).sum()
    }
}

impl Bf16Kernel for Peak {
    type Output = f32;
    #[inline(always)]
    fn run<S: SimdBf16>(self, s: S) -> f32 {
        let (a, b) = (s.splat(black_box(0.999)), s.splat(black_box(0.001)));
        let mut sums = [a; CHAINS];
        for _ in 0..self.repeats {
            for sum in &mut sums {
                *sum = s.dot_bf16(*sum, a, b);
            }
        }
        sums.into_iter().map(|sum| s.sum(sum)).sum()
    }
}

/// GFLOP/s of one core.
fn peak(cpu: &Cpu, precision: Precision) -> f64 {
    let repeats = 25_000_000;
    let flops = 2 * repeats * CHAINS * cpu.lanes();
    let start = core_seconds();
    let times = match precision {
        Precision::Bf16 if cpu.vectorise_bf16(Peak { repeats }).map(black_box).is_ok() => 2,
        _ => {
            black_box(cpu.vectorise(Peak { repeats }));
            1
        }
    };
    (times * flops) as f64 / (core_seconds() - start) / 1e9
}

/// The formula with a full matrix of scores, in plain loops.
fn naive(case: &Case, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
    let (d, width) = (case.head_dim, case.heads * case.head_dim);
    let scale = 1.0 / (d as f32).sqrt();
    let mut scores = vec![0.0; case.queries * case.keys];
    for (sample, head) in (0..case.batch).flat_map(|b| (0..case.heads).map(move |h| (b, h))) {
        let row = |length: usize, t: usize| (sample * length + t) * width + head * d;
        for (t, scores) in scores.chunks_exact_mut(case.keys).enumerate() {
            let q = &q[row(case.queries, t)..][..d];
            for (s, score) in scores.iter_mut().enumerate() {
                *score = scale * q.iter().zip(&k[row(case.keys, s)..][..d]).map(|(q, k)| q * k).sum::<f32>();
            }
            let max = scores.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
            scores.iter_mut().for_each(|s| *s = (*s - max).exp());
            let sum: f32 = scores.iter().sum();
            let out = &mut out[row(case.queries, t)..][..d];
            out.fill(0.0);
            for (s, score) in scores.iter().enumerate() {
                out.iter_mut().zip(&v[row(case.keys, s)..][..d]).for_each(|(o, v)| *o += score / sum * v);
            }
        }
    }
}

/// Seeded values in [-1, 1].
fn fill(values: &mut [f32], mut seed: u64) {
    for x in values {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        *x = (seed >> 40) as f32 / (1 << 23) as f32 - 1.0;
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Measured {
    gflops: f64,
    share: f64,
    naive: f64,
}

fn measure(device: &Device, case: &Case, precision: Precision) -> Result<Measured> {
    let Device::Cpu(cpu) = device;
    let width = case.heads * case.head_dim;
    let mut buffers =
        [case.queries, case.keys, case.keys].map(|rows| Buffer::zeros(device, [case.batch, rows, width], DType::F32));
    buffers.iter_mut().enumerate().for_each(|(i, b)| fill(b.f32_mut(), i as u64));
    let [q, k, v] = &buffers;
    let settings = Attention { heads: case.heads, head_dim: case.head_dim, causal: case.causal, kv_rows: None, precision };
    let pass = |exec: &Exec<'_>| -> Result<()> {
        let (q, k, v) = (exec.view(q), exec.view(k), exec.view(v));
        let part = |tensor| Columns { tensor, column: 0 };
        attention(exec, settings, part(&q), part(&k), part(&v))?;
        Ok(())
    };
    let plan = Plan::record(device, pass)?;
    let mut arena = Arena::new();
    arena.run(device, &plan, pass)?;
    let repeats = (2e10 / plan.flops() as f64).ceil().min(2000.0) as usize;
    let (mut gflops, mut shares) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let peak = peak(cpu, precision);
        let start = core_seconds();
        for _ in 0..repeats {
            arena.run(device, &plan, pass)?;
        }
        let speed = plan.flops() as f64 * repeats as f64 / (core_seconds() - start) / 1e9;
        gflops.push(speed);
        shares.push(speed / peak);
    }
    // One head of one sample is enough of the naive version.
    let small = Case { batch: 1, heads: 1, queries: case.queries.min(256), ..*case };
    let mut out = vec![0.0; small.queries * small.head_dim];
    let start = core_seconds();
    naive(&small, q.f32(), k.f32(), v.f32(), &mut out);
    black_box(&out);
    let naive = small.flops() as f64 / (core_seconds() - start) / 1e9;
    Ok(Measured { gflops: median(&mut gflops), share: median(&mut shares), naive })
}

fn main() -> Result<()> {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let device = Device::cpu(1)?;
    println!("{}", device.describe());
    println!("{:<28} {:>5} {:>9} {:>14} {:>14}", "case", "dtype", "GFLOP/s", "share of peak", "naive GFLOP/s");
    for case in cases().iter().filter(|case| case.name.contains(&filter)) {
        for precision in [Precision::F32, Precision::Bf16] {
            let Measured { gflops, share, naive } = measure(&device, case, precision)?;
            println!("{:<28} {:>5} {gflops:>9.1} {:>13.1}% {naive:>14.2}", case.name, precision.name(), 100.0 * share);
        }
    }
    Ok(())
}
