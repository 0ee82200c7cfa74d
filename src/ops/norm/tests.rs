use super::*;
use crate::device::{Plan, Precision, Statistics};
use crate::ops::gemm::{Activation, Linear, linear};
use crate::ops::testing::{
    assert_close, assert_shape_error, bytes, devices, gpus, keep, label, noise, run, stored, try_run, weight,
};

/// A group norm of seeded values.
#[derive(Clone)]
struct Input {
    batch: usize,
    size: [usize; 2],
    groups: usize,
    x: (usize, Vec<f32>),
    skip: Option<(usize, Vec<f32>)>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
    silu: bool,
}

impl Input {
    fn noise(batch: usize, size: [usize; 2], x_channels: usize, skip_channels: usize, groups: usize) -> Input {
        let values = |seed, channels: usize| noise(seed, batch * size[0] * size[1] * channels);
        let channels = x_channels + skip_channels;
        Input {
            batch,
            size,
            groups,
            x: (x_channels, values(1, x_channels)),
            skip: (skip_channels > 0).then(|| (skip_channels, values(2, skip_channels))),
            weight: noise(3, channels),
            bias: noise(4, channels),
            eps: 1e-5,
            silu: true,
        }
    }

    fn channels(&self) -> usize {
        self.weight.len()
    }

    fn norm(&self, device: &Device) -> Result<Norm> {
        let (w, b) = (bytes(&self.weight), bytes(&self.bias));
        let shape = [self.channels()];
        Norm::prepare(device, self.groups, self.eps, weight("w", &shape, Some(&w)), weight("b", &shape, Some(&b)))
    }

    fn input<'e>(&self, exec: &'e Exec<'_>, (channels, values): &(usize, Vec<f32>)) -> Result<Tensor<'e>> {
        exec.input([self.batch, self.size[0], self.size[1], *channels], values)
    }

    fn pass<'e>(&self, exec: &'e Exec<'_>, norm: &Norm) -> Result<Tensor<'e>> {
        let x = self.input(exec, &self.x)?;
        let skip = self.skip.as_ref().map(|skip| self.input(exec, skip)).transpose()?;
        group_norm(exec, norm, &x, skip.as_ref(), self.silu)
    }

    fn run(&self, device: &Device) -> Vec<f32> {
        let norm = self.norm(device).unwrap();
        run(device, |exec, out| keep(&self.pass(exec, &norm)?, out))
    }

    /// The same of results of products, on a GPU: they carry statistics, and the values are the same.
    fn run_of_products(&self, device: &Device) -> Vec<f32> {
        let identity = |part: &(usize, Vec<f32>)| {
            let c = part.0;
            let values: Vec<f32> = (0..c * c).map(|i| if i / c == i % c { 1.0 } else { 0.0 }).collect();
            let layer = Linear::prepare(device, Precision::F32, &[(weight("w", &[c, c], Some(&bytes(&values))), None)]);
            layer.unwrap().with_statistics(Statistics::Channels)
        };
        let (norm, of_x, of_skip) = (self.norm(device).unwrap(), identity(&self.x), self.skip.as_ref().map(identity));
        run(device, |exec, out| {
            let made = |layer: &Linear, part| linear(exec, layer, &self.input(exec, part)?, Activation::None, None);
            let x = made(&of_x, &self.x)?;
            let skip = self.skip.as_ref().zip(of_skip.as_ref()).map(|(part, layer)| made(layer, part)).transpose()?;
            assert!(gpu::parts(&norm, &x, skip.as_ref()).is_some(), "{x:?} without statistics");
            keep(&group_norm(exec, &norm, &x, skip.as_ref(), self.silu)?, out)
        })
    }

    /// The concatenated input.
    fn joined(&self) -> Vec<f32> {
        let rows = self.batch * self.size[0] * self.size[1];
        let row = |part: &(usize, Vec<f32>), r: usize| part.1[r * part.0..(r + 1) * part.0].to_vec();
        (0..rows).flat_map(|r| [row(&self.x, r), self.skip.as_ref().map(|s| row(s, r)).unwrap_or_default()].concat()).collect()
    }
}

