//! Passes that come to the same on every GPU: on the simulator and on a card (`src/device/tests.rs`), and with the double of the driver. All
//! kernels add, which is what the double computes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use syntic::Result;
use syntic::device::{Arena, Buffer, Device, Entries, Exec, Launch, Plan, Tensor};
use syntic::ops::elementwise::{add, scale};

/// Elements of most tensors here.
const LEN: usize = 100;

/// Quarters of small integers: exact in f16 and in bf16, and so are their sums.
pub fn quarters(seed: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7 + seed * 13) % 61) as f32 / 4.0 - 7.0).collect()
}

pub fn read(tensor: &Tensor<'_>) -> Result<Vec<f32>> {
    let mut out = vec![f32::NAN; tensor.shape().len()];
    tensor.read_f32(&mut out)?;
    Ok(out)
}

fn buffer(device: &Device, values: &[f32]) -> Buffer {
    Buffer::from_f32(device, [values.len()], device.storage(), values).unwrap()
}

fn content(device: &Device, buffer: &Buffer) -> Vec<f32> {
    Arena::new().run_once(device, |exec| read(&exec.view(buffer))).unwrap()
}

pub fn compute_what_a_cpu_computes(device: &Device, lengths: &[usize]) {
    let mut arena = Arena::new();
    for &len in lengths {
        let (x, y) = (quarters(1, len), quarters(2, len));
        let pass = |exec: &Exec<'_>| {
            let sum = add(exec, &exec.input([len], &x)?, &exec.input([len], &y)?)?;
            read(&add(exec, &sum, &exec.input([len], &y)?)?)
        };
        let cpu = Arena::new().run_once(&Device::cpu(1).unwrap(), pass).unwrap();
        let plan = Plan::record(device, |exec| pass(exec).map(drop)).unwrap();
        for _ in 0..2 {
            assert!(arena.run(device, &plan, pass).unwrap() == cpu, "{len} on {}", device.describe());
        }
        assert_eq!(plan.ops().len(), 2);
        assert_eq!(plan.ops()[0].bytes, 2 * 3 * len as u64);
    }
}

pub fn use_buffers_that_outlive_them(device: &Device) {
    let storage = device.storage();
    let table = Buffer::from_f32(device, [3, 4], storage, &quarters(4, 12)).unwrap();
    let mut sums = Buffer::try_zeros(device, [2, 4], storage).unwrap();
    assert_eq!(content(device, &sums), [0.0; 8]);
    Arena::new()
        .run_once(device, |exec| {
            let (a, b) = (exec.view_part(&table, 0, [4]), exec.view_part(&table, 8, [4]));
            add(exec, &a, &b)?.store_at(&mut sums, 4)
        })
        .unwrap();
    let expected: Vec<f32> = (0..4).map(|i| quarters(4, 12)[i] + quarters(4, 12)[8 + i]).collect();
    assert_eq!(content(device, &sums), [vec![0.0; 4], expected].concat());
}

/// A captured pass follows its buffers, and keeps its memory when the arena and the buffers are gone.
pub fn are_captured_and_replayed(device: &Device) {
    let (x, y) = (quarters(5, LEN), quarters(6, LEN));
    let (mut total, step) = (buffer(device, &x), buffer(device, &y));
    let mut next = Buffer::try_zeros(device, [LEN], device.storage()).unwrap();
    let mut arena = Arena::new();
    let mut pass = |exec: &Exec<'_>| {
        add(exec, &exec.view(&total), &exec.view(&step))?.store(&mut next)?;
        add(exec, &exec.view(&next), &exec.view(&step))?.store(&mut total)
    };
    let plan = Plan::record(device, &mut pass).unwrap();
    let graph = arena.capture(device, &plan, &mut pass).unwrap();
    assert_eq!(content(device, &total), x, "capturing runs nothing");
    for rounds in 1..=3 {
        graph.replay().unwrap();
        let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + 2.0 * rounds as f32 * y).collect();
        assert_eq!(content(device, &total), expected);
    }
    drop((arena, step, next, total));
    graph.replay().unwrap();
}

