//! Long runs need no more memory than short ones.
#![cfg(target_os = "linux")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use syntic::corpus::CorpusOptions;
use syntic::device::{Device, Gpu, Precision};
use syntic::diffusion::schedulers::SchedulerName;
use syntic::generate::{Batch, Event, Events, Output, Run, Sampling, Selection, Settings};
use syntic::rng::RngKind;
use syntic::shards::ImageFormat;
use syntic::tensor::DType;

/// What allocators and the kernel may add to the resident set later, by chance: measured, 2 MiB, of which the trace is one.
const RESIDENT_SLACK: u64 = 4 << 20;

/// What may be allocated more at the end: a queue that is fuller, the rows of a shard.
const LIVE_SLACK: u64 = 512 << 10;

/// The system's allocator, counting the bytes that are not freed yet.
struct Counting;

static LIVE: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Memory of this process that is in use, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

/// Looks at the memory at every image: resident, and allocated.
#[derive(Default)]
struct Look {
    seen: Mutex<Vec<[u64; 2]>>,
}

impl Events for Look {
    fn event(&self, event: &Event<'_>) {
        if let Event::Sample { .. } = event {
            self.seen.lock().unwrap().push([resident(), LIVE.load(Ordering::Relaxed)]);
        }
    }
}

/// As small as the built-in model makes them: 4 x 4 pixels in one step.
fn settings(folder: &Path, count: usize, batch: usize) -> Settings {
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

/// Runs this test again in a process of its own, where nothing else takes or has left memory; true there.
fn is_alone() -> bool {
    const INSIDE: &str = "SYNTIC_LEAKS_ALONE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let name = std::thread::current().name().unwrap().to_string(); // that of the test
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", &name, "--include-ignored", "--nocapture"]).env(INSIDE, "1").output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    print!("{text}");
    false
}

/// Makes `count` images and asserts that they keep no memory: what is allocated, and resident if `resident_too`, is no more at the end than
/// when queues, threads and allocators have taken what they keep and some shards are finished, after `warm_up` images. Each is the least of as
/// many images, because the device works meanwhile; the last images are left out, which are written when the model is gone.
fn make(device: &Device, warm_up: usize, count: usize, batch: usize, resident_too: bool) {
    if !is_alone() {
        return;
    }
    let (folder, look) = (tempfile::tempdir().unwrap(), Look::default());
    look.seen.lock().unwrap().reserve(count);
    let run = Run::prepare(settings(folder.path(), count, batch), device, Precision::F32).unwrap();
    let summary = run.execute(&look, &AtomicBool::new(false)).unwrap();
    let seen = look.seen.into_inner().unwrap();
    assert_eq!((summary.made, seen.len()), (count as u64, count));
    let least = |range: Range<usize>, which: usize| seen[range].iter().map(|look| look[which]).min().unwrap();
    for (which, name, slack) in [(0, "resident", RESIDENT_SLACK), (1, "allocated", LIVE_SLACK)] {
        let [warm, end] = [warm_up..2 * warm_up, count - 2 * warm_up..count - warm_up].map(|range| least(range, which));
        println!(
            "{count} images in {:.1} s, {name}: {} KiB after {warm_up}, {} at the end",
            summary.seconds,
            warm >> 10,
            end >> 10
        );
        let holds = end <= warm + slack || (which == 0 && !resident_too);
        assert!(holds, "{name}: {} KiB after {warm_up} images, {} after {count}", warm >> 10, end >> 10);
    }
}

#[test]
fn a_thousand_images_leave_nothing() {
    make(&Device::cpu(2).unwrap(), 200, 1_000, 16, true);
}

#[test]
#[ignore = "takes 20 s"]
fn ten_thousand_images_leave_nothing() {
    make(&Device::cpu(2).unwrap(), 200, 10_000, 16, true);
}

/// The memory of a simulated GPU is allocated by this process: what is taken there and not given back shows too. The resident set says less here:
/// the simulator allocates a lot for each launch, in another order each time.
#[test]
#[ignore = "takes more than a minute"]
fn images_of_a_simulated_gpu_leave_nothing() {
    make(&Device::Gpu(Gpu::sim(DType::F16, 2).unwrap()), 16, 64, 2, false);
}