/// Two passes over each set of values, in f64 and in plain f32 loops; `sets` gives the set of an element and its channel.
macro_rules! formula {
    ($f:ident, $x:expr, $weight:expr, $bias:expr, $eps:expr, $silu:expr, $sets:expr) => {{
        let (x, sets) = ($x, $sets);
        let count = (0..x.len()).map(|i| sets(i).0).max().unwrap() + 1;
        let (mut mean, mut var, mut n) = (vec![0.0 as $f; count], vec![0.0 as $f; count], vec![0.0 as $f; count]);
        x.iter().enumerate().for_each(|(i, &x)| (mean[sets(i).0] += x as $f, n[sets(i).0] += 1.0).0);
        mean.iter_mut().zip(&n).for_each(|(m, n)| *m /= n);
        x.iter().enumerate().for_each(|(i, &x)| var[sets(i).0] += (x as $f - mean[sets(i).0]).powi(2));
        let normalised = x.iter().enumerate().map(|(i, &x)| {
            let (set, c) = sets(i);
            let y = (x as $f - mean[set]) / (var[set] / n[set] + $eps as $f).sqrt() * $weight[c] as $f + $bias[c] as $f;
            if $silu { y / (1.0 + (-y).exp()) } else { y }
        });
        normalised.collect::<Vec<$f>>()
    }};
}

/// Chunks of one part, of many and of several lengths, groups that x and skip share, several samples, a batch whose samples have no whole
/// parts.
#[test]
fn statistics_of_products_serve_as_well() {
    for (batch, size, x, skip, groups) in [
        (1, [4, 8], 8, 0, 4),
        (3, [8, 8], 20, 0, 2),
        (2, [12, 16], 24, 12, 6),
        (2, [8, 4], 40, 56, 16),
        (1, [64, 33], 8, 0, 4),
        (1, [45, 96], 6, 2, 2),
    ] {
        let input = Input::noise(batch, size, x, skip, groups);
        let channels = input.channels();
        let per_sample = size[0] * size[1] * channels;
        let set = |i: usize| (i / per_sample * groups + i % channels / (channels / groups), i % channels);
        for device in gpus() {
            let x = stored(&device, &input.joined());
            let exact = formula!(f64, &x, input.weight, input.bias, input.eps, input.silu, set);
            let plain = formula!(f32, &x, input.weight, input.bias, input.eps, input.silu, set);
            assert_close(&device, &format!("{size:?} {channels}"), &input.run_of_products(&device), &plain, &exact);
        }
    }
}

#[test]
fn bits_of_a_sample_of_products_depend_on_it_alone() {
    let all = Input::noise(3, [8, 12], 24, 8, 4);
    for device in gpus() {
        let together = all.run_of_products(&device);
        let part = |values: &[f32], channels: usize, i: usize| values[i * 96 * channels..][..96 * channels].to_vec();
        for i in 0..3 {
            let (x, skip) = ((24, part(&all.x.1, 24, i)), all.skip.as_ref().map(|skip| (8, part(&skip.1, 8, i))));
            let alone = Input { batch: 1, x, skip, ..all.clone() }.run_of_products(&device);
            assert_eq!(part(&together, 32, i), alone, "sample {i} on {}", label(&device));
        }
    }
}

