//! The normals of `syntic::rng` against torch's own and against an independent port of the Philox scheme, bit for bit.
//! The golden file is written by `tools/golden/rng.py`.

use serde_json::Value;
use sha2::{Digest, Sha256};
use syntic::rng::{Philox, TorchCpu};

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/rng/normals.json")).unwrap()
}

fn list<'a>(value: &'a Value, kind: &str) -> &'a [Value] {
    let list = value[kind].as_array().unwrap();
    assert!(!list.is_empty());
    list
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no number {key} in {value}"))
}

fn stored_bits(value: &Value) -> Vec<u32> {
    list(value, "bits").iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn digest(values: &[f32]) -> String {
    let mut hash = Sha256::new();
    values.iter().for_each(|v| hash.update(v.to_le_bytes()));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn torch_randn(seed: u64, size: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; size];
    TorchCpu::new(seed).fill_normal(&mut out);
    out
}

fn philox(seed: u64, stream: u64, size: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; size];
    Philox::new(seed).fill_normal(stream as u32, &mut out);
    out
}

#[test]
fn torch_cpu_equals_torch_randn() {
    let golden = &golden()["torch_randn"];
    for case in list(golden, "values") {
        let (seed, size) = (number(case, "seed"), number(case, "size") as usize);
        assert_eq!(bits(&torch_randn(seed, size)), stored_bits(case), "seed {seed}, {size} elements");
    }
    for case in list(golden, "digests") {
        let (seed, size) = (number(case, "seed"), number(case, "size") as usize);
        assert_eq!(digest(&torch_randn(seed, size)), case["sha256"], "seed {seed}, {size} elements");
    }
}

#[test]
fn torch_cpu_equals_torch_randn_for_thousands_of_seeds() {
    let golden = golden();
    let case = &golden["torch_randn"]["many_seeds"];
    let seeds = (0..number(case, "count")).map(|i| number(case, "first") + i * number(case, "step"));
    let all: Vec<f32> = seeds.flat_map(|seed| torch_randn(seed, number(case, "size") as usize)).collect();
    assert_eq!(digest(&all), case["sha256"]);
}

#[test]
fn torch_cpu_draws_follow_each_other_as_in_torch() {
    let golden = golden();
    let case = &golden["torch_randn"]["sequence"];
    let mut torch = TorchCpu::new(number(case, "seed"));
    let mut all = Vec::new();
    for size in list(case, "sizes") {
        let mut draw = vec![f32::NAN; size.as_u64().unwrap() as usize];
        torch.fill_normal(&mut draw);
        all.extend(draw);
    }
    assert_eq!(digest(&all), case["sha256"]);
}

#[test]
fn torch_cpu_equals_the_latents_of_a_diffusers_batch() {
    let golden = golden();
    let case = &golden["torch_randn"]["diffusers_batch"];
    let shape: Vec<usize> = list(case, "shape").iter().map(|v| v.as_u64().unwrap() as usize).collect();
    let seeds = list(case, "seeds").iter().map(|v| v.as_u64().unwrap());
    let all: Vec<f32> = seeds.flat_map(|seed| torch_randn(seed, shape[1..].iter().product())).collect();
    assert_eq!(all.len(), shape.iter().product::<usize>());
    assert_eq!(digest(&all), case["sha256"]);
}

#[test]
fn philox_normals_equal_an_independent_port() {
    let golden = &golden()["philox"];
    for case in list(golden, "values") {
        let (seed, stream, expected) = (number(case, "seed"), number(case, "stream"), stored_bits(case));
        assert_eq!(bits(&philox(seed, stream, expected.len())), expected, "seed {seed}, stream {stream}");
    }
    for case in list(golden, "digests") {
        let (seed, stream, size) = (number(case, "seed"), number(case, "stream"), number(case, "size") as usize);
        assert_eq!(digest(&philox(seed, stream, size)), case["sha256"], "seed {seed}, stream {stream}");
    }
}
