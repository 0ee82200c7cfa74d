//! Token and position embeddings.

mod cases;
pub(crate) mod gpu;

pub use cases::{Case, cases};

use crate::device::{Buffer, Cost, Device, Exec, Tensor};
use crate::tensor::HostTensor;
use crate::{Error, Result};

/// A token table `[V, C]` and a position table `[P, C]`.
#[derive(Debug)]
pub struct Embedding {
    vocabulary: usize,
    positions: usize,
    width: usize,
    /// Tokens, then positions; none if they were only declared.
    tables: Option<[Buffer; 2]>,
}

impl Embedding {
    /// Takes both tables. Declared-only tensors (no bytes) give a layer that can be recorded but not run.
    ///
    /// # Errors
    /// If their shapes are not those of tables of one width.
    pub fn prepare(device: &Device, tokens: HostTensor<'_>, positions: HostTensor<'_>) -> Result<Embedding> {
        let (vocabulary, length, width) = match (tokens.shape.as_slice(), positions.shape.as_slice()) {
            (&[v, c], &[p, d]) if c == d => (v, p, c),
            (t, p) => {
                let message = format!("`{}` {t:?} and `{}` {p:?} are not tables of one width", tokens.name, positions.name);
                return Err(Error::shape(OP, message));
            }
        };
        let tables = match (tokens.is_declared() || positions.is_declared()) && !device.is_predicted() {
            true => None,
            false => Some([Buffer::of(device, &tokens, device.storage())?, Buffer::of(device, &positions, device.storage())?]),
        };
        Ok(Embedding { vocabulary, positions: length, width, tables })
    }

    fn tables(&self) -> Result<&[Buffer; 2]> {
        let declared = || Error::Internal { op: OP, message: "run with tables that were only declared".into() };
        self.tables.as_ref().ok_or_else(declared)
    }
}

const OP: &str = "embed";

/// ids `[B * T]` -> `[B, T, C]`: `tokens[id] + positions[t]`, T being `length`.
///
/// # Errors
/// If an id is outside the token table, `length` outside the position table, or the ids are no whole texts.
pub fn embed<'e>(exec: &'e Exec<'_>, embedding: &Embedding, ids: &[u32], length: usize) -> Result<Tensor<'e>> {
    let &Embedding { vocabulary, positions, width, .. } = embedding;
    if length == 0 || length > positions || ids.is_empty() || !ids.len().is_multiple_of(length) {
        return Err(Error::shape(OP, format!("{} ids in texts of {length} tokens, {positions} positions", ids.len())));
    }
    if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
        return Err(Error::shape(OP, format!("token {id} is outside the table of {vocabulary}")));
    }
    let mut out = exec.alloc([ids.len() / length, length, width], exec.storage())?;
    let running = exec.begin(cost(&out));
    if let Device::Gpu(gpu) = exec.device() {
        let ids = exec.input_u32([ids.len()], ids)?;
        gpu::embed(exec, gpu, embedding, &ids, &mut out)?;
    } else if running {
        let [tokens, positions] = embedding.tables()?;
        let row = |row: usize| row * width..(row + 1) * width;
        for (i, out) in out.f32_mut().chunks_exact_mut(width).enumerate() {
            let token = &tokens.f32()[row(ids[i] as usize)];
            let position = &positions.f32()[row(i % length)];
            out.iter_mut().zip(token).zip(position).for_each(|((o, t), p)| *o = t + p);
        }
    }
    Ok(out)
}

