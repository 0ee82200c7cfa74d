//! The driver's side of the device layer, against a double of the driver (`double.c`): no machine of CI has a card. The double keeps track
//! of handles, memory, contexts and order, and puts work off as long as it may; what a card computes, it does not show.
#![cfg(target_os = "linux")]

mod allocations;
mod passes;

use passes::{quarters, read};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;
use syntic::bench::Kernels;
use syntic::device::{Arena, Buffer, Device, Entries, Exec, Gpu, Launch, Params, Plan, Precision};
use syntic::diffusion::schedulers::{SchedulerName, create};
use syntic::diffusion::{Sample, Sampler, Savings, Settings, StableDiffusion};
use syntic::ops::elementwise::add;
use syntic::ops::gemm::{Activation, Linear, linear};
use syntic::ops::norm::{Norm, layer_norm};
use syntic::rng::RngKind;
use syntic::tensor::{DType, HostTensor};
use syntic::weights::ModelDir;
use syntic::{Error, Result};

/// Set in the process that has the double.
const INSIDE: &str = "SYNTIC_DRIVER_DOUBLE";

/// The folder of the double, compiled.
fn double() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/driver/double.c");
    let compiled = Command::new("cc")
        .args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
        .args([folder.path().join("libcuda.so.1"), source])
        .status()
        .unwrap_or_else(|e| panic!("cc, which links Rust programs too: {e}"));
    assert!(compiled.success());
    folder
}

/// Runs the test that `body` is written in again, in a process whose driver is the double of `folder` with these settings, and which must
/// give back all that it took. Returns what it printed; nothing in that process, where `body` is run.
fn inside(folder: &Path, settings: &[(&str, &str)], body: &impl Fn()) -> Option<String> {
    if std::env::var_os(INSIDE).is_some() {
        body();
        return None;
    }
    // "driver::name_of_the_test::{{closure}}"
    let name = std::any::type_name_of_val(body).split("::").nth(1).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .envs(settings.iter().copied())
        .env(INSIDE, "1")
        .env("LD_LIBRARY_PATH", folder)
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{name}: {text}");
    assert!(text.contains("driver double: all is given back"), "{name}: {text}");
    Some(text)
}

/// As [`inside`], with a double for this test alone.
fn with_driver(settings: &[(&str, &str)], body: impl Fn()) -> Option<String> {
    inside(double().path(), settings, &body)
}

fn card() -> Device {
    Device::Gpu(Gpu::cuda(0, DType::F16, 2).unwrap())
}

/// Lengths below, at and above a piece and two of what goes to the card at once.
#[test]
fn passes_compute_what_a_cpu_computes() {
    let printed = with_driver(&[], || {
        let device = card();
        passes::compute_what_a_cpu_computes(&device, &[1, 1000, 1 << 21, (1 << 22) + 1, (3 << 21) + 77]);
        assert_eq!(device.describe(), "cuda:0, Double 0, sm_80");
    });
    // As many blocks as 108 multiprocessors hold.
    assert!(printed.is_none_or(|text| text.contains("driver double: add_forward_f16: grid 864 1 1, block 256 1 1, 0 bytes")));
}

#[test]
fn passes_use_buffers_that_outlive_them() {
    with_driver(&[], || passes::use_buffers_that_outlive_them(&card()));
}

#[test]
fn passes_are_captured_and_replayed() {
    with_driver(&[], || passes::are_captured_and_replayed(&card()));
}

#[test]
fn passes_exchange_nothing_with_the_host_when_captured() {
    with_driver(&[], || passes::exchange_nothing_with_the_host_when_captured(&card()));
}

#[test]
fn passes_wait_for_nothing_while_they_are_captured() {
    with_driver(&[], || passes::wait_for_nothing_while_they_are_captured(&card()));
}

#[test]
fn passes_end_their_capture_when_they_panic() {
    with_driver(&[], || passes::end_their_capture_when_they_panic(&card()));
}

#[test]
fn passes_keep_other_threads_out_of_their_capture() {
    with_driver(&[], || passes::keep_other_threads_out_of_their_capture(&card()));
}

/// The first call of a thread, whatever it is, and the last of a card.
#[test]
fn every_call_makes_its_context_current() {
    with_driver(&[], || {
        for index in 0.. {
            let device = card(); // with threads that have called nothing yet
            let Some(first) = passes::use_of(&device, index) else { break };
            thread::scope(|scope| scope.spawn(first).join()).unwrap();
            thread::spawn(|| drop(device)).join().unwrap();
        }
    });
}

