//! Passes on a GPU: memory, transfers, launches, captured passes, failures.

use super::gpu::Gpu;
use super::*;
use crate::ops::conv::{Conv2d, Fused, Padding, conv2d};
use crate::ops::elementwise::{add, repeat_batch, select_positions, timestep_embedding};
use crate::ops::gemm::{self, Linear, linear};
use crate::ops::norm::{Norm, group_norm, layer_norm};
use crate::ops::softmax::softmax;
use crate::ops::testing::{cpus, gpus, keep, try_run};
use crate::tensor::{HostTensor, Shape};
use passes::{quarters, read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Instant;

/// What the double of the driver is asked for, too.
#[path = "../../tests/driver/passes.rs"]
mod passes;

fn on_gpus(body: impl Fn(&Device)) {
    gpus().iter().for_each(body);
}

/// More than one piece of a transfer, and an odd rest.
#[test]
fn passes_compute_what_a_cpu_computes() {
    on_gpus(|device| passes::compute_what_a_cpu_computes(device, &[1, 1000, 1_200_007]));
}

#[test]
fn passes_use_buffers_that_outlive_them() {
    on_gpus(passes::use_buffers_that_outlive_them);
}

#[test]
fn passes_are_captured_and_replayed() {
    on_gpus(passes::are_captured_and_replayed);
}

#[test]
fn passes_exchange_nothing_with_the_host_when_captured() {
    on_gpus(passes::exchange_nothing_with_the_host_when_captured);
}

#[test]
fn passes_end_their_capture_when_they_panic() {
    on_gpus(passes::end_their_capture_when_they_panic);
}

#[test]
fn passes_keep_other_threads_out_of_their_capture() {
    on_gpus(passes::keep_other_threads_out_of_their_capture);
}

#[test]
fn passes_wait_for_nothing_while_they_are_captured() {
    on_gpus(passes::wait_for_nothing_while_they_are_captured);
}

#[test]
fn a_cpu_captures_nothing() {
    let device = Device::cpu(1).unwrap();
    let error = Arena::new().capture(&device, &Plan::record(&device, |_| Ok(())).unwrap(), |_| Ok(())).unwrap_err();
    assert!(matches!(&error, Error::Usage { hint, .. } if hint.contains("run the pass")), "{error}");
}

#[test]
fn inputs_are_rounded_and_keep_their_type() {
    let value = 1.0 + 2f32.powi(-9);
    let rounded = [value, 1.0]; // f16 has the bit, bf16 has not
    for (device, rounded) in gpus().into_iter().zip(rounded) {
        let (stored, exact, ids) = Arena::new()
            .run_once(&device, |exec| {
                let (stored, exact) = (exec.input([1], &[value])?, exec.input_as([1], DType::F32, &[value])?);
                let ids = exec.input_u32([2], &[7, u32::MAX])?;
                assert_eq!((stored.dtype(), exact.dtype(), ids.dtype()), (exec.storage(), DType::F32, DType::U32));
                Ok((read(&stored)?, read(&exact)?, ids.bytes()))
            })
            .unwrap();
        assert_eq!((stored, exact, ids), (vec![rounded], vec![value], 8));
    }
}

#[test]
fn copies_and_host_made_tensors() {
    let x = quarters(3, 2 * 3 * 4);
    let pass = |exec: &Exec<'_>| {
        let x = exec.input([2, 3, 4], &x)?;
        let repeated = read(&repeat_batch(exec, &x, 3)?)?;
        let selected = read(&select_positions(exec, &x, |b| 2 - b)?)?;
        Ok((repeated, selected, read(&timestep_embedding(exec, &[0.0], 4, true, 0.0)?)?))
    };
    let cpu = Arena::new().run_once(&Device::cpu(1).unwrap(), pass).unwrap();
    for device in gpus() {
        assert_eq!(Arena::new().run_once(&device, pass).unwrap(), cpu);
    }
}

/// What was never written is not read, neither by a kernel nor by the host; nor what was written before the tensor was born.
#[test]
fn undefined_values_are_found() {
    let device = &Device::Gpu(Gpu::sim(DType::F16, 2).unwrap());
    let host = Arena::new().run_once(device, |exec| read(&exec.alloc([10], exec.storage())?)).unwrap_err();
    assert!(matches!(&host, Error::Device { .. }), "{host}");
    let kernel = Arena::new()
        .run_once(device, |exec| {
            drop(exec.input([10], &[1.0; 10])?);
            let (x, y) = (exec.alloc([10], exec.storage())?, exec.input([10], &[1.0; 10])?);
            add(exec, &x, &y).map(drop)
        })
        .unwrap_err();
    assert!(matches!(&kernel, Error::Launch { entry: "add_forward_f16", .. }), "{kernel}");
}

