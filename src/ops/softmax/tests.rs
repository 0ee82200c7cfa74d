use super::*;
use crate::device::Plan;
use crate::ops::testing::{assert_close, assert_shape_error, cpus, devices, keep, label, noise, run, stored, try_run};
use crate::tensor::DType;

fn run_on(device: &Device, shape: [usize; 2], x: &[f32], scale: f32) -> Vec<f32> {
    run(device, |exec, out| keep(&softmax(exec, &exec.input(shape, x)?, scale)?, out))
}

macro_rules! formula {
    ($f:ident, $x:expr, $width:expr, $scale:expr) => {{
        let rows = $x.chunks($width).map(|row| {
            let scaled: Vec<$f> = row.iter().map(|&x| x as $f * $scale as $f).collect();
            let largest = scaled.iter().fold($f::NEG_INFINITY, |a, &b| a.max(b));
            let exponentials: Vec<$f> = scaled.iter().map(|x| (x - largest).exp()).collect();
            let sum: $f = exponentials.iter().sum();
            exponentials.into_iter().map(move |e| e / sum).collect::<Vec<$f>>()
        });
        rows.flatten().collect::<Vec<$f>>()
    }};
}

/// One element, vector edges, the threads of a block and more, primes.
#[test]
fn rows_follow_the_formula_at_odd_sizes() {
    for (rows, width) in [(1, 1), (7, 3), (5, 8), (3, 77), (2, 255), (2, 256), (3, 257), (1, 2048), (2, 2056), (2, 5003)] {
        for (spread, scale) in [(1.0, 1.0), (30.0, 1.0), (100.0, 0.125), (3.0, -2.0)] {
            for device in devices() {
                let x = stored(&device, &noise(1, rows * width).iter().map(|x| x * spread).collect::<Vec<_>>());
                let (exact, plain) = (formula!(f64, x, width, scale), formula!(f32, x, width, scale));
                let what = format!("{rows} x {width}, {spread} times {scale}");
                assert_close(&device, &what, &run_on(&device, [rows, width], &x, scale), &plain, &exact);
            }
        }
    }
}

#[test]
fn equal_elements_share_and_a_far_one_takes_all() {
    for device in devices() {
        for width in [4, 64, 512] {
            let out = run_on(&device, [1, width], &vec![7.25; width], 3.0);
            assert_eq!(out, vec![1.0 / width as f32; width], "{}", label(&device));
            let mut x = vec![-3000.0; width];
            x[width / 2] = 3000.0;
            let out = run_on(&device, [1, width], &x, 1.0);
            assert!(out.iter().enumerate().all(|(i, y)| *y == if i == width / 2 { 1.0 } else { 0.0 }), "{}", label(&device));
        }
    }
}

#[test]
fn infinities_and_nan_follow_pytorch() {
    const INF: f32 = f32::INFINITY;
    let rows = [[0.0, -INF, 0.0, -INF], [-INF; 4], [0.0, INF, 0.0, 0.0], [1.0, f32::NAN, 0.0, 0.0]];
    for device in devices() {
        let out = run_on(&device, [4, 4], &rows.concat(), 1.0);
        assert_eq!(out[..4], [0.5, 0.0, 0.5, 0.0], "{}", label(&device));
        for (i, row) in out[4..].chunks(4).enumerate() {
            assert!(row.iter().all(|y| y.is_nan()), "row {} is {row:?} on {}", i + 1, label(&device));
        }
    }
}

#[test]
fn rows_do_not_depend_on_each_other() {
    let width = 300;
    for device in devices() {
        let x = stored(&device, &noise(2, 5 * width));
        let whole = run_on(&device, [5, width], &x, 4.0);
        for (row, together) in x.chunks(width).zip(whole.chunks(width)) {
            assert_eq!(run_on(&device, [1, width], row, 4.0), together, "{}", label(&device));
        }
    }
}

#[test]
fn misfits_are_refused() {
    let device = &cpus()[0];
    let refuse = |shape: [usize; 2], scale, part| {
        let values = vec![0.0; shape[0] * shape[1]];
        assert_shape_error(try_run(device, |exec, _| softmax(exec, &exec.input(shape, &values)?, scale).map(drop)), part);
    };
    refuse([0, 4], 1.0, "[0, 4]");
    refuse([2, 4], f32::NAN, "NaN");
}

#[test]
fn cases_count_what_the_operation_announces() {
    for case in cases() {
        let pass = |e: &Exec<'_>| softmax(e, &e.alloc([case.rows, case.width], DType::F32)?, 1.0).map(drop);
        let plan = Plan::record(&cpus()[0], pass).unwrap();
        assert_eq!((plan.ops()[0].flops, plan.ops()[0].bytes), (case.flops(), case.bytes(4)), "{case:?}");
    }
}