/// Their parts would reach over two samples, or over two groups, or skip has none.
#[test]
fn statistics_that_do_not_fit_are_left() {
    for device in gpus() {
        let layer = |channels: usize| {
            let layer = Linear::prepare(&device, Precision::F32, &[(weight("w", &[channels, 4], None), None)]).unwrap();
            layer.with_statistics(Statistics::Channels)
        };
        let (layer8, layer6) = (layer(8), layer(6));
        let norm = |channels: usize, groups: usize| {
            let tensor = || weight("w", &[channels], None);
            Norm::prepare(&device, groups, 1e-5, tensor(), tensor()).unwrap()
        };
        let check = |exec: &Exec<'_>| {
            let made = |layer, size: [usize; 2]| {
                linear(exec, layer, &exec.alloc([2, size[0], size[1], 4], exec.storage())?, Activation::None, None)
            };
            let has = |norm: Norm, x: &Tensor<'_>, skip: Option<&Tensor<'_>>| gpu::parts(&norm, x, skip).is_some();
            let x = made(&layer8, [4, 8])?;
            assert!(has(norm(8, 4), &x, None) && has(norm(14, 7), &x, Some(&made(&layer6, [4, 8])?)));
            assert!(!has(norm(8, 8), &x, None), "groups of one channel");
            assert!(!has(norm(16, 4), &x, Some(&exec.alloc([2, 4, 8, 8], exec.storage())?)), "a skip connection without");
            let across = made(&layer8, [4, 4])?;
            assert!(
                across.statistics(Statistics::Channels).is_some() && !has(norm(8, 4), &across, None),
                "samples of 16 positions"
            );
            Ok(())
        };
        Plan::record(&device, check).unwrap();
    }
}

fn check(input: &Input, what: &str) {
    let channels = input.channels();
    let per_sample = input.size[0] * input.size[1] * channels;
    let set = |i: usize| (i / per_sample * input.groups + i % channels / (channels / input.groups), i % channels);
    for device in devices() {
        let x = stored(&device, &input.joined());
        let exact = formula!(f64, &x, input.weight, input.bias, input.eps, input.silu, set);
        let plain = formula!(f32, &x, input.weight, input.bias, input.eps, input.silu, set);
        assert_close(&device, what, &input.run(&device), &plain, &exact);
    }
}

/// One position, chunk edges, many chunks, channels that fill no vector, groups of one channel, skip connections of every width.
#[test]
fn group_norm_follows_the_formula_at_odd_sizes() {
    for (batch, size, x, skip, groups) in [
        (1, [2, 3], 1, 0, 1),
        (3, [1, 1], 8, 0, 2),
        (2, [5, 7], 12, 0, 4),
        (2, [4, 3], 32, 0, 32),
        (1, [51, 1], 320, 0, 32),
        (2, [52, 1], 320, 0, 32),
        (1, [13, 11], 96, 37, 7),
        (2, [3, 5], 17, 15, 8),
        (1, [3, 3], 1280, 640, 32),
        (1, [40, 41], 13, 0, 13),
        (2, [30, 31], 72, 56, 16),
        // Several slabs of channels, of elements and of vectors; more chunks than lanes, of vectors and of elements.
        (2, [3, 5], 645, 0, 5),
        (1, [7, 3], 331, 329, 4),
        (2, [3, 2], 2560, 1280, 32),
        (1, [90, 91], 72, 0, 8),
        (1, [90, 91], 75, 0, 5),
    ] {
        let mut input = Input::noise(batch, size, x, skip, groups);
        let what = format!("{batch} x {size:?} x ({x} + {skip}) in {groups}");
        check(&input, &what);
        input.silu = false;
        check(&input, &what);
    }
}

/// A mean hundreds of times the deviation, where the difference of the mean square and the squared mean is noise.
#[test]
fn a_far_mean_costs_no_precision() {
    let mut input = Input::noise(1, [30, 20], 24, 8, 4);
    input.silu = false;
    input.x.1.iter_mut().for_each(|x| *x += 700.0);
    if let Some(skip) = &mut input.skip {
        skip.1.iter_mut().for_each(|x| *x += 700.0);
    }
    check(&input, "far mean");
}

/// A variance of the size of eps, and a last chunk that is shorter than the others and unlike them.
#[test]
fn eps_and_short_chunks_have_their_weight() {
    let mut input = Input::noise(2, [7, 1], 7040, 0, 32);
    input.silu = false;
    let last = 6 * 7040..7 * 7040;
    input.x.1[last].iter_mut().for_each(|x| *x += 5.0);
    check(&input, "short last chunk");
    input.x.1.iter_mut().for_each(|x| *x *= 0.001);
    check(&input, "small variance");
}

