//! Reading the golden models and comparing with their expected tensors.

#![allow(dead_code)] // each test file uses its part

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use syntic::Result;
use syntic::device::{Device, Gpu, Observer, Precision};
use syntic::tensor::{DType, Shape};
use syntic::weights::{BUILTIN, Checkpoint, Component, Loader, find_model, read_json};

/// Largest relative L2 error of a block on a CPU. Both sides are f32 and add their sums in different orders, which makes about 1e-6;
/// a variance of one with 1e-5 added instead of 1e-6 makes 4.5e-6.
const TOLERANCE: f64 = 3e-6;

/// Modules whose output never exists here: the residual is added by the product that would make it.
const INSIDE_FUSED: [&str; 5] = [".self_attn", ".mlp", ".attn1", ".attn2", ".ff"];

/// A model folder of tests/golden.
pub struct Case {
    pub device: Device,
    pub folder: PathBuf,
    /// Where the model is: in the same folder, except the built-in one.
    pub model: PathBuf,
}

/// What the networks are run on: the CPU, and the simulator in each storage type. `SYNTIC_TEST_DEVICE` names another choice: with `cuda` or
/// `sim` that is the only one. A GPU that is not there fails.
pub fn devices() -> Vec<Device> {
    let gpu =
        |open: fn(DType) -> Result<Gpu>| [DType::F16, DType::BF16].map(|storage| Device::Gpu(open(storage).unwrap())).to_vec();
    let sim = || gpu(|storage| Gpu::sim(storage, 2));
    match std::env::var("SYNTIC_TEST_DEVICE").as_deref() {
        // One thread: these networks are too small to share, and other tests show that threads change no bit.
        Err(_) => [vec![Device::cpu(1).unwrap()], sim()].concat(),
        Ok("sim") => sim(),
        Ok("cuda") => gpu(|storage| Gpu::cuda(0, storage, 2)),
        Ok(other) => panic!("SYNTIC_TEST_DEVICE={other}: it is `sim` or `cuda`"),
    }
}

impl Case {
    /// On the CPU.
    pub fn open(name: &str) -> Case {
        Case::open_on(Device::cpu(1).unwrap(), name)
    }

    pub fn open_on(device: Device, name: &str) -> Case {
        // Of this run: a kit for another machine has the goldens in a folder of its own.
        let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let folder = Path::new(&root).join("tests/golden").join(name);
        let model = if name == BUILTIN { find_model(BUILTIN).unwrap() } else { folder.clone() };
        Case { device, folder, model }
    }

