//! torch's CPU generator: MT19937 seeded as `torch.Generator().manual_seed` does, and the f32 normals of `torch.randn`.
//!
//! `torch.randn` has two methods:
//! - fewer than 16 elements: Box-Muller in f64 from two 53-bit uniforms, the second normal kept for the next draw;
//! - 16 or more: one 24-bit uniform per element, then Box-Muller in f32 on groups of 16 (elements 0..8 give the radii,
//!   8..16 the angles; the cosines land in 0..8, the sines in 8..16). If the size is not a multiple of 16, the last 16
//!   elements are drawn again and overwritten.
//!
//! The f32 transform is the one of x86-64 CPUs with AVX2 (AVX-512 ones use it too). Its logarithm, sine and cosine are
//! the polynomials of the Cephes library (S. Moshier, `logf.c` and `sinf.c`), with the products and sums fused as torch's
//! binaries fuse them; that was found by comparing with torch 2.15 bit by bit, and `tests/rng_golden.rs` keeps it so.
//! Without AVX2, torch calls the C library instead, and its last bits differ from one machine to another; such a
//! torch differs from this file by up to 3e-7.

const STATE: usize = 624;
const SHIFT: usize = 397;

/// MT19937 of Matsumoto and Nishimura (1998).
#[derive(Clone, Debug)]
struct Mt19937 {
    state: [u32; STATE],
    next: usize,
}

impl Mt19937 {
    fn new(seed: u32) -> Mt19937 {
        let mut state = [seed; STATE];
        for i in 1..STATE {
            let previous = state[i - 1];
            state[i] = (previous ^ (previous >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Mt19937 { state, next: STATE }
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == STATE {
            self.refill();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn refill(&mut self) {
        for i in 0..STATE {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % STATE] & 0x7fff_ffff);
            let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + SHIFT) % STATE] ^ (y >> 1) ^ twist;
        }
        self.next = 0;
    }
}

/// The generator of one sample. Draws follow each other as calls of `torch.randn` with one generator do.
#[derive(Clone, Debug)]
pub struct TorchCpu {
    engine: Mt19937,
    /// The second normal of the last pair of the f64 method.
    cached: Option<f64>,
}

impl TorchCpu {
    /// As `torch.Generator().manual_seed(seed)`: MT19937 takes the low 32 bits only.
    pub fn new(seed: u64) -> TorchCpu {
        TorchCpu { engine: Mt19937::new(seed as u32), cached: None }
    }

    /// Fills `out` as `torch.randn(out.len(), generator=self)` does.
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        if out.len() < GROUP {
            out.fill_with(|| self.next_normal() as f32);
            return;
        }
        out.fill_with(|| self.next_uniform_24());
        let whole = out.len() - out.len() % GROUP;
        for group in out[..whole].chunks_exact_mut(GROUP) {
            box_muller_16(group);
        }
        if whole < out.len() {
            let start = out.len() - GROUP;
            let last = &mut out[start..];
            last.fill_with(|| self.next_uniform_24());
            box_muller_16(last);
        }
    }