/// `count` integers, a multiple of 2^(q + 1), of mean 0 and variance 4^(q - 1): -1, 1 and, at a quarter of the places, 1 - 2^q and 2^q - 1.
fn integers_of_known_variance(q: u32, count: usize) -> Vec<f32> {
    let (half, far) = (1usize << (q - 1), (1 << q) as f32 - 1.0);
    let parts = [(far, half / 2 + 1), (-far, half / 2), (1.0, half / 2), (-1.0, 5 * half / 2 - 1)];
    let period: Vec<f32> = parts.into_iter().flat_map(|(value, times)| vec![value; times]).collect();
    assert_eq!((period.len(), count % period.len()), (4 * half, 0));
    // An odd stride goes round all of a power of two.
    (0..count).map(|i| period[i * 1_234_567 % period.len()]).collect()
}

/// Integers whose sums and squares the storage type does not hold, while it holds the results.
#[test]
fn sums_of_integers_are_exact() {
    for device in gpus() {
        let q = if device.storage() == DType::F16 { 10 } else { 8 };
        let normalised = |x: &[f32]| x.iter().map(|x| x / (1 << (q - 1)) as f32).collect::<Vec<f32>>();
        // In vectors and element by element.
        for (x, skip) in [(64, 0), (60, 4)] {
            let mut input = Input::noise(1, [16, 32], x, skip, 1);
            (input.silu, input.eps) = (false, 0.0);
            (input.weight, input.bias) = (vec![1.0; 64], vec![0.0; 64]);
            let all = integers_of_known_variance(q, 512 * 64);
            let columns = |range: std::ops::Range<usize>| all.chunks(64).flat_map(|row| &row[range.clone()]).copied().collect();
            input.x.1 = columns(0..x);
            input.skip.iter_mut().for_each(|skip| skip.1 = columns(x..64));
            assert_eq!(input.run(&device), normalised(&all), "{x} and {skip} channels on {}", label(&device));
        }
        // In a warp and in a block.
        for channels in [2048, 4096] {
            let x = integers_of_known_variance(q, channels);
            let (ones, zeros) = (bytes(&vec![1.0; channels]), bytes(&vec![0.0; channels]));
            let of = |values| weight("w", &[channels], Some(values));
            let norm = Norm::prepare(&device, 1, 0.0, of(&ones), of(&zeros)).unwrap();
            let found = run(&device, |exec, out| keep(&layer_norm(exec, &norm, &exec.input([1, channels], &x)?)?, out));
            assert_eq!(found, normalised(&x), "{channels} on {}", label(&device));
        }
    }
}

/// A shift that takes away nearly all of what is shifted shows whether that was rounded to the storage type.
#[test]
fn nothing_is_rounded_before_the_shift() {
    const C: usize = 2056;
    let all_one = |i: usize| (0, i);
    for device in gpus() {
        let x = stored(&device, &noise(1, C));
        let normalised = formula!(f64, &x, [1.0; C], [0.0; C], 1e-5f32, false, all_one);
        let bias: Vec<f32> = normalised.iter().zip(noise(2, C)).map(|(y, b)| b - 64.0 * *y as f32).collect();
        let input = Input { groups: 1, silu: false, weight: vec![64.0; C], bias, ..Input::noise(1, [1, 1], C, 0, 1) };
        let exact = formula!(f64, &x, input.weight, input.bias, 1e-5f32, false, all_one);
        let plain = formula!(f32, &x, input.weight, input.bias, 1e-5f32, false, all_one);
        assert_close(&device, "group norm", &input.run(&device), &plain, &exact);
        let norm = input.norm(&device).unwrap();
        let found = run(&device, |exec, out| keep(&layer_norm(exec, &norm, &exec.input([1, C], &x)?)?, out));
        assert_close(&device, "layer norm", &found, &plain, &exact);
    }
}