/// On a CPU, too: the plan that uses memory again and the one that does not give it other values.
#[test]
fn values_of_dead_tensors_are_found() {
    for device in cpus() {
        let pass = |exec: &Exec<'_>, out: &mut Vec<f32>| {
            drop(exec.input([10], &[1.0; 10])?);
            keep(&exec.alloc([10], DType::F32)?, out)
        };
        assert!(catch_unwind(AssertUnwindSafe(|| try_run(&device, pass))).is_err());
    }
}

params! {
    struct CountParams {
        count: u64,
    }
}

/// By the simulator, or by the guards round the tensors of a card.
#[test]
fn kernels_that_leave_their_tensor_are_found() {
    on_gpus(|device| {
        let add = |params: &CountParams| {
            let pass = |exec: &Exec<'_>, out: &mut Vec<f32>| {
                let (x, mut sum) = (exec.input([8], &[1.0; 8])?, exec.alloc([8], exec.storage())?);
                let launch = Launch::new(&entries!("add_forward"), exec.storage(), [1; 3], [256, 1, 1])?;
                exec.enqueue(launch.output(&mut sum).input(&x).input(&x).params(params))?;
                keep(&sum, out)
            };
            catch_unwind(AssertUnwindSafe(|| try_run(device, pass).is_err())).unwrap_or(true)
        };
        assert_eq!([8, 9].map(|count| add(&CountParams { count })), [false, true]);
    });
}

/// Nothing of that size is ever allocated: it is refused while it is recorded.
#[test]
fn sizes_that_kernels_do_not_count_to_are_refused() {
    let device = &gpus()[0];
    let refuse = |what: &str, op: &dyn Fn(&Exec<'_>) -> Result<()>| {
        let error = Plan::record(device, op).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Launch { .. }) && text.contains(what) && text.contains("is the most"), "{what}: {text}");
    };
    let much = MOST as usize + 1;
    fn alloc<'e>(exec: &'e Exec<'_>, shape: &[usize]) -> Result<Tensor<'e>> {
        exec.alloc(Shape::new(shape), exec.storage())
    }
    let zeros = vec![0.0; 1 << 23];
    let weights = |shape: &[usize]| {
        let values = &zeros[..shape.iter().product()];
        HostTensor {
            name: "w".into(),
            shape: shape.into(),
            dtype: DType::F32,
            bytes: Some(bytemuck::cast_slice(values)),
            store: None,
        }
    };

    refuse("softmax_forward_f16: rows: 2147483648", &|exec| softmax(exec, &alloc(exec, &[much, 8])?, 1.0).map(drop));
    refuse("softmax_forward_f16: columns", &|exec| softmax(exec, &alloc(exec, &[1, much])?, 1.0).map(drop));

    let norm = Norm::prepare(device, 1, 1e-5, weights(&[8]), weights(&[8])).unwrap();
    refuse("layer_norm_forward_f16: rows", &|exec| layer_norm(exec, &norm, &alloc(exec, &[much, 8])?).map(drop));
    let group = |exec: &Exec<'_>, shape: &[usize]| group_norm(exec, &norm, &alloc(exec, shape)?, None, false).map(drop);
    refuse("group_norm_statistics_f16: positions", &|exec| group(exec, &[1, 1 << 16, 1 << 16, 8]));
    refuse("group_norm_statistics_f16: samples", &|exec| group(exec, &[much, 1, 1, 8]));

    let layer = |shape: &[usize]| Linear::prepare(device, Precision::F32, &[(weights(shape), None)]).unwrap();
    let (many, long) = (layer(&[1 << 15, 8]), layer(&[1, zeros.len()]));
    let product = |exec: &Exec<'_>, layer: &Linear, rows: usize| {
        linear(exec, layer, &alloc(exec, &[rows, layer.inputs()])?, gemm::Activation::None, None).map(drop)
    };
    refuse("f16: rows", &|exec| product(exec, &many, much));
    refuse("f16: inputs: 8388608", &|exec| product(exec, &long, 1));
    refuse("f16: tiles", &|exec| product(exec, &many, much - 1));

    refuse("select_forward_f16: positions", &|exec| select_positions(exec, &alloc(exec, &[1, much, 8])?, |_| 0).map(drop));
    refuse("select_forward_f16: channels", &|exec| select_positions(exec, &alloc(exec, &[1, 1, much])?, |_| 0).map(drop));

    let conv =
        |shape: &[usize], stride| Conv2d::prepare(device, Precision::F32, weights(shape), None, stride, Padding::Same).unwrap();
    let (narrow, wide) = (conv(&[8, 8, 1, 1], 1), conv(&[1, zeros.len(), 1, 1], 1));
    let convolve = |exec: &Exec<'_>, layer: &Conv2d, shape: &[usize]| {
        conv2d(exec, layer, &alloc(exec, &[shape, &[layer.inputs()]].concat())?, Fused::default()).map(drop)
    };
    refuse("f16: positions", &|exec| convolve(exec, &narrow, &[1 << 17, 1 << 7, 1 << 7]));
    refuse("f16: height: 16385", &|exec| convolve(exec, &narrow, &[1, (1 << 14) + 1, 1]));
    refuse("f16: width: 16385", &|exec| convolve(exec, &narrow, &[1, 1, (1 << 14) + 1]));
    refuse("f16: products of a sum: 8388608", &|exec| convolve(exec, &wide, &[1, 1, 1]));
}