/// As [`embed`], of ids `[B, T]` that lie on the GPU, so that the pass can be captured. Nothing but the caller keeps them inside the table.
pub(crate) fn embed_buffer<'e>(exec: &'e Exec<'_>, embedding: &Embedding, ids: &Buffer) -> Result<Tensor<'e>> {
    let ids = exec.view(ids);
    let (&[batch, length], Device::Gpu(gpu)) = (ids.dims(), exec.device()) else {
        return Err(Error::shape(OP, format!("ids {ids:?} on {}: expected [B, T] on a GPU", exec.device().describe())));
    };
    if length == 0 || length > embedding.positions {
        return Err(Error::shape(OP, format!("texts of {length} tokens, {} positions", embedding.positions)));
    }
    let mut out = exec.alloc([batch, length, embedding.width], exec.storage())?;
    exec.begin(cost(&out));
    gpu::embed(exec, gpu, embedding, &ids, &mut out)?;
    Ok(out)
}

/// A row of each table read, their sum written.
fn cost(out: &Tensor<'_>) -> Cost {
    let elements = out.shape().len() as u64;
    Cost { op: OP, shape: out.shape(), flops: elements, bytes: 3 * out.dtype().size() as u64 * elements }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Arena, Plan};
    use crate::ops::testing::{assert_shape_error, bytes, cpus, devices, keep, label, noise, run, stored, try_run, weight};

    #[test]
    fn rows_of_both_tables_are_added() {
        // More than the simulated GPU holds threads for, where rows are wide.
        let ids = [8, 0, 3, 3, 1, 8, 2, 7, 5].repeat(8);
        // Rows that are no vectors, and rows that are.
        for (device, width) in devices().into_iter().flat_map(|device| [(device.clone(), 5), (device, 1000)]) {
            let (tokens, positions) = (stored(&device, &noise(1, 9 * width)), stored(&device, &noise(2, 4 * width)));
            let (t, p) = (bytes(&tokens), bytes(&positions));
            let [t, p] = [weight("t", &[9, width], Some(&t)), weight("p", &[4, width], Some(&p))];
            let embedding = Embedding::prepare(&device, t, p).unwrap();
            let out = run(&device, |exec, out| {
                let y = embed(exec, &embedding, &ids, 3)?;
                assert_eq!(y.dims(), [24, 3, width]);
                keep(&y, out)
            });
            let sum = |i: usize| {
                let (c, t) = (i % width, i / width);
                tokens[ids[t] as usize * width + c] + positions[t % 3 * width + c]
            };
            let expected: Vec<f32> = (0..ids.len() * width).map(sum).collect();
            assert!(out == stored(&device, &expected), "{width} on {}", label(&device));
        }
    }

    #[test]
    fn misfits_are_refused() {
        let device = &cpus()[0];
        let table = |rows, width| weight("table", &[rows, width], None);
        assert_shape_error(Embedding::prepare(device, table(9, 5), table(4, 6)), "one width");
        let embedding = Embedding::prepare(device, table(9, 5), table(4, 5)).unwrap();
        for (ids, length, part) in [
            (&[1u32, 2, 9][..], 3, "token 9 is outside the table of 9"),
            (&[1, 2, 3], 2, "3 ids in texts of 2"),
            (&[1, 2, 3, 4, 5], 5, "4 positions"),
            (&[], 3, "0 ids"),
            (&[1], 0, "texts of 0"),
        ] {
            assert_shape_error(try_run(device, |exec, _| embed(exec, &embedding, ids, length).map(|_| ())), part);
        }
    }

    #[test]
    fn declared_tables_take_no_memory_and_are_recorded_but_not_run() {
        for device in &devices() {
            // More than any machine has: a configuration may claim it.
            let table = |rows| weight("table", &[rows, 1 << 20], None);
            let embedding = Embedding::prepare(device, table(1 << 40), table(4)).unwrap();
            let plan = Plan::record(device, |exec| embed(exec, &embedding, &[1, 2], 2).map(drop)).unwrap();
            let ids = if matches!(device, Device::Cpu(_)) { 0 } else { 256 };
            assert_eq!(plan.bytes(), 2 * (1 << 20) * device.storage().size() + ids);
            let run = Arena::new().run(device, &plan, |exec| embed(exec, &embedding, &[1, 2], 2).map(drop));
            assert!(matches!(run, Err(Error::Internal { .. })), "{run:?}");
        }
    }
}
