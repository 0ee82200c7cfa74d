//! The cases of the operations that have kernels, as passes that can be run anywhere.

use crate::Result;
use crate::device::{Buffer, Device, Exec, Precision, Tensor};
use crate::ops::attention::{self, Attention, Columns, KvRows};
use crate::ops::conv::{self, Conv2d, Fused, Padding};
use crate::ops::gemm::{self, Activation, Linear};
use crate::ops::norm::{self, GroupCase, Norm};
use crate::ops::{RowsCase, elementwise, embed, softmax};
use crate::tensor::{DType, HostTensor};
use half::{bf16, f16};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

/// An operation with its inputs.
pub(in crate::bench) type Pass = Box<dyn for<'e, 'p> Fn(&'e Exec<'p>) -> Result<Tensor<'e>> + Send + Sync>;

fn pass(run: impl for<'e, 'p> Fn(&'e Exec<'p>) -> Result<Tensor<'e>> + Send + Sync + 'static) -> Pass {
    Box::new(run)
}

/// Puts inputs on a device.
type Inputs = dyn Fn(&Device, &mut Noise) -> Result<Pass>;

/// One operation at one shape, as the report has it.
pub(in crate::bench) struct Problem {
    pub op: &'static str,
    pub case: String,
    pub shape: BTreeMap<&'static str, usize>,
    pub bias: bool,
    pub activation: &'static str,
    pub residual: bool,
    pub flops: u64,
    /// For elements of so many bytes.
    pub bytes: Box<dyn Fn(usize) -> u64>,
    inputs: Box<Inputs>,
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Problem {
    /// `OP/CASE`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.op, self.case)
    }

    /// The operation on inputs that `seed` decides.
    pub fn prepare(&self, device: &Device, seed: u64) -> Result<Pass> {
        (self.inputs)(device, &mut Noise::new(seed, DType::F32))
    }

    /// The same, with the values that `storage` holds where a GPU stores them.
    pub fn prepare_rounded(&self, device: &Device, seed: u64, storage: DType) -> Result<Pass> {
        (self.inputs)(device, &mut Noise::new(seed, storage))
    }

    fn new(
        op: &'static str,
        case: impl Into<String>,
        shape: &[(&'static str, usize)],
        flops: u64,
        bytes: impl Fn(usize) -> u64 + 'static,
        inputs: impl Fn(&Device, &mut Noise) -> Result<Pass> + 'static,
    ) -> Problem {
        let (shape, bytes, inputs) = (shape.iter().copied().collect(), Box::new(bytes), Box::new(inputs));
        Problem { op, case: case.into(), shape, bias: false, activation: "none", residual: false, flops, bytes, inputs }
    }
}

/// Random values in [-1, 1], different for each seed.
pub(super) struct Noise {
    state: u64,
    storage: DType,
}

impl Noise {
    fn new(seed: u64, storage: DType) -> Noise {
        Noise { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, storage }
    }

    /// Knuth's linear congruential generator (MMIX): the upper bits are the good ones.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.state
    }

    /// Of a tensor that is f32 everywhere.
    fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
    }

    /// Of a tensor that has the storage type on a GPU.
    fn stored(&mut self, len: usize) -> Vec<f32> {
        let mut values = self.values(len);
        match self.storage {
            DType::F16 => values.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32()),
            DType::BF16 => values.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32()),
            _ => {}
        }
        values
    }

    fn buffer(&mut self, device: &Device, shape: &[usize]) -> Result<Buffer> {
        Buffer::from_f32(device, crate::tensor::Shape::new(shape), device.storage(), &self.stored(shape.iter().product()))
    }
}

fn weight<'a>(shape: &[usize], values: &'a [f32]) -> HostTensor<'a> {
    HostTensor {
        name: "weight".into(),
        shape: shape.into(),
        dtype: DType::F32,
        bytes: Some(bytemuck::cast_slice(values)),
        store: None,
    }
}

/// All of them.
pub(super) fn all() -> Vec<Problem> {
    let products = gemm::cases().into_iter().map(product);
    let norms = norm::group_cases().into_iter().map(group_norm).chain(norm::layer_cases().into_iter().map(layer_norm));
    let others = softmax::cases().into_iter().map(rows_softmax);
    let sums = elementwise::cases().into_iter().map(sum);
    let products = products.chain(conv::cases().into_iter().map(convolution));
    let attentions = attention::cases().into_iter().map(attend);
    products.chain(attentions).chain(norms).chain(others).chain(sums).chain(embed::cases().into_iter().map(embedding)).collect()
}