#[test]
fn misfits_are_refused_while_recording() {
    let device = &gpus()[0];
    let refuse = |entries: Entries, input: DType, part: &str| {
        let record = |exec: &Exec<'_>| {
            let mut out = exec.alloc([4], exec.storage())?;
            let x = exec.input_as([4], input, &[])?;
            exec.enqueue(Launch::new(&entries, exec.storage(), [1; 3], [1; 3])?.output(&mut out).input(&x).input(&x).input(&x))
        };
        let error = Plan::record(device, record).unwrap_err().to_string();
        assert!(error.contains(entries.f16) && error.contains(part), "{error}");
    };
    refuse(entries!("embed_forward"), DType::F16, "takes 5 arguments, and 4 were given");
    refuse(entries!("add_forward"), DType::F32, "argument 1 is a tensor of f32, but the kernel takes f16");
    refuse(entries!("add_forward"), DType::F16, "argument 3 is a tensor, but the kernel takes a struct of 8 bytes");
    refuse(entries!("mul_forward"), DType::F16, "no such kernel for sm_");
}

#[test]
#[should_panic(expected = "read-only")]
fn kernels_do_not_write_to_views() {
    let device = &gpus()[0];
    let buffer = Buffer::try_zeros(device, [4], DType::F16).unwrap();
    let record = |exec: &Exec<'_>| {
        let mut view = exec.view(&buffer);
        Launch::new(&entries!("add_forward"), DType::F16, [1; 3], [256, 1, 1]).map(|launch| drop(launch.output(&mut view)))
    };
    _ = Plan::record(device, record);
}

#[test]
#[should_panic(expected = "element 4 of")]
fn kernels_start_inside_of_tensors() {
    let device = &gpus()[0];
    let record = |exec: &Exec<'_>| {
        let x = exec.alloc([4], DType::F16)?;
        Launch::new(&entries!("add_forward"), DType::F16, [1; 3], [256, 1, 1]).map(|launch| drop(launch.input_from(&x, 4)))
    };
    _ = Plan::record(device, record);
}

#[test]
fn passes_keep_to_their_plan() {
    let device = &gpus()[0];
    let plan = Plan::record(device, |exec| exec.input([4], &[0.0; 4]).map(drop)).unwrap();
    for len in [3, 5] {
        let error = Arena::new().run(device, &plan, |exec| exec.input([len], &vec![0.0; len]).map(drop)).unwrap_err();
        assert!(matches!(error, Error::Internal { op: "memory plan", .. }), "{error}");
    }
    let error = Arena::new().run(device, &plan, |_| Ok(())).unwrap_err();
    assert!(matches!(error, Error::Internal { op: "memory plan", .. }), "{error}");
}

#[test]
#[should_panic(expected = "another device")]
fn buffers_of_other_devices_are_not_viewed() {
    // Of one list: a card is opened once for each storage type.
    let [one, other] = &gpus()[..] else { panic!() };
    let buffer = Buffer::try_zeros(other, [4], DType::F16).unwrap();
    _ = Arena::new().run_once(one, |exec| exec.view(&buffer).read_f32(&mut [0.0; 4]));
}

/// Starts of operations, and values.
#[derive(Default)]
struct Watch {
    starts: Mutex<Vec<(&'static str, Instant)>>,
    values: Mutex<Vec<f32>>,
}

impl Observer for Watch {
    fn tensor(&self, _name: std::fmt::Arguments<'_>, shape: Shape, values: &[f32]) {
        assert_eq!(shape.len(), values.len());
        self.values.lock().unwrap().extend(values);
    }
    fn op(&self, cost: &Cost, at: Instant) {
        self.starts.lock().unwrap().push((cost.op, at));
    }
}

#[test]
fn observers_see_values_and_times_in_order() {
    for device in gpus() {
        let pass = |exec: &Exec<'_>| {
            let x = exec.input([4], &[1.0, 2.0, 3.0, 4.0])?;
            let twice = add(exec, &x, &x)?;
            exec.observe(format_args!("twice"), &twice);
            repeat_batch(exec, &twice, 2).map(drop)
        };
        let watch = Watch::default();
        let plan = Plan::record(&device, pass).unwrap();
        let before = Instant::now();
        Arena::new().run_observed(&device, &plan, Some(&watch), pass).unwrap();
        let (ops, values) = (watch.starts.into_inner().unwrap(), watch.values.into_inner().unwrap());
        assert_eq!(values, [2.0, 4.0, 6.0, 8.0]);
        assert_eq!(ops.iter().map(|op| op.0).collect::<Vec<_>>(), ["add", "repeat_batch"]);
        assert!(before <= ops[0].1 && ops[0].1 <= ops[1].1 && ops[1].1 <= Instant::now());
    }
}
