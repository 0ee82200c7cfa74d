use super::*;
use crate::device::Device;
use crate::device::Plan;
use crate::ops::testing::{assert_shape_error, assert_within, cpus, keep, noise, run, try_run};
use half::bf16;

/// A case with its place in fused projections and its values.
#[derive(Clone)]
struct Input {
    case: Case,
    precision: Precision,
    kv_rows: Option<Vec<usize>>,
    /// Samples of keys and values.
    pairs: usize,
    /// Channels of a row and first channel, for q, k and v.
    columns: [(usize, usize); 3],
    values: [Vec<f32>; 3],
}

impl Input {
    /// Noise in separate tensors of exactly the needed width.
    fn noise(case: Case) -> Input {
        Input::fused(case, [0; 3], [0; 3])
    }

    /// Noise in wider rows.
    fn fused(case: Case, before: [usize; 3], after: [usize; 3]) -> Input {
        let width = case.heads * case.head_dim;
        let columns = [0, 1, 2].map(|i| (before[i] + width + after[i], before[i]));
        let rows = [case.queries, case.keys, case.keys];
        // Scores of a few units: a softmax that is neither flat nor a single peak.
        let values =
            [0, 1, 2].map(|i| noise(i as u64 + 7, case.batch * rows[i] * columns[i].0).iter().map(|x| 2.5 * x).collect());
        Input { case, precision: Precision::F32, kv_rows: None, pairs: case.batch, columns, values }
    }

    fn pass<'e>(&self, exec: &'e Exec<'_>) -> Result<Tensor<'e>> {
        let Case { batch, queries, keys, heads, head_dim, causal, .. } = self.case;
        let shapes = [[batch, queries], [self.pairs, keys], [self.pairs, keys]];
        let [q, k, v] = [0, 1, 2].map(|i| exec.input([shapes[i][0], shapes[i][1], self.columns[i].0], &self.values[i]));
        let (q, k, v) = (q?, k?, v?);
        let settings = Attention { heads, head_dim, causal, kv_rows: self.kv_rows.as_deref(), precision: self.precision };
        let part = |tensor, i: usize| Columns { tensor, column: self.columns[i].1 };
        attention(exec, settings, part(&q, 0), part(&k, 1), part(&v, 2))
    }

    fn run(&self, device: &Device) -> Vec<f32> {
        run(device, |exec, out| keep(&self.pass(exec)?, out))
    }

    /// The formula, in f64 or in plain f32 loops, with operands of the products rounded to the precision of the case.
    fn formula<F: Float>(&self) -> Vec<F> {
        let Case { batch, queries, keys, heads, head_dim: d, causal, .. } = self.case;
        let round = |x: F| if self.precision == Precision::Bf16 { x.through_bf16() } else { x };
        let scale = F::from(1.0) / F::from(d as f32).sqrt();
        let mut out = vec![F::from(0.0); batch * queries * heads * d];
        for (b, t, h) in (0..batch).flat_map(|b| (0..queries).flat_map(move |t| (0..heads).map(move |h| (b, t, h)))) {
            let pair = self.kv_rows.as_ref().map_or(b, |rows| rows[b]);
            let at =
                |i: usize, row: usize, c: usize| F::from(self.values[i][row * self.columns[i].0 + self.columns[i].1 + h * d + c]);
            let seen = if causal { keys.min(t + 1) } else { keys };
            let dot = |s: usize| {
                (0..d).fold(F::from(0.0), |sum, c| sum + round(at(0, b * queries + t, c)) * round(at(1, pair * keys + s, c)))
            };
            let scores: Vec<F> = (0..seen).map(|s| dot(s) * scale).collect();
            let max = scores.iter().fold(scores[0], |a, &b| if b > a { b } else { a });
            let weights: Vec<F> = scores.iter().map(|&s| (s - max).exp()).collect();
            let sum = weights.iter().fold(F::from(0.0), |a, &b| a + b);
            for c in 0..d {
                let value = (0..seen).fold(F::from(0.0), |acc, s| acc + round(weights[s]) * round(at(2, pair * keys + s, c)));
                out[((b * queries + t) * heads + h) * d + c] = value / sum;
            }
        }
        out
    }

    fn check(&self, device: &Device) {
        let exact = Input { precision: Precision::F32, ..self.clone() }.formula::<f64>();
        let bits = if self.precision == Precision::Bf16 { 9 } else { 24 };
        let what = format!("{:?} {} on {}", self.case, self.precision.name(), device.describe());
        assert_within(&what, &self.run(device), &self.formula::<f32>(), &exact, bits);
    }
}