    /// Uniform in [0, 1) of 24 bits.
    fn next_uniform_24(&mut self) -> f32 {
        (self.engine.next_u32() & 0x00FF_FFFF) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in [0, 1) of 53 bits; the first word is the high one.
    fn next_uniform_53(&mut self) -> f64 {
        let high = u64::from(self.engine.next_u32());
        let word = high << 32 | u64::from(self.engine.next_u32());
        (word & ((1 << 53) - 1)) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    fn next_normal(&mut self) -> f64 {
        if let Some(normal) = self.cached.take() {
            return normal;
        }
        let (u1, u2) = (self.next_uniform_53(), self.next_uniform_53());
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let angle = std::f64::consts::TAU * u1;
        self.cached = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

const GROUP: usize = 16;

/// 16 uniforms in [0, 1) -> 16 normals, in place. `group` has 16 elements.
fn box_muller_16(group: &mut [f32]) {
    let (radii, angles) = group.split_at_mut(GROUP / 2);
    for (a, b) in radii.iter_mut().zip(angles) {
        let radius = (-2.0 * ln(1.0 - *a)).sqrt();
        let (sin, cos) = sin_cos(std::f32::consts::TAU * *b);
        // torch multiplies by the deviation 1 and adds the mean 0, which turns -0 into 0.
        *a = radius * cos + 0.0;
        *b = radius * sin + 0.0;
    }
}

/// Cephes `logf`: ln(1 + f) = f - f^2/2 + f^3 P(f), highest power first.
const LN: [f32; 9] = [
    7.037_683_6e-2,
    -1.151_461e-1,
    1.167_699_87e-1,
    -1.242_014_1e-1,
    1.424_932_3e-1,
    -1.666_805_8e-1,
    2.000_071_4e-1,
    -2.499_999_4e-1,
    3.333_333e-1,
];
/// ln 2 in two parts; the first, 355/512, has few bits.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// Natural logarithm of a normal f32.
fn ln(u: f32) -> f32 {
    let bits = u.to_bits();
    let mut e = (bits >> 23) as f32 - 126.0;
    let mut f = f32::from_bits((bits & 0x007F_FFFF) | 0.5f32.to_bits());
    if f < std::f32::consts::FRAC_1_SQRT_2 {
        e -= 1.0;
        f += f - 1.0;
    } else {
        f -= 1.0;
    }
    let z = f * f;
    let p = LN[1..].iter().fold(LN[0], |p, &c| p.mul_add(f, c)) * f;
    let small = z.mul_add(-0.5, p.mul_add(z, e * LN_2_LOW));
    e.mul_add(LN_2_HIGH, f + small)
}

/// pi/4 in three parts, negated: products with a small integer are exact for the first two.
const MINUS_FRAC_PI_4: [f32; 3] = [-0.785_156_25, -2.418_756_5e-4, -3.774_895e-8];
/// Cephes `sinf`: sin x = x + x z P(z), highest power first.
const SIN: [f32; 3] = [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1];
/// Cephes `cosf`: cos x = 1 - z/2 + z^2 P(z), highest power first.
const COS: [f32; 3] = [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2];

/// (sin, cos) of an angle in [0, 2 pi].
fn sin_cos(angle: f32) -> (f32, f32) {
    // Octants are taken in pairs, so that the rest lies in [-pi/4, pi/4].
    let octant = ((angle * (4.0 / std::f32::consts::PI)) as u32 + 1) & !1;
    let x = MINUS_FRAC_PI_4.iter().fold(angle, |x, &part| (octant as f32).mul_add(part, x));
    let z = x * x;
    let p = COS[0].mul_add(z, COS[1]).mul_add(z, COS[2]) * z;
    let cos = p.mul_add(z, -(0.5 * z)) + 1.0;
    let p = SIN[0].mul_add(z, SIN[1]).mul_add(z, SIN[2]) * z;
    let sin = p.mul_add(x, x);
    match octant & 7 {
        0 => (sin, cos),
        2 => (cos, -sin),
        4 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The 10,000th output for the default seed is fixed by the C++ standard ([rand.predef]).
    #[test]
    fn engine_is_mt19937() {
        let mut engine = Mt19937::new(5489);
        let last = (0..10_000).map(|_| engine.next_u32()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn moments_are_those_of_a_unit_normal() {
        let n = 100_000;
        let mut z = vec![0.0f32; n];
        TorchCpu::new(1).fill_normal(&mut z);
        let mean = z.iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
        let variance = z.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.016 && (variance - 1.0).abs() < 0.023, "{mean} {variance}");
    }

    /// A uniform of exactly 0 makes a radius of 0: one in 2^24 is too rare for the goldens. torch gives +0 there.
    #[test]
    fn a_zero_radius_gives_positive_zeros() {
        for angle in [0.0, 0.3, 0.6, 0.9] {
            let mut group = [0.0f32; GROUP];
            group[GROUP / 2..].fill(angle);
            box_muller_16(&mut group);
            assert!(group.iter().all(|z| z.to_bits() == 0), "{angle}: {group:?}");
        }
    }

    #[test]
    fn only_the_low_half_of_the_seed_counts() {
        let draw = |seed| {
            let mut z = [0.0f32; 20];
            TorchCpu::new(seed).fill_normal(&mut z);
            z
        };
        assert_eq!(draw(7), draw(7 + (1 << 32)));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn the_spare_normal_waits_for_the_next_small_draw() {
        let mut together = [0.0f32; 4];
        TorchCpu::new(3).fill_normal(&mut together);
        let mut torch = TorchCpu::new(3);
        let (mut first, mut second) = ([0.0f32; 3], [0.0f32; 1]);
        torch.fill_normal(&mut first);
        torch.fill_normal(&mut second);
        assert_eq!([first[0], first[1], first[2], second[0]], together);
    }
}
