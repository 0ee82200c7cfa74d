//! What linear layers and convolutions hold: packed weights and a bias.

use crate::device::cpu::gemm::{Epilogue, Input, Layout, Weights, Window, product};
use crate::device::{Cpu, Device, Precision};
use crate::tensor::HostTensor;
use crate::{Error, Result};

/// Weights in the layout of the device, with a bias; or only their extents, if the tensors were declared without data.
#[derive(Debug)]
pub(crate) struct Packed {
    layout: Layout,
    precision: Precision,
    weights: Option<Weights>,
}

impl Packed {
    /// Packs weights stacked along the output, and their biases (zero where there is none).
    pub(crate) fn new(
        op: &'static str,
        device: &Device,
        precision: Precision,
        layout: Layout,
        parts: &[(HostTensor<'_>, Option<HostTensor<'_>>)],
    ) -> Result<Packed> {
        let row = layout.channels * layout.taps;
        for (weight, bias) in parts {
            let rows = weight.shape.first().copied().unwrap_or(0);
            if let Some(b) = bias.as_ref().filter(|b| b.shape != [rows]) {
                return Err(Error::shape(op, format!("{}: expected [{rows}], found {:?}", b.name, b.shape)));
            }
        }
        let declared = parts.iter().any(|(w, b)| w.bytes.is_none() || b.as_ref().is_some_and(|b| b.bytes.is_none()));
        if declared {
            return Ok(Packed { layout, precision, weights: None });
        }
        let mut bias = vec![0.0; layout.columns()];
        let mut first = 0;
        for (weight, b) in parts {
            let rows = weight.shape[0];
            if let Some(b) = b {
                b.copy_f32(0, &mut bias[first..first + rows]);
            }
            first += rows;
        }
        let cpu = device.cpu_only(op)?;
        let weights = Weights::pack(cpu, precision, layout, &bias, |mut output, out| {
            for (weight, _) in parts {
                if output < weight.shape[0] {
                    return weight.copy_f32(output * row, out);
                }
                output -= weight.shape[0];
            }
        })?;
        Ok(Packed { layout, precision, weights: Some(weights) })
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Bytes of the weights and the bias that a product reads, without padding.
    pub(crate) fn bytes(&self) -> u64 {
        let element = match self.precision {
            Precision::F32 => 4,
            Precision::Bf16 => 2,
        };
        (self.layout.elements() * element + self.layout.columns() * 4) as u64
    }

    /// The product with the bias of the layer and whatever else `epilogue` holds.
    pub(crate) fn apply(
        &self,
        cpu: &Cpu,
        input: &Input<'_>,
        window: Window,
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) -> Result<()> {
        let Some(weights) = &self.weights else {
            return Err(Error::Internal { op: "layer", message: "run with weights that were only declared".into() });
        };
        product(cpu, weights, input, window, &epilogue, out);
        Ok(())
    }
}
