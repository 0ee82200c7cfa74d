//! The driver's side of the device layer, against a double of the driver (`double.c`): no machine of CI has a card. The double keeps track
//! of handles, memory, contexts and order, and puts work off as long as it may; what a card computes, it does not show.
#![cfg(target_os = "linux")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use syntic::bench::Kernels;
use syntic::device::{Arena, Buffer, Device, Exec, Gpu, Plan, Precision, Tensor};
use syntic::ops::elementwise::add;
use syntic::ops::gemm::{Activation, Linear, linear};
use syntic::tensor::{DType, HostTensor};
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

/// Runs `body` of the test `name` in a process of its own, whose driver is the double with these settings, and which must give back all
/// that it took. Returns what that process printed, unless this is it.
fn with_driver(name: &str, settings: &[(&str, &str)], body: impl Fn()) -> Option<String> {
    if std::env::var_os(INSIDE).is_some() {
        body();
        return None;
    }
    let folder = double();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .envs(settings.iter().copied())
        .env(INSIDE, "1")
        .env("LD_LIBRARY_PATH", folder.path())
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert!(text.contains("driver double: all is given back"), "{text}");
    Some(text)
}

fn card() -> Device {
    Device::Gpu(Gpu::cuda(0, DType::F16, 2).unwrap())
}

/// Quarters of small integers: exact in f16, and so are their sums.
fn quarters(seed: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7 + seed * 13) % 61) as f32 / 4.0 - 7.0).collect()
}

fn read(tensor: &Tensor<'_>) -> Result<Vec<f32>> {
    let mut out = vec![f32::NAN; tensor.shape().len()];
    tensor.read_f32(&mut out)?;
    Ok(out)
}

/// Lengths below, at and above a piece and two of what goes to the card at once.
#[test]
fn passes_come_to_what_they_come_to_on_a_cpu() {
    with_driver("passes_come_to_what_they_come_to_on_a_cpu", &[], || {
        let (device, mut arena) = (card(), Arena::new());
        for len in [1, 1000, 1 << 21, (1 << 22) + 1, (3 << 21) + 77] {
            let (x, y) = (quarters(1, len), quarters(2, len));
            let pass = |exec: &Exec<'_>| {
                let sum = add(exec, &exec.input([len], &x)?, &exec.input([len], &y)?)?;
                read(&add(exec, &sum, &exec.input([len], &y)?)?)
            };
            let cpu = Arena::new().run_once(&Device::cpu(1).unwrap(), pass).unwrap();
            let plan = Plan::record(&device, |exec| pass(exec).map(drop)).unwrap();
            for _ in 0..2 {
                assert!(arena.run(&device, &plan, pass).unwrap() == cpu, "{len}");
            }
        }
        assert_eq!(device.describe(), "cuda:0, Double 0, sm_80");
    });
}

#[test]
fn captured_passes_are_replayed_and_keep_their_memory() {
    with_driver("captured_passes_are_replayed_and_keep_their_memory", &[], || {
        let (device, mut arena) = (card(), Arena::new());
        let (x, y) = (quarters(5, 100), quarters(6, 100));
        let mut total = Buffer::from_f32(&device, [100], DType::F16, &x).unwrap();
        let step = Buffer::from_f32(&device, [100], DType::F16, &y).unwrap();
        let mut next = Buffer::try_zeros(&device, [100], DType::F16).unwrap();
        let mut pass = |exec: &Exec<'_>| {
            add(exec, &exec.view(&total), &exec.view(&step))?.store(&mut next)?;
            add(exec, &exec.view(&next), &exec.view(&step))?.store(&mut total)
        };
        let plan = Plan::record(&device, &mut pass).unwrap();
        let graph = arena.capture(&device, &plan, &mut pass).unwrap();
        let now = |arena: &mut Arena| arena.run_once(&device, |exec| read(&exec.view(&total))).unwrap();
        assert_eq!(now(&mut arena), x);
        for rounds in 1..=2 {
            graph.replay().unwrap();
            let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + 2.0 * rounds as f32 * y).collect();
            assert_eq!(now(&mut arena), expected);
        }
        drop((arena, step, next, total));
        graph.replay().unwrap();
        let refused = Arena::new().capture(&device, &plan_of_input(&device), |exec| exec.input([4], &[0.0; 4]).map(drop));
        assert!(refused.unwrap_err().to_string().contains("use buffers"));
    });
}

