//! Making layers from the tensors of a checkpoint.

use crate::Result;
use crate::device::{Device, Precision};
use crate::ops::conv::{Conv2d, Padding};
use crate::ops::gemm::Linear;
use crate::ops::norm::{LayerNorm, Norm};
use crate::weights::{HostTensor, Loader};

/// A weight and its bias.
pub(crate) type Parts<'a> = (HostTensor<'a>, Option<HostTensor<'a>>);

/// A place in a checkpoint and what its layers are prepared for.
#[derive(Clone)]
pub(crate) struct Build<'d, 'a> {
    pub device: &'d Device,
    pub precision: Precision,
    loader: Loader<'a>,
    /// Of the input of linear layers.
    norm: Option<LayerNorm<'a>>,
}

impl<'d, 'a> Build<'d, 'a> {
    pub fn new(device: &'d Device, precision: Precision, loader: &Loader<'a>) -> Build<'d, 'a> {
        Build { device, precision, loader: loader.clone(), norm: None }
    }

    /// The same one level down: `part.` is put before every name.
    pub fn scope(&self, part: impl std::fmt::Display) -> Build<'d, 'a> {
        Build { loader: self.loader.scope(part), ..self.clone() }
    }

    /// The same with f32 products: for layers that cost little and whose rounding errors reach everything after them.
    pub fn exact(&self) -> Build<'d, 'a> {
        Build { precision: Precision::F32, ..self.clone() }
    }

    /// The same for linear layers alone, which take the layer norm `name` of what they are given. Other layers panic.
    pub fn after_norm(&self, name: &str, channels: usize, eps: f32) -> Build<'d, 'a> {
        let layer = self.loader.scope(name);
        let norm = LayerNorm { weight: layer.tensor("weight", &[channels]), bias: layer.tensor("bias", &[channels]), eps };
        Build { norm: Some(norm), ..self.clone() }
    }

    /// `name.weight` `[outputs, inputs]` and, if asked for, `name.bias` `[outputs]`.
    pub fn matrix(&self, name: &str, inputs: usize, outputs: usize, bias: bool) -> Parts<'a> {
        let layer = self.loader.scope(name);
        (layer.tensor("weight", &[outputs, inputs]), bias.then(|| layer.tensor("bias", &[outputs])))
    }

    /// A linear layer.
    pub fn linear(&self, name: &str, inputs: usize, outputs: usize, bias: bool) -> Result<Linear> {
        self.layer(&[self.matrix(name, inputs, outputs, bias)])
    }

    fn layer(&self, parts: &[Parts<'a>]) -> Result<Linear> {
        Linear::prepare_after(self.norm.as_ref(), self.device, self.precision, parts)
    }

    /// Several linear layers of the same inputs and outputs as one, their outputs side by side.
    pub fn stacked<const N: usize>(&self, names: [&str; N], inputs: usize, outputs: usize, bias: bool) -> Result<Linear> {
        self.layer(&names.map(|name| self.matrix(name, inputs, outputs, bias)))
    }

    /// A linear layer that the checkpoint holds as a 1x1 convolution, `[outputs, inputs, 1, 1]`.
    pub fn pointwise(&self, name: &str, inputs: usize, outputs: usize) -> Result<Linear> {
        let layer = self.loader.scope(name);
        let weight = layer.tensor("weight", &[outputs, inputs, 1, 1]);
        self.layer(&[(weight, Some(layer.tensor("bias", &[outputs])))])
    }

    /// A GEGLU projection to `outputs` channels: `name.weight` is `[2 outputs, inputs]`.
    pub fn geglu(&self, name: &str, inputs: usize, outputs: usize) -> Result<Linear> {
        let (weight, bias) = self.matrix(name, inputs, 2 * outputs, true);
        Linear::prepare_geglu_after(self.norm.as_ref(), self.device, self.precision, weight, bias)
    }

    /// A convolution of stride 1 that keeps the size.
    pub fn conv(&self, name: &str, inputs: usize, outputs: usize, kernel: usize) -> Result<Conv2d> {
        self.strided_conv(name, inputs, outputs, kernel, 1, Padding::Same)
    }

    /// A convolution.
    pub fn strided_conv(
        &self,
        name: &str,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: Padding,
    ) -> Result<Conv2d> {
        assert!(self.norm.is_none(), "{name}: a convolution after a layer norm");
        let layer = self.loader.scope(name);
        let weight = layer.tensor("weight", &[outputs, inputs, kernel, kernel]);
        Conv2d::prepare(self.device, self.precision, weight, Some(layer.tensor("bias", &[outputs])), stride, padding)
    }

    /// A group norm, or with one group a layer norm.
    pub fn norm(&self, name: &str, channels: usize, groups: usize, eps: f32) -> Result<Norm> {
        assert!(self.norm.is_none(), "{name}: a norm after a layer norm");
        let layer = self.loader.scope(name);
        Norm::prepare(self.device, groups, eps, layer.tensor("weight", &[channels]), layer.tensor("bias", &[channels]))
    }

    /// A tensor that is no layer of these kinds.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> HostTensor<'a> {
        self.loader.tensor(name, shape)
    }
}