/// What the formula needs of f32 and f64.
trait Float:
    Copy
    + PartialOrd
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
{
    fn from(x: f32) -> Self;
    fn sqrt(self) -> Self;
    fn exp(self) -> Self;
    fn through_bf16(self) -> Self;
}

macro_rules! float {
    ($($f:ident)*) => {$(
        impl Float for $f {
            fn from(x: f32) -> $f {
                x as $f
            }
            fn sqrt(self) -> $f {
                $f::sqrt(self)
            }
            fn exp(self) -> $f {
                $f::exp(self)
            }
            fn through_bf16(self) -> $f {
                bf16::from_f32(self as f32).to_f32() as $f
            }
        }
    )*};
}
float!(f32 f64);

fn case(batch: usize, queries: usize, keys: usize, heads: usize, head_dim: usize, causal: bool) -> Case {
    Case { name: "test", batch, queries, keys, heads, head_dim, causal }
}

/// Tile, lane and key-block edges, one less, one more, and primes; every head width that models have.
#[test]
fn attention_follows_the_formula_at_odd_sizes() {
    let sizes = [
        (4, 1, 1, 3, 1, false),
        (4, 1, 5, 6, 5, false),
        (2, 31, 95, 2, 8, false),
        (1, 32, 96, 1, 40, false),
        (1, 33, 97, 1, 64, false),
        (3, 7, 193, 2, 11, false),
        (1, 17, 257, 1, 80, false),
        (2, 77, 77, 2, 64, true),
        (1, 130, 130, 1, 24, true),
        (2, 5, 9, 3, 7, true),
        (1, 40, 13, 1, 13, true),
        (1, 67, 131, 1, 160, false),
        (1, 35, 101, 1, 512, false),
        // Keys and values of a head exceed the cache: several groups of queries to a task.
        (2, 150, 1100, 4, 64, false),
        (1, 270, 1100, 4, 64, true),
    ];
    for device in cpus() {
        for (batch, queries, keys, heads, head_dim, causal) in sizes {
            let mut input = Input::noise(case(batch, queries, keys, heads, head_dim, causal));
            input.check(&device);
            input.precision = Precision::Bf16;
            let cpu = device.host();
            if cpu.isa() == Isa::Avx512Bf16 {
                input.check(&device);
            }
        }
    }
}

#[test]
fn operands_are_found_in_fused_projections() {
    for device in cpus() {
        let mut input = Input::fused(case(2, 19, 23, 3, 10, false), [0, 4, 33], [70, 0, 1]);
        input.check(&device);
        input.kv_rows = Some(vec![1, 1]);
        input.check(&device);
        input.kv_rows = Some(vec![1, 0]);
        input.check(&device);
    }
}

/// More samples of queries than of keys: prompts of a batch share their keys.
#[test]
fn samples_choose_their_keys() {
    let mut input = Input::noise(case(4, 9, 30, 2, 16, false));
    input.kv_rows = Some(vec![0, 2, 2, 1]);
    input.pairs = 3;
    for i in [1, 2] {
        input.values[i].truncate(3 * 30 * 32);
    }
    for device in cpus() {
        input.check(&device);
    }
}

/// Equal scores: the result is the mean of the visible values, a quotient of small integers.
#[test]
fn equal_scores_average_exactly() {
    for (keys, causal) in [(64, false), (150, true)] {
        let mut input = Input::noise(case(2, keys, keys, 2, 6, causal));
        input.values[0].fill(0.0);
        input.values[2].iter_mut().for_each(|x| *x = (*x * 20.0).round());
        let v = input.values[2].clone();
        for device in cpus() {
            for (i, &x) in input.run(&device).iter().enumerate() {
                let (column, t, b) = (i % 12, i / 12 % keys, i / 12 / keys);
                let seen = if causal { t + 1 } else { keys };
                let sum: f32 = (0..seen).map(|s| v[(b * keys + s) * 12 + column]).sum();
                assert_eq!(x, sum / seen as f32, "{i}, causal {causal}, {}", device.describe());
            }
        }
    }
}

/// Scores so far apart that one key has all the weight: the result is its value, to the rounding of the quotient.
#[test]
fn a_dominant_key_gives_its_value() {
    let (queries, keys) = (50, 211);
    let mut input = Input::noise(case(1, queries, keys, 1, 2, false));
    // q = 1000 (t, 1), k = (2 s, -s^2): the score is 1000 (t^2 - (t - s)^2), largest at s = t.
    let target = |t: usize| t * 37 % keys;
    input.values[0] = (0..queries).flat_map(|t| [1000.0 * target(t) as f32, 1000.0]).collect();
    input.values[1] = (0..keys).flat_map(|s| [2.0 * s as f32, -((s * s) as f32)]).collect();
    for device in cpus() {
        for (t, pair) in input.run(&device).chunks_exact(2).enumerate() {
            for (x, v) in pair.iter().zip(&input.values[2][2 * target(t)..]) {
                assert!((x - v).abs() <= v.abs() * f32::EPSILON, "{x} for {v}: query {t} on {}", device.describe());
            }
        }
    }
}