/// Values of mean 0 and variance 1 without eps are only scaled and shifted; a constant gives the shift.
#[test]
fn units_and_constants_are_exact() {
    let mut input = Input::noise(2, [8, 6], 12, 4, 4);
    (input.silu, input.eps) = (false, 0.0);
    input.weight.iter_mut().chain(&mut input.bias).for_each(|w| *w = (*w * 16.0).round());
    for (at, part) in [(0, &mut input.x), (1, input.skip.as_mut().unwrap())] {
        part.1.iter_mut().enumerate().for_each(|(i, x)| *x = if (i / part.0 + at).is_multiple_of(2) { 1.0 } else { -1.0 });
    }
    for device in devices() {
        for ((i, y), x) in input.run(&device).into_iter().enumerate().zip(input.joined()) {
            assert_eq!(y, x * input.weight[i % 16] + input.bias[i % 16], "{i} on {}", label(&device));
        }
    }
    (input.eps, input.x.1) = (1e-6, vec![0.3; input.x.1.len()]);
    for device in devices() {
        let out = input.run(&device);
        let constant = out.iter().enumerate().filter(|(i, _)| i % 16 < 12);
        constant.for_each(|(i, y)| assert_eq!(*y, input.bias[i % 16], "{i} on {}", label(&device)));
    }
}

#[test]
fn bits_of_a_sample_depend_on_it_alone() {
    let batch = Input::noise(3, [17, 19], 40, 24, 8);
    let cpu = |threads| Device::cpu(threads).unwrap();
    for (one, others) in
        [(cpu(3), vec![cpu(1), cpu(4)])].into_iter().chain(gpus().into_iter().map(|gpu| (gpu.clone(), vec![gpu])))
    {
        let whole = batch.run(&one);
        for sample in 0..3 {
            let mut single = Input { batch: 1, ..batch.clone() };
            let part = |values: &[f32]| values.chunks_exact(values.len() / 3).nth(sample).unwrap().to_vec();
            single.x.1 = part(&batch.x.1);
            single.skip = batch.skip.as_ref().map(|(channels, values)| (*channels, part(values)));
            for other in &others {
                let (alone, part) = (single.run(other), part(&whole));
                assert!(alone.iter().zip(part).all(|(a, b)| a.to_bits() == b.to_bits()), "sample {sample} on {}", label(other));
            }
        }
    }
}

#[test]
fn layer_norm_follows_the_formula_at_odd_sizes() {
    for (rows, channels) in
        [(1, 1), (3, 5), (7, 16), (5, 63), (300, 64), (2, 65), (33, 768), (4, 1283), (5, 2040), (3, 2048), (2, 2056), (2, 4104)]
    {
        // The last with a variance of the size of eps.
        for (scale, shift) in [(1.0, 0.0), (1.0, 300.0), (0.003, 0.0)] {
            let (w, b) = (noise(3, channels), noise(4, channels));
            let x: Vec<f32> = noise(1, rows * channels).iter().map(|x| x * scale + shift).collect();
            let set = |i: usize| (i / channels, i % channels);
            for device in devices() {
                let x = stored(&device, &x);
                let exact = formula!(f64, &x, w, b, 1e-5f32, false, set);
                let plain = formula!(f32, &x, w, b, 1e-5f32, false, set);
                let (w, b) = (bytes(&w), bytes(&b));
                let shape = [channels];
                let norm = Norm::prepare(&device, 1, 1e-5, weight("w", &shape, Some(&w)), weight("b", &shape, Some(&b))).unwrap();
                let out = run(&device, |exec, out| keep(&layer_norm(exec, &norm, &exec.input([1, rows, channels], &x)?)?, out));
                assert_close(&device, &format!("{rows} x {channels} times {scale} + {shift}"), &out, &plain, &exact);
            }
        }
    }
}

#[test]
fn nan_spreads_over_its_group_only() {
    let mut input = Input::noise(2, [3, 4], 8, 0, 2);
    input.x.1[5] = f32::NAN;
    for device in devices() {
        for (i, y) in input.run(&device).iter().enumerate() {
            assert_eq!(y.is_nan(), i < 12 * 8 && i % 8 >= 4, "{i} on {}", label(&device));
        }
    }
}

