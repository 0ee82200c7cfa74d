//! Every scheduler against its namesake in diffusers: timesteps, initial sigma, and latents along the run.
//! The golden file is written by `tools/golden/schedulers.py`, which says what the model and the noise are.

use std::path::Path;

use serde_json::Value;
use syntic::diffusion::schedulers::{Scheduler, SchedulerConfig, create};
use syntic::{Error, Result};

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/schedulers/schedulers.json")).unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn describe(case: &Value) -> String {
    format!("{} x {}, config {}", case["name"], case["steps"], case["config"])
}

fn scheduler(golden: &Value, case: &Value) -> Result<Box<dyn Scheduler>> {
    let config = &golden["configs"][case["config"].as_u64().unwrap() as usize];
    let config = SchedulerConfig::verbatim(Path::new("scheduler_config.json"), config)?;
    create(case["name"].as_str().unwrap().parse()?, &config, case["steps"].as_u64().unwrap() as usize)
}

/// ||a - b|| / ||b||
fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let sum = |f: &dyn Fn(usize) -> f64| (0..a.len()).map(f).sum::<f64>().sqrt();
    sum(&|i| f64::from(a[i] - b[i]).powi(2)) / sum(&|i| f64::from(b[i]).powi(2))
}

/// 1e-5, and what f32 loses in diffusers when a latent of size sigma cancels down to size 1 in one step. That shows only
/// with `rescale_betas_zero_snr`, where sigma is 4096.
fn tolerance(case: &Value) -> f64 {
    1e-5 + 1e-8 * case["init_noise_sigma"].as_f64().unwrap()
}

/// Runs the fake model of the golden script; calls `check` with the latents after each evaluation.
fn run(golden: &Value, scheduler: &mut dyn Scheduler, check: &mut dyn FnMut(usize, &[f32])) {
    let noise: Vec<Vec<f32>> = golden["noise"].as_array().unwrap().iter().map(floats).collect();
    let mut draws = noise.iter().cycle();
    let sigma = scheduler.init_noise_sigma();
    let mut x: Vec<f32> = floats(&golden["latent"]).iter().map(|v| v * sigma).collect();
    for i in 0..scheduler.timesteps().len() {
        let (scale, t) = (scheduler.scale_input(i), scheduler.timesteps()[i]);
        let m: Vec<f32> = x.iter().map(|v| 0.8 * (v * scale + 0.003 * t).sin()).collect();
        scheduler.step(i, &m, &mut x, &mut |out| out.copy_from_slice(draws.next().unwrap())).unwrap();
        check(i, &x);
    }
}

#[test]
fn schedulers_equal_diffusers() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 250);
    let mut problems = Vec::new();
    let mut worst = (0.0, String::new());
    for case in cases {
        let name = describe(case);
        let mut scheduler = match scheduler(&golden, case) {
            Ok(scheduler) => scheduler,
            Err(error) => {
                problems.push(format!("{name}: {error}"));
                continue;
            }
        };
        let expected = floats(&case["timesteps"]);
        let close = |(a, b): (&f32, &f32)| if b.fract() == 0.0 { a == b } else { (a - b).abs() <= 1e-4 * b.abs() };
        if scheduler.timesteps().len() != expected.len() || !scheduler.timesteps().iter().zip(&expected).all(close) {
            problems.push(format!("{name}: timesteps {:?}, expected {expected:?}", scheduler.timesteps()));
            continue;
        }
        let sigma = case["init_noise_sigma"].as_f64().unwrap() as f32;
        if relative_error(&[scheduler.init_noise_sigma()], &[sigma]) > 1e-6 {
            problems.push(format!("{name}: initial sigma {}, expected {sigma}", scheduler.init_noise_sigma()));
        }
        run(&golden, scheduler.as_mut(), &mut |i, x| {
            if let Some(expected) = case["after"].get(i.to_string()) {
                let error = relative_error(x, &floats(expected));
                if error > worst.0 {
                    worst = (error, format!("{name} after evaluation {i}"));
                }
                if error.is_nan() || error > tolerance(case) {
                    problems.push(format!("{name}: relative error {error:.1e} after evaluation {i}"));
                }
            }
        });
    }
    eprintln!("worst relative error {:.1e}: {}", worst.0, worst.1);
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

/// Where diffusers itself raises or gives NaN, we say so before anything runs.
#[test]
fn what_diffusers_cannot_run_is_a_usage_error() {
    let golden = golden();
    let cases = golden["refused"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        match scheduler(&golden, case) {
            Err(Error::Usage { .. }) => {}
            Err(other) => panic!("{}: {other}", describe(case)),
            Ok(_) => panic!("{} was accepted; diffusers: {}", describe(case), case["error"]),
        }
    }
}

/// A scheduler is used for batch after batch: what an earlier one left must not matter, NaN included.
#[test]
fn a_second_run_equals_the_first() {
    let golden = golden();
    for case in golden["cases"].as_array().unwrap().iter().filter(|case| case["steps"] == 5 || case["steps"] == 6) {
        let mut scheduler = scheduler(&golden, case).unwrap();
        for i in 0..scheduler.timesteps().len() {
            scheduler.step(i, &[f32::NAN; 3], &mut [f32::NAN; 3], &mut |out| out.fill(f32::NAN)).unwrap();
        }
        for _ in 0..2 {
            scheduler.reset();
            let mut last = Vec::new();
            run(&golden, scheduler.as_mut(), &mut |_, x| last = x.to_vec());
            let (_, expected) = case["after"].as_object().unwrap().iter().next_back().unwrap();
            let error = relative_error(&last, &floats(expected));
            assert!(error <= tolerance(case), "{}: {error:.1e}", describe(case));
        }
    }
}
