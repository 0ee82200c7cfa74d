use super::*;
use crate::device::{Plan, Precision, Statistics};
use crate::ops::gemm::testing::host;
use crate::ops::gemm::{Activation, Linear, linear};
use crate::ops::testing::{assert_close, assert_shape_error, cpus, devices, gpus, keep, label, noise, run, stored, try_run};
use crate::tensor::DType;

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
            let x: Vec<f32> = stored(&device, &noise(1, len).iter().map(|x| 20.0 * x).collect::<Vec<_>>());
            let exact: Vec<f64> = x.iter().map(|&x| f64::from(x) / (1.0 + f64::from(-x).exp())).collect();
            let plain: Vec<f32> = x.iter().map(|&x| x / (1.0 + (-x).exp())).collect();
            assert_close(&device, "silu", &run_unary(&device, &x, silu), &plain, &exact);
        }
    }
}

#[test]
fn sums_and_products_are_exact() {
    for device in devices() {
        for len in LENGTHS {
            let [x, y] = [1, 2].map(|seed| stored(&device, &noise(seed, len)));
            let scaled = run_unary(&device, &x, |exec, x| scale(exec, x, 0.18215));
            let expected: Vec<f32> = x.iter().map(|x| x * 0.18215).collect();
            assert!(scaled == stored(&device, &expected), "{len} on {}", label(&device));
            let sum = run(&device, |exec, out| {
                let (x, y) = (exec.input([len], &x)?, exec.input([len], &y)?);
                keep(&add(exec, &x, &y)?, out)
            });
            let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
            assert!(sum == stored(&device, &expected), "{len} on {}", label(&device));
        }
    }
}

#[test]
fn guidance_leaves_the_unconditional_half() {
    // Quarters times a small integer: exact with and without fusing, and before the sums in every storage type.
    let x: Vec<f32> = noise(3, 4 * 37).iter().map(|x| (x * 40.0).round() / 4.0).collect();
    let (u, c) = x.split_at(2 * 37);
    for device in devices() {
        let out = run(&device, |exec, out| {
            let guided = guidance(exec, &exec.input([4, 37], &x)?, 7.0)?;
            assert_eq!(guided.dims(), [2, 37]);
            keep(&guided, out)
        });
        let expected: Vec<f32> = u.iter().zip(c).map(|(u, c)| u + 7.0 * (c - u)).collect();
        assert_eq!(out, stored(&device, &expected), "{}", label(&device));
        // The difference, 2049, is none of the numbers that a GPU stores.
        let far = run(&device, |exec, out| keep(&guidance(exec, &exec.input([2, 1], &[-2048.0, 1.0])?, 1.0)?, out));
        assert_eq!(far, [1.0], "{}", label(&device));
    }
}

#[test]
fn batches_repeat_in_order() {
    for device in devices() {
        let x = stored(&device, &noise(4, 2 * 3 * 5));
        let out = run(&device, |exec, out| {
            let repeated = repeat_batch(exec, &exec.input([2, 3, 5], &x)?, 3)?;
            assert_eq!(repeated.dims(), [6, 3, 5]);
            keep(&repeated, out)
        });
        assert_eq!(out, x.repeat(3), "{}", label(&device));
    }
}

/// What is normalised next is the repeated batch, with the statistics of the product before.
#[test]
fn statistics_repeat_with_their_batch() {
    let (weight, sizes) = (noise(7, 80 * 8), [2, 32, 8]);
    for device in gpus() {
        for kind in [Statistics::Rows, Statistics::Channels] {
            let layer =
                Linear::prepare(&device, Precision::F32, &[(host(&weight, &[80, 8]), None)]).unwrap().with_statistics(kind);
            let statistics = |times| {
                run(&device, |exec, out| {
                    let x = linear(exec, &layer, &exec.input(sizes, &noise(8, 2 * 32 * 8))?, Activation::None, None)?;
                    let x = if times > 1 { repeat_batch(exec, &x, times)? } else { x };
                    keep(&x.statistics(kind).expect("statistics"), out)
                })
            };
            assert_eq!(statistics(3), statistics(1).repeat(3), "{kind:?} on {}", label(&device));
        }
    }
}

/// Of another last extent, or written to, they would be those of something else.
#[test]
fn statistics_stay_with_what_they_describe() {
    for device in gpus() {
        let layer = Linear::prepare(&device, Precision::F32, &[(host(&[1.0; 80 * 8], &[80, 8]), None)]).unwrap();
        let layer = layer.with_statistics(Statistics::Rows);
        run(&device, |exec, out| {
            let x = linear(exec, &layer, &exec.input([2, 8], &[1.0; 16])?, Activation::None, None)?.reshape([1, 2, 80]);
            assert!(x.statistics(Statistics::Rows).is_some());
            let x = x.reshape([4, 40]);
            assert!(x.attached_statistics().is_none());
            keep(&x, out)
        });
    }
}

#[test]
fn one_position_of_each_sample_is_selected() {
    let at = [2, 0, 3];
    for device in devices() {
        // Rows that are vectors, and rows that are not.
        for width in [7, 8, 4096] {
            let x = stored(&device, &noise(5, 3 * 4 * width));
            let out = run(&device, |exec, out| {
                let selected = select_positions(exec, &exec.input([3, 4, width], &x)?, |b| at[b])?;
                assert_eq!(selected.dims(), [3, width]);
                keep(&selected, out)
            });
            let expected: Vec<f32> = (0..3).flat_map(|b| &x[(b * 4 + at[b]) * width..][..width]).copied().collect();
            assert_eq!(out, expected, "{width} on {}", label(&device));
        }
    }
}

/// Values of `diffusers.models.embeddings.get_timestep_embedding` 0.42.1 on torch 2.14.1.
#[test]
fn timestep_embedding_equals_diffusers() {
    for device in devices() {
        for (timesteps, dim, flip, shift, expected) in EMBEDDINGS {
            let out = run(&device, |exec, out| keep(&timestep_embedding(exec, timesteps, dim, flip, shift)?, out));
            let exact: Vec<f64> = expected.iter().map(|&e| e.into()).collect();
            // 1.2e-7: that much the sines of torch differ from ours.
            let plain: Vec<f32> = expected.iter().map(|e| e + 6e-8).collect();
            assert_close(&device, "timesteps", &out, &plain, &exact);
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
fn cases_count_what_the_operation_announces() {
    for case in cases() {
        let shape = [case.rows, case.width];
        let pass = |e: &Exec<'_>| add(e, &e.alloc(shape, DType::F32)?, &e.alloc(shape, DType::F32)?).map(drop);
        let plan = Plan::record(&cpus()[0], pass).unwrap();
        assert_eq!((plan.ops()[0].flops, plan.ops()[0].bytes), (case.flops(), case.bytes(4)), "{case:?}");
    }
}

#[test]
fn misfits_are_refused() {
    let refuse = |op: fn(&Exec<'_>) -> Result<()>, part: &str| {
        assert_shape_error(try_run(&cpus()[0], |exec, _| op(exec)), part);
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
