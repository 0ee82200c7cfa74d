//! What happens to finished sums on their way to the result: bias, activation, residual.

use super::kernel::PANEL;
use crate::device::cpu::Isa;

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

/// The sums of one tile and where they go.
pub(super) struct Finish<'s> {
    pub activation: Activation,
    /// Rows of [`PANEL`] sums.
    pub sums: &'s [[f32; PANEL]],
    /// As many sums of the gates, or nothing.
    pub gates: &'s [[f32; PANEL]],
    pub bias: [f32; PANEL],
    pub gate_bias: [f32; PANEL],
    /// First element of the tile in the residual, whose rows are `stride` apart; or null.
    pub residual: *const f32,
    /// First element of the tile in the result, whose rows are `stride` apart.
    pub out: *mut f32,
    pub stride: usize,
    /// Columns that exist.
    pub width: usize,
}

/// Writes a tile of the result.
///
/// # Safety
/// `width <= PANEL` columns of as many rows as there are sums are valid at `out` and, if not null, at `residual`.
pub(super) unsafe fn finish(isa: Isa, tile: &Finish<'_>) {
    // SAFETY: passed on; `isa` is no better than the machine's.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Bf16 => finish_avx512(tile),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => finish_avx2(tile),
            _ => finish_with::<false>(tile),
        }
    }
}

/// # Safety
/// As [`finish`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn finish_avx512(tile: &Finish<'_>) {
    // SAFETY: passed on.
    unsafe { finish_with::<true>(tile) }
}

/// # Safety
/// As [`finish`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn finish_avx2(tile: &Finish<'_>) {
    // SAFETY: passed on.
    unsafe { finish_with::<true>(tile) }
}

/// # Safety
/// As [`finish`].
#[inline(always)]
unsafe fn finish_with<const FMA: bool>(tile: &Finish<'_>) {
    // SAFETY: passed on.
    unsafe {
        match tile.activation {
            Activation::None => rows(tile, |x, _| x),
            Activation::Gelu => rows(tile, |x, _| gelu::<FMA>(x)),
            Activation::QuickGelu => rows(tile, |x, _| x / (1.0 + exp::<FMA>(-1.702 * x))),
            Activation::Silu => rows(tile, |x, _| x / (1.0 + exp::<FMA>(-x))),
            Activation::Geglu => rows(tile, |x, gate| x * gelu::<FMA>(gate)),
        }
    }
}

/// # Safety
/// As [`finish`].
#[inline(always)]
unsafe fn rows(tile: &Finish<'_>, activation: impl Fn(f32, f32) -> f32) {
    const NO_GATES: [f32; PANEL] = [0.0; PANEL];
    for (i, sums) in tile.sums.iter().enumerate() {
        let gates = tile.gates.get(i).unwrap_or(&NO_GATES);
        let mut y: [f32; PANEL] = std::array::from_fn(|j| activation(sums[j] + tile.bias[j], gates[j] + tile.gate_bias[j]));
        // SAFETY: the caller vouches for `width` columns of this row; PANEL of them where width is PANEL.
        unsafe {
            let out = tile.out.add(i * tile.stride);
            if tile.width == PANEL {
                if !tile.residual.is_null() {
                    let residual = tile.residual.add(i * tile.stride).cast::<[f32; PANEL]>().read_unaligned();
                    y.iter_mut().zip(residual).for_each(|(y, r)| *y += r);
                }
                out.cast::<[f32; PANEL]>().write_unaligned(y);
            } else {
                for (j, y) in y.iter().enumerate().take(tile.width) {
                    *out.add(j) = if tile.residual.is_null() { *y } else { y + *tile.residual.add(i * tile.stride + j) };
                }
            }
        }
    }
}

/// `a b + c`, fused where that is one instruction.
#[inline(always)]
fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Polynomial with coefficients from the highest power down.
#[inline(always)]
fn polynomial<const FMA: bool>(x: f32, coefficients: &[f32]) -> f32 {
    coefficients.iter().fold(0.0, |sum, &c| multiply_add::<FMA>(sum, x, c))
}

/// e^x for the normal range of results, clamped outside: 2^n e^r with |r| <= ln(2)/2, e^r by its Taylor series to r^7.
#[inline(always)]
fn exp<const FMA: bool>(x: f32) -> f32 {
    /// Adding this rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = multiply_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = multiply_add::<FMA>(n, -LN_2_LOW, multiply_add::<FMA>(n, -LN_2_HIGH, x));
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1f32.to_bits()));
    const TAYLOR: [f32; 8] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    power * polynomial::<FMA>(r, &TAYLOR)
}

/// x Phi(x), Phi the normal distribution function: its tail is `exp(-x^2/2) t P(t)` with `t = 1 / (1 + 0.35 |x|)`.
/// P is the minimax polynomial of degree 8 for |x| <= 13.5, relative error 3.2e-8.
#[inline(always)]
fn gelu<const FMA: bool>(x: f32) -> f32 {
    #[rustfmt::skip]
    const P: [f32; 10] = [
        -0.029_125_861, 0.143_872_217, -0.255_504_531, 0.158_929_259, -0.022_937_121,
        0.105_432_932, 0.119_852_438, 0.139_859_082, 0.139_621_570, 0.0,
    ];
    let t = 1.0 / multiply_add::<FMA>(x.abs(), 0.35, 1.0);
    let tail = exp::<FMA>(-0.5 * x * x) * polynomial::<FMA>(t, &P);
    x * if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Error function by its Taylor series (small arguments) or continued fraction.
    fn phi(x: f64) -> f64 {
        let a = x.abs();
        let tail = if a < 3.0 {
            let (mut term, mut sum, mut n) = (a, a, 0.0);
            while term.abs() > 1e-18 {
                n += 1.0;
                term *= a * a / (2.0 * n + 1.0);
                sum += term;
            }
            0.5 - sum * (-a * a / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
        } else {
            let fraction = (1..200).rev().fold(a, |f, n| a + f64::from(n) / f);
            (-a * a / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() / fraction
        };
        if x < 0.0 { tail } else { 1.0 - tail }
    }

    fn sweep() -> impl Iterator<Item = f32> {
        (-40_000..40_000).map(|i| i as f32 * 0.000_5 + 0.000_01)
    }

    #[test]
    fn exp_is_accurate() {
        for x in sweep().map(|x| x * 4.0) {
            let (fused, plain, exact) = (exp::<true>(x), exp::<false>(x), f64::from(x).exp());
            for y in [fused, plain] {
                assert!((f64::from(y) / exact - 1.0).abs() < 2e-7, "exp({x}) = {y}, not {exact}");
            }
        }
        assert!(exp::<true>(-1000.0) < 1e-37 && exp::<true>(1000.0) > 1e38);
    }

    #[test]
    fn gelu_is_accurate() {
        for x in sweep() {
            let exact = phi(f64::from(x));
            for y in [gelu::<true>(x), gelu::<false>(x)] {
                let error = (f64::from(y) / f64::from(x) - exact).abs();
                assert!(error < 1.5e-7, "Phi({x}) is {exact}, not {}", y / x);
            }
        }
        assert_eq!(gelu::<true>(0.0), 0.0);
        assert!(gelu::<true>(f32::NAN).is_nan());
    }
}
