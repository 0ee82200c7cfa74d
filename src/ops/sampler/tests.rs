use super::*;
use crate::ops::testing::{assert_shape_error, devices, gpus, label, noise, round_to, run, stored, try_run};
use crate::rng::Philox;

/// Height, width, channels: one block of threads, its edges, one more than two blocks, and channels of no power of two.
const SHAPES: [[usize; 3]; 6] = [[1, 1, 1], [1, 3, 4], [17, 15, 1], [257, 1, 1], [19, 9, 3], [11, 12, 4]];

const SEEDS: [u64; 4] = [0, 7, u64::MAX, 1 << 32];

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Adds the values of a tensor to `out`.
fn append(tensor: &Tensor<'_>, out: &mut Vec<f32>) -> Result<()> {
    let start = out.len();
    out.resize(start + tensor.shape().len(), f32::NAN);
    tensor.read_f32(&mut out[start..])
}

/// Draw `stream` of the sample with this seed, `[h, w, C]`.
fn drawn(seed: u64, stream: u32, [height, width, channels]: [usize; 3]) -> Vec<f32> {
    let positions = height * width;
    let mut planes = vec![0.0; positions * channels];
    Philox::new(seed).fill_normal(stream, &mut planes);
    (0..planes.len()).map(|i| planes[i % channels * positions + i / channels]).collect()
}

fn batch_of(shape: [usize; 3], samples: usize) -> Shape {
    Shape::from([samples, shape[0], shape[1], shape[2]])
}

/// Latents and input after [`start`], then base and history. Sample number `given` has latents already.
fn started(device: &Device, shape: [usize; 3], seeds: &[u64], given: Option<usize>, values: &[f32], factors: Start) -> Vec<f32> {
    let rows: Vec<u32> = seeds.iter().enumerate().flat_map(|(i, &seed)| source(seed, given == Some(i))).collect();
    let (samples, batch) = (seeds.len(), batch_of(shape, seeds.len()));
    let dims = batch.dims();
    run(device, |exec, out| {
        let mut state = State {
            latents: exec.input_as(batch, DType::F32, values)?,
            base: exec.alloc(batch, DType::F32)?,
            history: exec.alloc([HISTORY * samples, dims[1], dims[2], dims[3]], DType::F32)?,
            input: exec.alloc(batch, exec.storage())?,
            samples: exec.input_u32([samples, SAMPLE_WORDS], &rows)?,
        };
        start(exec, &mut state, factors)?;
        out.clear();
        [&state.latents, &state.input, &state.base, &state.history].iter().try_for_each(|tensor| append(tensor, out))
    })
}

#[test]
fn initial_latents_are_those_of_a_cpu() {
    let factors = Start { sigma: 14.614_647, input_scale: 0.068_265_51 };
    for device in gpus() {
        for shape in SHAPES {
            let len = shape.iter().product::<usize>();
            let values = noise(1, SEEDS.len() * len);
            for given in [None, Some(1)] {
                let actual = started(&device, shape, &SEEDS, given, &values, factors);
                let (latents, rest) = actual.split_at(values.len());
                let (input, kept) = rest.split_at(values.len());
                for (i, &seed) in SEEDS.iter().enumerate() {
                    let what = format!("{shape:?}, seed {seed}, given {given:?}, {}", label(&device));
                    let part = i * len..(i + 1) * len;
                    let expected: Vec<f32> = match given == Some(i) {
                        true => values[part.clone()].to_vec(),
                        false => drawn(seed, 0, shape).iter().map(|z| z * factors.sigma).collect(),
                    };
                    assert_eq!(bits(&latents[part.clone()]), bits(&expected), "{what}");
                    let scaled: Vec<f32> = expected.iter().map(|x| x * factors.input_scale).collect();
                    assert_eq!(bits(&input[part]), bits(&stored(&device, &scaled)), "{what}");
                }
                assert!(kept.len() == (1 + HISTORY) * values.len() && kept.iter().all(|x| x.to_bits() == 0));
            }
        }
    }
}

#[test]
fn a_draw_does_not_depend_on_batch_or_place() {
    let (shape, factors) = ([5, 13, 4], Start { sigma: 1.0, input_scale: 1.0 });
    let len = 5 * 13 * 4;
    for device in gpus() {
        let draw = |seeds: &[u64]| started(&device, shape, seeds, None, &vec![0.0; seeds.len() * len], factors);
        let alone = draw(&[42]);
        for (place, seeds) in [(0, &[42, 1][..]), (2, &[5, 6, 42]), (1, &[42 << 32, 42, 42 ^ 1, 9])] {
            assert_eq!(bits(&draw(seeds)[place * len..][..len]), bits(&alone[..len]), "{seeds:?}");
        }
    }
}

/// A step with weights for everything.
fn weights(seed: u64, noise_weight: f32) -> StepWeights {
    let w = noise(seed, 18);
    StepWeights {
        keep_slot: (seed % 5) as u32,
        keep_sample: w[0],
        keep_output: w[1],
        keep_previous: w[2],
        set_base: (seed % 2) as u32,
        base: w[3..10].try_into().unwrap(),
        update: w[10..17].try_into().unwrap(),
        noise: noise_weight,
        stream: 3 + seed as u32,
        input_scale: 1.5 * w[17],
    }
}

