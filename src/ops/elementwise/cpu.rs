//! Element by element, on the CPU.

use crate::device::Cpu;
use crate::device::cpu::blocks::{Walk, for_each_block};
use crate::device::cpu::math::silu;
use crate::device::cpu::vector::{Kernel, Simd};

/// Elements of a task.
const CHUNK: usize = 16 * 1024;

/// A function of one element of each of N inputs.
pub(super) trait Function<const N: usize>: Copy + Sync {
    fn apply<S: Simd>(self, s: S, x: [S::V; N]) -> S::V;
}

/// x sigmoid(x)
#[derive(Clone, Copy)]
pub(super) struct Silu;

impl Function<1> for Silu {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, [x]: [S::V; 1]) -> S::V {
        silu(s, x)
    }
}

/// x + y
#[derive(Clone, Copy)]
pub(super) struct Add;

impl Function<2> for Add {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, [x, y]: [S::V; 2]) -> S::V {
        s.add(x, y)
    }
}

/// factor x
#[derive(Clone, Copy)]
pub(super) struct Scale {
    pub(super) factor: f32,
}

impl Function<1> for Scale {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, [x]: [S::V; 1]) -> S::V {
        s.mul(x, s.splat(self.factor))
    }
}

/// u + scale (c - u)
#[derive(Clone, Copy)]
pub(super) struct Guide {
    pub(super) scale: f32,
}

impl Function<2> for Guide {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, [u, c]: [S::V; 2]) -> S::V {
        s.mul_add(s.splat(self.scale), s.sub(c, u), u)
    }
}

/// `out[i] = function(inputs[..][i])`, in parallel.
pub(super) fn map<F: Function<N>, const N: usize>(cpu: &Cpu, function: F, inputs: [&[f32]; N], out: &mut [f32]) {
    let width = out.len();
    if width == 0 {
        return;
    }
    for_each_block(out, width, [1, CHUNK], Walk::Across, |_, start, mut out| {
        let out = out.row(0);
        let inputs = inputs.map(|x| &x[start..start + out.len()]);
        cpu.vectorise(Map { function, inputs, out });
    });
}

struct Map<'a, F, const N: usize> {
    function: F,
    inputs: [&'a [f32]; N],
    out: &'a mut [f32],
}

impl<F: Function<N>, const N: usize> Kernel for Map<'_, F, N> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for i in (0..self.out.len()).step_by(S::LANES) {
            let mut x = [s.splat(0.0); N];
            for (x, input) in x.iter_mut().zip(&self.inputs) {
                *x = s.load_partial(&input[i..]);
            }
            s.store_partial(self.function.apply(s, x), &mut self.out[i..]);
        }
    }
}
