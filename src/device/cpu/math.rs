//! Elementary functions on vector registers: e^x, 2^x, sigmoid and its products, the exact GELU.
//!
//! Polynomials are minimax fits in relative error, coefficients rounded to f32 one after the other from the lowest.

use super::vector::Simd;

/// Horner's scheme, highest coefficient first.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::V, coefficients: [f32; N]) -> S::V {
    let mut y = s.splat(coefficients[0]);
    for &c in &coefficients[1..] {
        y = s.mul_add(y, x, s.splat(c));
    }
    y
}

/// 2^x for finite x; error below 1.5 units in the last place. An infinite x gives NaN.
#[inline(always)]
pub fn exp2<S: Simd>(s: S, x: S::V) -> S::V {
    let n = s.round(x);
    // 2^r on [-1/2, 1/2]; error of the fit 3.0e-9.
    let y = polynomial(
        s,
        s.sub(x, n),
        [0.000_153_264_61, 0.001_339_080_6, 0.009_618_506, 0.055_503_6, 0.240_226_48, std::f32::consts::LN_2, 1.0],
    );
    s.scale_pow2(y, n)
}

/// e^x; error below 1.5 units in the last place.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.max(s.splat(-120.0), s.min(s.splat(120.0), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts, the first so short that its product with n is exact.
    let r = s.mul_add(n, s.splat(-0.693_359_4), x);
    let r = s.mul_add(n, s.splat(2.121_944_4e-4), r);
    // e^r on [-ln 2 / 2, ln 2 / 2]; error of the fit 3.1e-9.
    let y = polynomial(s, r, [0.001_382_073_5, 0.008_368_677, 0.041_668_266, 0.166_665_21, 0.499_999_94, 1.0, 1.0]);
    s.scale_pow2(y, n)
}

/// x / (1 + e^(-k x)): SiLU for k = 1, OpenAI CLIP's "quick GELU" for k = 1.702.
#[inline(always)]
pub fn swish<S: Simd>(s: S, x: S::V, k: f32) -> S::V {
    let one = s.splat(1.0);
    s.div(x, s.add(one, exp(s, s.mul(x, s.splat(-k)))))
}

/// x sigmoid(x).
#[inline(always)]
pub fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    swish(s, x, 1.0)
}

