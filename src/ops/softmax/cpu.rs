//! Softmax on the CPU.

use crate::device::Cpu;
use crate::device::cpu::blocks::{Block, Walk, for_each_block};
use crate::device::cpu::math::exp;
use crate::device::cpu::vector::{Kernel, Simd};

/// Elements of a task.
const CHUNK: usize = 16 * 1024;

/// Rows of `width`.
pub(super) fn softmax(cpu: &Cpu, scale: f32, width: usize, x: &[f32], out: &mut [f32]) {
    for_each_block(out, width, [(CHUNK / width).max(1), width], Walk::Down, |first, _, mut out| {
        let x = &x[first * width..][..out.rows() * width];
        cpu.vectorise(Rows { scale, width, x, out: &mut out });
    });
}

struct Rows<'a, 'm> {
    scale: f32,
    width: usize,
    x: &'a [f32],
    out: &'a mut Block<'m>,
}

impl Kernel for Rows<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (row, x) in self.x.chunks_exact(self.width).enumerate() {
            let out = self.out.row(row);
            // What is not a number is passed over here, and comes back with its exponential.
            let largest = x.iter().fold(f32::NEG_INFINITY, |largest, &x| largest.max(x * self.scale));
            let (scale, origin, mut sums) = (s.splat(self.scale), s.splat(largest), s.splat(0.0));
            for c in (0..x.len()).step_by(S::LANES) {
                let y = exp(s, s.mul_sub(s.load_partial(&x[c..]), scale, origin));
                s.store_partial(y, &mut out[c..]);
                sums = s.add(sums, s.load_partial(&out[c..])); // without the lanes behind the end
            }
            let factor = s.splat(1.0 / s.sum(sums));
            for c in (0..x.len()).step_by(S::LANES) {
                let y = s.mul(s.load_partial(&out[c..]), factor);
                s.store_partial(y, &mut out[c..]);
            }
        }
    }
}
