//! Long runs need no more memory than short ones.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use syntic::corpus::CorpusOptions;
use syntic::device::{Device, Gpu, Precision};
use syntic::diffusion::schedulers::SchedulerName;
use syntic::generate::{Batch, Event, Events, Output, Run, Sampling, Selection, Settings};
use syntic::rng::RngKind;
use syntic::shards::ImageFormat;
use syntic::tensor::DType;

/// What allocators and the kernel may add later, by chance: measured, less than 1 MiB.
const SLACK: u64 = 4 << 20;

/// Memory of this process that is in use, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

/// Looks at the memory at two images: after a warm-up, when queues, threads and allocators have taken what they keep and some shards are
/// finished, and at the last one.
struct Look {
    warm_up: u64,
    last: u64,
    warm: AtomicU64,
    end: AtomicU64,
}

impl Events for Look {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Sample { index, .. } if *index == self.warm_up => self.warm.store(resident(), Ordering::Relaxed),
            Event::Sample { index, .. } if *index == self.last => self.end.store(resident(), Ordering::Relaxed),
            _ => {}
        }
    }
}

/// As small as the built-in model makes them: 4 x 4 pixels in one step.
fn settings(folder: &Path, count: u64, batch: usize) -> Settings {
    let captions = folder.join("captions.txt");
    std::fs::write(&captions, (0..count).map(|i| format!("{i} red cups\n")).collect::<String>()).unwrap();
    Settings {
        model: format!("{}/src/weights/assets/builtin", env!("CARGO_MANIFEST_DIR")),
        captions,
        corpus: CorpusOptions::default(),
        selection: Selection { offset: 0, limit: None, worker_index: 0, worker_count: 1 },
        sampling: Sampling {
            steps: 1,
            guidance: 1.0,
            negative: String::new(),
            scheduler: SchedulerName::Auto,
            height: Some(4),
            width: Some(4),
            seed: 1,
            rng: RngKind::default(),
        },
        // A shard keeps the rows of its table until it is finished: small ones, so that the last is like the first. Each has batches of two
        // sizes.
        output: Output {
            folder: folder.join("out"),
            shard_size: 3 * batch + 2,
            format: ImageFormat::Png,
            quality: 95,
            save_latents: None,
        },
        init_latents: None,
        batch: Batch::Images(batch),
        trace: Some(folder.join("trace.json")),
    }
}

/// Makes `count` images and asserts that those after the first `warm_up` took no memory that they keep.
fn make(device: &Device, warm_up: u64, count: u64, batch: usize) {
    // One run at a time: the other would be measured too.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let look = Look { warm_up, last: count - 1, warm: AtomicU64::new(0), end: AtomicU64::new(0) };
    let run = Run::prepare(settings(folder.path(), count, batch), device, Precision::F32).unwrap();
    let summary = run.execute(&look, &AtomicBool::new(false)).unwrap();
    assert_eq!(summary.made, count);
    let (warm, end) = (look.warm.into_inner(), look.end.into_inner());
    assert!(warm > 0 && end > 0);
    println!("{count} images: {} KiB after {warm_up}, {} KiB at the end, {:.1} s", warm >> 10, end >> 10, summary.seconds);
    assert!(end <= warm + SLACK, "{} KiB after {warm_up} images, {} KiB after {count}", warm >> 10, end >> 10);
}

#[test]
fn a_thousand_images_leave_nothing() {
    make(&Device::cpu(2).unwrap(), 200, 1_000, 16);
}

#[test]
#[ignore = "takes 20 s"]
fn ten_thousand_images_leave_nothing() {
    make(&Device::cpu(2).unwrap(), 200, 10_000, 16);
}

/// The memory of a simulated GPU is this process's: what is allocated on it and not freed shows too.
#[test]
#[ignore = "takes a minute"]
fn images_of_a_simulated_gpu_leave_nothing() {
    make(&Device::Gpu(Gpu::sim(DType::F16, 2).unwrap()), 20, 60, 2);
}