    /// Builds one network, in f32.
    pub fn load<M>(&self, component: Component, new: impl Fn(&Path, &Value, &Device, Precision, &Loader<'_>) -> Result<M>) -> M {
        let folder = self.model.join(component.folder());
        let path = folder.join("config.json");
        let json = read_json(&path).unwrap();
        // The autoencoder's halves are two networks in one file.
        let checkpoint = Checkpoint::open(&folder, component).unwrap();
        let checkpoint = checkpoint.skip(&["encoder.", "decoder.", "quant_conv.", "post_quant_conv."]);
        checkpoint.load(|loader| new(&path, &json, &self.device, Precision::F32, loader)).unwrap()
    }

    /// The file `expected/{part}.safetensors`.
    pub fn golden(&self, part: &str) -> Golden {
        let path = self.folder.join("expected").join(format!("{part}.safetensors"));
        Golden { bytes: std::fs::read(&path).unwrap(), yardstick: self.yardstick() }
    }

    /// What errors of tensors are measured by.
    pub fn yardstick(&self) -> Yardstick {
        let Device::Gpu(gpu) = &self.device else { return Yardstick::Fixed(TOLERANCE) };
        let mut errors = read_json(&self.folder.join("expected/half.json")).unwrap();
        let rounding = if gpu.storage() == DType::F16 { 2f64.powi(-11) } else { 2f64.powi(-8) };
        Yardstick::Half { errors: errors[gpu.storage().name()].take(), rounding }
    }
}

/// The largest relative L2 error of a tensor.
pub enum Yardstick {
    /// The same for all.
    Fixed(f64),
    /// Twice that of diffusers and transformers in the same storage type, and one rounding. `tools/golden/half.py` measured them.
    Half { errors: Value, rounding: f64 },
}

impl Yardstick {
    pub fn of(&self, name: &str) -> f64 {
        match self {
            Yardstick::Fixed(most) => *most,
            Yardstick::Half { errors, rounding } => {
                2.0 * errors[name].as_f64().unwrap_or_else(|| panic!("half.json has no {name}")) + rounding
            }
        }
    }
}

/// Expected tensors, in torch's layout.
pub struct Golden {
    bytes: Vec<u8>,
    yardstick: Yardstick,
}

impl Golden {
    fn tensor(&self, name: &str) -> Option<(Vec<usize>, Dtype, Vec<u8>)> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).ok()?;
        Some((view.shape().to_vec(), view.dtype(), view.data().to_vec()))
    }

    /// Shape and values of an f32 tensor.
    pub fn floats(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let (shape, dtype, bytes) = self.tensor(name).unwrap_or_else(|| panic!("no tensor {name}"));
        assert_eq!(dtype, Dtype::F32, "{name}");
        (shape, bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    /// Shape and values of a tensor of token ids.
    pub fn integers(&self, name: &str) -> (Vec<usize>, Vec<u32>) {
        let (shape, dtype, bytes) = self.tensor(name).unwrap_or_else(|| panic!("no tensor {name}"));
        assert_eq!(dtype, Dtype::I64, "{name}");
        (shape, bytes.as_chunks::<8>().0.iter().map(|b| u32::try_from(i64::from_le_bytes(*b)).unwrap()).collect())
    }

    /// Values of a tensor of bytes.
    pub fn bytes_of(&self, name: &str) -> Vec<u8> {
        let (_, dtype, bytes) = self.tensor(name).unwrap_or_else(|| panic!("no tensor {name}"));
        assert_eq!(dtype, Dtype::U8, "{name}");
        bytes
    }

    /// Compares channels-last values with the tensor of this name.
    pub fn check(&self, name: &str, shape: Shape, values: &[f32]) -> std::result::Result<(), String> {
        let (expected_shape, expected) = self.floats(name);
        let (expected_shape, expected) = channels_last(&expected_shape, &expected);
        if shape != expected_shape {
            return Err(format!("{name}: shape {shape:?}, expected {expected_shape:?}"));
        }
        let (relative, most) = (relative_error(values, &expected), self.yardstick.of(name));
        // Written so that a NaN fails.
        if relative <= most { Ok(()) } else { Err(format!("{name}: relative error {relative:.2e}, allowed {most:.2e}")) }
    }

    /// An observer that compares every block that the file knows.
    pub fn watch(&self) -> Watch<'_> {
        Watch { golden: self, seen: Mutex::default() }
    }

    /// Names of the blocks under `prefix`, in alphabetical order.
    fn blocks(&self, prefix: &str) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let mut names: Vec<String> = file.names().into_iter().map(String::from).collect();
        names.retain(|name| name.starts_with(prefix) && !INSIDE_FUSED.iter().any(|end| name.ends_with(end)));
        names.sort();
        names
    }
}

/// The L2 norm of a difference, as a share of that of `expected`.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let error: f64 = found.iter().zip(expected).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    (error / expected.iter().map(|b| square(f64::from(*b))).sum::<f64>()).sqrt()
}

#[derive(Default)]
struct Seen {
    equal: Vec<String>,
    first_difference: Option<String>,
}

/// Compares blocks while a pass runs.
pub struct Watch<'g> {
    golden: &'g Golden,
    seen: Mutex<Seen>,
}

impl Watch<'_> {
    /// Fails with the first block that differs, or if a block under `prefix` was not shown.
    pub fn finish(&self, prefix: &str) {
        let mut seen = self.seen.lock().unwrap();
        if let Some(difference) = &seen.first_difference {
            panic!("first difference after {} equal blocks: {difference}", seen.equal.len());
        }
        seen.equal.sort();
        let expected = self.golden.blocks(prefix);
        assert!(!expected.is_empty());
        assert_eq!(seen.equal, expected, "blocks under {prefix}");
    }
}

impl Observer for Watch<'_> {
    fn tensor(&self, name: fmt::Arguments<'_>, shape: Shape, values: &[f32]) {
        let name = name.to_string();
        let mut seen = self.seen.lock().unwrap();
        if seen.first_difference.is_some() || self.golden.tensor(&name).is_none() {
            return;
        }
        // The time embedding is made for all steps at once; the golden file holds the first, once for each sample.
        let (shape, values) = match name.as_str() {
            "unet.time_embedding" => {
                let row = &values[..shape.last()];
                (Shape::from([2, shape.last()]), [row, row].concat())
            }
            _ => (shape, values.to_vec()),
        };
        match self.golden.check(&name, shape, &values) {
            Ok(()) => seen.equal.push(name),
            Err(difference) => seen.first_difference = Some(difference),
        }
    }
}

/// A tensor `[B, C, H, W]` as `[B, H, W, C]`; others as they are.
pub fn channels_last(shape: &[usize], values: &[f32]) -> (Shape, Vec<f32>) {
    let &[b, c, h, w] = shape else { return (Shape::new(shape), values.to_vec()) };
    let mut out = Vec::with_capacity(values.len());
    for (n, at) in (0..b).flat_map(|n| (0..h * w).map(move |at| (n, at))) {
        out.extend((0..c).map(|k| values[(n * c + k) * h * w + at]));
    }
    (Shape::from([b, h, w, c]), out)
}