#[test]
fn kernels_are_checked_and_timed() {
    with_driver("kernels_are_checked_and_timed", &[], || {
        let report = Kernels::choose(Some("add/8x8 batch 2")).unwrap().measure(&card()).unwrap();
        let [row] = &report.results[..] else { panic!("{report:?}") };
        // Past three times the 40 MiB of its cache.
        assert_eq!((row.sets, row.bytes, row.kernels.as_slice()), (129, 983_040, &["add_forward_f16"][..]));
        assert!(row.replays >= 15 && row.low_us <= row.median_us && row.median_us <= row.high_us, "{row:?}");
        assert_eq!(report.note, None);
    });
}

/// The double ends the process if another thread uses the stream meanwhile, or if memory is freed.
#[test]
fn captures_keep_other_threads_out() {
    with_driver("captures_keep_other_threads_out", &[], || {
        let (device, x) = (card(), quarters(7, 100));
        let mut total = Buffer::from_f32(&device, [100], DType::F16, &x).unwrap();
        let mut spare = Some(Buffer::try_zeros(&device, [100], DType::F16).unwrap());
        let (start, started) = mpsc::channel();
        let mut pass = |exec: &Exec<'_>| {
            if exec.is_running() {
                start.send(()).unwrap();
                thread::sleep(Duration::from_millis(100));
                drop(spare.take());
            }
            let twice = add(exec, &exec.view(&total), &exec.view(&total))?;
            twice.store(&mut total)
        };
        let plan = Plan::record(&device, &mut pass).unwrap();
        let graph = thread::scope(|scope| {
            let (device, x) = (&device, &x);
            let other = scope.spawn(move || {
                started.recv().unwrap();
                let x = Buffer::from_f32(device, [100], DType::F16, x).unwrap();
                Arena::new().run_once(device, |exec| read(&add(exec, &exec.view(&x), &exec.view(&x))?)).unwrap()
            });
            let graph = Arena::new().capture(device, &plan, &mut pass).unwrap();
            // The double is not made for several threads at once.
            assert_eq!(other.join().unwrap(), x.iter().map(|x| 2.0 * x).collect::<Vec<_>>());
            graph
        });
        graph.replay().unwrap();
        let now = Arena::new().run_once(&device, |exec| read(&exec.view(&total))).unwrap();
        assert_eq!(now, x.iter().map(|x| 2.0 * x).collect::<Vec<_>>());
    });
}

#[test]
fn a_panic_ends_its_capture() {
    with_driver("a_panic_ends_its_capture", &[], || {
        let device = card();
        let plan = Plan::record(&device, |_| Ok(())).unwrap();
        let panicking = || Arena::new().capture(&device, &plan, |_| panic!("as asked")).map(drop);
        assert!(catch_unwind(AssertUnwindSafe(panicking)).is_err());
        add_once(&device).unwrap();
    });
}

fn plan_of_input(device: &Device) -> Plan {
    Plan::record(device, |exec| exec.input([4], &[0.0; 4]).map(drop)).unwrap()
}

