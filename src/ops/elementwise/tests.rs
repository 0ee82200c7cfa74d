use super::*;
use crate::ops::testing::{assert_close, assert_shape_error, devices, keep, noise, run, try_run};

/// Lane and task edges, one less, one more, and primes.
const LENGTHS: [usize; 9] = [1, 3, 4, 15, 16, 17, 16_383, 16_385, 40_009];

type Unary = for<'e> fn(&'e Exec<'_>, &Tensor<'_>) -> Result<Tensor<'e>>;

fn run_unary(device: &Device, x: &[f32], op: Unary) -> Vec<f32> {
    run(device, |exec, out| {
        let x = exec.input([1, x.len()], x)?;
        keep(&op(exec, &x)?, out)
    })
}

#[test]
fn silu_is_close() {
    for device in devices() {
        for len in LENGTHS {
            let x: Vec<f32> = noise(1, len).iter().map(|x| 20.0 * x).collect();
            let exact: Vec<f64> = x.iter().map(|&x| f64::from(x) / (1.0 + f64::from(-x).exp())).collect();
            let plain: Vec<f32> = x.iter().map(|&x| x / (1.0 + (-x).exp())).collect();
            assert_close("silu", &run_unary(&device, &x, silu), &plain, &exact, 24);
        }
    }
}

#[test]
fn sums_and_products_are_exact() {
    for device in devices() {
        for len in LENGTHS {
            let [x, y] = [1, 2].map(|seed| noise(seed, len));
            let scaled = run_unary(&device, &x, |exec, x| scale(exec, x, 0.18215));
            assert!(scaled.iter().zip(&x).all(|(s, x)| *s == x * 0.18215), "{len}");
            let sum = run(&device, |exec, out| {
                let (x, y) = (exec.input([len], &x)?, exec.input([len], &y)?);
                keep(&add(exec, &x, &y)?, out)
            });
            assert!(sum.iter().zip(&x).zip(&y).all(|((s, x), y)| *s == x + y), "{len}");
        }
    }
}

#[test]
fn guidance_leaves_the_unconditional_half() {
    // Quarters times a small integer: exact with and without fusing.
    let x: Vec<f32> = noise(3, 4 * 37).iter().map(|x| (x * 40.0).round() / 4.0).collect();
    let (u, c) = x.split_at(2 * 37);
    for device in devices() {
        let out = run(&device, |exec, out| {
            let guided = guidance(exec, &exec.input([4, 37], &x)?, 7.0)?;
            assert_eq!(guided.dims(), [2, 37]);
            keep(&guided, out)
        });
        assert!(out.iter().zip(u).zip(c).all(|((o, u), c)| *o == u + 7.0 * (c - u)));
    }
}

#[test]
fn batches_repeat_in_order() {
    let x = noise(4, 2 * 3 * 5);
    let out = run(&devices()[0], |exec, out| {
        let repeated = repeat_batch(exec, &exec.input([2, 3, 5], &x)?, 3)?;
        assert_eq!(repeated.dims(), [6, 3, 5]);
        keep(&repeated, out)
    });
    assert_eq!(out, x.repeat(3));
}

#[test]
fn one_position_of_each_sample_is_selected() {
    let x = noise(5, 3 * 4 * 7);
    let at = [2, 0, 3];
    let out = run(&devices()[0], |exec, out| {
        let selected = select_positions(exec, &exec.input([3, 4, 7], &x)?, |b| at[b])?;
        assert_eq!(selected.dims(), [3, 7]);
        keep(&selected, out)
    });
    let expected: Vec<f32> = (0..3).flat_map(|b| &x[(b * 4 + at[b]) * 7..][..7]).copied().collect();
    assert_eq!(out, expected);
}

