//! Single operations on a GPU, at the shapes of a full-size network: `syntic bench kernels`.
//!
//! Each is checked first: the largest difference from the CPU's result on the same values is at most [`ROUNDINGS`] roundings of the
//! largest value to the storage type. Then it is timed: as many sets of random inputs as fill the second-level cache more than twice
//! have their turns in one graph, with results that lie apart, and a time is that of a replay, by the GPU's own events, over the sets.

mod problems;

use super::{Ceilings, Table, Times};
use crate::device::{Arena, Cpu, Device, Exec, Gpu, Graph, Plan};
use crate::tensor::DType;
use crate::{Error, Result, VERSION};
use problems::Problem;
pub(super) use problems::{Pass, product};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Allowed between the GPU and the CPU: GEGLU rounds its two factors and their product, and stores a residual's sum after that.
const ROUNDINGS: f64 = 4.0;

/// Bytes counted in a rotation, over those of the cache: group norm counts its input twice, so it rotates past twice the cache.
const ROTATION: u64 = 3;

/// Most sets of inputs.
const MOST_SETS: u64 = 1024;

/// Replays until two windows of this length have medians that differ by less than `STABLE`, or until the limit.
const WARM_WINDOW: Duration = Duration::from_millis(50);
const WARM_LIMIT: Duration = Duration::from_millis(1000);
const STABLE: f64 = 0.01;

/// Time for a case, and the fewest replays, however long they take.
const BUDGET: Duration = Duration::from_millis(400);
const FEWEST_REPLAYS: usize = 15;

/// What a report of the simulator says.
pub(super) const SIMULATED: &str = "simulated: times mean nothing";

/// One operation at one shape: what other programs need to know to do the same.
#[derive(Clone, Debug, Serialize)]
pub struct ProblemRow {
    /// The operation: "gemm_nt".
    pub op: &'static str,
    /// Where the shape occurs: "ff2 64x64".
    pub case: String,
    /// Storage type.
    pub dtype: &'static str,
    /// Extents by name.
    pub shape: BTreeMap<&'static str, usize>,
    /// With a bias, or a shift.
    pub bias: bool,
    /// Activation: "none", "silu", ...
    pub activation: &'static str,
    /// With a residual.
    pub residual: bool,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes that are read and written.
    pub bytes: u64,
}

/// One operation at one shape, measured.
#[derive(Clone, Debug, Serialize)]
pub struct KernelRow {
    /// What was done.
    #[serde(flatten)]
    pub problem: ProblemRow,
    /// Entries of the kernels launched, in order.
    pub kernels: Vec<&'static str>,
    /// Largest difference from the CPU's result.
    pub error: f64,
    /// How large it may be.
    pub allowed: f64,
    /// Sets of inputs that had their turns.
    pub sets: usize,
    /// Replays of all of them that were timed.
    pub replays: usize,
    /// Median time, microseconds.
    pub median_us: f64,
    /// 10th percentile, microseconds.
    pub low_us: f64,
    /// 90th percentile, microseconds.
    pub high_us: f64,
    /// The share of it that the ceiling of this run which binds it would take.
    pub share: f64,
}

/// The cases, with nothing measured.
#[derive(Clone, Debug, Serialize)]
pub struct ProblemList {
    /// Version of syntic.
    pub version: &'static str,
    /// The cases.
    pub results: Vec<ProblemRow>,
}

impl Table for ProblemList {
    fn title(&self) -> String {
        format!("syntic {}, cases of `syntic bench kernels`", self.version)
    }

    fn columns(&self) -> Vec<&'static str> {
        vec!["op", "case", "dtype", "GFLOP", "MB"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let cells = |row: &ProblemRow| {
            let counts = [row.flops as f64 / 1e9, row.bytes as f64 / 1e6].map(|count| format!("{count:.3}"));
            [vec![row.op.to_string(), row.case.clone(), row.dtype.to_string()], counts.to_vec()].concat()
        };
        self.results.iter().map(cells).collect()
    }
}

/// Everything that one `syntic bench kernels` measured.
#[derive(Clone, Debug, Serialize)]
pub struct KernelReport {
    /// Version of syntic.
    pub version: &'static str,
    /// The GPU.
    pub device: String,
    /// What to know of the times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
    /// Measured in this run, after the cases.
    pub ceilings: Ceilings,
    /// The cases.
    pub results: Vec<KernelRow>,
}

impl Table for KernelReport {
    fn title(&self) -> String {
        let Ceilings { matmul_tflops, copy_gbs } = self.ceilings;
        let note = self.note.map_or(String::new(), |note| format!(", {note}"));
        format!(
            "syntic {}, {}{note}; in this run: product {matmul_tflops:.1} TFLOP/s, copy {copy_gbs:.0} GB/s",
            self.version, self.device
        )
    }

