//! The loop with networks of a few elementwise operations, against the scheduler of the CPU.

use super::*;
use crate::diffusion::schedulers::{SchedulerConfig, SchedulerName, create};
use crate::ops::elementwise::{repeat_batch, scale};
use crate::ops::testing::{gpus, label, noise, round_to};
use std::path::Path;

const SIZES: Sizes = Sizes { max_batch: 3, latents: [5, 3, 4], image: [5, 3, 4] };
const FACTOR: f32 = 0.182_15;

/// Part of its input; with guidance, its input and that part.
struct StandIn {
    halves: usize,
}

impl Network for StandIn {
    fn predict<'e>(&self, exec: &'e Exec<'_>, input: &Tensor<'_>) -> Result<Tensor<'e>> {
        let half = scale(exec, input, 0.3)?;
        if self.halves == 1 {
            return Ok(half);
        }
        let mut both = repeat_batch(exec, input, 2)?;
        both.copy_part(half.shape().len(), &half, 0, half.shape().len())?;
        Ok(both)
    }

    fn decode<'e>(&self, exec: &'e Exec<'_>, scaled: Tensor<'e>) -> Result<Tensor<'e>> {
        scale(exec, &scaled, 0.05)
    }
}

fn scheduler(name: SchedulerName, steps: usize) -> Box<dyn schedulers::Scheduler> {
    let json = serde_json::json!({
        "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000, "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1, "clip_sample": false
    });
    create(name, &SchedulerConfig::from_json(Path::new("c.json"), &json).unwrap(), steps).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Final latents `[C, h, w]` of one sample, on slices.
fn expected(
    device: &Device,
    scheduler: &mut dyn schedulers::Scheduler,
    rng: RngKind,
    sample: &Sample<'_>,
    scale: Option<f32>,
) -> Vec<f32> {
    let (len, channels) = (SIZES.len(), SIZES.latents[2]);
    let round = |x: f32| round_to(device.storage(), x);
    let (mut source, mut planes, mut x) = (SampleNoise::new(rng, sample.seed), vec![0.0; len], vec![0.0; len]);
    match sample.latents {
        Some(given) => planes.copy_from_slice(given),
        None => source.fill_normal(0, &mut planes),
    }
    planes.iter_mut().for_each(|x| *x *= scheduler.init_noise_sigma());
    to_channels_last(&planes, channels, &mut x);
    scheduler.reset();
    for i in 0..scheduler.timesteps().len() {
        let predict = |x: &f32| {
            let u = round(x * scheduler.scale_input(i));
            let c = round(u * 0.3);
            scale.map_or(c, |scale| scale.mul_add(c - u, u))
        };
        let output: Vec<f32> = x.iter().map(predict).collect();
        let fill = &mut |out: &mut [f32]| {
            source.fill_normal(1 + i as u32, &mut planes);
            to_channels_last(&planes, channels, out);
        };
        scheduler.step(i, &output, &mut x, fill).unwrap();
    }
    to_channels_first(&x, channels, &mut planes);
    planes
}

/// Samples of which the second brings its latents.
fn samples<'a>(seeds: &[u64], given: &'a [f32]) -> Vec<Sample<'a>> {
    let latents = |i| (i == 1).then_some(given);
    seeds.iter().enumerate().map(|(i, &seed)| Sample { ids: &[], seed, latents: latents(i) }).collect()
}

