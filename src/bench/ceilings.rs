//! What a GPU reached in the same run on the two things that bound everything else: our own matrix product, and a copy.

use super::Times;
use super::kernels::{Pass, product, time_in_turns};
use crate::Result;
use crate::device::{Buffer, Device, Gpu};
use crate::ops::gemm::{self, Activation};
use serde::Serialize;

/// Rows, columns and sums of the product, and bytes of the copy: past any cache of a card, and next to nothing where times mean nothing.
const CARD: (usize, usize) = (8192, 256 << 20);
const SIMULATED: (usize, usize) = (128, 64 << 10);

/// The ceilings of a run. Another library's product may be better than ours: `tools/gpu` sets both beside each other.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ceilings {
    /// A square product of the storage type by our own kernel, TFLOP/s.
    pub matmul_tflops: f64,
    /// A copy within the card's memory, bytes read and bytes written, GB/s.
    pub copy_gbs: f64,
}

impl Ceilings {
    /// Measures both.
    ///
    /// # Errors
    /// Those of the GPU.
    pub fn measure(device: &Device, gpu: &Gpu) -> Result<Ceilings> {
        let (n, bytes) = if gpu.is_simulated() { SIMULATED } else { CARD };
        let case = gemm::Case { name: "ceiling", rows: n, inputs: n, outputs: n, activation: Activation::None, residual: false };
        let square = product(case).prepare(device, 0)?;
        let matmul = time_in_turns(device, gpu, &[square])?;
        let copy = time_in_turns(device, gpu, &[copy(device, bytes)?])?;
        Ok(Ceilings {
            matmul_tflops: case.flops() as f64 / seconds(&matmul) / 1e12,
            copy_gbs: 2.0 * bytes as f64 / seconds(&copy) / 1e9,
        })
    }

    /// The share of its time that a piece of work would take at the ceiling that binds it. Above 1 where its data was in a cache.
    pub fn share(&self, flops: u64, bytes: u64, seconds: f64) -> f64 {
        (flops as f64 / (self.matmul_tflops * 1e12)).max(bytes as f64 / (self.copy_gbs * 1e9)) / seconds
    }
}

fn seconds(times: &Times) -> f64 {
    times.median().max(f64::MIN_POSITIVE)
}

/// A copy of seeded noise.
fn copy(device: &Device, bytes: usize) -> Result<Pass> {
    let len = bytes / device.storage().size();
    let values: Vec<f32> = super::normals(1, len);
    let source = Buffer::from_f32(device, [len], device.storage(), &values)?;
    Ok(Box::new(move |exec| {
        let mut copied = exec.alloc([len], exec.storage())?;
        copied.copy_part(0, &exec.view(&source), 0, len)?;
        Ok(copied)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_that_binds_decides() {
        let ceilings = Ceilings { matmul_tflops: 100.0, copy_gbs: 1000.0 };
        assert_eq!(ceilings.share(100_000_000_000, 1_000_000, 2e-3), 0.5);
        assert_eq!(ceilings.share(1_000, 1_000_000_000, 4e-3), 0.25);
    }
}
