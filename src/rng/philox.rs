//! Counter-based normals: Philox4x32-10 and a Box-Muller transform whose every bit is specified.
//!
//! Philox4x32-10 is the generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3"
//! (SC 2011): ten rounds of two 32x32 -> 64 bit products turn a 128-bit counter and a 64-bit key into four words.
//!
//! Element i of stream s of the sample with seed k is element i % 4 of the block with
//! ```text
//! counter = (low(i / 4), high(i / 4), s, 0)      key = (low(k), high(k))
//! ```
//! so it depends on (k, s, i) and on nothing else. The words w0..w3 of a block make four normals, in order
//! ```text
//! radius(w0) cos(angle(w1))   radius(w0) sin(angle(w1))   radius(w2) cos(angle(w3))   radius(w2) sin(angle(w3))
//! radius(w) = sqrt(-2 ln u), u = 2^-32 float(w) + 2^-33       angle(w) = 2 pi 2^-32 w
//! ```
//! All of it is integer arithmetic and single f32 products, sums and square roots, each rounded to nearest and none
//! fused, with the polynomials below in place of a math library. A port (`__fmul_rn`, `__fadd_rn`, `__fsqrt_rn`,
//! `__uint2float_rn`, `__int2float_rn` in CUDA) gives the same bits. |z| <= sqrt(2 ln 2^33) = 6.76; the error against
//! the same formulas in f64 is below 1e-6.

const ROUNDS: usize = 10;
const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

const TWO_POW_MINUS_32: f32 = 1.0 / 4_294_967_296.0;
const LN_2: f32 = std::f32::consts::LN_2;
/// Quarter turn divided by 2^30: the scale of the reduced angle.
const RADIANS_PER_UNIT: f32 = std::f32::consts::FRAC_PI_2 / 1_073_741_824.0;

// Minimax fits (Lawson iteration in f64), rounded to f32. Errors before rounding: 6e-9, 4e-9, 1e-10.
/// ln(1 + f) = f - f^2/2 + f^3 P(f) on [sqrt(1/2) - 1, sqrt(2) - 1], lowest power first.
const LN: [f32; 8] =
    [0.333_333_3, -0.250_008_2, 0.200_012_27, -0.166_233_57, 0.142_017_59, -0.131_601_83, 0.127_615_75, -0.076_344_93];
/// sin x = x + x z P(z), z = x^2, on [-pi/4, pi/4].
const SIN: [f32; 3] = [-0.166_666_55, 0.008_332_178, -0.000_195_173];
/// cos x = 1 - z/2 + z^2 P(z), z = x^2, on [-pi/4, pi/4].
const COS: [f32; 3] = [0.041_666_646, -0.001_388_736_8, 0.000_024_438_452];

/// The counter-based generator of one sample. Holds the seed only: it has no state to advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
}

impl Philox {
    /// Generator of the sample with this seed.
    pub fn new(seed: u64) -> Philox {
        Philox { key: [seed as u32, (seed >> 32) as u32] }
    }

    /// Fills `out` with elements `0..out.len()` of `stream`: 0 is the initial latent, `1 + i` the noise of step i.
    pub fn fill_normal(&self, stream: u32, out: &mut [f32]) {
        self.fill_normal_from(stream, 0, out);
    }

    /// Fills `out` with elements `first..first + out.len()` of `stream`.
    pub fn fill_normal_from(&self, stream: u32, first: u64, out: &mut [f32]) {
        let mut index = first;
        let mut rest = out;
        while !rest.is_empty() {
            let lane = (index % 4) as usize;
            let take = rest.len().min(4 - lane);
            let (now, later) = rest.split_at_mut(take);
            now.copy_from_slice(&normals(self.block(stream, index / 4))[lane..lane + take]);
            index += take as u64;
            rest = later;
        }
    }

    fn block(&self, stream: u32, block: u64) -> [u32; 4] {
        philox4x32_10([block as u32, (block >> 32) as u32, stream, 0], self.key)
    }
}

