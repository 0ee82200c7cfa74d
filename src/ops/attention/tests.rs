use super::*;
use crate::device::{Arena, Buffer, Device, Plan};
use crate::ops::testing::{
    assert_shape_error, assert_within, cpus, devices, gpus, keep, label, noise, round_to, run, stored, try_run,
};

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

    fn rows(&self, device: &Device) -> Option<KvRows> {
        self.kv_rows.clone().map(|rows| KvRows::new(device, rows).unwrap())
    }

    fn pass<'e>(&self, exec: &'e Exec<'_>, kv_rows: Option<&KvRows>) -> Result<Tensor<'e>> {
        let Case { batch, queries, keys, .. } = self.case;
        let shapes = [[batch, queries], [self.pairs, keys], [self.pairs, keys]];
        let [q, k, v] = [0, 1, 2].map(|i| exec.input([shapes[i][0], shapes[i][1], self.columns[i].0], &self.values[i]));
        self.attention(exec, kv_rows, [&q?, &k?, &v?])
    }

    fn attention<'e>(&self, exec: &'e Exec<'_>, kv_rows: Option<&KvRows>, tensors: [&Tensor<'_>; 3]) -> Result<Tensor<'e>> {
        let Case { heads, head_dim, causal, .. } = self.case;
        let settings = Attention { heads, head_dim, causal, kv_rows, precision: self.precision };
        let part = |i: usize| Columns { tensor: tensors[i], column: self.columns[i].1 };
        attention(exec, settings, part(0), part(1), part(2))
    }

    fn run(&self, device: &Device) -> Vec<f32> {
        let rows = self.rows(device);
        run(device, |exec, out| keep(&self.pass(exec, rows.as_ref())?, out))
    }

    /// The formula, in f64 or in plain f32 loops, with operands of the products rounded to `operands`.
    fn formula<F: Float>(&self, operands: DType) -> Vec<F> {
        let Case { batch, queries, keys, heads, head_dim: d, causal, .. } = self.case;
        let round = |x: F| if operands == DType::F32 { x } else { x.through(operands) };
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

    /// The same with the values that the device stores.
    fn stored(&self, device: &Device) -> Input {
        Input { values: self.values.each_ref().map(|values| stored(device, values)), ..self.clone() }
    }

    fn check(&self, device: &Device) {
        let (input, operands) = (self.stored(device), device.operands(self.precision));
        let (exact, plain) = (input.formula::<f64>(DType::F32), input.formula::<f32>(operands));
        let bits = match operands {
            DType::F16 => 11,
            DType::BF16 => 9 - i32::from(device.storage() == DType::BF16),
            _ => 24,
        };
        let what = format!("{:?} {} on {}", self.case, self.precision.name(), label(device));
        assert_within(&what, &self.run(device), &stored(device, &plain), &exact, bits);
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
    fn through(self, dtype: DType) -> Self;
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
            fn through(self, dtype: DType) -> $f {
                round_to(dtype, self as f32) as $f
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

/// Edges of the tiles of each kernel, a query or key less and more, primes, causal and not.
#[test]
fn kernels_follow_the_formula_at_the_edges_of_their_tiles() {
    let narrow = [40, 64, 80].map(|d| {
        [
            (1, 1, 1, 1, d, false),
            (1, 127, 63, 1, d, false),
            (1, 129, 128, 1, d, false),
            (2, 33, 77, 2, d, false),
            (1, 131, 131, 1, d, true),
        ]
    });
    let deep = [(1, 1, 1, 2, 160, false), (1, 63, 65, 1, 160, false), (2, 65, 77, 1, 160, false), (1, 67, 67, 2, 160, true)];
    let wide = [(1, 1, 1, 1, 512, false), (1, 63, 65, 1, 512, false), (2, 65, 64, 1, 512, false), (1, 67, 131, 2, 512, true)];
    let any = [(2, 5, 33, 1, 512, false), (1, 3, 31, 1, 600, false), (1, 4, 32, 2, 4, true), (2, 9, 37, 3, 16, false)];
    let few = [
        (2, 1, 1, 3, 1, false),
        (2, 31, 95, 2, 8, false),
        (3, 7, 193, 2, 11, false),
        (2, 5, 9, 3, 7, true),
        (1, 40, 13, 1, 13, true),
    ];
    for device in gpus() {
        let check = |&(batch, queries, keys, heads, head_dim, causal): &(usize, usize, usize, usize, usize, bool)| {
            Input::noise(case(batch, queries, keys, heads, head_dim, causal)).check(&device);
        };
        narrow.iter().flatten().chain(&deep).chain(&wide).chain(&any[1..]).chain(&few).for_each(check);
        // Rows that start between vectors, at the widths of vectors.
        for head_dim in [40, 64, 160, 512] {
            Input::fused(case(2, 5, 33, 1, head_dim, false), [1, 0, 8], [0, 8, 1]).check(&device);
        }
    }
}

#[test]
fn operands_are_found_in_fused_projections() {
    for device in devices() {
        // Heads of vectors, too, in rows that are wider by vectors.
        for (head_dim, before, after) in [
            (10, [0, 4, 33], [70, 0, 1]),
            (40, [8, 0, 40], [0, 16, 8]),
            (40, [8, 0, 16], [0, 24, 8]),
            (512, [0, 8, 16], [24, 16, 8]),
        ] {
            let mut input = Input::fused(case(2, 19, 23, 3 - head_dim / 256, head_dim, false), before, after);
            input.check(&device);
            input.kv_rows = Some(vec![1, 1]);
            input.check(&device);
            input.kv_rows = Some(vec![1, 0]);
            input.check(&device);
        }
    }
}

/// More samples of queries than of keys: prompts of a batch share their keys.
#[test]
fn samples_choose_their_keys() {
    for head_dim in [16, 40] {
        let mut input = Input::noise(case(4, 9, 30, 2, head_dim, false));
        input.kv_rows = Some(vec![0, 2, 2, 1]);
        input.pairs = 3;
        for i in [1, 2] {
            input.values[i].truncate(3 * 30 * 2 * head_dim);
        }
        for device in devices() {
            input.check(&device);
        }
    }
}

/// A captured pass reads the table of keys where it lies: no value comes from the host.
#[test]
fn captured_passes_choose_their_keys() {
    for device in gpus() {
        let mut input = Input::noise(case(3, 9, 30, 1, 40, false));
        input.kv_rows = Some(vec![2, 0, 2]);
        let rows = input.rows(&device);
        let buffer = |i: usize, len| Buffer::from_f32(&device, [3, len, 40], device.storage(), &input.values[i]).unwrap();
        let inputs = [buffer(0, 9), buffer(1, 30), buffer(2, 30)];
        let mut result = Buffer::try_zeros(&device, [3, 9, 40], device.storage()).unwrap();
        let mut pass = |exec: &Exec<'_>| {
            let [q, k, v] = inputs.each_ref().map(|buffer| exec.view(buffer));
            input.attention(exec, rows.as_ref(), [&q, &k, &v])?.store(&mut result)
        };
        let plan = Plan::record(&device, &mut pass).unwrap();
        let graph = Arena::new().capture(&device, &plan, &mut pass).unwrap();
        graph.replay().unwrap();
        let found = run(&device, |exec, out| keep(&exec.view(&result), out));
        assert_eq!(found, input.run(&device), "{}", label(&device));
    }
}

/// Equal scores: the result is the mean of the visible values, a quotient of small integers.
#[test]
fn equal_scores_average_exactly() {
    for (keys, head_dim, causal) in
        [(64, 6, false), (150, 6, true), (64, 40, false), (70, 40, true), (32, 160, false), (64, 512, false)]
    {
        let mut input = Input::noise(case(2, keys, keys, 2, head_dim, causal));
        input.values[0].fill(0.0);
        input.values[2].iter_mut().for_each(|x| *x = (*x * 20.0).round());
        let (v, width) = (input.values[2].clone(), 2 * head_dim);
        for device in devices() {
            let exact = |seen: usize| seen.is_power_of_two() || matches!(device, Device::Cpu(_));
            for (i, &x) in input.run(&device).iter().enumerate() {
                let (column, t, b) = (i % width, i / width % keys, i / width / keys);
                let seen = if causal { t + 1 } else { keys };
                let sum: f32 = (0..seen).map(|s| v[(b * keys + s) * width + column]).sum();
                let mean = sum / seen as f32;
                // A GPU multiplies by the rounded inverse: that may turn the last rounding.
                let near =
                    [1.0 - 2.0 * f32::EPSILON, 1.0, 1.0 + 2.0 * f32::EPSILON].map(|near| round_to(device.storage(), mean * near));
                let found = if exact(seen) { x == near[1] } else { near.contains(&x) };
                assert!(found, "{x} for {mean} at {i}, causal {causal}, {}", label(&device));
            }
        }
    }
}

/// Scores so far apart that one key has all the weight: the result is its value, to the rounding of the quotient.
#[test]
fn a_dominant_key_gives_its_value() {
    let (queries, keys) = (50, 211);
    for head_dim in [12, 40, 160, 512] {
        let mut input = Input::noise(case(1, queries, keys, 1, head_dim, false));
        // Keys are their numbers in binary, of -1 and 1, and queries the keys that they want, 100 times for each channel's root.
        let target = |t: usize| t * 37 % keys;
        let large = if head_dim > 100 { 320.0 } else { 100.0 };
        let digits =
            |s: usize, one: f32| (0..head_dim).map(move |c| if c > 7 { 0.0 } else { one * (2.0 * (s >> c & 1) as f32 - 1.0) });
        input.values[0] = (0..queries).flat_map(|t| digits(target(t), large)).collect();
        input.values[1] = (0..keys).flat_map(|s| digits(s, 1.0)).collect();
        for device in devices() {
            let v = stored(&device, &input.values[2]);
            for (t, row) in input.run(&device).chunks_exact(head_dim).enumerate() {
                for (x, v) in row.iter().zip(&v[head_dim * target(t)..]) {
                    assert!((x - v).abs() <= v.abs() * f32::EPSILON, "{x} for {v}: query {t} on {}", label(&device));
                }
            }
        }
    }
}

/// Scores that would overflow e^x by far.
#[test]
fn large_scores_stay_finite() {
    for head_dim in [20, 40, 512] {
        let mut input = Input::noise(case(1, 20, 150, 1, head_dim, false));
        input.values[0].iter_mut().for_each(|x| *x *= 1000.0);
        for device in devices() {
            // Rounded probabilities may sum to a little more than their sum.
            assert!(input.run(&device).iter().all(|x| x.is_finite() && x.abs() <= 2.5 * 1.01), "{}", label(&device));
        }
    }
}

/// All scores of a query are one infinity or the other.
#[test]
fn infinite_scores_give_nan_in_their_row() {
    for head_dim in [8, 40, 512] {
        let mut input = Input::noise(case(1, 20, 70, 1, head_dim, false));
        (0..70).for_each(|s| input.values[1][s * head_dim] = 1.0);
        for infinity in [f32::INFINITY, f32::NEG_INFINITY] {
            input.values[0][3 * head_dim] = infinity;
            for device in devices() {
                for (t, row) in input.run(&device).chunks_exact(head_dim).enumerate() {
                    assert!(row.iter().all(|x| x.is_nan() == (t == 3)), "{infinity}, query {t} on {}", label(&device));
                }
            }
        }
    }
}

#[test]
fn nan_in_a_sample_stays_in_it() {
    for (head_dim, operand, row) in
        [(8, 0, 5), (8, 1, 30), (8, 2, 30), (40, 0, 5), (40, 1, 30), (40, 2, 30), (512, 1, 30), (512, 2, 30)]
    {
        let mut input = Input::noise(case(2, 20, 40, 1, head_dim, false));
        input.values[operand][row * head_dim + 3] = f32::NAN;
        for device in devices() {
            let out = input.run(&device);
            let (first, second) = out.split_at(20 * head_dim);
            let stays = first.iter().any(|x| x.is_nan()) && second.iter().all(|x| !x.is_nan());
            assert!(stays, "operand {operand} of {head_dim} channels on {}", label(&device));
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
        let whole = [1, 3].map(|threads| batch.run(&Device::cpu(threads).unwrap()));
        assert!(whole[0].iter().zip(&whole[1]).all(|(a, b)| a.to_bits() == b.to_bits()), "{case:?}, {precision:?}");
        for threads in [1, 4] {
            assert_samples_alone(&Device::cpu(threads).unwrap(), &batch, &whole[0]);
        }
    }
    for device in gpus() {
        for (head_dim, causal) in [(40, false), (64, true), (160, false), (512, false), (12, true)] {
            let batch = Input::noise(case(3, 19, 77, 2 - head_dim / 512, head_dim, causal));
            assert_samples_alone(&device, &batch, &batch.run(&device));
        }
    }
}

/// Each sample alone has the bits that it has in `whole`, the result of its batch.
fn assert_samples_alone(device: &Device, batch: &Input, whole: &[f32]) {
    let samples = batch.case.batch;
    let mut single = batch.clone();
    (single.case.batch, single.pairs) = (1, 1);
    let part = |values: &[f32], sample: usize| values.chunks_exact(values.len() / samples).nth(sample).unwrap().to_vec();
    for sample in 0..samples {
        single.values = [0, 1, 2].map(|i| part(&batch.values[i], sample));
        let alone = single.run(device);
        let same = alone.iter().zip(part(whole, sample)).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "sample {sample}, {:?}, {:?} on {}", batch.case, batch.precision, label(device));
    }
}

#[test]
fn misfits_are_refused() {
    for device in [&cpus()[0], &gpus()[0]] {
        let good = Input::noise(case(2, 3, 4, 2, 5, false));
        let refuse = |change: &dyn Fn(&mut Input), part: &str| {
            let mut input = good.clone();
            change(&mut input);
            let rows = input.rows(device);
            assert_shape_error(try_run(device, |exec, _| input.pass(exec, rows.as_ref()).map(|_| ())), part);
        };
        refuse(&|i| i.case.heads = 0, "0 heads");
        refuse(&|i| i.case.heads = 3, "q has 10 channels");
        refuse(&|i| i.columns[1].1 = 1, "k has 10 channels");
        refuse(&|i| i.columns[2].1 = usize::MAX, "v has 10 channels");
        refuse(&|i| i.kv_rows = Some(vec![0]), "kv_rows [0]");
        refuse(&|i| i.kv_rows = Some(vec![0, 2]), "kv_rows [0, 2]");
        refuse(&|i| (i.pairs, i.values[1], i.values[2]) = (1, vec![0.0; 40], vec![0.0; 40]), "no kv_rows");
    }
    let (cpu, gpu) = (&cpus()[0], &gpus()[0]);
    let mut input = Input::noise(case(2, 3, 4, 2, 5, false));
    input.kv_rows = Some(vec![0, 1]);
    for (device, other) in [(cpu, gpu), (gpu, cpu)] {
        let rows = input.rows(other);
        assert_shape_error(try_run(device, |exec, _| input.pass(exec, rows.as_ref()).map(|_| ())), "of another device");
    }
    if usize::BITS > u32::BITS {
        assert_shape_error(KvRows::new(gpu, vec![1 << 32]), "4294967296");
    }
}

#[test]
fn work_is_counted_from_the_shapes() {
    assert_eq!(case(2, 4096, 4096, 8, 40, false).flops(), 4 * 2 * 4096 * 4096 * 320);
    // 1 + 2 + 3 pairs of a query and a key, and then all 3 keys for the last query.
    assert_eq!(case(1, 4, 3, 1, 1, true).flops(), 4 * 9);
    let device = Device::cpu(1).unwrap();
    for case in cases().iter().filter(|case| case.queries <= 256) {
        let input = Input::noise(*case);
        assert_eq!(Plan::record(&device, |exec| input.pass(exec, None).map(|_| ())).unwrap().flops(), case.flops());
    }
}
