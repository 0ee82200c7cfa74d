//! The denoising loop takes no memory after its first step.

mod golden_support;

use golden_support::Case;
use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use syntic::device::{Device, Precision};
use syntic::diffusion::schedulers::{SchedulerName, create};
use syntic::diffusion::{Sample, Sampler, Savings, Settings, StableDiffusion};
use syntic::rng::RngKind;
use syntic::weights::ModelDir;

/// The system's allocator, counting while it is told to, on all threads.
struct Counting;

static COUNTS: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTS.load(Ordering::Relaxed) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations between the start of the second step and the end of the last one. One test only: others would be counted.
/// Each worker thread takes its scratch memory in its first product, which on a busy machine may come late: so the first
/// batch of all only warms up.
#[test]
fn the_denoising_loop_takes_no_memory() {
    let case = Case::open("sd1-tiny");
    let folder = ModelDir::open(case.folder.to_str().unwrap()).unwrap();
    let model = StableDiffusion::load(&folder, &Device::cpu(2).unwrap(), Precision::F32).unwrap();
    let golden = case.golden("pipeline");
    let (shape, ids) = golden.integers("ids.prompts");
    let mut counted = Vec::new();
    for scheduler in [SchedulerName::Pndm, SchedulerName::EulerAncestral, SchedulerName::UniPc, SchedulerName::Lcm] {
        for rng in [RngKind::Philox, RngKind::TorchCpu] {
            let settings = Settings {
                height: 64,
                width: 96,
                guidance: 7.5,
                negative: golden.integers("ids.empty").1,
                rng,
                savings: Savings::default(),
            };
            let steps = create(scheduler, &model.spec.scheduler, 40).unwrap();
            let mut sampler = Sampler::new(&model, steps, settings, 2).unwrap();
            let sample = |i: usize| Sample { ids: &ids[i * shape[1]..][..shape[1]], seed: 1, latents: None };
            if counted.is_empty() {
                sampler.generate(&[sample(0), sample(1)], &mut |_, _| ControlFlow::Continue(())).unwrap();
            }
            ALLOCATIONS.store(0, Ordering::Relaxed);
            let result = sampler.generate(&[sample(0), sample(1)], &mut |step, steps| {
                COUNTS.store(0 < step && step < steps, Ordering::Relaxed);
                ControlFlow::Continue(())
            });
            COUNTS.store(false, Ordering::Relaxed);
            result.unwrap();
            counted.push((scheduler.name(), rng.name(), ALLOCATIONS.load(Ordering::Relaxed)));
        }
    }
    assert!(counted.iter().all(|count| count.2 == 0), "allocations in the loop: {counted:?}");
    // The counter does count.
    COUNTS.store(true, Ordering::Relaxed);
    drop(std::hint::black_box(vec![0u8; 100]));
    COUNTS.store(false, Ordering::Relaxed);
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > 0);
}