/// Scores that would overflow e^x by far.
#[test]
fn large_scores_stay_finite() {
    let mut input = Input::noise(case(1, 20, 200, 1, 40, false));
    input.values[0].iter_mut().for_each(|x| *x *= 1000.0);
    for device in cpus() {
        assert!(input.run(&device).iter().all(|x| x.is_finite() && x.abs() <= 2.5));
    }
}

#[test]
fn nan_in_a_sample_stays_in_it() {
    for (operand, row) in [(0, 5), (1, 30), (2, 30)] {
        let mut input = Input::noise(case(2, 20, 40, 1, 8, false));
        input.values[operand][row * 8 + 3] = f32::NAN;
        for device in cpus() {
            let out = input.run(&device);
            let (first, second) = out.split_at(20 * 8);
            assert!(first.iter().any(|x| x.is_nan()) && second.iter().all(|x| !x.is_nan()), "operand {operand}");
        }
    }
}

/// The bits of a sample do not depend on the batch around it, its place there, or the number of threads, nor on how many groups of
/// queries share a task, which follows from these.
#[test]
fn bits_of_a_sample_depend_on_it_alone() {
    let small = |causal| case(5, 70, 210, 3, 20, causal);
    let large = case(3, 150, 1100, 2, 64, false);
    for (case, precision) in
        [(small(false), Precision::F32), (small(false), Precision::Bf16), (small(true), Precision::F32), (large, Precision::F32)]
    {
        let mut batch = Input::noise(case);
        batch.precision = precision;
        let mut single = batch.clone();
        (single.case.batch, single.pairs) = (1, 1);
        let samples = case.batch;
        let part = |values: &[f32], sample: usize| values.chunks_exact(values.len() / samples).nth(sample).unwrap().to_vec();
        let whole = [1, 3].map(|threads| batch.run(&Device::cpu(threads).unwrap()));
        assert!(whole[0].iter().zip(&whole[1]).all(|(a, b)| a.to_bits() == b.to_bits()), "{case:?}, {precision:?}");
        for sample in 0..samples {
            single.values = [0, 1, 2].map(|i| part(&batch.values[i], sample));
            for threads in [1, 4] {
                let alone = single.run(&Device::cpu(threads).unwrap());
                let same = alone.iter().zip(part(&whole[0], sample)).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "sample {sample}, {threads} threads, {case:?}, {precision:?}");
            }
        }
    }
}

#[test]
fn misfits_are_refused() {
    let device = Device::cpu(1).unwrap();
    let good = Input::noise(case(2, 3, 4, 2, 5, false));
    let refuse = |change: &dyn Fn(&mut Input), part: &str| {
        let mut input = good.clone();
        change(&mut input);
        assert_shape_error(try_run(&device, |exec, _| input.pass(exec).map(|_| ())), part);
    };
    refuse(&|i| i.case.heads = 0, "0 heads");
    refuse(&|i| i.case.heads = 3, "q has 10 channels");
    refuse(&|i| i.columns[1].1 = 1, "k has 10 channels");
    refuse(&|i| i.columns[2].1 = usize::MAX, "v has 10 channels");
    refuse(&|i| i.kv_rows = Some(vec![0]), "kv_rows [0]");
    refuse(&|i| i.kv_rows = Some(vec![0, 2]), "kv_rows [0, 2]");
    refuse(&|i| (i.pairs, i.values[1], i.values[2]) = (1, vec![0.0; 40], vec![0.0; 40]), "no kv_rows");
}

#[test]
fn work_is_counted_from_the_shapes() {
    assert_eq!(case(2, 4096, 4096, 8, 40, false).flops(), 4 * 2 * 4096 * 4096 * 320);
    // 1 + 2 + 3 pairs of a query and a key, and then all 3 keys for the last query.
    assert_eq!(case(1, 4, 3, 1, 1, true).flops(), 4 * 9);
    let device = Device::cpu(1).unwrap();
    for case in cases().iter().filter(|case| case.queries <= 256) {
        let input = Input::noise(*case);
        assert_eq!(Plan::record(&device, |exec| input.pass(exec).map(|_| ())).unwrap().flops(), case.flops());
    }
}
