//! Passes on a GPU: memory, transfers, launches, captured passes, failures.

use super::gpu::Gpu;
use super::*;
use crate::ops::attention::{Attention, Columns, attention};
use crate::ops::conv::{Conv2d, Padding};
use crate::ops::elementwise::{add, repeat_batch, select_positions, timestep_embedding};
use crate::ops::testing::gpus;
use crate::tensor::{HostTensor, Shape};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Quarters of small integers: exact in f16 and in bf16, and so are their sums.
fn quarters(seed: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7 + seed * 13) % 61) as f32 / 4.0 - 7.0).collect()
}

fn read(tensor: &Tensor<'_>) -> Result<Vec<f32>> {
    let mut out = vec![f32::NAN; tensor.shape().len()];
    tensor.read_f32(&mut out)?;
    Ok(out)
}

#[test]
fn a_pass_computes_what_it_computes_on_a_cpu() {
    // More than one piece of a transfer, and an odd rest.
    for len in [1, 1000, 1_200_007] {
        let (x, y) = (quarters(1, len), quarters(2, len));
        let pass = |exec: &Exec<'_>| {
            let sum = add(exec, &exec.input([len], &x)?, &exec.input([len], &y)?)?;
            read(&add(exec, &sum, &exec.input([len], &y)?)?)
        };
        let cpu = Arena::new().run_once(&Device::cpu(1).unwrap(), pass).unwrap();
        for device in gpus() {
            let mut arena = Arena::new();
            let plan = Plan::record(&device, |exec| pass(exec).map(drop)).unwrap();
            for _ in 0..2 {
                assert!(arena.run(&device, &plan, pass).unwrap() == cpu, "{len} on {}", device.describe());
            }
            assert_eq!(plan.ops().len(), 2);
            assert_eq!(plan.ops()[0].bytes, 2 * 3 * len as u64);
        }
    }
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

#[test]
fn buffers_outlive_passes() {
    for device in gpus() {
        let storage = device.storage();
        let table = Buffer::from_f32(&device, [3, 4], storage, &quarters(4, 12)).unwrap();
        let mut sums = Buffer::try_zeros(&device, [2, 4], storage).unwrap();
        let mut arena = Arena::new();
        let zeros = arena.run_once(&device, |exec| read(&exec.view(&sums))).unwrap();
        assert_eq!(zeros, [0.0; 8]);
        arena
            .run_once(&device, |exec| {
                let (a, b) = (exec.view_part(&table, 0, [4]), exec.view_part(&table, 8, [4]));
                add(exec, &a, &b)?.store_at(&mut sums, 4)
            })
            .unwrap();
        let expected: Vec<f32> = (0..4).map(|i| quarters(4, 12)[i] + quarters(4, 12)[8 + i]).collect();
        assert_eq!(arena.run_once(&device, |exec| read(&exec.view(&sums))).unwrap(), [vec![0.0; 4], expected].concat());
    }
}

/// A captured pass follows its buffers, and keeps its memory when the arena is gone.
#[test]
fn captured_passes_are_replayed() {
    for device in gpus() {
        let storage = device.storage();
        let (x, y) = (quarters(5, 100), quarters(6, 100));
        let mut total = Buffer::from_f32(&device, [100], storage, &x).unwrap();
        let step = Buffer::from_f32(&device, [100], storage, &y).unwrap();
        let mut next = Buffer::try_zeros(&device, [100], storage).unwrap();
        let mut arena = Arena::new();
        let mut pass = |exec: &Exec<'_>| {
            add(exec, &exec.view(&total), &exec.view(&step))?.store(&mut next)?;
            let again = add(exec, &exec.view(&next), &exec.view(&step))?;
            again.store(&mut total)
        };
        let plan = Plan::record(&device, &mut pass).unwrap();
        let graph = arena.capture(&device, &plan, &mut pass).unwrap();
        let now = |arena: &mut Arena, total: &Buffer| arena.run_once(&device, |exec| read(&exec.view(total))).unwrap();
        assert_eq!(now(&mut arena, &total), x, "capturing runs nothing");
        for rounds in 1..=3 {
            graph.replay().unwrap();
            let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + 2.0 * rounds as f32 * y).collect();
            assert_eq!(now(&mut arena, &total), expected);
        }
        drop((arena, step, next));
        graph.replay().unwrap();
    }
}