fn denoised(on_gpu: &mut OnGpu, device: &Device, arena: &mut Arena, batch: &[Sample<'_>], halves: usize) -> Vec<Generated> {
    on_gpu.capture(device, arena, batch.len(), FACTOR, &StandIn { halves }).unwrap();
    let mut noise = on_gpu.begin(batch).unwrap();
    (0..on_gpu.stochastic.len()).for_each(|i| on_gpu.step(batch.len(), i, &mut noise).unwrap());
    (0..batch.len()).map(|i| on_gpu.decode(i).unwrap()).collect()
}

/// Every scheduler, with and without guidance, with noise of both kinds; batches of several sizes in one loop, one after the other.
#[test]
fn final_latents_are_those_of_a_cpu() {
    let given = noise(8, SIZES.len());
    for device in gpus() {
        for (i, name) in SchedulerName::all().enumerate() {
            for scale in [None, Some(1.7)] {
                let (mut scheduler, rng) = (scheduler(name, 3 + i % 5), RngKind::ALL[(i + usize::from(scale.is_some())) % 2]);
                let guidance = scale.map_or(Guidance::None, Guidance::Scale);
                let mut on_gpu = OnGpu::new(&device, scheduler.plan(), SIZES, rng, guidance).unwrap();
                let mut arena = Arena::new();
                for seeds in [&[3, 4, 5][..], &[9], &[6, u64::MAX], &[1, 2, 3]] {
                    let batch = samples(seeds, &given);
                    let images = denoised(&mut on_gpu, &device, &mut arena, &batch, 1 + usize::from(scale.is_some()));
                    for (sample, image) in batch.iter().zip(&images) {
                        let what = format!("{name}, {rng}, {scale:?}, seed {} on {}", sample.seed, label(&device));
                        let latents = expected(&device, &mut *scheduler, rng, sample, scale);
                        assert_eq!(bits(&image.latents), bits(&latents), "{what}");
                        assert!(image.finite, "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn pixels_are_those_of_the_latents_and_flaws_harm_no_other() {
    let mut given = noise(8, SIZES.len());
    for device in gpus() {
        let scheduler = scheduler(SchedulerName::UniPc, 4);
        let mut on_gpu = OnGpu::new(&device, scheduler.plan(), SIZES, RngKind::Philox, Guidance::None).unwrap();
        let mut arena = Arena::new();
        given[7] = f32::NAN;
        let flawed = denoised(&mut on_gpu, &device, &mut arena, &samples(&[1, 2, 3], &given), 1);
        assert_eq!(flawed.iter().map(|image| image.finite).collect::<Vec<_>>(), [true, false, true]);
        given[7] = 0.0;
        let images = denoised(&mut on_gpu, &device, &mut arena, &samples(&[1, 2, 3], &given), 1);
        for (i, image) in images.iter().enumerate() {
            assert!(image.finite && (i == 1 || image.pixels == flawed[i].pixels && image.latents == flawed[i].latents));
            let mut last = vec![0.0; SIZES.len()];
            to_channels_last(&image.latents, SIZES.latents[2], &mut last);
            let round = |x: f32| round_to(device.storage(), x);
            let pixel =
                |&x: &f32| ((round(round(x / FACTOR) * 0.05) * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
            assert_eq!(image.pixels, last.iter().map(pixel).collect::<Vec<_>>(), "sample {i} on {}", label(&device));
        }
    }
}

#[test]
fn later_batches_take_no_memory_of_the_gpu() {
    let given = noise(8, SIZES.len());
    for device in gpus() {
        let Device::Gpu(gpu) = &device else { panic!("a CPU") };
        let scheduler = scheduler(SchedulerName::EulerAncestral, 3);
        for rng in RngKind::ALL {
            let mut on_gpu = OnGpu::new(&device, scheduler.plan(), SIZES, rng, Guidance::Scale(2.0)).unwrap();
            let mut arena = Arena::new();
            let mut round = |seeds: &[u64]| drop(denoised(&mut on_gpu, &device, &mut arena, &samples(seeds, &given), 2));
            let before = gpu.allocations();
            [&[1, 2, 3][..], &[1]].into_iter().for_each(&mut round);
            let after = gpu.allocations();
            assert!(after > before || !gpu.is_simulated(), "the counter counts");
            [&[4, 5, 6][..], &[7], &[1, 2, 3]].into_iter().for_each(&mut round);
            assert_eq!(gpu.allocations(), after, "{rng} on {}", label(&device));
        }
    }
}