pub(in crate::bench) fn product(case: gemm::Case) -> Problem {
    let gemm::Case { name, rows, inputs, outputs, activation, residual } = case;
    let make = move |device: &Device, noise: &mut Noise| {
        let columns = case.columns();
        let (w, b) = (noise.stored(columns * inputs), noise.values(columns));
        let (w, b) = (weight(&[columns, inputs], &w), Some(weight(&[columns], &b)));
        let layer = match activation {
            Activation::Geglu => Linear::prepare_geglu(device, Precision::F32, w, b)?,
            _ => Linear::prepare(device, Precision::F32, &[(w, b)])?,
        };
        let x = noise.buffer(device, &[rows, inputs])?;
        let added = residual.then(|| noise.buffer(device, &[rows, outputs])).transpose()?;
        Ok(pass(move |exec| {
            let added = added.as_ref().map(|added| exec.view(added));
            gemm::linear(exec, &layer, &exec.view(&x), activation, added.as_ref())
        }))
    };
    let shape = [("m", rows), ("n", outputs), ("k", inputs)];
    let problem = Problem::new("gemm_nt", name, &shape, case.flops(), move |size| case.bytes(size), make);
    Problem { bias: true, activation: activation.name(), residual, ..problem }
}

fn convolution(case: conv::Case) -> Problem {
    let conv::Case {
        name,
        batch,
        size: [height, width],
        channels: [c1, c2],
        outputs,
        kernel,
        stride,
        padding,
        upsample,
        residual,
    } = case;
    let [rows, columns] = case.result();
    let make = move |device: &Device, noise: &mut Noise| {
        let shape = [outputs, c1 + c2, kernel, kernel];
        let (w, b) = (noise.stored(shape.iter().product()), noise.values(outputs));
        let (w, b) = (weight(&shape, &w), Some(weight(&[outputs], &b)));
        let layer = Conv2d::prepare(device, Precision::F32, w, b, stride, padding)?;
        let x = noise.buffer(device, &[batch, height, width, c1])?;
        let skip = (c2 > 0).then(|| noise.buffer(device, &[batch, height, width, c2])).transpose()?;
        let added = residual.then(|| noise.buffer(device, &[batch, rows, columns, outputs])).transpose()?;
        Ok(pass(move |exec| {
            let (skip, added) = (skip.as_ref().map(|skip| exec.view(skip)), added.as_ref().map(|added| exec.view(added)));
            let fused = Fused { skip: skip.as_ref(), upsample, channel_bias: None, residual: added.as_ref() };
            conv::conv2d(exec, &layer, &exec.view(&x), fused)
        }))
    };
    let mut shape = vec![("n", batch), ("h", height), ("w", width), ("c", c1 + c2), ("o", outputs), ("kernel", kernel)];
    shape.extend(
        [("stride", stride), ("skip", c2), ("bottom_right", usize::from(padding == Padding::BottomRight))]
            .into_iter()
            .chain(upsample.into_iter().flat_map(|[h, w]| [("up_h", h), ("up_w", w)]))
            .filter(|&(name, value)| value != if name == "stride" { 1 } else { 0 }),
    );
    let problem = Problem::new("conv2d", name, &shape, case.flops(), move |size| case.bytes(size), make);
    Problem { bias: true, residual, ..problem }
}

/// On columns of fused projections, as in the networks: of queries, keys and values, or of the keys and values of prompts, which samples
/// choose.
fn attend(case: attention::Case) -> Problem {
    let attention::Case { name, batch, queries, keys, heads, head_dim, .. } = case;
    let width = heads * head_dim;
    let make = move |device: &Device, noise: &mut Noise| {
        if queries == keys {
            let qkv = noise.buffer(device, &[batch, queries, 3 * width])?;
            return Ok(pass(move |exec| {
                let qkv = exec.view(&qkv);
                let [q, k, v] = [0, 1, 2].map(|part| Columns { tensor: &qkv, column: part * width });
                attention::attention(exec, settings(&case, None), q, k, v)
            }));
        }
        let (q, kv) = (noise.buffer(device, &[batch, queries, width])?, noise.buffer(device, &[batch, keys, 2 * width])?);
        let rows = KvRows::new(device, (0..batch).rev().collect())?;
        Ok(pass(move |exec| {
            let (q, kv) = (exec.view(&q), exec.view(&kv));
            let [k, v] = [0, 1].map(|part| Columns { tensor: &kv, column: part * width });
            attention::attention(exec, settings(&case, Some(&rows)), Columns { tensor: &q, column: 0 }, k, v)
        }))
    };
    let mut shape = vec![("batch", batch), ("queries", queries), ("keys", keys), ("heads", heads), ("head_dim", head_dim)];
    if case.causal {
        shape.push(("causal", 1));
    }
    Problem::new("attention", name, &shape, case.flops(), move |size| case.bytes(size), make)
}

fn settings<'t>(case: &attention::Case, kv_rows: Option<&'t KvRows>) -> Attention<'t> {
    Attention { heads: case.heads, head_dim: case.head_dim, causal: case.causal, kv_rows, precision: Precision::F32 }
}