/// What a step sees and changes.
struct Values {
    latents: Vec<f32>,
    base: Vec<f32>,
    history: Vec<f32>,
}

impl Values {
    fn new(count: usize) -> Values {
        Values { latents: noise(2, count), base: noise(3, count), history: noise(4, HISTORY * count) }
    }

    /// The formula, as it is written; then the next input.
    fn step(&mut self, w: &StepWeights, prediction: &[f32], guidance: Guidance, z: &[f32]) -> Vec<f32> {
        let count = self.latents.len();
        let blend = |w: &[f32; 7], x: f32, m: f32, b: f32, h: &[f32]| {
            (w[0] * x + w[1] * m) + (w[2] * b + ((w[3] * h[0] + w[4] * h[1]) + (w[5] * h[2] + w[6] * h[3])))
        };
        let step = |i: usize| {
            let (x, u) = (self.latents[i], prediction[i]);
            let m = match guidance {
                Guidance::None => u,
                Guidance::Scale(scale) => scale.mul_add(prediction[count + i] - u, u),
            };
            let mut h: Vec<f32> = (0..HISTORY).map(|k| self.history[k * count + i]).collect();
            if let Some(kept) = h.get_mut(w.keep_slot as usize) {
                *kept = w.keep_sample * x + w.keep_output * m + w.keep_previous * *kept;
            }
            let base = if w.set_base == 0 { self.base[i] } else { blend(&w.base, x, m, self.base[i], &h) };
            let mut next = blend(&w.update, x, m, base, &h);
            if w.noise != 0.0 {
                next += w.noise * z[i];
            }
            (0..HISTORY).for_each(|k| self.history[k * count + i] = h[k]);
            (self.latents[i], self.base[i]) = (next, base);
            next * w.input_scale
        };
        (0..count).map(step).collect()
    }
}

fn stepped(
    device: &Device,
    shape: Shape,
    w: &StepWeights,
    prediction: &[f32],
    guidance: Guidance,
    z: Option<&[f32]>,
) -> Vec<f32> {
    let dims = shape.dims();
    let (samples, values) = (dims[0], Values::new(shape.len()));
    let rows: Vec<u32> = SEEDS[..samples].iter().flat_map(|&seed| source(seed, false)).collect();
    run(device, |exec, out| {
        let mut state = State {
            latents: exec.input_as(shape, DType::F32, &values.latents)?,
            base: exec.input_as(shape, DType::F32, &values.base)?,
            history: exec.input_as([HISTORY * samples, dims[1], dims[2], dims[3]], DType::F32, &values.history)?,
            input: exec.alloc(shape, exec.storage())?,
            samples: exec.input_u32([samples, SAMPLE_WORDS], &rows)?,
        };
        let prediction = exec.input([prediction.len() / shape.len() * samples, dims[1], dims[2], dims[3]], prediction)?;
        let weights = exec.input_u32([StepWeights::WORDS], bytemuck::cast_slice(&[*w]))?;
        let z = z.map(|z| exec.input_as(shape, DType::F32, z)).transpose()?;
        step(exec, &mut state, &prediction, guidance, &weights, z.as_ref())?;
        out.clear();
        [&state.latents, &state.base, &state.history, &state.input].iter().try_for_each(|tensor| append(tensor, out))
    })
}

/// Where noise has no weight, none is read: not a NaN either.
#[test]
fn steps_are_those_of_the_formula() {
    for device in gpus() {
        for (i, shape) in SHAPES.into_iter().enumerate() {
            for (j, guidance) in [Guidance::None, Guidance::Scale(7.3)].into_iter().enumerate() {
                for (k, weight) in [0.0, 0.8, -1.3].into_iter().enumerate() {
                    let (batch, w) = (batch_of(shape, 1 + i % 3), weights((6 * i + 3 * j + k) as u64, weight));
                    let halves = if matches!(guidance, Guidance::None) { 1 } else { 2 };
                    let prediction = stored(&device, &noise(9, halves * batch.len()));
                    let own: Vec<f32> = SEEDS[..batch.dims()[0]].iter().flat_map(|&seed| drawn(seed, w.stream, shape)).collect();
                    let given = if weight == 0.0 { vec![f32::NAN; batch.len()] } else { noise(10, batch.len()) };
                    for z in [None, Some(&given)] {
                        let mut values = Values::new(batch.len());
                        let input = values.step(&w, &prediction, guidance, z.unwrap_or(&own));
                        let expected = [values.latents, values.base, values.history, stored(&device, &input)].concat();
                        let actual = stepped(&device, batch, &w, &prediction, guidance, z.map(Vec::as_slice));
                        assert!(bits(&actual) == bits(&expected), "{batch:?} {guidance:?} {w:?} on {}", label(&device));
                    }
                }
            }
        }
    }
}