/// The double's clock counts work, in milliseconds.
#[test]
fn graphs_are_timed() {
    with_driver(&[], || {
        let device = card();
        let mut total = Buffer::try_zeros(&device, [100], DType::F16).unwrap();
        let mut pass = |exec: &Exec<'_>| {
            let twice = add(exec, &exec.view(&total), &exec.view(&total))?;
            twice.store(&mut total)
        };
        let plan = Plan::record(&device, &mut pass).unwrap();
        let graph = Arena::new().capture(&device, &plan, &mut pass).unwrap();
        // The sum, the copy, and the event after them.
        assert_eq!(graph.time().unwrap(), Duration::from_millis(3));
    });
}

#[test]
fn kernels_are_checked_and_timed() {
    with_driver(&[], || {
        let report = Kernels::choose(Some("add/8x8 batch 2")).unwrap().measure(&card()).unwrap();
        let [row] = &report.results[..] else { panic!("{report:?}") };
        // Past three times the 40 MiB of its cache.
        assert_eq!((row.sets, row.problem.bytes, row.kernels.as_slice()), (129, 983_040, &["add_forward_f16"][..]));
        assert!(row.replays >= 15 && row.low_us <= row.median_us && row.median_us <= row.high_us, "{row:?}");
        assert_eq!(report.note, None);
    });
}

/// A step is a graph that is replayed: with the second one there is nothing left to allocate, of a batch or of a second batch.
#[test]
fn denoising_steps_take_no_memory_of_the_host() {
    with_driver(&[("SYNTIC_PACKED", "off")], || {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sd1-tiny");
        let model = ModelDir::open(folder.to_str().unwrap()).unwrap();
        let model = StableDiffusion::load(&model, &card(), Precision::F32).unwrap();
        let length = model.spec.text.max_positions;
        for (scheduler, rng) in [(SchedulerName::Pndm, RngKind::Philox), (SchedulerName::EulerAncestral, RngKind::Philox)] {
            let steps = create(scheduler, &model.spec.scheduler, 12).unwrap();
            let (negative, savings) = (vec![0; length], Savings::default());
            let settings = Settings { height: 64, width: 96, guidance: 7.5, negative, rng, savings };
            let mut sampler = Sampler::new(&model, steps, settings, 2).unwrap();
            let ids: Vec<u32> = (0..2 * length as u32).map(|i| i % 50).collect();
            let samples: Vec<Sample<'_>> =
                ids.chunks(length).zip(0..).map(|(ids, seed)| Sample { ids, seed, latents: None }).collect();
            for batch in 0..2 {
                let counted = allocations::during(|count| {
                    let on_step = &mut |step: usize, steps: usize| {
                        count(0 < step && step < steps);
                        ControlFlow::Continue(())
                    };
                    sampler.generate(&samples, on_step).unwrap();
                });
                assert_eq!(counted, 0, "{scheduler:?}, batch {batch}");
            }
        }
        assert!(
            allocations::during(|count| {
                count(true);
                drop(std::hint::black_box(vec![0u8; 100]));
            }) > 0
        );
    });
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct SiluParams {
    count: u64,
}

impl Params for SiluParams {
    const NAME: &'static str = "SiluParams";
    const FIELDS: &'static [(&'static str, usize)] = &[];
}

#[test]
fn launches_arrive_as_they_were_made() {
    let printed = with_driver(&[], || {
        let entries = Entries { f16: "silu_forward_f16", bf16: "silu_forward_bf16" };
        let params = SiluParams { count: 8 };
        let pass = |exec: &Exec<'_>| {
            let (x, mut out) = (exec.input([8], &[0.0; 8])?, exec.alloc([8], DType::F16)?);
            let launch = Launch::new(&entries, DType::F16, [6, 5, 4], [16, 8, 2])?.shared(123);
            exec.enqueue(launch.output(&mut out).input(&x).params(&params))
        };
        Arena::new().run_once(&card(), pass).unwrap();
    });
    assert!(printed.is_none_or(|text| text.contains("silu_forward_f16: grid 6 5 4, block 16 8 2, 123 bytes")));
}

fn values<'a>(values: &'a [f32], shape: &[usize]) -> HostTensor<'a> {
    HostTensor {
        name: "w".into(),
        shape: shape.into(),
        dtype: DType::F32,
        bytes: Some(bytemuck::cast_slice(values)),
        store: None,
    }
}

