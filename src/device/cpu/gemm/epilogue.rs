//! What happens to finished sums on their way to the result: bias, activation, residual.

use super::kernel::PANEL;
use crate::device::cpu::math::{gelu, silu, swish};
use crate::device::cpu::vector::{Kernel, Simd};
use std::slice::{from_raw_parts, from_raw_parts_mut};

/// Function applied to the product before the residual is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// y = x
    #[default]
    None,
    /// y = x/2 (1 + erf(x / sqrt 2)), the exact form.
    Gelu,
    /// y = x sigmoid(1.702 x), OpenAI CLIP's.
    QuickGelu,
    /// y = x sigmoid(x)
    Silu,
    /// y = value * gelu(gate) on a weight of twice the output width: value rows, then gate rows (diffusers' GEGLU).
    Geglu,
}

impl Activation {
    /// Lower-case name, as used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Activation::None => "none",
            Activation::Gelu => "gelu",
            Activation::QuickGelu => "quick_gelu",
            Activation::Silu => "silu",
            Activation::Geglu => "geglu",
        }
    }
}

/// `activation(sum + bias + channel_bias) + residual`; the bias is part of the weights.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One more value for each output.
    pub channel_bias: Option<&'a [f32]>,
    /// Then this.
    pub activation: Activation,
    /// Then this, shaped as the result.
    pub residual: Option<&'a [f32]>,
}

/// Sums of a tile on their way to the result.
pub(super) struct Finish<'s> {
    pub activation: Activation,
    pub sums: &'s [[f32; PANEL]],
    /// As many rows of gates, or none.
    pub gates: &'s [[f32; PANEL]],
    pub bias: &'s [f32; PANEL],
    pub gate_bias: &'s [f32; PANEL],
    /// First element of the tile in the residual, or null.
    pub residual: *const f32,
    /// First element of the tile in the result.
    pub out: *mut f32,
    /// Elements from one row of the result to the next.
    pub stride: usize,
    /// Columns of the tile, at most [`PANEL`].
    pub width: usize,
}

/// A [`Finish`] whose maker vouches for its memory.
pub(super) struct Checked<'f>(&'f Finish<'f>);

impl<'f> Checked<'f> {
    /// # Safety
    /// `width` columns of as many rows as there are sums are valid at `out` and, if not null, at `residual`. Nothing else uses those
    /// of `out`.
    pub(super) unsafe fn new(finish: &'f Finish<'f>) -> Checked<'f> {
        Checked(finish)
    }
}

impl Kernel for Checked<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.0.activation {
            Activation::None => self.rows(
                s,
                #[inline(always)]
                |x, _| x,
            ),
            Activation::Gelu => self.rows(
                s,
                #[inline(always)]
                |x, _| gelu(s, x),
            ),
            Activation::QuickGelu => self.rows(
                s,
                #[inline(always)]
                |x, _| swish(s, x, 1.702),
            ),
            Activation::Silu => self.rows(
                s,
                #[inline(always)]
                |x, _| silu(s, x),
            ),
            Activation::Geglu => self.rows(
                s,
                #[inline(always)]
                |x, gate| s.mul(x, gelu(s, gate)),
            ),
        }
    }
}

impl Checked<'_> {
    #[inline(always)]
    fn rows<S: Simd>(&self, s: S, activation: impl Fn(S::V, S::V) -> S::V) {
        let tile = self.0;
        for (i, sums) in tile.sums.iter().enumerate() {
            // SAFETY: `new` demands `width` valid elements in each of these rows.
            let out = unsafe { from_raw_parts_mut(tile.out.add(i * tile.stride), tile.width) };
            let residual = match tile.residual.is_null() {
                true => None,
                // SAFETY: as above.
                false => Some(unsafe { from_raw_parts(tile.residual.add(i * tile.stride), tile.width) }),
            };
            for j in (0..tile.width).step_by(S::LANES) {
                let x = s.add(s.load(&sums[j..]), s.load(&tile.bias[j..]));
                let gate = match tile.gates.get(i) {
                    Some(gates) => s.add(s.load(&gates[j..]), s.load(&tile.gate_bias[j..])),
                    None => x,
                };
                let y = activation(x, gate);
                let (residual, out) = (residual.map(|r| &r[j..]), &mut out[j..]);
                if out.len() >= S::LANES {
                    s.store(residual.map_or(y, |r| s.add(y, s.load(r))), out);
                } else {
                    s.store_partial(residual.map_or(y, |r| s.add(y, s.load_partial(r))), out);
                }
            }
        }
    }
}
