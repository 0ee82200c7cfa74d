//! Vector registers behind one interface: a computation written once over [`Simd`] runs on AVX-512, AVX2 and everything else.
//!
//! A [`Simd`] value is a token: it exists only where its instructions do, so all methods on it are safe. [`Cpu::vectorise`]
//! makes the token and compiles the computation for it. Everything between the two must be `#[inline(always)]`, closures
//! included, or the compiler would call functions for single instructions.

use super::Cpu;
#[cfg(target_arch = "x86_64")]
use super::Isa;

/// A computation that is compiled once for each instruction set.
pub trait Kernel {
    /// Its result.
    type Output;

    /// The computation; implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// A computation that needs bfloat16 products.
pub trait Bf16Kernel {
    /// Its result.
    type Output;

    /// The computation; implementations are `#[inline(always)]`.
    fn run<S: SimdBf16>(self, simd: S) -> Self::Output;
}

/// Arithmetic on registers of f32 lanes.
pub trait Simd: Copy + Send + Sync {
    /// A register.
    type V: Copy;
    /// Lanes of a register; at most 16.
    const LANES: usize;
    /// Accumulators that a loop can keep in registers, beside operands and constants.
    const ACCUMULATORS: usize;

    /// x in all lanes.
    fn splat(self, x: f32) -> Self::V;
    /// The first `LANES` values; panics if there are fewer.
    fn load(self, x: &[f32]) -> Self::V;
    /// The first `LANES` values; zeros where there are fewer.
    fn load_partial(self, x: &[f32]) -> Self::V;
    /// Writes `LANES` values; panics if there is no room.
    fn store(self, v: Self::V, out: &mut [f32]);
    /// Writes as many lanes as fit.
    fn store_partial(self, v: Self::V, out: &mut [f32]);
    /// a + b
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a - b
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// a b
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// a / b
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// a b + c, rounded once where the processor can.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// a b - c, rounded once where the processor can.
    fn mul_sub(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; b if one of them is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; b if one of them is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The nearest integer.
    fn round(self, a: Self::V) -> Self::V;
    /// a 2^n for integral n, infinite or zero where that is out of range; NaN stays NaN.
    fn scale_pow2(self, a: Self::V, n: Self::V) -> Self::V;
    /// `yes` in the lanes where a < b, else `no`.
    fn select_less(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;

    /// Transposes the square of the first `LANES` lanes of the first `LANES` rows.
    #[inline(always)]
    fn transpose(self, rows: &mut [Self::V; 16]) {
        let mut columns = [[0.0; 16]; 16];
        for i in 0..Self::LANES {
            let mut lanes = [0.0; 16];
            self.store(rows[i], &mut lanes);
            for j in 0..Self::LANES {
                columns[j][i] = lanes[j];
            }
        }
        for i in 0..Self::LANES {
            rows[i] = self.load(&columns[i]);
        }
    }

    /// Sum of the lanes, always in the same order.
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        let mut lanes = [0.0; 16];
        self.store(v, &mut lanes);
        let mut width = Self::LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
            width /= 2;
        }
        lanes[0]
    }
}

/// [`Simd`] with products of bfloat16 pairs: a lane then holds the bits of two of them, even index in the low half.
pub trait SimdBf16: Simd {
    /// `c + a.low b.low + a.high b.high`; subnormal operands count as zero.
    fn dot_bf16(self, c: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// Rounds both to nearest even and pairs them lane by lane.
    fn pair_bf16(self, low: Self::V, high: Self::V) -> Self::V;
    /// Rounds both to nearest even and pairs neighbours: of the lanes of `first`, then of those of `second`.
    fn neighbours_bf16(self, first: Self::V, second: Self::V) -> Self::V;
}

/// Portable lanes: the compiler turns them into what the baseline of the target has.
#[derive(Clone, Copy, Debug)]
pub struct Portable(());

const WIDTH: usize = 4;

#[inline(always)]
fn map(a: [f32; WIDTH], b: [f32; WIDTH], f: impl Fn(f32, f32) -> f32) -> [f32; WIDTH] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    type V = [f32; WIDTH];
    const LANES: usize = WIDTH;
    const ACCUMULATORS: usize = 12;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; WIDTH]
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::V {
        let x = &x[..WIDTH];
        std::array::from_fn(|i| x[i])
    }
    #[inline(always)]
    fn load_partial(self, x: &[f32]) -> Self::V {
        if x.len() >= WIDTH {
            return self.load(x);
        }
        std::array::from_fn(|i| x.get(i).copied().unwrap_or(0.0))
    }
    #[inline(always)]
    fn store(self, v: Self::V, out: &mut [f32]) {
        out[..WIDTH].copy_from_slice(&v);
    }
    #[inline(always)]
    fn store_partial(self, v: Self::V, out: &mut [f32]) {
        out.iter_mut().zip(v).for_each(|(o, x)| *o = x);
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        map(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        map(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        map(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        map(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
        } else {
            std::array::from_fn(|i| a[i] * b[i] + c[i])
        }
    }
    #[inline(always)]
    fn mul_sub(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        self.mul_add(a, b, c.map(|c| -c))
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        map(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        map(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        // Adding and taking away 1.5 * 2^23 rounds to an integer: there is no such instruction in the x86-64 baseline.
        const MAGIC: f32 = 12_582_912.0;
        a.map(|a| if a.abs() < 4_194_304.0 { (a + MAGIC) - MAGIC } else { a })
    }
    #[inline(always)]
    fn scale_pow2(self, a: Self::V, n: Self::V) -> Self::V {
        map(a, n, |a, n| {
            // In two steps, so that both factors are normal numbers. `as` turns NaN into 0, which keeps a NaN in `a`.
            let n = n.clamp(-252.0, 252.0) as i32;
            let power = |n: i32| f32::from_bits(((n + 127) as u32) << 23);
            a * power(n >> 1) * power(n - (n >> 1))
        })
    }
    #[inline(always)]
    fn select_less(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }
}

impl Cpu {
    /// f32 lanes of the widest vectors of this CPU.
    pub fn lanes(&self) -> usize {
        struct Lanes;
        impl Kernel for Lanes {
            type Output = usize;
            #[inline(always)]
            fn run<S: Simd>(self, _: S) -> usize {
                S::LANES
            }
        }
        self.vectorise(Lanes)
    }

    /// Runs `kernel` on this thread with the widest vectors of this CPU.
    #[inline]
    pub fn vectorise<K: Kernel>(&self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        match self.isa() {
            // SAFETY: `Cpu::isa` is never better than what `Isa::detect` found.
            Isa::Avx512 | Isa::Avx512Bf16 => return unsafe { x86::run_avx512(kernel) },
            // SAFETY: as above.
            Isa::Avx2 => return unsafe { x86::run_avx2(kernel) },
            Isa::Portable => {}
        }
        kernel.run(Portable(()))
    }

    /// Runs `kernel` if this CPU multiplies bfloat16, else gives it back.
    #[inline]
    pub fn vectorise_bf16<K: Bf16Kernel>(&self, kernel: K) -> Result<K::Output, K> {
        #[cfg(target_arch = "x86_64")]
        if self.isa() == Isa::Avx512Bf16 {
            // SAFETY: `Cpu::isa` is never better than what `Isa::detect` found.
            return Ok(unsafe { x86::run_avx512_bf16(kernel) });
        }
        Err(kernel)
    }
}

#[cfg(target_arch = "x86_64")]
#[path = "vector_x86.rs"]
mod x86;
