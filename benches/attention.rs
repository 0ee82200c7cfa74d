//! Attention at the shapes of Stable Diffusion, as a share of the multiply-add peak of one core measured in the same breath.
//!
//! `cargo bench --bench attention -- [part of a case name]`. Every round measures the peak, then the operation, on one thread;
//! the best of all rounds count, because other work on the machine only ever takes away.

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Instant;
use syntic::Result;
use syntic::device::cpu::peak::peak_flops;
use syntic::device::{Arena, Buffer, Device, Exec, Plan, Precision};
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

struct Measured {
    gflops: f64,
    share: f64,
    naive: f64,
}

fn measure(device: &Device, case: &Case, precision: Precision) -> Result<Measured> {
    let cpu = device.host();
    let width = case.heads * case.head_dim;
    let zeros = |rows| Buffer::try_zeros(device, [case.batch, rows, width], DType::F32);
    let mut buffers = [zeros(case.queries)?, zeros(case.keys)?, zeros(case.keys)?];
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
    let (mut gflops, mut ceiling) = (0f64, 0f64);
    for _ in 0..ROUNDS {
        // Many short looks: one of them is not interrupted.
        ceiling = (0..50).map(|_| peak_flops(cpu, precision) / 1e9).fold(ceiling, f64::max);
        let start = core_seconds();
        for _ in 0..repeats {
            arena.run(device, &plan, pass)?;
        }
        gflops = gflops.max(plan.flops() as f64 * repeats as f64 / (core_seconds() - start) / 1e9);
    }
    // One head of one sample is enough of the naive version.
    let small = Case { batch: 1, heads: 1, queries: case.queries.min(256), ..*case };
    let mut out = vec![0.0; small.queries * small.head_dim];
    let repeats = (5e8 / small.flops() as f64).ceil() as usize;
    let start = core_seconds();
    for _ in 0..repeats {
        naive(&small, q.f32(), k.f32(), v.f32(), &mut out);
        black_box(&out);
    }
    let naive = small.flops() as f64 * repeats as f64 / (core_seconds() - start) / 1e9;
    Ok(Measured { gflops, share: gflops / ceiling, naive })
}

fn main() -> Result<()> {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let device = Device::cpu(1)?;
    let cpu = device.host();
    println!("{}", device.describe());
    println!("{:<28} {:>5} {:>9} {:>14} {:>14}", "case", "dtype", "GFLOP/s", "share of peak", "naive GFLOP/s");
    for case in cases().iter().filter(|case| case.name.contains(&filter)) {
        for precision in [Precision::F32, Precision::Bf16] {
            if peak_flops(cpu, precision) == 0.0 {
                continue; // no such instructions
            }
            let Measured { gflops, share, naive } = measure(&device, case, precision)?;
            println!("{:<28} {:>5} {gflops:>9.1} {:>13.1}% {naive:>14.2}", case.name, precision.name(), 100.0 * share);
        }
    }
    Ok(())
}
