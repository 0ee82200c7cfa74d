//! Measuring: warm-up, repetitions, median and spread, rates from counted operations, peak memory.

mod ceilings;
mod kernels;
mod parts;
pub mod predict;
mod profile;
mod stages;
mod table;

pub use ceilings::Ceilings;
pub use kernels::{KernelReport, KernelRow, Kernels, ProblemList, ProblemRow};
pub use parts::{Case, Measured, Part, measure};
pub use profile::{OpTotal, Profiler};
pub use stages::{StageReport, StageRow, Stages};
pub use table::{Format, Table, render};

use crate::Result;
use crate::rng::Philox;
use serde::Serialize;
use std::time::Instant;

/// How often to run something.
#[derive(Clone, Copy, Debug)]
pub struct Repeat {
    /// Runs that are not counted, first.
    pub warmup: usize,
    /// Runs that are.
    pub reps: usize,
}

/// One measured case.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What ran: "unet 512x512 batch 1 guidance".
    pub case: String,
    /// Precision of the products.
    pub dtype: String,
    /// Counted runs.
    pub reps: usize,
    /// Median time of a run, seconds.
    pub median_s: f64,
    /// Fastest run, seconds.
    pub min_s: f64,
    /// Slowest run, seconds.
    pub max_s: f64,
    /// Operations of one run, GFLOP (two for each multiply-add).
    pub gflop: f64,
    /// GFLOP/s at the median.
    pub gflop_per_s: f64,
    /// Planned memory of activations, MiB.
    pub arena_mib: f64,
    /// Largest resident memory of the process so far, MiB; absent where the system does not tell.
    pub peak_mib: Option<f64>,
    /// Images a second at the median, for cases that make images.
    pub images_per_s: Option<f64>,
}

/// Everything that one `syntic bench` measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of syntic.
    pub version: String,
    /// Device, threads, instruction set.
    pub device: String,
    /// Model folder or id.
    pub model: String,
    /// The cases.
    pub results: Vec<Row>,
}

/// Times of repeated runs, seconds, sorted.
#[derive(Clone, Debug)]
pub struct Times(Vec<f64>);

impl Times {
    /// Runs `work` as often as asked and keeps the times of the counted runs.
    pub fn measure(repeat: Repeat, mut work: impl FnMut() -> Result<()>) -> Result<Times> {
        for _ in 0..repeat.warmup {
            work()?;
        }
        let mut times = Vec::with_capacity(repeat.reps);
        for _ in 0..repeat.reps.max(1) {
            let start = Instant::now();
            work()?;
            times.push(start.elapsed().as_secs_f64());
        }
        Ok(Times::from_seconds(times))
    }

    fn from_seconds(mut times: Vec<f64>) -> Times {
        times.sort_by(f64::total_cmp);
        Times(times)
    }

    /// The middle one; the mean of the two middle ones for an even count.
    pub fn median(&self) -> f64 {
        let n = self.0.len();
        (self.0[(n - 1) / 2] + self.0[n / 2]) / 2.0
    }

    /// The 10th percentile.
    pub fn low(&self) -> f64 {
        self.0[self.0.len() / 10]
    }

    /// The 90th percentile.
    pub fn high(&self) -> f64 {
        self.0[self.0.len() - 1 - self.0.len() / 10]
    }

    /// Counted runs.
    #[allow(clippy::len_without_is_empty)] // there is always one
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Builds the row of a case from its times and counts.
    pub fn row(&self, case: String, dtype: &str, flops: u64, arena_bytes: usize, images: Option<usize>) -> Row {
        const MIB: f64 = 1024.0 * 1024.0;
        let (median, gflop) = (self.median(), flops as f64 / 1e9);
        Row {
            case,
            dtype: dtype.to_string(),
            reps: self.0.len(),
            median_s: median,
            min_s: self.0[0],
            max_s: self.0[self.0.len() - 1],
            gflop,
            gflop_per_s: gflop / median,
            arena_mib: arena_bytes as f64 / MIB,
            peak_mib: peak_memory().map(|bytes| bytes as f64 / MIB),
            images_per_s: images.map(|n| n as f64 / median),
        }
    }
}

/// Seeded normals: real networks never see zeros.
fn normals(seed: u64, len: usize) -> Vec<f32> {
    let mut values = vec![0.0; len];
    Philox::new(seed).fill_normal(0, &mut values);
    values
}

/// Largest resident set of this process, bytes, where the system tells (`/proc/self/status`, VmHWM).
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Times::from_seconds(vec![3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Times::from_seconds(vec![4.0, 1.0, 2.0, 9.0]).median(), 3.0);
        let times = Times::from_seconds((0..20).rev().map(f64::from).collect());
        assert_eq!((times.low(), times.high(), Times::from_seconds(vec![5.0]).high()), (2.0, 17.0, 5.0));
    }

    #[test]
    fn warm_up_runs_are_not_counted() {
        let mut runs = 0;
        let times = Times::measure(Repeat { warmup: 2, reps: 3 }, || {
            runs += 1;
            Ok(())
        });
        assert_eq!((times.unwrap().0.len(), runs), (3, 5));
    }

    #[test]
    fn rates_come_from_counts() {
        let row = Times::from_seconds(vec![0.5]).row("x".into(), "f32", 1_000_000_000, 1 << 20, Some(2));
        assert_eq!((row.gflop, row.gflop_per_s, row.arena_mib, row.images_per_s), (1.0, 2.0, 1.0, Some(4.0)));
    }
}