#[test]
fn a_captured_pass_exchanges_nothing_with_the_host() {
    let device = &gpus()[0];
    let buffer = Buffer::try_zeros(device, [4], device.storage()).unwrap();
    let refuse = |pass: &(dyn Fn(&Exec<'_>) -> Result<()> + Sync)| {
        let plan = Plan::record(device, pass).unwrap();
        let error = Arena::new().capture(device, &plan, pass).unwrap_err();
        assert!(error.to_string().contains("use buffers"), "{error}");
    };
    refuse(&|exec| exec.input([4], &[1.0; 4]).map(drop));
    refuse(&|exec| exec.view(&buffer).read_f32(&mut [0.0; 4]));
    // The failed captures are over.
    Arena::new().run_once(device, |exec| exec.input([4], &[1.0; 4]).map(drop)).unwrap();
    let error = Arena::new().capture(&Device::cpu(1).unwrap(), &Plan::record(device, |_| Ok(())).unwrap(), |_| Ok(()));
    assert!(matches!(error, Err(Error::Usage { .. })));
}

/// What another thread does meanwhile is done, and is no part of the graph.
#[test]
fn captures_keep_other_threads_out() {
    for device in gpus() {
        let (x, y) = (quarters(7, 100), quarters(8, 100));
        let mut total = Buffer::from_f32(&device, [100], device.storage(), &x).unwrap();
        let mut spare = Some(Buffer::try_zeros(&device, [100], device.storage()).unwrap());
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
            let (device, y) = (&device, &y);
            let other = scope.spawn(move || {
                started.recv().unwrap();
                let y = Buffer::from_f32(device, [100], device.storage(), y).unwrap();
                Arena::new().run_once(device, |exec| read(&add(exec, &exec.view(&y), &exec.view(&y))?)).unwrap()
            });
            let graph = Arena::new().capture(device, &plan, &mut pass).unwrap();
            assert_eq!(other.join().unwrap(), y.iter().map(|y| 2.0 * y).collect::<Vec<_>>());
            graph
        });
        graph.replay().unwrap();
        let now = Arena::new().run_once(&device, |exec| read(&exec.view(&total))).unwrap();
        assert_eq!(now, x.iter().map(|x| 2.0 * x).collect::<Vec<_>>());
    }
}

#[test]
fn the_capturing_thread_waits_for_nothing() {
    let device = &gpus()[0];
    let Device::Gpu(gpu) = device else { panic!() };
    let plan = Plan::record(device, |_| Ok(())).unwrap();
    let graph = Arena::new().capture(device, &plan, |_| Ok(())).unwrap();
    let refuse = |action: &str, pass: &(dyn Fn() -> Result<()> + Sync)| {
        let error = Arena::new().capture(device, &plan, |_| pass()).unwrap_err().to_string();
        assert!(error.contains(action) && error.contains("this thread captures a pass"), "{error}");
    };
    refuse("finish", &|| gpu.synchronize());
    refuse("replay", &|| graph.replay());
    refuse("take values", &|| Buffer::from_f32(device, [1], DType::F16, &[1.0]).map(drop));
    refuse("capture", &|| Arena::new().capture(device, &plan, |_| Ok(())).map(drop));
    // Nor is a kernel loaded, which is checked while recording.
    let record = || {
        Plan::record(device, |exec| {
            let x = exec.input([1], &[1.0])?;
            add(exec, &x, &x).map(drop)
        })
    };
    let error = Arena::new().capture(device, &plan, |_| record().map(drop)).unwrap_err().to_string();
    assert!(error.contains("add_forward") && error.contains("during a capture"), "{error}");
}

#[test]
fn a_panic_ends_its_capture() {
    for device in &gpus() {
        let plan = Plan::record(device, |_| Ok(())).unwrap();
        let panicking = || Arena::new().capture(device, &plan, |_| panic!("as asked")).map(drop);
        assert!(catch_unwind(AssertUnwindSafe(panicking)).is_err());
        Arena::new().capture(device, &plan, |_| Ok(())).unwrap().replay().unwrap();
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

/// The list is what it says: these fail, before anything runs, and with a way out.
#[test]
fn operations_without_kernels_say_so() {
    for device in &gpus() {
        let weight = HostTensor { name: "w".into(), shape: vec![8, 8, 3, 3], dtype: DType::F32, bytes: None };
        let conv = Conv2d::prepare(device, Precision::F32, weight, None, 1, Padding::Same).map(drop);
        let attention = Plan::record(device, |exec| {
            let x = exec.input([1, 4, 24], &[])?;
            let settings = Attention { heads: 1, head_dim: 8, causal: false, kv_rows: None, precision: Precision::F32 };
            let [q, k, v] = [0, 8, 16].map(|column| Columns { tensor: &x, column });
            attention(exec, settings, q, k, v).map(drop)
        });
        let failures = [("conv2d", conv), ("attention", attention.map(drop))];
        assert_eq!(failures.iter().map(|failure| failure.0).collect::<Vec<_>>(), WITHOUT_KERNELS);
        for (op, failure) in failures {
            let error = failure.unwrap_err();
            assert_eq!(error.to_string(), format!("{op} has no GPU kernel yet"));
            assert_eq!(error.hint().unwrap(), "use --device cpu");
        }
    }
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
    let (one, other) = (gpus().remove(0), gpus().remove(0));
    let buffer = Buffer::try_zeros(&other, [4], DType::F16).unwrap();
    _ = Arena::new().run_once(&one, |exec| exec.view(&buffer).read_f32(&mut [0.0; 4]));
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
