//! The ceiling that products are compared with: multiply-adds on registers alone.

use super::Cpu;
use super::parallel::for_each_task;
use super::vector::{Bf16Kernel, Kernel, Simd, SimdBf16};
use crate::device::Precision;
use std::hint::black_box;
use std::time::Instant;

/// Multiply-adds of each sum in one call: about a quarter of a millisecond.
const TURNS: usize = 1 << 17;

/// Calculates for a while; gives the number of floating-point operations.
struct Peak;

/// With `SUMS` independent sums: for two pipes, twice the latency in cycles.
#[inline(always)]
fn spin<S: Simd, const SUMS: usize>(s: S, multiply_add: impl Fn(S::V, S::V, S::V) -> S::V) -> usize {
    let (a, b) = (s.splat(black_box(0.5)), s.splat(black_box(0.25)));
    let mut sums = [s.splat(0.0); SUMS];
    for _ in 0..TURNS {
        for sum in &mut sums {
            *sum = multiply_add(*sum, a, b);
        }
    }
    black_box(s.sum(sums.into_iter().fold(a, |x, y| s.add(x, y))));
    2 * TURNS * SUMS * S::LANES
}

impl Kernel for Peak {
    type Output = usize;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        spin::<S, 12>(s, |sum, a, b| s.mul_add(sum, a, b))
    }
}

impl Bf16Kernel for Peak {
    type Output = usize;
    #[inline(always)]
    fn run<S: SimdBf16>(self, s: S) -> usize {
        2 * spin::<S, 16>(s, |sum, a, b| s.dot_bf16(sum, a, b))
    }
}

/// FLOP/s of all threads of `cpu` together, two for each multiply-add, measured for about a millisecond.
/// Zero if the processor does not have the instructions.
pub fn peak_flops(cpu: &Cpu, precision: Precision) -> f64 {
    const CALLS: usize = 4;
    let call = || match precision {
        Precision::F32 => cpu.vectorise(Peak),
        Precision::Bf16 => cpu.vectorise_bf16(Peak).unwrap_or(0),
    };
    let start = Instant::now();
    cpu.install(|| {
        for_each_task(CALLS * cpu.threads(), |_| {
            black_box(call());
        });
    });
    let seconds = start.elapsed().as_secs_f64();
    (CALLS * cpu.threads() * call()) as f64 / seconds
}