/// Values of `diffusers.models.embeddings.get_timestep_embedding` 0.42.1 on torch 2.14.1.
#[test]
fn timestep_embedding_equals_diffusers() {
    let embed = |timesteps: &[f32], dim: usize, flip: bool, shift: f32| {
        run(&devices()[0], |exec, out| keep(&timestep_embedding(exec, timesteps, dim, flip, shift)?, out))
    };
    for (timesteps, dim, flip, shift, expected) in EMBEDDINGS {
        let out = embed(timesteps, dim, flip, shift);
        assert_eq!(out.len(), expected.len());
        for (o, e) in out.iter().zip(expected) {
            assert!((o - e).abs() <= 1.2e-7, "{out:?} for {expected:?}");
        }
    }
}

type EmbeddingCase = (&'static [f32], usize, bool, f32, &'static [f32]);
#[rustfmt::skip]
const EMBEDDINGS: [EmbeddingCase; 3] = [
    (&[999.0, 1.0], 8, true, 0.0, &[0.9996498, 0.80745506, -0.8444698, 0.54114354, -0.026460752, -0.5899291, -0.53560317, 0.8409302, 0.54030234, 0.9950042, 0.99995, 0.9999995, 0.84147096, 0.099833414, 0.009999833, 0.0009999998]),
    (&[501.0, 0.0], 7, false, 1.0, &[-0.9964717, -0.95603985, 0.05007904, -0.0839294, 0.29323685, 0.99874526, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]),
    (&[37.5], 10, true, 0.0, &[0.98024267, 0.94280934, 0.5882062, 0.9888769, 0.9997201, -0.1977988, -0.33333242, 0.808711, 0.14873627, 0.023658695]),
];

#[test]
fn pixels_round_half_to_even_and_saturate() {
    let device = &devices()[0];
    let exact = |x: f32| ((x * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
    let mut x: Vec<f32> = (-70_000..70_000).map(|i| i as f32 / 50_000.0).collect();
    x.extend([-1.0, 0.0, 1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -0.998_039_24, -0.988_235_3]);
    let mut pixels = vec![7; x.len()];
    let mut finite = true;
    run(device, |exec, _| {
        finite = to_pixels(exec, &exec.input([x.len()], &x)?, &mut pixels)?;
        Ok(())
    });
    assert!(!finite);
    for (x, p) in x.iter().zip(&pixels) {
        assert_eq!(*p, exact(*x), "{x}");
    }
    // 127.5 lies between 127 and 128.
    assert_eq!(pixels[140_000..140_006], [0, 128, 255, 255, 0, 0]);
    let wrong = try_run(device, |exec, _| to_pixels(exec, &exec.input([2], &[0.0; 2])?, &mut [0; 3]).map(drop));
    assert_shape_error(wrong, "into 3 bytes");
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

#[test]
fn misfits_are_refused() {
    let refuse = |op: fn(&Exec<'_>) -> Result<()>, part: &str| {
        assert_shape_error(try_run(&devices()[0], |exec, _| op(exec)), part);
    };
    refuse(|e| add(e, &e.input([2, 3], &[0.0; 6])?, &e.input([3, 2], &[0.0; 6])?).map(|_| ()), "[2, 3]");
    refuse(|e| guidance(e, &e.input([3, 2], &[0.0; 6])?, 1.0).map(|_| ()), "two halves");
    refuse(|e| repeat_batch(e, &e.input([3, 2], &[0.0; 6])?, 0).map(|_| ()), "0 times");
    refuse(|e| select_positions(e, &e.input([3, 2], &[0.0; 6])?, |_| 0).map(|_| ()), "not [B, T, C]");
    refuse(|e| select_positions(e, &e.input([3, 1, 2], &[0.0; 6])?, |b| b / 2).map(|_| ()), "position 1 of sample 2");
    refuse(|e| timestep_embedding(e, &[], 8, true, 0.0).map(|_| ()), "0 timesteps");
    refuse(|e| timestep_embedding(e, &[1.0], 1, true, 0.0).map(|_| ()), "1 channels");
    refuse(|e| timestep_embedding(e, &[1.0], 2, true, 1.0).map(|_| ()), "shift 1");
}