pub fn exchange_nothing_with_the_host_when_captured(device: &Device) {
    let values = Buffer::try_zeros(device, [4], device.storage()).unwrap();
    let refuse = |pass: &(dyn Fn(&Exec<'_>) -> Result<()> + Sync)| {
        let plan = Plan::record(device, pass).unwrap();
        let error = Arena::new().capture(device, &plan, pass).unwrap_err();
        assert!(error.to_string().contains("use buffers"), "{error}");
    };
    refuse(&|exec| exec.input([4], &[1.0; 4]).map(drop));
    refuse(&|exec| exec.view(&values).read_f32(&mut [0.0; 4]));
    // The failed captures are over.
    Arena::new().run_once(device, |exec| exec.input([4], &[1.0; 4]).map(drop)).unwrap();
}

/// What waits for the queue, or cannot be part of a graph, is refused on the thread that captures.
pub fn wait_for_nothing_while_they_are_captured(device: &Device) {
    let Device::Gpu(gpu) = device else { panic!("a CPU") };
    let plan = Plan::record(device, |_| Ok(())).unwrap();
    let graph = Arena::new().capture(device, &plan, |_| Ok(())).unwrap();
    let refuse = |parts: [&str; 2], work: &(dyn Fn() -> Result<()> + Sync)| {
        let error = Arena::new().capture(device, &plan, |_| work()).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    const REASON: &str = "this thread captures a pass";
    refuse(["finish", REASON], &|| gpu.synchronize());
    refuse(["replay", REASON], &|| graph.replay());
    refuse(["record an event", REASON], &|| graph.time().map(drop));
    refuse(["capture", REASON], &|| Arena::new().capture(device, &plan, |_| Ok(())).map(drop));
    // The simulator does not mind the memory, which its tensors take one by one.
    let refused = if gpu.is_simulated() { "take values" } else { "give memory" };
    refuse([refused, REASON], &|| Buffer::from_f32(device, [1], device.storage(), &[1.0]).map(drop));
    let load = |exec: &Exec<'_>| {
        let entries = Entries { f16: "no_such_kernel_f16", bf16: "no_such_kernel_bf16" };
        exec.enqueue(Launch::new(&entries, device.storage(), [1; 3], [1; 3])?)
    };
    refuse(["no_such_kernel", "cannot be loaded during a capture"], &|| Plan::record(device, load).map(drop));
}

pub fn end_their_capture_when_they_panic(device: &Device) {
    let plan = Plan::record(device, |_| Ok(())).unwrap();
    let panicking = || Arena::new().capture(device, &plan, |_| panic!("as asked")).map(drop);
    assert!(catch_unwind(AssertUnwindSafe(panicking)).is_err());
    Arena::new().capture(device, &plan, |_| Ok(())).unwrap().replay().unwrap();
}

type Use<'d> = Box<dyn FnOnce() + Send + 'd>;

/// Use number `index` of a GPU, none past the last. Each begins with another call of the driver: what comes before is done here.
pub fn use_of(device: &Device, index: usize) -> Option<Use<'_>> {
    let Device::Gpu(gpu) = device else { panic!("a CPU") };
    let (x, twice) = (quarters(8, LEN), quarters(8, LEN).iter().map(|x| 2.0 * x).collect());
    let (values, mut other) = (buffer(device, &x), buffer(device, &x));
    let idle = |_: &Exec<'_>| Ok(());
    let captured = move || Arena::new().capture(device, &Plan::record(device, idle).unwrap(), idle).unwrap();
    Some(match index {
        0 => ready(device, x.clone(), move |exec| read(&exec.input([LEN], &x)?)),
        1 => ready(device, x, move |exec| read(&exec.view(&values))),
        2 => ready(device, vec![0.0; LEN], |exec| {
            let mut zeros = exec.alloc([LEN], exec.storage())?;
            zeros.fill_bytes(0)?;
            read(&zeros)
        }),
        3 => ready(device, x, move |exec| {
            exec.view(&values).store(&mut other)?;
            read(&exec.view(&other))
        }),
        4 => ready(device, twice, move |exec| read(&add(exec, &exec.view(&values), &exec.view(&values))?)),
        5 => Box::new(|| gpu.synchronize().unwrap()),
        6 => Box::new(|| drop(buffer(device, &[1.0]))),
        7 => Box::new(|| drop(values)),
        8 => Box::new(|| assert!(gpu.memory().unwrap().total > 0)),
        // No other use has this kernel, so it is loaded here.
        9 => Box::new(|| {
            let plan = Plan::record(device, |exec| scale(exec, &exec.input([LEN], &[])?, 2.0).map(drop)).unwrap();
            assert_eq!(plan.launches().len(), 1);
        }),
        10 => Box::new(move || drop(captured())),
        11 => {
            let graph = captured();
            Box::new(move || graph.replay().unwrap())
        }
        12 => {
            let graph = captured();
            Box::new(move || _ = graph.time().unwrap())
        }
        13 => {
            let graph = captured();
            Box::new(move || drop(graph))
        }
        _ => return None,
    })
}

/// A pass with its plan recorded, its kernels loaded and its memory taken.
fn ready<'d>(device: &'d Device, expected: Vec<f32>, mut pass: impl FnMut(&Exec<'_>) -> Result<Vec<f32>> + Send + 'd) -> Use<'d> {
    let (plan, mut arena) = (Plan::record(device, |exec| pass(exec).map(drop)).unwrap(), Arena::new());
    arena.reserve(device, &plan).unwrap();
    Box::new(move || assert_eq!(arena.run(device, &plan, pass).unwrap(), expected))
}

/// What another thread does meanwhile is done, and is no part of the graph. The double ends the process if it comes in between, or if the
/// capture frees memory before its end.
pub fn keep_other_threads_out_of_their_capture(device: &Device) {
    let x = quarters(7, LEN);
    for (index, other) in (0..).map_while(|index| Some((index, use_of(device, index)?))) {
        let mut total = buffer(device, &x);
        let mut spare = Some(buffer(device, &x));
        let (start, started) = mpsc::channel();
        let mut pass = |exec: &Exec<'_>| {
            if exec.is_running() {
                start.send(()).unwrap();
                thread::sleep(Duration::from_millis(50));
                drop(spare.take());
            }
            let twice = add(exec, &exec.view(&total), &exec.view(&total))?;
            twice.store(&mut total)
        };
        let plan = Plan::record(device, &mut pass).unwrap();
        let graph = thread::scope(|scope| {
            let other = scope.spawn(move || {
                started.recv().unwrap();
                other();
            });
            let graph = Arena::new().capture(device, &plan, &mut pass).unwrap();
            // The double is not made for several threads at once.
            other.join().unwrap();
            graph
        });
        graph.replay().unwrap();
        assert_eq!(content(device, &total), x.iter().map(|x| 2.0 * x).collect::<Vec<_>>(), "use {index}");
    }
}