/// The usual epsilon of SD's norms.
const EPS: f32 = 1e-5;

fn norm_of(device: &Device, noise: &mut Noise, groups: usize, channels: usize) -> Result<Norm> {
    let (scale, shift) = (noise.values(channels), noise.values(channels));
    Norm::prepare(device, groups, EPS, weight(&[channels], &scale), weight(&[channels], &shift))
}

fn group_norm(case: GroupCase) -> Problem {
    let GroupCase { batch, size, channels, skip, silu, .. } = case;
    let make = move |device: &Device, noise: &mut Noise| {
        let norm = norm_of(device, noise, GroupCase::GROUPS, channels + skip)?;
        let x = noise.buffer(device, &[batch, size, size, channels])?;
        let other = (skip > 0).then(|| noise.buffer(device, &[batch, size, size, skip])).transpose()?;
        Ok(pass(move |exec| {
            let other = other.as_ref().map(|other| exec.view(other));
            norm::group_norm(exec, &norm, &exec.view(&x), other.as_ref(), silu)
        }))
    };
    let mut shape = vec![("n", batch), ("h", size), ("w", size), ("c", channels + skip), ("groups", GroupCase::GROUPS)];
    if skip > 0 {
        shape.push(("skip", skip));
    }
    let (name, flops) = (case.name.clone(), case.flops());
    let problem = Problem::new("group_norm", name, &shape, flops, move |size| case.bytes(size), make);
    Problem { bias: true, activation: if silu { Activation::Silu } else { Activation::None }.name(), ..problem }
}

/// An operation on rows of one width.
fn of_rows(op: &'static str, case: RowsCase, make: impl Fn(&Device, &mut Noise) -> Result<Pass> + 'static) -> Problem {
    let (name, shape, flops) = (case.name.clone(), [("rows", case.rows), ("width", case.width)], case.flops());
    Problem::new(op, name, &shape, flops, move |size| case.bytes(size), make)
}

fn layer_norm(case: RowsCase) -> Problem {
    let (rows, width) = (case.rows, case.width);
    let problem = of_rows("layer_norm", case, move |device, noise| {
        let (norm, x) = (norm_of(device, noise, 1, width)?, noise.buffer(device, &[rows, width])?);
        Ok(pass(move |exec| norm::layer_norm(exec, &norm, &exec.view(&x))))
    });
    Problem { bias: true, ..problem }
}

fn rows_softmax(case: RowsCase) -> Problem {
    let (rows, width) = (case.rows, case.width);
    of_rows("softmax", case, move |device, noise| {
        let x = noise.buffer(device, &[rows, width])?;
        Ok(pass(move |exec| softmax::softmax(exec, &exec.view(&x), 1.0)))
    })
}

fn sum(case: RowsCase) -> Problem {
    let (rows, width) = (case.rows, case.width);
    of_rows("add", case, move |device, noise| {
        let [x, y] = [noise.buffer(device, &[rows, width])?, noise.buffer(device, &[rows, width])?];
        Ok(pass(move |exec| elementwise::add(exec, &exec.view(&x), &exec.view(&y))))
    })
}

/// All sets of a GPU share the tables, which are many times what a set touches: the ids decide which rows those are.
fn embedding(case: embed::Case) -> Problem {
    let embed::Case { name, batch, length, vocabulary, width } = case;
    let prepare = move |device: &Device, noise: &mut Noise| {
        let (tokens, positions) = (noise.stored(vocabulary * width), noise.stored(length * width));
        let (tokens, positions) = (weight(&[vocabulary, width], &tokens), weight(&[length, width], &positions));
        embed::Embedding::prepare(device, tokens, positions).map(Arc::new)
    };
    let shared = RefCell::new(Weak::new());
    let make = move |device: &Device, noise: &mut Noise| {
        let mut tables_noise = Noise::new(0, noise.storage);
        let ids: Vec<u32> = (0..batch * length).map(|_| ((noise.next() >> 40) % vocabulary as u64) as u32).collect();
        if let Device::Cpu(_) = device {
            let tables = prepare(device, &mut tables_noise)?;
            return Ok(pass(move |exec| embed::embed(exec, &tables, &ids, length)));
        }
        // Of one device at a time: its passes are gone before those of the next are made.
        let alive = shared.borrow().upgrade();
        let tables = alive.map_or_else(|| prepare(device, &mut tables_noise), Ok)?;
        *shared.borrow_mut() = Arc::downgrade(&tables);
        let ids = Buffer::from_u32(device, [batch, length], &ids)?;
        Ok(pass(move |exec| embed::embed_buffer(exec, &tables, &ids)))
    };
    let shape = [("batch", batch), ("length", length), ("vocabulary", vocabulary), ("width", width)];
    Problem::new("embedding", name, &shape, case.flops(), move |size| case.bytes(size), make)
}