/// A kernel with more than 48 KiB of shared memory, weights of two tensors, and another kernel of the same file.
#[test]
fn large_and_small_products_are_launched() {
    let printed = with_driver(&[], || {
        let device = card();
        let weight = quarters(1, 160 * 64);
        let part = || (values(&weight, &[160, 64]), None);
        let layer = Linear::prepare(&device, Precision::F32, &[part(), part()]).unwrap();
        let x = quarters(2, 8192 * 64);
        for rows in [8192, 1] {
            let pass = |exec: &Exec<'_>| {
                linear(exec, &layer, &exec.input([rows, 64], &x[..rows * 64])?, Activation::None, None).map(drop)
            };
            Arena::new().run_once(&device, pass).unwrap();
        }
    });
    if let Some(text) = printed {
        let launches: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("driver double: gemm_nt_")).collect();
        let bytes = |line: &&str| line.rsplit_once("grid ")?.1.rsplit_once(", ")?.1.strip_suffix(" bytes")?.parse::<u32>().ok();
        let bytes: Vec<u32> = launches.iter().filter_map(bytes).collect();
        assert!(bytes.len() == 2 && bytes[0] > 48 << 10 && bytes[1] < bytes[0], "{launches:?}");
    }
}

/// A kernel with shared memory of its own, beside which it may ask for the rest.
#[test]
fn kernels_share_a_block_with_their_own_memory() {
    let entry = "layer_norm_forward_any_f16";
    let printed = with_driver(&[], || {
        let (device, ones) = (card(), [1.0; 7]);
        let norm = Norm::prepare(&device, 1, 1e-5, values(&ones, &[7]), values(&ones, &[7])).unwrap();
        Plan::record(&device, |exec| layer_norm(exec, &norm, &exec.input([1, 7], &[])?).map(drop)).unwrap();
    });
    if let Some(text) = printed {
        let own = syntic::device::kernels::find(entry, "sm_80").unwrap().1.static_shared;
        assert!(own > 0 && text.contains(&format!("{entry} may have {} bytes", 163 * 1024 - own)), "{own}: {text}");
    }
}

/// Every call of every function that can fail, failing once: the error comes out, and nothing is left.
#[test]
fn failures_are_reported_and_leave_nothing_behind() {
    fn work() -> Result<()> {
        let device = Device::Gpu(Gpu::cuda(0, DType::F16, 2)?);
        let x = Buffer::from_f32(&device, [100], DType::F16, &quarters(1, 100))?;
        let mut total = Buffer::try_zeros(&device, [100], DType::F16)?;
        let mut pass = |exec: &Exec<'_>| {
            let sum = add(exec, &exec.view(&x), &exec.view(&total))?;
            sum.store(&mut total)
        };
        let (plan, mut arena) = (Plan::record(&device, &mut pass)?, Arena::new());
        arena.run(&device, &plan, &mut pass)?;
        arena.capture(&device, &plan, &mut pass)?.time()?;
        arena.run_once(&device, |exec| read(&exec.view(&total))).map(drop)
    }
    // The macro's definition stands before the first function.
    let functions = include_str!("double.c").split("\nCUresult ").skip(1);
    let fallible = functions.filter(|function| function.contains("MAYBE_FAIL(") || function.contains("fails(__func__)"));
    let names: Vec<&str> = fallible.filter_map(|function| Some(function.split_once('(')?.0)).collect();
    let conditional = ["cuStreamSynchronize", "cuEventSynchronize", "cuModuleLoadDataEx"];
    assert!(names.len() > 18 && conditional.iter().all(|name| names.contains(name)), "{names:?}");
    let folder = double();
    for name in names {
        for before in 0.. {
            let body = || println!("{:?}", work());
            // PTX is compiled for later cards alone.
            let capability = if name == "cuModuleLoadDataEx" { "120" } else { "80" };
            let settings = [("DOUBLE_FAIL", &*format!("{name}:{before}")), ("DOUBLE_CAPABILITY", capability)];
            let Some(text) = inside(folder.path(), &settings, &body) else { return };
            let failed = text.contains("fails as asked");
            assert_eq!(text.contains("Err("), failed, "{name} after {before} calls: {text}");
            assert!(failed || before > 0, "{name} is not called");
            if !failed {
                break;
            }
        }
    }
}

#[test]
fn threads_share_a_card() {
    with_driver(&[], || {
        let device = card();
        let x = quarters(3, 10_000);
        thread::scope(|scope| {
            for _ in 0..4 {
                // One after the other: the double is not made for several threads at once, only for several threads.
                let result = scope.spawn(|| Arena::new().run_once(&device, |exec| read(&exec.input([10_000], &x)?)).unwrap());
                assert!(result.join().unwrap() == x);
            }
        });
        let Device::Gpu(gpu) = &device else { panic!() };
        assert_eq!(gpu.memory().unwrap().total, 80 << 30);
    });
}