/// The generator itself.
fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let a = u64::from(MULTIPLIER[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIER[1]) * u64::from(counter[2]);
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// Four words -> four unit normals.
fn normals(words: [u32; 4]) -> [f32; 4] {
    let [r0, r1] = [words[0], words[2]].map(radius);
    let [(sin0, cos0), (sin1, cos1)] = [words[1], words[3]].map(sin_cos_turn);
    [r0 * cos0, r0 * sin0, r1 * cos1, r1 * sin1]
}

/// u in [2^-33, 1]: the conversion and the sum round to 24 bits.
fn uniform(word: u32) -> f32 {
    word as f32 * TWO_POW_MINUS_32 + 0.5 * TWO_POW_MINUS_32
}

/// sqrt(-2 ln u).
fn radius(word: u32) -> f32 {
    (-2.0 * ln(uniform(word))).sqrt()
}

/// Natural logarithm of a normal f32 in (0, 1]; never positive.
fn ln(u: f32) -> f32 {
    // u = m 2^e with m in [sqrt(1/2), sqrt(2)): subtracting the bits of sqrt(1/2) carries into the exponent.
    const SQRT_HALF_BITS: u32 = 0x3F35_04F3;
    let offset = u.to_bits().wrapping_sub(SQRT_HALF_BITS);
    let e = (offset as i32) >> 23;
    let m = f32::from_bits((offset & 0x007F_FFFF) + SQRT_HALF_BITS);
    let f = m - 1.0;
    let p = LN.iter().rev().skip(1).fold(LN[7], |p, &c| p * f + c);
    let z = f * f;
    let small = f * z * p - 0.5 * z;
    e as f32 * LN_2 + (f + small)
}

/// (sin, cos) of 2 pi 2^-32 w. The reduction to [-pi/4, pi/4] is done on the integer, so it is exact.
fn sin_cos_turn(word: u32) -> (f32, f32) {
    let quadrant = word.wrapping_add(1 << 29) >> 30;
    let reduced = word.wrapping_sub(quadrant << 30) as i32;
    let x = reduced as f32 * RADIANS_PER_UNIT;
    let z = x * x;
    let sin = x + x * z * ((SIN[2] * z + SIN[1]) * z + SIN[0]);
    let cos = 1.0 - 0.5 * z + z * z * ((COS[2] * z + COS[1]) * z + COS[0]);
    match quadrant {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of Philox4x32-10 published with Random123 (`kat_vectors`).
    #[test]
    fn philox_gives_the_published_answers() {
        let ones = u32::MAX;
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32_10([ones; 4], [ones; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(philox4x32_10(pi, [0xa409_3822, 0x299f_31d0]), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    /// The documented counter layout: words of (block, stream, seed) in the places where a port must put them.
    #[test]
    fn counter_holds_block_then_stream_and_key_the_seed() {
        let philox = Philox::new(0x299f_31d0_a409_3822);
        let expected = philox4x32_10([0x243f_6a88, 0x85a3_08d3, 7, 0], [0xa409_3822, 0x299f_31d0]);
        assert_eq!(philox.block(7, 0x85a3_08d3_243f_6a88), expected);
    }

    #[test]
    fn normals_are_close_to_the_f64_formula() {
        let mut worst = 0.0f64;
        let edges = [0, 1, 2, 3, 1 << 29, (1 << 29) - 1, 1 << 30, 1 << 31, 3 << 30, u32::MAX - 1, u32::MAX];
        let random = (0..50_000u64).flat_map(|i| Philox::new(9).block(0, i));
        let words: Vec<u32> = edges.into_iter().chain(random).collect();
        for pair in words.windows(2) {
            let u = f64::from(uniform(pair[0]));
            assert!((u * 4_294_967_296.0 - f64::from(pair[0]) - 0.5).abs() <= 256.5);
            let (radius, angle) = ((-2.0 * u.ln()).sqrt(), std::f64::consts::TAU * f64::from(pair[1]) / 4_294_967_296.0);
            let z = normals([pair[0], pair[1], 0, 0]);
            for (z, reference) in [(z[0], radius * angle.cos()), (z[1], radius * angle.sin())] {
                assert!(z.is_finite());
                worst = worst.max((f64::from(z) - reference).abs());
            }
        }
        assert!(worst < 1e-6, "worst error {worst:e}");
    }

    #[test]
    fn moments_are_those_of_a_unit_normal() {
        let n = 400_000;
        let mut z = vec![0.0f32; n];
        Philox::new(u64::MAX).fill_normal(3, &mut z);
        let moment = |k: i32| z.iter().map(|&v| f64::from(v).powi(k)).sum::<f64>() / n as f64;
        // Five standard deviations of each estimate: sqrt(1, 2, 15, 96) / sqrt(n).
        for (k, expected, spread) in [(1, 0.0, 1.0), (2, 1.0, 2f64.sqrt()), (3, 0.0, 15f64.sqrt()), (4, 3.0, 96f64.sqrt())] {
            approx::assert_abs_diff_eq!(moment(k), expected, epsilon = 5.0 * spread / (n as f64).sqrt());
        }
        for lag in [1, 2, 4] {
            let covariance = z.windows(lag + 1).map(|w| f64::from(w[0] * w[lag])).sum::<f64>() / n as f64;
            approx::assert_abs_diff_eq!(covariance, 0.0, epsilon = 5.0 / (n as f64).sqrt());
        }
    }

    #[test]
    fn any_cut_gives_the_same_elements() {
        let philox = Philox::new(1 << 40);
        let mut whole = vec![0.0f32; 101];
        philox.fill_normal(2, &mut whole);
        for cut in [0, 1, 2, 3, 4, 5, 50, 99, 101] {
            let mut parts = vec![f32::NAN; 101];
            let (left, right) = parts.split_at_mut(cut);
            philox.fill_normal_from(2, cut as u64, right);
            philox.fill_normal_from(2, 0, left);
            assert_eq!(parts, whole, "cut at {cut}");
        }
    }

    #[test]
    fn seeds_and_streams_differ() {
        let draw = |seed, stream| {
            let mut z = [0.0f32; 4];
            Philox::new(seed).fill_normal(stream, &mut z);
            z
        };
        let all = [draw(0, 0), draw(1, 0), draw(1 << 32, 0), draw(0, 1), draw(0, 2)];
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!(a, b);
            }
        }
    }
}
