//! What happens to a sum before it is stored.

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

/// `activation(sum + bias + channel_bias) + residual`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One value for each column of the weights, in the order of the weights.
    pub bias: Option<&'a [f32]>,
    /// A second one.
    pub channel_bias: Option<&'a [f32]>,
    /// Then this.
    pub activation: Activation,
    /// Then this, shaped as the result.
    pub residual: Option<&'a [f32]>,
}

impl Epilogue<'_> {
    /// Finishes one row of the result, which starts at element `at` of it.
    pub(super) fn finish(&self, sums: &[f32], at: usize, out: &mut [f32]) {
        let n = out.len();
        let biased = |i: usize| sums[i] + self.bias.map_or(0.0, |b| b[i]) + self.channel_bias.map_or(0.0, |b| b[i]);
        for (i, out) in out.iter_mut().enumerate() {
            let x = biased(i);
            let y = match self.activation {
                Activation::None => x,
                Activation::Gelu => gelu(x),
                Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
                Activation::Silu => x / (1.0 + (-x).exp()),
                Activation::Geglu => x * gelu(biased(n + i)),
            };
            *out = y + self.residual.map_or(0.0, |r| r[at + i]);
        }
    }
}

fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// Abramowitz and Stegun 7.1.26 in f64, error below 2e-7.
fn erf(x: f32) -> f32 {
    let a = f64::from(x).abs();
    let t = 1.0 / (1.0 + 0.3275911 * a);
    let poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    ((1.0 - poly * (-a * a).exp()) as f32).copysign(x)
}