/// What later cards get: PTX, which the driver compiles.
#[test]
fn later_cards_compile() {
    with_driver(&[("DOUBLE_CAPABILITY", "120")], || {
        let device = card();
        let sum = Arena::new().run_once(&device, |exec| {
            let x = exec.input([3], &[1.0, 2.0, 4.0])?;
            read(&add(exec, &x, &x)?)
        });
        assert_eq!(sum.unwrap(), [2.0, 4.0, 8.0]);
        assert_eq!(device.describe(), "cuda:0, Double 0, sm_120");
    });
}

fn add_once(device: &Device) -> Result<()> {
    Arena::new().run_once(device, |exec| {
        let x = exec.input([3], &[1.0, 2.0, 4.0])?;
        add(exec, &x, &x).map(drop)
    })
}

fn expect(result: Result<()>, parts: &[&str]) -> Error {
    let error = result.unwrap_err();
    let text = format!("{error}; {}", error.hint().unwrap_or_default());
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    error
}

#[test]
fn compilers_are_heard() {
    let settings = [("DOUBLE_CAPABILITY", "120"), ("DOUBLE_FAIL", "cuModuleLoadDataEx")];
    with_driver(&settings, || {
        let error = expect(add_once(&card()), &["add_forward_f16", "ptxas says no", "CUDA_ERROR_222"]);
        assert!(matches!(error, Error::Launch { .. }));
    });
}

#[test]
fn failed_launches_name_kernel_and_geometry() {
    with_driver(&[("DOUBLE_FAIL", "cuLaunchKernel")], || {
        let parts = ["add_forward_f16", "CUDA_ERROR_700", "grid 1 x 1 x 1, block 256 x 1 x 1"];
        assert!(matches!(expect(add_once(&card()), &parts), Error::Launch { entry: "add_forward_f16", .. }));
    });
}

#[test]
fn kernels_that_fail_later_are_reported_where_they_are_waited_for() {
    with_driver(&[("DOUBLE_FAIL", "cuStreamSynchronize")], || {
        expect(add_once(&card()), &["cuda:0 cannot finish", "CUDA_ERROR_719", "CUDA_LAUNCH_BLOCKING=1"]);
    });
}

#[test]
fn kernels_that_fail_before_a_download_are_reported_there() {
    with_driver(&[("DOUBLE_FAIL", "cuEventSynchronize")], || {
        let result = Arena::new().run_once(&card(), |exec| {
            let x = exec.alloc([3], DType::F16)?;
            read(&x).map(drop)
        });
        expect(result, &["cuda:0 cannot give values to the host", "CUDA_ERROR_719", "CUDA_LAUNCH_BLOCKING=1"]);
    });
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    with_driver(&[], || {
        let error = Buffer::try_zeros(&card(), [1 << 35], DType::F16).map(drop);
        expect(error, &["65536 MiB", "80896 MiB are free", "--batch"]);
    });
}

#[test]
fn cards_that_are_not_there_are_named() {
    let printed = with_driver(&[("DOUBLE_CARDS", "2")], || {
        let open = |index| Gpu::cuda(index, DType::BF16, 1).map(drop);
        open(1).unwrap();
        expect(open(2), &["there is no card 2", "shows 2", "syntic doctor"]);
        expect(open(usize::MAX), &["there is no card"]);
    });
    assert!(printed.is_none_or(|text| text.contains("card 1 is taken")));
}

/// What the command says of machines that it is shown, with exit code 0.
#[test]
fn the_doctor_describes_driver_and_cards() {
    let folder = double();
    let doctor = |settings: &[(&str, &str)]| {
        let output = Command::new(env!("CARGO_BIN_EXE_syntic"))
            .args(["doctor", "--json"])
            .envs(settings.iter().copied())
            .env("LD_LIBRARY_PATH", folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let found = doctor(&[("DOUBLE_CARDS", "2"), ("DOUBLE_CAPABILITY", "89")]);
    assert_eq!(found["cuda"]["cuda"], "13.0");
    assert!(found["cuda"]["library"].as_str().unwrap().ends_with("/libcuda.so.1"), "{found}");
    assert_eq!(found["cuda"]["cards"][1]["name"], "Double 1");
    assert_eq!(found["cuda"]["cards"][1]["kernels"], "sm_89");
    assert_eq!(found["cuda"]["cards"][1]["memory"], 80u64 << 30);
    assert_eq!(found["cuda"]["problem"], serde_json::Value::Null);
    let problem = |settings: &[(&str, &str)]| doctor(settings)["cuda"]["problem"].as_str().unwrap().to_string();
    assert!(problem(&[("DOUBLE_VERSION", "12080")]).contains("CUDA 12.8"));
    assert!(problem(&[("DOUBLE_CARDS", "0")]).contains("no card"));
    assert_eq!(doctor(&[("DOUBLE_CAPABILITY", "75")])["cuda"]["cards"][0]["kernels"], serde_json::Value::Null);
}