#[test]
fn unscaled_latents_are_quotients() {
    for device in gpus() {
        for shape in SHAPES {
            let x: Vec<f32> = noise(5, shape.iter().product()).iter().map(|x| 9.0 * x).collect();
            let actual = run(&device, |exec, out| {
                let x = exec.input_as(batch_of(shape, 1), DType::F32, &x)?;
                out.clear();
                append(&unscale(exec, &x, 0.182_15)?, out)
            });
            let expected: Vec<f32> = x.iter().map(|x| x / 0.182_15).collect();
            assert_eq!(bits(&actual), bits(&stored(&device, &expected)), "{shape:?} on {}", label(&device));
        }
    }
}

#[test]
fn states_that_do_not_fit_are_refused() {
    for device in gpus() {
        let refuse = |samples: usize, prediction: [usize; 4], words: usize, guidance: Guidance, part: &str| {
            let result = try_run(&device, |exec, _| {
                let mut state = State {
                    latents: exec.alloc([2, 3, 1, 4], DType::F32)?,
                    base: exec.alloc([2, 3, 1, 4], DType::F32)?,
                    history: exec.alloc([8, 3, 1, 4], DType::F32)?,
                    input: exec.alloc([2, 3, 1, 4], exec.storage())?,
                    samples: exec.alloc([samples, SAMPLE_WORDS], DType::U32)?,
                };
                let (prediction, weights) = (exec.alloc(prediction, exec.storage())?, exec.alloc([words], DType::U32)?);
                step(exec, &mut state, &prediction, guidance, &weights, None)
            });
            assert_shape_error(result, part);
        };
        refuse(3, [2, 3, 1, 4], StepWeights::WORDS, Guidance::None, "samples Tensor([3, 4]");
        refuse(2, [4, 3, 1, 4], StepWeights::WORDS, Guidance::None, "prediction Tensor([4, 3");
        refuse(2, [2, 3, 1, 4], StepWeights::WORDS, Guidance::Scale(2.0), "prediction Tensor([2, 3");
        refuse(2, [2, 3, 1, 4], StepWeights::WORDS - 1, Guidance::None, "weights Tensor([21]");
    }
    let on_cpu = try_run(&Device::cpu(1).unwrap(), |exec, _| unscale(exec, &exec.alloc([1], DType::F32)?, 1.0).map(drop));
    assert!(on_cpu.unwrap_err().to_string().contains("slices"));
}

#[test]
fn pixels_round_half_to_even_and_saturate() {
    let exact = |x: f32| ((x * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
    for device in devices() {
        let convert = |x: &[f32]| {
            let (mut pixels, mut finite) = (vec![7; x.len()], false);
            run(&device, |exec, _| {
                finite = to_pixels(exec, &exec.input([x.len()], x)?, &mut pixels)?;
                Ok(())
            });
            (pixels, finite)
        };
        let mut x: Vec<f32> = (-70_000..70_000).map(|i| i as f32 / 50_000.0).collect();
        assert!(convert(&x).1);
        x.extend([-1.0, 0.0, 1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -0.998_039_24, -0.988_235_3]);
        let (pixels, finite) = convert(&x);
        assert!(!finite);
        for (x, p) in stored(&device, &x).iter().zip(&pixels) {
            assert_eq!(*p, exact(*x), "{x} on {}", label(&device));
        }
        // 127.5 lies between 127 and 128.
        assert_eq!(pixels[140_000..140_006], [0, 128, 255, 255, 0, 0]);
        let wrong = try_run(&device, |exec, _| to_pixels(exec, &exec.input([2], &[0.0; 2])?, &mut [0; 3]).map(drop));
        assert_shape_error(wrong, "into 3 bytes");
    }
}

#[test]
fn one_bad_value_is_found_anywhere() {
    let good = vec![f32::MAX; 200_000];
    assert!(all_finite(&good) && all_finite(&[]));
    for (at, bad) in [(0, f32::NAN), (65_535, f32::INFINITY), (199_999, f32::NEG_INFINITY)] {
        let mut values = good.clone();
        values[at] = bad;
        assert!(!all_finite(&values), "{bad} at {at}");
    }
}

/// Vectors, their edges and the elements after them.
#[test]
fn images_of_any_length_become_pixels() {
    let exact = |x: f32| ((x * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
    for device in devices() {
        for len in [1, 3, 7, 8, 9, 12 * 3, 255, 2049] {
            for bad in [None, Some(0), Some(len - 1), Some(len / 2)] {
                let mut x = noise(6, len);
                bad.into_iter().for_each(|at| x[at] = f32::NEG_INFINITY);
                let (mut pixels, mut finite) = (vec![7; len], false);
                run(&device, |exec, _| {
                    finite = to_pixels(exec, &exec.input([len], &x)?, &mut pixels)?;
                    Ok(())
                });
                let expected: Vec<u8> = x.iter().map(|&x| exact(round_to(device.storage(), x))).collect();
                assert!(pixels == expected && finite == bad.is_none(), "{len}, {bad:?} on {}", label(&device));
            }
        }
    }
}
