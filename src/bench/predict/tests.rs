use super::estimate::estimate;
use super::record::{Operation, Recorder, record};
use super::*;
use crate::device::Tensor;
use crate::device::predict::sample::whole;
use crate::device::{Exec, Precision};
use crate::diffusion::unet::{Conditions, Halves, TextState, Unet};
use crate::ops::attention::KvRows;
use crate::ops::elementwise::add;
use crate::ops::gemm::{Activation, Linear, linear};
use crate::ops::testing::weight;
use crate::weights::Loader;

fn request(chip: &str, model: &str, size: usize, batch: usize) -> Request {
    let (chip, model, size) = (chip.into(), model.into(), (size, size));
    Request { chip, model, size, batch, steps: 2, storage: DType::F16, threads: 2 }
}

fn device(chip: &str) -> (Device, Log, Card) {
    let (card, log) = (Card::by_name(chip).unwrap(), Log::default());
    (Device::Gpu(Gpu::predicted(card, DType::BF16, 2, log.clone()).unwrap()), log, card)
}

/// What a pass of one operation launches.
fn operation((device, log, _): &(Device, Log, Card), pass: impl Fn(&Exec<'_>) -> Result<()> + Send) -> Operation {
    let mut pass = Recorder { device, log }.pass("one", 1, pass).unwrap();
    assert_eq!(pass.operations.len(), 1);
    pass.operations.remove(0)
}

fn undefined<'e>(exec: &'e Exec<'_>, rows: usize, columns: usize) -> Tensor<'e> {
    exec.alloc([rows, columns], exec.storage()).unwrap()
}

#[test]
fn the_bytes_of_an_elementwise_operation_are_exact() {
    // Whole sectors, but not a multiple of what the blocks take at once.
    let (rows, columns) = (4100, 328);
    let bytes = (2 * rows * columns) as f64;
    let setting = device("a100");
    let pass = |exec: &Exec<'_>| add(exec, &undefined(exec, rows, columns), &undefined(exec, rows, columns)).map(drop);
    let (operation, card) = (operation(&setting, pass), setting.2);
    let [launch] = &operation.launches[..] else { panic!("{operation:?}") };
    let estimate = estimate(card.chip, launch, &whole(&Kernels::default(), launch).unwrap());
    assert_eq!((estimate.traffic.read, estimate.traffic.written), (2.0 * bytes, bytes));
    assert_eq!((estimate.traffic.compulsory, estimate.traffic.l2, estimate.binding), (3.0 * bytes, 3.0 * bytes, "memory"));
    assert!((estimate.bound_us - 3e6 * bytes / card.chip.memory_bandwidth).abs() < 1e-6);
}

#[test]
fn few_blocks_stand_for_all() {
    let [m, n, k] = [1000, 650, 200];
    let setting = device("h100");
    let layer = Linear::prepare(&setting.0, Precision::F32, &[(weight("w", &[n, k], None), None)]).unwrap();
    let pass = |exec: &Exec<'_>| linear(exec, &layer, &undefined(exec, m, k), Activation::None, None).map(drop);
    let (operation, card) = (operation(&setting, pass), setting.2);
    let [launch] = &operation.launches[..] else { panic!("{operation:?}") };
    let kernels = Kernels::default();
    let (some, all) = (sample(&kernels, launch).unwrap(), whole(&kernels, launch).unwrap());
    assert!(some.blocks < all.blocks, "{} of {}", some.blocks, all.blocks);
    let [some, all] = [&some, &all].map(|sampled| estimate(card.chip, launch, sampled));
    assert_eq!(some.tensor_flops, all.tensor_flops);
    assert!(some.tensor_flops >= operation.cost.flops as f64);
    let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 0.02, "{a} for {b}");
    near(some.wavefronts[0], all.wavefronts[0]);
    near(some.main_loop[0], all.main_loop[0]);
    assert_eq!(all.main_loop[0], all.main_loop[1]);
    near(some.traffic.memory(), all.traffic.memory());
    near(some.traffic.compulsory, all.traffic.compulsory);
    near(some.bound_us, all.bound_us);
    assert_eq!(operation.weights, (2 * n * k + 4 * n) as u64);
    assert_eq!(all.traffic.memory(), (2 * (m * k + n * k + m * n) + (4 * n).next_multiple_of(32)) as f64);
}