    fn columns(&self) -> Vec<&'static str> {
        vec!["op", "case", "dtype", "median us", "low us", "high us", "GB/s", "TFLOP/s", "share", "error", "allowed", "kernels"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let cells = |row: &KernelRow| {
            let problem = &row.problem;
            let mut cells = vec![problem.op.to_string(), problem.case.clone(), problem.dtype.to_string()];
            cells.extend([row.median_us, row.low_us, row.high_us].map(|us| format!("{us:.2}")));
            let per_us = |count: u64| count as f64 / row.median_us;
            cells.extend([format!("{:.1}", per_us(problem.bytes) / 1e3), format!("{:.2}", per_us(problem.flops) / 1e6)]);
            cells.push(format!("{:.3}", row.share));
            cells.extend([row.error, row.allowed].map(|error| format!("{error:.1e}")));
            cells.push(row.kernels.join(" "));
            cells
        };
        self.results.iter().map(cells).collect()
    }
}

/// What to measure.
#[derive(Debug)]
pub struct Kernels {
    problems: Vec<Problem>,
    dtype: Option<DType>,
}

impl Kernels {
    /// All cases, or those that `only` names: `OP`, `OP/CASE` or `OP/CASE/DTYPE`.
    ///
    /// # Errors
    /// [`Error::Usage`] with the list of cases, if there is no such one.
    pub fn choose(only: Option<&str>) -> Result<Kernels> {
        let mut problems = problems::all();
        let Some(only) = only else { return Ok(Kernels { problems, dtype: None }) };
        let mut parts = only.split('/');
        let (op, case, dtype, more) = (parts.next(), parts.next(), parts.next(), parts.next());
        let stored = dtype.map(|name| [DType::F16, DType::BF16].into_iter().find(|dtype| dtype.name() == name));
        let names: String = problems.iter().map(|problem| format!("\n  {}", problem.name())).collect();
        problems.retain(|problem| op == Some(problem.op) && case.is_none_or(|case| case == problem.case));
        match stored {
            Some(None) => Err(Error::usage(format!("--only {only}: a GPU stores f16 or bf16"), "OP, OP/CASE or OP/CASE/DTYPE")),
            _ if problems.is_empty() || more.is_some() => {
                Err(Error::usage(format!("--only {only}: no such case; the cases are{names}"), "OP, OP/CASE or OP/CASE/DTYPE"))
            }
            stored => Ok(Kernels { problems, dtype: stored.flatten() }),
        }
    }

    /// The storage type, if the choice of cases names one.
    pub fn dtype(&self) -> Option<DType> {
        self.dtype
    }

    /// The cases as they are for storage type `stored`; nothing is measured, and no GPU is needed.
    pub fn list(&self, stored: DType) -> ProblemList {
        ProblemList { version: VERSION, results: self.problems.iter().map(|problem| row(problem, stored)).collect() }
    }

    /// Checks and times them on a GPU. On the simulator, one replay of two sets: all is done that is done on a card.
    ///
    /// # Errors
    /// [`Error::Usage`] on a CPU; [`Error::Numeric`] with operation and case if a result is wrong; errors of the GPU.
    pub fn measure(&self, device: &Device) -> Result<KernelReport> {
        let Device::Gpu(gpu) = device else {
            return Err(Error::usage(
                "a CPU runs none of the kernels of a GPU",
                "use --device cuda, or sim to try it without a GPU",
            ));
        };
        let mut results = self.problems.iter().map(|problem| measure(problem, device, gpu)).collect::<Result<Vec<_>>>()?;
        // After the cases, so that a profiler which counts launches meets theirs first.
        let ceilings = Ceilings::measure(device, gpu)?;
        for KernelRow { problem, median_us, share, .. } in &mut results {
            *share = ceilings.share(problem.flops, problem.bytes, *median_us / 1e6);
        }
        let note = gpu.is_simulated().then_some(SIMULATED);
        Ok(KernelReport { version: VERSION, device: device.describe(), note, ceilings, results })
    }
}

fn row(problem: &Problem, stored: DType) -> ProblemRow {
    ProblemRow {
        op: problem.op,
        case: problem.case.clone(),
        dtype: stored.name(),
        shape: problem.shape.clone(),
        bias: problem.bias,
        activation: problem.activation,
        residual: problem.residual,
        flops: problem.flops,
        bytes: (problem.bytes)(stored.size()),
    }
}

fn measure(problem: &Problem, device: &Device, gpu: &Gpu) -> Result<KernelRow> {
    let storage = gpu.storage();
    let described = row(problem, storage);
    let bytes = described.bytes;
    let first = problem.prepare(device, 0)?;
    let kernels = Plan::record(device, |exec| first(exec).map(drop))?.launches().to_vec();
    let (error, allowed) = check(problem, device, gpu.host(), storage, &first)?;
    let count = ((ROTATION * gpu.cache_bytes() as u64).div_ceil(bytes) + 1).clamp(2, MOST_SETS);
    let others = (1..count).map(|seed| problem.prepare(device, seed));
    let sets = std::iter::once(Ok(first)).chain(others).collect::<Result<Vec<Pass>>>()?;
    let times = time_in_turns(device, gpu, &sets)?;
    let us = |seconds: f64| seconds / sets.len() as f64 * 1e6;
    Ok(KernelRow {
        problem: described,
        kernels,
        error,
        allowed,
        sets: sets.len(),
        replays: times.len(),
        median_us: us(times.median()),
        low_us: us(times.low()),
        high_us: us(times.high()),
        // Known when the ceilings are.
        share: f64::NAN,
    })
}