/// Kernels with more than 48 KiB of shared memory, and weights of two tensors.
#[test]
fn shared_memory_is_asked_for() {
    let printed = with_driver("shared_memory_is_asked_for", &[], || {
        let device = card();
        let values = quarters(1, 160 * 64);
        let part = || HostTensor {
            name: "w".into(),
            shape: vec![160, 64],
            dtype: DType::F32,
            bytes: Some(bytemuck::cast_slice(&values)),
        };
        let layer = Linear::prepare(&device, Precision::F32, &[(part(), None), (part(), None)]).unwrap();
        let x = quarters(2, 8192 * 64);
        Arena::new()
            .run_once(&device, |exec| linear(exec, &layer, &exec.input([8192, 64], &x)?, Activation::None, None).map(drop))
            .unwrap();
    });
    if let Some(text) = printed {
        let most =
            text.lines().find_map(|line| line.strip_prefix("driver double: at most ")?.strip_suffix(" bytes of shared memory"));
        assert!(most.unwrap().parse::<u32>().unwrap() > 48 << 10, "{text}");
    }
}

#[test]
fn threads_share_a_card() {
    with_driver("threads_share_a_card", &[], || {
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
    with_driver("later_cards_compile", &[("DOUBLE_CAPABILITY", "120")], || {
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
    with_driver("compilers_are_heard", &settings, || {
        let error = expect(add_once(&card()), &["add_forward_f16", "ptxas says no", "CUDA_ERROR_222"]);
        assert!(matches!(error, Error::Launch { .. }));
    });
}

#[test]
fn failed_launches_name_kernel_and_geometry() {
    with_driver("failed_launches_name_kernel_and_geometry", &[("DOUBLE_FAIL", "cuLaunchKernel")], || {
        let parts = ["add_forward_f16", "CUDA_ERROR_700", "grid 1 x 1 x 1, block 256 x 1 x 1"];
        assert!(matches!(expect(add_once(&card()), &parts), Error::Launch { entry: "add_forward_f16", .. }));
    });
}

#[test]
fn kernels_that_fail_later_are_reported_where_they_are_waited_for() {
    let name = "kernels_that_fail_later_are_reported_where_they_are_waited_for";
    with_driver(name, &[("DOUBLE_FAIL", "cuStreamSynchronize")], || {
        expect(add_once(&card()), &["cuda:0 cannot finish", "CUDA_ERROR_719", "CUDA_LAUNCH_BLOCKING=1"]);
    });
}

#[test]
fn kernels_that_fail_before_a_download_are_reported_there() {
    let name = "kernels_that_fail_before_a_download_are_reported_there";
    with_driver(name, &[("DOUBLE_FAIL", "cuEventSynchronize")], || {
        let result = Arena::new().run_once(&card(), |exec| {
            let x = exec.alloc([3], DType::F16)?;
            read(&x).map(drop)
        });
        expect(result, &["cuda:0 cannot give values to the host", "CUDA_ERROR_719", "CUDA_LAUNCH_BLOCKING=1"]);
    });
}

/// No event is left: the double would say so.
#[test]
fn events_that_are_not_recorded_are_destroyed() {
    with_driver("events_that_are_not_recorded_are_destroyed", &[("DOUBLE_FAIL", "cuEventRecord")], || {
        let device = card();
        let plan = Plan::record(&device, |_| Ok(())).unwrap();
        let graph = Arena::new().capture(&device, &plan, |_| Ok(())).unwrap();
        expect(graph.time().map(drop), &["cuda:0 cannot record an event", "CUDA_ERROR_1 "]);
    });
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    with_driver("memory_that_is_not_there_is_an_error", &[], || {
        let error = Buffer::try_zeros(&card(), [1 << 35], DType::F16).map(drop);
        expect(error, &["65536 MiB", "80896 MiB are free", "--batch"]);
    });
}

#[test]
fn cards_that_are_not_there_are_named() {
    with_driver("cards_that_are_not_there_are_named", &[("DOUBLE_CARDS", "2")], || {
        let open = |index| Gpu::cuda(index, DType::BF16, 1).map(drop);
        open(1).unwrap();
        expect(open(2), &["there is no card 2", "shows 2", "syntic doctor"]);
        expect(open(usize::MAX), &["there is no card"]);
    });
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