/// The exact GELU, x/2 (1 + erf(x / sqrt 2)) = max(x, 0) - |x| Q(|x|), where Q is the upper tail of the normal distribution.
///
/// Q(a) = e^(-a^2/2) P(a) / D(a) with a rational fit of 1e-8 on [0, 20]: no cancellation, so small results are accurate too.
#[inline(always)]
pub fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    let zero = s.splat(0.0);
    let a = s.min(s.splat(20.0), s.max(x, s.sub(zero, x)));
    let numerator = polynomial(s, a, [0.004_445_565_4, 0.042_817_67, 0.189_656_45, 0.446_862_25, 0.5]);
    let denominator = polynomial(s, a, [0.011_143_317, 0.107_331_95, 0.486_436_16, 1.229_014_6, 1.691_609_7, 1.0]);
    let bell = exp(s, s.mul(s.mul(a, a), s.splat(-0.5)));
    let tail = s.div(s.mul(numerator, bell), denominator);
    s.sub(s.max(zero, x), s.mul(a, tail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::vector::Kernel;
    use crate::device::cpu::{Cpu, Isa};

    #[derive(Clone, Copy, Debug)]
    enum Function {
        Exp2,
        Exp,
        Silu,
        QuickGelu,
        Gelu,
    }

    struct Map<'a>(Function, &'a mut [f32]);

    impl Kernel for Map<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            for chunk in self.1.chunks_mut(S::LANES) {
                let x = s.load_partial(chunk);
                let y = match self.0 {
                    Function::Exp2 => exp2(s, x),
                    Function::Exp => exp(s, x),
                    Function::Silu => silu(s, x),
                    Function::QuickGelu => swish(s, x, 1.702),
                    Function::Gelu => gelu(s, x),
                };
                s.store_partial(y, chunk);
            }
        }
    }

    /// erfc by its continued fraction for large x and its series for small ones.
    fn erfc(x: f64) -> f64 {
        if x < 0.0 {
            return 2.0 - erfc(-x);
        }
        if x < 2.0 {
            let (mut term, mut sum) = (x, x);
            for n in 1..60 {
                term *= -x * x / n as f64;
                sum += term / (2 * n + 1) as f64;
            }
            return 1.0 - sum * 2.0 / std::f64::consts::PI.sqrt();
        }
        let mut fraction = 0.0;
        for n in (1..200).rev() {
            fraction = n as f64 / 2.0 / (x + fraction);
        }
        (-x * x).exp() / (x + fraction) / std::f64::consts::PI.sqrt()
    }

    fn reference(function: Function, x: f64) -> f64 {
        match function {
            Function::Exp2 => x.exp2(),
            Function::Exp => x.exp(),
            Function::Silu => x / (1.0 + (-x).exp()),
            Function::QuickGelu => x / (1.0 + (-f64::from(1.702f32) * x).exp()),
            Function::Gelu => x / 2.0 * erfc(-x / 2f64.sqrt()),
        }
    }

    fn isas() -> impl Iterator<Item = Cpu> {
        [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().map(|isa| Cpu::with_isa(1, isa).unwrap())
    }

    /// Error in units in the last place of the result.
    #[test]
    fn functions_are_accurate_on_every_isa() {
        let limits = [
            (Function::Exp2, -126.0, 128.0, 1.5),
            (Function::Exp, -87.0, 88.0, 1.5),
            (Function::Silu, -80.0, 80.0, 3.5),
            (Function::QuickGelu, -4.0, 50.0, 6.0),
            (Function::Gelu, -4.0, 20.0, 9.0),
        ];
        for cpu in isas() {
            for (function, low, high, limit) in limits {
                let inputs: Vec<f32> = (0..200_003).map(|i| (low + (high - low) * i as f64 / 200_003.0) as f32).collect();
                let mut outputs = inputs.clone();
                cpu.vectorise(Map(function, &mut outputs));
                let mut worst = (0.0, 0.0);
                for (&x, &y) in inputs.iter().zip(&outputs) {
                    let exact = reference(function, f64::from(x));
                    let ulp = f64::from((exact.abs() as f32).max(f32::MIN_POSITIVE).next_up())
                        - f64::from((exact.abs() as f32).max(f32::MIN_POSITIVE));
                    let error = (f64::from(y) - exact).abs() / ulp;
                    assert!(error.is_finite(), "{function:?}({x}) = {y} on {}", cpu.describe());
                    if error > worst.0 {
                        worst = (error, x);
                    }
                }
                assert!(worst.0 <= limit, "{function:?}({}) is {} units off on {}", worst.1, worst.0, cpu.describe());
            }
        }
    }

    #[test]
    fn limits_and_nan_are_kept() {
        use Function::*;
        const INF: f32 = f32::INFINITY;
        let cases = [
            (Exp2, -1e30, 0.0),
            (Exp2, -1000.0, 0.0),
            (Exp2, 1e30, INF),
            (Exp2, 0.0, 1.0),
            (Exp2, -149.0, f32::from_bits(1)),
            (Exp, -INF, 0.0),
            (Exp, 100.0, INF),
            (Exp, 0.0, 1.0),
            (Silu, INF, INF),
            (Silu, -200.0, 0.0),
            (Gelu, INF, INF),
            (Gelu, 30.0, 30.0),
            (Gelu, -30.0, 0.0),
            (Gelu, 0.0, 0.0),
        ];
        for cpu in isas() {
            for (function, x, expected) in cases {
                let mut y = [x];
                cpu.vectorise(Map(function, &mut y));
                assert!(y[0] == expected, "{function:?}({x}) = {} on {}", y[0], cpu.describe());
            }
            for function in [Exp2, Exp, Silu, QuickGelu, Gelu] {
                let mut y = [f32::NAN; 19];
                cpu.vectorise(Map(function, &mut y));
                assert!(y.iter().all(|y| y.is_nan()), "{function:?}(NaN) = {y:?} on {}", cpu.describe());
            }
        }
    }
}