/// The largest difference between the results of both devices, and the one that is allowed.
fn check(problem: &Problem, device: &Device, host: &Cpu, storage: DType, pass: &Pass) -> Result<(f64, f64)> {
    let cpu = Device::Cpu(host.clone());
    let (found, expected) = (result(device, pass)?, result(&cpu, &problem.prepare_rounded(&cpu, 0, storage)?)?);
    compare(&found, &expected, storage)
        .map_err(|message| Error::Numeric { op: problem.op, message: format!("{}, {storage}: {message}", problem.case) })
}

fn result(device: &Device, pass: &Pass) -> Result<Vec<f32>> {
    Arena::new().run_once(device, |exec| {
        let y = pass(exec)?;
        let mut values = vec![f32::NAN; y.shape().len()];
        y.read_f32(&mut values)?;
        Ok(values)
    })
}

fn compare(found: &[f32], expected: &[f32], storage: DType) -> std::result::Result<(f64, f64), String> {
    // Half the distance between neighbours, relative to a value; and the value below which that no longer shrinks.
    let (rounding, least) = match storage {
        DType::F16 => (2f64.powi(-11), 2f64.powi(-14)),
        _ => (2f64.powi(-8), 2f64.powi(-126)),
    };
    let largest = expected.iter().fold(least, |largest, &x| largest.max(f64::from(x).abs()));
    let (mut error, allowed) = (0f64, ROUNDINGS * rounding * largest);
    for (i, (&x, &y)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(x) - f64::from(y)).abs();
        // Not `>`, which NaN would pass.
        if !matches!(difference.partial_cmp(&allowed), Some(std::cmp::Ordering::Less | std::cmp::Ordering::Equal)) {
            return Err(format!("{x} at {i}, where the CPU has {y}: off by {difference:.3e}, {allowed:.3e} allowed"));
        }
        error = error.max(difference);
    }
    Ok((error, allowed))
}

/// Seconds of replays in which each of `sets` has its turn.
pub(super) fn time_in_turns(device: &Device, gpu: &Gpu, sets: &[Pass]) -> Result<Times> {
    let rotation = |exec: &Exec<'_>| -> Result<()> {
        // Kept, so that results lie apart.
        let results = sets.iter().map(|pass| pass(exec)).collect::<Result<Vec<_>>>()?;
        drop(results);
        Ok(())
    };
    let graph = Arena::new().capture(device, &Plan::record(device, rotation)?, rotation)?;
    if gpu.is_simulated() {
        return window(&graph, Duration::ZERO, 1);
    }
    warm_up(&graph)?;
    window(&graph, BUDGET, FEWEST_REPLAYS)
}

fn warm_up(graph: &Graph) -> Result<()> {
    let (start, mut before) = (Instant::now(), f64::NAN);
    while start.elapsed() < WARM_LIMIT {
        let now = window(graph, WARM_WINDOW, 1)?.median();
        if (now - before).abs() < STABLE * before {
            break;
        }
        before = now;
    }
    Ok(())
}

/// Replays for as long as `budget`, but `fewest` times at least.
fn window(graph: &Graph, budget: Duration, fewest: usize) -> Result<Times> {
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < fewest || start.elapsed() < budget {
        times.push(graph.time()?.as_secs_f64());
    }
    Ok(Times::from_seconds(times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_of_more_than_the_allowed_roundings_is_refused_and_so_is_nan() {
        let expected = [1.0, -2.0, 0.5];
        let step = 2.0 * 2f32.powi(-11);
        let compare_to = |x| compare(&[1.0, -2.0, x], &expected, DType::F16);
        assert_eq!(compare_to(0.5 + 4.0 * step), Ok((f64::from(4.0 * step), f64::from(4.0 * step))));
        for wrong in [0.5 + 5.0 * step, f32::NAN, f32::INFINITY] {
            let error = compare_to(wrong).unwrap_err();
            assert!(error.contains("at 2"), "{error}");
        }
        assert!(compare(&[f32::NAN], &[f32::NAN], DType::BF16).is_err());
        assert!(compare(&[f32::INFINITY], &[f32::INFINITY], DType::BF16).is_err());
    }

    #[test]
    fn cases_are_chosen_by_name() {
        let all = Kernels::choose(None).unwrap().problems;
        let mut names: Vec<String> = all.iter().map(Problem::name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len(), "names are unique");
        for name in names {
            let one = Kernels::choose(Some(&format!("{name}/bf16"))).unwrap();
            assert_eq!((one.problems.len(), one.dtype()), (1, Some(DType::BF16)), "{name}");
        }
        assert!(Kernels::choose(Some("softmax")).unwrap().problems.len() > 1);
        for wrong in ["", "gemm", "gemm_nt/", "gemm_nt/time/f32", "gemm_nt/time/f16/", "softmax/time"] {
            assert!(matches!(Kernels::choose(Some(wrong)), Err(Error::Usage { .. })), "{wrong}");
        }
    }
}