#[test]
fn cases_count_what_the_operations_announce() {
    let device = Device::cpu(1).unwrap();
    let norm =
        |groups, channels| Norm::prepare(&device, groups, 0.1, weight("w", &[channels], None), weight("b", &[channels], None));
    let counted = |pass: &dyn Fn(&Exec<'_>) -> Result<()>| {
        let plan = Plan::record(&device, pass).unwrap();
        plan.ops().iter().map(|op| (op.flops, op.bytes)).collect::<Vec<_>>()
    };
    for case in group_cases() {
        let norm = norm(GroupCase::GROUPS, case.channels + case.skip).unwrap();
        let found = counted(&|e| {
            let x = e.alloc([case.batch, case.size, case.size, case.channels], DType::F32)?;
            let skip = match case.skip {
                0 => None,
                channels => Some(e.alloc([case.batch, case.size, case.size, channels], DType::F32)?),
            };
            group_norm(e, &norm, &x, skip.as_ref(), case.silu).map(drop)
        });
        assert_eq!(found, [(case.flops(), case.bytes(4))], "{case:?}");
    }
    for case in layer_cases() {
        let norm = norm(1, case.width).unwrap();
        let found = counted(&|e| layer_norm(e, &norm, &e.alloc([case.rows, case.width], DType::F32)?).map(drop));
        assert_eq!(found, [(case.flops(), case.bytes(4))], "{case:?}");
    }
}

#[test]
fn misfits_are_refused() {
    let device = Device::cpu(1).unwrap();
    let vector = |n: usize| weight("v", &[n], None);
    assert_shape_error(Norm::prepare(&device, 3, 0.1, vector(8), vector(8)), "8 channels in 3 groups");
    assert_shape_error(Norm::prepare(&device, 0, 0.1, vector(8), vector(8)), "0 groups");
    assert_shape_error(Norm::prepare(&device, 1, 0.1, vector(8), vector(7)), "[7]");
    assert_shape_error(Norm::prepare(&device, 1, 0.1, weight("m", &[2, 4], None), vector(8)), "[2, 4]");
    let norm = Norm::prepare(&device, 2, 0.1, vector(8), vector(8)).unwrap();
    let refuse =
        |op: &(dyn Fn(&Exec<'_>) -> Result<()> + Sync), part: &str| assert_shape_error(try_run(&device, |e, _| op(e)), part);
    refuse(&|e| group_norm(e, &norm, &e.input([1, 8], &[0.0; 8])?, None, false).map(|_| ()), "[B, H, W, C]");
    refuse(&|e| group_norm(e, &norm, &e.input([1, 1, 1, 4], &[0.0; 4])?, None, false).map(|_| ()), "norm of 8");
    refuse(&|e| layer_norm(e, &norm, &e.input([1, 8], &[0.0; 8])?).map(|_| ()), "2 groups");
    refuse(&|e| group_norm(e, &norm, &e.input([1, 0, 1, 8], &[])?, None, false).map(|_| ()), "[1, 0, 1, 8]");
    let layer = Norm::prepare(&device, 1, 0.1, vector(8), vector(8)).unwrap();
    refuse(&|e| layer_norm(e, &layer, &e.input([0, 8], &[])?).map(|_| ()), "[0, 8]");
    let wide = |e: &Exec<'_>| {
        let (x, skip) = (e.input([1, 1, 2, 4], &[0.0; 8])?, e.input([1, 2, 1, 4], &[0.0; 8])?);
        group_norm(e, &norm, &x, Some(&skip), false).map(|_| ())
    };
    refuse(&wide, "skip connection");
}

/// A model can be recorded before its weights exist.
#[test]
fn declared_weights_can_be_recorded() {
    let device = Device::cpu(1).unwrap();
    let norm = Norm::prepare(&device, 2, 0.1, weight("w", &[8], None), weight("b", &[8], None)).unwrap();
    let input = Input::noise(1, [2, 2], 8, 0, 2);
    let plan = Plan::record(&device, |exec| input.pass(exec, &norm).map(|_| ())).unwrap();
    assert_eq!(plan.ops()[0].bytes, 12 * 32);
}