#[test]
fn a_tiny_model_is_predicted_whole() {
    let prediction = predict(&request("rtx4090", "tiny", 64, 2)).unwrap();
    assert_eq!(
        prediction.passes.iter().map(|pass| (pass.name, pass.times)).collect::<Vec<_>>(),
        [("text", 1), ("step", 2), ("decode", 2)]
    );
    for pass in &prediction.passes {
        assert_eq!((pass.without_kernel, pass.covered_gflop), (0, pass.useful_gflop), "{}", pass.name);
        assert!(pass.tensor_gflop >= pass.useful_gflop && pass.bound_ms > 0.0 && pass.whole_waves_ms >= pass.bound_ms);
        assert!(pass.traffic.memory() >= pass.traffic.compulsory && pass.traffic.compulsory >= pass.fused_activations);
        let kernels: f64 = pass.kernels.iter().map(|kernel| kernel.count as f64 * kernel.bound_us / 1e3).sum();
        assert!((kernels / pass.bound_ms - 1.0).abs() < 1e-6);
    }
    let summary = &prediction.summary;
    assert_eq!((summary.spills, summary.worst_main_loop_conflicts), (0, 1.0));
    let ms: f64 = prediction.passes.iter().map(|pass| pass.times as f64 * pass.bound_ms).sum();
    assert!((summary.images_per_s * ms / 2e3 - 1.0).abs() < 1e-9, "{summary:?}");
    // A slower chip of the same design takes no less.
    let slower = predict(&request("a100", "tiny", 64, 2)).unwrap();
    assert!(slower.summary.images_per_s != summary.images_per_s);
    let text = prediction.text();
    assert!(text.contains("not a measurement") && text.contains("useful share of tensor FLOP") && !text.contains("NOT COUNTED"));
}

/// GB of a sample's evaluation as counted on the module graphs of diffusers: 0.89 of products, 0.14 of attention; weights 1.72.
#[test]
fn the_fused_minimum_is_that_of_the_module_graphs() {
    let (device, log, _) = device("h100");
    let spec = model("sd15").unwrap();
    let unet = Unet::new(spec.unet.clone(), &device, Precision::F32, &Loader::declare()).unwrap();
    let (mut text, time) = (TextState::zeros(&device, &unet, 1, 77).unwrap(), unet.time_state(&device, 1).unwrap());
    let rows = KvRows::new(&device, vec![0]).unwrap();
    let recorder = Recorder { device: &device, log: &log };
    let before = recorder
        .pass("text", 1, |exec| unet.encode_text(exec, &exec.alloc([1, 77, 768], exec.storage())?, 0, &mut text))
        .unwrap();
    let conditions = Conditions { time: &time, step: 0, text: &text, text_rows: &rows, halves: Halves::Prompts };
    let step = |exec: &Exec<'_>| unet.forward(exec, &exec.alloc([1, 64, 64, 4], exec.storage())?, &conditions).map(drop);
    let step = recorder.pass("step", 1, step).unwrap();
    let of = |op: &'static [&str]| step.operations.iter().filter(move |operation| op.contains(&operation.cost.op));
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let moved = |op| of(op).map(|operation| gb(operation.cost.bytes - operation.weights)).sum::<f64>();
    let near = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 0.05, "{found} GB, expected {expected}");
    near(moved(&["linear", "conv2d"]), 0.89);
    near(moved(&["attention"]), 0.14);
    // Each layer once; with what leaves the loop: text, and time (two products and the projections of the ResNet blocks).
    let weights: u64 = step.operations.iter().chain(&before.operations).map(|operation| operation.weights).sum();
    near(gb(weights), 1.72);
}

#[test]
fn a_step_of_a_batch_needs_each_weight_once() {
    let (device, log, _) = device("h100");
    let passes = record(&model("tiny").unwrap(), &device, &log, &request("h100", "tiny", 64, 3)).unwrap();
    let one = record(&model("tiny").unwrap(), &device, &log, &request("h100", "tiny", 64, 1)).unwrap();
    let sum = |operations: &[Operation]| operations.iter().map(|operation| operation.weights).sum::<u64>();
    assert_eq!(sum(&passes[1].operations), sum(&one[1].operations));
    assert!(sum(&passes[1].operations) > 0);
}

#[test]
fn unknown_chips_are_refused() {
    let error = predict(&request("b200", "tiny", 64, 1)).unwrap_err();
    assert!(matches!(&error, Error::Usage { hint, .. } if hint.contains("h100")), "{error}");
}
