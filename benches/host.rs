//! The work around the networks: what each image costs on the host beside its denoising.
//!
//!     cargo bench --bench host

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use syntic::rng::{Philox, TorchCpu};
use syntic::shards::{ImageFormat, encode_image};
use syntic::tokenizer::ClipTokenizer;
use syntic::weights::{Arch, write_model_folder};

const CAPTION: &str = "A man in a red jacket is riding a bicycle past two dogs on a wet street at night.";

fn tokenizer(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = folder.path().join("model");
    let nothing = |_, _: &std::path::Path| Ok(Vec::new());
    write_model_folder(&model, Arch::Tiny, syntic::tensor::DType::F16, 0, &nothing).expect("a model folder");
    let tokenizer = ClipTokenizer::open(&model.join("tokenizer")).expect("a tokenizer");
    c.bench_function("tokenize a caption", |b| b.iter(|| tokenizer.encode(black_box(CAPTION)).expect("ids").ids));
}

/// Initial latents of one 512 x 512 image.
fn noise(c: &mut Criterion) {
    let mut latents = vec![0.0f32; 4 * 64 * 64];
    let mut group = c.benchmark_group("normals");
    group.throughput(Throughput::Elements(latents.len() as u64));
    group.bench_function("philox", |b| b.iter(|| Philox::new(black_box(7)).fill_normal(0, &mut latents)));
    group.bench_function("torch-cpu", |b| b.iter(|| TorchCpu::new(black_box(7)).fill_normal(&mut latents)));
    group.finish();
}

/// A smooth picture with some grain, as decoded images are.
fn encoding(c: &mut Criterion) {
    let (width, height) = (512u32, 512u32);
    let pixel = |i: u32| ((i % width) / 3 + (i / width) / 4 + i.wrapping_mul(2_654_435_761) % 17) as u8;
    let pixels: Vec<u8> = (0..width * height).flat_map(|i| [pixel(i), pixel(i) / 2, 255 - pixel(i)]).collect();
    let mut group = c.benchmark_group("encode 512x512");
    group.throughput(Throughput::Elements(1));
    for format in ImageFormat::ALL {
        group.bench_function(format.extension(), |b| {
            b.iter(|| encode_image(format, 95, width, height, black_box(&pixels)).expect("an image").len())
        });
    }
    group.finish();
}

criterion_group!(host, tokenizer, noise, encoding);
criterion_main!(host);
